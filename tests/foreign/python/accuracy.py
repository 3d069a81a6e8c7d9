"""How often the sample collection answers rightly, asked over gRPC alone.

A name is right when a picture of its own group is among the first five groups; a picture when its own English name is among
the first five English names; a phrase when a group that it accepts is.
"""

import asyncio
import collections
import json

import grpc
from google.protobuf import field_mask_pb2

import stubs

COLLECTION = "emoji"
TOP = 5
# Calls at a time: enough to keep two cores busy, far below the server's queue.
CALLS = 32


async def listing(channel):
    """Every item of the collection with its source, page by page."""
    stub = stubs.item_grpc.ItemServiceStub(channel)
    mask = field_mask_pb2.FieldMask(paths=["metadata", "source"])
    request = stubs.item.ListItemsRequest(collection=COLLECTION, page_size=1000, read_mask=mask)
    items = []
    while True:
        page = await stub.ListItems(request)
        items += page.items
        if not page.next_page_token:
            return items
        request.page_token = page.next_page_token


async def each(questions, ask):
    """Asks every question, some at a time, and gives the answers in order."""
    answers = [None] * len(questions)
    left = iter(enumerate(questions))

    async def worker():
        for place, question in left:
            answers[place] = await ask(question)

    await asyncio.gather(*(worker() for _ in range(CALLS)))
    return answers


def share(answers):
    return sum(answers) / len(answers) if answers else 0.0


class Asker:
    def __init__(self, channel):
        self.searches = stubs.search_grpc.SearchServiceStub(channel)
        compare = stubs.common.Compare(key="lang", value=stubs.common.Value(text_value="en"))
        self.english = stubs.common.Filter(compare=compare)

    async def groups_of(self, text):
        request = stubs.search.SearchTextToImageRequest(
            collection=COLLECTION, text=text, limit=TOP, one_per_group=True
        )
        return [hit.group for hit in (await self.searches.SearchTextToImage(request)).hits]

    async def name_is_right(self, item):
        return item.group in await self.groups_of(item.source.text)

    async def phrase_is_right(self, phrase):
        return not set(phrase["accept"]).isdisjoint(await self.groups_of(phrase["phrase"]))

    async def picture_is_right(self, item):
        request = stubs.search.SearchImageToTextRequest(
            collection=COLLECTION, image=item.source.image, limit=TOP, filter=self.english
        )
        return item.group in [hit.group for hit in (await self.searches.SearchImageToText(request)).hits]


async def measure(address, phrases):
    options = [("grpc.max_receive_message_length", 64 << 20)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        asker = Asker(channel)
        names, pictures = collections.defaultdict(list), collections.defaultdict(list)
        groups = set()
        for item in await listing(channel):
            if item.modality == stubs.common.MODALITY_IMAGE:
                pictures[item.metadata["style"].text_value].append(item)
                groups.add(item.group)
            else:
                names[item.metadata["lang"].text_value].append(item)
        rights = {lang: await each(items, asker.name_is_right) for lang, items in names.items()}
        seen = {style: await each(items, asker.picture_is_right) for style, items in pictures.items()}
        said = await each(phrases, asker.phrase_is_right)
    return {
        "groups_with_pictures": len(groups),
        "queries": sum(map(len, [*rights.values(), *seen.values(), said])),
        "name_to_picture": {lang: share(answers) for lang, answers in sorted(rights.items())},
        "picture_to_english_name": share([answer for answers in seen.values() for answer in answers]),
        "picture_to_english_name_by_style": {style: share(answers) for style, answers in sorted(seen.items())},
        "phrases": share(said),
        "phrases_missed": [phrase["phrase"] for phrase, right in zip(phrases, said) if not right],
    }


def run(address, path):
    with open(path, encoding="utf-8") as file:
        phrases = [json.loads(line) for line in file if line.strip()]
    return asyncio.run(measure(address, phrases))
