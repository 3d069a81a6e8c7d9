"""What batching brings: a server beside the same one with batches of one input, asked in turn by `diptych bench`.

    python3 scripts/bench-batching.py --programs target/release --seconds 6 --rounds 4

32 callers at once, then one alone. Texts are the phrases of tests/fixtures/phrases.jsonl (5 to 10 tokens of MiniLM's), pictures JPEGs of
224 x 224 pixels; caches of vectors are off. A bundle that is not there is left out (scripts/check-weights.sh makes those in target/weights).
"""

import argparse
import contextlib
import json
import pathlib
import socket
import statistics
import subprocess
import tempfile
import time

TOWERS = [
    ("MiniLM-L6, texts", "target/weights/minilm", "embed-text"),
    ("multilingual E5-small, texts", "target/weights/imported/e5", "embed-text"),
    ("the sample's, texts", "server/sample/bundle", "embed-text"),
    ("the sample's, pictures", "server/sample/bundle", "embed-image"),
    ("EfficientNet-Lite0, pictures", "target/weights/imported/lite0", "embed-image"),
]
ONE_BY_ONE = ["--encode-texts", "1", "--encode-images", "1"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def serving(programs, bundle, more):
    address = free_port()
    with tempfile.TemporaryDirectory() as data:
        command = [programs / "diptych-server", "--listen", address, "--ops-listen", free_port(), "--data-dir", data,
                   "--bundle", bundle, "--sample", "false", "--cache-bytes", "0", *more]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield address
        finally:
            process.terminate()
            process.wait()


def load(programs, call, address, callers, seconds, phrases):
    command = [programs / "diptych", "bench", call, "--server", address, "--callers", str(callers), "--json",
               "--warm-up", "1s", "--duration", f"{seconds}s", "--deadline", "30s"]
    if call == "embed-text":
        command += ["--queries", phrases]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    if len(told["outcomes"]) != 1 or told["outcomes"][0]["code"] != "OK":
        raise SystemExit(f"{call}: {told['outcomes']}")
    return told["goodput"], told["latency_ms"]["p50"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--programs", type=pathlib.Path, required=True)
    arguments.add_argument("--seconds", type=int, default=6)
    arguments.add_argument("--rounds", type=int, default=4)
    arguments = arguments.parse_args()
    print(f"load {' '.join(pathlib.Path('/proc/loadavg').read_text().split()[:3])}")
    print("| tower | 32 callers: batched/s | one by one/s | ratio | one caller: p50 ms | one by one ms | ratio |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as phrases:
        for line in pathlib.Path("tests/fixtures/phrases.jsonl").read_text().splitlines():
            phrases.write(json.loads(line)["phrase"] + "\n")
        phrases.flush()
        for name, bundle, call in TOWERS:
            if not pathlib.Path(bundle).exists():
                continue
            with serving(arguments.programs, bundle, []) as batched, serving(arguments.programs, bundle, ONE_BY_ONE) as single:
                time.sleep(3)
                found = {}
                for number in range(arguments.rounds):
                    # Who comes first is slower or faster for it: of an even number of rounds each side is first in half.
                    sides = [("batched", batched), ("single", single)][:: 1 if number % 2 == 0 else -1]
                    for callers in [32, 1]:
                        for side, address in sides:
                            run = load(arguments.programs, call, address, callers, arguments.seconds, phrases.name)
                            found.setdefault((side, callers), []).append(run)
                rate = {side: statistics.median(run[0] for run in found[side, 32]) for side in ("batched", "single")}
                p50 = {side: statistics.median(run[1] for run in found[side, 1]) for side in ("batched", "single")}
                print(f"| {name} | {rate['batched']:.0f} | {rate['single']:.0f} | {rate['batched'] / rate['single']:.2f} | "
                      f"{p50['batched']:.2f} | {p50['single']:.2f} | {p50['batched'] / p50['single']:.2f} |", flush=True)
    print(f"load {' '.join(pathlib.Path('/proc/loadavg').read_text().split()[:3])}")


main()
