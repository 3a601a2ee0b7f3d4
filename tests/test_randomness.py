"""Random numbers: a function of their place, even, independent, and the same for good."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.randomness import bits, fold, permutation, reseed, uniform, uniform_rows

FEW = settings(max_examples=60, deadline=None, derandomize=True)
KEYS = st.lists(st.one_of(st.integers(0, 2**63), st.text("abcxyz ", min_size=2, max_size=6)), min_size=1, max_size=4)


def test_the_numbers_are_these() -> None:
    """A change of these changes every split and every run: it must not come unseen."""
    assert fold(0) == 16294208416658607535  # the first number of SplitMix64 from 0, as published
    assert [int(x) for x in bits(3, 0)] == [int(x) for x in bits(5, 0)[:3]]
    assert permutation(10, 0, "order", 0).tolist() == PERMUTATION
    assert uniform_rows(torch.tensor([0, 7]), 3, 1, 2, "augment").flatten().tolist() == pytest.approx(ROWS, abs=1e-7)


PERMUTATION = [4, 0, 3, 9, 8, 7, 1, 2, 6, 5]
ROWS = [0.286535859, 0.908399701, 0.434557259, 0.189552605, 0.613025606, 0.211868823]


@FEW
@given(KEYS, KEYS)
def test_keys_differ(one, other) -> None:
    assert (fold(*one) == fold(*other)) == (one == other)
    assert 0 <= fold(*one) < 2**64


@FEW
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 2**40))
def test_more_rows_do_not_change_the_first(few, many, key) -> None:
    few, many = sorted((few, many))
    assert (bits(many, key)[:few] == bits(few, key)).all()
    assert sorted(permutation(many, key).tolist()) == list(range(many))


def test_they_are_even_and_independent() -> None:
    some = uniform(100_000, 3, "x")
    assert 0 <= some.min() < some.max() < 1
    assert scipy.stats.kstest(some, "uniform").pvalue > 1e-3
    for other in (uniform(100_000, 4, "x"), uniform(100_000, 3, "y"), np.roll(some, 1)):
        assert abs(np.corrcoef(some, other)[0, 1]) < 0.015
    counts = np.bincount((some[:-1] * 10).astype(int) * 10 + (some[1:] * 10).astype(int), minlength=100)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_bits_are_fair() -> None:
    ones = np.unpackbits(bits(20_000, 9).view(np.uint8)).reshape(-1, 64).mean(0)
    assert np.abs(ones - 0.5).max() < 0.02


def test_numbers_of_rows_are_their_own_and_even() -> None:
    rows = torch.tensor([5, 0, 10**12, 5, 7])
    draws = uniform_rows(rows, 6, 1, 2, "x")
    assert draws.shape == (5, 6)
    assert torch.equal(draws[0], draws[3])
    for place in range(5):
        assert torch.equal(uniform_rows(rows[place : place + 1], 3, 1, 2, "x")[0], draws[place, :3])
    many = uniform_rows(torch.arange(50_000), 8, 0, 0, "augment").double().numpy()
    assert many.min() >= 0
    assert many.max() < 1
    assert min(scipy.stats.kstest(column, "uniform").pvalue for column in many.T) > 1e-4
    assert np.abs(np.corrcoef(many.T) - np.eye(8)).max() < 0.02
    after = uniform_rows(torch.arange(50_000), 8, 0, 1, "augment").double().numpy()
    assert max(abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(many.T, after.T, strict=True)) < 0.02
    neighbours = max(abs(np.corrcoef(column[:-1], column[1:])[0, 1]) for column in many.T)
    assert neighbours < 0.02


def test_permutations_differ_by_epoch_and_are_fair() -> None:
    seen = np.stack([permutation(8, 0, "order", epoch) for epoch in range(4000)])
    counts = np.stack([np.bincount(column, minlength=8) for column in seen.T])
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-3
    assert len(np.unique(seen, axis=0)) > 3700


def test_dropout_follows_the_key() -> None:
    device = torch.device("cpu")
    reseed(device, 1, 2)
    one = torch.rand(4)
    reseed(device, 1, 3)
    other = torch.rand(4)
    reseed(device, 1, 2)
    assert torch.equal(torch.rand(4), one)
    assert not torch.equal(one, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_draws_the_same_numbers_and_the_host_does_not_wait() -> None:
    rows = torch.arange(1000)
    there = rows.cuda()
    uniform_rows(there, 5, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn = uniform_rows(there, 5, 1, 2, "x")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(drawn.cpu(), uniform_rows(rows, 5, 1, 2, "x"))


def test_numbers_of_rows_by_whole_numbers() -> None:
    """The same arithmetic without tensors, whose 64 bits carry a sign."""
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    rows = torch.tensor([0, 1, 977, 2**62])
    want = [
        [
            (mix((row * golden + mix(((draw + 1) * golden + fold(5, "x")) & mask)) & mask) >> 40) * 2.0**-24
            for draw in range(4)
        ]
        for row in rows.tolist()
    ]
    assert uniform_rows(rows, 4, 5, "x").tolist() == want
