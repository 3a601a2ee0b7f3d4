"""Running what was written: one class a runtime, with nothing imported that it does not need.

A process that only answers then takes no more memory, and no longer to start, than its runtime does. ONNX Runtime and
OpenVINO run on one thread of the CPU, torch on as many as its process has set. Rows go in as arrays by the names of the
graph's inputs: ``image``, ``text`` and ``text_mask``.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingExtraError, RunError

__all__ = ["FORM_FILE", "RUNTIMES", "Arrays", "Runtime", "open_runtime", "read_form", "require", "silence"]

FORM_FILE = "form.json"
Arrays = Mapping[str, NDArray[Any]]


def require(library: str, extra: str, purpose: str) -> None:
    """Raises MissingExtraError where a library is not installed."""
    if find_spec(library) is None:
        raise MissingExtraError(library, extra, purpose=purpose)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Without the advice that libraries give, and the bars that they draw."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


class Runtime(ABC):
    """A written model, ready to answer. ``form`` is what ``form.json`` says of it."""

    def __init__(self, folder: Path, form: Mapping[str, Any]) -> None:
        self.outputs: list[str] = form["outputs"]

    @abstractmethod
    def ready(self, arrays: Arrays) -> Any:
        """Rows in the form that this runtime takes."""

    @abstractmethod
    def __call__(self, given: Any) -> list[NDArray[Any]]:
        """The prediction of each output, in order: what the model's head would give."""


class Onnx(Runtime):
    """ONNX Runtime."""

    def __init__(self, folder: Path, form: Mapping[str, Any]) -> None:
        super().__init__(folder, form)
        require("onnxruntime", "export", "this model")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            str(folder / form["files"][0]), options, providers=["CPUExecutionProvider"]
        )
        self.known = [port.name for port in self.session.get_inputs()]
        self.masks = masks_of(form)

    def ready(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        return {name: array for name, array in with_masks(arrays, self.masks).items() if name in self.known}

    def __call__(self, given: Any) -> list[NDArray[Any]]:
        answers: list[NDArray[Any]] = self.session.run(self.outputs, given)
        return answers


class OpenVINO(Runtime):
    """OpenVINO's CPU plugin, in the precision that the form names: its own default may be bf16 without a word."""

    def __init__(self, folder: Path, form: Mapping[str, Any]) -> None:
        super().__init__(folder, form)
        require("openvino", "openvino", "this model")
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": form["precision"],
            "ENABLE_CPU_PINNING": False,
        }
        core = openvino.Core()
        self.compiled = core.compile_model(str(folder / form["files"][0]), "CPU", settings)
        self.request = self.compiled.create_infer_request()
        self.known = {name for port in self.compiled.inputs for name in port.names}
        self.ports = [self.compiled.output(name) for name in self.outputs]
        self.masks = masks_of(form)

    def ready(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        return {name: array for name, array in with_masks(arrays, self.masks).items() if name in self.known}

    def __call__(self, given: Any) -> list[NDArray[Any]]:
        found = self.request.infer(given, share_inputs=True, share_outputs=True)
        return [np.array(found[port]) for port in self.ports]  # copies: the next call writes where this one did


class Torch(Runtime):
    """This package's own model: in float32 as it was trained, in bfloat16, or with torchao's int8 layers."""

    def __init__(self, folder: Path, form: Mapping[str, Any]) -> None:
        super().__init__(folder, form)
        from .eager import open_eager

        self.torch, self.batch_of, self.answer = open_eager(folder, form)

    def ready(self, arrays: Arrays) -> Any:
        return self.batch_of(arrays)

    def __call__(self, given: Any) -> list[NDArray[Any]]:
        with self.torch.inference_mode():
            return [prediction.numpy() for prediction in self.answer(given)]


RUNTIMES: dict[str, type[Runtime]] = {"onnx": Onnx, "openvino": OpenVINO, "torch": Torch}


def masks_of(form: Mapping[str, Any]) -> dict[str, str]:
    """The inputs that say which steps are real, each with the input whose steps they are."""
    return {name: name.removesuffix("_mask") for name in form["inputs"] if name.removesuffix("_mask") in form["inputs"]
            and name.endswith("_mask")}  # fmt: skip


def with_masks(arrays: Arrays, masks: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """The same with a mask where the graph has one and the rows, all of one length, brought none."""
    lacking = {name: np.ones(arrays[of].shape[:2], bool) for name, of in masks.items() if name not in arrays}
    return {**arrays, **lacking}


def read_form(folder: Path) -> dict[str, Any]:
    """What ``form.json`` of a folder says.

    Raises:
        RunError: it is missing or says something else.
    """
    try:
        form: dict[str, Any] = json.loads((folder / FORM_FILE).read_text("utf-8"))
        if form["runtime"] not in RUNTIMES or not form["outputs"] or not isinstance(form["inputs"], list):
            raise ValueError("it names no runtime, inputs or outputs that are known")
        if any(os.path.basename(name) != name for name in form["files"]):
            raise ValueError("its files lie elsewhere")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{FORM_FILE} cannot be read: {error!r}", place=folder) from error
    return form


def open_runtime(folder: Path) -> Runtime:
    """The model that a folder holds, ready to answer."""
    form = read_form(folder)
    return RUNTIMES[form["runtime"]](folder, form)
