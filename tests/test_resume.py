"""A run that is killed, stopped or damaged at any point goes on to the bits of one that was left alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zhixing import recipe as recipes
from zhixing.cli import main
from zhixing.errors import RunError
from zhixing.training.checkpoint import checkpoints, exclusive, read_checkpoint
from zhixing.verbs.train import resume, train

ROOT = Path(__file__).parents[1]
ENCODER = {"name": "mlp", "widths": [16], "dropout": 0.2}
RECIPE: dict[str, Any] = {
    "inputs": {"picture": {"type": "image", "encoder": ENCODER, "augment": "light"}},
    "outputs": {"label": {"type": "category"}},
    "training": {
        "epochs": 10, "batch_size": 16, "average": 0.9, "threads": 1, "log_every": 2, "checkpoint_every": 3,
        "keep": "last", "schedule": "plateau", "precision": "fp32",
        "early_stopping": {"patience": 3, "min_delta": 1.0},  # so much better it never gets: it stops early
    },
    "seed": 5,
}  # fmt: skip
LONG = {**RECIPE, "training": {**RECIPE["training"], "epochs": 100, "early_stopping": None, "checkpoint_every": 40}}
FILES = ("model.safetensors", "metrics.jsonl", "evaluation.json", "columns.json", "recipe.yaml", "manifest.json")


def fingerprint(run: Path) -> dict[str, str]:
    """Hashes of what a run ends with; of the last checkpoint, all files."""
    paths = [run / name for name in FILES] + sorted(checkpoints(run / "checkpoints")[0].iterdir())
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, digits: dict[str, Any]) -> Path:
    path = tmp_path_factory.mktemp("table") / "digits.npz"
    np.savez(path, picture=np.stack(digits["picture"][:80]), label=np.array(digits["label"][:80]))
    return path


@pytest.fixture(scope="module")
def alone(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was left alone."""
    return train(table, RECIPE, out=tmp_path_factory.mktemp("alone") / "run", device="cpu").path


@pytest.fixture(scope="module")
def long_alone(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(table, LONG, out=tmp_path_factory.mktemp("long") / "run", device="cpu").path


def fork(work: Callable[[], object], log: Path) -> int:
    """Work in a process of its own; it exits as the work does."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work()
        status = 0
    except SystemExit as leave:
        status = int(leave.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def end(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for(reached: Callable[[], bool], child: int) -> None:
    until = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < until
        assert os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, "it ended too early"
        time.sleep(0.001)


# Kill -9 ------------------------------------------------------------------------------------------------------------


def kill_and_resume(runs: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.kill_resume", "--kills", str(runs), "--seed", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_killed_at_random_instants() -> None:
    found = kill_and_resume(12, seed=1)
    assert found["differing"] == []
    assert found["equal"] == 12
    assert found["kills"] >= 12
    assert found["kills_while_writing"] >= 3


@pytest.mark.slow
def test_killed_at_many_random_instants() -> None:
    found = kill_and_resume(50, seed=2)
    assert found["equal"] == 50
    assert found["kills_while_writing"] >= 10
    assert found["killed_more_than_once"] >= 5


MOVED = (
    "recipe.yaml", "columns.json", "data.json", "problems.jsonl", "environment.json", "the first checkpoint",
    "the last checkpoint", "calibration.json", "evaluation.json", "report.html", "README.md", "model.safetensors",
    "manifest.json", "estimate.json",
)  # fmt: skip


def train_until(name: str, table: Path, run: Path) -> None:
    """Train, and die by SIGKILL just before a file or folder of this name is put in its place."""
    replace, rename = os.replace, os.rename

    def dying(move: Callable[..., None]) -> Callable[..., None]:
        def moved(old: Any, new: Any, **options: Any) -> None:
            if Path(new).name == name:
                os.kill(os.getpid(), signal.SIGKILL)
            move(old, new, **options)

        return moved

    os.replace, os.rename = dying(replace), dying(rename)
    train(table, RECIPE, out=run, device="cpu")


@pytest.mark.parametrize("name", MOVED)
def test_killed_before_a_file_is_put_in_place(table: Path, alone: Path, tmp_path: Path, name: str) -> None:
    """From the recipe to the manifest, with everything that a finished run holds in between."""
    run = tmp_path / "run"
    ends = {"the first checkpoint": "step-00000003", "the last checkpoint": checkpoints(alone / "checkpoints")[0].name}
    place = ends.get(name, name)  # these two are always written; those between, as the disk allows
    assert end(fork(lambda: train_until(place, table, run), tmp_path / "log.txt")) == -signal.SIGKILL
    if name == "recipe.yaml":  # nothing was begun, and the folder can be used
        with pytest.raises(RunError, match="not a run"):
            resume(run, device="cpu")
        train(table, RECIPE, out=run, device="cpu")
    else:
        resume(run, device="cpu")
    assert fingerprint(run) == fingerprint(alone)
    assert {path.name for path in run.iterdir()} >= {path.name for path in alone.iterdir()}
    assert (run / "report.html").stat().st_size > 1000


def test_every_file_of_a_run_is_such_an_instant(alone: Path) -> None:
    assert {path.name for path in alone.iterdir()} - set(MOVED) == {"checkpoints", "metrics.jsonl", "timings.jsonl"}
    last = json.loads((alone / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["kind"] == "validation"
    assert last["epoch"] < RECIPE["training"]["epochs"]  # it stopped early, which a resumed run must not forget


# Signals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop(table: Path, long_alone: Path, tmp_path: Path, signum: signal.Signals, status: int) -> None:
    """It saves, says how to go on, leaves with the signal's status, and goes on to the same bits."""
    run, log = tmp_path / "run", tmp_path / "log.txt"
    (tmp_path / "recipe.yaml").write_text(recipes.dump({**LONG, "data": {"source": str(table)}}), "utf-8")
    arguments = ["train", str(table), "--recipe", str(tmp_path / "recipe.yaml"), "--out", str(run), "--device", "cpu"]
    child = fork(lambda: main(arguments), log)
    metrics = run / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.stat().st_size > 300, child)
    os.kill(child, signum)
    assert end(child) == status
    told = log.read_text()
    assert f"go on with: zhixing train --resume {run}" in told
    assert "Traceback" not in told
    stopped = read_checkpoint(checkpoints(run / "checkpoints")[0]).step
    assert f"stopped at step {stopped}" in told
    assert 0 < stopped < int(checkpoints(long_alone / "checkpoints")[0].name[5:])
    assert not (run / "manifest.json").exists()
    assert end(fork(lambda: main(["train", "--resume", str(run), "--device", "cpu"]), log)) == 0
    assert fingerprint(run) == fingerprint(long_alone)


def test_a_finished_run_says_so(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(alone)
    main(["train", "--resume", str(alone), "--device", "cpu"])  # comes back: status 0
    assert "is finished; there is nothing to resume" in capsys.readouterr().err
    main(["train", "--resume", str(alone), "--device", "cpu", "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["run"] == str(alone)
    assert "accuracy" in told["metrics"]["label"]
    assert fingerprint(alone) == before


# What else may be wrong ---------------------------------------------------------------------------------------------


@pytest.fixture
def unfinished(alone: Path, tmp_path: Path) -> Path:
    """A run that was killed after its last checkpoint."""
    run = tmp_path / "unfinished"
    shutil.copytree(alone, run)
    for name in ("manifest.json", "model.safetensors", "evaluation.json", "report.html", "README.md"):
        (run / name).unlink()
    return run


def damage(folder: Path) -> None:
    path = folder / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_last_good_checkpoint_is_taken(unfinished: Path, alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest, before = checkpoints(unfinished / "checkpoints")
    damage(newest)
    resume(unfinished, device="cpu")
    told = capsys.readouterr().err
    assert f"{newest}: optimizer.safetensors is not what was written" in told
    assert "falling back to the one before" in told
    assert fingerprint(unfinished) == fingerprint(alone)
    assert int(before.name[5:]) < int(newest.name[5:])


def test_without_a_good_checkpoint_it_starts_again_and_says_so(
    unfinished: Path, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in checkpoints(unfinished / "checkpoints"):
        damage(folder)
    resume(unfinished, device="cpu")
    assert "there is no good checkpoint: the run starts again" in capsys.readouterr().err
    assert fingerprint(unfinished) == fingerprint(alone)


def test_a_log_that_lost_its_end_is_told(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = unfinished / "metrics.jsonl"
    size = path.stat().st_size
    os.truncate(path, size - 100)
    resume(unfinished, device="cpu")
    assert "metrics.jsonl lacks its last 100 bytes" in capsys.readouterr().err


def test_two_processes_do_not_resume_one_run(unfinished: Path, alone: Path) -> None:
    with exclusive(unfinished), pytest.raises(RunError, match="another process is training this run"):
        resume(unfinished, device="cpu")
    resume(unfinished, device="cpu")
    assert fingerprint(unfinished) == fingerprint(alone)


def test_other_data_are_refused(unfinished: Path, table: Path, tmp_path: Path) -> None:
    with np.load(table) as arrays:
        changed = {name: arrays[name].copy() for name in arrays}
    changed["picture"][3, 2, 2] ^= 1
    np.savez(tmp_path / "other.npz", **changed)
    with pytest.raises(RunError, match="not what the run was started with"):
        resume(unfinished, source=tmp_path / "other.npz", device="cpu")


def test_a_recipe_that_was_changed_between_is_refused(unfinished: Path) -> None:
    path = unfinished / "recipe.yaml"
    path.write_text(path.read_text("utf-8").replace("widths: [16]", "widths: [17]"), "utf-8")
    with pytest.raises(RunError, match="does not fit the run's settings"):
        resume(unfinished, device="cpu")
