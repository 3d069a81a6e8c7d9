#!/usr/bin/env bash
# Search by vector through gRPC, beside Milvus standalone, in one run, in turn:
#   bash scripts/bench-milvus.sh [ROWS] [SECONDS] [ROUNDS]
# Both serve the same seeded vectors with HNSW (M 16, efConstruction 200 in Milvus) and are asked by 8 processes of one Python
# with one grpcio, at the least width that reaches recall@10 of .95 and .98. Milvus 2.3.5 comes from PyPI (58 MB) into
# target/tools/milvus. Its server takes ports on all interfaces while it runs. The table goes to standard output, the figures to
# target/bench-milvus/result.json.
set -euo pipefail
cd "$(dirname "$0")/.."

rows="${1:-100000}"
seconds="${2:-8}"
rounds="${3:-3}"
venv=target/tools/milvus
out=target/bench-milvus
target="${CARGO_TARGET_DIR:-target}"

if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
fi
# Newer marshmallow and setuptools break this client; it is pinned to grpcio 1.58, so both sides are asked by that.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  milvus==2.3.5 pymilvus==2.3.5 'setuptools<70' 'marshmallow<3.22' 'protobuf<5' 'grpcio==1.58.0' 'grpcio-tools==1.58.0' 'numpy<2'
cargo build --release --workspace --bins
mkdir -p "$out"
echo "load before: $(cut -d' ' -f1-3 /proc/loadavg)"
"$venv/bin/python" scripts/bench-milvus.py --server "$target/release/diptych-server" --out "$out" \
  --rows "$rows" --seconds "$seconds" --rounds "$rounds"
echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
