"""Attention, against torch.nn.MultiheadAttention and against its own definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zhixing.errors import UsageError
from zhixing.layers import attention
from zhixing.layers.attention import OPEN, Attention, KeysValues, Mask, pays_to_write_down, written_down
from zhixing.layers.positions import ALiBi, RelativeBias, Rotary


def pair(width: int = 12, heads: int = 3, bias: bool = True) -> tuple[Attention, nn.MultiheadAttention]:
    """Ours and torch's with the same weights."""
    torch.manual_seed(0)
    ours = Attention(width, heads=heads, bias=bias)
    theirs = nn.MultiheadAttention(width, heads, bias=bias, batch_first=True)
    copy_attention(ours, theirs)
    return ours, theirs


def copy_attention(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        for name in ("weight", "bias"):
            stacked = getattr(theirs, f"in_proj_{name}")
            if stacked is not None:
                stacked.copy_(torch.cat([getattr(part, name) for part in (ours.query, ours.key, ours.value)]))
                getattr(theirs.out_proj, name).copy_(getattr(ours.out, name))


def ragged(lengths: list[int], most: int) -> Tensor:
    return torch.arange(most) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_self_attention_is_torchs(bias: bool, padded: bool, causal: bool) -> None:
    ours, theirs = pair(bias=bias)
    x = torch.randn(3, 6, 12)
    real = ragged([6, 4, 1], 6) if padded else None
    expected, _ = theirs(
        *(x, x, x),
        key_padding_mask=None if real is None else ~real,
        attn_mask=torch.ones(6, 6).triu(1).bool() if causal else None,
        need_weights=False,
    )
    torch.testing.assert_close(ours(x, mask=Mask.of(real, causal=causal)), expected, rtol=1e-5, atol=1e-6)


def test_cross_attention_is_torchs() -> None:
    ours, theirs = pair()
    x, source, real = torch.randn(2, 4, 12), torch.randn(2, 7, 12), ragged([7, 3], 7)
    expected, _ = theirs(x, source, source, key_padding_mask=~real, need_weights=False)
    torch.testing.assert_close(ours(x, source, mask=Mask.of(real)), expected, rtol=1e-5, atol=1e-6)
    once = ours.keys_values(source)
    torch.testing.assert_close(ours(x, once, mask=Mask.of(real)), expected, rtol=1e-5, atol=1e-6)


def by_hand(layer: Attention, x: Tensor, scores_bias: Tensor, at: Tensor | None = None) -> Tensor:
    """Head by head, from the definition; keys and values are shared by runs of heads."""
    width = layer.head_width
    share = layer.heads // layer.kv_heads
    answers = []
    for head in range(layer.heads):
        mine, shared = (
            slice(head * width, (head + 1) * width),
            slice(head // share * width, (head // share + 1) * width),
        )
        query, key, value = layer.query(x)[..., mine], layer.key(x)[..., shared], layer.value(x)[..., shared]
        if at is not None:
            rotation = Rotary(width).rotation(at, x.dtype)
            query, key = (rotation.turn(part.unsqueeze(1)).squeeze(1) for part in (query, key))
        scores = query @ key.transpose(-1, -2) / width**0.5 + scores_bias[:, head % scores_bias.shape[1]]
        answers.append(scores.softmax(-1) @ value)
    return layer.out(torch.cat(answers, dim=-1))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_grouped_attention_with_bias_and_rotation_is_its_definition(kv_heads: int, causal: bool) -> None:
    torch.manual_seed(1)
    layer, x, at = Attention(16, heads=4, kv_heads=kv_heads).double(), torch.randn(2, 5, 16).double(), torch.arange(5)
    bias = RelativeBias(4).double().bias(at, at).detach() * 50
    out = layer(x, mask=Mask.of(causal=causal, bias=bias), rotation=Rotary(4).rotation(at, x.dtype))
    ahead = torch.ones(5, 5).triu(1).bool() if causal else torch.zeros(5, 5).bool()
    torch.testing.assert_close(out, by_hand(layer, x, bias.masked_fill(ahead, -torch.inf), at))


def test_grouped_attention_is_multi_head_with_repeated_keys() -> None:
    torch.manual_seed(0)
    grouped, full = Attention(24, heads=6, kv_heads=2), Attention(24, heads=6)
    weights = grouped.state_dict()
    for part in ("key", "value"):
        for name in ("weight", "bias"):
            shared = weights[f"{part}.{name}"].unflatten(0, (2, 4))
            weights[f"{part}.{name}"] = shared.repeat_interleave(3, dim=0).flatten(0, 1)
    full.load_state_dict(weights)
    x, mask = torch.randn(2, 7, 24), Mask.of(ragged([7, 5], 7), causal=True)
    torch.testing.assert_close(grouped(x, mask=mask), full(x, mask=mask), rtol=1e-5, atol=1e-6)
    assert grouped.key.weight.numel() * 3 == full.key.weight.numel()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_rows_without_a_real_token_give_zeros(causal: bool, with_bias: bool) -> None:
    layer, x = Attention(8, heads=2), torch.randn(3, 4, 8, requires_grad=True)
    real = torch.tensor([[True] * 4, [False] * 4, [False, False, True, True]])
    bias = ALiBi(2).bias(torch.arange(4), torch.arange(4)) if with_bias else None
    out = layer(x, mask=Mask.of(real, causal=causal, bias=bias))
    assert not out[1].any()
    assert out[0].all()
    assert bool(out[2, :2].any()) is not causal  # being causal, the padding before all real tokens sees none
    out.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert not x.grad[1].any()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.booleans(), st.integers(0, 3))
def test_what_stands_in_padding_changes_nothing(lengths: list[int], causal: bool, more: int) -> None:
    torch.manual_seed(0)
    layer, x, real = Attention(8, heads=2, kv_heads=1), torch.randn(len(lengths), 5, 8), ragged(lengths, 5)
    out = layer(x, mask=Mask.of(real, causal=causal))
    other = torch.where(real.unsqueeze(-1), x, 1e4 * torch.randn_like(x))
    longer = torch.cat([other, torch.randn(len(x), more, 8)], dim=1)
    again = layer(longer, mask=Mask.of(ragged(lengths, 5 + more), causal=causal))[:, :5]
    torch.testing.assert_close(again[real], out[real], rtol=1e-4, atol=1e-5)


def test_permuting_tokens_permutes_answers() -> None:
    layer, x, order = Attention(8, heads=2), torch.randn(2, 6, 8), torch.randperm(6)
    torch.testing.assert_close(layer(x)[:, order], layer(x[:, order]), rtol=1e-5, atol=1e-6)


def test_cache_of_one_layer() -> None:
    layer, x = Attention(8, heads=2, kv_heads=1), torch.randn(2, 5, 8)
    whole = layer(x, mask=Mask.of(causal=True))
    cache = KeysValues(torch.zeros(2, 1, 9, 4), torch.zeros(2, 1, 9, 4))
    with torch.no_grad():
        for step in range(5):
            slots, real = torch.tensor([step]), (torch.arange(9) <= step).expand(2, -1)
            mask = Mask.of(real, causal=True, slots_T=slots)
            out = layer(x[:, step : step + 1], mask=mask, cache=cache, slots_T=slots)
            torch.testing.assert_close(out, whole[:, step : step + 1], rtol=1e-5, atol=1e-6)
    assert cache.keys.shape == (2, 1, 9, 4)
    assert not cache.keys[:, :, 5:].any()


def test_the_fast_way_is_taken_where_there_is_one() -> None:
    assert Mask.of() == OPEN
    assert Mask.of(causal=True) == Mask(causal=True)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "what"), [(5, None, "width 12 is not"), (4, 3, "4 heads cannot share 3")]
)
def test_wrong_heads_are_refused(heads: int, kv_heads: int | None, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        Attention(12, heads=heads, kv_heads=kv_heads)


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("padded", [True, False])
def test_gradients(kv_heads: int, padded: bool) -> None:
    torch.manual_seed(0)
    layer = Attention(4, heads=2, kv_heads=kv_heads).double()
    positions, at = RelativeBias(2).double(), torch.arange(3)
    real = ragged([3, 2], 3) if padded else None
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, table: Tensor, *weights: Tensor) -> Any:
        named = dict(zip(dict(layer.named_parameters()), weights, strict=True))
        bias = torch.func.functional_call(Bias(positions), {"positions.table.weight": table}, (at,))
        mask = Mask.of(real, causal=padded, bias=bias)
        return torch.func.functional_call(
            layer, named, (x,), {"mask": mask, "rotation": Rotary(2).rotation(at, x.dtype)}
        )

    assert torch.autograd.gradcheck(run, (x, positions.table.weight, *layer.parameters()))


class Bias(nn.Module):
    def __init__(self, positions: RelativeBias) -> None:
        super().__init__()
        self.positions = positions

    def forward(self, at: Tensor) -> Tensor:
        return self.positions.bias(at, at)


@pytest.mark.parametrize("with_bias", [True, False])
def test_bfloat16(with_bias: bool) -> None:
    layer, x, at = Attention(16, heads=4, kv_heads=2), torch.randn(2, 5, 16), torch.arange(5)
    bias = ALiBi(4).bias(at, at) if with_bias else None
    mask, rotation = Mask.of(ragged([5, 3], 5), bias=bias), Rotary(4).rotation(at, x.dtype)
    expected = layer(x, mask=mask, rotation=rotation)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x, mask=mask, rotation=rotation)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.03)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("kind", ["open", "causal", "boolean", "float"])
@pytest.mark.parametrize("rows", [2, 3])
def test_weights_written_down_give_what_the_fused_kernel_gives(
    rows: int, kind: str, kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(attention, "CACHED", rows * 4 * 5 * 5)  # of 3 rows: in two parts, or at once
    parts = [torch.randn(3, heads, 5, 8, requires_grad=True) for heads in (4, kv_heads, kv_heads)]
    scores = {"boolean": torch.rand(3, 1, 5, 5) < 0.7, "float": torch.randn(1, 4, 5, 5)}.get(kind)
    if scores is not None and kind == "boolean":
        scores = scores | torch.eye(5, dtype=torch.bool)
    found = written_down(*parts, scores, causal=kind == "causal")
    expected = nn.functional.scaled_dot_product_attention(
        *parts, attn_mask=scores, is_causal=kind == "causal", enable_gqa=True
    )
    gradient = torch.randn_like(found)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(*(torch.autograd.grad(x, parts, gradient) for x in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tokens", [attention.MANY - 1, attention.MANY, 200])
def test_weights_written_down_in_bfloat16_are_near_the_true_ones(tokens: int) -> None:
    """There and back, whichever format the softmax is in; a number in bf16 is itself off by up to 0.4 %."""
    torch.manual_seed(0)
    exact = [torch.randn(2, 4, tokens, 16).bfloat16().double().requires_grad_() for _ in range(3)]
    rough = [part.detach().bfloat16().requires_grad_() for part in exact]
    wanted = nn.functional.scaled_dot_product_attention(*exact, is_causal=True)
    out = written_down(*rough, None, causal=True)
    back = torch.randn_like(out)
    found = [out, *torch.autograd.grad(out, rough, back)]
    true = [wanted, *torch.autograd.grad(wanted, exact, back.double())]
    for one, other in zip(found, true, strict=True):
        assert float(((one.double() - other).norm() / other.norm()).detach()) < 0.01


def test_where_it_pays_to_write_weights_down() -> None:
    def asked(tokens: int, dtype: torch.dtype = torch.bfloat16, learns: bool = True, rows: int = 2) -> bool:
        query = torch.zeros(rows, 8, tokens, 8, dtype=dtype, requires_grad=learns)
        return pays_to_write_down(query, query)

    assert asked(28)
    assert asked(512)
    assert not asked(513)
    assert not asked(512, rows=33)
    assert not asked(28, torch.float32)
    assert not asked(28, learns=False)


def test_the_same_bits_again() -> None:
    layer, x, mask = Attention(16, heads=4), torch.randn(3, 9, 16), Mask.of(ragged([9, 2, 0], 9), causal=True)
    assert torch.equal(layer(x, mask=mask), layer(x, mask=mask))
