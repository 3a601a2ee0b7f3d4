"""ONNX: writing a graph, and opening what was written."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..data.batches import Batch
from ..errors import MissingExtraError
from .graph import Part, Port
from .kernels import OneNode, swapped

__all__ = ["metadata", "open_onnx", "require_onnx", "session", "write_onnx"]

OPSET = 20
LARGEST = 1_900_000_000  # bytes of weights in the file itself; protobuf ends at 2 GiB
ONE_NODE: dict[type[nn.Module], type[nn.Module]] = {nn.RNN: OneNode, nn.GRU: OneNode, nn.LSTM: OneNode}


def require_onnx() -> None:
    """Raises MissingExtraError where a library is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "export", purpose="ONNX") from None


def write_onnx(graph: Part, path: Path, rows: Batch, notes: Mapping[str, str] | None = None) -> None:
    """Write a graph as ONNX, for any number of rows and any length of them; ``notes`` become its metadata.

    ``rows`` are one or more real ones on the CPU, which the exporter follows through the model. Weights of more than
    two gigabytes go to a file of their own beside it, ``PATH.data``.

    Raises:
        MissingExtraError: a library is not installed.
    """
    require_onnx()
    from .onnx_ops import translations

    example = spread(graph.example(rows))
    # The fused kernels of attention lay their answers out as the plain one, which the exporter falls back on, does not.
    with quiet(), sdpa_kernel(SDPBackend.MATH):
        program = torch.onnx.export(
            swapped(graph, ONE_NODE), example, dynamo=True, opset_version=OPSET, verbose=False,
            dynamic_shapes=(dynamic(graph.inputs),), custom_translation_table=translations(),
        )  # fmt: skip
    assert program is not None
    size = sum(tensor.nbytes for tensor in (*graph.parameters(), *graph.buffers()))
    tidy(program.model, graph, notes or {})
    program.save(str(path), external_data=size > LARGEST)


def spread(example: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Three rows or more of the example: of a single one, the exporter would take its number for a rule."""
    rows = max(3, len(example[0]))
    return tuple(tensor[torch.arange(rows) % len(tensor)] for tensor in example)


def dynamic(inputs: list[Port]) -> tuple[dict[int, Any], ...]:
    """The axes of each input that may have any size: an error of the exporter's where the model fixes one of them."""
    free = torch.export.Dim.DYNAMIC
    return tuple({axis: free for axis, size in enumerate(port.shape) if isinstance(size, str)} for port in inputs)


def tidy(model: Any, graph: Part, notes: Mapping[str, str]) -> None:
    """Names and axes as the graph's ports have them, notes, and nothing said of what is between the nodes:
    quantisation trips over shapes that do not hold."""
    inner = model.graph
    taken = {port.name for port in graph.inputs} | set(graph.outputs)
    values = [value for node in inner.all_nodes() for value in node.outputs]
    ends = {id(value) for value in (*inner.inputs, *inner.outputs)}
    for value in (*values, *inner.initializers.values()):
        while value.name in taken:  # a column may be called as an operator is
            value.name += "_inner"
    for value in values:
        if id(value) not in ends:
            value.shape = value.type = None
    for value, port in zip(inner.inputs, graph.inputs, strict=True):
        value.name, value.shape = port.name, type(value.shape)(port.shape)
    for value, name in zip(inner.outputs, graph.outputs, strict=True):
        value.name = name
        sides = (size if isinstance(size, int) else None for size in value.shape[1:])
        value.shape = type(value.shape)(["batch", *sides])
    # Where in this package's code each came from.
    for part in (*inner.all_nodes(), *values, *inner.inputs, *inner.initializers.values(), inner, model):
        part.metadata_props.clear()
    model.metadata_props.update(notes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter talks a great deal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def session(path: Path, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU."""
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_onnx(path: Path, part: Part) -> Callable[[tuple[Tensor, ...]], list[Tensor]]:
    """A file as a function of the part's inputs."""
    one = session(path)

    def run(tensors: tuple[Tensor, ...]) -> list[Tensor]:
        given = {port.name: tensor.numpy() for port, tensor in zip(part.inputs, tensors, strict=True)}
        return [torch.from_numpy(array) for array in one.run(list(part.outputs), given)]

    return run


def metadata(path: Path) -> dict[str, str]:
    """The notes in a file, read without its weights."""
    import onnx

    found = onnx.load(str(path), load_external_data=False)
    return {entry.key: entry.value for entry in found.metadata_props}
