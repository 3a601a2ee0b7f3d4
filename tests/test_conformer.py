"""The Conformer: parameters counted by hand, padding that changes nothing, order that counts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.errors import UsageError
from zhixing.models.conformer import Conformer, ConvolutionModule
from zhixing.models.encoding import Spec


def conformer(features: int = 6, **changes: object) -> Conformer:
    torch.manual_seed(0)
    chosen = {"width": 16, "depth": 2, "heads": 4, "kernel": 5, "dropout": 0.0} | changes
    return Conformer(Spec("sequence", (50, features)), **chosen)


def test_parameters_are_those_of_the_formula() -> None:
    features, width, depth, kernel = 80, 144, 4, 15

    def linear(inward: int, outward: int) -> int:
        return inward * outward + outward

    norm = 2 * width
    feed_forward = linear(width, 4 * width) + linear(4 * width, width)
    convolution = linear(width, 2 * width) + (kernel * width + width) + norm + linear(width, width)
    block = 5 * norm + 2 * feed_forward + 4 * linear(width, width) + convolution
    subsample = (3 * features * width + width) + (3 * width * width + width) + linear(width, width)
    made = Conformer(Spec("sequence", (98, features)))
    assert sum(p.numel() for p in made.parameters()) == subsample + depth * block == 2_051_568


@settings(max_examples=30, deadline=None)
@given(
    length=st.integers(1, 40),
    padding=st.integers(0, 40),
    subsample=st.sampled_from([1, 2, 4]),
    kernel=st.sampled_from([1, 5, 15]),
)
def test_padding_never_changes_a_real_token(length, padding, subsample, kernel) -> None:
    made = conformer(subsample=subsample, kernel=kernel).double().eval()
    torch.manual_seed(length)
    clip = torch.randn(1, length, 6).double()
    want = made(clip, torch.ones(1, length, dtype=torch.bool))
    values = 1e6 * torch.randn(2, length + padding, 6).double()
    values[0, :length] = clip
    mask = torch.ones(2, length + padding, dtype=torch.bool)
    mask[0, length:] = False
    got = made(values, mask)
    tokens = -(-length // subsample)
    assert got.mask is not None
    assert got.mask.sum(1).tolist() == [tokens, -(-(length + padding) // subsample)]
    assert got.tokens.shape[1] == got.mask.shape[1]
    torch.testing.assert_close(got.tokens[0, :tokens], want.tokens[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(got.pooled[0], want.pooled[0], atol=1e-9, rtol=1e-9)


def test_no_mask_means_that_all_is_real() -> None:
    made = conformer().eval()
    clip = torch.randn(2, 21, 6)
    bare, full = made(clip), made(clip, torch.ones(2, 21, dtype=torch.bool))
    assert bare.mask is None
    torch.testing.assert_close(bare.tokens, full.tokens)
    torch.testing.assert_close(bare.pooled, full.pooled)


def test_rows_do_not_mix_while_training() -> None:
    made = conformer().train()
    clips = torch.randn(3, 20, 6)
    mask = torch.ones(3, 20, dtype=torch.bool)
    torch.testing.assert_close(made(clips, mask).tokens[:1], made(clips[:1], mask[:1]).tokens)


def test_a_row_without_a_real_step_is_zero_and_finite() -> None:
    made = conformer()
    mask = torch.tensor([[True] * 9, [False] * 9])
    got = made(torch.randn(2, 9, 6), mask)
    assert not got.pooled[1].any()
    got.tokens.sum().backward()
    assert all(p.grad.isfinite().all() for p in made.parameters())


@pytest.mark.parametrize("subsample", [1, 2, 4])
def test_one_frame(subsample) -> None:
    made = conformer(subsample=subsample)
    got = made(torch.randn(2, 1, 6), torch.ones(2, 1, dtype=torch.bool))
    assert got.tokens.shape == (2, 1, 16)
    assert got.pooled.isfinite().all()
    assert made.shrink == subsample


def test_gradients_reach_every_weight() -> None:
    made = conformer(dropout=0.1).train()
    got = made(torch.randn(4, 30, 6), torch.ones(4, 30, dtype=torch.bool))
    (got.tokens * torch.randn_like(got.tokens)).sum().backward()
    for name, weight in made.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any(), name


def test_the_order_of_steps_is_heard_far_and_near() -> None:
    made = conformer(subsample=1, kernel=1).double().eval()  # a kernel of one hears no order: positions alone do
    clip = torch.randn(1, 12, 6).double()
    turned = clip.flip(1)
    assert (made(clip).tokens - made(turned).tokens.flip(1)).abs().max() > 1e-6


def test_tokens_see_the_whole_row() -> None:
    made = conformer(depth=1).eval()
    clip = torch.randn(1, 40, 6, requires_grad=True)
    (made(clip).tokens[0, 0] * torch.randn(16)).sum().backward()  # their plain sum is that of a layer norm: constant
    assert clip.grad is not None
    assert clip.grad[0].abs().sum(1).all()


def test_the_convolution_is_its_formula() -> None:
    torch.manual_seed(0)
    made = ConvolutionModule(4, 3).double()
    x = torch.randn(1, 7, 4).double()
    left, right = made.enter(x).chunk(2, dim=-1)
    gated = left * torch.sigmoid(right)
    want = torch.zeros_like(x)
    for t in range(7):
        for offset in (-1, 0, 1):
            if 0 <= t + offset < 7:
                want[:, t] += gated[:, t + offset] * made.filter.weight[:, 0, offset + 1]
    want = made.leave(torch.nn.functional.silu(made.norm(want + made.filter.bias)))
    torch.testing.assert_close(made(x, None), want)


def test_it_learns_an_order_that_a_mean_cannot_tell() -> None:
    """A rise and a fall hold the same values: only where they stand tells them apart."""
    made = conformer(features=1, subsample=2)
    head = torch.nn.Linear(16, 1)
    weights = [*made.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=3e-3)
    torch.manual_seed(1)
    ramp = torch.linspace(-1, 1, 16)[None, :, None]
    sign = torch.tensor([1.0, -1.0]).repeat(32)
    clips = ramp * sign[:, None, None] + 0.1 * torch.randn(64, 16, 1)
    for _ in range(40):
        loss = torch.nn.functional.soft_margin_loss(head(made(clips).pooled)[:, 0], sign)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="kernel 16 is even"):
        conformer(kernel=16)
    with pytest.raises(UsageError, match="not a multiple of 3 heads"):
        conformer(heads=3)
    with pytest.raises(UsageError, match="cannot be paired"):
        conformer(heads=16)
