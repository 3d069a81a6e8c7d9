"""Writes ONNX files of all-MiniLM-L6-v2, EfficientNet-Lite0 and the image side of the bundle in server/sample, with their own weights,
as their users would: torch.onnx.export.

    python scripts/python-server/export.py --weights target/weights --to target/bench-python-server
"""

import argparse
import json
import pathlib
import sys

import safetensors.torch
import torch
import transformers
from torch.nn import functional

SAMPLE = pathlib.Path(__file__).resolve().parents[2] / "server/sample/bundle"


class Sentence(torch.nn.Module):
    """A sentence encoder with its mean over tokens; unit length is made where the vectors are sent."""

    def __init__(self, folder):
        super().__init__()
        self.bert = transformers.AutoModel.from_pretrained(folder)

    def forward(self, input_ids, attention_mask):
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)


class Features(torch.nn.Module):
    """An image network without its classifier."""

    def __init__(self, peers, weights):
        super().__init__()
        sys.path.insert(0, str(peers))
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(weights, map_location="cpu"))

    def forward(self, pixels):
        return self.network.extract_features(pixels).mean((2, 3))


class Sample(torch.nn.Module):
    """The tower and the shared head of the bundle in server/sample."""

    def __init__(self):
        super().__init__()
        self.config = json.loads((SAMPLE / "bundle.json").read_text())["model"]["image_tower"]
        weights = safetensors.torch.load_file(SAMPLE / "model.safetensors")
        for name, weight in weights.items():
            if name.startswith("image."):
                self.register_buffer(name.replace(".", "_"), weight.float())

    def weight(self, name):
        return getattr(self, f"image_{name}".replace(".", "_"))

    def convolved(self, x, name, stride):
        weight = self.weight(f"tower.{name}.conv.weight")
        x = functional.conv2d(x, weight, stride=stride, padding=int(weight.shape[2]) // 2)
        scale, shift = (self.weight(f"tower.{name}.norm.{part}") for part in ("weight", "bias"))
        return functional.group_norm(x, self.config["groups"], scale, shift)

    def forward(self, pixels):
        x = self.convolved(pixels, "stem", self.config["stem_stride"]).relu()
        for stage in range(len(self.config["widths"])):
            for block in range(self.config["blocks_per_stage"]):
                name, stride = f"stages.{stage}.{block}", 2 if stage > 0 and block == 0 else 1
                inner = self.convolved(self.convolved(x, f"{name}.first", stride).relu(), f"{name}.second", 1)
                if hasattr(self, f"image_tower_{name}_shortcut_conv_weight".replace(".", "_")):
                    x = self.convolved(x, f"{name}.shortcut", stride)
                x = (inner + x).relu()
        return functional.linear(x.mean((2, 3)), self.weight("shared.weight"), self.weight("shared.bias"))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--weights", type=pathlib.Path, required=True)
    arguments.add_argument("--to", type=pathlib.Path, required=True)
    arguments = arguments.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    ids = torch.ones((2, 8), dtype=torch.long)
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(
        Sentence(arguments.weights / "minilm").eval(), (ids, ids), arguments.to / "minilm.onnx",
        input_names=names, output_names=["vectors"], opset_version=14,
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names} | {"vectors": {0: "batch"}},
    )
    lite0 = arguments.weights / "efficientnet-lite0" / "efficientnet-lite0-57934424.pth"
    for name, network, side in [("sample", Sample(), 48), ("lite0", Features(arguments.weights / "peers", lite0), 224)]:
        torch.onnx.export(
            network.eval(), (torch.zeros(1, 3, side, side),), arguments.to / f"{name}.onnx",
            input_names=["pixels"], output_names=["vectors"], opset_version=14,
            dynamic_axes={"pixels": {0: "batch"}, "vectors": {0: "batch"}},
        )


main()
