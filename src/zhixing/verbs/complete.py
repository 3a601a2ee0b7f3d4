"""From what the user said to a complete recipe: columns' roles and types that were left open are inferred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..columns import COLUMNS, infer
from ..data.table import Table
from ..errors import DataError, RecipeError, UsageError, did_you_mean
from ..heads import HEADS
from ..pretrained import resolve
from ..recipe import EVERY, check

__all__ = ["Completed", "complete"]

TARGETS = ("label", "target", "class", "y")


@dataclass
class Completed:
    """The recipe's plain data with nothing left open that the table decides, and why each column is what it is.

    ``dropped`` are columns that would have been read, had a type fitted them; ``modules`` the encoders that were
    passed in from Python, by column.
    """

    raw: dict[str, Any]
    reasons: dict[str, str]
    dropped: list[str] = field(default_factory=list)
    modules: dict[str, nn.Module] = field(default_factory=dict)


def complete(raw: Mapping[str, Any], table: Table, encoder: Any = None, *, source: str) -> Completed:
    """Give every column of the table a role and a type; ``source`` is what the recipe is to call the table.

    ``encoder`` is the name, or the settings, of the encoder of the one input that is not a plain number or class; or a
    module of one's own for it; or modules by column.

    Raises:
        RecipeError: all settings that are wrong, columns that the table lacks among them.
        UsageError: it cannot be told which column is to be predicted, or which one the encoder is for.
        DataError: a column that must have a type and fits none.
    """
    raw, shared, problems = share_out(resolve(raw), table)
    problems += check(with_types(raw, table, encoder)) + unknown_columns(raw, table)
    if problems:
        raise RecipeError(problems)
    data = {**(raw.get("data") or {}), "source": source}
    done = Completed({key: value for key, value in raw.items() if value is not None} | {"data": data}, {})
    inputs = {name: spelled(value) for name, value in (raw.get("inputs") or {}).items()}
    outputs = {name: spelled(value) for name, value in (raw.get("outputs") or {}).items()}
    if not outputs:
        outputs = {guess_target(table, inputs): {}}
    outputs = {name: joined(shared.get("outputs"), settings, table, name) for name, settings in outputs.items()}
    for name, settings in outputs.items():
        settings_type(table, name, settings, done.reasons, known=list(HEADS))
    add_others(data, inputs, outputs, table, done)
    inputs = {name: joined(shared.get("inputs"), settings, table, name) for name, settings in inputs.items()}
    for name, settings in inputs.items():
        settings_type(table, name, settings, done.reasons, known=list(COLUMNS))
    if not inputs and {settings["type"] for settings in outputs.values()} == {"text"}:  # a language model
        for settings in outputs.values():
            settings.setdefault("packed", True)
    elif not inputs:
        left = "; ".join(f"{name!r}: {done.reasons.get(name, 'unused')}" for name in done.raw["data"]["unused"])
        raise DataError(
            f"no column is left to predict from{f' ({left})' if left else ''}",
            place=table.name,
            mend="Name inputs and their types in the recipe.",
        )
    done.raw |= {"inputs": inputs, "outputs": outputs}
    done.modules = place_encoder(inputs, encoder)
    done.raw = resolve(done.raw)
    problems = check(done.raw, complete=True)
    if problems:
        raise RecipeError(problems)
    return done


def share_out(raw: Mapping[str, Any], table: Table) -> tuple[dict[str, Any], dict[str, dict[str, Any]], list[str]]:
    """The recipe without what it says of every column, with that added to the columns it names; that itself, by part,
    for columns it does not name; and what is wrong with it."""
    out, shared, problems = dict(raw), {}, []
    for part in ("inputs", "outputs"):
        columns = raw.get(part)
        if not isinstance(columns, Mapping) or EVERY not in columns:
            continue
        settings = spelled(columns[EVERY]) if isinstance(columns[EVERY], str | Mapping) else {}
        rest = {name: value for name, value in columns.items() if name != EVERY}
        wrong = check({part: {EVERY: settings}}) if "type" in settings else [f"{part}.{EVERY}: a type has to be given"]
        if not wrong:
            shared[part] = settings
            rest = {name: joined(settings, value, table, name) for name, value in rest.items()}
        out[part] = rest
        problems += wrong
    return out, shared, problems


def joined(shared: Mapping[str, Any] | None, settings: Any, table: Table, name: str) -> Any:
    """A column's settings on top of those that every column has whose values the type of these fits."""
    if shared is None or name not in table.columns or not (settings is None or isinstance(settings, str | Mapping)):
        return settings
    own = spelled(settings)
    kind = shared["type"]
    fits = own["type"] == kind if "type" in own else COLUMNS[kind].claims(table[name], name) is not None
    if not fits:
        return settings
    return overlaid(shared, own)


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings on top of others. Those of a thing of another name replace what was there.

    >>> overlaid({"encoder": {"name": "gru", "width": 8}, "length": 5}, {"encoder": {"width": 9}})
    {'encoder': {'name': 'gru', 'width': 9}, 'length': 5}
    """
    out = dict(below)
    for key, value in above.items():
        before = mapping(out.get(key))
        same = isinstance(value, Mapping) and value.get("name", before.get("name")) == before.get("name")
        out[key] = overlaid(before, value) if same and before else value
    return out


def with_types(raw: Mapping[str, Any], table: Table, encoder: Any) -> dict[str, Any]:
    """The recipe with the types of its columns filled in as far as they can be told: so that what is wrong with a
    column's settings is told together with all the rest. Settings that are for an encoder yet to be placed wait."""
    out = dict(raw)
    for part in ("inputs", "outputs"):
        columns = raw.get(part)
        if not isinstance(columns, Mapping):
            continue
        out[part] = dict(columns)
        for name, settings in columns.items():
            open_type = isinstance(settings, Mapping) and "type" not in settings and name in table.columns
            if open_type and (found := infer(table[name], name)) is not None:
                given = mapping(settings.get("encoder"))
                waits = encoder is not None and given and "name" not in given
                kept = {key: value for key, value in settings.items() if not (waits and key == "encoder")}
                out[part][name] = {"type": found[0], **kept}
    return out


def unknown_columns(raw: Mapping[str, Any], table: Table) -> list[str]:
    """A line for each column that is named and that the table lacks."""
    named = [(part, name) for part in ("inputs", "outputs") for name in mapping(raw.get(part))]
    data = mapping(raw.get("data"))
    unused = data.get("unused")
    named += [("data.unused", str(name)) for name in (unused if isinstance(unused, list | tuple) else ())]
    lines = [
        f"{part}: no column is called {name!r}. {did_you_mean(str(name), table.columns)}"
        for part, name in named
        if name not in table.columns
    ]
    by = mapping(data.get("split")).get("column")
    if isinstance(by, str) and by not in table.data.column_names:
        lines.append(f"data.split.column: no column is called {by!r}. {did_you_mean(by, table.data.column_names)}")
    return lines


def add_others(
    data: dict[str, Any], inputs: dict[str, Any], outputs: Mapping[str, Any], table: Table, done: Completed
) -> None:
    """Read the columns that are not named, or leave them out."""
    unused = list(data.get("unused") or ())
    by = mapping(data.get("split")).get("column")
    others = data.get("others", "auto")
    read = not inputs if others == "auto" else others == "read"
    for name in table.columns:
        if name in inputs or name in outputs or name in unused:
            continue
        if name == by:
            done.reasons[name] = "says the split"
        elif not read:
            done.reasons[name] = "not among the recipe's inputs"
        elif infer(table[name], name) is None:
            done.reasons[name] = f"no column type fits its values ({table[name].type})"
            done.dropped.append(name)
        else:
            inputs[name] = {}
            continue
        unused.append(name)
    data |= {"unused": unused, "others": "unused"}


def place_encoder(inputs: dict[str, Any], encoder: Any) -> dict[str, nn.Module]:
    """Put an encoder that was named without its column where it belongs; gives modules passed in, by column."""
    if encoder is None:
        return {}
    if isinstance(encoder, Mapping) and encoder and all(isinstance(part, nn.Module) for part in encoder.values()):
        return place_modules(inputs, encoder)
    wide = [name for name, settings in inputs.items() if settings["type"] not in ("number", "category", "date")]
    names = wide or list(inputs)
    if len(names) != 1:
        raise UsageError(
            f"which input is the encoder for? There are {', '.join(names)}",
            mend=f"Name it: --set inputs.{names[0]}.encoder={encoder if isinstance(encoder, str) else 'NAME'}",
        )
    if isinstance(encoder, nn.Module):
        return place_modules(inputs, {names[0]: encoder})
    chosen = {"name": encoder} if isinstance(encoder, str) else dict(encoder)
    before = inputs[names[0]].get("encoder")
    if isinstance(before, dict) and before.get("name", chosen.get("name")) == chosen.get("name"):
        chosen = {**before, **chosen}
    inputs[names[0]]["encoder"] = chosen
    return {}


def place_modules(inputs: dict[str, Any], modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Write modules that were passed in into the recipe, under the names of their classes."""
    for name, module in modules.items():
        if name not in inputs:
            raise UsageError(f"no input is called {name!r}", mend=did_you_mean(name, inputs))
        inputs[name]["encoder"] = {"name": "custom", "module": type(module).__qualname__}
    return dict(modules)


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def spelled(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    return {"type": value} if isinstance(value, str) else dict(value)


def guess_target(table: Table, inputs: Mapping[str, Any]) -> str:
    for name in (table.target, *TARGETS):
        if name is not None and name in table.columns and name not in inputs:
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
