"""One trial: a run folder that is trained, rung by rung, by the one training loop and from its own checkpoints.

The learning-rate schedule is that of the whole training; a rung is a cut in it. A trial that goes on takes up its last
checkpoint and comes to the same bits as one that was never cut, so nothing is trained twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import recipe as recipes
from ..columns import COLUMNS, Column
from ..console import Console
from ..data.batches import Batches
from ..data.packing import pack
from ..data.prepare import Prepared
from ..data.table import Table
from ..errors import DataError, TrainingError
from ..model import Model
from ..recipe import Recipe
from ..run import RunFolder, own, write_whole
from ..training.loop import Loop, Options
from ..training.surroundings import StopRequest, reproducible
from ..verbs.alignment import alignable
from ..verbs.assemble import Session, make_loop
from ..verbs.collect import EXACT, collect, metrics_of
from ..verbs.examine import examine
from ..verbs.train import build, make_data, resolved, take_up
from .objectives import COSTS

__all__ = ["Trained", "Workshop", "begin_trial", "figures_before", "measured", "rung_step", "train_to"]


class Workshop:
    """The table, and what has been made of it: prepared once for all trials that ask for the same."""

    def __init__(self, table: Table, device: torch.device, *, split_seed: int) -> None:
        self.table, self.device, self.split_seed = table, device, split_seed
        self.made: dict[str, tuple[dict[str, Column], Prepared]] = {}

    def data(self, recipe: Recipe) -> tuple[dict[str, Column], Prepared]:
        """Fitted columns and prepared rows, with the study's own split whatever the recipe's seed.

        Raises:
            DataError: there are no validation rows to compare trials on.
        """
        settings = {
            name: own(given, COLUMNS[given.type])
            for part in (recipe.inputs, recipe.outputs)
            for name, given in part.items()
        }
        key = json.dumps([recipe.data.model_dump(mode="json"), settings], default=str)
        if key not in self.made:
            plain = recipe.plain() | {"seed": self.split_seed}
            self.made[key] = make_data(Recipe(plain), self.table, Console(quiet=True))
        columns, prepared = self.made[key]
        if not len(prepared.split["validation"]):
            raise DataError(
                "there are no validation rows to compare trials on",
                place=self.table.name,
                mend="Ask for some: --set data.split.validation=0.1 data.split.train=0.8",
            )
        return columns, prepared


def begin_trial(folder: Path, recipe: Recipe) -> None:
    """The trial's folder with its recipe; what a process that was killed has written of it is written again."""
    if not (folder / "recipe.yaml").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "recipe.yaml", recipes.dump(recipe.plain()).encode())


@dataclass
class Bench:
    """A trial that is set up: what trains it, and what it is measured on."""

    session: Session
    model: Model
    batches: Batches
    loop: Loop


@dataclass(frozen=True)
class Trained:
    """Where a trial stands at a rung. ``figures`` holds the loss, the metrics and the costs, and the epochs trained;
    it is None where the trial was stopped before it had come there."""

    figures: dict[str, Any] | None
    bench: Bench


def set_up(shop: Workshop, folder: Path, stop: StopRequest) -> Bench:
    run = RunFolder(folder)
    recipe = run.recipe()
    columns, prepared = shop.data(recipe)
    recipe = resolved(recipe, columns, shop.device)
    model = build(recipe, columns, {})
    prepared = alignable(prepared, shop.table, columns, model, recipe.data.on_error)
    prepared = pack(prepared, columns, seed=recipe.seed)
    if not (folder / "columns.json").is_file():
        run.write_columns(columns)
    session = Session(run, recipe, shop.table, columns, prepared, shop.device, Console(quiet=True), model, {})
    model.to(shop.device).channels_last()
    batches = Batches(prepared.columns, shop.device)
    return Bench(session, model, batches, make_loop(session, model, batches, stop))


def rung_step(options: Options, share: float) -> int:
    """The step at which a share of the training is done and the trial has just been validated.

    >>> rung_step(Options(total_steps=90, validate_every=10), 1 / 9), rung_step(Options(95, 10), 1.0)
    (10, 95)
    """
    if share >= 1:
        return options.total_steps
    every = options.validate_every
    return min(options.total_steps, every * max(1, round(share * options.total_steps / every)))


def train_to(
    shop: Workshop, folder: Path, share: float, *, stop: StopRequest, until: float = float("inf"), costs: list[str]
) -> Trained:
    """Train the trial in ``folder`` up to a share of its training, from where its last checkpoint stands.

    ``until`` is when to stop in any case, on the clock of ``time.monotonic``; the checkpoint that is written then is
    where it goes on. ``costs`` are those of :data:`COSTS` to be measured.

    Raises:
        ZhixingError: it cannot be trained with these settings.
    """
    threads = RunFolder(folder).recipe().training.threads
    with reproducible(threads):
        bench = set_up(shop, folder, stop)
        loop = bench.loop
        goal, asked = rung_step(loop.options, share), loop.hooks.stop
        loop.hooks.stop = lambda: asked() or time.monotonic() > until or loop.progress.step >= goal
        assert loop.writer is not None
        with loop.writer:
            take_up(bench.session, loop)
            if loop.progress.step < goal:
                loop.run()
        if loop.progress.step < goal and not loop.progress.stopped_early:
            return Trained(None, bench)
        return Trained(figures_of(bench, costs), bench)


def figures_of(bench: Bench, costs: list[str]) -> dict[str, Any]:
    """What the trial has come to: the validation that its weights would be chosen by.

    Raises:
        TrainingError: its loss is not a number.
    """
    loop, training = bench.loop, bench.session.recipe.training
    step = loop.progress.best_step if training.keep == "best" else None
    line = validation_line(bench.session.folder.path / "metrics.jsonl", step)
    if line is None or line["loss"] is None or line["loss"] != line["loss"]:
        raise TrainingError("the validation loss is not a number", mend="Lower the learning rate.")
    rows = bench.session.prepared.split["validation"]
    return {
        "loss": line["loss"],
        "metrics": line["metrics"],
        "costs": {name: COSTS[name](bench.model, bench.batches, rows) for name in costs},
        "epoch": round(loop.progress.step / loop.order.steps_per_epoch, 6),
    }


def validation_line(log: Path, step: int | None) -> dict[str, Any] | None:
    """The log's line of the validation at a step, else of the last."""
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.is_file() else []
    found = [line for line in lines if line["kind"] == "validation" and step in (None, line["step"])]
    return found[-1] if found else None


def measured(bench: Bench) -> dict[str, dict[str, float]]:
    """Metrics of the test rows, of a trial that has been trained to its end."""
    session, model = bench.session, bench.model
    model.load_state_dict(bench.loop.chosen_weights())
    rows = session.prepared.split["test"]
    with reproducible(session.recipe.training.threads):
        seen = collect(model, bench.batches, rows, EXACT, with_answers=bool(model.inputs))
        outputs = examine(model, session.columns, session.prepared.columns, session.table, seen)
    return {name: entry["metrics"] for name, entry in outputs.items()}


def figures_before(shop: Workshop, recipe: Recipe) -> tuple[Model, Mapping[str, Mapping[str, float]]]:
    """The model as it starts, and the metrics of some validation rows: it tells which figures there are, and that the
    recipe can be built, before anything is written."""
    columns, prepared = shop.data(recipe)
    with reproducible(recipe.training.threads):
        model = build(recipe, columns, {})
        prepared = pack(
            alignable(prepared, shop.table, columns, model, recipe.data.on_error), columns, seed=recipe.seed
        )
        model.to(shop.device).channels_last()
        rows = prepared.split["validation"][:256]
        return model, metrics_of(model, columns, collect(model, Batches(prepared.columns, shop.device), rows, EXACT))
