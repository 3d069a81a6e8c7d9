"""Golden ids of hashed n-grams: an independent reading of model/src/preprocess/text/ngrams.rs.

Run with `python3 model/tests/golden/text_ids.py`; paste what it prints into the table GOLDEN of
model/src/preprocess/text/tests.rs. Needs nothing but the standard library.
"""

import unicodedata

BUCKETS = 65536
UNSPACED = [
    (0x1100, 0x11FF), (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3041, 0x3096), (0x3099, 0x309A),
    (0x309D, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x3105, 0x312F), (0x3131, 0x318E),
    (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA960, 0xA97C),
    (0xAC00, 0xD7FB), (0xF900, 0xFAFF), (0x1AFF0, 0x1B16F), (0x20000, 0x3FFFD),
]
TEXTS = [
    "Red heart", "  rotes\tHERZ!  ", "corazón rojo", "coeur d'amour", "लाल दिल", "赤いハート",
    "빨간 하트", "قلب أحمر", "ﬁre 2️⃣", "❤️", "👩‍🚀🇩🇪", "a",
]


def bucket(ngram):
    value = 0xCBF29CE484222325
    for byte in ngram.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return ((value ^ value >> 32) & 0xFFFFFFFF) % BUCKETS


def role(char):
    code, category = ord(char), unicodedata.category(char)
    if 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return "invisible"
    if 0x1F000 <= code <= 0x1FAFF or 0xE0020 <= code <= 0xE007E:
        return "symbol"
    if code == 0x200B:
        return "boundary"
    if any(low <= code <= high for low, high in UNSPACED):
        return "unspaced"
    if category[0] in "LMN":
        return "spaced"
    if category in ("Sm", "Sc", "So"):
        return "symbol"
    return "invisible" if category == "Cf" else "boundary"


def runs(text):
    text = unicodedata.normalize("NFKC", text)
    text = unicodedata.normalize("NFKC", "".join(char.lower() for char in text))
    found = []
    last = "boundary"
    for char in text:
        kind = role(char)
        if kind == "invisible":
            continue
        if kind != "boundary":
            if kind != last:
                found.append([kind, ""])
            found[-1][1] += char
        last = kind
    return found


def ids(text):
    result = []
    for kind, run in runs(text):
        if kind == "spaced":
            run = f"<{run}>"
            result.append(bucket(run))
            lengths = [length for length in (3, 4, 5) if length < len(run)]
        else:
            lengths = [length for length in (1, 2, 3) if length <= len(run)]
        for length in lengths:
            result += [bucket(run[at : at + length]) for at in range(len(run) - length + 1)]
    return result


if __name__ == "__main__":
    for text in TEXTS:
        literal = text.replace("\\", "\\\\").replace("\t", "\\t").replace('"', '\\"')
        escaped = "".join(c if c.isprintable() and not unicodedata.category(c)[0] in "MC" else f"\\u{{{ord(c):x}}}" for c in literal)
        print(f'    ("{escaped}", &{ids(text)}),')
