"""Steps by torch's compiler: the same bits whenever the run was killed, and nothing of it left behind."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zhixing.data.batches import Batches, ColumnBatch, Order
from zhixing.training.compiled import typical_steps
from zhixing.verbs.train import train

PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from zhixing.verbs.pretrain import pretrain
from zhixing.verbs.train import resume, train

table, recipe, run, last = json.loads(sys.argv[1])

def dying(move):
    def moved(old, new, **options):
        move(old, new, **options)
        if Path(new).name == last:
            os.kill(os.getpid(), signal.SIGKILL)
    return moved

os.replace, os.rename = dying(os.replace), dying(os.rename)
if Path(run).exists():
    resume(Path(run), device="cpu")
elif "outputs" in recipe:
    train(Path(table), recipe, out=Path(run), device="cpu")
else:
    pretrain(Path(table), recipe, ["text"], out=Path(run), device="cpu")
"""
SMALL = {"name": "transformer", "width": 32, "depth": 1, "heads": 2, "dropout": 0.1}
TRAINING = {"compile": True, "epochs": 2, "batch_size": 32, "checkpoint_every": 3, "threads": 1, "keep": "last"}
TEXTS: dict[str, Any] = {
    "inputs": {"text": {"type": "text", "encoder": SMALL}},
    "outputs": {"label": {"type": "category"}},
    "training": TRAINING,
}
PICTURES = {
    "inputs": {"picture": {"type": "image", "encoder": {"name": "cnn", "dropout": 0.1}, "augment": "light"}},
    "outputs": {"label": {"type": "category"}},
    "training": {**TRAINING, "micro_batch": 17, "average": 0.9},
}
PRETEXT = {"inputs": TEXTS["inputs"], "training": TRAINING}


def process(table: Path, recipe: dict[str, Any], run: Path, last: str = "") -> int:
    """Train, or go on with a run, in a process of its own; it is killed once a checkpoint of this name is there."""
    given = json.dumps([str(table), recipe, str(run), last])
    done = subprocess.run([sys.executable, "-c", PROGRAM, given], capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """250 texts of 1 to 40 words, for 7 batches of 28 and 29 rows."""
    chance, path = random.Random(0), tmp_path_factory.mktemp("texts") / "texts.jsonl"
    words = ["".join(chance.choice("abcdefgh") for _ in range(4)) for _ in range(60)]
    lines = []
    for _ in range(250):
        label = chance.random() < 0.5
        text = chance.choices(words[:40] if label else words[20:], k=chance.choice([1, 3, 7, 15, 40]))
        lines.append(json.dumps({"text": " ".join(text), "label": str(label)}))
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, digits: dict[str, Any]) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "digits.npz"
    np.savez(path, picture=np.stack(digits["picture"][:250]), label=np.array(digits["label"][:250]))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("what", ["texts", "pictures", "pretext", "gradual"])
def test_a_compiled_training_that_is_killed_goes_on_to_the_same_bits(
    what: str, texts: Path, pictures: Path, tmp_path: Path
) -> None:
    table = pictures if what == "pictures" else texts
    recipe: dict[str, Any] = {"texts": TEXTS, "pictures": PICTURES, "pretext": PRETEXT, "gradual": TEXTS}[what]
    if what == "gradual":
        base = {**TEXTS, "training": {**TRAINING, "compile": False}}
        assert process(table, base, tmp_path / "base") == 0
        tuned = {**TRAINING, "fine_tuning": {"name": "gradual", "by": 0.6}}
        recipe = {**TEXTS, "inputs": {"text": {"encoder": str(tmp_path / "base")}}, "training": tuned}
    assert process(table, recipe, tmp_path / "alone") == 0
    assert process(table, recipe, tmp_path / "killed", "step-00000006") == -signal.SIGKILL
    assert process(table, recipe, tmp_path / "killed") == 0
    for name in ("model.safetensors", "metrics.jsonl", "evaluation.json"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


def test_what_is_compiled_for_follows_from_the_order_of_rows() -> None:
    batches = Batches({"x": ColumnBatch(torch.zeros(250, 4))}, torch.device("cpu"))
    order = Order(np.arange(250), 32, seed=1)
    assert sorted(len(order.at(step)) for step in typical_steps(order, batches)) == [31, 32]
    assert [len(Order(np.arange(64), 32).at(step)) for step in typical_steps(Order(np.arange(64), 32), batches)] == [32]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses parts of torch that are to go
@pytest.mark.parametrize("what", ["texts", "pictures"])
def test_what_was_compiled_at_first_serves_all_batches(
    what: str, texts: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stances, real = [], torch.compiler.set_stance

    def strict(stance: str) -> Any:
        stances.append(stance)
        return real("fail_on_recompile")

    monkeypatch.setattr(torch.compiler, "set_stance", strict)
    table, recipe = (texts, TEXTS) if what == "texts" else (pictures, PICTURES)
    if what == "texts":  # batches of a single word stay plain: a size of 1 is no unknown number to the compiler
        table = tmp_path / "longer.jsonl"
        table.write_text("\n".join(line for line in texts.read_text("utf-8").splitlines() if line.count(" ") > 3))
    train(table, recipe, out=tmp_path / "run", device="cpu")
    assert set(stances) == {"eager_on_recompile"}
    assert len(stances) >= 10
