#!/usr/bin/env bash
# Three times as many searches as the server can answer, both ways, and searches while items are put: about eight minutes on two
# cores that nothing else uses. Arguments are those of bench-overload.py.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked -p diptych-server -p diptych
exec python3 scripts/bench-overload.py "$@"
