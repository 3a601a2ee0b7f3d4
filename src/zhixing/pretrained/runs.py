"""A run as a start: ``encoder: runs/pretrain-1`` goes on with the encoder of any finished run.

What the column has learned (vocabulary, statistics) comes along, as a tokenizer does with published weights. Of a run
with several inputs the column is named beside it: ``encoder: {name: runs/prices-1, column: text}``. Of a language model
it is the stack that is taken, which becomes a causal encoder of texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load as parse_tensors
from torch import Tensor, nn

from ..columns import Column
from ..errors import DataError, UsageError, did_you_mean
from ..models import ENCODERS
from ..recipe import Recipe
from ..run import RunFolder
from ..settings import parameters_of
from .layouts import Plan, Role

__all__ = ["RunStart", "is_run", "open_run"]

RATE = 5e-4  # of learning, where none is given: between that of a fresh network and that of large published ones
OPEN = frozenset({"dropout", "stochastic_depth", "recompute"})  # settings of an encoder that its weights do not decide
OPEN_COLUMN = frozenset({"length", "longest", "spec_augment", "max_seconds", "packed"})
BESIDE = frozenset({"encoder", "decoder", "pretrained", "augment", "importance", "search", "loss"})  # no column's own
STACK = ("embed.weight", "stack.")  # of a language model, as a decoder names them
OPENED: dict[tuple[Any, ...], RunStart] = {}


def is_run(name: str) -> bool:
    """Whether a name stands for the folder of a run."""
    return (Path(name).expanduser() / "recipe.yaml").is_file()


def open_run(source: str, column: str | None) -> RunStart:
    """The encoder of a run; kept, since a recipe asks for it several times.

    Raises:
        RunError: the run is not finished, or a file is not what was written.
        UsageError: it has no such column, or the column's encoder cannot be taken.
    """
    path = Path(source).expanduser().resolve()
    files = (path / "manifest.json", path / "model.safetensors")
    stats = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    key = (str(path), column, *stats)
    if key not in OPENED:
        OPENED.clear()  # one is enough: others may be large
        OPENED[key] = RunStart(path, column)
    return OPENED[key]


class RunStart:
    """One column of a finished run, with its encoder.

    Example::

        start = open_run("runs/pretrain-1", None)
        encoder = ENCODERS[start.plan("encoder").name](column.spec(), **start.plan("encoder").fixed)
        start.fill("encoder", encoder)
    """

    rate = RATE

    def __init__(self, path: Path, column: str | None) -> None:
        self.source = str(path)
        run = RunFolder(path)
        self.content = run.verify()
        self.recipe: Recipe = run.recipe()
        told = [hashlib.sha256(self.content[name]).hexdigest() for name in sorted(self.content)]
        self.hash = hashlib.sha256("".join(told).encode()).hexdigest()
        self.writes = not self.recipe.inputs
        self.column = self.chosen(column)
        part = self.recipe.outputs if self.writes else self.recipe.inputs
        self.settings: dict[str, Any] = part[self.column].model_dump(mode="json")
        chosen = self.settings["decoder" if self.writes else "encoder"]
        if chosen["name"] in ("custom", "prompt") or (self.writes and chosen["name"] != "transformer"):
            raise UsageError(
                f"what reads {self.column!r} is {chosen['name']}, which cannot be taken out of its run",
                place=path,
                mend="Name another run.",
            )

    def chosen(self, column: str | None) -> str:
        """The column that is meant."""
        known = [name for name, one in self.recipe.outputs.items() if one.type == "text"] if self.writes else None
        names = list(self.recipe.inputs) if known is None else known
        if column in names or (column is None and len(names) == 1):
            return column or names[0]
        what = f"this run reads no column {column!r}" if column else f"this run reads {len(names)} columns"
        mend = did_you_mean(column or "", names) + ("" if column else " Name one: {name: RUN, column: NAME}.")
        raise UsageError(what, place=self.source, mend=mend)

    def plan(self, role: Role) -> Plan:
        """The encoder that it is, and the column that it reads.

        Raises:
            UsageError: it is wanted as something else.
        """
        if role != "encoder":
            raise UsageError("a run is taken up as an encoder", place=self.source, mend="Name it as encoder.")
        column = {key: value for key, value in self.settings.items() if key not in BESIDE}
        suggested = {key: column.pop(key) for key in list(column) if key in OPEN_COLUMN}
        if self.writes:
            suggested.pop("packed", None)
        chosen = dict(self.settings["decoder" if self.writes else "encoder"])
        name = chosen.pop("name")
        if self.writes:
            known = parameters_of(ENCODERS[name])  # what is left is for writing alone
            chosen = {key: value for key, value in chosen.items() if key in known} | {"causal": True}
        free = {key: value for key, value in chosen.items() if key in OPEN} | (
            {"pooling": "last"} if self.writes else {}
        )
        fixed = {key: value for key, value in chosen.items() if key not in free}
        return Plan(name, fixed, free, column, suggested)

    def give_state(self, column: Column) -> None:
        """Have a column know what that of the run knows, so that nothing is left to fit."""
        column.load_state(json.loads(self.content["columns.json"])[self.column])
        column.known = True

    def fill(self, role: Role, module: nn.Module) -> None:
        """Put the weights into the encoder that the plan describes.

        Raises:
            DataError: they do not fit what the recipe asks for.
        """
        assert role == "encoder"
        values = self.weights(module)
        own = module.state_dict()
        wrong = [f"{name}: {tuple(values[name].shape)}, not {tuple(t.shape)}" for name, t in own.items()
                 if name in values and values[name].shape != t.shape]  # fmt: skip
        wrong += [f"{name} is missing" for name in own if name not in values]
        if wrong or set(values) - set(own):
            raise DataError(
                f"the weights of {self.column!r} do not fit: {'; '.join(wrong[:3]) or 'more than the encoder takes'}",
                place=self.source,
                mend="Leave out settings of size and length, so that they are the run's own.",
            )
        module.load_state_dict(values)

    def weights(self, module: nn.Module) -> Mapping[str, Tensor]:
        """The tensors of the encoder by their names in it."""
        every = parse_tensors(self.content["model.safetensors"])
        if not self.writes:
            prefix = f"encoders.{list(self.recipe.inputs).index(self.column)}."
            return {name.removeprefix(prefix): tensor for name, tensor in every.items() if name.startswith(prefix)}
        prefix = f"heads.{list(self.recipe.outputs).index(self.column)}.decoder."
        table = every[prefix + STACK[0]].clone()
        table[0] = 0  # of padding, which an encoder never looks at
        if self.settings["decoder"]["positions"] not in ("sinusoidal", "learned"):
            table /= table.shape[1] ** 0.5  # an encoder multiplies by as much
        prefix += STACK[1]
        stack = {name.removeprefix(prefix): tensor for name, tensor in every.items() if name.startswith(prefix)}
        return {"steps.embedding.weight": table, **{f"blocks.{name}": tensor for name, tensor in stack.items()}}

    def sha256(self) -> str:
        """Of all that is needed to predict with the run."""
        return self.hash
