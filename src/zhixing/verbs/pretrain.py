"""Pretrain: learn of a column without labels. A recipe is completed, and :func:`zhixing.verbs.train.train` does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import recipe as recipes
from ..columns import infer
from ..console import Console
from ..data.source import open_source
from ..data.table import Table
from ..errors import RecipeError, UsageError, did_you_mean
from ..pretraining import PRETEXTS
from ..run import RunFolder
from .train import train

__all__ = ["DEFAULTS", "LANGUAGE_MODEL", "pretrain", "pretrain_recipe"]

LANGUAGE_MODEL = "next_token"  # the language model, which is an output of type text and no input

# By type of column: the objective, where none is named, and the encoder.
DEFAULTS = {
    "text": ("masked_tokens", "transformer"),
    "history": ("masked_items", "transformer"),  # that looks both ways, which those of recommenders do not
    "image": ("views", "cnn"),
    "audio": ("masked_spectrogram", "conformer"),
    "series": ("masked_spectrogram", "gru"),
}
BY_ENCODER = {"vit": "masked_patches"}
ROWS = {"train": 0.95, "validation": 0.05, "test": 0.0}  # there is no answer that a test could ask for


def pretrain(
    source: Any,
    raw: Mapping[str, Any],
    columns: Sequence[str],
    *,
    objective: str | None = None,
    encoder: str | None = None,
    out: Path | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> RunFolder:
    """Train an encoder of one column (or of two that are pairs) without labels; its run can be named as an encoder.

    Args:
        raw: a recipe's plain data, whose other settings are kept.
        columns: the column to learn of; two: pairs that belong together.
        objective: what is learned, by name; open: what suits the column and the encoder.

    Raises:
        RecipeError, UsageError, DataError: what was asked for cannot be done.
        Everything else that training raises.
    """
    table = recipes.reshaped(open_source(source), raw)
    done = pretrain_recipe(raw, table, columns, objective=objective, encoder=encoder)
    return train(source, done, out=out, device=device, console=console)


def pretrain_recipe(
    raw: Mapping[str, Any], table: Table, columns: Sequence[str], *, objective: str | None, encoder: str | None
) -> dict[str, Any]:
    """The recipe's plain data with the input and the output of an objective.

    Raises:
        UsageError: columns that the table lacks, or too many; an objective that is not known.
        RecipeError: the recipe names outputs of its own.
    """
    missing = [name for name in columns if name not in table.columns]
    if missing or not 1 <= len(columns) <= 2:
        count = f"{len(columns)} columns are named, not one or the two of pairs"
        what = f"there is no column {missing[0]!r}" if missing else count
        raise UsageError(what, place=table.name, mend=did_you_mean(missing[0] if missing else "", table.columns))
    known = [*PRETEXTS, LANGUAGE_MODEL]
    if objective is not None and objective not in known:
        raise UsageError(f"there is no objective {objective!r}", mend=did_you_mean(objective, known))
    first, data = columns[0], {"others": "unused", **mapping(raw.get("data"))}
    if "split" not in data and table.split_column is None:
        data["split"] = ROWS
    if objective == LANGUAGE_MODEL:
        chosen = {} if encoder is None else {"decoder": encoder}
        out = {"type": "text", **mapping(mapping(raw.get("inputs")).get(first)), **chosen}
        return {**raw, "data": data, "inputs": {}, "outputs": {first: {**out, **told_of(raw, first)}}}
    settings = input_of(raw, table, first, encoder)
    if len(columns) == 2:
        name, kind = columns[1], "pairs"
    else:
        reads = settings["encoder"].get("name") if isinstance(settings["encoder"], Mapping) else settings["encoder"]
        name, kind = free_name(table), BY_ENCODER.get(str(reads)) or DEFAULTS[settings["type"]][0]
    out = {"type": objective or kind, **told_of(raw, name)}
    return {**raw, "data": data, "inputs": {first: settings}, "outputs": {name: out}}


def told_of(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What the recipe says of the objective, which is its one output.

    Raises:
        RecipeError: it names others.
    """
    outputs = mapping(raw.get("outputs"))
    others = [other for other in outputs if other != name]
    if others:
        mend = f"Leave it out; what is set of the objective is outputs.{name}"
        raise RecipeError([f"outputs.{other}: pretraining predicts no column. {mend}" for other in others])
    settings = outputs.get(name)
    return {"type": settings} if isinstance(settings, str) else mapping(settings)


def input_of(raw: Mapping[str, Any], table: Table, name: str, encoder: str | None) -> dict[str, Any]:
    """The settings of the column that is read, its type and its encoder among them."""
    given = mapping(raw.get("inputs")).get(name)
    settings = {"type": given} if isinstance(given, str) else dict(given or {})
    if "type" not in settings:
        found = infer(table[name], name)
        settings["type"] = found[0] if found else "?"
    if settings["type"] not in DEFAULTS:
        raise UsageError(
            f"the column {name!r} is of type {settings['type']}, of which nothing is learned without labels",
            place=table.name,
            mend=f"Take one of {', '.join(DEFAULTS)}, or say what it is: --set inputs.{name}.type=text",
        )
    if encoder is not None:
        settings["encoder"] = encoder
    settings.setdefault("encoder", {})
    if isinstance(settings["encoder"], Mapping):
        settings["encoder"] = {"name": DEFAULTS[settings["type"]][1], **settings["encoder"]}
    return settings


def free_name(table: Table) -> str:
    """The name of the output, which no column of the table has."""
    name = "pretext"
    while name in table.data.column_names:
        name += "_"
    return name


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
