"""A client of Diptych that has nothing of ours but the proto files.

    python tests/foreign/python/main.py HOST:PORT '{"do": "contract"}'
    python tests/foreign/python/main.py HOST:PORT '{"do": "grpcio"}'
    python tests/foreign/python/main.py HOST:PORT '{"do": "grpclib"}'
    python tests/foreign/python/main.py HOST:PORT,HOST:PORT '{"do": "load"}'
    python tests/foreign/python/main.py HOST:PORT '{"do": "accuracy", "phrases": "tests/fixtures/phrases.jsonl"}'

Prints one JSON object. It needs the packages of scripts/tools.txt and judges nothing: tests/tests/it/foreign.rs and
accuracy.rs say what must come out.
"""

import json
import sys

import accuracy
import contract
import load
import with_grpcio
import with_grpclib


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    address, job = sys.argv[1], json.loads(sys.argv[2])
    if job["do"] == "contract":
        told = contract.run(address)
    elif job["do"] == "grpcio":
        told = with_grpcio.run(address)
    elif job["do"] == "grpclib":
        told = with_grpclib.run(address)
    elif job["do"] == "load":
        told = load.run(address.split(","))
    elif job["do"] == "accuracy":
        told = accuracy.run(address, job["phrases"])
    else:
        raise SystemExit(f"cannot do {job['do']!r}; can do: contract, grpcio, grpclib, load, accuracy")
    json.dump(told, sys.stdout, ensure_ascii=False)
    print()


main()
