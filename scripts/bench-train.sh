#!/usr/bin/env bash
# A training step beside the same network in PyTorch, in turn, on two threads and on one:
#   bash scripts/bench-train.sh [DATA] [ROUNDS] [STEPS]
# DATA is a prepared dataset (`just emoji-data`). PyTorch is Debian's, on OpenBLAS:
#   apt-get install --no-install-recommends python3-torch libopenblas0-pthread
# TORCH_PYTHON names another interpreter that has it, TORCH_LAYOUT the channel order (first, last, auto).
# What each run printed stays in target/bench-train.
set -euo pipefail
cd "$(dirname "$0")/.."

data="${1:-target/emoji-data}"
rounds="${2:-3}"
steps="${3:-6}"
python="${TORCH_PYTHON:-/usr/bin/python3}"
layout="${TORCH_LAYOUT:-first}"
target="${CARGO_TARGET_DIR:-target}"
out=target/bench-train

"$python" -c 'import torch' || { echo "error: $python has no torch" >&2; exit 1; }
cargo build --release -p diptych-train --example bench_step
rm -rf "$out"
mkdir -p "$out"
echo "load before: $(cut -d' ' -f1-3 /proc/loadavg)"
for threads in 2 1; do
  for round in $(seq "$rounds"); do
    ours="$out/ours-$threads-$round.json"
    torch="$out/torch-$threads-$round.json"
    kept="$out/kept-$threads-$round.json"
    "$target/release/examples/bench_step" --data "$data" --threads "$threads" --steps "$steps" --json >"$ours"
    "$python" scripts/bench-torch.py "$ours" --threads "$threads" --steps "$steps" --layout "$layout" --json >"$torch"
    # The same with what our trainer sets for itself: freed memory is kept by the C library.
    MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_TOP_PAD_=67108864 \
      "$python" scripts/bench-torch.py "$ours" --threads "$threads" --steps "$steps" --layout "$layout" --json >"$kept"
    echo "threads $threads, round $round done"
  done
done
echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
python3 scripts/bench-summary.py "$out"
