"""What ``training.compile`` is worth: our loop with and without torch's compiler, the same model and batches.

``cnn``, ``lstm`` and ``transformer`` read MNIST's pictures, ``texts`` is the Transformer over words of real e-mails,
up to 128 of them. ``compile_s`` is what the first step takes longer, with an empty cache; ``earned_back`` is the number
of seconds of plain training after which that is saved again (none where nothing is saved). Rounds alternate the two;
figures are medians, ``ratio`` is of the steps' times within a round with its least and most, above 1 where compiled
steps are faster.

    python -m benchmarks.compiled [--model cnn lstm transformer texts] [--batch 32] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch._inductor.utils import fresh_cache

from zhixing.data.batches import Batch, Batches, Order
from zhixing.data.prepare import prepare
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
from .replay import CPU, ENCODERS, make

WARM = 10  # steps that are not timed
STEPS = {"cnn": 200, "lstm": 200, "transformer": 100, "texts": 60}


def texts() -> Any:
    table = open_source(spam())
    inputs = {"text": {"type": "text", "length": 128, "encoder": ENCODERS["transformer"]}}
    recipe = Recipe({"data": {"source": "memory"}, "inputs": inputs, "outputs": {"label": {"type": "category"}}})
    columns = make_columns(recipe)
    return recipe, columns, prepare(table, columns, split(table, SplitSettings(), 0, target="label"), cache=None)


def seconds(made: Any, batch: int, steps: int, compiles: bool) -> tuple[float, float]:
    """Of the first step, and of ``steps`` steps after some more."""
    recipe, columns, prepared = made
    torch.manual_seed(0)
    model = build_model(recipe, columns).channels_last()
    rows = prepared.split["train"]
    batches = Batches({name: prepared.columns[name] for name in columns}, CPU)
    sample = batches.gather(rows[:2])
    precision = choose_precision("auto", CPU, count_multiplications(model, lambda: model(sample)) / 2 * batch)
    began = dict[int, float]()

    def augment(part: Batch, step: int) -> Batch:
        began.setdefault(step, time.perf_counter())
        return part

    options = Options(WARM + steps, WARM + steps + 1, compile=compiles)
    order = Order(rows, batch, lengths=batches.lengths(rows))
    loop = Loop(model, adamw(model), Constant(), batches, order, options, precision, hooks=Hooks(augment=augment))
    with reproducible(None), fresh_cache():
        loop.run()
    return began[1] - began[0], time.perf_counter() - began[WARM]


def compare(name: str, batch: int, rounds: int) -> dict[str, Any]:
    made, steps = texts() if name == "texts" else make(name), STEPS[name]
    both = [[seconds(made, batch, steps, compiles) for compiles in (False, True)] for _ in range(rounds + 1)][1:]
    ratios = sorted(plain / compiled for (_, plain), (_, compiled) in both)
    plain, compiled = (statistics.median(pair[side][1] for pair in both) / steps for side in (0, 1))
    longer = statistics.median(one[0] - other[0] for other, one in both)
    return {
        "model": name,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "plain_ms": round(1000 * plain, 2),
        "compiled_ms": round(1000 * compiled, 2),
        "compile_s": round(longer, 1),
        "earned_back": round(longer / (1 - compiled / plain)) if plain > compiled else None,
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for name in given.model:
        print(json.dumps(compare(name, given.batch, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
