"""The part of the report on what was estimated before training, and what came."""

from __future__ import annotations

from typing import Any

from .files import RunFiles, mapping, number, read_object
from .markup import Html, esc, join, note, table

__all__ = ["estimates_section"]


def estimates_section(run: RunFiles) -> dict[str, Html]:
    """The section under its title; none of a run that has written no estimate."""
    told = read_object(run.folder / "estimate.json")
    if not told:
        return {}
    memory, times, came = (mapping(told.get(key)) for key in ("memory", "time", "came"))
    lines = [
        ("time, seconds", number(times.get("seconds")), number(came.get("seconds"))),
        ("peak memory of the process, MiB", mib(memory.get("peak_bytes")), mib(came.get("peak_bytes"))),
        ("peak memory of the device, MiB", mib(memory.get("device_peak_bytes")), mib(came.get("device_peak_bytes"))),
    ]
    rows = [
        (name, guess, real, apart(guess, real)) for name, guess, real in lines if guess is not None or real is not None
    ]
    parts = [(name, mib(size)) for name, size in mapping(memory.get("parts_bytes")).items()]
    shown = [
        table(("figure", "estimated", "came", "difference"), rows, caption="Estimated before training, and what came"),
        table(("part", "MiB"), parts, caption="Memory of tensors, estimated") if parts else Html(""),
        *(note(text) for text in notes(told, memory, times)),
    ]
    return {"Estimate": join(shown)}


def notes(told: dict[str, Any], memory: dict[str, Any], times: dict[str, Any]) -> list[str]:
    out = []
    if times.get("from"):
        out.append(f"The time was estimated from {times['from']}.")
    energy = number(times.get("kilowatt_hours"))
    if energy is not None:
        out.append(f"Estimated energy {energy:.3g} kWh at {times.get('watts')} W ({times.get('model')}).")
    if memory.get("note"):
        out.append(f"Memory could not be estimated: {memory['note']}.")
    if told.get("resumed"):
        out.append("The run was resumed: its time is not that of one process.")
    return out


def mib(size: object) -> float | None:
    found = number(size)
    return None if found is None else found / 2**20


def apart(guess: float | None, real: float | None) -> Html:
    """How far what came is from what was estimated, as a share of the estimate."""
    if guess is None or real is None or not guess:
        return esc("–")
    return esc(f"{100 * (real / guess - 1):+.1f} %")
