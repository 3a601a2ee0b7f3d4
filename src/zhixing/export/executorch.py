"""ExecuTorch: a program for phones and small devices, of one row at a time.

Linear algebra goes to XNNPACK, where that can be followed; else to the portable kernels, which are slow and everywhere.
A row may have any number of steps up to its column's most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ..data.batches import Batch
from ..errors import MissingExtraError, RunError, UsageError
from .graph import Graph, Part
from .onnx import quiet
from .rows import one_row, row_by_row
from .torch import SCANNED

__all__ = ["open_executorch", "require_executorch", "write_executorch"]


def require_executorch() -> None:
    """Raises MissingExtraError where the library is not installed."""
    try:
        with quiet():
            import executorch.exir  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
    except ImportError:
        raise MissingExtraError("executorch", "executorch", purpose="ExecuTorch") from None


def write_executorch(part: Part, path: Path, rows: Batch, notes: Mapping[str, str]) -> None:
    """Write a part for one row at a time; the format has no place for ``notes``.

    Raises:
        UsageError: the part is a text that is written token by token.
        RuntimeError: there is an operator that the runtime does not have.
    """
    if not isinstance(part, Graph):
        raise UsageError(
            "a text that is written token by token has a memory that grows, which is not written for ExecuTorch",
            mend="Export it as onnx, openvino or torch.",
        )
    program, _ = one_row(part, rows, SCANNED, free=True)
    try:
        content = lowered(program, fast=True)
    except RuntimeError:  # XNNPACK took on what it cannot do for rows of any length
        content = lowered(program, fast=False)
    path.write_bytes(content)


def lowered(program: ExportedProgram, *, fast: bool) -> bytes:
    """The file's content; ``fast``: with XNNPACK.

    Raises:
        RuntimeError: an operator is not known.
    """
    try:
        with quiet(), torch.no_grad():  # importing warns too
            from executorch.backends.xnnpack.partition import xnnpack_partitioner as xnnpack  # type: ignore[import-not-found, unused-ignore]
            from executorch.exir import to_edge_transform_and_lower  # type: ignore[import-not-found, unused-ignore]

            takers = [xnnpack.XnnpackPartitioner()] if fast else []
            made: bytes = to_edge_transform_and_lower(program, partitioner=takers).to_executorch().buffer
    except Exception as error:  # of classes of its own
        raise RuntimeError(f"{type(error).__name__}: {str(error).strip()}") from error
    return made


def open_executorch(path: Path, part: Part) -> Callable[[tuple[Tensor, ...]], list[Tensor]]:
    """A file as a function of the part's inputs."""
    with quiet():
        from executorch.runtime import Runtime  # type: ignore[import-not-found, unused-ignore]

    program = Runtime.get().load_program(path)

    def run(tensors: tuple[Tensor, ...]) -> list[Tensor]:
        try:
            method = program.load_method("forward")
            return row_by_row(lambda row: [tensor.clone() for tensor in method.execute(row)], tensors)
        except RuntimeError as error:
            raise RunError(
                f"ExecuTorch cannot run what was written ({error}); nothing is left of the export",
                mend="Export as onnx, or take another encoder.",
            ) from error

    return run
