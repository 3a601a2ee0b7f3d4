"""MovieLens-100k: ratings of films, and the next film of each person.

``rating``: root mean squared error on a random tenth, beside the mean with a person's and a film's own deviations.
``next``: each person's last film, ranked among all films that the person has not seen before, is among the first ten;
beside the most popular films and a matrix factorisation trained on the same events (BPR: Rendle et al. 2009). Nothing
learns from an event that is later than the one before each person's last.

    python -m benchmarks.recommend [--only rating next] [--seeds 1]
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zhixing as zx

from .command import trained
from .data import movielens


def read() -> list[dict[str, str]]:
    with movielens().open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rating(seed: int, more: list[str]) -> dict[str, Any]:
    rows = read()
    parts = np.where(np.random.default_rng(seed).random(len(rows)) < 0.1, "test", "train")
    rest = np.flatnonzero(parts == "train")
    parts[np.random.default_rng(seed + 1).choice(rest, len(rows) // 20, replace=False)] = "validation"
    path = movielens().with_name("rating.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "rating", "split"])
        writer.writerows([row["user"], row["item"], row["rating"], part] for row, part in zip(rows, parts, strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        command = "rating.csv --target rating --recipe ratings"
        metrics, seconds = trained(f"{command} --seed {seed}", Path(scratch) / "run", more, source=path)
    return {
        "task": "rating",
        "command": f"zhixing train {command}",
        "seed": seed,
        "rmse": round(metrics["rating"]["rmse"], 4),
        "seconds": round(seconds),
        "rmse_of_deviations": round(deviations(rows, parts), 4),
    }


def deviations(rows: list[dict[str, str]], parts: np.ndarray) -> float:
    """Mean, and what a film and a person are above it (each shrunk by five ratings), on the test rows."""
    known = [row for row, part in zip(rows, parts, strict=True) if part != "test"]
    kept = [(row["user"], row["item"], float(row["rating"])) for row in known]
    mean = float(np.mean([one[2] for one in kept]))
    item: dict[str, list[float]] = defaultdict(list)
    for _, name, value in kept:
        item[name].append(value - mean)
    above = {name: sum(values) / (len(values) + 5) for name, values in item.items()}
    user: dict[str, list[float]] = defaultdict(list)
    for name, film, value in kept:
        user[name].append(value - mean - above[film])
    own = {name: sum(values) / (len(values) + 5) for name, values in user.items()}
    wrong = [
        mean + above.get(row["item"], 0.0) + own.get(row["user"], 0.0) - float(row["rating"])
        for row, part in zip(rows, parts, strict=True)
        if part == "test"
    ]
    return float(np.sqrt(np.mean(np.square(wrong))))


def following(seed: int, more: list[str]) -> dict[str, Any]:
    rows = sorted(read(), key=lambda row: float(row["time"]))  # stable: ties stay in the order of the file
    seen: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        seen[row["user"]].append(row["item"])
    films = sorted({row["item"] for row in rows})
    place = {film: number for number, film in enumerate(films)}
    users = sorted(seen)
    path = movielens().with_name("log.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "time"])
        writer.writerows([row["user"], row["item"], row["time"]] for row in rows)
    with tempfile.TemporaryDirectory() as scratch:
        folder, command = Path(scratch) / "run", "log.csv --target item --recipe next-item"
        _, seconds = trained(f"{command} --seed {seed}", folder, more, source=path)
        scores = network_scores(zx.load(folder), [seen[user][:-1] for user in users], place)
    counts = np.zeros(len(films))
    for user in users:
        for film in seen[user][:-2]:
            counts[place[film]] += 1
    histories = [[place[film] for film in seen[user][:-2]] for user in users]
    models = {
        "network": scores,
        "popularity": np.tile(counts, (len(users), 1)),
        "matrix_factorisation": factorised(histories, len(films), seed),
    }
    out: dict[str, Any] = {
        "task": "next",
        "command": f"zhixing train {command}",
        "seed": seed,
        "seconds": round(seconds),
    }
    for name, table in models.items():
        ranks = []
        for number, user in enumerate(users):
            *before, last = (place[film] for film in seen[user])
            row = table[number].astype(np.float64).copy()
            row[before] = -np.inf
            ranks.append(int((row > row[last]).sum()))
        hits = np.array(ranks) < 10
        gain = np.where(hits, 1 / np.log2(np.array(ranks) + 2), 0)
        out[name] = {"hit_rate_10": round(float(hits.mean()), 4), "ndcg_10": round(float(gain.mean()), 4)}
    return out


def network_scores(run: Any, histories: list[list[str]], place: dict[str, int]) -> np.ndarray:
    """The probability of each film after each history, [people, films]."""
    answers = run.predict({"history": histories}, probabilities=True)
    scores = np.full((len(histories), len(place)), -np.inf)
    for name in answers.column_names:
        if name.startswith("item_probability_"):
            scores[:, place[name.removeprefix("item_probability_")]] = answers[name].to_numpy()
    return scores


def factorised(histories: list[list[int]], films: int, seed: int, width: int = 64, epochs: int = 60) -> np.ndarray:
    """Matrix factorisation that ranks what was seen above what was not, [people, films]."""
    torch.manual_seed(seed)
    people, items = torch.nn.Embedding(len(histories), width), torch.nn.Embedding(films, width)
    bias = torch.nn.Embedding(films, 1)
    for table in (people, items):
        torch.nn.init.normal_(table.weight, std=0.1)
    torch.nn.init.zeros_(bias.weight)
    parameters = [*people.parameters(), *items.parameters(), *bias.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=5e-3, weight_decay=1e-5)
    who = torch.tensor([user for user, row in enumerate(histories) for _ in row])
    what = torch.tensor([film for row in histories for film in row])
    seen = torch.zeros(len(histories), films, dtype=torch.bool)
    seen[who, what] = True
    for _ in range(epochs):
        order = torch.randperm(len(who))
        for batch in order.split(2048):
            user, good = who[batch], what[batch]
            bad = torch.randint(films, good.shape)
            kept = ~seen[user, bad]
            apart = (people(user) * (items(good) - items(bad))).sum(1) + (bias(good) - bias(bad))[:, 0]
            loss = -torch.nn.functional.logsigmoid(apart[kept]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return (people.weight @ items.weight.T + bias.weight.T).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["rating", "next"], default=["rating", "next"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[])
    given = parser.parse_args()
    for name in given.only:
        for seed in range(given.seeds):
            print(json.dumps({"rating": rating, "next": following}[name](seed, given.set)), flush=True)


if __name__ == "__main__":
    main()
