"""Kill -9 studies at random moments, resume, compare: ``python -m benchmarks.tune_kills --kills 30``.

A study of 20 trials is left alone once. Then another like it is begun and killed at a random moment, resumed and killed
again, until it has been killed so many times; and further ones are each killed once, at a moment drawn evenly from the
time that the first took. Each of these must end with the same 20 trials: the same settings, the same results at every
rung, the same states, the same best, and the same log of every trial to the byte, which says that no step was trained
twice or left out. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from zhixing.tune.search import Ask, go_on, tune
from zhixing.tune.study import Study, best_of

from .kill_resume import end, fork, kill_when, write_table

TRIALS = 20
RECIPE: dict[str, Any] = {
    "inputs": {
        "picture": {
            "type": "image",
            "encoder": {"name": "cnn", "layers": [6, "pool", 6], "dense": [16], "dropout": 0.1},
        }
    },
    "outputs": {"label": {"type": "category"}},
    "training": {"epochs": 9, "batch_size": 64, "threads": 1, "checkpoint_every": 3},
    "seed": 1,
}


class Killer:
    """Studies of one table that are killed and resumed, and the one that was left alone."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.source, self.log = write_table(folder), folder / "log.txt"
        began = time.perf_counter()
        assert end(self.process(folder / "alone")) == 0, self.log.read_text()[-3000:]
        self.seconds = time.perf_counter() - began
        self.expected = told(folder / "alone")

    def process(self, out: Path) -> int:
        """One process that begins the study, or goes on with it."""
        if (out / "study.json").is_file():
            return fork(lambda: go_on(out, device="cpu"), self.log)
        ask = Ask(trials=TRIALS, confirm=0)
        return fork(lambda: tune(self.source, RECIPE, ask, out=out, device="cpu"), self.log)

    def study(self, name: str, kills: int) -> tuple[int, dict[str, Any]]:
        """Kill one study so many times, then let it end; gives the kills that hit, and what it ended with."""
        out, done = self.folder / name, 0
        while done < kills:
            delay = self.chance.uniform(0, 2 * self.seconds / kills if kills > 1 else self.seconds)
            if kill_when(self.process(out), lambda: True, delay):
                done += 1
            else:  # it had ended before: such a moment does not count
                shutil.rmtree(out)
                done = 0
        status = end(self.process(out))
        assert status == 0, self.log.read_text()[-3000:]
        found = told(out)
        shutil.rmtree(out)
        return done, found


def told(path: Path) -> dict[str, Any]:
    """All that a study ends with, that a kill must not change."""
    study = Study(path)
    records = study.journal.records()
    return {
        "best": best_of(study, records)[0].number,
        "best_recipe": (path / "best.yaml").read_text("utf-8"),
        "trials": [[one.number, one.state, one.settings, one.rung, one.seen] for one in records],
        "logs": {
            str(log.relative_to(path)): hashlib.sha256(log.read_bytes()).hexdigest()
            for log in sorted(path.glob("trials/*/metrics.jsonl"))
        },
    }


def run(kills: int, studies: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        os.environ["ZHIXING_CACHE"] = f"{name}/cache"
        killer = Killer(Path(name), seed)
        plans = [kills, *([1] * studies)]
        found = [killer.study(f"killed-{index}", count) for index, count in enumerate(plans)]
        expected, seconds = killer.expected, killer.seconds
    return {
        "studies": len(found),
        "kills": sum(count for count, _ in found),
        "kills_of_the_first": found[0][0],
        "trials": sorted({len(one["trials"]) for _, one in found}),
        "best": expected["best"],
        "same_best": sum(one["best_recipe"] == expected["best_recipe"] for _, one in found),
        "same_trials": sum(one["trials"] == expected["trials"] for _, one in found),
        "same_logs": sum(one["logs"] == expected["logs"] for _, one in found),
        "seconds_of_a_study": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill studies, resume them and compare what they end with.")
    parser.add_argument("--kills", type=int, default=30, help="times that one study is killed")
    parser.add_argument("--studies", type=int, default=10, help="further studies, each killed once")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = run(arguments.kills, arguments.studies, arguments.seed)
    print(json.dumps(found))
    sys.exit(0 if found["same_trials"] == found["same_logs"] == found["same_best"] == found["studies"] else 1)


if __name__ == "__main__":
    main()
