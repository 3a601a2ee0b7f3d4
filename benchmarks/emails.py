"""Spam or not: a network from scratch beside TF-IDF with logistic regression, on the same e-mails.

A fifth of the 6,046 e-mails, in proportion of the classes, is never trained on; messages that repeat another, or nearly
do, are on the same side. Both read the raw text, headers included.

    python -m benchmarks.emails [--encoder text_cnn] [--seeds 1] [--set …]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from .command import trained
from .data import spam
from .near import groups_of_near_duplicates, held_out


def emails() -> tuple[Path, list[dict[str, str]]]:
    source = spam()
    rows = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    bodies = [row["text"].partition("\n\n")[2] for row in rows]
    groups = np.array(groups_of_near_duplicates(bodies))
    parts = np.full(len(rows), "train", dtype=object)
    for label in ("ham", "spam"):
        here = np.array([row["label"] == label for row in rows])
        own = np.where(here, groups, -1 - np.arange(len(rows)))
        mixed = np.isin(groups, groups[~here])  # a group with both labels stays in training
        chosen = np.flatnonzero(here & ~mixed)
        share = 0.2 * here.sum() / len(chosen)
        test = chosen[held_out(own[chosen].tolist(), share)]
        parts[test] = "test"
        rest = np.setdiff1d(chosen, test)
        parts[rest[held_out(own[rest].tolist(), 0.08)]] = "validation"
    rows = [row | {"split": part} for row, part in zip(rows, parts, strict=True)]
    path = source.with_name("split.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path, rows


def tf_idf(rows: list[dict[str, str]]) -> float:
    train, test = ([row for row in rows if (row["split"] == "test") == here] for here in (False, True))
    vectors = TfidfVectorizer(sublinear_tf=True, min_df=2)
    known = vectors.fit_transform([row["text"] for row in train])
    model = LogisticRegression(C=30, max_iter=1000).fit(known, [row["label"] for row in train])
    said = model.predict(vectors.transform([row["text"] for row in test]))
    return float(np.mean(said == np.array([row["label"] for row in test])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", nargs="+", default=["text_cnn"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[])
    given = parser.parse_args()
    path, rows = emails()
    test = sum(row["split"] == "test" for row in rows)
    print(json.dumps({"model": "TF-IDF, logistic regression", "accuracy": round(tf_idf(rows), 4), "test_rows": test}))
    for encoder in given.encoder:
        command = f"split.jsonl --target label --recipe emails --encoder {encoder}"
        for seed in range(given.seeds):
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / "run"
                metrics, seconds = trained(f"{command} --seed {seed}", folder, given.set, source=path)
                timings = (folder / "timings.jsonl").read_text("utf-8").splitlines()
            line = {
                "model": encoder,
                "command": f"zhixing train {command}",
                "seed": seed,
                "accuracy": round(metrics["label"]["accuracy"], 4),
                "auroc": round(metrics["label"]["auroc"], 4),
                "padding": json.loads(timings[-1])["padding"],
                "seconds": round(seconds),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
