#!/usr/bin/env bash
# Fetch the stamps of Tux Paint (Debian's package tuxpaint-stamps-default, 161 MB) and write captions.jsonl beside their
# pictures: one line for each PNG and language, from the text files that lie beside the pictures. A folder of pictures that was
# not made for training, in a dozen languages. The package is under GPL-2 as a whole: nothing of it is part of this repository.
#
#   scripts/fetch-stamps.sh [DEST]     (target/stamps)
#   diptych-train prepare folder --images DEST/stamps --captions DEST/stamps/captions.jsonl --labels category --out DATASET
#
# Wants apt-get and dpkg-deb (Debian and its like) and Python 3. What is there already is left alone.
set -euo pipefail

package=tuxpaint-stamps-default
version=2022.06.04-1

fail() {
  echo "fetch-stamps: $1" >&2
  exit 1
}

[ $# -le 1 ] || fail "usage: scripts/fetch-stamps.sh [DEST]"
target=${1:-target/stamps}
command -v python3 >/dev/null || fail "python3 is not installed"
mkdir -p "$target"

if [ ! -d "$target/stamps" ]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "apt-get and dpkg-deb are needed; elsewhere, unpack $package $version by hand so that its folder stamps \
is $target/stamps"
  work=$(mktemp -d "$target/.fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  # apt drops its rights for a download where it can; let that user write here.
  chmod 755 "$work"
  download() { (cd "$work" && apt-get download "$package=$version"); }
  download || { apt-get update && download; } || fail "apt has no $package $version"
  dpkg-deb -x "$work"/*.deb "$work/unpacked"
  mv "$work/unpacked/usr/share/tuxpaint/stamps" "$target/stamps"
  mv "$work/unpacked/usr/share/doc/$package/copyright" "$target/copyright"
fi

python3 - "$target" <<'PY'
import json
import os
import sys
from pathlib import Path

target = Path(sys.argv[1])
root = target / "stamps"
# What the text files call a language, and its tag.
languages = {"cs": "cs", "de": "de", "es": "es", "fr": "fr", "it": "it", "pt": "pt", "ru": "ru", "ja": "ja", "ko": "ko",
             "zh_CN": "zh", "hi": "hi", "ar": "ar"}


def texts(path):
    """English from the first line, then `de.utf8=...`, one language a line."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    found = {"en": lines[0]} if lines else {}
    for line in lines[1:]:
        name, mark, text = line.partition(".utf8=")
        if mark and name in languages:
            found.setdefault(languages[name], text.strip())
    return {lang: text for lang, text in found.items() if text}


pictures, without = 0, 0
captions = target / "stamps" / "captions.jsonl"
partial = target / "stamps" / "captions.jsonl.partial"
with partial.open("w", encoding="utf-8") as out:
    for picture in sorted(root.rglob("*.png")):
        # NAME_mirror.png and NAME_flip.png are drawn for the same text file.
        stem = picture.stem.removesuffix("_mirror").removesuffix("_flip")
        text = picture.with_name(stem + ".txt")
        found = texts(text) if text.is_file() else {}
        if "en" not in found:
            without += 1
            continue
        pictures += 1
        image = picture.relative_to(root).as_posix()
        for lang, caption in found.items():
            # One group for one English text: a cat drawn twice is not told apart by its caption.
            row = {"image": image, "text": caption, "lang": lang, "group": found["en"], "category": image.split("/")[0]}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
os.replace(partial, captions)
print(f"{captions}: {pictures} pictures; {without} PNG files have no text of their own")
PY
