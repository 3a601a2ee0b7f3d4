"""Train: from a source to a run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import recipe as recipes
from ..calibration import dump
from ..columns import Column
from ..console import Console
from ..data.batches import Batches
from ..data.packing import pack
from ..data.prepare import Prepared, prepare
from ..data.source import open_source
from ..data.split import split
from ..data.store import cache_folder
from ..data.table import Table
from ..errors import RunError, UsageError
from ..layers.lora import merge
from ..model import Model
from ..pretrained import equip, fine_tune, put_weights, write_adapter
from ..recipe import Recipe
from ..report import write_card, write_report
from ..run import RunFolder, build_model, make_columns, new_folder, write_whole
from ..training.checkpoint import exclusive, latest
from ..training.loop import Loop
from ..training.surroundings import asked_to_stop, reproducible, torch_device
from .alignment import alignable
from .assemble import Session, make_loop
from .calibrate import fit_calibrations
from .collect import EXACT, collect, headline
from .complete import complete
from .estimate.foretell import begin, came, foretell, resumed
from .examine import examine
from .facts import data_facts
from .sources import stratify_by

__all__ = ["Stopped", "resume", "train"]


class Stopped(Exception):  # noqa: N818
    """The run was asked to stop by a signal, and has saved what it needs to go on."""

    def __init__(self, signum: int, folder: Path, step: int) -> None:
        super().__init__(f"stopped at step {step}; go on with: zhixing train --resume {folder}")
        self.exit_status = 128 + signum


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
    console, began = console or Console(quiet=True), time.time()
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
    prepared = alignable(prepared, table, columns, model, recipe.data.on_error)
    folder = claim_folder(out, table.name)
    write_whole(folder / "recipe.yaml", recipes.dump(recipe.plain()).encode())  # from here on it can be resumed
    run = RunFolder(folder)
    begin(run, began)
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
    resumed(run)
    recipe = run.recipe()
    table = recipes.reshaped(open_source(recipe.data.source if source is None else source), recipe.plain())
    columns, prepared = make_data(recipe, table, console)
    name = next((name for name, settings in recipe.inputs.items() if settings.encoder.name == "custom"), None)
    modules = {name: encoder} if name is not None and encoder is not None else {}
    model = build(recipe, columns, modules)
    prepared = alignable(prepared, table, columns, model, recipe.data.on_error)
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
        model = build_model(recipe, columns, modules)  # type: ignore[arg-type]
        put_weights(recipe, columns, model)
        fine_tune(recipe, model)
    return model


def describe_source(source: Any, table: Table) -> str:
    """The source as the recipe names it: paths are made absolute, so that the run can be moved."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return str(path.resolve()) if path.exists() else str(source)
    return f"memory:{table.name}"


def make_data(recipe: Recipe, table: Table, console: Console) -> tuple[dict[str, Column], Prepared]:
    parts = split(table, recipe.data.split, recipe.seed, target=stratify_by(recipe))
    columns = make_columns(recipe)
    equip(recipe, columns)
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
                foretell(session, loop)
                loop.run()
        if stop.signum and not (loop.progress.stopped_early or loop.progress.step == loop.options.total_steps):
            raise Stopped(stop.signum, run.path, loop.progress.step)
        # From here on a signal ends the process at once: the last checkpoint is on disk, and a resumed run does what
        # follows again.
        model.load_state_dict(loop.chosen_weights())
        settle(session, model)
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


def cut_log(run: RunFolder, size: int) -> int:
    """Bring the log back to where the checkpoint saw it; what came after is written again. Gives the bytes it lacks."""
    path = run.path / "metrics.jsonl"
    there = path.stat().st_size if path.exists() else 0
    if there > size:
        os.truncate(path, size)
    return max(0, size - there)


def settle(session: Session, model: Model) -> None:
    """After fine-tuning: keep what was learned apart from its base, and make the model one that needs no base."""
    if (tuned := fine_tune(session.recipe, model)) is not None:
        write_adapter(session.folder, session.recipe, model, tuned)
        merge(model)


def finish(session: Session, model: Model, batches: Batches, loop: Loop) -> None:
    """Look at the test rows once, write the report, and keep the weights.

    The weights' manifest comes last: it says that the run is finished, so a run that is killed among these files does
    them again when it is resumed.
    """
    run, console = session.folder, session.console
    part = next(name for name in ("test", "validation", "train") if len(session.prepared.split[name]))
    rows = session.prepared.split[part]
    seen = collect(model, batches, rows, EXACT, with_answers=bool(model.inputs))
    calibrations = fit_calibrations(model, batches, session.prepared.split["validation"])
    if calibrations:
        run.write_json("calibration.json", dump(calibrations))
    outputs = examine(model, session.columns, session.prepared.columns, session.table, seen, calibrations)
    came(run, session.device)
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
