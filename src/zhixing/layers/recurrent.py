"""Recurrent networks: the equations of one step, to be read, and stacks of torch's fused kernels, to be run.

Shape legend: B rows, T steps, F features, D units of one direction, E = D or 2 D units of a state.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AdditiveAttention", "CellKind", "CellWeights", "Recurrent", "gru_step", "lstm_step", "rnn_step"]

CellKind = Literal["rnn", "lstm", "gru"]
KERNELS: dict[CellKind, type[nn.RNN] | type[nn.LSTM] | type[nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class CellWeights(NamedTuple):
    """Weights of a cell, K gates stacked: of the input [K D, F], of the state [K D, D], and a bias [K D] of each."""

    input: Tensor
    state: Tensor
    input_bias: Tensor
    state_bias: Tensor


def rnn_step(x_BF: Tensor, h_BD: Tensor, weights: CellWeights) -> Tensor:
    """The next state of Elman's network (1990): tanh(W x + b + U h + c)."""
    return torch.tanh(
        F.linear(x_BF, weights.input, weights.input_bias) + F.linear(h_BD, weights.state, weights.state_bias)
    )


def lstm_step(x_BF: Tensor, h_BD: Tensor, memory_BD: Tensor, weights: CellWeights) -> tuple[Tensor, Tensor]:
    """The next state and memory of a long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers 2000).

    Of the memory a share ``f`` is kept, and a share ``i`` of the new content ``g`` is written; a share ``o`` of what is
    then in it is shown. Gates are stacked in the order i, f, g, o.
    """
    gates = F.linear(x_BF, weights.input, weights.input_bias) + F.linear(h_BD, weights.state, weights.state_bias)
    i, f, g, o = gates.chunk(4, dim=-1)
    memory_BD = f.sigmoid() * memory_BD + i.sigmoid() * g.tanh()
    return o.sigmoid() * memory_BD.tanh(), memory_BD


def gru_step(x_BF: Tensor, h_BD: Tensor, weights: CellWeights) -> Tensor:
    """The next state of a gated recurrent unit (Cho et al. 2014, arXiv:1406.1078).

    A share ``z`` of the state is kept, the rest is new content ``n``, which sees a share ``r`` of the old state. Gates
    are stacked in the order r, z, n. As in cuDNN, r acts after the matrix U of the new content; in the paper before it.
    """
    r_x, z_x, n_x = F.linear(x_BF, weights.input, weights.input_bias).chunk(3, dim=-1)
    r_h, z_h, n_h = F.linear(h_BD, weights.state, weights.state_bias).chunk(3, dim=-1)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return (1 - z) * n + z * h_BD


class Recurrent(nn.Module):
    """Layers of one kind of cell, read in one direction or in both.

    Only real steps are read, wherever they stand in a row: they are brought to its front, for the other direction in
    reverse, so that what follows them cannot matter. This equals packing, and needs no lengths on the host, which
    would make every batch wait for the device. Weights start as torch's own layers do.

    Args:
        features: F.
        width: D.
        layers: how many stand on each other.
        bidirectional: each layer also reads the steps from last to first, and both states are joined.
        dropout: share of units dropped between layers.

    Shape: x [B, T, F] and real [B, T] (True where a step is real; None: all) to states [B, T, E], zero where no step
    is, and last [B, E], the states of the top layer after the last step read; zero for rows without any.

    >>> layer = Recurrent("gru", 3, 8, bidirectional=True)
    >>> states, last = layer(torch.randn(2, 5, 3), torch.tensor([[True] * 5, [True] * 2 + [False] * 3]))
    >>> states.shape, last.shape, bool(torch.equal(last[1, :8], states[1, 1, :8]))
    (torch.Size([2, 5, 16]), torch.Size([2, 16]), True)
    """

    def __init__(
        self,
        cell: CellKind,
        features: int,
        width: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = width * (1 + bidirectional)
        self.between = nn.Dropout(dropout) if dropout else nn.Identity()
        make = KERNELS[cell]
        # One direction: one kernel for all layers. Two: a layer needs both directions of the one below, so each stage
        # is a layer, with one kernel for each direction.
        self.stages = nn.ModuleList()
        for stage in range(layers if bidirectional else 1):
            inputs = features if stage == 0 else self.width
            self.stages.append(
                nn.ModuleList(
                    [make(inputs, width, batch_first=True) for _ in range(2)]
                    if bidirectional
                    else [make(inputs, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)]
                )
            )

    def forward(self, x_BTF: Tensor, real_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
        order = None if real_BT is None else Order.of(real_BT)
        states = x_BTF if real_BT is None else x_BTF.masked_fill(~real_BT.unsqueeze(-1), 0.0)
        last: list[Tensor] = []
        for number, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            states = self.between(states) if number else states
            read = [read_steps(kernel, states, order, bool(way)) for way, kernel in enumerate(stage)]
            states = torch.cat([one for one, _ in read], dim=-1) if len(read) > 1 else read[0][0]
            last = [end for _, end in read]
        if real_BT is not None:
            states = states.masked_fill(~real_BT.unsqueeze(-1), 0.0)
        return states, torch.cat(last, dim=-1)


class Order(NamedTuple):
    """In which order the steps of each row are read, [B, T] both ways: ``first`` to last, and ``back`` again.

    ``reverse_first`` and ``reverse_back`` are the same for reading from the last real step to the first. ``lengths``
    [B] are the numbers of real steps.
    """

    first: Tensor
    back: Tensor
    reverse_first: Tensor
    reverse_back: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, real_BT: Tensor) -> Order:
        first = torch.argsort(~real_BT, dim=1, stable=True)
        lengths = real_BT.sum(1)
        steps = torch.arange(real_BT.shape[1], device=real_BT.device)
        mirrored = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
        reverse = first.gather(1, mirrored)
        return cls(first, first.argsort(1), reverse, reverse.argsort(1), lengths)


def read_steps(kernel: nn.Module, x_BTF: Tensor, order: Order | None, reverse: bool) -> tuple[Tensor, Tensor]:
    """States of one kernel at each step [B, T, D], and that after the last step it read [B, D]."""
    if order is None:
        states = kernel(x_BTF.flip(1) if reverse else x_BTF)[0]
        return (states.flip(1) if reverse else states), states[:, -1]
    there, back = (order.reverse_first, order.reverse_back) if reverse else (order.first, order.back)
    states = kernel(take_steps(x_BTF, there))[0]
    ends = take_steps(states, (order.lengths - 1).clamp(min=0)[:, None])[:, 0]
    return take_steps(states, back), ends.masked_fill(order.lengths[:, None] == 0, 0.0)


def take_steps(x_BTF: Tensor, steps: Tensor) -> Tensor:
    """Of each row the steps [B, K] that are named: [B, K, F]."""
    return x_BTF.gather(1, steps.unsqueeze(-1).expand(-1, -1, x_BTF.shape[-1]))


class AdditiveAttention(nn.Module):
    """A weighted mean of states, with weights from a small network (Bahdanau et al. 2015, arXiv:1409.0473).

    The score of a state h is v . tanh(W h + b + U q). The query q is the state of a decoder; without one
    (``query_width`` 0) the layer sums up a sequence.

    Shape: states [B, T, E], real [B, T] and query [B, Q] to the mean [B, E] and the weights [B, T], which sum to 1, or
    to 0 in a row without any real state.

    >>> mean, weights = AdditiveAttention(4)(torch.ones(1, 3, 4), torch.tensor([[True, True, False]]))
    >>> weights.tolist(), mean.tolist()
    ([[0.5, 0.5, 0.0]], [[1.0, 1.0, 1.0, 1.0]])
    """

    def __init__(self, width: int, *, hidden: int | None = None, query_width: int = 0) -> None:
        super().__init__()
        hidden = hidden or width
        self.states = nn.Linear(width, hidden)
        self.query = nn.Linear(query_width, hidden, bias=False) if query_width else None
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(
        self, states_BTE: Tensor, real_BT: Tensor | None = None, query_BQ: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        hidden = self.states(states_BTE)
        if self.query is not None:
            assert query_BQ is not None, "this layer was made for a query"
            hidden = hidden + self.query(query_BQ).unsqueeze(1)
        scores_BT = self.score(hidden.tanh()).squeeze(-1)
        if real_BT is not None:  # the least number, not minus infinity, which is NaN in a row without any real state
            scores_BT = scores_BT.masked_fill(~real_BT, torch.finfo(scores_BT.dtype).min)
        weights_BT = scores_BT.softmax(-1)
        if real_BT is not None:
            weights_BT = weights_BT * real_BT
            states_BTE = states_BTE.masked_fill(~real_BT.unsqueeze(-1), 0.0)
        return torch.einsum("bt,bte->be", weights_BT.to(states_BTE.dtype), states_BTE), weights_BT
