"""Copies prepared emoji data and adds frequent words, so that E learns languages from more than 1,339 concepts' names.

Usage: emoji-words.py FROM TO WORDS

Of each language the WORDS most frequent words (wordfreq; Speer, 2022; Apache-2.0, its lists CC BY-SA 4.0) are dealt to the concepts of the
train split as keywords. They say nothing of a concept: the data are for a stage that leaves S as it is, and for no other. Words that are a name
or keyword of a concept outside the train split, in whatever language, are left out, so that what is read of those concepts is read of names not
seen. Nothing of it is committed or served.
"""

import hashlib
import json
import os
import random
import shutil
import sys
import unicodedata

import pyarrow
import pyarrow.parquet
import wordfreq

SEED = 7
TEXTS = "texts-00000.parquet"


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(text):
    return unicodedata.normalize("NFKC", text).lower().strip()


def with_words(table, most):
    columns = table.to_pydict()
    withheld = {plain(text) for text, split in zip(columns["text"], columns["split"]) if split != "train"}
    groups = sorted({group for group, split in zip(columns["group"], columns["split"]) if split == "train"})
    dealer = random.Random(SEED)
    for language in sorted(set(columns["lang"])):
        words = [word for word in wordfreq.top_n_list(language, most) if plain(word) not in withheld]
        dealer.shuffle(words)
        for number, word in enumerate(words):
            row = {"text": word, "lang": language, "kind": "keyword", "group": groups[number % len(groups)], "split": "train"}
            for column, value in row.items():
                columns[column].append(value)
    # As `prepare` writes them.
    order = sorted(range(len(columns["text"])), key=lambda row: (columns["group"][row], columns["lang"][row]))
    return pyarrow.table({name: [values[row] for row in order] for name, values in columns.items()}, schema=table.schema)


def main():
    source, target, most = sys.argv[1:]
    os.makedirs(target, exist_ok=True)
    with open(os.path.join(source, "dataset.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    for entry in manifest["files"]:
        if entry["path"] != TEXTS:
            shutil.copy(os.path.join(source, entry["path"]), target)
    before = pyarrow.parquet.read_table(os.path.join(source, TEXTS))
    after = with_words(before, int(most))
    path = os.path.join(target, TEXTS)
    pyarrow.parquet.write_table(after, path, compression="zstd", row_group_size=1000)
    added = after.num_rows - before.num_rows
    manifest["counts"]["texts"] += added
    manifest["counts"]["texts_by_split"]["train"] += added
    for language, words in zip(*count(after)):
        manifest["counts"]["texts_by_lang"][language] = words
    entry = next(entry for entry in manifest["files"] if entry["path"] == TEXTS)
    entry["rows"], entry["sha256"] = after.num_rows, digest(path)
    manifest["sources"].append({"gives": "words of no concept", "package": "wordfreq 3.1.1", "licence": "CC-BY-SA-4.0", "author": "Robyn Speer"})
    with open(os.path.join(target, "dataset.json"), "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
    print(f"{target}: {added} words beside {before.num_rows} texts")


def count(table):
    counted = table["lang"].value_counts().to_pylist()
    return [entry["values"] for entry in counted], [entry["counts"] for entry in counted]


if __name__ == "__main__":
    main()
