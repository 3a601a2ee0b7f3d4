"""Recurrent layers, against torch with packed sequences and against the equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zhixing.layers.recurrent import (
    AdditiveAttention,
    CellKind,
    CellWeights,
    Recurrent,
    gru_step,
    lstm_step,
    rnn_step,
)
from zhixing.models import ENCODERS, Encoder, Spec

CELLS: list[CellKind] = ["rnn", "lstm", "gru"]
TORCH: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def ragged(lengths: list[int], most: int) -> Tensor:
    return torch.arange(most) < torch.tensor(lengths)[:, None]


def pair(cell: CellKind, layers: int, bidirectional: bool) -> tuple[Recurrent, Any]:
    """Ours and torch's with the same weights."""
    torch.manual_seed(0)
    ours = Recurrent(cell, 3, 5, layers=layers, bidirectional=bidirectional)
    theirs = TORCH[cell](3, 5, layers, batch_first=True, bidirectional=bidirectional)
    if not bidirectional:
        theirs.load_state_dict(ours.stages[0][0].state_dict())
        return ours, theirs
    weights = {
        f"{key.removesuffix('_l0')}_l{layer}{'_reverse' if way else ''}": value
        for layer, stage in enumerate(ours.stages)
        for way, kernel in enumerate(stage)
        for key, value in kernel.state_dict().items()
    }
    theirs.load_state_dict(weights)
    return ours, theirs


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_it_is_torchs_with_packed_sequences(cell: CellKind, bidirectional: bool, layers: int) -> None:
    ours, theirs = pair(cell, layers, bidirectional)
    lengths = [4, 7, 1, 5]
    x = torch.randn(4, 7, 3)
    packed, ends = theirs(pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    ends = (ends[0] if cell == "lstm" else ends)[-2:] if bidirectional else (ends[0] if cell == "lstm" else ends)[-1:]
    states, last = ours(x, ragged(lengths, 7))
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(last, torch.cat(list(ends), dim=-1), rtol=1e-5, atol=1e-6)
    assert states.shape[-1] == last.shape[-1] == ours.width
    full, _ = theirs(x)
    torch.testing.assert_close(ours(x)[0], full, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours(x, torch.ones(4, 7).bool()), ours(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_the_equations_are_torchs(cell: CellKind) -> None:
    torch.manual_seed(0)
    kernel = TORCH[cell](4, 6, batch_first=True)
    weights = CellWeights(*kernel.parameters())
    x = torch.randn(3, 9, 4)
    h, memory = torch.zeros(3, 6), torch.zeros(3, 6)
    states = []
    for step in x.unbind(1):
        if cell == "lstm":
            h, memory = lstm_step(step, h, memory, weights)
        else:
            h = (rnn_step if cell == "rnn" else gru_step)(step, h, weights)
        states.append(h)
    expected, end = kernel(x)
    torch.testing.assert_close(torch.stack(states, dim=1), expected, rtol=1e-5, atol=1e-6)
    if cell == "lstm":
        torch.testing.assert_close(memory, end[1][0], rtol=1e-5, atol=1e-6)


rows = st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(rows, st.sampled_from(CELLS), st.booleans(), st.integers(0, 3))
def test_only_real_steps_are_read_wherever_they_stand(
    masks: list[list[bool]], cell: CellKind, bidirectional: bool, more: int
) -> None:
    torch.manual_seed(0)
    layer = Recurrent(cell, 2, 4, layers=2, bidirectional=bidirectional)
    real = torch.tensor(masks)
    x = torch.randn(len(masks), 6, 2)
    garbage = x.masked_fill(~real.unsqueeze(-1), torch.nan)
    longer = torch.cat([garbage, torch.full((len(x), more, 2), torch.inf)], dim=1)
    states, last = layer(longer, torch.cat([real, torch.zeros(len(x), more, dtype=torch.bool)], dim=1))
    assert not states[:, 6:].any()
    assert not states[:, :6][~real].any()
    for row, mask in enumerate(real):
        if not mask.any():
            assert not last[row].any()
            continue
        alone, end = layer(x[row : row + 1, mask])
        torch.testing.assert_close(states[row, :6][mask], alone[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(last[row], end[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_permuting_rows_permutes_results(cell: CellKind) -> None:
    layer = Recurrent(cell, 3, 4, bidirectional=True)
    x, real, order = torch.randn(5, 6, 3), ragged([6, 2, 5, 0, 1], 6), torch.tensor([3, 1, 4, 0, 2])
    for here, there in zip(layer(x, real), layer(x[order], real[order]), strict=True):
        torch.testing.assert_close(here[order], there, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("padded", [True, False])
def test_reading_backwards_swaps_the_directions(cell: CellKind, padded: bool) -> None:
    """With the kernels of the two directions exchanged, the reversed rows give the reversed states, halves swapped."""
    torch.manual_seed(0)
    layer, swapped = Recurrent(cell, 3, 4, bidirectional=True), Recurrent(cell, 3, 4, bidirectional=True)
    for one, other in zip(layer.stages[0], reversed(list(swapped.stages[0])), strict=True):
        other.load_state_dict(one.state_dict())
    x, real = torch.randn(2, 5, 3), ragged([5, 3], 5) if padded else None
    states, last = layer(x, real)
    back, back_last = swapped(x.flip(1), None if real is None else real.flip(1))
    torch.testing.assert_close(back.flip(1).roll(4, dims=-1), states, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(back_last.roll(4, dims=-1), last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_gradients(cell: CellKind, bidirectional: bool) -> None:
    torch.manual_seed(0)
    layer = Recurrent(cell, 2, 2, bidirectional=bidirectional).double()
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    real = torch.tensor([[True, True, False], [False, True, True]])
    assert torch.autograd.gradcheck(lambda x: layer(x, real), (x,))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_garbage_in_padding_does_not_reach_gradients(bidirectional: bool) -> None:
    layer = Recurrent("lstm", 2, 3, layers=2, bidirectional=bidirectional)
    x, real = torch.randn(3, 4, 2), ragged([4, 2, 0], 4)
    states, last = layer(x.masked_fill(~real.unsqueeze(-1), torch.nan), real)
    (states.sum() + last.sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize("bidirectional", [True, False])
def test_dropout_between_layers_acts_in_training_alone(bidirectional: bool) -> None:
    layer, x = Recurrent("gru", 2, 8, layers=2, bidirectional=bidirectional, dropout=0.5), torch.randn(2, 4, 2)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    Recurrent("gru", 2, 8, bidirectional=bidirectional, dropout=0.5)  # nothing between one layer, and no warning


# Additive attention


@torch.no_grad()
def test_additive_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    layer = AdditiveAttention(4, hidden=5, query_width=3)
    states, query, real = torch.randn(2, 6, 4), torch.randn(2, 3), ragged([6, 2], 6)
    mean, weights = layer(states, real, query)
    assert layer.query is not None
    for row, length in enumerate([6, 2]):
        scores = [
            float(layer.score.weight[0] @ torch.tanh(layer.states(h) + layer.query.weight @ query[row]))
            for h in states[row, :length]
        ]
        expected = torch.tensor(scores).softmax(0)
        torch.testing.assert_close(weights[row, :length], expected)
        torch.testing.assert_close(mean[row], expected @ states[row, :length])
    assert not weights[1, 2:].any()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_weights_sum_to_one_or_to_nothing(lengths: list[int]) -> None:
    layer, real = AdditiveAttention(3), ragged(lengths, 4)
    states = torch.randn(len(lengths), 4, 3).masked_fill(~real.unsqueeze(-1), torch.nan)
    mean, weights = layer(states.nan_to_num(7.0), real)
    torch.testing.assert_close(weights.sum(1), real.any(1).float())
    assert mean.isfinite().all()
    assert not mean[~real.any(1)].any()


def test_gradients_of_additive_attention() -> None:
    layer = AdditiveAttention(2).double()
    states, real = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True), ragged([2, 0], 3)
    assert torch.autograd.gradcheck(lambda states: layer(states, real), (states,))


# The encoders


def encoder(name: str, **keywords: Any) -> Encoder:
    torch.manual_seed(0)
    return ENCODERS[name](Spec("sequence", (6, 3)), width=5, **keywords)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
def test_encoders_read_real_steps_alone(name: str, bidirectional: bool, pooling: str) -> None:
    model = encoder(name, bidirectional=bidirectional, pooling=pooling, layers=2)
    values, mask = torch.randn(3, 6, 3), ragged([6, 2, 0], 6)
    encoding = model(values, mask)
    assert encoding.pooled.shape == (3, 10 if bidirectional else 5) == (3, model.width)
    assert encoding.tokens.shape == (3, 6, model.token_width)
    assert encoding.mask is mask
    alone = model(values[1:2, :2])
    torch.testing.assert_close(alone.pooled[0], encoding.pooled[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone.tokens[0], encoding.tokens[1, :2], rtol=1e-5, atol=1e-6)
    assert not encoding.pooled[2].any()


@pytest.mark.parametrize("name", CELLS)
def test_rows_of_a_picture_are_its_steps(name: str) -> None:
    torch.manual_seed(0)
    model = ENCODERS[name](Spec("image", (2, 6, 4)), width=5)
    values = torch.randn(3, 2, 6, 4)
    rows = torch.stack([values[:, :, row].flatten(1) for row in range(6)], dim=1)
    sequence = ENCODERS[name](Spec("sequence", (6, 8)), width=5)
    sequence.load_state_dict(model.state_dict())
    encoding = model(values, torch.ones(3).bool())  # an image's mask is of rows of the table
    assert torch.equal(encoding.pooled, sequence(rows).pooled)
    assert encoding.mask is None


# Where a graph is broken, as around torch's kernels, dynamo itself asks a tensor that is no leaf for its gradient.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", CELLS)
def test_bfloat16_and_compilation(name: str) -> None:
    model, values, mask = encoder(name, bidirectional=True), torch.randn(3, 6, 3), ragged([6, 2, 4], 6)
    expected = model(values, mask).pooled
    with torch.autocast("cpu", torch.bfloat16):
        halved = model(values, mask).pooled
    torch.testing.assert_close(halved.float(), expected, rtol=0.1, atol=0.05)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")  # torch's own kernels stay outside of the graph
    torch.testing.assert_close(compiled(values, mask).pooled, expected)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):  # unless they are let in
        whole = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(whole(values, mask).pooled, expected)
    assert torch.equal(model(values, mask).pooled, expected)


def test_states_after_the_true_ends() -> None:
    model = encoder("lstm", bidirectional=True)
    values, mask = torch.randn(2, 6, 3), ragged([6, 4], 6)
    encoding = model(values, mask)
    assert torch.equal(encoding.pooled[1, :5], encoding.tokens[1, 3, :5])  # forwards: after the fourth step
    assert torch.equal(encoding.pooled[1, 5:], encoding.tokens[1, 0, 5:])  # backwards: after the first


@pytest.mark.parametrize(("name", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_parameter_counts(name: str, gates: int) -> None:
    model = ENCODERS[name](Spec("sequence", (6, 3)), width=5, layers=2, bidirectional=True)
    first, second = 3 * 5 + 5 * 5 + 2 * 5, 10 * 5 + 5 * 5 + 2 * 5
    assert sum(parameter.numel() for parameter in model.parameters()) == 2 * gates * (first + second)
