"""A compressed model, in use where a model is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from ..calibration import Calibration, parse
from ..columns import Column
from ..data.batches import Batch
from ..errors import RunError, UsageError
from ..heads import HEADS, Head
from ..model import Model
from ..recipe import Recipe
from ..run import RunFolder, own, write_whole
from .runtime import FORM_FILE, open_runtime, read_form
from .subject import arrays_of

__all__ = ["REPORT", "Compressed", "open_compressed", "seal"]

REPORT = "compressed.json"
MANIFEST = "manifest.json"
SHARED = ("recipe.yaml", "columns.json", FORM_FILE)


class Answered:
    """What a compressed model has said of a batch, in place of an encoding."""

    def __init__(self, predictions: dict[str, Tensor]) -> None:
        self.predictions = predictions

    def __getattr__(self, name: str) -> Any:
        raise only_predicts()


class Compressed:
    """A compressed model: ``encode`` runs it, ``predict`` hands out what each head would have said.

    It stands in for a :class:`zhixing.model.Model` wherever rows are answered: predict, evaluate, calibration, serving.
    What looks into a model (explain, embed) needs the run that it was made of.

    Raises:
        RunError: the folder does not hold such a model.
        MissingExtraError: its runtime is not installed.
    """

    training = False

    def __init__(self, folder: Path, recipe: Recipe, columns: Mapping[str, Column]) -> None:
        form = read_form(folder)
        self.inputs: list[str] = list(recipe.inputs)
        self.outputs: list[str] = form["outputs"]
        if self.outputs != list(recipe.outputs):
            raise RunError(f"{FORM_FILE} and recipe.yaml name different outputs", place=folder)
        self.depends_on_batch: bool = form["depends_on_batch"]
        self.encoders = [SimpleNamespace(shrink=form["shrink"].get(name, 1)) for name in self.inputs]
        self.heads = {name: bare_head(recipe.outputs[name], columns[name]) for name in self.outputs}
        self.runtime = open_runtime(folder)

    def head(self, name: str) -> Head:
        return self.heads[name]

    def encode(self, batch: Batch) -> Answered:
        found = self.runtime(self.runtime.ready(arrays_of(batch, self.inputs)))
        tensors = [torch.from_numpy(one.copy()) for one in found]
        return Answered(dict(zip(self.outputs, tensors, strict=True)))

    def predict(self, name: str, encoding: Answered, batch: Batch) -> Tensor:
        return encoding.predictions[name]

    def eval(self) -> Compressed:
        return self

    def train(self, mode: bool = True) -> Compressed:
        if mode:
            raise only_predicts()
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise only_predicts()


def only_predicts() -> UsageError:
    return UsageError("a compressed model only predicts", mend="Give the run that it was made of.")


def bare_head(settings: Any, column: Column) -> Head:
    """A head that decodes and measures; its own weights are part of the compressed model."""
    kind = HEADS[settings.type]
    head = kind(1, column, **own(settings, kind))
    head.forced = False  # type: ignore[misc]  # in use, all classes are ranked
    return head.eval()


def seal(folder: Path, calibrations: Mapping[str, Any] | None) -> None:
    """Write a compressed model's calibrations, and the manifest of hashes of all that it needs."""
    if calibrations is not None:
        RunFolder(folder).write_json("calibration.json", calibrations)
    names = [*SHARED, *read_form(folder)["files"], *(["calibration.json"] if calibrations is not None else [])]
    entries = {name: {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()} for name in names}
    write_whole(folder / MANIFEST, json.dumps({"format": 1, "files": entries}, indent=1).encode())


def open_compressed(folder: Path | str) -> tuple[Recipe, dict[str, Column], Model, dict[str, Calibration]]:
    """What a folder that `zhixing compress` wrote holds, once its files are known to be what was written.

    The model is a :class:`Compressed`, which is typed as what it stands in for.

    Raises:
        RunError: a file is missing or damaged.
    """
    run, folder = RunFolder(folder), Path(folder)
    manifest = run.read_json(MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    needed = {*SHARED, *read_form(folder)["files"]}
    if not isinstance(files, dict) or not needed <= set(files):
        raise RunError("its manifest is missing or incomplete", place=folder, mend="Compress the run again.")
    for name in {*needed, *({"calibration.json"} & set(files))}:
        try:
            good = hashlib.sha256((folder / name).read_bytes()).hexdigest() == files[name]["sha256"]
        except (OSError, KeyError, TypeError) as error:
            raise RunError(f"{name} cannot be verified: {error!r}", place=folder) from error
        if not good:
            raise RunError(f"{name} is not what was written", place=folder, mend="Compress the run again.")
    recipe = run.recipe()
    columns = run.columns(recipe)
    fitted = run.read_json("calibration.json") if "calibration.json" in files else None
    calibrations = parse(fitted, place=folder) if fitted is not None else {}
    return recipe, columns, cast(Model, Compressed(folder, recipe, columns)), calibrations
