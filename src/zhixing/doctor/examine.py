"""Run the battery of checks and put what they find in order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..console import Console
from ..errors import UsageError, did_you_mean
from .case import Case, case_of_data, case_of_run
from .checks_data import DATA_CHECKS
from .checks_learning import LEARNING_CHECKS
from .finding import SEVERITIES, Check, Finding, in_order

__all__ = ["CHECKS", "Diagnosis", "diagnose", "examine"]

CHECKS: tuple[Check, ...] = (*DATA_CHECKS, *LEARNING_CHECKS)


@dataclass(frozen=True)
class Diagnosis:
    """All findings, the first the likeliest cause; and how many seconds each check took."""

    subject: str
    findings: list[Finding]
    seconds: Mapping[str, float]
    recipe: Mapping[str, Any]

    @property
    def alarms(self) -> list[Finding]:
        """Findings above a note."""
        return [one for one in self.findings if one.severity != "note"]

    def plain(self) -> dict[str, Any]:
        """As JSON: what ``zhixing doctor --json`` prints and the report reads."""
        counts = {kind: sum(one.severity == kind for one in self.findings) for kind in reversed(SEVERITIES)}
        return {
            "subject": self.subject,
            "counts": counts,
            "findings": [one.plain() for one in self.findings],
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def examine(
    subject: Any,
    *,
    recipe: Mapping[str, Any] | None = None,
    data: Any = None,
    encoder: str | Mapping[str, Any] | nn.Module | None = None,
    device: str = "auto",
    only: Sequence[str] = (),
    console: Console | None = None,
) -> Diagnosis:
    """Examine data with a recipe, or a run folder.

    Nothing is written: neither in a run's folder nor anywhere else but the cache of encoded columns.

    Args:
        subject: whatever :func:`zhixing.train` takes, or the path of a run.
        recipe: a recipe's plain data; what it leaves open is inferred, as in training.
        data: a run's data, where they were only in memory or have moved.
        encoder: a name, settings, or a module of your own, which is examined too; of a run, modules by column.
        only: names of checks, in place of all.

    Raises:
        ZhixingError: there is nothing that could be examined, or a check is not known.

    Example::

        diagnosis = zhixing.doctor.examine("photos/")
        diagnosis.findings[0].found
    """
    if isinstance(subject, str | Path) and (Path(subject) / "recipe.yaml").is_file():
        modules = encoder if isinstance(encoder, Mapping | nn.Module) else None
        case = case_of_run(Path(subject), source=data, encoder=modules, device=device, console=console)
    else:
        case = case_of_data(subject, recipe or {}, encoder=encoder, device=device, console=console)
    return diagnose(case, only=only, console=console)


def diagnose(case: Case, *, only: Sequence[str] = (), console: Console | None = None) -> Diagnosis:
    """Run the checks on a case."""
    known = [check.name for check in CHECKS]
    for name in only:
        if name not in known:
            raise UsageError(f"there is no check {name!r}", mend=did_you_mean(name, known))
    chosen = [check for check in CHECKS if not only or check.name in only]
    found: list[tuple[Finding, int]] = []
    seconds = {}
    console = console or Console(quiet=True)
    with console:
        for done, check in enumerate(chosen):
            console.progress("examining", done, len(chosen), check.about)
            started = time.perf_counter()
            found += [(finding, known.index(check.name)) for finding in check.run(case)]
            seconds[check.name] = time.perf_counter() - started
    return Diagnosis(case.recipe.data.source, in_order(explained(found)), seconds, case.recipe.plain())


def explained(found: Sequence[tuple[Finding, int]]) -> list[tuple[Finding, int]]:
    """Alarms that another check's alarm explains get its name. A warning may explain a fault; a note explains nothing.

    What explains what has no cycle, so that not everything is explained away.
    """
    explains = {check.name: check.explains for check in CHECKS}
    alarms = [one.check for one, _ in found if one.severity != "note"]
    out = []
    for one, place in found:
        cause = next((name for name in alarms if one.check in explains[name]), "")
        out.append((replace(one, because=cause) if cause and one.severity != "note" else one, place))
    return out
