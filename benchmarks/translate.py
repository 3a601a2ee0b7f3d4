"""English to French (or Chinese) of software help, beside copying and beside a translation memory.

Near-duplicates, in either language, are kept on one side of the split. BLEU and chrF by sacreBLEU on the test pairs.
The translation memory answers with the translation of the most similar training text (TF-IDF of character n-grams).

    python -m benchmarks.translate [--language fr] [--set training.epochs=9 …]
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

import zhixing as zx
from zhixing.heads.text import overlap

from .command import trained
from .data import translation
from .near import groups_of_near_duplicates, held_out

SENTENCE = "Click the button to open the dialog."


def pairs(language: str) -> Path:
    """The pairs with a column ``split``."""
    source = translation(language)
    path = source.with_name("split.tsv")
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    groups = groups_of_near_duplicates([row["en"] for row in rows], [row[language] for row in rows])
    out = held_out(groups, 0.08)
    test = held_out([group if here else -1 for group, here in zip(groups, out, strict=True)], 0.05) & out
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["en", language, "split"])
        for row, held, tested in zip(rows, out, test, strict=True):
            part = "test" if tested else "validation" if held else "train"
            writer.writerow([row["en"], row[language], part])
    return path


def baselines(path: Path, language: str) -> dict[str, dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    train, test = ([row for row in rows if row["split"] == part] for part in ("train", "test"))
    truth = [row[language] for row in test]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=200_000)
    known = vectors.fit_transform([row["en"] for row in train])
    asked = vectors.transform([row["en"] for row in test])
    parts = [(asked[start : start + 500] @ known.T).argmax(1) for start in range(0, len(test), 500)]
    nearest = np.concatenate([np.asarray(part).ravel() for part in parts])
    return {
        "copy": rounded(overlap([row["en"] for row in test], truth)),
        "translation_memory": rounded(overlap([train[i][language] for i in nearest], truth)),
    }


def rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", choices=["fr", "zh"], default="fr")
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    path = pairs(given.language)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.out or Path(scratch) / "run"
        command = f"split.tsv --target {given.language} --recipe translation"
        found, seconds = trained(command, folder, given.set, source=path)
        metrics = found[given.language]
        run = zx.load(folder)
        said = run.predict([SENTENCE])[given.language].to_pylist()[0]
    line = {
        "command": f"zhixing train {command}",
        "seconds": round(seconds),
        "model": rounded({name: metrics[name] for name in ("bleu", "chrf", "exact", "perplexity")}),
        **baselines(path, given.language),
        "example": {SENTENCE: said},
    }
    print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
