"""Explain rows: every method that is asked for, on every column, as facts that a page, a file or a report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..calibration import Calibration
from ..columns import Column
from ..columns.image import Image
from ..console import Console
from ..data.batches import stored_row
from ..errors import DataError, UsageError, did_you_mean
from ..model import Model
from ..recipe import Recipe
from .facts import facts_of
from .flip import flip
from .goals import Ask
from .means import Means
from .methods import METHODS, Maps
from .neighbours import Neighbours
from .rows import Rows, given_rows, split_rows
from .subject import NotApplicableError, Subject

__all__ = ["Explained", "Plan", "explain"]

BASELINE = (
    "zeros, the mean of training rows, for numbers, pictures and sequences; padding for tokens; empty for classes"
)
SHOWN = 24  # rows of a split that are shown one by one
SHOWN_CLASSES = 50
MOST_ROWS = 500  # of a split, unless more are asked for
ALL = "all rows"


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Args:
        methods: names of ``METHODS``; ``all`` are those that there is something to work on for.
        output: which output; open: the only one, or the first.
        ask: which class or step of it.
        nearest: how many training examples are shown beside each row.
        flips: whether the smallest change that flips the answer is sought.
        rows: of a split, at most so many; None: all.
    """

    methods: Sequence[str] = ("integrated_gradients",)
    output: str | None = None
    ask: Ask = field(default_factory=Ask)
    nearest: int = 0
    flips: bool = False
    rows: int | None = MOST_ROWS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in (*METHODS, "all"):
                raise UsageError(f"there is no method {name!r}", mend=did_you_mean(name, [*METHODS, "all"]))

    @property
    def names(self) -> list[str]:
        return list(METHODS) if "all" in self.methods else list(dict.fromkeys(self.methods))


@dataclass
class Explained:
    """Explanations of some rows. ``facts`` is all of it as JSON, but for arrays of NumPy; see :func:`explain`."""

    facts: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = self.facts["rows"]
        return out


def explain(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    source: Any = None,
    *,
    plan: Plan,
    part: str = "test",
    own: Any = None,
    calibrations: Mapping[str, Calibration] | None = None,
    device: torch.device,
    console: Console,
) -> Explained:
    """Explain the rows of a source, or (None) of a split of the run's own data, with means by class.

    ``own`` are the run's own data where they are only in memory; with ``calibrations`` probabilities are as they are
    predicted. Gives facts: ``output``, ``unit``, ``baseline``,
    ``methods``, those ``skipped`` with the reason, ``explained`` rows, ``rows`` that are shown and ``classes``.

    Raises:
        UsageError: a method, class or step that there is not, or nothing that a method could work on.
        DataError: no row can be read; with ``nearest``, the training data are gone.
    """
    output = chosen_output(model, plan.output)
    if source is None:
        found = split_rows(recipe, columns, model, part, console, own)
        rows = found.take(plan.rows)
        if len(rows.rows) < len(found.rows):
            console.say(f"{len(rows.rows):,} of {len(found.rows):,} rows, from all over the {part} split")
    else:
        rows = given_rows(recipe, columns, model, source, console)
    neighbours = None
    if plan.nearest:
        neighbours = Neighbours(model, columns, training_rows(recipe, columns, model, console, own), device)
    work = Work(columns, model, output, plan, rows, neighbours, (calibrations or {}).get(output))
    with console:
        done = 0
        for batch, places in rows.batches(device):
            work.take(Subject(model, columns, batch, output, plan.ask), places)
            if source is None:
                work.forget()
            done += len(places)
            console.progress("explaining", done, len(rows.rows))
    facts = work.facts()
    if plan.flips:
        for row in console_rows(console, facts["rows"]):
            before = {name: stored_row(rows.tensors[name], row["row"]) for name in model.inputs}
            row["flip"] = flip(recipe, columns, model, rows.table, row["row"], before, output, device)
    facts |= {"output": output, "source": rows.table.name if source is not None else part, "seed": plan.seed}
    return Explained(facts)


def console_rows(console: Console, rows: list[dict[str, Any]]) -> Any:
    """Rows, one by one, while the console says how far it is."""
    with console:
        for number, row in enumerate(rows, 1):
            yield row
            console.progress("seeking flips", number, len(rows))


def chosen_output(model: Model, asked: str | None) -> str:
    if asked is None:
        return model.outputs[0]
    if asked not in model.outputs:
        raise UsageError(f"the run predicts no {asked!r}", mend=did_you_mean(asked, model.outputs))
    return asked


def training_rows(recipe: Recipe, columns: Mapping[str, Column], model: Model, console: Console, own: Any) -> Rows:
    try:
        return split_rows(recipe, columns, model, "train", console, own)
    except (DataError, UsageError) as error:
        raise DataError(
            f"nearest training examples need the data that the run was trained on: {error.what}",
            place=recipe.data.source,
            mend="Bring them back to that place, or go without --nearest.",
        ) from error


class Work:
    """What is gathered as batches go by."""

    def __init__(
        self,
        columns: Mapping[str, Column],
        model: Model,
        output: str,
        plan: Plan,
        rows: Rows,
        neighbours: Neighbours | None,
        calibration: Calibration | None,
    ) -> None:
        self.columns, self.model, self.output, self.plan = columns, model, output, plan
        self.rows, self.neighbours, self.calibration = rows, neighbours, calibration
        self.skipped: dict[str, str] = {}
        self.worked: set[str] = set()
        self.unit = ""
        self.found: dict[int, dict[str, Any]] = {}  # by place among the rows
        self.means: dict[str, dict[str, Means]] = {}
        self.counts: dict[str, int] = {}
        self.gap: float | None = None

    def take(self, subject: Subject, places: np.ndarray[Any, Any]) -> None:
        """Explain one batch."""
        maps = {name: found for name in self.plan.names if (found := self.maps_of(subject, name)) is not None}
        with torch.no_grad():
            encoding = subject.encode(subject.points)
            scores = subject.goal.score(encoding)
            adjust = None if self.calibration is None else self.calibration.apply
            chances = subject.goal.probability(encoding, adjust=adjust) if subject.goal.chance is not None else None
            base = subject.score(subject.baselines)
        for found in maps.values():
            if found.gap is not None:
                self.gap = max(self.gap or 0.0, float(found.gap.max()))
        near = self.neighbours.nearest(encoding.pooled, self.plan.nearest) if self.neighbours is not None else None
        self.unit = subject.goal.unit
        for i, place in enumerate(places.tolist()):
            row = int(self.rows.rows[place])
            facts: dict[str, Any] = {
                "row": row,
                "place": self.rows.table.where(row),
                "answer": subject.goal.names[i],
                "truth": self.rows.cell(self.output, row) if self.model.inputs else None,
                "score": float(scores[i]),
                "baseline_score": float(base[i]),
                "probability": None if chances is None else float(chances[i]),
                "maps": {name: self.row_maps(subject, found, i, row) for name, found in maps.items()},
            }
            if near is not None and self.neighbours is not None:
                facts["nearest"] = [self.neighbours.told(*one) for one in near[i]]
            facts["group"] = str(facts["answer"]) if subject.goal.of_classes else ALL
            self.found[place] = facts
            self.count(facts)

    def maps_of(self, subject: Subject, name: str) -> Maps | None:
        if name in self.skipped:
            return None
        try:
            found = METHODS[name](subject, seed=self.plan.seed)
            self.worked.add(name)
            return found
        except NotApplicableError as error:
            if name not in self.worked:  # what works on the longest rows may not on those of a single token
                if "all" not in self.plan.methods:
                    raise
                self.skipped[name] = str(error)
            return None

    def row_maps(self, subject: Subject, maps: Maps, i: int, row: int) -> dict[str, Any]:
        """One method's facts of one row: each column, and its share of all attribution."""
        out = []
        for entry, cells in zip(subject.entries, maps.cells, strict=True):
            if cells is not None:
                stored, cell = stored_row(self.rows.tensors[entry.name], row), self.rows.cell(entry.name, row)
                out.append(facts_of(entry, i, stored, cell, cells[i], whole=maps.whole))
        whole = sum(one["weight"] for one in out)
        for one in out:
            one["share"] = one["weight"] / whole if whole > 0 else 0.0
        return {"columns": out, "gap": None if maps.gap is None else float(maps.gap[i])}

    def count(self, facts: dict[str, Any]) -> None:
        """Take a row into the means of its class, by the first method."""
        group = facts["group"]
        self.counts[group] = self.counts.get(group, 0) + 1
        means = self.means.setdefault(group, {})
        first = next(iter(facts["maps"].values()))
        for one in first["columns"]:
            mean = means.setdefault(one["name"], Means(one["name"], one["type"]))
            mean.add(one, self.plain(one["name"], facts["row"]))

    def plain(self, name: str, row: int) -> np.ndarray[Any, Any] | None:
        """A picture in grey, for the mean picture of its class."""
        if not isinstance(self.columns[name], Image):
            return None
        stored = stored_row(self.rows.tensors[name], row)
        assert isinstance(stored, Tensor)
        return np.asarray(stored.float().mean(0).numpy())

    def forget(self) -> None:
        """Keep no more rows than will be shown: a row that is not among them now will not be when there are more."""
        kept = {row["row"] for row in surest(list(self.found.values()))}
        self.found = {place: row for place, row in self.found.items() if row["row"] in kept}

    def facts(self) -> dict[str, Any]:
        """All facts, with the rows in their order."""
        names = [name for name in self.plan.names if name not in self.skipped]
        classes = [
            {"class": group, "rows": self.counts[group], "columns": [one.facts() for one in self.means[group].values()]}
            for group in sorted(self.means, key=lambda group: (-self.counts[group], group))[:SHOWN_CLASSES]
        ]
        return {
            "format": 1,
            "unit": self.unit,
            "baseline": BASELINE,
            "methods": names,
            "skipped": self.skipped,
            "explained": sum(self.counts.values()),
            "gap": self.gap,
            "rows": [self.found[place] for place in sorted(self.found)],
            "classes": classes,
        }


def surest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some rows of each class in turn, those with the highest scores first."""
    by_class: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (-row["score"], row["row"])):
        by_class.setdefault(row["group"], []).append(row)
    ranked = [(rank, group) for group, some in by_class.items() for rank in range(len(some))]
    return [by_class[group][rank] for rank, group in sorted(ranked)[:SHOWN]]
