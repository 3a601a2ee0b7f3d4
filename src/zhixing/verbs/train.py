"""Train: from a source to a run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import recipe as recipes
from ..columns import Column
from ..columns.augment import AUGMENTS
from ..columns.column import Ragged
from ..console import Console
from ..data.batches import Batch, Batches, ColumnBatch, Order
from ..data.packing import pack
from ..data.prepare import Prepared, prepare
from ..data.source import open_source
from ..data.split import split
from ..data.store import cache_folder
from ..data.table import Table
from ..errors import RecipeError, RunError, UsageError
from ..model import Model
from ..recipe import Recipe
from ..report import write_card, write_report
from ..run import RunFolder, build_model, environment, make_columns, new_folder, write_whole
from ..training.checkpoint import Writer, exclusive, latest
from ..training.loop import Hooks, Loop, Options
from ..training.optimizers import OPTIMIZERS
from ..training.precision import Precision, choose_precision, count_multiplications
from ..training.rate_finder import find_rate
from ..training.schedules import SCHEDULES
from ..training.surroundings import StopRequest, asked_to_stop, reproducible, torch_device
from .alignment import alignable
from .complete import complete
from .evaluate import EXACT, collect, examine, headline, stratify_by, validation
from .facts import data_facts

__all__ = ["Stopped", "resume", "train"]


class Stopped(Exception):  # noqa: N818
    """The run was asked to stop by a signal, and has saved what it needs to go on."""

    def __init__(self, signum: int, folder: Path, step: int) -> None:
        super().__init__(f"stopped at step {step}; go on with: zhixing train --resume {folder}")
        self.exit_status = 128 + signum


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


def train(
    source: Any,
    raw: Mapping[str, Any],
    *,
    out: Path | None = None,
    device: str = "auto",
    encoder: str | Mapping[str, Any] | nn.Module | None = None,
    console: Console | None = None,
) -> RunFolder:
    """Train on a source with what a recipe's plain data say; what they leave open is inferred and written back.

    ``encoder`` names the encoder of the one input that is not a plain number or class, or is a module of one's own.

    Raises:
        RecipeError, UsageError, DataError: what was asked for cannot be done; nothing has been written.
        TrainingError: training cannot go on; the run folder holds what was reached.
        Stopped: a signal asked to stop.
    """
    console = console or Console(quiet=True)
    table = recipes.reshaped(open_source(source), raw)
    done = complete(raw, table, encoder, source=describe_source(source, table))
    recipe = Recipe(done.raw)
    for name in recipe.data.unused:
        tell = console.warn if name in done.dropped else console.say
        tell(f"  {name}: not used: {done.reasons.get(name, 'as asked')}")
    for name in (*recipe.inputs, *recipe.outputs):
        kind = (recipe.inputs.get(name) or recipe.outputs[name]).type
        console.say(f"  {name}: {kind} ({'predicted' if name in recipe.outputs else 'read'}): {done.reasons[name]}")
    columns, prepared = make_data(recipe, table, console)
    where = torch_device(device)
    recipe = resolved(recipe, columns, where)
    model = build(recipe, columns, done.modules)  # one that cannot be built is told of before anything is written
    prepared = alignable(prepared, table, columns, model)
    folder = claim_folder(out, table.name)
    write_whole(folder / "recipe.yaml", recipes.dump(recipe.plain()).encode())  # from here on it can be resumed
    run = RunFolder(folder)
    write_data(run, table, recipe, columns, prepared, done.reasons)
    tell_problems(prepared, folder, console)
    return work(Session(run, recipe, table, columns, prepared, where, console, model, done.reasons))


def resume(
    path: Path,
    *,
    source: Any = None,
    device: str = "auto",
    encoder: nn.Module | None = None,
    console: Console | None = None,
) -> RunFolder:
    """Go on with a run that was stopped or killed, to the same bits as if it had not been.

    Raises:
        RunError: it is not a run, or its data are no longer the same.
    """
    console = console or Console(quiet=True)
    run = RunFolder(path)
    if run.finished:
        console.say(f"{path} is finished; there is nothing to resume")
        return run
    recipe = run.recipe()
    table = recipes.reshaped(open_source(recipe.data.source if source is None else source), recipe.plain())
    columns, prepared = make_data(recipe, table, console)
    name = next((name for name, settings in recipe.inputs.items() if settings.encoder.name == "custom"), None)
    modules = {name: encoder} if name is not None and encoder is not None else {}
    model = build(recipe, columns, modules)
    prepared = alignable(prepared, table, columns, model)
    was = run.read_json("environment.json")
    if was is not None and was["data_fingerprint"] != prepared.fingerprint:
        raise RunError(
            "the data are not what the run was started with",
            place=recipe.data.source,
            mend="Restore them, or start a new run.",
        )
    if was is None:  # killed before it had written all that comes before training
        write_data(run, table, recipe, columns, prepared, {})
    return work(Session(run, recipe, table, columns, prepared, torch_device(device), console, model, {}))


# Before the loop ----------------------------------------------------------------------------------------------------


def build(recipe: Recipe, columns: Mapping[str, Column], modules: Mapping[str, nn.Module]) -> Model:
    """The model as training starts with it."""
    with reproducible(recipe.training.threads):
        return build_model(recipe, columns, modules)  # type: ignore[arg-type]


def describe_source(source: Any, table: Table) -> str:
    """The source as the recipe names it: paths are made absolute, so that the run can be moved."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return str(path.resolve()) if path.exists() else str(source)
    return f"memory:{table.name}"


def make_data(recipe: Recipe, table: Table, console: Console) -> tuple[dict[str, Column], Prepared]:
    parts = split(table, recipe.data.split, recipe.seed, target=stratify_by(recipe))
    columns = make_columns(recipe)
    with console:
        prepared = prepare(
            table,
            columns,
            parts,
            cache=cache_folder(),
            on_error=recipe.data.on_error,
            progress=lambda name, done, rows: console.progress(f"preparing {name}", done, rows),
        )
    sizes = ", ".join(f"{len(rows):,} {part}" for part, rows in prepared.split.items())
    console.say(f"{table.name}: {table.rows:,} rows: {sizes}")
    return columns, prepared


def resolved(recipe: Recipe, columns: Mapping[str, Column], device: torch.device) -> Recipe:
    """The recipe with what the data and the machine have decided written into it."""
    plain = recipe.plain()
    for part in ("inputs", "outputs"):
        for name in plain[part]:
            plain[part][name] |= columns[name].settings()
    if plain["training"]["threads"] is None:
        plain["training"]["threads"] = torch.get_num_threads()
    return Recipe(plain)


def claim_folder(out: Path | None, name: str) -> Path:
    if out is None:
        return new_folder(Path("runs"), name)
    left = {".recipe.yaml.part"}  # of a run that was killed before it had a recipe
    if out.exists() and {path.name for path in out.iterdir()} - left:
        raise UsageError(
            f"{out} exists and is not empty",
            mend=f"Name another folder, or go on with that run: zhixing train --resume {out}",
        )
    out.mkdir(parents=True, exist_ok=True)
    return out


def write_data(
    run: RunFolder,
    table: Table,
    recipe: Recipe,
    columns: Mapping[str, Column],
    prepared: Prepared,
    reasons: Mapping[str, str],
) -> None:
    """What was learned of the data, and all that is wrong with them."""
    run.write_columns(columns)
    run.write_json("data.json", data_facts(table, recipe.data.source, columns, prepared, reasons))
    lines = [json.dumps(vars(problem), ensure_ascii=False) + "\n" for problem in prepared.problems]
    write_whole(run.path / "problems.jsonl", "".join(lines).encode())


def tell_problems(prepared: Prepared, folder: Path, console: Console) -> None:
    fatal = [problem for problem in prepared.problems if problem.fatal]
    if fatal:
        console.warn(f"{prepared.broken} rows cannot be used and are left out; the first: {fatal[0]}")
    kept = len(prepared.problems) - len(fatal)
    if kept:
        first = next(problem for problem in prepared.problems if not problem.fatal)
        console.say(f"{kept} remarks on rows that are kept; the first: {first}")
    if prepared.problems:
        console.say(f"all of them: {folder / 'problems.jsonl'}")


# The work -----------------------------------------------------------------------------------------------------------


def work(session: Session) -> RunFolder:
    """Build, train, evaluate, report."""
    run, recipe, console = session.folder, session.recipe, session.console
    blocks = pack(session.prepared, session.columns, seed=recipe.seed)
    if blocks is not session.prepared:
        sizes = ", ".join(f"{len(rows):,} {part}" for part, rows in blocks.split.items())
        console.say(f"texts are packed into blocks: {sizes}")
        session.prepared = blocks
    with exclusive(run.path), reproducible(recipe.training.threads), console:
        model = session.model
        model.to(session.device).channels_last()
        batches = Batches(session.prepared.columns, session.device)
        with asked_to_stop() as stop:
            loop = make_loop(session, model, batches, stop)
            assert loop.writer is not None
            with loop.writer:
                take_up(session, loop)
                loop.run()
        if stop.signum and not (loop.progress.stopped_early or loop.progress.step == loop.options.total_steps):
            raise Stopped(stop.signum, run.path, loop.progress.step)
        # From here on a signal ends the process at once: the last checkpoint is on disk, and a resumed run does what
        # follows again.
        model.load_state_dict(loop.chosen_weights())
        finish(session, model, batches, loop)
    return run


def take_up(session: Session, loop: Loop) -> None:
    """Bring the loop to where the newest good checkpoint stands, and the log with it."""
    run, console = session.folder, session.console
    checkpoint, wrong = latest(run.checkpoints)
    for error in wrong:
        console.warn(f"{error}; falling back to the one before")
    if checkpoint is not None:
        loop.restore(checkpoint)
        console.say(f"going on from step {checkpoint.step} of {loop.options.total_steps}")
    elif wrong:
        console.warn("there is no good checkpoint: the run starts again from its first step")
    missing = cut_log(run, loop.progress.log_bytes)
    if missing:
        console.warn(
            f"metrics.jsonl lacks its last {missing:,} bytes: the log of some steps is lost, the training is not"
        )


def make_loop(session: Session, model: Model, batches: Batches, stop: StopRequest) -> Loop:
    recipe, console, run = session.recipe, session.console, session.folder
    training, rows = recipe.training, session.prepared.split["train"]
    whole = training.optimizer.name == "gradient_descent"
    batch_size = len(rows) if whole else training.batch_size
    odds = row_odds(session) if training.oversample else None
    order = Order(rows, batch_size, seed=recipe.seed, odds=odds, lengths=batches.lengths(rows))
    precision = precision_for(session, model, batches, min(batch_size, len(rows)))
    options = Options(
        total_steps=max(1, round(epochs_of(session) * order.steps_per_epoch)),
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
    )
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    console.say(
        f"{parameters:,} parameters, {options.total_steps} steps of {order.batch_size} rows, "
        f"{precision.name} on {session.device} ({precision.reason})"
    )
    write_environment(session, precision, parameters)
    hooks = make_hooks(session, model, batches, precision, options, stop)
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
    return Loop(
        model,
        OPTIMIZERS[optimizer.name](model, **optimizer.keywords()),
        SCHEDULES[training.schedule.name](**training.schedule.keywords()),
        batches,
        order,
        options,
        precision,
        seed=recipe.seed,
        hooks=hooks,
        writer=Writer(run.checkpoints, keep=training.keep_checkpoints, logs=[run.path / "metrics.jsonl"]),
    )


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
        return batch

    return augment


def cut_log(run: RunFolder, size: int) -> int:
    """Bring the log back to where the checkpoint saw it; what came after is written again. Gives the bytes it lacks."""
    path = run.path / "metrics.jsonl"
    there = path.stat().st_size if path.exists() else 0
    if there > size:
        os.truncate(path, size)
    return max(0, size - there)


def finish(session: Session, model: Model, batches: Batches, loop: Loop) -> None:
    """Look at the test rows once, write the report, and keep the weights.

    The weights' manifest comes last: it says that the run is finished, so a run that is killed among these files does
    them again when it is resumed.
    """
    run, console = session.folder, session.console
    part = next(name for name in ("test", "validation", "train") if len(session.prepared.split[name]))
    rows = session.prepared.split[part]
    seen = collect(model, batches, rows, EXACT, with_answers=bool(model.inputs))
    outputs = examine(model, session.columns, session.prepared.columns, session.table, seen)
    run.write_json("evaluation.json", {"split": part, "rows": len(rows), "outputs": outputs})
    write_report(run.path)
    write_card(run.path)
    run.write_weights(model.state_dict())
    metrics = {name: entry["metrics"] for name, entry in outputs.items()}
    console.close()
    if batches.steps:
        console.say(f"{batches.padding / batches.steps:.1%} of all steps in batches were padding")
    console.say(f"{part} ({len(rows):,} rows): {headline(metrics)}")
    console.say(f"run: {run.path}   report: {run.path / 'report.html'}")
