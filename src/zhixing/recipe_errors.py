"""What is wrong with a recipe, in words: the setting's path as it was written, the rule, the value, the mend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo

from .errors import did_you_mean

__all__ = ["lines_of"]


def lines_of(error: ValidationError, raw: Any, model: type[BaseModel]) -> list[str]:
    """A line for each setting that is wrong: where several forms are allowed, what is wrong by each."""
    lines: dict[str, list[str]] = {}
    for item in error.errors():
        path, told = line_of(item, raw, model)
        if told not in lines.setdefault(path, []):
            lines[path].append(told)
    return [f"{path}: {'; or '.join(told)}" for path, told in lines.items()]


def line_of(item: Any, raw: Any, model: type[BaseModel]) -> tuple[str, str]:
    """One of pydantic's errors in words: the setting's path, and the rule, the value, the mend."""
    kind, location, context = item["type"], list(item["loc"]), item.get("ctx", {})
    path = ".".join(readable_path(location, raw, keep_last=kind in ("missing", "extra_forbidden"))) or "recipe"
    value = item["input"]
    if kind == "extra_forbidden":
        word, at = str(location[-1]), known_at(location[:-1], model)
        deeper = next((name for name, field in at.items() if has(field.annotation, word)), None)
        if deeper is not None:
            return path, f"there is no such setting. Did you mean '{path.removesuffix(word)}{deeper}.{word}'?"
        return path, f"there is no such setting. {did_you_mean(word, at)}"
    if kind == "missing":
        return path, "has to be given"
    names = re.findall(r"'([^']*)'", context.get("expected_tags") or context.get("expected") or "")
    if kind in ("union_tag_invalid", "literal_error") and names:
        word = str(context.get("tag", value))
        return path, f"{word!r} is not known. {did_you_mean(word, names)}"
    if kind == "union_tag_not_found":
        tag = "type" if len(location) == 2 and location[0] in ("inputs", "outputs") else "name"
        return path, f"a {tag} is missing, as in {tag}: …, in {value!r}"
    message = item["msg"].removeprefix("Value error, ")
    return path, message[0].lower() + message[1:] + ("" if kind == "value_error" else f", not {value!r}")


def readable_path(location: list[Any], raw: Any, *, keep_last: bool) -> list[str]:
    """The path as the user wrote it: without the tags that choose among types."""
    out, here = [], raw
    for place, part in enumerate(location):
        below = {str(key): value for key, value in here.items()} if isinstance(here, Mapping) else {}
        if isinstance(here, list | tuple) and isinstance(part, int) and part < len(here):
            here = here[part]
        elif str(part) in below:
            here = below[str(part)]
        elif not (keep_last and place == len(location) - 1):
            continue
        out.append(str(part))
    return out


def known_at(location: list[Any], model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The settings that exist at a place of the recipe."""
    here: Any = model
    for part in location:
        here = step_into(here, part)
    while get_origin(here) is Annotated:
        here = get_args(here)[0]
    return dict(getattr(here, "model_fields", {}))


def has(here: Any, name: str) -> bool:
    """Whether a type, or one of those to choose from, has this setting. Below a mapping a name stands between."""
    if get_origin(here) in (dict, list, tuple):
        return False
    return name in getattr(here, "model_fields", {}) or any(has(member, name) for member in get_args(here))


def step_into(here: Any, part: Any) -> Any:
    """From a type to that of one of its fields, keys or tagged members."""
    if get_origin(here) is Annotated:
        tags = [mark.tag for mark in here.__metadata__ if isinstance(mark, Tag)]
        inner = get_args(here)[0]
        return inner if part in tags else step_into(inner, part)
    fields = getattr(here, "model_fields", None)
    if fields is not None:
        return fields[part].annotation if part in fields else None
    if get_origin(here) is dict:
        return get_args(here)[1]
    if get_origin(here) in (list, tuple) and isinstance(part, int):
        return get_args(here)[0]
    for member in get_args(here):
        if get_origin(member) is Annotated and any(
            isinstance(mark, Tag) and mark.tag == part for mark in member.__metadata__
        ):
            return get_args(member)[0]
        fields = getattr(member, "model_fields", {})
        if part in fields:
            return fields[part].annotation
        if get_origin(member) in (Annotated, list, tuple) and (found := step_into(member, part)) is not None:
            return found
    return None
