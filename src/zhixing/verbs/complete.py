"""From what the user said to a complete recipe: columns' roles and types that were left open are inferred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..columns import COLUMNS, infer
from ..data.table import Table
from ..errors import DataError, RecipeError, UsageError, did_you_mean
from ..heads import HEADS
from ..recipe import check

__all__ = ["Completed", "complete"]

TARGETS = ("label", "target", "class", "y")


@dataclass
class Completed:
    """The recipe's plain data with nothing left open that the table decides, and why each column is what it is."""

    raw: dict[str, Any]
    reasons: dict[str, str]


def complete(raw: Mapping[str, Any], table: Table) -> Completed:
    """Give every column of the table a role and a type.

    Raises:
        RecipeError: all settings that are wrong, columns that the table lacks among them.
        DataError: a column that must have a type and fits none.
    """
    out: dict[str, Any] = {key: value for key, value in raw.items() if key not in ("inputs", "outputs")}
    inputs = {name: spelled(value) for name, value in (raw.get("inputs") or {}).items()}
    outputs = {name: spelled(value) for name, value in (raw.get("outputs") or {}).items()}
    unused = list((raw.get("data") or {}).get("unused") or [])
    unknown = [name for name in (*inputs, *outputs, *unused) if name not in table.columns]
    if unknown:
        raise RecipeError(
            [f"no column is called {name!r}. {did_you_mean(name, table.columns)}" for name in unknown],
            place=table.name,
        )
    if not outputs:
        outputs = {guess_target(table, inputs): {}}
    reasons: dict[str, str] = {}
    for name, settings in outputs.items():
        settings_type(table, name, settings, reasons, known=list(HEADS))
    asked = bool(inputs)
    for name in [n for n in table.columns if n not in inputs and n not in outputs and n not in unused]:
        if asked or name == (raw.get("data") or {}).get("split", {}).get("column"):
            unused.append(name)
            reasons[name] = "says the split" if not asked else "not among the recipe's inputs"
        else:
            inputs[name] = {}
    for name, settings in list(inputs.items()):
        if "type" not in settings and infer(table[name], name) is None and not settings:
            del inputs[name]
            unused.append(name)
            reasons[name] = f"no column type fits its values ({table[name].type})"
            continue
        settings_type(table, name, settings, reasons, known=list(COLUMNS))
    if not inputs:
        raise DataError("no column is left to predict from", place=table.name, mend="Name inputs in the recipe.")
    out["data"] = {**(raw.get("data") or {}), "unused": unused}
    out["inputs"], out["outputs"] = inputs, outputs
    problems = check(out, complete=True)
    if problems:
        raise RecipeError(problems)
    return Completed(out, reasons)


def spelled(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    return {"type": value} if isinstance(value, str) else dict(value)


def guess_target(table: Table, inputs: Mapping[str, Any]) -> str:
    for name in TARGETS:
        if name in table.columns and name not in inputs:
            return name
    raise UsageError(
        "which column should be predicted?",
        place=table.name,
        mend=f"Name it with --target; the columns are: {', '.join(table.columns)}.",
    )


def settings_type(
    table: Table, name: str, settings: dict[str, Any], reasons: dict[str, str], *, known: list[str]
) -> None:
    """Set the type that the values suggest, unless one is given."""
    if "type" in settings:
        reasons.setdefault(name, "given")
        return
    found = infer(table[name], name)
    if found is None or found[0] not in known:
        fits = f"fits {found[0]}, which cannot be predicted" if found else "fits no column type"
        raise DataError(
            f"the column {name!r} ({table[name].type}) {fits}",
            place=table.name,
            mend=f"Give it a type in the recipe: {', '.join(known)}.",
        )
    settings["type"], reasons[name] = found
