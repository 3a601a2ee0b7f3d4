"""A single value that gives the answer away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ...columns.column import Ragged
from ...randomness import permutation
from ..case import SHOWN, Case
from ..finding import Finding, Mend

__all__ = ["leak"]

Rows = NDArray[np.int64]
ROWS, BINS, GIVEN_AWAY = 4000, 32, 0.98
TOKENS = 2000


class Sign(NamedTuple):
    """One value of a column as small codes [n] for some rows, and what it is called."""

    codes: NDArray[np.int64]
    name: str


def leak(case: Case) -> Iterator[Finding]:
    """One value alone (a number, a class, a pixel, the presence of a word) tells nearly every row's class or number.

    Its share is measured on rows that the rule was not made from, above what the commonest class gives. A table whose
    only input is a single value is left alone: there it is the task.
    """
    rows = case.some(case.usable, ROWS)
    single = len(case.inputs) == 1 and next(iter(case.inputs.values())).spec().kind in ("ids", "vector")
    if single and np.prod(next(iter(case.inputs.values())).spec().shape) <= 2:
        return
    for output in case.outputs:
        target = targets_of(case, output, rows)
        if target is None:
            continue
        for name in case.inputs:
            scored = [(told(sign.codes, target), sign.name) for sign in signs(case, name, rows)]
            straight = linear(case, name, output, rows)
            score, what = max([*scored, (straight, f"{name}, by a straight line")], default=(0.0, ""))
            if score < (GIVEN_AWAY if straight < score else 0.9995):
                continue
            whole = case.columns[name].spec().kind in ("ids", "vector")
            yield Finding(
                "leak", "fault",
                f"{what} alone tells {output!r} almost perfectly: {score:.1%} of what there is to know, on rows it was "
                "not learned from. Is it known at the time of prediction?",
                sure=0.95,
                evidence={"column": name, "output": output, "score": score},
                rows=[case.row(int(row), f"{name} and {output}", show=name) for row in rows[: SHOWN // 2]],
                mend=Mend(drop=(name,)) if whole and len(case.inputs) > 1 else Mend(),
                advice="" if whole else f"Remove it from the cells of {name!r}.",
            )  # fmt: skip


def targets_of(case: Case, output: str, rows: Rows) -> NDArray[np.int64] | NDArray[np.float64] | None:
    """Class codes, or numbers, of these rows; None for outputs that are neither."""
    stored, kind = case.stored(output), case.columns[output].spec().kind
    if isinstance(stored, Ragged) or kind not in ("ids", "vector"):
        return None
    values = stored.values.numpy()[rows]
    return values.astype(np.int64) if kind == "ids" else values[:, 0].astype(np.float64)


def signs(case: Case, name: str, rows: Rows) -> Iterator[Sign]:
    """The single values that a cell of this column holds, by the kind of column; courses of series have none."""
    column, stored = case.columns[name], case.stored(name)
    kind = column.spec().kind
    if isinstance(stored, Ragged):
        if kind == "tokens":
            yield from token_signs(case, name, stored, rows)
        return
    if kind == "ids":
        yield Sign(stored.values.numpy()[rows].astype(np.int64), name)
        return
    if kind not in ("image", "vector"):
        return
    features = case.view(name, rows)
    for place in range(features.shape[1]):
        edges = np.unique(np.quantile(features[:, place], np.linspace(0, 1, BINS + 1)[1:-1]))
        what = name if features.shape[1] == 1 else f"{name}, {'area' if kind == 'image' else 'value'} {place}"
        yield Sign(np.searchsorted(edges, features[:, place], side="right"), what)


def token_signs(case: Case, name: str, stored: Ragged, rows: Rows) -> Iterator[Sign]:
    """For each of the commoner tokens, which rows have it."""
    flat, lengths = stored.values.numpy(), stored.lengths_of(rows)
    owner = np.repeat(np.arange(len(rows)), lengths)
    tokens = np.concatenate([flat[stored.offsets[row] : stored.offsets[row + 1]] for row in rows]).astype(np.int64)
    pairs = np.unique(owner * np.int64(2**32) + tokens)
    owner, tokens = pairs >> 32, pairs & (2**32 - 1)
    often = np.bincount(tokens)
    common = [token for token in np.argsort(-often, kind="stable")[:TOKENS] if often[token] >= 0.02 * len(rows)]
    by_token = np.argsort(tokens, kind="stable")
    edges = np.searchsorted(tokens[by_token], np.arange(len(often) + 1))
    for token in common:
        codes = np.zeros(len(rows), np.int64)
        codes[owner[by_token[edges[token] : edges[token + 1]]]] = 1
        if 0 < codes.sum() < len(rows):
            word = case.columns[name].restore(torch.tensor([[int(token)]]))[0]
            yield Sign(codes, f"{word!r} in {name}")


def told(codes: NDArray[np.int64], target: NDArray[np.int64] | NDArray[np.float64]) -> float:
    """How much of the target the codes tell, from 0 to 1, by a rule made on half of the rows and tried on the others.

    >>> told(np.array([0, 0, 1, 1] * 10), np.array([5, 5, 7, 7] * 10))
    1.0
    """
    half = permutation(len(codes), "leak") % 2 == 0
    ours, theirs = half, ~half
    size = int(codes.max(initial=0)) + 1
    if target.dtype.kind == "f":
        count = np.bincount(codes[ours], minlength=size)
        total = np.bincount(codes[ours], target[ours], minlength=size)
        said = np.where(count > 0, total / np.maximum(count, 1), target[ours].mean())[codes[theirs]]
        spread = np.square(target[theirs] - target[theirs].mean()).sum()
        return float(1 - np.square(target[theirs] - said).sum() / spread) if spread else 0.0
    classes = int(target.max(initial=0)) + 1
    table = np.bincount(codes[ours] * classes + target[ours], minlength=size * classes).reshape(size, classes)
    common = int(np.bincount(target[ours]).argmax())
    rule = np.where(table.sum(1) > 0, table.argmax(1), common)
    right = float(np.mean(rule[codes[theirs]] == target[theirs]))
    base = float(np.mean(target[theirs] == common))
    return float((right - base) / (1 - base)) if base < 1 else 0.0


def linear(case: Case, name: str, output: str, rows: Rows) -> float:
    """The share of a number's variance that lies on a straight line of another number."""
    one, other = (case.columns[part].spec() for part in (name, output))
    if one.kind != "vector" or other.kind != "vector" or len(case.inputs) < 2:
        return 0.0
    x, y = case.view(name, rows)[:, 0].astype(np.float64), targets_of(case, output, rows)
    assert y is not None
    return float(np.corrcoef(x, y)[0, 1] ** 2) if x.std() and y.std() else 0.0
