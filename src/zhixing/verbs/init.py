"""Init: a commented recipe, every setting with its default and what it is for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from ..columns import COLUMNS
from ..data.source import open_source
from ..heads import HEADS
from ..recipe import Recipe
from ..recipe_file import Dumper
from .complete import complete
from .train import describe_source

__all__ = ["commented", "write_recipe"]


def write_recipe(source: Any, raw: Mapping[str, Any], *, encoder: str | None = None) -> str:
    """The complete recipe for a source as YAML with a comment on each line."""
    table = open_source(source)
    done = complete(raw, table, encoder, source=describe_source(source, table))
    recipe = Recipe(done.raw)
    head = (
        "# A recipe of Zhixing: every setting that there is, with its default. Lines may be left out.\n"
        "# Train with it:  zhixing train --recipe THIS-FILE\n"
    )
    return head + "\n".join(commented(recipe.model, done.reasons)) + "\n"


def commented(settings: BaseModel, notes: Mapping[str, str], indent: int = 0) -> list[str]:
    """YAML lines of a settings object, each with its description as a comment."""
    lines: list[str] = []
    pad = "  " * indent
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        about = field.description or ""
        if isinstance(value, BaseModel):
            about = about or inspect.getdoc(type(value)) or ""
            lines += [with_comment(f"{pad}{name}:", first_line(about)), *commented(value, notes, indent + 1)]
        elif isinstance(value, dict) and value and all(isinstance(item, BaseModel) for item in value.values()):
            lines.append(with_comment(f"{pad}{name}:", about))
            for key, item in value.items():
                lines.append(with_comment(f"{pad}  {scalar(key)}:", notes.get(key, "")))
                lines += commented(item, notes, indent + 2)
        else:
            lines.append(with_comment(f"{pad}{name}: {scalar(value)}", about or choices(settings, name)))
    return lines


def choices(settings: BaseModel, name: str) -> str:
    """What a type or name could also be."""
    if name == "type":
        return "one of " + ", ".join(COLUMNS if "encoder" in type(settings).model_fields else HEADS)
    if name == "name":
        return first_line(inspect.getdoc(type(settings)) or "")
    return ""


def scalar(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text: str = yaml.dump(plain, Dumper=Dumper, default_flow_style=True, allow_unicode=True, width=10_000).strip()
    return text.removesuffix("...").strip()


def first_line(text: str) -> str:
    return text.split("\n\n")[0].replace("\n", " ")


def with_comment(line: str, comment: str) -> str:
    return f"{line:<44} # {comment}" if comment else line
