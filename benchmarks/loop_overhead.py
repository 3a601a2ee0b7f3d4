"""What the loop costs beside a bare PyTorch loop: the same model, precision, batch and optimizer, in one run.

The bare loop is the shortest that one would write: data in memory as the model wants them, a random order, forward,
backward, step. Ours gathers stored bytes, standardises, weighs rows, checks for non-finite gradients, keeps its log,
and (third run) validates after each epoch, on a ninth as many rows as it trains on, and writes checkpoints every 200
steps. Rounds alternate the three; the figures are medians of ratios within a round.

    python -m benchmarks.loop_overhead [--model mlp cnn resnet18] [--batch 32 128] [--rounds 11]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from zhixing.columns import Column
from zhixing.data.batches import Batches, Order
from zhixing.data.catalogue import load
from zhixing.data.prepare import Prepared, prepare
from zhixing.data.split import SplitSettings, split
from zhixing.model import Model
from zhixing.recipe import Recipe
from zhixing.run import build_model, make_columns
from zhixing.training.checkpoint import Writer
from zhixing.training.loop import Hooks, Loop, Options, Validation
from zhixing.training.optimizers import adamw
from zhixing.training.precision import Precision, choose_precision, count_multiplications
from zhixing.training.schedules import Constant
from zhixing.verbs.collect import collect, validation

MODELS: dict[str, tuple[dict[str, object], dict[str, object], int, int]] = {  # encoder, picture, rows, epochs
    "mlp": ({"name": "mlp", "widths": [64, 64]}, {}, 60000, 1),
    "cnn": ({"name": "cnn"}, {}, 10000, 1),
    "resnet18": ({"name": "resnet18"}, {"size": 32, "channels": 3}, 1280, 1),
}
CPU = torch.device("cpu")


def make(name: str) -> tuple[Recipe, dict[str, Column], Prepared]:
    encoder, settings, rows, _ = MODELS[name]
    table = load("mnist").take(range(rows))
    image = {"type": "image", "encoder": encoder, **settings}
    raw = {"data": {"source": "mnist"}, "inputs": {"image": image}, "outputs": {"label": {"type": "category"}}}
    recipe = Recipe(raw)
    columns = make_columns(recipe)
    prepared = prepare(table, columns, split(table, SplitSettings(), 0, target="label"), cache=None)
    return recipe, columns, prepared


class Bare:
    """The loop that one would write by hand."""

    def __init__(self, model: Model, prepared: Prepared, precision: Precision) -> None:
        rows = torch.from_numpy(prepared.split["train"])
        with torch.no_grad():
            self.x, _ = model.stems[0](prepared.columns["image"].values[rows])
        self.y = prepared.columns["label"].values[rows]
        self.net = torch.nn.Sequential(model.encoders[0], Pooled(), model.heads[0].linear)  # type: ignore[arg-type]
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        self.precision = precision

    def run(self, steps: int, batch: int) -> float:
        order = torch.randperm(len(self.x))
        started = time.perf_counter()
        for step in range(steps):
            first = step * batch % (len(order) - batch)
            index = order[first : first + batch]
            x, y = self.x[index], self.y[index]
            self.optimizer.zero_grad()
            with self.precision.cast(CPU):
                logits = self.net(x)
            F.cross_entropy(logits.float(), y).backward()
            self.optimizer.step()
        return time.perf_counter() - started


class Pooled(torch.nn.Module):
    def forward(self, encoding: object) -> torch.Tensor:
        return encoding.pooled  # type: ignore[attr-defined,no-any-return]


class TimedWriter(Writer):
    """Knows how long its user waited for the disk at the very end, which is not a stall of training."""

    waited = 0.0

    def finish(self) -> None:
        started = time.perf_counter()
        super().finish()
        self.waited += time.perf_counter() - started


class Ours:
    """Our loop, alone or as in a real run: validation after each epoch, a checkpoint every 200 steps."""

    standing_still = 0.0

    def __init__(self, recipe: Recipe, columns: dict[str, Column], prepared: Prepared, precision: Precision) -> None:
        self.recipe, self.columns, self.prepared, self.precision = recipe, columns, prepared, precision

    def run(self, steps: int, batch: int, folder: Path | None = None) -> float:
        model = build_model(self.recipe, self.columns).channels_last()
        order = Order(self.prepared.split["train"], batch)
        batches = Batches(self.prepared.columns, CPU)
        rows = self.prepared.split["validation"]

        def validate() -> Validation | None:
            return validation(model, self.columns, collect(model, batches, rows, self.precision)) if folder else None

        options = Options(
            steps, order.steps_per_epoch if folder else steps + 1, checkpoint_every=200 if folder else None
        )
        writer = TimedWriter(folder) if folder is not None else None
        schedule = Constant()
        hooks = Hooks(validate=validate)
        loop = Loop(model, adamw(model), schedule, batches, order, options, self.precision, hooks=hooks, writer=writer)
        still = [0.0]
        loop.save, loop.validate = timed(loop.save, still), timed(loop.validate, still)  # type: ignore[method-assign]
        started = time.perf_counter()
        loop.run()
        seconds = time.perf_counter() - started
        if writer is not None:
            seconds -= writer.waited
            self.standing_still = (still[0] - writer.waited) / seconds
            writer.close()
        return seconds


def timed(function: Callable[..., None], total: list[float]) -> Callable[..., None]:
    """The function, adding the time that it takes to ``total``."""

    def call(*arguments: object, **named: object) -> None:
        started = time.perf_counter()
        function(*arguments, **named)
        total[0] += time.perf_counter() - started

    return call


def compare(name: str, batch: int, rounds: int) -> dict[str, object]:
    recipe, columns, prepared = make(name)
    probe = build_model(recipe, columns).channels_last()
    sample = Batches(prepared.columns, CPU).gather(prepared.split["train"][:2])
    precision = choose_precision("auto", CPU, count_multiplications(probe, lambda: probe(sample)) / 2 * batch)
    bare, our = Bare(probe, prepared, precision), Ours(recipe, columns, prepared, precision)
    steps = MODELS[name][3] * Order(prepared.split["train"], batch).steps_per_epoch
    bare.run(5, batch)
    with tempfile.TemporaryDirectory() as folder:
        our.run(5, batch, Path(folder))
    plain, checked, speed, still = [], [], [], []
    for _ in range(rounds):
        by_hand = bare.run(steps, batch)
        alone = our.run(steps, batch)
        with tempfile.TemporaryDirectory() as folder:
            whole = our.run(steps, batch, Path(folder))
        speed.append(steps * batch / by_hand)
        plain.append(by_hand / alone)
        checked.append(alone / whole)
        still.append(our.standing_still)
    return {
        "model": name,
        "batch": batch,
        "precision": precision.name,
        "threads": torch.get_num_threads(),
        "steps": steps,
        "bare_rows_per_second": round(statistics.median(speed)),
        "ours_to_bare": round(statistics.median(plain), 3),
        "spread": [round(min(plain), 3), round(max(plain), 3)],
        "with_validation_and_checkpoints_to_without": round(statistics.median(checked), 3),
        "share_of_time_standing_still_for_them": round(statistics.median(still), 3),
        "its_spread": [round(min(checked), 3), round(max(checked), 3)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=list(MODELS))
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.model:
        for batch in given.batch:
            print(json.dumps(compare(name, batch, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
