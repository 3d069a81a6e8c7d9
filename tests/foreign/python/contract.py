"""The contract as a stranger meets it: every step with generated stubs and stock packages, each answer told as figures."""

import grpc
from google.protobuf import descriptor_pb2, field_mask_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

import stubs
from with_grpcio import refusal

HEARTS = ["red heart", "rotes Herz", "corazón rojo"]


def health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    names = ["", "diptych.v1.SearchService", "diptych.v1.ItemService"]
    status = health_pb2.HealthCheckResponse.ServingStatus
    return {name: status.Name(stub.Check(health_pb2.HealthCheckRequest(service=name)).status) for name in names}


def reflection(channel, version):
    """Services that reflection lists, and whether it gives the file of one of them as it is published."""
    # The messages of v1 and v1alpha are the same; the package ships those of v1alpha only.
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="diptych.v1.SearchService"),
    ]
    listed, file = list(call(iter(requests)))
    told = {}
    for data in file.file_descriptor_response.file_descriptor_proto:
        found = descriptor_pb2.FileDescriptorProto.FromString(data)
        told[found.name] = [method.name for service in found.service for method in service.method]
    published = descriptor_pb2.FileDescriptorProto()
    stubs.search.DESCRIPTOR.CopyToProto(published)
    methods = [method.name for service in published.service for method in service.method]
    return {
        "services": sorted(service.name for service in listed.list_services_response.service),
        "as_published": told.get(published.name) == methods,
    }


def hearts(channel):
    stub = stubs.search_grpc.SearchServiceStub(channel)
    found = {}
    for text in HEARTS:
        request = stubs.search.SearchTextToImageRequest(collection="emoji", text=text, limit=3, one_per_group=True)
        found[text] = [hit.group for hit in stub.SearchTextToImage(request).hits]
    return found


def picture_to_text(channel):
    """The names that a picture of a red heart finds, the picture itself read back from the server."""
    items = stubs.item_grpc.ItemServiceStub(channel)
    listing = stubs.item.ListItemsRequest(collection="emoji", group="2764", modality=stubs.common.MODALITY_IMAGE)
    first = items.ListItems(listing).items[0]
    mask = field_mask_pb2.FieldMask(paths=["source", "metadata"])
    item = items.GetItem(stubs.item.GetItemRequest(collection="emoji", id=first.id, read_mask=mask)).item
    stub = stubs.search_grpc.SearchServiceStub(channel)
    hits = stub.SearchImageToText(
        stubs.search.SearchImageToTextRequest(collection="emoji", image=item.source.image, limit=20)
    ).hits
    return {
        "id": item.id,
        "style": item.metadata["style"].text_value,
        "png": item.source.image[:8] == b"\x89PNG\r\n\x1a\n",
        "groups": [hit.group for hit in hits],
        "falling": all(a.score >= b.score for a, b in zip(hits, hits[1:])),
    }


def composed(channel):
    """A search of two terms, one of them negative: its score must be the weighted sum of the cosines it tells."""
    stub = stubs.search_grpc.SearchServiceStub(channel)
    terms = [
        stubs.search.Term(text="red heart", weight=1.0, space=stubs.common.SPACE_SHARED),
        stubs.search.Term(text="blue heart", weight=-0.5, space=stubs.common.SPACE_SHARED),
    ]
    request = stubs.search.SearchRequest(
        collection="emoji", terms=terms, target=stubs.common.MODALITY_IMAGE, limit=20, with_term_scores=True
    )
    hits = stub.Search(request).hits
    wrong = [abs(hit.score - (hit.term_scores[0] - 0.5 * hit.term_scores[1])) for hit in hits]
    return {"hits": len(hits), "worst_sum": max(wrong), "falling": all(a.score >= b.score for a, b in zip(hits, hits[1:]))}


def roundtrip(channel):
    """Make a collection, put, read, find, delete, miss."""
    collections = stubs.collection_grpc.CollectionServiceStub(channel)
    items = stubs.item_grpc.ItemServiceStub(channel)
    searches = stubs.search_grpc.SearchServiceStub(channel)
    name, text = "foreign", "ein kleines rotes Herz"
    collections.CreateCollection(stubs.collection.CreateCollectionRequest(name=name))
    item = stubs.item.ItemInput(id="a", text=text, group="g")
    item.metadata["year"].int_value = 2026
    written = items.UpsertItem(stubs.item.UpsertItemRequest(collection=name, item=item, request_id="once")).written
    again = items.UpsertItem(stubs.item.UpsertItemRequest(collection=name, item=item, request_id="once")).written
    mask = field_mask_pb2.FieldMask(paths=["source", "metadata", "vectors"])
    get = stubs.item.GetItemRequest(collection=name, id="a", read_mask=mask)
    read = items.GetItem(get).item
    terms = [stubs.search.Term(text=text)]
    search = stubs.search.SearchRequest(collection=name, terms=terms, target=stubs.common.MODALITY_TEXT)
    hits = searches.Search(search).hits
    selection = stubs.item.ItemIds(ids=["a", "b"])
    deleted = items.DeleteItems(stubs.item.DeleteItemsRequest(collection=name, ids=selection))
    gone = refusal(lambda: items.GetItem(get))
    collections.DeleteCollection(stubs.collection.DeleteCollectionRequest(name=name))
    return {
        "created": written.created,
        "versions": [written.version, again.version],
        "text_kept": read.source.text == text,
        "year": read.metadata["year"].int_value,
        "dimension_fits": len(read.vectors.shared.packed_f32) == 4 * read.vectors.shared.dimension > 0,
        "found": [hit.id for hit in hits],
        "score": hits[0].score,
        "deleted": [deleted.deleted, deleted.not_found],
        "gone": gone,
    }


def refusals(channel):
    searches = stubs.search_grpc.SearchServiceStub(channel)
    message = stubs.search.SearchTextToImageRequest
    return {
        "limit": refusal(lambda: searches.SearchTextToImage(message(collection="emoji", text="a", limit=100_000))),
        "empty": refusal(lambda: searches.SearchTextToImage(message(collection="emoji"))),
        "nowhere": refusal(lambda: searches.SearchTextToImage(message(collection="nowhere", text="a"))),
        "no picture": refusal(
            lambda: searches.SearchImageToText(
                stubs.search.SearchImageToTextRequest(collection="emoji", image=b"a red heart, not a picture")
            )
        ),
    }


def run(address):
    with grpc.insecure_channel(address) as channel:
        return {
            "health": health(channel),
            "reflection": {version: reflection(channel, version) for version in ["v1", "v1alpha"]},
            "hearts": hearts(channel),
            "picture_to_text": picture_to_text(channel),
            "composed": composed(channel),
            "roundtrip": roundtrip(channel),
            "refusals": refusals(channel),
        }
