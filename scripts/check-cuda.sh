#!/usr/bin/env bash
# Type-checks the trainer with its `cuda` feature, on a machine without a GPU.
#
#   bash scripts/check-cuda.sh        a stub in place of nvcc: checks every line of Rust behind the feature, no kernel
#   bash scripts/check-cuda.sh real   NVIDIA's own compiler, from PyPI into target/: compiles candle's kernels too
#
# Each mode has a target folder of its own. What the stub "compiled" is empty files, which no other build must take for
# kernels.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-stub}
work=${CARGO_TARGET_DIR:-target}/cuda-check
mkdir -p "$work"
work=$(cd "$work" && pwd)

case $mode in
  stub)
    # In a place that stays, since a toolkit that moves would be a reason to build everything again.
    toolkit=$work/stub-toolkit
    mkdir -p "$toolkit/bin" "$toolkit/include" "$toolkit/lib64"
    cat >"$toolkit/bin/nvcc" <<'NVCC'
#!/bin/sh
# Says which version it stands for, or makes the file that is asked of it, empty: by name, or beside others as PTX.
folder=
kernel=
while [ $# -gt 0 ]; do
  case $1 in
    --version) echo "Cuda compilation tools, release 13.0, V13.0.88 (stub)" ;;
    -o) shift; : >"$1" ;;
    --output-directory) shift; folder=$1 ;;
    *.cu) kernel=$(basename "$1" .cu) ;;
  esac
  shift
done
[ -z "$folder" ] || : >"$folder/$kernel.ptx"
NVCC
    chmod +x "$toolkit/bin/nvcc"
    ;;
  real)
    venv=$work/venv
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
      nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.88 \
      nvidia-cuda-cccl==13.0.85
    toolkit=$(echo "$venv"/lib/python3*/site-packages/nvidia/cu13)
    # The wheels lay the libraries out for running; the build looks for them as an installed toolkit has them.
    ln -sfn lib "$toolkit/lib64"
    ln -sfn libcudart.so.13 "$toolkit/lib/libcudart.so"
    ;;
  *)
    echo "usage: $0 [stub | real]" >&2
    exit 2
    ;;
esac

# Without a GPU nobody can be asked for the compute capability: 8.0 (A100) is the oldest with bf16. With the version given,
# cudarc does not read it from the words of nvcc.
export CUDA_HOME=$toolkit CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80} CUDARC_CUDA_VERSION=13000 PATH="$toolkit/bin:$PATH"
began=$SECONDS
cargo check --release -p diptych-train --features cuda --target-dir "$work/$mode"
echo "diptych-train with cuda ($mode toolkit, compute capability $CUDA_COMPUTE_CAP): checked in $((SECONDS - began)) s"
