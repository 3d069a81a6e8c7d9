"""Embedding through our gRPC beside a Python gRPC server on ONNX Runtime, the same networks and weights, asked in turn by `diptych bench`.

    bash scripts/bench-python-server.sh --seconds 6 --rounds 3

Both sides get the same calls: the phrases of tests/fixtures/phrases.jsonl (5 to 10 tokens), JPEGs of 512 x 512 pixels; our cache of
vectors is off. Before
timing, both must give the same vectors. Theirs runs with each of the settings given and is judged by the best of them.
"""

import argparse
import contextlib
import io
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import grpc
import numpy
from PIL import Image

sys.path.insert(0, "tests/foreign/python")
import stubs

CALLERS = [1, 8, 32]
SIDE = ["--side", "512"]
PHRASES = ["--queries", "target/bench-python-server/phrases.txt"]
# What is called, our bundle, options of the load, theirs of images, and a name.
NETWORKS = {
    "minilm": ("embed-text", "target/weights/minilm", PHRASES, "lite0", "MiniLM-L6, texts"),
    "sample": ("embed-image", "server/sample/bundle", SIDE, "sample", "the sample's tower, JPEGs"),
    "lite0": ("embed-image", "target/weights/imported/lite0", SIDE, "lite0", "EfficientNet-Lite0, JPEGs"),
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def running(command, address):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        host, port = address.split(":")
        for _ in range(1200):
            if process.poll() is not None:
                raise SystemExit(f"ended before it served: {' '.join(map(str, command))}")
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def ours(arguments, network, address, data):
    return [arguments.programs / "diptych-server", "--listen", address, "--ops-listen", free_port(), "--data-dir", data,
            "--bundle", NETWORKS[network][1], "--sample", "false", "--cache-bytes", "0"]


def theirs(arguments, network, address, threads, workers):
    return [arguments.python, "scripts/python-server/server.py", "--listen", address, "--models", arguments.models,
            "--tokenizer", arguments.weights / "minilm" / "tokenizer.json", "--images", NETWORKS[network][3],
            "--threads", str(threads), "--workers", str(workers)]


def load(arguments, network, address, callers, seconds):
    call, _, more, _, _ = NETWORKS[network]
    command = [arguments.programs / "diptych", "bench", call, "--server", address, "--callers", str(callers), "--json",
               "--warm-up", "1s", "--duration", f"{seconds}s", "--deadline", "30s", *more]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    failed = [outcome for outcome in told["outcomes"] if outcome["code"] != "OK"]
    if failed:
        raise SystemExit(f"{network}: {failed}")
    return told["goodput"], told["latency_ms"]["p99"]


def vector(arguments, network, address):
    """One vector, by the same client from both."""
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(60)
        stub = stubs.embedding_grpc.EmbeddingServiceStub(channel)
        if NETWORKS[network][0] == "embed-text":
            told = stub.EmbedText(stubs.embedding.EmbedTextRequest(text="two children on a swing, seen from below"), wait_for_ready=True)
        else:
            picture, file = Image.open(min((arguments.weights / "peers").rglob("*.jpg"))), io.BytesIO()
            picture.crop((0, 0, 400, 400)).save(file, "JPEG", quality=90)
            told = stub.EmbedImage(stubs.embedding.EmbedImageRequest(image=file.getvalue()), wait_for_ready=True)
        return numpy.frombuffer(told.embedding.shared.packed_f32, "<f4")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--programs", type=pathlib.Path, required=True)
    arguments.add_argument("--weights", type=pathlib.Path, required=True)
    arguments.add_argument("--models", type=pathlib.Path, required=True)
    arguments.add_argument("--python", type=pathlib.Path, required=True)
    arguments.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    arguments.add_argument("--seconds", type=int, default=6)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--settings", nargs="+", default=["1:2", "1:8", "2:8"], help="ONNX Runtime's threads:workers of the pool")
    arguments = arguments.parse_args()
    phrases = pathlib.Path("tests/fixtures/phrases.jsonl").read_text().splitlines()
    pathlib.Path(PHRASES[1]).write_text("".join(json.loads(line)["phrase"] + "\n" for line in phrases))
    print(f"load {pathlib.Path('/proc/loadavg').read_text()[:14]}")
    print("| calls | callers | ours/s | p99 ms | theirs/s | p99 ms | ratio | their threads:workers |")
    print("|---|---|---|---|---|---|---|---|")
    for network in arguments.networks:
        with tempfile.TemporaryDirectory() as data, contextlib.ExitStack() as stack:
            mine = free_port()
            stack.enter_context(running(ours(arguments, network, mine, data), mine))
            peers = {}
            for setting in arguments.settings:
                peers[setting] = free_port()
                command = theirs(arguments, network, peers[setting], *setting.split(":"))
                stack.enter_context(running(command, peers[setting]))
            here = vector(arguments, network, mine)
            there = vector(arguments, network, next(iter(peers.values())))
            cosine = float(here @ there)
            if cosine < 0.9999:
                raise SystemExit(f"{network}: not the same network, cosine {cosine}")
            for callers in CALLERS:
                found = {side: [] for side in ["ours", *peers]}
                for _ in range(arguments.rounds):
                    found["ours"].append(load(arguments, network, mine, callers, arguments.seconds))
                    for setting, address in peers.items():
                        found[setting].append(load(arguments, network, address, callers, arguments.seconds))
                middle = {side: [statistics.median(values) for values in zip(*runs)] for side, runs in found.items()}
                best = max(peers, key=lambda setting: middle[setting][0])
                (rate, tail), (rate_there, tail_there) = middle["ours"], middle[best]
                print(f"| {NETWORKS[network][4]} | {callers} | {rate:.0f} | {tail:.1f} | {rate_there:.0f} | {tail_there:.1f} | "
                      f"{rate / rate_there:.2f} | {best} |", flush=True)
    print(f"load {pathlib.Path('/proc/loadavg').read_text()[:14]}")


main()
