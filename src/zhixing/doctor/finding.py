"""What a check finds, and in which order findings are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .case import Case

__all__ = [
    "SEVERITIES",
    "Check",
    "Curve",
    "Finding",
    "Mend",
    "Row",
    "Severity",
    "escaped",
    "in_order",
    "quoted",
    "some_rows",
]

Severity = Literal["note", "warning", "fault"]
SEVERITIES: tuple[Severity, ...] = ("note", "warning", "fault")


@dataclass(frozen=True)
class Mend:
    """A change of the recipe: assignments as ``--set`` takes them, and columns that are no longer read."""

    settings: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.settings or self.drop)

    def __str__(self) -> str:
        words = [f"--set {one}" for one in self.settings] + [f"leave out {name!r}" for name in self.drop]
        return ", ".join(words)


@dataclass(frozen=True)
class Row:
    """A row that is part of the evidence: its number in the table, where a person finds it, and why it is here."""

    row: int
    place: str
    remark: str
    picture: str = ""


@dataclass(frozen=True)
class Curve:
    """Evidence to look at: values ``y`` over ``x``."""

    x: Sequence[float]
    y: Sequence[float | None]
    x_label: str
    y_label: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Args:
        severity: a ``fault`` makes results wrong or training fail; a ``warning`` costs quality or time; a ``note`` is
            for information.
        found: what it is, in one sentence with its figures.
        sure: how sure the check is, from 0 to 1.
        evidence: the numbers behind it, as JSON.
        rows: rows to look at, the worst first.
        mend: the change of the recipe that ``--fix`` writes.
        advice: what to do where no recipe can mend it.
        because: the check whose finding explains this one; filled in when all are known.
    """

    check: str
    severity: Severity
    found: str
    sure: float = 0.9
    evidence: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    curve: Curve | None = None
    mend: Mend = Mend()
    advice: str = ""
    because: str = ""

    def plain(self) -> dict[str, Any]:
        """The finding as JSON."""
        return {
            "check": self.check,
            "severity": self.severity,
            "found": self.found,
            "sure": round(self.sure, 3),
            "evidence": dict(self.evidence),
            "rows": [vars(row) for row in self.rows],
            "curve": vars(self.curve) if self.curve else None,
            "mend": {"settings": list(self.mend.settings), "drop": list(self.mend.drop)},
            "advice": self.advice,
            "because": self.because,
        }


def some_rows(
    check: str,
    told: tuple[str, str],
    found: int,
    looked: int,
    bounds: tuple[float, float],
    **more: Any,
) -> Iterator[Finding]:
    """A finding where some of the rows looked at are bad: a fault, or with three rows and more a warning, where their
    share is above these bounds. ``told`` is what they are and what is wrong with them; ``more`` goes to the finding.

    >>> [one.found for one in some_rows("empty", ("texts", "are empty"), 3, 100, (0.1, 0.01))]
    ['3 of 100 texts (3.0%) are empty']
    """
    if not found:
        return
    share, (fault, warning) = found / looked, bounds
    severity: Severity = "fault" if share > fault else "warning" if share > warning and found > 2 else "note"
    what, wrong = told
    evidence = {"rows": found, "share": share, **more.pop("evidence", {})}
    yield Finding(check, severity, f"{found:,} of {looked:,} {what} ({share:.1%}) {wrong}", evidence=evidence, **more)


@dataclass(frozen=True)
class Check:
    """A check and what its findings explain.

    ``explains`` names checks whose findings are likely consequences of a fault or warning of this one: they are still
    told, but after it.
    """

    name: str
    about: str
    run: Callable[[Case], Iterator[Finding]]
    explains: frozenset[str] = frozenset()


def in_order(findings: Sequence[tuple[Finding, int]]) -> list[Finding]:
    """The gravest first, then the surest, then what comes earlier in the chain of causes (the number beside it).

    Findings that another one explains come after all the others of more than a note.

    >>> note, fault = Finding("a", "note", "…"), Finding("b", "fault", "…")
    >>> [one.check for one in in_order([(note, 0), (fault, 1)])]
    ['b', 'a']
    """

    def key(pair: tuple[Finding, int]) -> tuple[bool, int, int, int]:
        one, place = pair
        explained = bool(one.because) or one.severity == "note"
        certainty = 2 if one.sure >= 0.85 else 1 if one.sure >= 0.6 else 0
        return explained, -SEVERITIES.index(one.severity), -certainty, place

    return [one for one, _ in sorted(findings, key=key)]


def escaped(name: str) -> str:
    """A column's name as a part of an assignment's path, where dots and equals signs would mean something.

    >>> escaped("petal length (cm.)")
    'petal length (cm\\\\.)'
    """
    return name.replace(".", "\\.").replace("=", "\\=")


def quoted(name: str) -> str:
    """A column's name as the value of an assignment, whatever YAML would take it for."""
    return json.dumps(name, ensure_ascii=False)
