"""Search, streams and errors with grpcio, and a call made from reflection alone."""

import queue

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import cases
import details
import stubs


def refusal(call):
    """Code of the call and what its details say; the code alone where the client itself ended it."""
    try:
        call()
    except grpc.RpcError as error:
        return of_error(error)
    return {"code": "OK"}


def of_error(error):
    trailers = dict(error.trailing_metadata() or ())
    told = details.of_bytes(trailers["grpc-status-details-bin"]) if "grpc-status-details-bin" in trailers else {}
    return told | {"code": error.code().name, "same_code": told.get("code") == error.code().name}


def reflected(channel):
    """A search whose messages are known from the server's reflection and from nothing else."""
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName("diptych.v1.SearchService").FindMethodByName("SearchTextToImage")
    request, reply = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
    call = channel.unary_unary(
        "/diptych.v1.SearchService/SearchTextToImage",
        request_serializer=request.SerializeToString,
        response_deserializer=reply.FromString,
    )
    return cases.groups(call(request(collection="emoji", text=cases.TEXT, limit=cases.GROUPS, one_per_group=True)))


def cancelled(stub, inputs):
    """A stream that is left after its first answer, while more could be sent."""
    def first_then_wait():
        yield inputs[0]
        yield from iter(waiting.get, None)

    waiting = queue.Queue()
    answers = stub.EmbedStream(first_then_wait())
    next(answers)
    answers.cancel()
    told = refusal(lambda: next(answers))
    waiting.put(None)
    return told


def busy(stub, picture):
    for turn in range(cases.ROUNDS):
        numbers = range(turn * cases.CALLS, (turn + 1) * cases.CALLS)
        calls = [stub.BatchEmbed.future(cases.heavy(picture, number)) for number in numbers]
        refused = [call.exception() for call in calls if call.exception() is not None]
        if refused:
            return of_error(refused[0])
    return {"code": "OK"}


def run(address):
    with grpc.insecure_channel(address) as channel:
        searches = stubs.search_grpc.SearchServiceStub(channel)
        embeddings = stubs.embedding_grpc.EmbeddingServiceStub(channel)
        items = stubs.item_grpc.ItemServiceStub(channel)
        picture = items.ListItems(cases.first_picture()).items[0].source.image
        inputs = cases.inputs(picture)
        missing = channel.unary_unary("/diptych.v1.SearchService/Missing")
        too_large = stubs.embedding.EmbedTextRequest(text=cases.TOO_LARGE)
        wrong = cases.search()
        wrong.limit = 100_000
        return {
            "search": cases.groups(searches.SearchTextToImage(cases.search())),
            "reflected": reflected(channel),
            "batch_search": cases.batch_told(searches.BatchSearch(cases.searches()), details),
            "embed_stream": cases.stream_told(embeddings.EmbedStream(iter(inputs)), details),
            "wrong": refusal(lambda: searches.SearchTextToImage(wrong)),
            "missing": refusal(lambda: missing(b"")),
            "too_large": refusal(lambda: embeddings.EmbedText(too_large)),
            "late": refusal(lambda: embeddings.BatchEmbed(cases.heavy(picture, 9_999), timeout=0.001)),
            "cancelled": cancelled(embeddings, inputs),
            "busy": busy(embeddings, picture),
            "after": cases.groups(searches.SearchTextToImage(cases.search())),
        }
