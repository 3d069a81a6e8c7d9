"""The trainer's network in PyTorch: the same layers, losses, batch and optimizer, timed by stage.

    cargo run --release -p diptych-train --example bench_step -- --json > target/ours.json
    /usr/bin/python3 scripts/bench-torch.py target/ours.json --threads 2

Sizes of the network and of the batch come from that file, and so does the number of parameters, which
must be equal. Weights, pixels and token ids are random: they cost what others cost.
`scripts/bench-train.sh` runs both in turn.
"""

import argparse
import json
import os
import statistics
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("ours", help="what bench_step printed with --json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--layout", choices=["auto", "first", "last"], default="auto",
                        help="channels; auto takes what is faster here")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


ARGUMENTS = arguments()
# Read when the libraries are loaded: a BLAS with threads of its own does not hear of PyTorch's.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(ARGUMENTS.threads)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

LARGEST_SCALE = 4.605170185988092
REMOVED = 1e4
TINY = 1e-12


def statistics_of(x):
    """Mean, deviation and maximum of each channel."""
    deviation = (x.var((2, 3), unbiased=False) + 1e-5).sqrt()
    return torch.cat([x.mean((2, 3)), deviation, x.amax((2, 3))], 1)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, groups):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(groups, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(groups, outputs)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.GroupNorm(groups, outputs))

    def forward(self, x):
        inner = F.relu(self.first_norm(self.first(x)), inplace=True)
        inner = self.second_norm(self.second(inner))
        return F.relu(inner + (x if self.shortcut is None else self.shortcut(x)), inplace=True)


class ImageTower(nn.Module):
    """`conv`: features of the last stage, and statistics of the first ones."""

    def __init__(self, config):
        super().__init__()
        assert config["kind"] == "conv", config
        widths, groups = config["widths"], config["groups"]
        self.stem = nn.Conv2d(3, widths[0], 3, config["stem_stride"], 1, bias=False)
        self.stem_norm = nn.GroupNorm(groups, widths[0])
        self.stages = nn.ModuleList()
        inputs = widths[0]
        for stage, outputs in enumerate(widths):
            blocks = []
            for block in range(config["blocks_per_stage"]):
                blocks.append(Block(inputs, outputs, 2 if stage > 0 and block == 0 else 1, groups))
                inputs = outputs
            self.stages.append(nn.Sequential(*blocks))
        self.early_stages = config["early_stages"]
        self.last_width = widths[-1]
        self.early_width = 3 * (3 + widths[0] + sum(widths[:self.early_stages - 1]))

    def forward(self, pixels):
        x = self.stem(pixels)
        early = [statistics_of(pixels), statistics_of(x)]
        x = F.relu(self.stem_norm(x), inplace=True)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index + 1 < self.early_stages:
                early.append(statistics_of(x))
        return {"last": x.mean((2, 3)), "early": torch.cat(early, 1)}


class TextTower(nn.Module):
    """`ngram_bag`: a table's rows summed by word, words summed by weight, beside a hidden layer."""

    def __init__(self, config):
        super().__init__()
        assert config["kind"] == "ngram_bag", config
        self.table = nn.EmbeddingBag(config["buckets"], config["width"], mode="sum")
        nn.init.normal_(self.table.weight, std=0.1)
        self.gate = nn.Sequential(
            nn.Linear(config["width"], config["gate"]), nn.ReLU(), nn.Linear(config["gate"], 1)
        )
        self.norm = nn.LayerNorm(config["width"])
        self.hidden = nn.Linear(config["width"], config["hidden"])
        self.width = config["width"] + config["hidden"]

    @staticmethod
    def tokens(config, texts, words, ids, generator):
        """The input of a batch of `texts` with `words` and `ids` token ids in all."""
        values = torch.randint(config["buckets"], (ids,), generator=generator)
        return values, torch.arange(words) * ids // words, torch.arange(texts) * words // texts

    def forward(self, tokens):
        ids, of_words, of_texts = tokens
        words = self.table(ids, of_words)
        weighted = words * torch.sigmoid(self.gate(words))
        each = torch.arange(words.shape[0])
        sums = F.embedding_bag(each, weighted, of_texts, mode="sum")
        direct = self.norm(sums)
        return torch.cat([direct, F.relu(self.hidden(direct))], 1)


class ExclusiveHead(nn.Module):
    def __init__(self, features, hidden, outputs):
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.hidden = nn.Linear(features, hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, x):
        return F.normalize(self.output(F.silu(self.hidden(self.norm(x)))), dim=1)


class DualEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        heads = config["heads"]
        self.reads = heads["exclusive_reads"]
        self.image = ImageTower(config["image_tower"])
        self.text = TextTower(config["text_tower"])
        self.image_shared = nn.Linear(self.image.last_width, heads["shared"])
        self.text_shared = nn.Linear(self.text.width, heads["shared"])
        widths = {"last": self.image.last_width, "early": self.image.early_width}
        hidden = heads["exclusive_hidden"]
        self.image_exclusive = ExclusiveHead(
            sum(widths[read] for read in self.reads), hidden, heads["exclusive_image"])
        self.text_exclusive = ExclusiveHead(self.text.width, hidden, heads["exclusive_text"])
        self.logit_scale = nn.Parameter(torch.tensor(5.0).log())

    def forward(self, pixels, tokens):
        features = self.image(pixels)
        pictures = F.normalize(self.image_shared(features["last"]), dim=1)
        selected = torch.cat([features[read] for read in self.reads], 1)
        text = self.text(tokens)
        texts = F.normalize(self.text_shared(text), dim=1)
        return pictures, self.image_exclusive(selected), texts, self.text_exclusive(text)


def info_nce(logits, same):
    counts = same.sum(1, keepdim=True)
    matched = (counts > 0).sum().clamp(min=1)
    weights = same / (counts.clamp(min=1) * matched)
    negatives = (logits - REMOVED * same).logsumexp(1, keepdim=True)
    return (F.softplus(negatives - logits) * weights).sum()


def symmetric_info_nce(logits, rows, columns):
    same = (rows[:, None] == columns[None, :]).float()
    return 0.5 * (info_nce(logits, same) + info_nce(logits.t(), same.t()))


def alignment(left, right):
    left, right = left - left.mean(0), right - right.mean(0)

    def product(a, b):
        return (a.t() @ b).square().sum()

    scale = (product(left, left) * product(right, right) + TINY * TINY).sqrt()
    return product(left, right) / (scale + TINY)


def split_loss(model, encoded, concepts, config, weights):
    """The objective `split`; `encoded` is what the model returns."""
    pictures, exclusive_p, texts, exclusive_t = encoded
    of_pictures, of_texts = concepts
    count_p, count_t = len(of_pictures), len(of_texts)
    pictures, texts = pictures[:count_p], texts[:count_t]
    scale = model.logit_scale.clamp(max=LARGEST_SCALE).exp()
    prefixes = config["heads"]["matryoshka"] + [config["heads"]["shared"]]
    shared = 0
    for dims in prefixes:
        cut_p, cut_t = pictures, texts
        if dims != prefixes[-1]:
            cut_p, cut_t = F.normalize(pictures[:, :dims], dim=1), F.normalize(texts[:, :dims], dim=1)
        shared = shared + symmetric_info_nce(scale * cut_p @ cut_t.t(), of_pictures, of_texts)
    total = shared / len(prefixes)
    centring = pictures.mean(0).square().sum() + texts.mean(0).square().sum()
    total = total + weights.get("centring_weight", 1.0) * centring
    exclusive = 0
    for vectors, count in ((exclusive_p, count_p), (exclusive_t, count_t)):
        seconds = len(vectors) - count
        logits = vectors[:seconds] @ vectors[count:].t() / weights.get("exclusive_temperature", 0.1)
        items = torch.arange(seconds)
        exclusive = exclusive + symmetric_info_nce(logits, items, items)
    total = total + weights.get("exclusive_weight", 0.1) * exclusive
    apart = alignment(pictures, exclusive_p[:count_p]) + alignment(texts, exclusive_t[:count_t])
    return total + weights.get("orthogonality_weight", 0.1) * apart


def optimizer_of(model):
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    try:
        optimizer = torch.optim.AdamW(groups, lr=2e-3, fused=True)
        return optimizer, "fused"
    except (RuntimeError, TypeError):
        return torch.optim.AdamW(groups, lr=2e-3), "single"


def resident(name):
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(name))
    return int(line.split()[1]) / 1024


class Bench:
    def __init__(self, ours, channels_last):
        config, batch = ours["model"], ours["batch"]
        generator = torch.Generator().manual_seed(1)
        self.config, self.weights = config, ours["objective"]
        self.model = DualEncoder(config)
        parameters = sum(p.numel() for p in self.model.parameters())
        assert parameters == ours["parameters"], (parameters, ours["parameters"])
        size = config["image_tower"]["size"]
        views = batch["pictures"] + batch["second_pictures"]
        texts = batch["texts"] + batch["second_texts"]
        self.pixels = torch.randn(views, 3, size, size, generator=generator)
        self.tokens = TextTower.tokens(
            config["text_tower"], texts, batch["words"], batch["token_ids"], generator
        )
        concepts = torch.arange(batch["pictures"])
        self.concepts = concepts, concepts.repeat_interleave(batch["texts"] // batch["pictures"])
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
            self.pixels = self.pixels.contiguous(memory_format=torch.channels_last)
        self.optimizer, self.kind = optimizer_of(self.model)

    def step(self):
        """Seconds of each stage."""
        marks = [time.perf_counter()]
        encoded = self.model(self.pixels, self.tokens)
        marks.append(time.perf_counter())
        loss = split_loss(self.model, encoded, self.concepts, self.config, self.weights)
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        marks.append(time.perf_counter())
        del encoded
        assert loss.isfinite()
        del loss
        marks.append(time.perf_counter())
        seconds = [end - start for start, end in zip(marks, marks[1:])]
        names = ("forward", "loss", "backward", "optimizer")
        return {**dict(zip(names, seconds)), "step": marks[-1] - marks[0]}


def blas_gflops(size=1024, rounds=5):
    a = torch.randn(size, size)
    a @ a
    start = time.perf_counter()
    for _ in range(rounds):
        a @ a
    return rounds * 2 * size**3 / (time.perf_counter() - start) / 1e9


def main():
    torch.set_num_threads(ARGUMENTS.threads)
    with open(ARGUMENTS.ours) as file:
        ours = json.load(file)
    torch.manual_seed(1)
    layouts = {"first": [False], "last": [True], "auto": [False, True]}[ARGUMENTS.layout]
    quickest = []
    for last in layouts if len(layouts) > 1 else []:
        bench = Bench(ours, last)
        quickest.append((min(bench.step()["step"] for _ in range(3)), last))
        del bench
    last = min(quickest)[1] if quickest else layouts[0]
    bench = Bench(ours, last)
    for _ in range(ARGUMENTS.warmup):
        bench.step()
    steps = [bench.step() for _ in range(ARGUMENTS.steps)]
    figures = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "layout": "channels last" if last else "channels first",
        "adamw": bench.kind,
        "convolutions": "oneDNN" if torch.backends.mkldnn.is_available() else "own",
        "milliseconds": {
            name: statistics.median(step[name] for step in steps) * 1e3 for name in steps[0]},
        "mebibytes": {"peak": resident("VmHWM")},
        "blas_gflops": blas_gflops(),
    }
    if ARGUMENTS.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        print(name, value)


main()
