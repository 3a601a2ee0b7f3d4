"""LiteRT, once TensorFlow Lite: a graph of one row whose sizes are fixed. Shorter rows are filled up with padding.

Whole numbers and numbers of 64 bits are of 32 there, so that a large offset of a column (a year) keeps seven digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.batches import Batch
from ..errors import MissingExtraError, UsageError
from .answers import Units
from .graph import Graph, Part
from .onnx import quiet
from .rows import filled, one_row, row_by_row

__all__ = ["open_litert", "require_litert", "write_litert"]


def require_litert() -> None:
    """Raises MissingExtraError where the library is not installed."""
    try:
        with quiet():
            import ai_edge_litert  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
            import litert_torch  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "litert-torch", "litert", purpose="LiteRT") from None


def write_litert(part: Part, path: Path, rows: Batch, notes: Mapping[str, str]) -> None:
    """Write a part for one row of the most steps; the format has no place for ``notes``.

    Raises:
        UsageError: an output has steps, whose number would have to be that of the row.
        RuntimeError: there is an operator that the runtime does not have.
    """
    import litert_torch  # type: ignore[import-not-found, unused-ignore]

    if not isinstance(part, Graph) or any(one.axes for one in part.outputs.values()):
        raise UsageError(
            "sizes are fixed in LiteRT: no output of any number of steps or tokens is written",
            mend="Export it as onnx, openvino or torch.",
        )
    program, example = one_row(part, rows, {Units: Units.narrow}, free=False)
    try:
        with quiet(), torch.no_grad():
            litert_torch.convert(program.module(), example).export(str(path))
    except Exception as error:  # of many kinds
        raise RuntimeError(f"{type(error).__name__}: {str(error).strip()}") from error


def open_litert(path: Path, part: Part) -> Callable[[tuple[Tensor, ...]], list[Tensor]]:
    """A file as a function of the part's inputs."""
    with quiet():
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found, unused-ignore]

    runner: Any = Interpreter(model_path=str(path), num_threads=1).get_signature_runner()
    details = runner.get_input_details()

    def one(given: list[Tensor]) -> list[Tensor]:
        feed = {
            f"args_{number}": filled(tensor, port.most).numpy().astype(details[f"args_{number}"]["dtype"])
            for number, (tensor, port) in enumerate(zip(given, part.inputs, strict=True))
        }
        found = runner(**feed)
        return [torch.from_numpy(found[f"output_{number}"].copy()) for number in range(len(part.outputs))]

    def run(tensors: tuple[Tensor, ...]) -> list[Tensor]:
        return row_by_row(one, tensors)

    return run
