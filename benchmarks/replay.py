"""What replaying recorded steps is worth: our loop with and without, the same model, batches and bits, in one run.

The table is breast-cancer's, 30 columns of numbers; the others are MNIST's pictures. Steps before the recording are
left out of the time; ``recording_ms`` is what recording and checking add to the steps in which they are done, and
``earned_back`` the number of steps after which that is saved again (none where nothing is saved). Rounds alternate the
two; figures are medians of ratios within a round, and their spread.

    python -m benchmarks.replay [--model table mlp cnn lstm transformer] [--batch 32] [--rounds 9]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch

from zhixing.columns import Column
from zhixing.data.batches import Batch, Batches, Order
from zhixing.data.catalogue import load
from zhixing.data.prepare import Prepared, prepare
from zhixing.data.split import SplitSettings, split
from zhixing.recipe import Recipe
from zhixing.run import build_model, make_columns
from zhixing.training.loop import Hooks, Loop, Options
from zhixing.training.optimizers import adamw
from zhixing.training.precision import choose_precision, count_multiplications
from zhixing.training.replay import CHECKS, OFTEN, Replay
from zhixing.training.schedules import Constant
from zhixing.training.surroundings import reproducible

CPU = torch.device("cpu")
ENCODERS: Mapping[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "widths": [64, 64]},
    "cnn": {"name": "cnn"},
    "lstm": {"name": "lstm", "width": 64, "layers": 2},
    "transformer": {"name": "transformer", "width": 128, "depth": 2, "heads": 4},
}
STEPS = {"table": 2000, "mlp": 2000, "cnn": 200, "lstm": 300, "transformer": 60}


def make(name: str) -> tuple[Recipe, dict[str, Column], Prepared]:
    if name == "table":
        table = load("breast-cancer")
        *names, target = table.data.column_names
        inputs: dict[str, Any] = {column: {"type": "number"} for column in names}
    else:
        table, target = load("mnist").take(range(12_000)), "label"
        inputs = {"image": {"type": "image", "encoder": ENCODERS[name]}}
    recipe = Recipe({"data": {"source": "memory"}, "inputs": inputs, "outputs": {target: {"type": "category"}}})
    columns = make_columns(recipe)
    return recipe, columns, prepare(table, columns, split(table, SplitSettings(), 0, target=target), cache=None)


def seconds(
    made: tuple[Recipe, dict[str, Column], Prepared], batch: int, steps: int, replays: bool
) -> tuple[float, float]:
    """Of the steps in which a record is made and checked, and of ``steps`` steps after them."""
    recipe, columns, prepared = made
    model = build_model(recipe, columns).channels_last()
    rows = prepared.split["train"]
    rows = rows[: len(rows) // batch * batch]  # batches of one size
    batches = Batches({name: prepared.columns[name] for name in columns}, CPU)
    sample = batches.gather(rows[:2])
    precision = choose_precision("auto", CPU, count_multiplications(model, lambda: model(sample)) / 2 * batch)
    first, began = OFTEN + CHECKS + 1, dict[int, float]()

    def augment(part: Batch, step: int) -> Batch:
        began[step] = time.perf_counter()
        return part

    options = Options(first + steps, first + steps + 1, replay=replays)
    order, hooks = Order(rows, batch), Hooks(augment=augment)
    loop = Loop(model, adamw(model), Constant(), batches, order, options, precision, hooks=hooks)
    with reproducible(None):
        loop.run()
    assert not isinstance(loop.replay, Replay) or loop.replay.recorded
    return began[first] - began[OFTEN - 1], time.perf_counter() - began[first]


def compare(name: str, batch: int, rounds: int) -> dict[str, Any]:
    made, steps = make(name), STEPS[name]
    both = [[seconds(made, batch, steps, replays) for replays in (False, True)] for _ in range(rounds + 1)][1:]
    pairs = [(plain, replayed) for (_, plain), (_, replayed) in both]
    ratios = sorted(plain / replayed for plain, replayed in pairs)
    plain, replayed = (statistics.median(pair[side] for pair in pairs) / steps for side in (0, 1))
    recording = statistics.median(replayed[0] - plain[0] for plain, replayed in both)
    return {
        "model": name,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "plain_ms": round(1000 * plain, 3),
        "replayed_ms": round(1000 * replayed, 3),
        "recording_ms": round(1000 * recording, 1),
        "earned_back": round(recording / (plain - replayed)) if plain > replayed else None,
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(ratios[0], 3), round(ratios[-1], 3)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    for name in given.model:
        print(json.dumps(compare(name, given.batch, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
