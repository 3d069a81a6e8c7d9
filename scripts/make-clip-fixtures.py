#!/usr/bin/env python3
"""Writes tests/fixtures/checkpoints: tiny checkpoints with random weights in Hugging Face layout, pictures, texts,
and the vectors that `transformers` and plain torch modules give for them.

Made with Debian's python3-torch 1.13.1 and, in a virtual environment that sees it,

    /usr/bin/python3 -m venv --system-site-packages target/tools/transformers
    target/tools/transformers/bin/pip install transformers==4.37.2 tokenizers==0.15.2 'numpy<2' pillow==13.0.0 safetensors
    target/tools/transformers/bin/python scripts/make-clip-fixtures.py

The same versions write the same weights and pictures. The tokenizers that are learned anew (SigLIP, BERT) may have their
words in another order, and so other vectors of texts: commit all files or none.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Regex

OUT = Path(__file__).resolve().parent.parent / "tests/fixtures/checkpoints"
torch.manual_seed(20260)
torch.set_num_threads(1)

CORPUS = """a photo of a red heart. two dogs run over the snow. the cat sleeps on a green chair.
a bicycle leans against the wall of an old house. boats in the harbour at night.
three children play football in the rain. a bowl of soup with bread and cheese.
the train to the mountains is late. yellow flowers in a blue vase on the table.
Ein rotes Herz. Zwei Hunde laufen über den Schnee. Die Katze schläft. Schöne Grüße aus Köln.
un coeur rouge, des élèves à l'école, un garçon. 赤いハート 黄色い花 красное сердце желтые цветы
what's this? it's 1984, they're here, we've 3 of 7 & don't know!"""

TEXTS = [
    "a photo of a red heart",
    "  Two   DOGS run\tover the\nsnow!  ",
    "it's 1984 & they've won :-) (twice)",
    "Schöne Grüße aus Köln, cafe\u0301 noir",
    "赤いハートと黄色い花 красное сердце 🚲❤️",
    "a bicycle leans against the wall of an old house while three children play football in the rain and the cat"
    " sleeps on a green chair near the harbour where the boats of the old train are late again and again at night",
    "x",
]


def pictures(folder):
    """A few small files of odd sizes and kinds."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:53, 0:37].astype(np.float64)
    waves = np.stack([128 + 100 * np.sin(x / 5 + y / 9), 6 * x, 255 - 4 * y], -1)
    Image.fromarray(waves.clip(0, 255).astype(np.uint8)).save(folder / "portrait.png", optimize=True)
    y, x = np.mgrid[0:20, 0:120].astype(np.float64)
    wide = np.stack([2 * x, 255 - 2 * x, 12 * y], -1).clip(0, 255).astype(np.uint8)
    Image.fromarray(wide).save(folder / "wide.png", optimize=True)
    y, x = np.mgrid[0:48, 0:80].astype(np.float64)
    alpha = np.stack([3 * x, 5 * y, 200 - x, 255 * (np.hypot(x - 40, y - 24) < 20)], -1)
    Image.fromarray(alpha.clip(0, 255).astype(np.uint8)).save(folder / "alpha.png", optimize=True)
    y, x = np.mgrid[0:64, 0:96].astype(np.float64)
    photo = np.stack([128 + 90 * np.sin(x / 11), 128 + 90 * np.cos(y / 13), x + y], -1)
    photo = Image.fromarray(photo.clip(0, 255).astype(np.uint8))
    photo.save(folder / "photo.jpg", quality=92, subsampling=0)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "turned.jpg", quality=92, subsampling=0, exif=exif)
    photo.convert("L").resize((31, 47)).save(folder / "grey.png", optimize=True)
    photo.resize((7, 5)).save(folder / "small.png", optimize=True)
    noise = np.random.default_rng(7).integers(0, 256, (47, 61, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png", optimize=True)
    Image.fromarray(noise[:4, :60].repeat(5, 1)).save(folder / "strip.png", optimize=True)


def opened(path):
    """As the service reads it: upright, on white where it is transparent, RGB."""
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode == "RGBA":
        pixels = np.asarray(picture).astype(np.int64)
        colour, alpha = pixels[..., :3], pixels[..., 3:]
        pixels = (colour * alpha + 255 * (255 - alpha) + 127) // 255
        return Image.fromarray(pixels.astype(np.uint8))
    return picture.convert("RGB")


def unit(rows):
    return (rows / rows.norm(dim=-1, keepdim=True)).double().numpy().round(7).tolist()


def randomised(model):
    """Weights larger than the usual initial ones, so that every part of the network matters."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "logit" in name:
                continue
            if "norm" in name.lower() and name.endswith("weight"):
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
            else:
                scale = 0.5 if "embed" in name.lower() else 1.2 / max(weight.shape[-1], 1) ** 0.5
                weight.copy_(scale * torch.randn_like(weight))
    return model.eval()


def save(model, folder, half=False):
    """The weights, and the model with the values as they are stored."""
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if half:
        weights = {n: t.half() if t.is_floating_point() else t for n, t in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    stored = load_file(folder / "model.safetensors")
    model.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in stored.items()})


def expected(folder, values):
    (folder / "expected.json").write_text(json.dumps(values, ensure_ascii=False, indent=None) + "\n")


def clip_tokenizer(folder):
    """CLIP's byte-pair encoding with a few merges learned here."""
    alphabet = [chr(c) for c in range(33, 127)] + [chr(c) for c in range(161, 173)] + [chr(c) for c in range(174, 256)]
    codes = {ord(c): c for c in alphabet}
    for byte in range(256):
        codes.setdefault(byte, chr(256 + sum(1 for b in range(byte) if b not in {ord(c) for c in alphabet})))
    words = {}
    for word in CORPUS.lower().replace(".", " ").split():
        symbols = [codes[b] for b in word.encode()]
        ended = tuple(symbols[:-1] + [symbols[-1] + "</w>"])
        words[ended] = words.get(ended, 0) + 1
    merges = []
    while len(merges) < 60:
        pairs = {}
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged = {}
        for word, count in words.items():
            out, i = [], 0
            while i < len(word):
                if word[i : i + 2] == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            merged[tuple(out)] = count
        words = merged
    order = alphabet + [codes[b] for b in range(256) if codes[b] not in alphabet]
    tokens = order + [c + "</w>" for c in order] + ["".join(m) for m in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    tokenizer = transformers.CLIPTokenizerFast(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=24
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def clip(images):
    folder = OUT / "clip"
    folder.mkdir()
    tokenizer = clip_tokenizer(folder)
    sizes = dict(intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    config = transformers.CLIPConfig(
        text_config=dict(hidden_size=24, vocab_size=len(tokenizer), max_position_embeddings=24,
                         eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, **sizes),
        vision_config=dict(hidden_size=32, image_size=32, patch_size=8, **sizes),
        projection_dim=20,
    )
    model = randomised(transformers.CLIPModel(config))
    model.config.save_pretrained(folder)
    save(model, folder, half=True)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    with torch.no_grad():
        pixels = processor([opened(path) for path in images], return_tensors="pt")["pixel_values"]
        ids = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
        expected(folder, {
            "versions": VERSIONS,
            "images": {p.name: v for p, v in zip(images, unit(model.get_image_features(pixels)))},
            "texts": {t: v for t, v in zip(TEXTS, unit(model.get_text_features(**ids)))},
            "ids": {t: tokenizer(t, truncation=True)["input_ids"] for t in TEXTS},
            "logit_scale": model.logit_scale.exp().item(),
        })
        # The rule of the first checkpoints: the configuration says 2, and the largest id is the end.
        model.text_model.eos_token_id = 2
        again = unit(model.get_text_features(**ids))
        assert np.allclose(again, unit(model.get_text_features(**ids)))


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"[!\"\#\$%&'\(\)\*\+,\-\.:;=\?@\[\]\\\^_`\{\|\}\~]"), ""),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=220, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS.split("\n"), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="</s>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )


def siglip(images):
    folder = OUT / "siglip"
    folder.mkdir()
    tokenizer = unigram()
    tokenizer.save_pretrained(folder)
    sizes = dict(hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2)
    config = transformers.SiglipConfig(
        text_config=dict(vocab_size=len(tokenizer), max_position_embeddings=16, **sizes),
        vision_config=dict(image_size=30, patch_size=10, **sizes),
    )
    model = randomised(transformers.SiglipModel(config))
    with torch.no_grad():
        model.logit_scale.fill_(2.3)
        model.logit_bias.fill_(-7.5)
    model.config.save_pretrained(folder)
    save(model, folder, half=True)
    processor = transformers.SiglipImageProcessor(size={"height": 30, "width": 30})
    processor.save_pretrained(folder)
    with torch.no_grad():
        pixels = processor([opened(path) for path in images], return_tensors="pt")["pixel_values"]
        ids = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        expected(folder, {
            "versions": VERSIONS,
            "images": {p.name: v for p, v in zip(images, unit(model.get_image_features(pixels)))},
            "texts": {t: v for t, v in zip(TEXTS, unit(model.get_text_features(ids)))},
            "ids": {t: tokenizer(t, truncation=True)["input_ids"] for t in TEXTS},
            "logit_scale": model.logit_scale.exp().item(),
            "logit_bias": model.logit_bias.item(),
        })


def bert():
    folder = OUT / "bert"
    (folder / "1_Pooling").mkdir(parents=True)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS.split("\n"), trainers.WordPieceTrainer(vocab_size=260, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=20,
    )
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
        max_position_embeddings=32,
    )
    model = randomised(transformers.BertModel(config))
    model.config.save_pretrained(folder)
    save(model, folder)
    module = "sentence_transformers.models."
    (folder / "modules.json").write_text(json.dumps([
        {"idx": 0, "name": "0", "path": "", "type": module + "Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": module + "Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": module + "Normalize"},
    ]))
    (folder / "1_Pooling/config.json").write_text(json.dumps(
        {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20, "do_lower_case": False}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(
        {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": None}))
    with torch.no_grad():
        ids = tokenizer(["query: " + t for t in TEXTS], padding=True, truncation=True, return_tensors="pt")
        hidden = model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).last_hidden_state
        mask = ids["attention_mask"].unsqueeze(-1).float()
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        expected(folder, {
            "versions": VERSIONS,
            "texts": {t: v for t, v in zip(TEXTS, unit(pooled))},
            "ids": {t: tokenizer("query: " + t, truncation=True)["input_ids"] for t in TEXTS},
        })


class Made:
    """Weights that need no file: each value follows from the tensor's name and its place, see `made` in
    model/src/bundle/checkpoint/tests.rs."""

    def __getitem__(self, key):
        name, shape = key
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
        count = int(np.prod(shape))
        mixed = (np.arange(count, dtype=np.uint64) * 2654435761 + seed) % 2**32
        mixed = (mixed ^ (mixed >> np.uint64(15))) * np.uint64(2246822519) % 2**32
        even = (mixed.astype(np.float64) / 2**32 - 0.5).astype(np.float32).reshape(shape)
        if name.endswith("running_var"):
            even = 1 + even
        elif len(shape) == 1 and name.endswith("weight"):
            even = 1 + 0.4 * even
        elif len(shape) > 1:
            even = even * np.float32((24 / np.prod(shape[1:])) ** 0.5)
        return torch.from_numpy(even.astype(np.float32))


def normed(x, made, name, eps):
    width = (x.shape[1],)
    values = [made[f"{name}.{part}", width] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *values, training=False, eps=eps)


def resnet(x, depth, base):
    """torchvision's network by the names of its weights (He et al. 2016; stride in the 3 x 3 convolution)."""
    made = Made()

    def conv(x, name, outputs, kernel, stride):
        return F.conv2d(x, made[f"{name}.weight", (outputs, x.shape[1], kernel, kernel)], None, stride, kernel // 2)

    x = F.relu(normed(conv(x, "conv1", base, 7, 2), made, "bn1", 1e-5))
    x = F.max_pool2d(x, 3, 2, 1)
    counts = {18: [2, 2, 2, 2], 50: [3, 4, 6, 3]}[depth]
    for stage, count in enumerate(counts):
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            stride = 2 if stage > 0 and block == 0 else 1
            width = base * 2**stage
            plan = [(width, 3, stride), (width, 3, 1)] if depth == 18 else [
                (width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
            y = x
            for i, (outputs, kernel, step) in enumerate(plan, 1):
                y = normed(conv(y, f"{name}.conv{i}", outputs, kernel, step), made, f"{name}.bn{i}", 1e-5)
                y = F.relu(y) if i < len(plan) else y
            if y.shape != x.shape:
                x = normed(conv(x, f"{name}.downsample.0", y.shape[1], 1, stride), made, f"{name}.downsample.1", 1e-5)
            x = F.relu(y + x)
    return x.mean((2, 3))


def efficientnet_lite0(x):
    """By the names of efficientnet-lite-pytorch (Tan and Le 2019, table 1; no squeeze and excitation, ReLU6)."""
    made = Made()

    def same(x, kernel, stride):
        total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]]
        (h, w) = total
        return F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2))

    def conv(x, name, outputs, kernel, stride, groups=1):
        weight = made[f"{name}.weight", (outputs, x.shape[1] // groups, kernel, kernel)]
        return F.conv2d(same(x, kernel, stride), weight, None, stride, 0, 1, groups)

    x = F.relu6(normed(conv(x, "_conv_stem", 32, 3, 2), made, "_bn0", 1e-3))
    plan = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
            (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]
    number = 0
    for repeats, kernel, first, expansion, outputs in plan:
        for repeat in range(repeats):
            name, stride, y = f"_blocks.{number}", first if repeat == 0 else 1, x
            if expansion > 1:
                wide = x.shape[1] * expansion
                y = F.relu6(normed(conv(y, f"{name}._expand_conv", wide, 1, 1), made, f"{name}._bn0", 1e-3))
            y = conv(y, f"{name}._depthwise_conv", y.shape[1], kernel, stride, y.shape[1])
            y = F.relu6(normed(y, made, f"{name}._bn1", 1e-3))
            y = normed(conv(y, f"{name}._project_conv", outputs, 1, 1), made, f"{name}._bn2", 1e-3)
            x = y + x if y.shape == x.shape else y
            number += 1
    return F.relu6(normed(conv(x, "_conv_head", 1280, 1, 1), made, "_bn1", 1e-3)).mean((2, 3))


def towers():
    """Image towers alone, at 64 pixels; only numbers are kept, the weights are made in the test too. The pictures have
    that size: with such weights EfficientNet makes 2e-4 in cosine of one level in one pixel of fifty."""
    folder = OUT / "towers"
    folder.mkdir()
    y, x = np.mgrid[0:64, 0:64].astype(np.float64)
    for name, plane in (("rings", np.hypot(x - 20, y - 30)), ("waves", x / 2 + 9 * np.sin(y / 7))):
        pixels = np.stack([128 + 110 * np.sin(plane / k) for k in (3, 5, 8)], -1)
        Image.fromarray(pixels.astype(np.uint8)).resize((64, 64)).quantize(64).convert("RGB").save(
            folder / f"{name}.png", optimize=True)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, resample=2,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    chosen = sorted(folder.iterdir())
    with torch.no_grad():
        pixels = processor([opened(path) for path in chosen], return_tensors="pt")["pixel_values"]
        # Features of a positive mean differ little in direction: a part of them is enough to tell.
        rows = {"resnet18": resnet(pixels, 18, 16), "resnet50": resnet(pixels, 50, 16),
                "efficientnet_lite0": efficientnet_lite0(pixels)}
        values = {name: {p.name: np.round(np.asarray(v)[:128], 6).tolist()
                         for p, v in zip(chosen, unit(row))}
                  for name, row in rows.items()}
    expected(folder, {"versions": VERSIONS, **values})


def fitted(images):
    """What Pillow makes of pictures, by the ways that checkpoints ask for."""
    folder = OUT / "fitted"
    folder.mkdir()
    for path in images:
        if path.suffix == ".jpg":
            continue
        for name, resample in (("bicubic", 3), ("bilinear", 2)):
            crop = transformers.CLIPImageProcessor(
                size={"shortest_edge": 32}, crop_size={"height": 24, "width": 24}, resample=resample,
                do_rescale=False, do_normalize=False)
            square = opened(path).resize((24, 24), resample)
            both = np.concatenate([crop(opened(path))["pixel_values"][0].transpose(1, 2, 0), np.asarray(square)], 1)
            Image.fromarray(both.astype(np.uint8)).save(folder / f"{path.stem}-{name}.png", optimize=True)


VERSIONS = {
    "torch": torch.__version__, "transformers": transformers.__version__,
    "tokenizers": __import__("tokenizers").__version__, "pillow": __import__("PIL").__version__,
    "numpy": np.__version__,
}

if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    pictures(OUT / "pictures")
    paths = sorted((OUT / "pictures").iterdir())
    clip(paths)
    siglip(paths)
    bert()
    towers()
    fitted(paths)
    print(sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file()), "bytes")
