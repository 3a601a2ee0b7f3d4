"""A rehearsal: a few steps of the real loop, one validation, one checkpoint and one ending, each timed.

It runs in a folder that is thrown away, on the real data and at the real batch size, through the code that training
runs. What costs once is told apart from what is to be multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from ... import recipe as recipes
from ...data.batches import Batch, Batches
from ...data.packing import pack
from ...data.prepare import Prepared
from ...heads.text import TextHead
from ...recipe import Recipe
from ...run import RunFolder
from ...training.loop import CHECKPOINT_SECONDS, Loop, Validation
from ...training.surroundings import StopRequest, reproducible
from ..assemble import Session, make_loop
from ..collect import EXACT, collect, validation
from ..train import finish, write_data
from .chosen import WARM, Chosen, representative
from .machine import Times, clock, resident_bytes, watch_peak, watched_peak

__all__ = ["Rehearsal", "rehearse", "scratch_folder"]

LEAST = 5  # steps that are timed at least
FEW = 64  # rows of which a text is written
Parts = dict[str, Times]  # seconds by what they were spent on


@dataclass(frozen=True)
class Rehearsal:
    """Seconds of each part (of the clock, and of the processor), how often it comes, and the most memory held."""

    step: Times
    timed_steps: int
    steps: int
    validation: Times
    validations: int
    checkpoint: Times
    final: Times
    once: Times
    before_bytes: int
    peak_bytes: int
    device_bytes: int | None
    more_bytes: int  # of predictions, when all rows are measured

    @property
    def training(self) -> Times:
        return self.step * self.steps

    @property
    def checkpoints(self) -> int:
        """How many are written: one each half minute, and the last."""
        return 1 + int((self.training + self.validation * self.validations)[0] // CHECKPOINT_SECONDS)

    @property
    def seconds(self) -> Times:
        """All that comes once the data are ready."""
        return (
            self.once
            + self.training
            + self.validation * self.validations
            + self.checkpoint * self.checkpoints
            + self.final
        )


def some(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the rows, evenly spread."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)] if len(rows) else rows


@contextmanager
def timed(seconds: Parts, name: str, device: torch.device) -> Iterator[None]:
    wait(device)
    start = clock()
    yield
    wait(device)
    seconds[name] = clock() - start


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def scratch_folder(recipe: Recipe) -> Iterator[RunFolder]:
    """A run folder that is thrown away."""
    with TemporaryDirectory(prefix="zhixing-estimate-") as folder:
        (Path(folder) / "recipe.yaml").write_text(recipes.dump(recipe.plain()), "utf-8")
        yield RunFolder(folder)


def rehearse(session: Session, *, budget: float = 3.0) -> Rehearsal:
    """Go through all that training does, in about twice ``budget`` seconds, in the session's folder; its model and its
    split are spoilt by it."""
    device, seconds = session.device, Parts()
    before = resident_bytes()
    watch_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with reproducible(session.recipe.training.threads):
        with timed(seconds, "make", device):
            prepared = session.prepared
            write_data(session.folder, session.table, session.recipe, session.columns, prepared, {})
            session.prepared = pack(prepared, session.columns, seed=session.recipe.seed)
            session.model.to(device).channels_last()
            batches = Batches(session.prepared.columns, device)
            loop = make_loop(session, session.model, batches, StopRequest())
        validate_every, steps = loop.options.validate_every, loop.options.total_steps
        marks = run_steps(loop, budget, seconds)
        spans = np.diff(marks[WARM:], axis=0)
        # Batches of one size take one time, whatever else the machine does: of the clock the middle one counts.
        alike = not batches.ragged and device.type != "cuda"
        step = np.mean(spans, axis=0)
        if alike:
            step[0] = np.median(spans[:, 0])
        rows_a_second = 3 * loop.order.batch_size / step[0]
        parts = session.prepared.split
        held = next(name for name in ("test", "validation", "train") if len(parts[name]))
        writes = any(isinstance(session.model.head(name), TextHead) for name in session.model.outputs)
        most = max(256, int(rows_a_second * budget / 3))
        fewer = {"validation": some(parts["validation"], most), held: some(parts[held], FEW if writes else most)}
        session.prepared = replace(session.prepared, split=parts | fewer)
        validation = run_validation(loop, session, seconds) * share(parts, fewer, "validation")
        run_ending(loop, session, batches, fewer[held], seconds)
        device_bytes = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
    scaled = seconds["collect"] * share(parts, fewer, held)
    first = np.maximum(0.0, marks[WARM] - marks[0] - WARM * step)
    once = seconds["make"] + seconds["steps"] - (marks[-1] - marks[0]) + first
    once += np.maximum(0.0, seconds["first validation"] - seconds["validation"])
    return Rehearsal(
        step=step,
        timed_steps=len(spans),
        steps=steps,
        validation=validation,
        validations=-(-steps // validate_every) if len(parts["validation"]) else 0,
        checkpoint=seconds["checkpoint"],
        final=np.maximum(0.0, seconds["finish"] - seconds["collect"]) + scaled,
        once=once,
        before_bytes=before,
        peak_bytes=watched_peak(),
        device_bytes=device_bytes,
        more_bytes=sum(
            3 * row_bytes(session.prepared, session.model.outputs) * (len(parts[name]) - len(fewer[name]))
            for name in fewer
        ),
    )


def share(parts: dict[str, NDArray[np.int64]], fewer: dict[str, NDArray[np.int64]], name: str) -> float:
    """By how much a part is larger than what was taken of it."""
    return len(parts[name]) / max(1, len(fewer[name]))


def row_bytes(prepared: Prepared, outputs: list[str]) -> int:
    """Bytes of a row's targets, about as many as of its predictions."""
    return sum(int(prepared.columns[name].values[:1].nbytes) for name in outputs)


def run_steps(loop: Loop, budget: float, seconds: Parts) -> list[Times]:
    """Take steps for so many seconds; gives when each began, and when the last ended."""
    marks: list[Times] = []
    hooks, writer, order, options = loop.hooks, loop.writer, loop.order, loop.options
    chosen = representative(order, loop.batches)

    def enough() -> bool:
        return len(marks) > WARM + LEAST and (clock() - marks[WARM])[0] > budget

    def augment(batch: Batch, step: int) -> Batch:
        marks.append(clock())
        return hooks.augment(batch, step)

    loop.order, loop.writer = Chosen(order, chosen), None
    loop.options = replace(options, total_steps=len(chosen), validate_every=2**62)
    loop.hooks = replace(hooks, augment=augment, validate=lambda: None, stop=enough)
    with timed(seconds, "steps", loop.device):
        loop.run()
        wait(loop.device)
        marks.append(clock())
    loop.hooks, loop.writer, loop.order, loop.options = hooks, writer, order, options
    return marks


def run_validation(loop: Loop, session: Session, seconds: Parts) -> Times:
    """Validate twice: the first time more is loaded. Gives the seconds of the second."""
    loop.hooks = replace(loop.hooks, validate=lambda: looked(loop, session))
    for name in ("first validation", "validation"):
        with timed(seconds, name, loop.device):
            loop.validate()
    return seconds["validation"]


def looked(loop: Loop, session: Session) -> Validation | None:
    rows = session.prepared.split["validation"]
    if not len(rows):
        return None
    seen = collect(loop.model, loop.batches, rows, loop.precision)
    return validation(loop.model, session.columns, seen)


def run_ending(loop: Loop, session: Session, batches: Batches, rows: NDArray[np.int64], seconds: Parts) -> None:
    """Write a checkpoint, then all that comes after the last step."""
    assert loop.writer is not None
    with timed(seconds, "checkpoint", loop.device), loop.writer:
        loop.save(wait=True)
    session.model.load_state_dict(loop.chosen_weights())
    with timed(seconds, "finish", loop.device):
        finish(session, session.model, batches, loop)
    with timed(seconds, "collect", loop.device):
        collect(session.model, batches, rows, EXACT, with_answers=bool(session.model.inputs))
