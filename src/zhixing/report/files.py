"""The measured files of a run folder, read with care: any but the recipe may be missing, any value may be null."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import RunError

__all__ = ["RunFiles", "flatten", "mapping", "number", "read_object", "read_run", "sequence", "write_atomically"]

LARGEST = 1e150  # beyond it differences and squares of doubles overflow; nothing measured is so large


def number(value: object) -> float | None:
    """The value as a finite float, None for anything else (null, NaN, infinity, text, true).

    >>> number(3), number(float("nan")), number(True), number(None)
    (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -LARGEST < value < LARGEST else None  # False for NaN


def mapping(value: object) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, the keys joined with dots.

    >>> flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]})
    {'a.b': 1, 'a.c': {}, 'd': [1, 2]}
    """
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            flat.update(flatten(inner, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


@dataclass(frozen=True)
class RunFiles:
    """What a run folder says of itself. What is missing is empty here and named in ``missing``."""

    folder: Path
    recipe_text: str
    recipe: dict[str, Any]
    training: list[dict[str, Any]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def columns(self, role: str) -> dict[str, str]:
        """Name and type of each column with this role (``input`` or ``output``), from the data or else the recipe."""
        told = {
            name: str(mapping(column).get("type") or "")
            for name, column in mapping(self.data.get("columns")).items()
            if mapping(column).get("role") == role
        }
        if told:
            return told
        settings = mapping(self.recipe.get(f"{role}s"))
        return {
            str(name): str(value.get("type") or "") if isinstance(value, dict) else str(value or "")
            for name, value in settings.items()
        }


def read_run(folder: Path) -> RunFiles:
    """Read the files of a run.

    Raises:
        RunError: the folder or its recipe is missing, or a file is not what its name says.
    """
    if not folder.is_dir():
        raise RunError("there is no such run folder", place=folder, mend="Give the folder that `zhixing train` wrote.")
    recipe_text = _text(folder / "recipe.yaml")
    if recipe_text is None:
        raise RunError(
            "a run folder holds a recipe.yaml, and this one does not",
            place=folder,
            mend="Give the folder that `zhixing train` wrote.",
        )
    recipe = _parsed(folder / "recipe.yaml", recipe_text, yaml.safe_load)
    if not isinstance(recipe, dict):
        raise RunError("a recipe is a mapping of settings", place=folder / "recipe.yaml")
    metrics, timings = _lines(folder / "metrics.jsonl"), _lines(folder / "timings.jsonl")
    objects = {name: read_object(folder / f"{name}.json") for name in ("environment", "data", "evaluation")}
    found = {"metrics.jsonl": metrics, "timings.jsonl": timings, **{f"{name}.json": objects[name] for name in objects}}
    return RunFiles(
        folder=folder,
        recipe_text=recipe_text,
        recipe=recipe,
        training=_by_step([line for line in metrics or [] if line.get("kind") == "train"]),
        validation=_by_step([line for line in metrics or [] if line.get("kind") == "validation"]),
        timings=_by_step(timings or []),
        **{name: value or {} for name, value in objects.items()},
        missing=tuple(name for name, value in found.items() if value is None),
    )


def write_atomically(path: Path, text: str) -> Path:
    """Write a whole text file or nothing: to a neighbour first, flushed to disk, then renamed over the old one."""
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(neighbour, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(neighbour, path)
    except OSError as error:
        raise RunError(f"the file cannot be written ({error.strerror or error})", place=path) from error
    finally:
        neighbour.unlink(missing_ok=True)
    return path


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise RunError(f"the file is not UTF-8 (byte {error.start})", place=path) from error
    except OSError as error:
        raise RunError(f"the file cannot be read ({error.strerror or error})", place=path) from error


def _parsed(path: Path, text: str, parse: Callable[[str], Any], line: int | None = None) -> Any:
    try:
        return parse(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        place = path if line is None else f"{path}, line {line}"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(
            f"the file cannot be understood ({reason})", place=place, mend="Restore it, or delete it to go without."
        ) from error


def read_object(path: Path) -> dict[str, Any] | None:
    text = _text(path)
    if text is None:
        return None
    value = _parsed(path, text, json.loads)
    if not isinstance(value, dict):
        raise RunError(f"one JSON object is expected, not {type(value).__name__}", place=path)
    return value


def _lines(path: Path) -> list[dict[str, Any]] | None:
    """The objects of a JSON-lines file. A last line without its newline was cut off by a kill, and is left out."""
    text = _text(path)
    if text is None:
        return None
    whole, _, _ = text.rpartition("\n")
    values = [_parsed(path, line, json.loads, row) for row, line in enumerate(whole.split("\n"), 1) if line.strip()]
    return [value for value in values if isinstance(value, dict)]


def _by_step(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines in order of their step; of a step that was logged again after a resume, the later line."""
    latest: dict[float, dict[str, Any]] = {}
    for line in lines:
        step = number(line.get("step"))
        if step is not None and math.isfinite(step):
            latest[step] = line
    return [latest[step] for step in sorted(latest)]
