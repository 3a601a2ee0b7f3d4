"""From a recipe, data and a model to a loop that trains it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from .. import recipe as recipes
from ..columns import Column
from ..columns.augment import AUGMENTS
from ..columns.column import Ragged
from ..console import Console
from ..data.batches import Batch, Batches, ColumnBatch, Order
from ..data.prepare import Prepared
from ..data.table import Table
from ..errors import RecipeError
from ..model import Model
from ..pretrained import fine_tune
from ..recipe import Recipe
from ..run import RunFolder, environment, write_whole
from ..training.checkpoint import Writer
from ..training.loop import Hooks, Loop, Options
from ..training.optimizers import OPTIMIZERS, state_tensors
from ..training.precision import Precision, choose_precision, count_multiplications
from ..training.rate_finder import find_rate
from ..training.replay import LONG
from ..training.schedules import SCHEDULES
from ..training.surroundings import StopRequest
from ..training.tuning import Tuned
from .collect import collect, headline, validation
from .sources import stratify_by

__all__ = ["Session", "make_loop"]


@dataclass
class Session:
    """All that one training run works with."""

    folder: RunFolder
    recipe: Recipe
    table: Table
    columns: dict[str, Column]
    prepared: Prepared
    device: torch.device
    console: Console
    model: Model
    reasons: Mapping[str, str]


def make_loop(session: Session, model: Model, batches: Batches, stop: StopRequest) -> Loop:
    recipe, console, run = session.recipe, session.console, session.folder
    training, rows = recipe.training, session.prepared.split["train"]
    whole = training.optimizer.name == "gradient_descent"
    batch_size = len(rows) if whole else training.batch_size
    odds = row_odds(session) if training.oversample else None
    order = Order(rows, batch_size, seed=recipe.seed, odds=odds, lengths=batches.lengths(rows))
    precision = precision_for(session, model, batches, min(batch_size, len(rows)))
    tuned = fine_tune(recipe, model)
    steps = max(1, round(epochs_of(session) * order.steps_per_epoch))
    options = Options(
        total_steps=steps,
        validate_every=training.validate_every or order.steps_per_epoch,
        log_every=min(training.log_every, order.steps_per_epoch),
        checkpoint_every=training.checkpoint_every,
        micro_batch=training.micro_batch or (1024 if whole else None),
        clip=training.clip,
        l1=training.l1,
        average=training.average,
        patience=training.early_stopping.patience if training.early_stopping else None,
        min_delta=training.early_stopping.min_delta if training.early_stopping else 0.0,
        keep_best=training.keep == "best",
        compile=training.compile,
        replay=not training.compile and steps >= LONG,
        constant=frozenset() if tuned is None else tuned.constant,
    )
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad) if tuned is None else tuned.before
    console.say(
        f"{parameters:,} parameters, {options.total_steps} steps of {order.batch_size} rows, "
        f"{precision.name} on {session.device} ({precision.reason})"
    )
    write_environment(session, precision, parameters)
    hooks = make_hooks(session, model, batches, precision, options, stop)
    if tuned is not None:
        hooks.augment = opening(tuned, hooks.augment, options.total_steps, order.steps_per_epoch)
    optimizer = training.optimizer
    if optimizer.keywords()["lr"] == "find":
        lr = find_rate(
            model, optimizer, batches, order, precision,
            seed=recipe.seed, augment=hooks.augment, micro_batch=options.micro_batch,
        )  # fmt: skip
        console.say(f"learning rate found: {lr:.3g}")
        plain = recipe.plain()
        plain["training"]["optimizer"]["lr"] = lr
        session.recipe = Recipe(plain)
        write_whole(run.path / "recipe.yaml", recipes.dump(plain).encode())
        optimizer = session.recipe.training.optimizer
    optimizers = OPTIMIZERS[optimizer.name](model, **optimizer.keywords())
    if tuned is not None:
        tuned.spread(optimizers)
    loop = Loop(
        model,
        optimizers,
        SCHEDULES[training.schedule.name](**training.schedule.keywords()),
        batches,
        order,
        options,
        precision,
        seed=recipe.seed,
        hooks=hooks,
        writer=Writer(run.checkpoints, keep=training.keep_checkpoints, logs=[run.path / "metrics.jsonl"]),
    )
    if tuned is not None:
        tell_tuning(session, tuned, loop)
    return loop


def opening(tuned: Tuned, augment: Any, total: int, epoch: float) -> Any:
    """The change of whole batches, and before it what is to learn from the step."""

    def before(batch: Batch, step: int) -> Batch:
        tuned.before_step(step, total, epoch)
        changed: Batch = augment(batch, step)
        return changed

    return before


def tell_tuning(session: Session, tuned: Tuned, loop: Loop) -> None:
    """How much learns, and the memory of it, beside what it would be if all did."""
    memory = tuned.memory(sum(tensor.nbytes for tensor in state_tensors(loop.optimizers).values()))
    before, now = (sum(part[key] for part in memory.values()) / 1e6 for key in ("all_learns", "now"))
    session.console.say(
        f"fine-tuning: {tuned.learns:,} of {tuned.before:,} parameters learn ({tuned.learns / tuned.before:.2%}); "
        f"weights, gradients and optimizer take {now:,.1f} MB, if all learned {before:,.1f} MB"
    )
    facts = session.folder.read_json("environment.json")
    share = {"learns": tuned.learns, "of": tuned.before, "share": tuned.learns / tuned.before}
    session.folder.write_json("environment.json", {**facts, "fine_tuning": {**share, "bytes": memory}})


def epochs_of(session: Session) -> float:
    """How often each training row is to be seen: as asked, or until so many tokens of texts have been learned from."""
    training = session.recipe.training
    if training.tokens is None:
        return training.epochs
    stored = [session.prepared.columns[name] for name in session.recipe.outputs]
    rows = session.prepared.split["train"]
    tokens = sum(int(one.lengths_of(rows).sum()) for one in stored if isinstance(one, Ragged))
    if not tokens:
        raise RecipeError(["training.tokens: no output is a text; give training.epochs"])
    return training.tokens / tokens


def row_odds(session: Session) -> np.ndarray[Any, Any]:
    """How often each training row is drawn when each class is to be seen equally often."""
    name = stratify_by(session.recipe)
    if name is None:
        raise RecipeError(["training.oversample: there is no output of type category to balance"])
    codes = session.prepared.columns[name].values[torch.from_numpy(session.prepared.split["train"])].numpy()
    return np.asarray(1.0 / np.bincount(codes)[codes])


def precision_for(session: Session, model: Model, batches: Batches, batch_size: int) -> Precision:
    sample = batches.gather(session.prepared.split["train"][:2])
    work_a_row = count_multiplications(model, lambda: model(sample)) / len(sample)
    return choose_precision(session.recipe.training.precision, session.device, work_a_row * batch_size)


def write_environment(session: Session, precision: Precision, parameters: int) -> None:
    facts = environment(session.device) | {
        "seed": session.recipe.seed,
        "data_fingerprint": session.prepared.fingerprint,
        "precision": f"{precision.name}: {precision.reason}",
        "parameters": parameters,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    session.folder.write_json("environment.json", facts)


def make_hooks(
    session: Session, model: Model, batches: Batches, precision: Precision, options: Options, stop: StopRequest
) -> Hooks:
    console, folder = session.console, session.folder.path
    rows = session.prepared.split["validation"]
    speed = [0.0]

    def record(line: dict[str, Any]) -> int:
        with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            size = file.tell()
        if line["kind"] == "train":
            loss = "not finite" if line["loss"] is None else f"{line['loss']:.4f}"
            console.progress("training", line["step"], options.total_steps, f"loss {loss}")
        else:
            console.say(
                f"epoch {line['epoch']:g}: validation loss {line['loss']:.4f}, {headline(line['metrics'])}"
                f" ({speed[0]:,.0f} rows/s)"
            )
        return size

    def timing(line: dict[str, Any]) -> None:
        speed[0] = line["rows_per_second"]
        with (folder / "timings.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def validate() -> Any:
        return validation(model, session.columns, collect(model, batches, rows, precision)) if len(rows) else None

    return Hooks(
        augment=make_augment(session),
        validate=validate,
        record=record,
        timing=timing,
        message=console.warn,
        stop=lambda: stop.signum != 0,
    )


def make_augment(session: Session) -> Any:
    """The change of whole batches that the recipe asks for, or none."""
    recipe = session.recipe
    changes = {}
    for name, settings in recipe.inputs.items():
        choice = getattr(settings, "augment", None)
        if choice is not None:
            change = AUGMENTS[settings.type][choice.name](**choice.keywords())
            if change.mixes and len(recipe.inputs) > 1:
                raise RecipeError([f"inputs.{name}.augment: mixup and cutmix need the picture to be the only input"])
            if change.active:
                changes[name] = change

    def augment(batch: Batch, step: int) -> Batch:
        for name, change in changes.items():
            values, mask = batch.columns[name]
            if mask is not None:
                batch.columns[name] = ColumnBatch(*change(values, mask, batch.rows, recipe.seed, step))
                continue
            moved, blend = change(values, batch.rows, recipe.seed, step)
            batch.columns[name] = ColumnBatch(moved)
            if blend is not None:
                pick = partial(torch.index_select, dim=0, index=blend.partner)
                batch.share = blend.share
                batch.blends = {key: batch.columns[key].each(pick) for key in recipe.outputs}
        batch.moment = recipe.seed, step
        return batch

    return augment
