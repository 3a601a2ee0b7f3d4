"""Kill -9, resume, compare: ``python -m benchmarks.kill_resume --kills 50``.

A run with dropout, batch normalisation, random augmentation, a moving average, accumulation, label smoothing, clipping
and bf16 is left alone once. Then it is begun again and again, killed at a random instant, resumed, killed again now and
then, and at last left to end. Every one of these must hold the same bits as the first: weights, optimizer, averages,
random states and position (all files of the last checkpoint), the loss log, the evaluation. Prints one line of JSON.

Each process is forked from this one, which has imported everything and uses one thread. Nothing is slowed down to be
hit: to kill while a checkpoint is being written, the run's folder is watched for the temporary folder.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from zhixing.errors import RunError
from zhixing.verbs.train import resume, train

ROWS = 320
ENCODER = {"name": "cnn", "layers": [8, "pool", 8], "dense": [32], "batch_norm": True, "dropout": 0.3}
RECIPE: dict[str, Any] = {
    "inputs": {"picture": {"type": "image", "encoder": ENCODER, "augment": "light"}},
    "outputs": {"label": {"type": "category", "smoothing": 0.1}},
    "training": {
        "epochs": 5, "batch_size": 32, "micro_batch": 12, "average": 0.9, "precision": "bf16", "clip": 1.0,
        "threads": 1, "log_every": 3, "validate_every": 7, "checkpoint_every": 2, "keep": "last",
    },
    "seed": 3,
}  # fmt: skip
Work = Callable[[], object]


def write_table(folder: Path) -> Path:
    """Small pictures of digits with their labels, in a file."""
    digits = load_digits()
    path = folder / "digits.npz"
    np.savez(path, picture=(digits.images[:ROWS] * 15.9).astype(np.uint8), label=digits.target[:ROWS].astype(str))
    return path


# Processes ----------------------------------------------------------------------------------------------------------


def fork(work: Work, log: Path) -> int:
    """Do some work in a process of its own, which ends with 0 if it went well; what it says goes to ``log``."""
    gc.freeze()  # so that no child's collector touches, and thereby copies, all of memory
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        work()
        status = 0
    except BaseException as error:
        traceback.print_exc()
        status = getattr(error, "exit_status", status)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def end(child: int) -> int:
    """Wait for a process; its exit status, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def running(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def kill_when(child: int, reached: Callable[[], bool], delay: float) -> bool:
    """Kill a process some seconds after something has come true; False if it ended before."""
    while running(child) and not reached():
        time.sleep(0.0002)
    until = time.perf_counter() + delay
    while running(child) and time.perf_counter() < until:
        time.sleep(0.0001)
    os.kill(child, signal.SIGKILL)
    return end(child) == -signal.SIGKILL


# Runs ---------------------------------------------------------------------------------------------------------------


def fingerprint(run: Path) -> dict[str, str]:
    """A hash of everything that a run ends with, by name."""
    out = {}
    names = ("model.safetensors", "metrics.jsonl", "evaluation.json", "columns.json", "recipe.yaml", "manifest.json")
    for path in [run / name for name in names] + sorted(max((run / "checkpoints").iterdir()).iterdir()):
        out[str(path.relative_to(run))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return out


@dataclass
class Trial:
    """One run that was killed, perhaps more than once."""

    run: Path
    kills: int = 0
    while_writing: int = 0
    before_first: int = 0

    def note(self) -> None:
        self.kills += 1
        checkpoints = self.run / "checkpoints"
        self.while_writing += any(checkpoints.glob(".part-*"))
        self.before_first += not any(checkpoints.glob("step-*"))


class Killer:
    """Runs of one table that are killed and resumed, and the run that was left alone."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.source = write_table(folder)
        self.log = folder / "log.txt"
        self.alone = folder / "alone"
        train(self.source, RECIPE, out=folder / "warm", device="cpu")
        began = time.perf_counter()
        self.must_end(lambda: train(self.source, RECIPE, out=self.alone, device="cpu"))
        self.seconds = time.perf_counter() - began
        self.steps = json.loads((self.alone / "metrics.jsonl").read_text().splitlines()[-1])["step"]
        self.expected = fingerprint(self.alone)

    def must_end(self, work: Work) -> None:
        status = end(fork(work, self.log))
        if status:
            raise RunError(f"a process ended with {status}: {self.log.read_text()[-3000:]}")

    def begin(self, run: Path) -> int:
        return fork(lambda: train(self.source, RECIPE, out=run, device="cpu"), self.log)

    def go_on(self, run: Path) -> int:
        return fork(lambda: resume(run, device="cpu"), self.log)

    def kill(self, child: int, trial: Trial, kind: str, *, share: float = 1.0) -> None:
        """Kill at a random instant of this first share of the run, or while a checkpoint is being written."""
        checkpoints = trial.run / "checkpoints"
        if kind == "writing":
            step = self.chance.randrange(int(self.steps * share))

            def reached() -> bool:
                return any(int(path.name[-8:]) >= step for path in checkpoints.glob(".part-*"))

            delay = self.chance.uniform(0, 0.004)
        else:
            began = trial.run / "recipe.yaml"
            reached, delay = began.exists, self.chance.uniform(0, self.seconds * share)
        if kill_when(child, reached, delay):
            trial.note()

    def trial(self, number: int) -> Trial:
        """Kill one run once, or every fifth one three times in a row, and let it end."""
        trial = Trial(self.folder / f"killed-{number}")
        kind, thrice = "writing" if number % 2 else "instant", number % 5 == 4
        while not trial.kills:  # an instant after the end does not count
            shutil.rmtree(trial.run, ignore_errors=True)
            self.kill(self.begin(trial.run), trial, kind, share=0.3 if thrice else 1.0)
        if thrice:
            self.kill(self.go_on(trial.run), trial, "writing", share=0.6)
            self.kill(self.go_on(trial.run), trial, "instant", share=0.3)
        self.must_end(lambda: resume(trial.run, device="cpu"))
        return trial

    def trials(self, count: int) -> Iterator[tuple[Trial, dict[str, tuple[str | None, str | None]]]]:
        """Each trial with the files that differ from those of the run that was left alone."""
        for number in range(count):
            trial = self.trial(number)
            found = fingerprint(trial.run)
            names = sorted(found.keys() | self.expected.keys())
            pairs = {name: (self.expected.get(name), found.get(name)) for name in names}
            yield trial, {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
            shutil.rmtree(trial.run)


def run(runs: int, seed: int) -> dict[str, Any]:
    """So many killed and resumed runs, and what came of them."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["ZHIXING_CACHE"] = f"{name}/cache"
        killer = Killer(Path(name), seed)
        done = list(killer.trials(runs))
    trials = [trial for trial, _ in done]
    return {
        "runs": len(done),
        "kills": sum(trial.kills for trial in trials),
        "kills_while_writing": sum(trial.while_writing for trial in trials),
        "kills_before_first_checkpoint": sum(trial.before_first for trial in trials),
        "killed_more_than_once": sum(trial.kills > 1 for trial in trials),
        "equal": sum(not differing for _, differing in done),
        "differing": sorted({name for _, differing in done for name in differing}),
        "steps": killer.steps,
        "seconds_of_a_run": round(killer.seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill runs, resume them and compare their bits.")
    parser.add_argument("--kills", type=int, default=50, help="runs that are killed, each at least once")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = run(arguments.kills, arguments.seed)
    print(json.dumps(found))
    sys.exit(0 if found["equal"] == found["runs"] else 1)


if __name__ == "__main__":
    main()
