"""What a run writes of itself: what was estimated before its first step, and what came; ``estimate.json``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...data.batches import Batch
from ...data.store import cache_folder
from ...run import RunFolder
from ...training.loop import Loop, cuts
from ...training.optimizers import state_tensors
from ..assemble import Session
from .chosen import representative
from .dry import StepCost, layers_of, through
from .machine import Times, clock, peak_bytes, power_of, resident_bytes, unread_bytes
from .plan import PROGRAM_MEASURING, energy, memory_parts
from .tally import Tally

__all__ = ["begin", "came", "foretell", "resumed"]

FILE = "estimate.json"
WARM, TIMED = 3, 20  # steps that are not timed, and that are, at most
AROUND = 2.5  # seconds for libraries that measure, the last checkpoint and the report


def begin(run: RunFolder, began: float) -> None:
    """Note when training was asked for (seconds since 1970)."""
    run.write_json(FILE, {"began": began})


def resumed(run: RunFolder) -> None:
    """Note that the run was stopped in between: its time is not that of one process."""
    run.write_json(FILE, {**(run.read_json(FILE) or {}), "resumed": True})


def foretell(session: Session, loop: Loop) -> None:
    """Estimate memory now, and the time from the first steps as they are taken. Training is not touched by it."""
    run = session.folder
    told = run.read_json(FILE) or {}
    if "memory" in told:  # of the process that began this run
        return
    try:
        told["memory"] = memory_ahead(session, loop)
    except Exception as error:  # an estimate that cannot be made, of a module of somebody's own, must not end a run
        told["memory"] = {"note": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    run.write_json(FILE, told)
    watch_first_steps(session, loop, told)


def memory_ahead(session: Session, loop: Loop) -> dict[str, Any]:
    """Peak memory: what the process holds now, and what a step and a checkpoint will add."""
    now = resident_bytes() + unread_bytes(cache_folder())
    step = tried(loop)
    parts = memory_parts(step, session.recipe)
    on_device = session.device.type != "cpu"
    later = ("checkpoint being written",) if on_device else (
        "gradients", "activations", "best weights", "checkpoint being written",
    )  # fmt: skip
    out: dict[str, Any] = {
        "peak_bytes": max(peak_bytes(), now + sum(parts[name] for name in later) + PROGRAM_MEASURING),
        "parts_bytes": parts,
    }
    if on_device:
        out["device_peak_bytes"] = sum(size for name, size in parts.items() if name != "checkpoint being written")
    return {**out, "step_flops": step.step_flops, "forward_flops_per_row": step.forward_flops // step.rows}


def tried(loop: Loop) -> StepCost:
    """What the step with the first epoch's longest rows takes, seen as it is gone through, before all others; all that
    it changes is put back.

    A dry step tells the same, but loads torch's compiler, which takes longer than many a step.
    """
    model, tally, longest = loop.model, Tally(), representative(loop.order, loop.batches)[0]
    rows = loop.batches.gather(loop.order.at(longest))
    gradients = sum(parameter.nbytes for parameter in loop.parameters)
    loop.guard.before()
    model.train()
    try:
        with torch.random.fork_rng(devices=[]), tally:
            for tensor in (*model.parameters(), *model.buffers()):
                tally.see(tensor)
            weights = tally.forget()
            batch = model.weigh(loop.hooks.augment(rows, loop.progress.step))
            parts = cuts(len(batch), min(loop.progress.micro_batch or len(batch), len(batch)))
            passed = through(model, batch, parts, loop.precision, tally)
            most = max(0, tally.forget() - weights - gradients)
    finally:
        for parameter in loop.parameters:
            parameter.grad = None
        loop.guard.undo()
    state = sum(tensor.nbytes for tensor in state_tensors(loop.optimizers).values())
    copies = sum(tensor.nbytes for tensor in (*loop.average.values(), *loop.guard.copies))
    return StepCost(
        len(batch), loop.precision, weights, gradients, state, copies, most, passed.saved,
        passed.by_layer[""], passed.step, layers_of(model, passed.by_layer), passed.whole,
    )  # fmt: skip


def watch_first_steps(session: Session, loop: Loop, told: dict[str, Any]) -> None:
    """Note when each of the first steps begins; after some dozen, say how long all will take."""
    hooks, marks = loop.hooks, list[Times]()
    timed = min(TIMED, loop.options.total_steps // 4 - WARM)
    if timed < 1 or "began" not in told:
        return

    def augment(batch: Batch, step: int) -> Batch:
        if loop.device.type == "cuda" and len(marks) in (WARM, WARM + timed):  # else it is when they were asked for
            torch.cuda.synchronize(loop.device)
        marks.append(clock())
        if len(marks) > WARM + timed:
            loop.hooks = hooks
            took = np.mean(np.diff(marks[WARM:], axis=0), axis=0)
            told["time"] = time_ahead(session, loop, float(took[0]), time.time() - told["began"], len(marks) - 1)
            session.folder.write_json(FILE, told)
        return hooks.augment(batch, step)

    loop.hooks = replace(hooks, augment=augment)


def time_ahead(session: Session, loop: Loop, step: float, spent: float, steps: int) -> dict[str, Any]:
    """Seconds until the run ends. A row's way forward is taken for a third of its part of a step."""
    total, every = loop.options.total_steps, loop.options.validate_every
    parts = session.prepared.split
    forward = step / 3 / loop.order.batch_size
    training = step * (total - steps)
    looks = forward * len(parts["validation"]) * (-(-total // every) + 1)  # and once more, to calibrate
    last = forward * max(len(parts["test"]), 0)
    seconds = spent + training + looks + last + AROUND
    threads = session.recipe.training.threads or 1
    return {
        "seconds": round(seconds, 3),
        "from": f"the first {steps} steps, on this machine; texts that are written at the end are left out",
        "step": round(step, 6),
        **energy(seconds, power_of(session.device, threads), None, None),
    }


def came(run: RunFolder, device: torch.device) -> None:
    """Write beside the estimate what came: seconds until now, and the most memory that was held."""
    told: Mapping[str, Any] = run.read_json(FILE) or {}
    seconds = None if told.get("resumed") or "began" not in told else round(time.time() - told["began"], 3)
    found: dict[str, Any] = {"seconds": seconds, "peak_bytes": peak_bytes()}
    if device.type == "cuda":
        found["device_peak_bytes"] = int(torch.cuda.max_memory_allocated(device))
    run.write_json(FILE, {**told, "came": found})
