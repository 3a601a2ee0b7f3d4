"""ONNX Runtime: the graph in float32, and with int8 in the place of its products."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..export.onnx import require_onnx
from .runtime import Arrays, silence, with_masks
from .subject import Subject

__all__ = ["write_onnx_dynamic", "write_onnx_float", "write_onnx_static"]

FILE = "model.onnx"
PRODUCTS = ["Conv", "ConvTranspose", "MatMul", "Gemm"]  # of which weights and activations become int8
CARRIED = ["MaxPool", "Relu", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Clip", "Gather", "Add"]


def write_onnx_float(subject: Subject, folder: Path) -> dict[str, Any]:
    """ONNX Runtime in float32: the same sums with less between them."""
    assert subject.onnx.name == FILE
    for path in subject.onnx.parent.glob(f"{FILE}*"):  # weights of very large models lie beside, under a name in it
        shutil.copyfile(path, folder / path.name)
    return {"runtime": "onnx", "files": sorted(path.name for path in folder.glob(f"{FILE}*"))}


def write_onnx_dynamic(subject: Subject, folder: Path) -> dict[str, Any]:
    """ONNX Runtime with weights in int8, and activations brought to 8 bits by the range of each call.

    A row's answer then depends a little on the rows that it comes with.
    """
    require_onnx()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with silence():
        quantize_dynamic(str(subject.onnx), str(folder / FILE), weight_type=QuantType.QInt8, per_channel=True)
    return {"runtime": "onnx", "files": [FILE], "depends_on_batch": True}


def write_onnx_static(subject: Subject, folder: Path) -> dict[str, Any]:
    """ONNX Runtime with weights and activations in int8, in ranges that were seen on training rows."""
    require_onnx()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Rows(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            known = {port.name for port in subject.graph.inputs}
            self.feeds = iter([{name: x for name, x in feed.items() if name in known} for feed in whole(subject)])

        def get_next(self) -> Arrays | None:
            return next(self.feeds, None)

    with silence():
        quantize_static(
            str(subject.onnx), str(folder / FILE), Rows(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=[*PRODUCTS, *CARRIED],
        )  # fmt: skip
    return {"runtime": "onnx", "files": [FILE]}


def whole(subject: Subject) -> list[Arrays]:
    """The calibration rows with all masks that the graph takes."""
    masks = {port.name: port.column for port in subject.graph.inputs if port.name != port.column}
    return [with_masks(feed, masks) for feed in subject.feeds()]
