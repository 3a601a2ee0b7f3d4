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
from ...training.loop import Loop
from ..assemble import Session
from .machine import Times, clock, peak_bytes, power_of, resident_bytes, unread_bytes
from .plan import PROGRAM_MEASURING, Plan, energy, longest, memory_parts, typical

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
    recipe, prepared, model = session.recipe, session.prepared, session.model
    custom = {
        name: encoder
        for name, encoder in zip(model.inputs, model.encoders, strict=True)
        if recipe.inputs[name].encoder.name == "custom"
    }
    plan = Plan(
        recipe, session.columns, session.device, -(-len(loop.order.rows) // loop.order.steps_per_epoch),
        loop.options.total_steps, longest(prepared), typical(prepared), custom,
    )  # fmt: skip
    now = resident_bytes() + unread_bytes(cache_folder())
    dry = plan.dry()
    parts = memory_parts(dry, recipe)
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
    return {**out, "step_flops": dry.step_flops, "forward_flops_per_row": dry.forward_flops // dry.rows}


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
