"""What rows of unequal length cost: padding, memory, and our loop beside a bare one on the very same batches.

The rows are e-mails of up to 512 tokens. ``padding``: the share of steps in an epoch's batches that are not real.
``memory``: the most that a process holds in an epoch, over the most that one holds that only ever sees the largest
batch. ``ours_to_bare``: rows a second, the median of ratios within a round; the bare loop has its batches ready.

    python -m benchmarks.sequence_overhead [--model lstm transformer] [--batch 32] [--rounds 5]
    python -m benchmarks.sequence_overhead --padding     # alone, of all e-mails, cut at 512 and at 1,024 tokens
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from zhixing.columns import Column
from zhixing.data.batches import Batch, Batches, Order
from zhixing.data.prepare import Prepared, prepare
from zhixing.data.source import open_source
from zhixing.model import Model
from zhixing.recipe import Recipe
from zhixing.run import build_model, make_columns
from zhixing.training.loop import Loop, Options
from zhixing.training.optimizers import adamw
from zhixing.training.precision import Precision, choose_precision, count_multiplications
from zhixing.training.schedules import Constant

from .emails import emails

ENCODERS: dict[str, dict[str, object]] = {
    "lstm": {"name": "lstm", "width": 128},
    "transformer": {"name": "transformer", "width": 128, "depth": 2, "heads": 4},
}
CPU = torch.device("cpu")


def make(name: str, rows: int | None, length: int = 512) -> tuple[Recipe, dict[str, Column], Prepared]:
    table = open_source(str(emails()[0]))
    rows = rows or table.rows
    table = table.take(range(rows))
    text = {"type": "text", "tokenizer": "bpe", "vocabulary": 8000, "length": length, "encoder": ENCODERS[name]}
    raw = {"data": {"source": "e-mails"}, "inputs": {"text": text}, "outputs": {"label": {"type": "category"}}}
    recipe = Recipe(raw)
    columns = make_columns(recipe)
    everything = {"train": np.arange(rows), "validation": np.arange(0), "test": np.arange(0)}
    return recipe, columns, prepare(table, columns, everything, cache=None)


def bare(model: Model, ready: list[Batch], precision: Precision) -> float:
    """The loop that one would write by hand; gives its seconds."""
    encoder, linear = model.encoders[0], model.heads[0].linear
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    started = time.perf_counter()
    for batch in ready:
        values, mask = batch.columns["text"]
        optimizer.zero_grad()
        with precision.cast(CPU):
            logits = linear(encoder(values, mask).pooled)  # type: ignore[operator]
        F.cross_entropy(logits.float(), batch.columns["label"].values).backward()
        optimizer.step()
    return time.perf_counter() - started


def ours(model: Model, prepared: Prepared, order: Order, precision: Precision) -> float:
    options = Options(order.steps_per_epoch, order.steps_per_epoch + 1)
    schedule = Constant()
    loop = Loop(model, adamw(model), schedule, Batches(prepared.columns, CPU), order, options, precision)
    started = time.perf_counter()
    loop.run()
    return time.perf_counter() - started


def setting(name: str, batch: int, rows: int) -> tuple[Recipe, dict[str, Column], Prepared, Batches, Order, Precision]:
    recipe, columns, prepared = make(name, rows)
    batches = Batches(prepared.columns, CPU)
    train = prepared.split["train"]
    order = Order(train, batch, lengths=batches.lengths(train))
    probe, sample = build_model(recipe, columns), batches.gather(train[:2])
    precision = choose_precision("auto", CPU, count_multiplications(probe, lambda: probe(sample)) / 2 * batch)
    return recipe, columns, prepared, batches, order, precision


def compare(name: str, batch: int, rows: int, rounds: int) -> dict[str, Any]:
    recipe, columns, prepared, batches, order, precision = setting(name, batch, rows)
    ready = list(batches.stream(order, 0, order.steps_per_epoch))
    ratios, speed = [], []
    for place in range(rounds + 1):
        by_hand = bare(build_model(recipe, columns), ready, precision)
        alone = ours(build_model(recipe, columns), prepared, order, precision)
        if place:  # the first round warms up
            ratios.append(by_hand / alone)
            speed.append(rows / by_hand)
    held, largest = (peak(name, batch, rows, which) for which in ("epoch", "largest"))
    return {
        "model": name,
        "batch": batch,
        "rows": rows,
        "precision": precision.name,
        "threads": torch.get_num_threads(),
        "padding": round(batches.padding / batches.steps, 4),
        "padding_of_random_batches": round(random_padding(prepared, batch), 4),
        "bare_rows_per_second": round(statistics.median(speed)),
        "ours_to_bare": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "memory_of_epoch_to_largest_batch": round(held / largest, 3),
    }


def padding(length: int, batch: int) -> dict[str, Any]:
    """The share of padding in an epoch of all e-mails, in the order of training and in a random one."""
    _, _, prepared = make("lstm", None, length)
    batches = Batches(prepared.columns, CPU)
    train = prepared.split["train"]
    order = Order(train, batch, lengths=batches.lengths(train))
    for _ in batches.stream(order, 0, order.steps_per_epoch):
        pass
    return {
        "rows": len(train),
        "tokens_at_most": length,
        "batch": batch,
        "padding": round(batches.padding / batches.steps, 4),
        "padding_of_random_batches": round(random_padding(prepared, batch), 4),
    }


def random_padding(prepared: Prepared, batch: int) -> float:
    batches = Batches(prepared.columns, CPU)
    order = Order(prepared.split["train"], batch)
    for _ in batches.stream(order, 0, order.steps_per_epoch):
        pass
    return batches.padding / batches.steps


def peak(name: str, batch: int, rows: int, which: str) -> int:
    """The most kilobytes that a process of its own holds beyond what it held before training."""
    command = [sys.executable, "-m", "benchmarks.sequence_overhead", "--model", name, "--batch", str(batch)]
    done = subprocess.run(
        [*command, "--rows", str(rows), "--only", which], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def train_alone(name: str, batch: int, rows: int, which: str) -> int:
    recipe, columns, _, batches, order, precision = setting(name, batch, rows)
    steps = range(order.steps_per_epoch)
    if which == "largest":
        sizes = [int(np.max(batches.columns["text"].lengths_of(order.at(step)))) for step in steps]  # type: ignore[union-attr]
        longest = int(np.argmax(sizes))
        steps = range(longest, longest + 1)
    model = build_model(recipe, columns)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1 if which == "epoch" else 10):
        for step in steps:
            bare(model, list(batches.stream(order, step, step + 1)), precision)
    return max(1, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--padding", action="store_true")
    parser.add_argument("--only", choices=["epoch", "largest"], help="print the memory of one process")
    given = parser.parse_args()
    if given.padding:
        for length in (512, 1024):
            for batch in (32, 128):
                print(json.dumps(padding(length, batch)), flush=True)
        return
    for name in given.model:
        if given.only:
            print(train_alone(name, given.batch, given.rows, given.only))
        else:
            print(json.dumps(compare(name, given.batch, given.rows, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
