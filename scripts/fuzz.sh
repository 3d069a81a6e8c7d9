#!/usr/bin/env bash
# Runs the fuzz targets (fuzz/), all or those named, for SECONDS each. Inputs that are kept lie in fuzz/corpus, what fails in
# fuzz/artifacts; both are left alone by git.
#
#     bash scripts/fuzz.sh SECONDS [TARGET]...
#
# cargo-fuzz is installed into target/tools where it is missing. The sanitizer needs a nightly toolchain; SANITIZER=none takes less to
# build and finds panics all the same.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${1:?how many seconds}"
shift
targets=("$@")
if [ "${#targets[@]}" = 0 ]; then
  targets=(image filter page_token requests bundle archive)
fi
toolchain="${FUZZ_TOOLCHAIN:-nightly}"
build=(--target-dir target/fuzz --sanitizer "${SANITIZER:-address}")

export PATH="${DIPTYCH_TOOLS:-$PWD/target/tools}/bin:$PATH"
if ! cargo fuzz --version >/dev/null 2>&1; then
  cargo install cargo-fuzz --version 0.13.1 --locked --root "${DIPTYCH_TOOLS:-target/tools}"
fi

for target in "${targets[@]}"; do
  echo "== $target"
  # A picture or a bundle may be some hundred kilobytes; memory beyond 2 GiB, or ten seconds for one input, is a failure too.
  cargo "+$toolchain" fuzz run "${build[@]}" "$target" -- -max_total_time="$seconds" -max_len=131072 -timeout=10 \
    -rss_limit_mb=2048 -print_final_stats=1
done
