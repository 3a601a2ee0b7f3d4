"""Findings for a person at a terminal, and kept with a run for its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table as RichTable
from rich.text import Text

from ..report import write_report
from ..run import RunFolder
from .finding import Mend

__all__ = ["keep", "show"]

COLOURS = {"fault": "bold red", "warning": "yellow", "note": "dim"}
SHOWN_ROWS = 5


def show(content: Mapping[str, Any]) -> None:
    """The findings as a table, alarms with their mends and the first of their rows."""
    console = RichConsole(highlight=False)
    page = RichTable("severity", "check", "found", "sure", box=None, padding=(0, 2, 0, 0))
    for one in content["findings"]:
        told = Text(one["found"])
        if one["severity"] != "note":
            for line in details(one):
                told.append(f"\n{line}", style="dim")
        page.add_row(Text(one["severity"], style=COLOURS[one["severity"]]), one["check"], told, f"{one['sure']:.0%}")
    console.print(page)
    counts = content["counts"]
    took = sum(content["seconds"].values())
    console.print(f"{counts['fault']} faults, {counts['warning']} warnings, {counts['note']} notes in {took:.0f} s")
    for line in fixed_lines(content.get("fixed")):
        console.print(line, markup=False)


def details(one: Mapping[str, Any]) -> list[str]:
    lines = [f"explained by {one['because']}"] if one["because"] else []
    lines += [f"{row['place']}: {row['remark']}" for row in one["rows"][:SHOWN_ROWS]]
    more = len(one["rows"]) - SHOWN_ROWS
    lines += [f"… and {more} more rows in --json"] if more > 0 else []
    mend = Mend(tuple(one["mend"]["settings"]), tuple(one["mend"]["drop"]))
    return lines + ([f"mend: {mend}"] if mend else []) + ([f"advice: {one['advice']}"] if one["advice"] else [])


def fixed_lines(fixed: Mapping[str, Any] | None) -> list[str]:
    if fixed is None:
        return []
    lines = [f"  {line}" for line in fixed["done"]]
    head = f"mended recipe: {fixed['recipe']}" if fixed["recipe"] else "there is nothing that a recipe could mend"
    left = [f"not mended, see the advice: {', '.join(fixed['left'])}"] if fixed["left"] else []
    return [head, *lines, *left]


def keep(run: Path, content: Mapping[str, Any]) -> None:
    """Write ``doctor.json`` into a run's folder, and its report anew where there is one."""
    RunFolder(run).write_json("doctor.json", content)
    if (run / "report.html").is_file():
        write_report(run)
