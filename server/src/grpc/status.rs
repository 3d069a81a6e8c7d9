//! Errors to statuses: the only place that names gRPC codes for them.

use std::collections::HashMap;
use std::time::Duration;

use diptych_proto::codec;
use diptych_proto::v1::{self, ErrorReason};
use prost::Message as _;
use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error::{Details, Error, Kind};

/// What the prefix of every reason's wire name is cut off for `ErrorInfo`.
const PREFIX: &str = "ERROR_REASON_";
/// Longest text of a status in bytes. Statuses travel as headers: what a caller sent and is told again, such as a name of
/// megabytes, would make headers that its own connection does not take.
const TEXT_BYTES: usize = 512;
/// Parts of tonic's messages when a request does not parse: its message, its compression.
const NOT_DECODED: [&str; 2] = ["decode Protobuf message", "Error decompressing"];

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        to_status(&error)
    }
}

/// The status that a caller gets: code, sentence, and google.rpc details.
pub(crate) fn to_status(error: &Error) -> tonic::Status {
    let details = error.details();
    tonic::Status::with_error_details(code(details), short(&details.message), rich(details))
}

/// A text as far as a status takes it.
fn short(text: &str) -> String {
    match text.len() {
        0..=TEXT_BYTES => text.to_owned(),
        _ => format!("{}...", &text[..text.floor_char_boundary(TEXT_BYTES)]),
    }
}

/// The same status inside a batch reply.
pub(crate) fn to_message(error: &Error) -> v1::Status {
    let status = to_status(error);
    let details = tonic_types::pb::Status::decode(status.details()).unwrap_or_default().details;
    v1::Status { code: status.code().into(), message: status.message().to_owned(), details }
}

/// A refusal by the transport itself, which gives no details, with the ones that every error has. `None` for statuses that
/// are not ours to explain, such as those of the health service. `limit` is that of a message, in bytes.
pub(crate) fn complete(status: &tonic::Status, limit: usize) -> Option<tonic::Status> {
    if !status.details().is_empty() {
        return None;
    }
    let transport = status.message();
    let (code, error) = match status.code() {
        code @ Code::ResourceExhausted if transport == codec::TOO_MANY_PARTS => {
            let sizes = ("parts", codec::MAX_PARTS as u64, codec::MAX_PARTS as u64 + 1);
            (code, Error::limit(ErrorReason::MessageTooLarge, "message", sizes))
        }
        // What other stacks call RESOURCE_EXHAUSTED tonic calls OUT_OF_RANGE, and only sometimes.
        Code::OutOfRange | Code::ResourceExhausted => {
            let (limit, actual) = (limit as u64, found(transport).unwrap_or(limit as u64 + 1));
            let sizes = ("bytes", limit, actual);
            let error = Error::limit(ErrorReason::MessageTooLarge, "message", sizes);
            (Code::ResourceExhausted, error)
        }
        Code::Unimplemented => {
            let message = if transport.is_empty() { "there is no such method" } else { transport };
            let error = Error::new(Kind::Unimplemented, ErrorReason::Unimplemented, message);
            (Code::Unimplemented, error)
        }
        // What does not parse is the caller's fault; tonic calls it INTERNAL.
        Code::Internal if NOT_DECODED.iter().any(|part| transport.contains(part)) => {
            (Code::InvalidArgument, Error::field("message", transport))
        }
        Code::Internal => (Code::Internal, Error::internal(transport)),
        _ => return None,
    };
    let details = error.details();
    Some(tonic::Status::with_error_details(code, details.message.clone(), rich(details)))
}

/// The size in tonic's "found 17000000 bytes, the limit is".
fn found(transport: &str) -> Option<u64> {
    transport.split_once("found ")?.1.split(' ').next()?.parse().ok()
}

fn code(details: &Details) -> Code {
    match details.kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::Conflict => Code::Aborted,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Cancelled => Code::Cancelled,
        Kind::Overloaded => Code::ResourceExhausted,
        Kind::Deadline => Code::DeadlineExceeded,
        Kind::Unavailable => Code::Unavailable,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::Internal => Code::Internal,
    }
}

fn rich(details: &Details) -> ErrorDetails {
    let reason = details.reason.as_str_name().trim_start_matches(PREFIX);
    let metadata = details.metadata.iter().map(|(key, value)| (key.clone(), short(value)));
    let mut rich = ErrorDetails::with_error_info(
        reason,
        diptych_proto::ERROR_DOMAIN,
        metadata.collect::<HashMap<_, _>>(),
    );
    for violation in &details.violations {
        rich.add_bad_request_violation(short(&violation.field), short(&violation.description));
    }
    if let Some(missing) = &details.resource {
        rich.set_resource_info(missing.kind.as_ref(), short(&missing.name), "", "does not exist");
    }
    if let Some(wait) = details.retry_after {
        rich.set_retry_info(Some(wait.max(Duration::from_millis(1))));
    }
    rich
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_in_violation_and_metadata() {
        let sizes = ("bytes", 256, 300);
        let error = Error::limit(ErrorReason::FieldInvalid, "id", sizes).inside("entries[2].item");
        let status = to_status(&error);
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("FIELD_INVALID", "diptych"));
        assert_eq!(info.metadata["limit"], "256");
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "entries[2].item.id");
        assert_eq!(violation.description, "300 bytes, the limit is 256");
    }

    #[test]
    fn what_a_caller_sent_is_told_again_as_far_as_headers_take_it() {
        let error = Error::missing(ErrorReason::ItemNotFound, "item", "ü".repeat(1 << 20)).at("id");
        let status = to_status(&error);
        assert!(status.details().len() < 3000, "{} bytes", status.details().len());
        assert!(status.message().len() < 600, "{} bytes", status.message().len());
        let details = status.get_error_details();
        assert!(details.resource_info().unwrap().resource_name.starts_with("üüü"));
    }

    #[test]
    fn a_batch_element_carries_the_same_status() {
        let error = Error::missing(ErrorReason::ItemNotFound, "item", "x");
        let message = to_message(&error);
        assert_eq!(message.code, i32::from(Code::NotFound));
        assert_eq!(message.details.len(), 2);
        assert_eq!(message.message, to_status(&error).message());
    }

    #[test]
    fn what_the_transport_refuses_gets_details() {
        let reason = |status: tonic::Status| {
            let complete = complete(&status, 100).unwrap();
            let info = complete.get_error_details().error_info().unwrap().clone();
            (complete.code(), info.reason, info.metadata.get("actual").cloned())
        };
        let large =
            "Error, decoded message length too large: found 120 bytes, the limit is: 100 bytes";
        let told =
            (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned(), Some("120".to_owned()));
        assert_eq!(reason(tonic::Status::out_of_range(large)), told);
        let garbled = "failed to decode Protobuf message: buffer underflow";
        let told = (Code::InvalidArgument, "FIELD_INVALID".to_owned(), None);
        assert_eq!(reason(tonic::Status::internal(garbled)), told);
        let unpacked = "Error decompressing: corrupt deflate stream, while sending request";
        assert_eq!(reason(tonic::Status::internal(unpacked)), told);
        let told = (Code::Unimplemented, "UNIMPLEMENTED".to_owned(), None);
        assert_eq!(reason(tonic::Status::unimplemented("")), told);
        let parts = tonic::Status::resource_exhausted(codec::TOO_MANY_PARTS);
        let told =
            (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned(), Some("300001".to_owned()));
        assert_eq!(reason(parts), told);
        let complete_already = to_status(&Error::field("a", "b"));
        assert!(complete(&complete_already, 100).is_none());
        assert!(complete(&tonic::Status::not_found("a health service"), 100).is_none());
    }

    #[test]
    fn an_overload_says_when_to_come_back() {
        let error = Error::new(Kind::Overloaded, ErrorReason::QueueFull, "full")
            .retry_after(Duration::from_millis(250));
        let details = to_status(&error).get_error_details();
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_millis(250)));
    }
}
