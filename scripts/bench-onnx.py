"""Networks of our operations beside the same ones in ONNX Runtime, run in turn.

    bash scripts/bench-onnx.sh --networks minilm vit-s16 --rounds 9

Weights are random and the same on both sides: this script draws them, writes them for our program and
builds ONNX graphs of them, batch norms already folded, with ONNX Runtime's own fusions all allowed.
`default` is the image tower of the bundle in server/sample with its weights, group norms as PyTorch exports them.
`--attention fused` takes its contributed MultiHeadAttention in place of what an export has.
Each round times one side, then the other; a ratio is that of the medians, ours / theirs. With load on the
machine look at the processor time, which is that of all threads together.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import time

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

# Kernel, stride, expansion, outputs, repeats.
LITE0 = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3),
         (5, 2, 6, 192, 4), (3, 1, 6, 320, 1)]


class Graph:
    """An ONNX graph and its weights in the making."""

    def __init__(self, seed, fused):
        self.random = numpy.random.default_rng(seed)
        self.nodes, self.constants, self.weights = [], [], {}
        self.count, self.fused = 0, fused

    def draw(self, name, shape, scale=1.0, offset=0.0):
        values = self.random.standard_normal(shape, dtype=numpy.float32)
        self.weights[name] = (values * scale + offset).astype(numpy.float32)
        return self.weights[name]

    def constant(self, values):
        self.count += 1
        name = f"c{self.count}"
        self.constants.append(numpy_helper.from_array(numpy.asarray(values), name))
        return name

    def add(self, op, *inputs, domain="", **attributes):
        self.count += 1
        name = f"t{self.count}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], domain=domain, **attributes))
        return name

    def conv(self, x, name, inputs, outputs, kernel, stride=1, pads=(0, 0, 0, 0), groups=1):
        fan = inputs // groups * kernel * kernel
        weight = self.draw(f"{name}.weight", (outputs, inputs // groups, kernel, kernel), (2 / fan) ** 0.5)
        bias = self.draw(f"{name}.bias", (outputs,), 0.1)
        return self.add("Conv", x, self.constant(weight), self.constant(bias), kernel_shape=[kernel, kernel],
                        strides=[stride, stride], pads=list(pads), group=groups)

    def linear(self, x, name, inputs, outputs):
        weight = self.draw(f"{name}.weight", (outputs, inputs), inputs ** -0.5)
        bias = self.draw(f"{name}.bias", (outputs,), 0.1)
        product = self.add("MatMul", x, self.constant(numpy.ascontiguousarray(weight.T)))
        return self.add("Add", product, self.constant(bias))

    def norm(self, x, name, width, epsilon):
        scale = self.draw(f"{name}.weight", (width,), 0.1, 1.0)
        shift = self.draw(f"{name}.bias", (width,), 0.1)
        return self.add("LayerNormalization", x, self.constant(scale), self.constant(shift), axis=-1, epsilon=epsilon)

    def attention(self, x, name, width, heads):
        """As `linear` for q, k and v, whose weights lie one after the other for our side."""
        parts = [self.linear(x, f"{name}.{part}", width, width) for part in "qkv"]
        for kind in ("weight", "bias"):
            self.weights[f"{name}.{kind}"] = numpy.concatenate(
                [self.weights.pop(f"{name}.{part}.{kind}") for part in "qkv"])
        if self.fused:
            return self.add("MultiHeadAttention", *parts, domain="com.microsoft", num_heads=heads)
        split = self.constant(numpy.array([0, 0, heads, width // heads], numpy.int64))
        q, k, v = (self.add("Reshape", part, split) for part in parts)
        q, v = (self.add("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
        k = self.add("Transpose", k, perm=[0, 2, 3, 1])
        scores = self.add("Div", self.add("MatMul", q, k), self.constant(numpy.float32((width // heads) ** 0.5)))
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), v)
        mixed = self.add("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.add("Reshape", mixed, self.constant(numpy.array([0, 0, width], numpy.int64)))

    def relu6(self, x):
        return self.add("Clip", x, self.constant(numpy.float32(0)), self.constant(numpy.float32(6)))

    def pooled(self, x):
        return self.add("Flatten", self.add("GlobalAveragePool", x))


def resnet18(g, x):
    x = g.add("Relu", g.conv(x, "stem", 3, 64, 7, 2, (3, 3, 3, 3)))
    x = g.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = 64
    for block in range(8):
        outputs, stride = 64 << block // 2, 2 if block in (2, 4, 6) else 1
        name = f"blocks.{block}"
        inner = g.add("Relu", g.conv(x, f"{name}.first", inputs, outputs, 3, stride, (1, 1, 1, 1)))
        inner = g.conv(inner, f"{name}.second", outputs, outputs, 3, 1, (1, 1, 1, 1))
        shortcut = x if stride == 1 else g.conv(x, f"{name}.shortcut", inputs, outputs, 1, stride)
        x, inputs = g.add("Relu", g.add("Add", inner, shortcut)), outputs
    return g.pooled(x)


def same(side, kernel, stride):
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return (total // 2, total // 2, total - total // 2, total - total // 2)


def lite0(g, x):
    x = g.relu6(g.conv(x, "stem", 3, 32, 3, 2, same(224, 3, 2)))
    side, inputs, block = 112, 32, 0
    for kernel, stage_stride, expansion, outputs, repeats in LITE0:
        for repeat in range(repeats):
            stride, wide, name = stage_stride if repeat == 0 else 1, inputs * expansion, f"blocks.{block}"
            inner = x
            if expansion > 1:
                inner = g.relu6(g.conv(inner, f"{name}.expand", inputs, wide, 1))
            pads = same(side, kernel, stride)
            inner = g.relu6(g.conv(inner, f"{name}.depthwise", wide, wide, kernel, stride, pads, wide))
            inner = g.conv(inner, f"{name}.project", wide, outputs, 1)
            x = g.add("Add", inner, x) if stride == 1 and inputs == outputs else inner
            side, inputs, block = -(-side // stride), outputs, block + 1
    return g.pooled(g.relu6(g.conv(x, "head", 320, 1280, 1)))


def mlp(g, x, name):
    return g.linear(g.add("Gelu", g.linear(x, f"{name}.up", 384, 1536)), f"{name}.down", 1536, 384)


def vit(g, x):
    x = g.conv(x, "patch", 3, 384, 16, 16)
    flat = g.constant(numpy.array([0, 0, -1], numpy.int64))
    x = g.add("Transpose", g.add("Reshape", x, flat), perm=[0, 2, 1])
    # The class token once for each sample of the batch, which only the input's shape tells.
    batch = g.add("Shape", x, start=0, end=1)
    shape = g.add("Concat", batch, g.constant(numpy.array([1, 384], numpy.int64)), axis=0)
    token = g.add("Expand", g.constant(g.draw("class", (1, 1, 384), 0.1)), shape)
    x = g.add("Concat", token, x, axis=1)
    x = g.add("Add", x, g.constant(g.draw("position", (1, 197, 384), 0.1)))
    for layer in range(12):
        name = f"layers.{layer}"
        mixed = g.attention(g.norm(x, f"{name}.norm1", 384, 1e-6), f"{name}.qkv", 384, 6)
        x = g.add("Add", g.linear(mixed, f"{name}.out", 384, 384), x)
        x = g.add("Add", mlp(g, g.norm(x, f"{name}.norm2", 384, 1e-6), name), x)
    x = g.add("Gather", x, g.constant(numpy.int64(0)), axis=1)
    return g.norm(x, "norm", 384, 1e-6)


def minilm(g, x):
    for layer in range(6):
        name = f"layers.{layer}"
        mixed = g.linear(g.attention(x, f"{name}.qkv", 384, 12), f"{name}.out", 384, 384)
        x = g.norm(g.add("Add", mixed, x), f"{name}.norm1", 384, 1e-12)
        x = g.norm(g.add("Add", mlp(g, x, name), x), f"{name}.norm2", 384, 1e-12)
    return g.add("ReduceMean", x, g.constant(numpy.array([1], numpy.int64)), keepdims=0)


BUNDLE = pathlib.Path(__file__).parent.parent / "server/sample/bundle"


def stored(prefix):
    """Weights of the bundle whose names begin so, in f32, by name."""
    data = (BUNDLE / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    weights = {}
    for name, entry in json.loads(data[8:start]).items():
        if name.startswith(prefix):
            begin, end = entry["data_offsets"]
            dtype = {"F16": numpy.float16, "F32": numpy.float32}[entry["dtype"]]
            values = numpy.frombuffer(data[start + begin:start + end], dtype)
            weights[name] = values.reshape(entry["shape"]).astype(numpy.float32)
    return weights


def default(g, x):
    config = json.loads((BUNDLE / "bundle.json").read_text())["model"]["image_tower"]
    g.weights.update(stored("image.tower."))
    positions = g.constant(numpy.array([2, 3], numpy.int64))

    def conv(x, name, stride):
        weight = g.weights[f"image.tower.{name}.weight"]
        pad = weight.shape[2] // 2
        return g.add("Conv", x, g.constant(weight), kernel_shape=list(weight.shape[2:]), strides=[stride, stride],
                     pads=[pad] * 4)

    def norm(x, name, side):
        scale, shift = (g.weights[f"image.tower.{name}.{part}"] for part in ("weight", "bias"))
        groups = config["groups"]
        ones, zeros = numpy.ones(groups, numpy.float32), numpy.zeros(groups, numpy.float32)
        flat = g.add("Reshape", x, g.constant(numpy.array([0, groups, -1], numpy.int64)))
        flat = g.add("InstanceNormalization", flat, g.constant(ones), g.constant(zeros), epsilon=1e-5)
        x = g.add("Reshape", flat, g.constant(numpy.array([0, len(scale), side, side], numpy.int64)))
        x = g.add("Mul", x, g.constant(scale.reshape(-1, 1, 1)))
        return g.add("Add", x, g.constant(shift.reshape(-1, 1, 1)))

    def statistics_of(x):
        mean = g.add("ReduceMean", x, positions, keepdims=1)
        centred = g.add("Sub", x, mean)
        variance = g.add("ReduceMean", g.add("Mul", centred, centred), positions, keepdims=0)
        deviation = g.add("Sqrt", g.add("Add", variance, g.constant(numpy.float32(1e-5))))
        return [g.add("Flatten", mean), deviation, g.add("ReduceMax", x, positions, keepdims=0)]

    stem, side = conv(x, "stem.conv", config["stem_stride"]), -(-config["size"] // config["stem_stride"])
    early = statistics_of(x) + statistics_of(stem)
    x, width = g.add("Relu", norm(stem, "stem.norm", side)), config["widths"][0]
    for stage, outputs in enumerate(config["widths"]):
        for block in range(config["blocks_per_stage"]):
            stride, name = 2 if stage > 0 and block == 0 else 1, f"stages.{stage}.{block}"
            side = -(-side // stride)
            inner = g.add("Relu", norm(conv(x, f"{name}.first.conv", stride), f"{name}.first.norm", side))
            inner = norm(conv(inner, f"{name}.second.conv", 1), f"{name}.second.norm", side)
            if stride > 1 or width != outputs:
                x = norm(conv(x, f"{name}.shortcut.conv", stride), f"{name}.shortcut.norm", side)
            x, width = g.add("Relu", g.add("Add", inner, x)), outputs
        if stage + 1 < config["early_stages"]:
            early += statistics_of(x)
    return g.add("Concat", g.pooled(x), *early, axis=1)


# The network, and its cases: a name, and the input's shape.
PICTURES = [("b1", (1, 3, 224, 224)), ("b16", (16, 3, 224, 224))]
NETWORKS = {
    "resnet18": (resnet18, PICTURES),
    "lite0": (lite0, PICTURES),
    "vit-s16": (vit, PICTURES),
    "minilm": (minilm, [("b1-s8", (1, 8, 384)), ("b1-s128", (1, 128, 384)), ("b16-s8", (16, 8, 384)),
                        ("b16-s128", (16, 128, 384))]),
    "default": (default, [("b1", (1, 3, 48, 48)), ("b16", (16, 3, 48, 48))]),
}


def write(folder, name, fused):
    """Writes the network's weights, inputs and ONNX graph."""
    build, cases = NETWORKS[name]
    g = Graph(7, fused)
    y = build(g, "x")
    rank = len(cases[0][1])
    shape = ["batch", *cases[0][1][1:]] if rank == 4 else ["batch", "tokens", 384]
    graph = helper.make_graph(
        g.nodes, name, [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, None)], g.constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / f"{name}.onnx")
    numpy.savez(folder / f"{name}.npz", **g.weights)
    for case, shape in cases:
        values = numpy.random.default_rng(3).standard_normal(shape, dtype=numpy.float32)
        numpy.save(folder / f"{name}-{case}.npy", values)


class Theirs:
    """ONNX Runtime with a number of threads."""

    def __init__(self, folder, threads):
        self.folder, self.threads, self.sessions = folder, threads, {}

    def run(self, name, case, runs):
        if name not in self.sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.inter_op_num_threads = 1
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
            # Threads that wait for work by turning would count as work, and take it from the other side.
            options.add_session_config_entry("session.intra_op.allow_spinning", "1")
            options.add_session_config_entry("session.force_spinning_stop", "1")
            self.sessions[name] = onnxruntime.InferenceSession(
                self.folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        x = numpy.load(self.folder / f"{name}-{case}.npy")
        walls, processor = [], time.process_time()
        for _ in range(runs):
            wall = time.perf_counter()
            self.y = self.sessions[name].run(None, {"x": x})[0]
            walls.append((time.perf_counter() - wall) * 1e3)
        return walls, (time.process_time() - processor) * 1e3 / runs


class Ours:
    """Our program, which answers line by line."""

    def __init__(self, program, folder, threads):
        self.folder = folder
        self.process = subprocess.Popen([program, "serve", folder, str(threads)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, name, case, runs):
        processor = self.processor()
        self.process.stdin.write(f"{name} {case} {runs}\n")
        self.process.stdin.flush()
        walls = [float(word) for word in self.process.stdout.readline().split()]
        processor = (self.processor() - processor) * 1e3 / runs
        self.y = numpy.load(self.folder / f"{name}-{case}-ours.npy")
        return walls, processor

    def processor(self):
        """Seconds that all threads of the program have computed: its clock as Linux numbers it."""
        return time.clock_gettime(~self.process.pid << 3 | 2)


def compare(sides, name, case, rounds):
    """Medians of wall and processor time of both sides, after a run that warms up and is checked."""
    ours, theirs = sides
    once = [side.run(name, case, 2)[0][-1] for side in sides]
    scale = numpy.abs(theirs.y).max()
    difference = numpy.abs(ours.y - theirs.y).max() / scale
    assert difference < 1e-3, f"{name} {case}: outputs differ by {difference:.1e} of {scale:.2f}"
    runs = max(1, min(20, int(60 / max(once))))
    walls, processors = [[], []], [[], []]
    for _ in range(rounds):
        for which, side in enumerate(sides):
            wall, processor = side.run(name, case, runs)
            walls[which] += wall
            processors[which].append(processor)
    columns = [[statistics.median(walls[which]), statistics.median(processors[which])] for which in (0, 1)]
    return columns, [min(list_of) for list_of in walls], difference


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--bench-ops", required=True)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--cases", nargs="+", help="beginnings of names of cases; all unless given")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--attention", choices=["parts", "fused"], default="parts")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.networks:
        write(folder, name, arguments.attention == "fused")
    load = pathlib.Path("/proc/loadavg").read_text().split()[:3]
    print(f"onnxruntime {onnxruntime.__version__}, attention in {arguments.attention}, load {' '.join(load)}")
    print("medians in ms      threads |  wall: ours  theirs  ratio | fastest  ratio | processor  ratio | differ")
    for threads in arguments.threads:
        sides = (Ours(arguments.bench_ops, folder, threads), Theirs(folder, threads))
        for name in arguments.networks:
            for case, _ in NETWORKS[name][1]:
                if arguments.cases and not any(case.startswith(begin) for begin in arguments.cases):
                    continue
                (ours, theirs), fastest, difference = compare(sides, name, case, arguments.rounds)
                print(f"{name:9} {case:9} {threads:6} | {ours[0]:11.2f} {theirs[0]:7.2f} {ours[0] / theirs[0]:6.2f} |"
                      f" {fastest[0]:7.2f} {fastest[0] / fastest[1]:6.2f} |"
                      f" {ours[1]:9.2f} {ours[1] / theirs[1]:6.2f} | {difference:.0e}", flush=True)
        sides[0].process.stdin.close()
        sides[0].process.wait()
    load = pathlib.Path("/proc/loadavg").read_text().split()[:3]
    print(f"load {' '.join(load)}")


if __name__ == "__main__":
    main()
