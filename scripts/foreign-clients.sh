#!/usr/bin/env bash
# Installs what the clients in tests/foreign need into TOOLS, a Python environment: scripts/tools.txt (grpcio, grpclib, Node.js as
# a Python package), then the packages of tests/foreign/node as its lock file has them. Does nothing where both are there.
#
#     bash scripts/foreign-clients.sh [TOOLS]
set -euo pipefail
cd "$(dirname "$0")/.."
tools="$(realpath -m "${1:-${DIPTYCH_TOOLS:-target/tools}}")"

if [ ! -x "$tools/bin/python" ]; then
  python3 -m venv "$tools"
fi
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check -r scripts/tools.txt

packages="$tools/foreign-node"
if ! cmp --silent tests/foreign/node/package-lock.json "$packages/package-lock.json"; then
  rm -rf "$packages"
  mkdir -p "$packages"
  cp tests/foreign/node/package.json "$packages/"
  cp tests/foreign/node/package-lock.json "$packages/npm-shrinkwrap.json"
  # No scripts of packages are run, and nothing is written outside the folder.
  (cd "$packages" && PATH="$tools/bin:$PATH" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  # Last, so that what broke off is done again.
  mv "$packages/npm-shrinkwrap.json" "$packages/package-lock.json"
fi
