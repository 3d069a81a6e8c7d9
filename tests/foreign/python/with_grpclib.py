"""The same with grpclib, a stack that shares nothing with grpcio: HTTP/2 by h2, in Python."""

import asyncio

from grpclib.client import Channel, StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.exceptions import GRPCError

import cases
import details
import stubs

SEARCH, EMBEDDING, ITEM = (f"/diptych.v1.{name}Service" for name in ("Search", "Embedding", "Item"))


class Client:
    def __init__(self, channel):
        of = lambda kind, path, messages, name: kind(
            channel, f"{path}/{name}", getattr(messages, f"{name}Request"), getattr(messages, f"{name}Response")
        )
        self.search = of(UnaryUnaryMethod, SEARCH, stubs.search, "SearchTextToImage")
        self.batch_search = of(UnaryStreamMethod, SEARCH, stubs.search, "BatchSearch")
        self.embed_text = of(UnaryUnaryMethod, EMBEDDING, stubs.embedding, "EmbedText")
        self.batch_embed = of(UnaryUnaryMethod, EMBEDDING, stubs.embedding, "BatchEmbed")
        self.embed_stream = of(StreamStreamMethod, EMBEDDING, stubs.embedding, "EmbedStream")
        self.list_items = of(UnaryUnaryMethod, ITEM, stubs.item, "ListItems")
        messages = stubs.search.SearchTextToImageRequest, stubs.search.SearchTextToImageResponse
        self.missing = UnaryUnaryMethod(channel, f"{SEARCH}/Missing", *messages)

    async def refusal(self, call):
        try:
            await call
        except GRPCError as error:
            # The library has read the details itself.
            return details.of_details(error.details or []) | {"code": error.status.name, "message": error.message}
        except asyncio.TimeoutError:
            # How it says that the caller's own clock ended a call.
            return {"code": "DEADLINE_EXCEEDED"}
        return {"code": "OK"}

    async def embed(self, inputs):
        async with self.embed_stream.open() as stream:
            for each in inputs:
                await stream.send_message(each)
            await stream.end()
            return cases.stream_told([answer async for answer in stream], details)

    async def cancelled(self, inputs):
        """A stream that is left after its first answer, while more could be sent."""
        async with self.embed_stream.open() as stream:
            await stream.send_message(inputs[0])
            await stream.recv_message()
            await stream.cancel()
        # The library tells no code of a call that its caller cancelled.
        return {"code": "CANCELLED"}

    async def busy(self, picture):
        for turn in range(cases.ROUNDS):
            numbers = range(turn * cases.CALLS, (turn + 1) * cases.CALLS)
            calls = [self.batch_embed(cases.heavy(picture, number)) for number in numbers]
            told = [self.refusal(call) for call in calls]
            refused = [each for each in await asyncio.gather(*told) if each["code"] != "OK"]
            if refused:
                return refused[0]
        return {"code": "OK"}


async def ask(address):
    host, port = address.split(":")
    async with Channel(host, int(port)) as channel:
        client = Client(channel)
        picture = (await client.list_items(cases.first_picture())).items[0].source.image
        inputs = cases.inputs(picture)
        wrong = cases.search()
        wrong.limit = 100_000
        return {
            "search": cases.groups(await client.search(cases.search())),
            "batch_search": cases.batch_told(await client.batch_search(cases.searches()), details),
            "embed_stream": await client.embed(inputs),
            "wrong": await client.refusal(client.search(wrong)),
            "missing": await client.refusal(client.missing(cases.search())),
            "too_large": await client.refusal(
                client.embed_text(stubs.embedding.EmbedTextRequest(text=cases.TOO_LARGE))
            ),
            "late": await client.refusal(client.batch_embed(cases.heavy(picture, 9_998), timeout=0.001)),
            "cancelled": await client.cancelled(inputs),
            "busy": await client.busy(picture),
            "after": cases.groups(await client.search(cases.search())),
        }


def run(address):
    return asyncio.run(ask(address))
