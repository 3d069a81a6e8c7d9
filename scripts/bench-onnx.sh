#!/usr/bin/env bash
# Our operations beside ONNX Runtime, the same networks with the same random weights, in turn: see bench-onnx.py, which takes
# the arguments. Fetches the libraries through pip into target/tools; ten minutes on an idle machine.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=target/tools/onnx
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cargo build --release -p diptych-model --example bench_ops
"$venv/bin/python" scripts/bench-onnx.py --folder target/bench-onnx \
  --bench-ops "${CARGO_TARGET_DIR:-target}/release/examples/bench_ops" "$@"
