"""Searches and embeds with grpcio at several servers, without a pause, until standard input ends.

Nothing but the retries that gRPC's own service config offers, over a list of addresses taken in turn: what a user of grpcio writes.
"""

import json
import sys
import threading

import grpc

import cases
import stubs

CALLERS = 2
MOST_TOLD = 10
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [{
        "name": [{}],
        "timeout": "60s",
        "retryPolicy": {
            "maxAttempts": 5,
            "initialBackoff": "0.1s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }],
}


class Caller(threading.Thread):
    def __init__(self, call, begun, over):
        super().__init__()
        self.call, self.begun, self.over = call, begun, over
        self.answered, self.failed = 0, []

    def run(self):
        while not self.over.is_set():
            try:
                self.call()
                self.answered += 1
            except grpc.RpcError as error:
                self.failed.append(f"{error.code().name}: {error.details()}")
            self.begun.set()


def run(addresses):
    options = [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        # A list of addresses would be sent as the authority else, which is none.
        ("grpc.default_authority", "diptych"),
    ]
    with grpc.insecure_channel("ipv4:" + ",".join(addresses), options) as channel:
        search = stubs.search_grpc.SearchServiceStub(channel)
        embed = stubs.embedding_grpc.EmbeddingServiceStub(channel)
        calls = {
            "search": lambda: search.SearchTextToImage(cases.search()),
            "embed": lambda: embed.EmbedText(stubs.embedding.EmbedTextRequest(text=cases.TEXT)),
        }
        over = threading.Event()
        callers = {name: [Caller(call, threading.Event(), over) for _ in range(CALLERS)] for name, call in calls.items()}
        every = [caller for some in callers.values() for caller in some]
        for caller in every:
            caller.start()
        for caller in every:
            caller.begun.wait()
        # Whoever started this waits for it.
        print(flush=True)
        sys.stdin.read()
        over.set()
        for caller in every:
            caller.join()
    return {
        name: {
            "answered": sum(caller.answered for caller in some),
            "failed": [failure for caller in some for failure in caller.failed][:MOST_TOLD],
        }
        for name, some in callers.items()
    }
