"""The ways to write and run a model, by name: a literal table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..run import write_whole
from .bf16 import write_bf16
from .eager import write_eager, write_run
from .onnx_int8 import write_onnx_dynamic, write_onnx_float, write_onnx_static
from .openvino_int8 import write_openvino_bf16, write_openvino_float, write_openvino_int8
from .runtime import FORM_FILE
from .subject import Subject
from .torchao_int8 import write_torchao_int8

__all__ = ["EAGER", "FORMS", "Form", "write_form"]

EAGER = "eager"


@dataclass(frozen=True)
class Form:
    """A way to write and run a model: its name for people, and what writes its files into a folder.

    What that gives becomes ``form.json``: the runtime, the files, and what the runtime has to know.
    """

    label: str
    write: Callable[[Subject, Path], dict[str, Any]]
    float32: bool = False  # the same numbers as the model's own, but for their last digits


FORMS: dict[str, Form] = {
    EAGER: Form("PyTorch", write_eager, float32=True),
    "bf16": Form("PyTorch, bf16", write_bf16),
    "torchao_int8": Form("PyTorch, int8 by torchao", write_torchao_int8),
    "onnx": Form("ONNX Runtime", write_onnx_float, float32=True),
    "onnx_dynamic": Form("ONNX Runtime, int8 dynamic", write_onnx_dynamic),
    "onnx_static": Form("ONNX Runtime, int8 static", write_onnx_static),
    "openvino": Form("OpenVINO", write_openvino_float, float32=True),
    "openvino_bf16": Form("OpenVINO, bf16", write_openvino_bf16),
    "openvino_int8": Form("OpenVINO, int8", write_openvino_int8),
}


def write_form(subject: Subject, name: str, folder: Path) -> dict[str, Any]:
    """Write a model in one form, with all that is needed to answer with it; gives the content of ``form.json``.

    Raises:
        ZhixingError, or whatever a library raises: it cannot be written. The folder is then gone again.
    """
    folder.mkdir(parents=True)
    try:
        write_run(subject, folder)
        form = FORMS[name].write(subject, folder)
        form |= {"form": name, "inputs": [port.name for port in subject.graph.inputs]}
        form |= {"outputs": list(subject.graph.outputs), "depends_on_batch": form.get("depends_on_batch", False)}
        each = zip(subject.model.inputs, subject.model.encoders, strict=True)
        form["shrink"] = {name: int(getattr(encoder, "shrink", 1)) for name, encoder in each}
        write_whole(folder / FORM_FILE, json.dumps(form, indent=1).encode())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return form
