#!/usr/bin/env python3
"""Writes tests/fixtures/pictures: files of kinds that the tests cannot make themselves. They are sound; the tests damage them.
`pillow.json` has the digests of the pixels that Pillow, with libjpeg-turbo 3.2.0, reads from the JPEGs.

    target/tools/transformers/bin/python scripts/make-picture-fixtures.py

Made with Pillow 13.0.0 (scripts/make-clip-fixtures.py says how it is installed).
"""

import hashlib
import json
from pathlib import Path

from PIL import Image, ImageDraw

OUT = Path(__file__).resolve().parent.parent / "tests/fixtures/pictures"
SIZE = (48, 40)


def picture(colour):
    drawn = Image.linear_gradient("L").resize(SIZE).convert("RGB")
    ImageDraw.Draw(drawn).ellipse((8, 6, 36, 34), fill=colour)
    return drawn


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    red, blue = picture((200, 30, 40)), picture((40, 60, 180))
    red.save(OUT / "progressive.jpg", quality=80, progressive=True)
    red.save(OUT / "baseline.jpg", quality=80)
    red.save(OUT / "restarts.jpg", quality=80, restart_marker_rows=1)
    red.convert("CMYK").save(OUT / "cmyk.jpg", quality=80)
    red.convert("L").save(OUT / "grey.jpg", quality=80)
    odd = red.crop((0, 0, 47, 39))
    odd.save(OUT / "odd.jpg", quality=90)
    odd.save(OUT / "odd-progressive.jpg", quality=90, progressive=True)
    odd.save(OUT / "odd-halved-across.jpg", quality=90, subsampling="4:2:2")
    odd.save(OUT / "odd-whole.jpg", quality=90, subsampling="4:4:4")
    red.save(OUT / "lossy.webp", quality=60)
    red.convert("RGBA").save(OUT / "lossless.webp", lossless=True)
    red.save(OUT / "animated.webp", save_all=True, append_images=[blue], duration=100, quality=60)
    red.save(OUT / "animated.png", save_all=True, append_images=[blue], duration=100)
    red.save(OUT / "animated.gif", save_all=True, append_images=[blue], duration=100)
    red.save(OUT / "plain.gif")
    red.save(OUT / "plain.png")
    pixels = {file.name: Image.open(file).convert("RGB").tobytes() for file in sorted(OUT.glob("*.jpg"))}
    digests = {name: hashlib.sha256(bytes).hexdigest() for name, bytes in pixels.items()}
    (OUT / "pillow.json").write_text(json.dumps(digests, indent=2) + "\n")


main()
