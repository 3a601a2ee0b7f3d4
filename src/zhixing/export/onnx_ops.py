"""Operators that torch's ONNX exporter does not know, in those of ONNX. Imported where onnxscript is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript.onnx_opset import opset18 as op

__all__ = ["translations"]

INT64, BOOL = 7, 9  # of TensorProto


def sort_stable(self: Any, *, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
    """``torch.sort`` of truth values that keeps equal ones in their order, which ONNX does not promise: they are told
    apart by their places."""
    axis = dim if dim >= 0 else dim + len(self.shape)
    size = op.Shape(self, start=axis, end=axis + 1)
    place = op.Range(0, op.Squeeze(size), 1)
    behind = len(self.shape) - 1 - axis
    if behind:
        place = op.Unsqueeze(place, list(range(1, behind + 1)))
    whole = op.Cast(self, to=INT64)
    signed = op.Neg(whole) if descending else whole
    _, order = op.TopK(op.Add(op.Mul(signed, size), place), size, axis=axis, largest=0, sorted=1)
    return op.Cast(op.GatherElements(whole, order, axis=axis), to=BOOL), order


def recurrent_layer(x_TBF: Any, weight: Any, state: Any, bias: Any, kind: str) -> Any:
    """One layer as one node."""
    given: dict[str, Any] = {"hidden_size": state.shape[2]}
    if kind == "RNN":
        states = op.RNN(x_TBF, weight, state, bias, activations=["Tanh"], **given)[0]
    elif kind == "GRU":
        states = op.GRU(x_TBF, weight, state, bias, linear_before_reset=1, **given)[0]
    else:
        states = op.LSTM(x_TBF, weight, state, bias, **given)[0]
    return op.Squeeze(states, [1])  # the axis of directions


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    ops = torch.ops
    return {ops.aten.sort.stable: sort_stable, ops.zhixing.recurrent_layer.default: recurrent_layer}
