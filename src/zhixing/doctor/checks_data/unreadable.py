"""Rows that cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..case import SHOWN, Case
from ..finding import Finding, Mend, Row

__all__ = ["unreadable"]


def unreadable(case: Case) -> Iterator[Finding]:
    """How many rows are lost, in which columns, and why. Up to one in a thousand is a note, over 1 % a fault.

    Classes that no training row has are left to another check.
    """
    lost = [one for one in case.prepared.problems if one.fatal and "in no training row" not in one.reason]
    if not lost:
        return
    count = len({one.place for one in lost})
    total = case.table.rows + sum(one.fatal for one in case.table.problems)
    share = count / max(1, total)
    by_column = Counter(one.column or "(the row itself)" for one in lost)
    worst, times = by_column.most_common(1)[0]
    yield Finding(
        "unreadable", "fault" if share > 0.01 else "warning" if share > 0.001 and count > 2 else "note",
        f"{count:,} of {total:,} rows ({share:.2%}) cannot be used, most of them for {worst!r} ({times:,}): "
        f"{lost[0].reason}",
        sure=1.0,
        evidence={"rows": count, "share": share, "by_column": dict(by_column)},
        rows=[Row(one.row, one.place, f"{one.column}: {one.reason}") for one in lost[:SHOWN]],
        mend=Mend(("data.on_error=skip",)),
        advice="Mend the cells that are listed; until then the rows are left out.",
    )  # fmt: skip
