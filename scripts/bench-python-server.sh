#!/usr/bin/env bash
# Our server beside a Python gRPC server on ONNX Runtime, same networks, in turn: see bench-python-server.py.
#   bash scripts/bench-python-server.sh [OPTIONS]
# Fetches real weights (scripts/check-weights.sh, whose environment exports them) and, into target/tools/python-server, what the
# Python server needs.
set -euo pipefail
cd "$(dirname "$0")/.."

weights=target/weights
models=target/bench-python-server
venv=target/tools/python-server
target="${CARGO_TARGET_DIR:-target}"

if [ ! -d "$weights/imported/lite0" ]; then
  bash scripts/check-weights.sh
fi
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  grpcio==1.85.1 grpcio-tools==1.85.1 onnxruntime==1.32.0 tokenizers==0.23.3 pillow==13.0.0 numpy==2.4.6
if [ ! -e "$models/lite0.onnx" ]; then
  target/tools/transformers/bin/python scripts/python-server/export.py --weights "$weights" --to "$models"
fi
cargo build --release --workspace --bins
"$venv/bin/python" scripts/bench-python-server.py --programs "$target/release" --weights "$weights" --models "$models" \
  --python "$venv/bin/python" "$@"
