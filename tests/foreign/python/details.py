"""What an error says about itself, by google.rpc details alone."""

from google.rpc import code_pb2, error_details_pb2, status_pb2

KNOWN = error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo


def of_bytes(data):
    """From the trailer `grpc-status-details-bin`."""
    return of_status(status_pb2.Status.FromString(data))


def of_status(status):
    """From a google.rpc.Status, or a message with its fields."""
    return {"code": code_pb2.Code.Name(status.code), "message": status.message} | of_details(map(unpacked, status.details))


def unpacked(detail):
    for known in KNOWN:
        message = known()
        if detail.Unpack(message):
            return message
    return None


def of_details(details):
    """From messages of google.rpc."""
    told = {}
    for detail in details:
        if isinstance(detail, error_details_pb2.ErrorInfo):
            told |= {"reason": detail.reason, "domain": detail.domain, "metadata": dict(detail.metadata)}
        elif isinstance(detail, error_details_pb2.BadRequest):
            told["fields"] = [violation.field for violation in detail.field_violations]
            told["descriptions"] = [violation.description for violation in detail.field_violations]
        elif isinstance(detail, error_details_pb2.RetryInfo):
            told["retry_ms"] = detail.retry_delay.ToMilliseconds()
    return told
