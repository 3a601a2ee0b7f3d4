"""What a person sees while something runs: bars on a terminal, plain lines in a log, nothing when quiet."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["Console"]


class Console:
    """Messages go to standard error, so that standard output holds results alone."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.rich = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self.bars: Progress | None = None
        self.tasks: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        """One line of news."""
        if not self.quiet:
            self.rich.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Something that a person should look at; also said when quiet."""
        if self.quiet:
            print(f"warning: {text}", file=sys.stderr)
        else:
            self.rich.print(f"warning: {text}", style="yellow", markup=False)

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        """How far something is. On a terminal it is a bar; a log hears nothing of it."""
        if self.quiet or not self.rich.is_terminal:
            return
        if self.bars is None:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bars = Progress(*columns, TextColumn("{task.fields[note]}"), console=self.rich, transient=True)
            self.bars.start()
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(name, total=total, note=note)
        self.bars.update(self.tasks[name], completed=done, total=total, note=note)

    def close(self) -> None:
        """Take the bars away."""
        if self.bars is not None:
            with suppress(Exception):
                self.bars.stop()
            self.bars, self.tasks = None, {}

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
