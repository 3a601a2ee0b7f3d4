"""Positions, against their closed forms and hand-computed tables."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zhixing.errors import UsageError
from zhixing.layers.attention import Attention, Mask
from zhixing.layers.normalise import RMSNorm, make_norm
from zhixing.layers.positions import (
    ALiBi,
    Learned,
    Positions,
    RelativeBias,
    Rotary,
    Sinusoidal,
    alibi_slopes,
    make_positions,
    relative_buckets,
    sinusoids,
    sinusoids_2d,
)

places = st.integers(0, 3000)


def rotate(layer: Rotary, x: torch.Tensor, at: int) -> torch.Tensor:
    rotation = layer.rotation(torch.tensor([at]), x.dtype)
    return rotation.turn(x.reshape(1, 1, 1, -1)).flatten()


@settings(deadline=None, max_examples=60)
@given(places, places, places, st.booleans(), st.sampled_from([None, 2, 4, 8]), st.floats(10, 1e6))
def test_rotary_products_depend_on_the_distance_alone(
    one: int, other: int, shift: int, interleaved: bool, part: int | None, base: float
) -> None:
    layer = Rotary(8, base=base, part=part, interleaved=interleaved)
    query, key = torch.randn(2, 8, dtype=torch.float64)
    here = rotate(layer, query, one) @ rotate(layer, key, other)
    there = rotate(layer, query, one + shift) @ rotate(layer, key, other + shift)
    torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-9)
    # The closed form: pair i turns by place x base^(-i / pairs), as complex numbers.
    units = 8 if part is None else part
    pairs = units // 2

    def paired(x: torch.Tensor) -> torch.Tensor:
        first, second = (x[0:units:2], x[1:units:2]) if interleaved else (x[:pairs], x[pairs:units])
        return torch.complex(first, second)

    angles = (one - other) * base ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    turned = (paired(query) * paired(key).conj() * torch.polar(torch.ones_like(angles), angles)).real.sum()
    expected = turned + query[units:] @ key[units:]
    torch.testing.assert_close(here, expected, rtol=1e-9, atol=1e-9)


def test_both_pairings_are_one_up_to_a_permutation() -> None:
    x, at = torch.randn(2, 3, 5, 12), torch.arange(5) * 7
    order = [*range(0, 12, 2), *range(1, 12, 2)]
    interleaved = Rotary(12, interleaved=True).rotation(at, x.dtype).turn(x)
    half_split = Rotary(12).rotation(at, x.dtype).turn(x[..., order])
    torch.testing.assert_close(interleaved[..., order], half_split)
    assert not torch.allclose(interleaved, Rotary(12).rotation(at, x.dtype).turn(x))


def test_rotary_keeps_lengths_types_and_the_units_that_are_not_turned() -> None:
    x, at = torch.randn(1, 2, 4, 10), torch.tensor([[3, 0, 9, 1]])
    turned = Rotary(10, part=6).rotation(at, x.dtype).turn(x)
    assert torch.equal(turned[..., 6:], x[..., 6:])
    assert torch.equal(turned[:, :, 1], x[:, :, 1])  # place 0
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    half = Rotary(10).rotation(at, torch.bfloat16).turn(x.bfloat16())
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize(("head", "part"), [(5, None), (8, 3), (8, 10), (8, 0)])
def test_units_that_cannot_be_paired_are_refused(head: int, part: int | None) -> None:
    with pytest.raises(UsageError, match="cannot be paired"):
        Rotary(head, part=part)


def test_alibi_slopes_are_the_papers() -> None:
    assert alibi_slopes(8) == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert alibi_slopes(16) == pytest.approx([2 ** (-head / 2) for head in range(1, 17)])
    assert alibi_slopes(12) == pytest.approx([*alibi_slopes(8), 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])
    assert alibi_slopes(1) == [2**-8]


def test_alibi_bias() -> None:
    bias = ALiBi(2).bias(torch.arange(3), torch.arange(3))
    expected = torch.tensor([[0.0, 1, 2], [1, 0, 1], [2, 1, 0]])
    torch.testing.assert_close(bias, torch.stack([-expected / 16, -expected / 256])[None])
    per_row = ALiBi(2).bias(torch.tensor([[4], [2]]), torch.tensor([[0, 4], [1, 2]]))
    assert per_row.tolist() == [[[[-4 / 16, 0.0]], [[-4 / 256, 0.0]]], [[[-1 / 16, 0.0]], [[-1 / 256, 0.0]]]]


def test_relative_buckets_by_hand() -> None:
    """32 buckets up to 128. Both ways: 8 exact ones a side, then 8 + floor(8 log(n / 8) / log 16)."""
    past = {
        0: 0,
        1: 1,
        7: 7,
        8: 8,
        11: 8,
        12: 9,
        15: 9,
        16: 10,
        22: 10,
        23: 11,
        32: 12,
        46: 13,
        64: 14,
        91: 15,
        128: 15,
    }
    past |= {1000: 15}
    away = torch.tensor(list(past))
    assert relative_buckets(-away).tolist() == list(past.values())
    assert relative_buckets(away[1:]).tolist() == [16 + number for number in list(past.values())[1:]]
    # Causal: 16 exact ones, then 16 + floor(16 log(n / 16) / log 8); what comes after is in bucket 0.
    causal = {0: 0, 1: 1, 15: 15, 16: 16, 18: 16, 19: 17, 32: 21, 64: 26, 113: 31, 127: 31, 128: 31, 5000: 31}
    away = torch.tensor(list(causal))
    assert relative_buckets(-away, causal=True).tolist() == list(causal.values())
    assert relative_buckets(away, causal=True).tolist() == [0] * len(causal)


@given(st.integers(0, 10_000), st.booleans())
def test_relative_buckets_never_fall_with_distance(away: int, causal: bool) -> None:
    near, far = relative_buckets(-torch.tensor([away, away + 1]), causal=causal).tolist()
    assert 0 <= near <= far <= 31


def test_relative_bias_looks_its_table_up() -> None:
    layer = RelativeBias(3)
    bias = layer.bias(torch.tensor([5]), torch.tensor([0, 5, 6]))
    assert bias.shape == (1, 3, 1, 3)
    assert torch.equal(bias[0, :, 0], layer.table.weight[[5, 0, 17]].T)


def test_sinusoids() -> None:
    table = sinusoids(torch.tensor([0, 3, 500]), 6)
    for row, place in enumerate([0, 3, 500]):
        for unit in range(6):
            angle = place / 10_000 ** ((unit - unit % 2) / 6)
            assert float(table[row, unit]) == pytest.approx(math.cos(angle) if unit % 2 else math.sin(angle), abs=1e-4)
    assert sinusoids(torch.arange(4), 5).shape == (4, 5)
    flat = sinusoids_2d(2, 3, 8)
    assert torch.equal(flat[4], torch.cat([sinusoids(torch.tensor(1), 4), sinusoids(torch.tensor(1), 4)]))
    assert torch.equal(flat[2], torch.cat([sinusoids(torch.tensor(0), 4), sinusoids(torch.tensor(2), 4)]))
    assert len({tuple(row) for row in sinusoids_2d(9, 7, 13).tolist()}) == 63  # every cell has a place of its own


def test_added_positions() -> None:
    x = torch.randn(2, 3, 4)
    learned = Learned(4, length=5)
    assert torch.equal(learned.embed(x, torch.tensor([1, 0, 4])), x + learned.table.weight[[1, 0, 4]])
    assert torch.equal(Sinusoidal().embed(x, torch.arange(3)), x + sinusoids(torch.arange(3), 4))
    with pytest.raises(IndexError):
        learned.embed(x, torch.tensor([1, 0, 5]))


def test_the_table_of_kinds() -> None:
    kinds = {
        "none": Positions,
        "sinusoidal": Sinusoidal,
        "learned": Learned,
        "rotary": Rotary,
        "relative": RelativeBias,
    }
    for kind, layer in {**kinds, "alibi": ALiBi}.items():
        made = make_positions(kind, width=16, heads=2, length=9)  # type: ignore[arg-type]
        assert type(made) is layer
    nothing = Positions()
    x = torch.randn(1, 2, 4)
    assert nothing.embed(x, torch.arange(2)) is x
    assert nothing.rotation(torch.arange(2), x.dtype) is None
    assert nothing.bias(torch.arange(2), torch.arange(2)) is None


@pytest.mark.parametrize("kind", ["rotary", "relative", "alibi"])
def test_relative_kinds_do_not_see_a_shift_of_all_places(kind: str) -> None:
    torch.manual_seed(0)
    layer = Attention(16, heads=2).double()
    positions = make_positions(kind, width=16, heads=2, length=9).double()  # type: ignore[arg-type]
    x = torch.randn(2, 5, 16, dtype=torch.float64)

    def run(at: torch.Tensor) -> torch.Tensor:
        return layer(x, mask=Mask.of(bias=positions.bias(at, at)), rotation=positions.rotation(at, x.dtype))

    here = run(torch.arange(5))
    torch.testing.assert_close(run(torch.arange(5) + 40), here, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(run(torch.tensor([4, 2, 0, 1, 3])), here, atol=1e-4)


# Norms


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rms_norm_is_torchs(dtype: torch.dtype) -> None:
    ours, theirs = RMSNorm(33, eps=1e-5).to(dtype), nn.RMSNorm(33, eps=1e-5).to(dtype)
    with torch.no_grad():
        ours.weight.copy_(torch.randn(33))
        theirs.weight.copy_(ours.weight)
    x = 5 * torch.randn(4, 7, 33, dtype=dtype)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(ours(x), theirs(x), rtol=tolerance, atol=tolerance)
    assert ours(x).dtype == dtype
    assert ours(torch.zeros(1, 33, dtype=dtype)).isfinite().all()


def test_rms_norm_gradients_and_the_names_of_norms() -> None:
    layer = RMSNorm(5).double()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, weight: torch.func.functional_call(layer, {"weight": weight}, x), (x, layer.weight)
    )
    assert isinstance(make_norm("rms", 5), RMSNorm)
    assert make_norm("layer", 5, bias=False).bias is None
    assert make_norm("layer", 5, eps=1e-12).eps == 1e-12
