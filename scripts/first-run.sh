#!/usr/bin/env bash
# The README's first command, as a newcomer runs it: `cargo run --release` until it is ready, a search that finds the red
# heart, a kill, a second start on the same data, and the same answer. Prints the seconds to readiness; fails only on a wrong
# answer or a start that never ends, since times depend on the machine's load.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
server=
stop() {
  [ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
listen=127.0.0.1:$(free_port)
ops=127.0.0.1:$(free_port)
export DIPTYCH_LISTEN=$listen DIPTYCH_OPS_LISTEN=$ops DIPTYCH_DATA_DIR=$work/data DIPTYCH_SERVER=http://$listen

# Compiled by the same command that serves, then started as itself, so that the kill reaches the server and not cargo.
cargo build --release --bins
target="${CARGO_TARGET_DIR:-target}/release"

start() {
  local began=$SECONDS
  if [ "$1" = cargo ]; then cargo run --release >"$work/log" 2>&1 & else "$target/diptych-server" >"$work/log" 2>&1 & fi
  server=$!
  until python3 -c "import urllib.request; urllib.request.urlopen('http://$ops/readyz', timeout=1)" 2>/dev/null; do
    kill -0 "$server" 2>/dev/null || { cat "$work/log"; echo "the server ended before it was ready"; exit 1; }
    [ $((SECONDS - began)) -lt 300 ] || { cat "$work/log"; echo "not ready after 300 s"; exit 1; }
    sleep 0.1
  done
  echo "$1: ready after $((SECONDS - began)) s"
}

ask() {
  "$target/diptych" search "red heart" --limit 3 --json >"$work/answer"
  python3 - "$work/answer" <<'PY'
import json, sys
groups = [hit["group"] for hit in json.load(open(sys.argv[1]))["hits"]]
assert "2764" in groups, f"a red heart is not among the first three: {groups}"
PY
}

start binary
ask
kill -9 "$server"; wait "$server" 2>/dev/null || true
start cargo
ask
kill "$server"; wait "$server" 2>/dev/null || true
server=
echo "1 passed, 0 failed"
