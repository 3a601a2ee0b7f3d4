"""The model as this package runs it, in a folder of its own: the measure of all other forms, and those that keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from .. import recipe as recipes
from ..columns.column import Stem
from ..data.batches import Batch, ColumnBatch
from ..errors import RunError
from ..model import Model
from ..run import RunFolder, build_model, write_whole
from .low_rank import take_factors
from .runtime import Arrays
from .subject import Subject

__all__ = ["WEIGHTS", "open_eager", "write_eager", "write_run"]

WEIGHTS = "model.safetensors"


def write_run(subject: Subject, folder: Path) -> None:
    """What a model is made of beside its weights: its recipe and its fitted columns."""
    write_whole(folder / "recipe.yaml", recipes.dump(subject.recipe.plain()).encode())
    RunFolder(folder).write_columns(subject.columns)


def write_eager(subject: Subject, folder: Path) -> dict[str, Any]:
    """Eager PyTorch in float32, as the run itself answers."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in subject.model.state_dict().items()}
    write_whole(folder / WEIGHTS, serialise_tensors(tensors))
    return {"runtime": "torch", "files": [WEIGHTS]}


def open_eager(folder: Path, form: Mapping[str, Any]) -> tuple[Any, Callable[[Arrays], Batch], Any]:
    """torch, what makes a batch of arrays, and what answers it."""
    run = RunFolder(folder)
    recipe = run.recipe()
    model = build_model(recipe, run.columns(recipe))
    try:
        tensors = parse_tensors((folder / WEIGHTS).read_bytes())
        take_factors(model, tensors)
        model.load_state_dict(tensors)
    except (OSError, RuntimeError, ValueError) as error:
        raise RunError(f"the weights do not fit the recipe: {error}", place=folder) from error
    model.channels_last().eval()
    if form.get("precision") == "bf16":
        narrow(model)
    if form.get("quantise") == "int8":
        from .torchao_int8 import quantise

        quantise(model)

    def batch_of(arrays: Arrays) -> Batch:
        columns = {}
        for name in model.inputs:
            mask = arrays.get(f"{name}_mask")
            values = torch.from_numpy(arrays[name])
            columns[name] = ColumnBatch(values, None if mask is None else torch.from_numpy(mask))
        return Batch(columns, torch.arange(len(next(iter(arrays.values())))))

    def answer(batch: Batch) -> list[Tensor]:
        return [prediction.float() for prediction in model(batch).values()]

    return torch, batch_of, answer


class Narrow(Stem):
    """A stem in float32, what it gives in bfloat16: statistics of columns are not rounded."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        values, mask = self.stem(values, mask)
        return (values.to(torch.bfloat16) if values.is_floating_point() else values), mask


def narrow(model: Model) -> Model:
    """All behind the stems in bfloat16, in place."""
    for part in (model.encoders, model.fusion, model.heads):
        part.to(torch.bfloat16)
    each = zip(model.inputs, model.stems, model.encoders, strict=True)
    model.readers = [(name, (Narrow(stem), encoder)) for name, stem, encoder in each]  # type: ignore[arg-type]
    return model
