"""Parts of a model that exporters cannot follow, as parts that they can.

torch's recurrent kernels are loops over the steps; an exporter that follows one writes down as many steps as its
example has, and no other length goes through. Here a layer is one operator, which becomes one node in ONNX, or a loop
that stays a loop. And few runtimes have a Fourier transform, which is a product with two matrices as well.

Shape legend: B rows, T steps, F features, D units, G gates (4 of an LSTM, 3 of a GRU, 1 of a plain network).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..layers.recurrent import CellWeights, gru_step, lstm_step, rnn_step

__all__ = ["GATES", "OneNode", "RealFourier", "Scanned", "swapped"]

Step = Callable[[tuple[Tensor, ...], Tensor], tuple[tuple[Tensor, ...], Tensor]]
Module = TypeVar("Module", bound=nn.Module)
# Torch stacks gates as i f g o and r z n, ONNX as i o f g and z r n: each of ONNX's is torch's at this place.
GATES = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}


@torch.library.custom_op("zhixing::recurrent_layer", mutates_args=())
def recurrent_layer(x_TBF: Tensor, weight: Tensor, state: Tensor, bias: Tensor, kind: str) -> Tensor:
    """States [T, B, D] of one layer in one direction, of ``weight`` [1, G D, F], ``state`` [1, G D, D] and ``bias``
    [1, 2 G D] as ONNX stacks them."""
    back = torch.tensor(GATES[kind]).argsort()

    def as_torch(stacked: Tensor) -> Tensor:
        return stacked.view(len(back), -1, *stacked.shape[1:])[back].flatten(0, 1)

    inputs, states = (as_torch(half) for half in bias[0].chunk(2))
    weights = [as_torch(weight[0]), as_torch(state[0]), inputs, states]
    start = x_TBF.new_zeros(1, x_TBF.shape[1], state.shape[2])
    how: tuple[Any, ...] = (weights, True, 1, 0.0, False, False, False)
    if kind == "LSTM":
        return torch.lstm(x_TBF, (start, start), *how)[0]
    return (torch.gru if kind == "GRU" else torch.rnn_tanh)(x_TBF, start, *how)[0]


@recurrent_layer.register_fake
def _(x_TBF: Tensor, weight: Tensor, state: Tensor, bias: Tensor, kind: str) -> Tensor:
    return x_TBF.new_empty(x_TBF.shape[0], x_TBF.shape[1], state.shape[2])


class OneNode(nn.Module):
    """A recurrent kernel of torch, read from first to last, each layer as one operator.

    Shape: [B, T, F] to states [B, T, D], beside an empty tuple where torch's kernels give the last state.
    """

    def __init__(self, kernel: nn.RNNBase) -> None:
        super().__init__()
        assert kernel.batch_first
        assert not kernel.bidirectional
        self.kind, self.layers = kernel.mode.partition("_")[0], kernel.num_layers
        order = torch.tensor(GATES[self.kind])

        def as_onnx(stacked: Tensor) -> Tensor:
            return stacked.detach().view(len(order), -1, *stacked.shape[1:])[order].flatten(0, 1)

        for layer in range(self.layers):
            weight, state, inputs, states = (as_onnx(part) for part in kernel.all_weights[layer])
            self.register_buffer(f"weight_{layer}", weight[None])
            self.register_buffer(f"state_{layer}", state[None])
            self.register_buffer(f"bias_{layer}", torch.cat([inputs, states])[None])

    def forward(self, x_BTF: Tensor) -> tuple[Tensor, tuple[()]]:
        x_TBF = x_BTF.transpose(0, 1)
        for layer in range(self.layers):
            weights = (getattr(self, f"{part}_{layer}") for part in ("weight", "state", "bias"))
            x_TBF = recurrent_layer(x_TBF, *weights, self.kind)
        return x_TBF.transpose(0, 1), ()


def swapped(module: Module, table: Mapping[type[nn.Module], Callable[[Any], nn.Module]]) -> Module:
    """A copy in which parts of these types are others; all other weights are shared with the original."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    out = copy.deepcopy(module, shared)
    for parent in list(out.modules()):
        for name, child in list(parent.named_children()):
            make = table.get(type(child))
            if make is not None:
                setattr(parent, name, make(child))
    return out.eval()


class Scanned(nn.Module):
    """A recurrent kernel of torch, read from first to last, each layer as a loop of plain operators over the steps.

    Shape: [B, T, F] to states [B, T, D], beside an empty tuple where torch's kernels give the last state.
    """

    def __init__(self, kernel: nn.RNNBase) -> None:
        super().__init__()
        assert kernel.batch_first
        assert not kernel.bidirectional
        self.kind, self.kernel = kernel.mode.partition("_")[0], kernel

    def forward(self, x_BTF: Tensor) -> tuple[Tensor, tuple[()]]:
        from torch._higher_order_ops.scan import scan

        x_TBF = x_BTF.transpose(0, 1)
        start = x_TBF.new_zeros(x_TBF.shape[1], self.kernel.hidden_size)
        for layer in range(self.kernel.num_layers):
            weights = CellWeights(*self.kernel.all_weights[layer])
            step, first = STEPS[self.kind](weights), (start, start.clone()) if self.kind == "LSTM" else (start,)
            x_TBF = scan(step, first, x_TBF)[1]
        return x_TBF.transpose(0, 1), ()


def lstm(weights: CellWeights) -> Step:
    def step(state: tuple[Tensor, ...], x_BF: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        h_BD, memory_BD = lstm_step(x_BF, state[0], state[1], weights)
        return (h_BD, memory_BD), h_BD.clone()

    return step


def gru(weights: CellWeights) -> Step:
    def step(state: tuple[Tensor, ...], x_BF: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        h_BD = gru_step(x_BF, state[0], weights)
        return (h_BD,), h_BD.clone()

    return step


def rnn(weights: CellWeights) -> Step:
    def step(state: tuple[Tensor, ...], x_BF: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        h_BD = rnn_step(x_BF, state[0], weights)
        return (h_BD,), h_BD.clone()

    return step


STEPS: dict[str, Callable[[CellWeights], Step]] = {"LSTM": lstm, "GRU": gru, "RNN": rnn}


class RealFourier(TorchFunctionMode):
    """Within it, ``torch.view_as_real(torch.fft.rfft(x))`` is a product with cosines and sines, of real numbers alone.

    >>> x = torch.randn(2, 6)
    >>> with RealFourier():
    ...     found = torch.view_as_real(torch.fft.rfft(x, n=8))
    >>> torch.allclose(found, torch.view_as_real(torch.fft.rfft(x, n=8)), atol=1e-5)
    True
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.fft.rfft:
            return real_fourier(*args, **(kwargs or {}))
        if func is torch.view_as_real and not args[0].is_complex():
            return args[0]
        return func(*args, **(kwargs or {}))


def real_fourier(x: Tensor, n: int | None = None) -> Tensor:
    """Real and imaginary parts [..., n // 2 + 1, 2] of the transform of the last axis, which is filled up to ``n``."""
    size = n or x.shape[-1]
    angle = np.outer(np.arange(min(size, x.shape[-1])), np.arange(size // 2 + 1)) * (-2 * np.pi / size)
    parts = [x[..., : len(angle)] @ torch.tensor(wave(angle).astype(np.float32)) for wave in (np.cos, np.sin)]
    return torch.stack(parts, dim=-1)
