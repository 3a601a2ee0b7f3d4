"""An estimate in words, for a person."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

__all__ = ["big", "grouped_layers", "show", "size", "span"]

SHOWN_LAYERS = 40


def show(told: Mapping[str, Any]) -> None:
    """Print what :func:`estimate` gave."""
    console = RichConsole(highlight=False)

    def line(text: str) -> None:
        console.print(text, markup=False)

    memory, times, power = told["memory"], told["time"], told["energy"]
    line(f"{told['parameters']:,} parameters, {big(told['forward_flops_per_row'])}FLOP forward a row")
    line(f"precision {told['precision']}")
    line(f"{told['steps']:,} steps of {told['batch_rows']:,} rows, {big(told['step_flops'])}FLOP each")
    console.print(
        page(
            ("layer", "kind", "parameters", "FLOP forward a row"),
            ((name, kind, f"{count:,}", big(flops)) for name, kind, count, flops in grouped_layers(told["layers"])),
        )
    )
    line(f"peak memory {size(memory['peak_bytes'])}, while {memory['when']} (from {memory['from']})")
    console.print(page(("part", "memory"), ((name, size(part)) for name, part in memory["parts_bytes"].items())))
    if "device_parts_bytes" in memory:
        line(f"peak memory of the device {size(memory['device_peak_bytes'])}")
        console.print(page(("part", "device"), ((k, size(v)) for k, v in memory["device_parts_bytes"].items())))
    fits = {True: "it fits", False: "IT DOES NOT FIT", None: "what is free is not known"}[memory["fits"]]
    most = told["largest_batch"]
    line(f"{size(memory['free_bytes'])} free: {fits}" + ("" if most is None else f"; largest batch {most:,} rows"))
    line(f"time {span(times['seconds'])} (from {times['from']})")
    parts = ((k, span(v)) for k, v in times.items() if k not in ("seconds", "from"))
    console.print(page(("part", "time"), parts))
    cost = "".join(
        f", {name} {power[key]:.4g}" for key, name in (("cost", "cost"), ("carbon_grams", "CO2 in g")) if key in power
    )
    line(f"energy {power['kilowatt_hours']:.4g} kWh at {power['watts']:g} W ({power['model']}){cost}")
    rows = ((one["change"], size(one["peak_bytes"]), span(one["training_seconds"])) for one in told["changes"])
    console.print(page(("what changes it", "peak memory", "time of the steps"), rows))
    for text in told["notes"]:
        line(f"note: {text}")


def page(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    first, *others = heads
    table = Table(box=None, padding=(0, 2))
    table.add_column(first)
    for head in others:
        table.add_column(head, justify="left" if head == "kind" else "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def grouped_layers(layers: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, int, int]]:
    """Layers of blocks that are alike as one line each: their numbers become ``*``, and figures are added up.

    >>> same = {"kind": "Linear", "parameters": 6, "forward_flops_per_row": 10}
    >>> grouped_layers([{"name": "blocks.0.linear", **same}, {"name": "blocks.1.linear", **same}])
    [('blocks.*.linear', '2 x Linear', 12, 20)]
    """
    found: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for layer in layers:
        pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "*", layer["name"])
        found.setdefault((pattern, layer["kind"], layer["parameters"]), []).append(layer)
    lines = []
    for (pattern, kind, _), alike in found.items():
        name = alike[0]["name"] if len(alike) == 1 else pattern
        told = kind if len(alike) == 1 else f"{len(alike)} x {kind}"
        total = (sum(one[key] for one in alike) for key in ("parameters", "forward_flops_per_row"))
        lines.append((name, told, *total))
    if len(lines) > SHOWN_LAYERS:
        rest = lines[SHOWN_LAYERS:]
        lines = lines[:SHOWN_LAYERS]
        lines.append((f"{len(rest)} more", "", sum(one[2] for one in rest), sum(one[3] for one in rest)))
    return lines


def size(count: float | None) -> str:
    """Bytes for reading.

    >>> size(1536), size(3 << 30), size(None)
    ('0.0 MiB', '3.0 GiB', '?')
    """
    if count is None:
        return "?"
    return f"{count / 2**30:,.1f} GiB" if abs(count) >= 2**30 else f"{count / 2**20:,.1f} MiB"


def span(seconds: float | None) -> str:
    """A time for reading.

    >>> span(0.0213), span(75), span(90000)
    ('0.021 s', '1 min 15 s', '25 h 0 min')
    """
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def big(count: float) -> str:
    """A large number with its unit.

    >>> big(950), big(2.5e6), big(3.74e14)
    ('950 ', '2.5 M', '374 T')
    """
    for unit in ("", "k", "M", "G", "T"):
        if count < 1000 or unit == "T":
            return f"{count:.3g} {unit}" if count < 1e6 else f"{count:,.0f} {unit}"
        count /= 1000
    raise AssertionError
