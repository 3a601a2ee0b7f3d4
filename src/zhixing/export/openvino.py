"""OpenVINO's form of a graph, made of the ONNX one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from ..data.batches import Batch
from ..errors import MissingExtraError
from .graph import Part
from .kernels import RealFourier
from .onnx import require_onnx, write_onnx

__all__ = ["compiled", "open_openvino", "require_openvino", "write_openvino"]


def require_openvino() -> None:
    """Raises MissingExtraError where a library is not installed."""
    require_onnx()
    try:
        import openvino  # noqa: F401
    except ImportError:
        raise MissingExtraError("openvino", "openvino", purpose="OpenVINO") from None


def write_openvino(part: Part, path: Path, rows: Batch, notes: Mapping[str, str]) -> None:
    """Write ``PATH.xml`` with its weights in float32 in ``PATH.bin``."""
    import openvino

    with TemporaryDirectory(dir=path.parent) as scratch:
        step = Path(scratch) / "model.onnx"
        with RealFourier():  # it ended the process on the transform of a sound's features
            write_onnx(part, step, rows)
        model = openvino.Core().read_model(str(step))  # read, not converted: converting tells its maker of it
        for key, value in notes.items():
            model.set_rt_info(value, [key])
        openvino.save_model(model, str(path), compress_to_fp16=False)


def compiled(path: Path) -> Any:
    """The model on the CPU in float32: left alone, it takes bfloat16 where the processor has it."""
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return openvino.Core().compile_model(str(path), "CPU", hints)


def open_openvino(path: Path, part: Part) -> Callable[[tuple[Tensor, ...]], list[Tensor]]:
    """A file as a function of the part's inputs."""
    model = compiled(path)

    def run(tensors: tuple[Tensor, ...]) -> list[Tensor]:
        given = {port.name: tensor.numpy() for port, tensor in zip(part.inputs, tensors, strict=True)}
        found = model(given)
        return [torch.from_numpy(found[name].copy()) for name in part.outputs]

    return run
