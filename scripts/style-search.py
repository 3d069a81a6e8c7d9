"""Same thing, other style: what `diptych search --like` finds with an exclusive term and without, through gRPC.

Usage: style-search.py [--bundle DIR] [--queries 300] [--style-weight W]...

Starts a server with a bundle and its sample of emoji, draws concepts that stand there in all three styles, and asks for each
picture A of theirs, in turn:

- `--like A`: what it shows alone;
- `--like A --other-style`: right if the first hit shows the same concept in another style than A's;
- `--like A --style-of B`, B a picture of another concept: right if the first hit shows A's concept in B's style.

All drawings may be among the hits (`--one-per-group=false`), A itself too. Beside each: the same without the exclusive term, where A itself
is left out, since it would always come first.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile

from serving import launch

SERVER, CLIENT, PACK = "target/release/diptych-server", "target/release/diptych", "server/sample/emoji.tar.gz"
GRPC, OPS = "127.0.0.1:50376", "127.0.0.1:51376"


def start(folder, bundle):
    command = [SERVER, "--listen", GRPC, "--ops-listen", OPS, "--data-dir", os.path.join(folder, "data"), "--log-format", "json"]
    if bundle:
        command += ["--bundle", bundle, "--sample", "true"]
    return launch(command, OPS)


def pictures(folder):
    """Concept to style to (id, file) of those drawn in all styles."""
    with tarfile.open(PACK) as pack:
        pack.extractall(folder, filter="data")
    by_concept = {}
    with open(os.path.join(folder, "items.jsonl"), encoding="utf-8") as lines:
        for line in lines:
            item = json.loads(line)
            if item.get("modality") == "image":
                drawn = by_concept.setdefault(item["group"], {})
                drawn[item["metadata"]["style"]] = (item["id"], os.path.join(folder, item["file"]))
    styles = {style for drawn in by_concept.values() for style in drawn}
    return {concept: drawn for concept, drawn in by_concept.items() if set(drawn) == styles}, sorted(styles)


def first(arguments, without=None):
    """(style, concept) of the first hit that is not `without`."""
    command = [CLIENT, "search", "--server", f"http://{GRPC}", "--json", "--one-per-group=false", "--limit", "2", *arguments]
    hits = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, stdin=subprocess.DEVNULL).stdout)["hits"]
    _, style, concept = next(hit["id"] for hit in hits if hit["id"] != without).split("/")
    return style, concept


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--style-weight", action="append", default=None)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="diptych-style-")
    server = start(folder, arguments.bundle)
    try:
        drawn, styles = pictures(folder)
        chosen = random.Random(17)
        concepts = sorted(drawn)
        asked = []
        for _ in range(arguments.queries):
            concept, other = chosen.sample(concepts, 2)
            own, wanted = chosen.sample(styles, 2)
            asked.append((concept, own, wanted, drawn[other][wanted][1]))
        print(f"{len(asked)} pictures of {len(concepts)} concepts drawn in {', '.join(styles)}; the first hit shows the same thing and is drawn")
        print("| asked | in another style | in the style asked for |")
        print("|---|---|---|")
        plain = [first(["--like", drawn[c][own][1]], drawn[c][own][0]) for c, own, _, _ in asked]
        another = sum(concept == c and style != own for (style, concept), (c, own, _, _) in zip(plain, asked))
        exact = sum((style, concept) == (wanted, c) for (style, concept), (c, _, wanted, _) in zip(plain, asked))
        share = lambda count: f"{count / len(asked):.3f}"
        print(f"| by what it shows alone, itself left out | {share(another)} | {share(exact)} |", flush=True)
        for weight in arguments.style_weight or ["0.3"]:
            another = exact = 0
            for concept, own, wanted, other in asked:
                like = ["--like", drawn[concept][own][1], "--style-weight", weight]
                style, found = first([*like, "--other-style"])
                another += found == concept and style != own
                exact += first([*like, "--style-of", other]) == (wanted, concept)
            print(f"| with a style, weight {weight} | {share(another)} | {share(exact)} |", flush=True)
    finally:
        server.terminate()
        server.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


main()
