#!/usr/bin/env bash
# The emoji data with words of its ten languages beside the names, for configs/train/emoji-hybrid.toml: see emoji-words.py. Fetches
# the word lists (wordfreq, 57 MB) through pip into target/tools; half a minute.
#
#     scripts/emoji-words.sh [FROM [TO [WORDS]]]      (target/emoji-split-data, target/emoji-words-data, 20000)
set -euo pipefail
cd "$(dirname "$0")/.."

venv=target/tools/words
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check wordfreq==3.1.1 pyarrow==26.0.1
"$venv/bin/python" scripts/emoji-words.py "${1:-target/emoji-split-data}" "${2:-target/emoji-words-data}" "${3:-20000}"
