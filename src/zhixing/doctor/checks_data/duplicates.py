"""Rows that stand in the table more than once, exactly or nearly, within a split and across splits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...columns.column import Ragged
from ..case import SHOWN, Case
from ..finding import Finding, Mend, Severity, quoted
from ..views import hashes
from .near import near_pairs

__all__ = ["exact_duplicates", "near_duplicates"]

Codes = NDArray[np.uint64]


def input_codes(case: Case) -> dict[str, Codes]:
    """A hash of each input's cell in each row of the table."""
    everywhere = np.arange(case.table.rows)
    return {name: hashes(case.stored(name), everywhere) for name in case.inputs}


def joined(codes: dict[str, Codes], rows: int) -> Codes:
    whole = np.zeros(rows, np.uint64)
    for one in codes.values():
        whole = (whole ^ one) * np.uint64(0x9E3779B97F4A7C15)
        whole ^= whole >> np.uint64(29)
    return whole


def by_chance(case: Case, codes: dict[str, Codes], rows: int) -> float:
    """The share of rows that have an equal among ``rows`` others, were the columns independent of each other.

    One column alone says nothing of chance: a picture, a sound, a long text or a series is then taken as one that
    nothing repeats by chance, and anything shorter as one that everything may.
    """
    train = case.split("train")
    if len(codes) == 1:
        name = next(iter(codes))
        spec, stored = case.columns[name].spec(), case.stored(name)
        long = float(np.median(stored.lengths_of(train))) if isinstance(stored, Ragged) else float(np.prod(spec.shape))
        return 0.0 if long >= 12 else 1.0
    odds = 0.0
    for one in codes.values():
        _, counts = np.unique(one[train], return_counts=True)
        odds += float(np.log(np.square(counts / len(train)).sum()))
    return float(-np.expm1(-rows * np.exp(odds)))


def exact_duplicates(case: Case) -> Iterator[Finding]:
    """Held-out rows whose inputs a training row has too, and repeats within the training rows."""
    if not case.inputs:
        return
    codes = input_codes(case)
    whole, train, held = joined(codes, case.table.rows), case.split("train"), case.held_out
    chance = by_chance(case, codes, len(train))
    across = held[np.isin(whole[held], whole[train])]
    if len(across):
        yield leaked(case, whole, across, chance)
    _, first, counts = np.unique(whole[train], return_index=True, return_counts=True)
    repeats = len(train) - len(first)
    share = repeats / max(1, len(train))
    if repeats:
        many = np.argsort(-counts, kind="stable")[:SHOWN]
        clear = share > 0.2 and share > 2 * chance
        yield Finding(
            "exact_duplicates", "warning" if clear else "note",
            f"{repeats:,} of {len(train):,} training rows ({share:.1%}) repeat another training row in every input",
            sure=0.95 if clear else 0.8,
            evidence={"repeats": repeats, "share": share, "share_by_chance": chance, "most_copies": int(counts.max())},
            rows=[case.row(train[first[i]], f"stands {counts[i]} times") for i in many if counts[i] > 1],
            advice="Keep one of each, or see that the repeats are meant: they count as often as they stand there.",
        )  # fmt: skip


def leaked(case: Case, whole: Codes, across: NDArray[np.int64], chance: float) -> Finding:
    train, held = case.split("train"), case.held_out
    share = len(across) / len(held)
    order = np.argsort(whole[train], kind="stable")
    twin = train[order[np.searchsorted(whole[train][order], whole[across])]]
    beyond = share - chance
    severity: Severity = "fault" if beyond > 0.05 else "warning" if beyond > 0.01 and len(across) > 2 else "note"
    return Finding(
        "exact_duplicates", severity if chance < 0.5 else "note",
        f"{len(across):,} of {len(held):,} held-out rows ({share:.1%}) stand among the training rows too, equal in "
        f"every input: results on them say nothing of new rows",
        sure=0.98 if beyond > 0.05 else 0.9,
        evidence={"rows": len(across), "share": share, "share_by_chance": chance},
        rows=[case.row(one, f"equals training row {other}") for one, other in zip(across, twin, strict=True)][:SHOWN],
        mend=grouped(case, whole),
        advice="Remove the copies from the table, or split it so that copies stay together.",
    )  # fmt: skip


def grouped(case: Case, whole: Codes) -> Mend:
    """A split by the input column that tells rows apart best: copies are equal in it, so they stay together.

    Only cells that a split can compare will do; a table's own split, and one by time, are left to the user.
    """
    settings = case.recipe.data.split
    if settings.by in ("time", "group", "column") or case.table.split_column:
        return Mend()
    told = {
        name: len(case.table[name].unique())
        for name in case.inputs
        if str(case.table[name].type) in ("string", "large_string", "int64", "double")
    }
    codes = input_codes(case)
    best = max(told, key=lambda name: told[name], default=None)
    if best is None or len(np.unique(codes[best])) < 0.5 * len(np.unique(whole)):
        return Mend()
    return Mend(("data.split.by=group", f"data.split.column={quoted(best)}"))


def near_duplicates(case: Case) -> Iterator[Finding]:
    """Held-out rows that a training row nearly equals (but not exactly), in any one long input."""
    train, held = case.split("train"), case.held_out
    for name in case.inputs:
        if not len(held):
            return
        pairs = near_pairs(case, name, case.some(train, 8000), case.some(held, 2000))
        looked = min(len(held), 2000)
        codes = hashes(case.stored(name), np.arange(case.table.rows))
        pairs = [(one, other, score) for one, other, score in pairs if codes[one] != codes[other]]
        if not pairs:
            continue
        # A training row that was not looked at may hide more: the share is a lower bound.
        share = len(pairs) / looked
        severity: Severity = "fault" if share > 0.05 else "warning" if share > 0.02 and len(pairs) > 4 else "note"
        yield Finding(
            "near_duplicates", severity,
            f"{len(pairs):,} of {looked:,} held-out rows looked at ({share:.1%}) nearly equal a training row in "
            f"{name!r}",
            sure=0.88,
            evidence={"rows": len(pairs), "looked_at": looked, "share": share},
            rows=[
                case.row(one, f"nearly equals training row {other} (likeness {score:.3f})", show=name)
                for one, other, score in sorted(pairs, key=lambda pair: -pair[2])[:SHOWN]
            ],
            advice="Keep near copies on one side: give the table a column that groups them, and split by it "
            "(data.split.by=group).",
        )  # fmt: skip
