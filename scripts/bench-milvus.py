"""Search by vector: Diptych and Milvus in turn, same vectors, same callers, same recall. Run it by bench-milvus.sh.

Milvus is asked in two ways: by pymilvus, as its users do, and by its bare gRPC stub with requests made beforehand, as Diptych is.
The ratio that counts is the one to the bare stub, where the clients do the same work.
"""

import argparse
import json
import multiprocessing
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import grpc
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIMS, TOP, CALLERS, BATCH = 128, 10, 8, 256
QUERIES, CHECKED = 1000, 300
WIDTHS = [10, 12, 16, 20, 24, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512]
GOALS = [0.95, 0.98]
NAME = "bench"
OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


def clustered(rows, rng):
    """Unit vectors around a hundredth as many centres; queries are drawn as rows are."""
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    centres = unit(rng.standard_normal((max(rows // 100, 10), DIMS), dtype=np.float32))
    near = lambda n: unit(centres[rng.integers(len(centres), size=n)] + 0.6 * unit(rng.standard_normal((n, DIMS), dtype=np.float32)))
    return near(rows), near(QUERIES)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def made(call):
    """Whether a call went through; False while the server says that it is starting."""
    try:
        call()
        return True
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise
        return False


class Diptych:
    name = "diptych"

    def __init__(self, program, folder, vectors):
        self.address = f"127.0.0.1:{free_port()}"
        command = [program, "--sample", "false", "--data-dir", str(folder), "--listen", self.address]
        command += ["--ops-listen", f"127.0.0.1:{free_port()}", "--batch-items", str(BATCH), "--log", "warn"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            self.fill(vectors)
        except BaseException:
            self.stop()
            raise

    def fill(self, vectors):
        s = stubs()
        channel = grpc.insecure_channel(self.address, options=OPTIONS)
        grpc.channel_ready_future(channel).result(timeout=60)
        collections = s.collection_grpc.CollectionServiceStub(channel)
        request = s.collection.CreateCollectionRequest(name=NAME, dimensions=s.collection.Dimensions(shared=DIMS))
        while not made(lambda: collections.CreateCollection(request)):
            time.sleep(0.05)
        items = s.item_grpc.ItemServiceStub(channel)

        def entry(number):
            packed = s.common.Vector(dimension=DIMS, packed_f32=vectors[number].tobytes())
            item = s.item.ItemInput(id=str(number), modality=s.common.MODALITY_IMAGE, vectors=s.common.Vectors(shared=packed))
            return s.item.BatchUpsertItemsRequest.Entry(item=item)

        began, sent = time.monotonic(), []
        for first in range(0, len(vectors), BATCH):
            entries = [entry(number) for number in range(first, min(first + BATCH, len(vectors)))]
            sent.append(items.BatchUpsertItems.future(s.item.BatchUpsertItemsRequest(collection=NAME, entries=entries)))
            if len(sent) == 8:
                assert all(result.HasField("written") for result in sent.pop(0).result().results)
        for call in sent:
            call.result()
        self.insert_s = time.monotonic() - began
        print(f"diptych: {len(vectors)} rows in {self.insert_s:.1f} s", flush=True)
        # A graph answers once `cut` is set. Where the exact scan is cheaper, none does.
        ask, query = caller(self.target(), 16, vectors[:1])
        while len(vectors) >= 50_000 and not ask(query[0]).info.cut:
            time.sleep(0.2)
        self.ready_s = time.monotonic() - began
        print(f"diptych: ready after {self.ready_s:.1f} s", flush=True)

    def target(self):
        return ("diptych", self.address)

    def stop(self):
        end(self.process)


class Milvus:
    name = "milvus"

    def __init__(self, folder, vectors):
        from milvus import MilvusServer

        self.server = MilvusServer()
        self.server.set_base_dir(str(folder))
        try:
            self.server.start()
            self.fill(vectors)
        except BaseException:
            self.stop()
            raise

    def fill(self, vectors):
        import pymilvus as pm

        pm.connections.connect(host="127.0.0.1", port=self.server.listen_port)
        fields = [
            pm.FieldSchema("id", pm.DataType.INT64, is_primary=True),
            pm.FieldSchema("vector", pm.DataType.FLOAT_VECTOR, dim=DIMS),
        ]
        collection = pm.Collection(NAME, pm.CollectionSchema(fields))
        began = time.monotonic()
        for first in range(0, len(vectors), 5000):
            part = vectors[first : first + 5000]
            collection.insert([list(range(first, first + len(part))), list(part)])
        self.insert_s = time.monotonic() - began
        collection.flush()
        index = {"index_type": "HNSW", "metric_type": "COSINE", "params": {"M": 16, "efConstruction": 200}}
        collection.create_index("vector", index)
        pm.utility.wait_for_index_building_complete(NAME)
        collection.load()
        self.ready_s = time.monotonic() - began
        print(f"milvus: ready after {self.ready_s:.1f} s", flush=True)

    def target(self, bare=True):
        return ("milvus" if bare else "pymilvus", f"127.0.0.1:{self.server.listen_port}")

    def stop(self):
        process = self.server.server_proc
        if process is not None:
            end(process)


def end(process):
    """SIGTERM, and SIGKILL for what does not end by it: Milvus was seen not to within minutes."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def stubs():
    sys.path.insert(0, str(ROOT / "tests/foreign/python"))
    import stubs as made

    return made


def caller(target, width, queries):
    """A function that asks once, and what it takes for each query."""
    kind, address = target
    if kind == "diptych":
        s = stubs()
        search = s.search_grpc.SearchServiceStub(grpc.insecure_channel(address, options=OPTIONS))
        term = lambda query: s.search.Term(vector=s.common.Vector(dimension=DIMS, packed_f32=query.tobytes()))
        request = lambda query: s.search.SearchRequest(
            collection=NAME, terms=[term(query)], target=s.common.MODALITY_IMAGE, limit=TOP, ef_search=width
        )
        return search.Search, [request(query) for query in queries]
    import pymilvus as pm

    host, port = address.split(":")
    parameters = {"metric_type": "COSINE", "params": {"ef": width}}
    if kind == "pymilvus":
        pm.connections.connect(host=host, port=port)
        collection = pm.Collection(NAME)
        ask = lambda query: collection.search([query], "vector", parameters, TOP, consistency_level="Eventually")
        return ask, list(queries)
    from pymilvus.client.prepare import Prepare
    from pymilvus.grpc_gen import milvus_pb2_grpc

    pm.connections.connect(host=host, port=port)
    stub = milvus_pb2_grpc.MilvusServiceStub(grpc.insecure_channel(address, options=OPTIONS))
    # 3 is "Eventually", the least that can be asked for; Diptych's answers show every write before them.
    request = lambda query: Prepare.search_requests_with_expr(NAME, [query], "vector", parameters, TOP, consistency_level=3)
    return stub.Search, [request(query) for query in queries]


def ids(kind, reply):
    if kind == "diptych":
        return {int(hit.id) for hit in reply.hits}
    if kind == "pymilvus":
        return set(reply[0].ids)
    assert reply.status.error_code == 0, reply.status
    return set(reply.results.ids.int_id.data)


def recall(target, width, queries, right):
    ask, requests = caller(target, width, queries[:CHECKED])
    found = sum(len(ids(target[0], ask(request)) & right[place]) for place, request in enumerate(requests))
    return found / (CHECKED * TOP)


def work(target, width, queries, first, seconds, start, told):
    ask, requests = caller(target, width, queries)
    times, place = [], first
    for _ in range(50):
        ask(requests[place % len(requests)])
        place += 1
    start.wait()
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        ask(requests[place % len(requests)])
        times.append(time.monotonic() - began)
        place += 1
    told.put(times)


def measure(target, width, queries, seconds):
    """Calls per second of 8 processes, and the times of the calls in seconds."""
    # Spawned: what grpcio has running in this process must not be copied.
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(CALLERS), context.Queue()
    callers = [
        context.Process(target=work, args=(target, width, queries, number * 97, seconds, start, told), daemon=True)
        for number in range(CALLERS)
    ]
    for process in callers:
        process.start()
    times = np.concatenate([told.get(timeout=seconds + 300) for _ in callers])
    for process in callers:
        process.join()
    return len(times) / seconds, times


def widths(target, queries, right):
    """For each goal the least width that reaches it, with the recall that it has."""
    chosen = {}
    for goal in GOALS:
        for ef in WIDTHS:
            if (reached := recall(target, ef, queries, right)) >= goal:
                chosen[goal] = (ef, reached)
                break
        else:
            chosen[goal] = (ef, reached)
    return chosen


def row(name, goal, ef, reached, runs):
    times = np.concatenate([times for _, times in runs]) * 1000
    return {
        "peer": name,
        "goal": goal,
        "ef": ef,
        "recall_at_10": round(reached, 4),
        "qps": round(float(np.mean([qps for qps, _ in runs])), 1),
        "qps_of_rounds": [round(qps, 1) for qps, _ in runs],
        "p50_ms": round(float(np.percentile(times, 50)), 3),
        "p99_ms": round(float(np.percentile(times, 99)), 3),
    }


def report(rows, out, facts):
    print("\n| recall@10 at least | peer | ef | recall@10 | calls/s | p50 ms | p99 ms | diptych: calls/s | diptych: p99 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        ours = next(other for other in rows if other["goal"] == row["goal"] and other["peer"] == "diptych")
        row["diptych_qps_ratio"] = round(ours["qps"] / row["qps"], 2)
        row["diptych_p99_ratio"] = round(ours["p99_ms"] / row["p99_ms"], 2)
        cells = [row["goal"], row["peer"], row["ef"], row["recall_at_10"], row["qps"], row["p50_ms"], row["p99_ms"]]
        cells += [f"{row['diptych_qps_ratio']}x", f"{row['diptych_p99_ratio']}x"]
        print("| " + " | ".join(map(str, cells)) + " |")
    path = pathlib.Path(out) / "result.json"
    path.write_text(json.dumps({**facts, "rows": rows}, indent=1))
    print(f"\n{json.dumps(facts)}\nfigures in {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    vectors, queries = clustered(arguments.rows, np.random.default_rng(1))
    order = np.argsort(-(queries[:CHECKED] @ vectors.T), axis=1)[:, :TOP]
    right = [set(map(int, line)) for line in order]
    # Both servers run throughout, so that neither has the memory or the caches of the machine to itself.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="data-", dir=arguments.out))
    servers = []
    try:
        servers.append(Diptych(arguments.server, folder / "diptych", vectors))
        servers.append(Milvus(folder / "milvus", vectors))
        ours, theirs = servers
        peers = {"diptych": ours.target(), "milvus": theirs.target(), "milvus by pymilvus": theirs.target(bare=False)}
        found = {name: widths(target, queries, right) for name, target in peers.items()}
        rows = []
        for goal in GOALS:
            runs = {name: [] for name in peers}
            for number in range(arguments.rounds):
                for name, target in peers.items():
                    runs[name].append(measure(target, found[name][goal][0], queries, arguments.seconds))
                    print(f"recall {goal}, round {number + 1}: {name} {runs[name][-1][0]:.0f} calls/s", flush=True)
            rows += [row(name, goal, *found[name][goal], runs[name]) for name in peers]
        load = pathlib.Path("/proc/loadavg").read_text().split()[:3]
        facts = {"rows_stored": arguments.rows, "dims": DIMS, "callers": CALLERS, "load": load}
        facts |= {f"{server.name}_{what}": round(getattr(server, what), 1) for server in servers for what in ("insert_s", "ready_s")}
        report(rows, arguments.out, facts)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
