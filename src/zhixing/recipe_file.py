"""Recipe files: YAML to plain data and back, recipes that come with the package, and single assignments on top."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from .errors import RecipeError, did_you_mean

__all__ = ["built_in", "dump", "load", "override", "parse"]

FLOAT = r"[-+]?(\.\d+|\d+\.\d*)([eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
NUMERIC = list("-+.0123456789")


class Loader(yaml.SafeLoader):
    """YAML as version 1.2 has it, whose plain words mean fewer things: 3e-4 is a number, ``no`` and 12:30 and
    2026-01-31 are words. Keys are the words that were written, and none may stand twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        out: dict[Any, Any] = {}
        for key, value in node.value:
            self.construct_object(key)  # refuses tags that are not known
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key has to be a word", key.start_mark)
            if key.value in out:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands here twice", key.start_mark)
            out[key.value] = self.construct_object(value, deep=deep)
        return out


class Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something else than a word."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


Loader.yaml_implicit_resolvers = {}  # those of YAML 1.1 are not wanted
for kind, pattern, first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9]\d*)|0x[0-9a-fA-F]+", NUMERIC),
    ("float", FLOAT, NUMERIC),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", ["<"]),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"(?:{pattern})$"), first)
Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{FLOAT})$"), NUMERIC)


def parse(text: str) -> Any:
    """YAML to plain data. Tags that would make anything else are refused.

    Raises:
        ValueError: the text is not YAML; the message names the line.
    """
    try:
        return yaml.load(text, Loader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"not valid YAML: {where}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ValueError("not a recipe: it is nested too deeply") from error


def built_in() -> dict[str, Any]:
    """The recipes that come with the package, by name."""
    folder = files("zhixing") / "recipes"
    found = {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    return dict(sorted(found.items()))


def load(path: Path | str) -> dict[str, Any]:
    """The plain data of a recipe file, or of a recipe that comes with the package; not yet checked.

    Raises:
        RecipeError: it is missing or not YAML; the line is named.
    """
    known = built_in()
    file: Any = known[path] if isinstance(path, str) and path in known and not Path(path).is_file() else Path(path)
    try:
        raw = parse(file.read_text("utf-8"))
    except FileNotFoundError:
        raise RecipeError(
            [f"there is no such file, and no recipe of that name: {path}. {did_you_mean(str(path), known)}"]
        ) from None
    except UnicodeDecodeError as error:
        raise RecipeError([f"not UTF-8: {error}"], place=path) from error
    except OSError as error:
        raise RecipeError([f"cannot be read: {error.strerror or error}"], place=path) from error
    except ValueError as error:
        raise RecipeError([str(error)], place=path) from error
    if not isinstance(raw, dict):
        raise RecipeError([f"a recipe is a mapping, this is {type(raw).__name__}"], place=path)
    return raw


def dump(raw: Mapping[str, Any]) -> str:
    """A recipe as YAML."""
    text: str = yaml.dump(
        dict(raw), Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )
    return text


def override(raw: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Apply ``a.b=value`` to a recipe's plain data; the value is read as YAML. Within a name, ``\\.`` is a dot and
    ``\\=`` an equals sign.

    Naming another encoder, optimizer … drops the settings of the one before.

    >>> override({"training": {"optimizer": "sgd"}}, ["training.optimizer.lr=3e-4"])
    {'training': {'optimizer': {'name': 'sgd', 'lr': 0.0003}}}
    """
    problems = []
    for assignment in assignments:
        path, *rest = re.split(r"(?<!\\)=", assignment, maxsplit=1)
        keys = [re.sub(r"\\([.=])", r"\1", key) for key in re.split(r"(?<!\\)\.", path.strip())]
        if not rest or not all(keys):
            problems.append(f"--set wants name.of.setting=value, not {assignment!r}")
            continue
        try:
            value = parse(rest[0])
        except ValueError as error:
            problems.append(f"--set {path}: {rest[0]!r} is {error}")
            continue
        here = raw
        for key in keys[:-1]:
            below = here.get(key)
            if isinstance(below, str):
                below = {"type" if here is raw.get("inputs") or here is raw.get("outputs") else "name": below}
            here[key] = below if isinstance(below, dict) else {}
            here = here[key]
        if keys[-1] in ("name", "type") and here.get(keys[-1]) not in (None, value):
            here.clear()
        here[keys[-1]] = value
    if problems:
        raise RecipeError(problems)
    return raw
