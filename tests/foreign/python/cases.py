"""What every stack asks: the same requests, so that the same must come back.

`tests/tests/it/foreign.rs` says what; `tests/foreign/node/main.cjs` asks the same in JavaScript.
"""

import stubs

TEXT = "red heart"
GROUPS = 5
# A text beyond the largest message that is taken, 16 MiB.
TOO_LARGE = "a" * (17 << 20)
# Calls at once until one of them is refused for load, and how often they are sent.
CALLS, ROUNDS = 32, 20


def search(text=TEXT):
    return stubs.search.SearchTextToImageRequest(collection="emoji", text=text, limit=GROUPS, one_per_group=True)


def searches():
    """Three searches, the second without a target."""
    one = stubs.search.SearchRequest(
        collection="emoji", terms=[stubs.search.Term(text=TEXT)], target=stubs.common.MODALITY_IMAGE, limit=GROUPS
    )
    wrong = stubs.search.SearchRequest()
    wrong.CopyFrom(one)
    wrong.target = stubs.common.MODALITY_UNSPECIFIED
    return stubs.search.BatchSearchRequest(searches=[one, wrong, one])


def inputs(picture):
    """Texts and pictures to embed, one of them no picture."""
    wrong = [stubs.embedding.EmbedInput(text=TEXT), stubs.embedding.EmbedInput(image=b"no picture")]
    good = [stubs.embedding.EmbedInput(image=picture), stubs.embedding.EmbedInput(text="ein rotes Herz")]
    return [
        stubs.embedding.EmbedStreamRequest(sequence=sequence, input=each) for sequence, each in enumerate(wrong + good)
    ]


def heavy(picture, number):
    """64 pictures that no other call has: what follows a picture's end is passed over, but makes it another input."""
    each = (picture + number.to_bytes(4, "big") + bytes([place]) for place in range(64))
    return stubs.embedding.BatchEmbedRequest(inputs=[stubs.embedding.EmbedInput(image=image) for image in each])


def first_picture():
    return stubs.item.ListItemsRequest(
        collection="emoji", group="2764", modality=stubs.common.MODALITY_IMAGE, page_size=1, read_mask=stubs.mask("source")
    )


def groups(reply):
    return [hit.group for hit in reply.hits]


def batch_told(answers, details):
    """Of each answer the number of hits, or why there are none."""
    told = {}
    for answer in answers:
        refused = answer.WhichOneof("outcome") == "status"
        told[answer.index] = details.of_status(answer.status) if refused else len(answer.response.hits)
    return told


def stream_told(answers, details):
    """Of each answer the dimension of its vector, or why there is none."""
    told = {}
    for answer in answers:
        refused = answer.WhichOneof("outcome") == "status"
        told[answer.sequence] = details.of_status(answer.status) if refused else answer.embedding.shared.dimension
    return told
