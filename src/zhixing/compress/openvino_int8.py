"""OpenVINO: the graph in float32, in bfloat16, and in int8 by NNCF."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .onnx_int8 import whole
from .runtime import require, silence
from .subject import Subject

__all__ = ["write_openvino_bf16", "write_openvino_float", "write_openvino_int8"]

FILES = ["model.xml", "model.bin"]


def read(subject: Subject) -> Any:
    require("openvino", "openvino", "OpenVINO")
    import openvino

    return openvino.Core().read_model(str(subject.onnx))


def save(model: Any, folder: Path, *, half: bool = False) -> None:
    import openvino

    openvino.save_model(model, str(folder / FILES[0]), compress_to_fp16=half)


def write_openvino_float(subject: Subject, folder: Path) -> dict[str, Any]:
    """OpenVINO in float32."""
    save(read(subject), folder)
    return {"runtime": "openvino", "files": FILES, "precision": "f32"}


def write_openvino_bf16(subject: Subject, folder: Path) -> dict[str, Any]:
    """OpenVINO in bfloat16, its own default where the processor has instructions for it."""
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        from ..errors import UsageError

        raise UsageError("this processor has no instructions for bfloat16")
    save(read(subject), folder, half=True)
    return {"runtime": "openvino", "files": FILES, "precision": "bf16"}


def write_openvino_int8(subject: Subject, folder: Path) -> dict[str, Any]:
    """OpenVINO with weights and activations in int8, by NNCF, in ranges that were seen on training rows."""
    require("openvino", "openvino", "OpenVINO")
    os.environ.setdefault("NNCF_CI", "1")  # or it tells its maker of what it does
    require("nncf", "openvino", "OpenVINO in int8")
    with silence():
        import nncf

        kind = nncf.ModelType.TRANSFORMER if subject.attends else None
        model = nncf.quantize(
            read(subject), nncf.Dataset(whole(subject)), subset_size=len(subject.rows), model_type=kind,
            preset=nncf.QuantizationPreset.MIXED,
        )  # fmt: skip
    save(model, folder)
    return {"runtime": "openvino", "files": FILES, "precision": "f32"}
