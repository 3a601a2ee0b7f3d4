"""Times of training steps, one way beside another: the same model and batches, in turns, in one process."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from zhixing.columns import Column
from zhixing.data.batches import Batch, Batches, Order
from zhixing.data.catalogue import load
from zhixing.data.prepare import Prepared, prepare
from zhixing.data.source import open_source
from zhixing.data.split import SplitSettings, split
from zhixing.recipe import Recipe
from zhixing.run import build_model, make_columns
from zhixing.training.loop import Hooks, Loop, Options
from zhixing.training.optimizers import adamw
from zhixing.training.precision import choose_precision, count_multiplications
from zhixing.training.schedules import Constant
from zhixing.training.surroundings import reproducible

from .data import spam

CPU = torch.device("cpu")
ENCODERS: Mapping[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "widths": [64, 64]},
    "cnn": {"name": "cnn"},
    "lstm": {"name": "lstm", "width": 64, "layers": 2},
    "transformer": {"name": "transformer", "width": 128, "depth": 2, "heads": 4},
}
Made = tuple[Recipe, dict[str, Column], Prepared]
Seconds = tuple[float, float]  # of the beginning, and of the steps that are compared


def make(name: str) -> Made:
    """``table``: breast-cancer's 30 numbers; ``texts``: up to 128 words of e-mails; an encoder's name: MNIST."""
    if name == "table":
        table = load("breast-cancer")
        *names, target = table.data.column_names
        inputs: dict[str, Any] = {column: {"type": "number"} for column in names}
    elif name == "texts":
        table, target = open_source(spam()), "label"
        inputs = {"text": {"type": "text", "length": 128, "encoder": ENCODERS["transformer"]}}
    else:
        table, target = load("mnist").take(range(12_000)), "label"
        inputs = {"image": {"type": "image", "encoder": ENCODERS[name]}}
    recipe = Recipe({"data": {"source": "memory"}, "inputs": inputs, "outputs": {target: {"type": "category"}}})
    columns = make_columns(recipe)
    return recipe, columns, prepare(table, columns, split(table, SplitSettings(), 0, target=target), cache=None)


def trained(made: Made, batch: int, steps: int, **options: Any) -> tuple[Loop, list[float]]:
    """A loop that has taken so many steps, and when each began and the last ended."""
    recipe, columns, prepared = made
    model = build_model(recipe, columns).channels_last()
    rows = prepared.split["train"]
    rows = rows[: len(rows) // batch * batch]  # batches of one size
    batches = Batches({name: prepared.columns[name] for name in columns}, CPU)
    sample = batches.gather(rows[:2])
    precision = choose_precision("auto", CPU, count_multiplications(model, lambda: model(sample)) / 2 * batch)
    began = dict[int, float]()

    def augment(part: Batch, step: int) -> Batch:
        began.setdefault(step, time.perf_counter())
        return part

    order, hooks = Order(rows, batch, lengths=batches.lengths(rows)), Hooks(augment=augment)
    given = Options(steps, steps + 1, **options)
    loop = Loop(model, adamw(model), Constant(), batches, order, given, precision, hooks=hooks)
    with reproducible(None):
        loop.run()
    return loop, [*began.values(), time.perf_counter()]


def compare(seconds: Callable[[bool], Seconds], way: str, steps: int, rounds: int) -> tuple[dict[str, Any], float]:
    """Times of so many steps, plain and another ``way``, and how much longer that way's beginning takes; the first
    round is for nothing."""
    both = [[seconds(other) for other in (False, True)] for _ in range(rounds + 1)][1:]
    ratios = sorted(plain / other for (_, plain), (_, other) in both)
    plain, other = (1000 * statistics.median(pair[side][1] for pair in both) / steps for side in (0, 1))
    longer = statistics.median(other[0] - plain[0] for plain, other in both)
    return {
        "threads": torch.get_num_threads(),
        "plain_ms": round(plain, 3),
        f"{way}_ms": round(other, 3),
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(ratios[0], 3), round(ratios[-1], 3)],
    }, longer


def command(text: str | None, models: Mapping[str, int], rounds: int, measure: Callable[..., dict[str, Any]]) -> None:
    """Measure the models that are asked for, each with its number of steps; a line of JSON for each."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(models), default=list(models))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=rounds)
    given = parser.parse_args()
    for name in given.model:
        found = measure(make(name), given.batch, models[name], given.rounds)
        print(json.dumps({"model": name, "batch": given.batch, **found}), flush=True)
