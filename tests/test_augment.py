"""Augmentation: each change against a reference of its own, and a row's change is its own affair."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.columns.augment import AUGMENTS, KINDS, REACH, Augment, beta_table, quantile
from zhixing.randomness import uniform_rows

GREY = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


def noise(rows: int = 3, channels: int = 3, height: int = 12, width: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, channels, height, width), generator=generator, dtype=torch.uint8)


def moved(x: torch.Tensor, u: torch.Tensor | None = None, augment: Augment | None = None, **amounts: float):
    """The geometric step with amounts that are given instead of drawn."""
    chosen = torch.tensor([[amounts.get(kind, 0.0) for kind in KINDS]]).repeat(len(x), 1)
    return (augment or Augment(rotate=1)).move(x.float(), chosen, torch.full((len(x), 12), 0.5) if u is None else u)


def coin(rows: int, **places: float) -> torch.Tensor:
    """Draws of a half, with some in their places changed."""
    u = torch.full((rows, 12), 0.5)
    for place, value in places.items():
        u[:, int(place[1:])] = value
    return u


def by_scipy(x: torch.Tensor, matrix: np.ndarray, shift: tuple[float, float] = (0, 0)) -> torch.Tensor:
    """Each picture sampled at ``matrix`` @ (y, x) + shift about its middle, in pixels: scipy's reading of the same."""
    middle = (np.array(x.shape[-2:]) - 1) / 2
    offset = middle - matrix @ middle + np.array(shift)
    planes = [
        scipy.ndimage.affine_transform(plane.double().numpy(), matrix, offset, order=1, mode="reflect")
        for plane in x.reshape(-1, *x.shape[-2:])
    ]
    return torch.from_numpy(np.stack(planes)).float().reshape(x.shape)


@pytest.mark.parametrize(("name", "entry"), AUGMENTS["image"].items())
@pytest.mark.parametrize("shape", [(4, 3, 12, 12), (4, 1, 9, 14), (1, 3, 16, 5)])
def test_every_named_one_keeps_shape_and_range_and_is_repeatable(name, entry, shape) -> None:
    x, rows = noise(*shape), torch.arange(shape[0])
    before = x.clone()
    augment = entry()
    out, blend = augment(x, rows, 3, 5)
    again, _ = entry()(x, rows, 3, 5)
    assert out.shape == x.shape
    assert torch.equal(x, before)
    assert torch.equal(out, again)
    assert out.min() >= 0
    assert out.max() <= 255 + 1e-3
    if augment.active:
        assert out.dtype == torch.float32
        assert not torch.equal(out, augment(x, rows, 3, 6)[0])
        assert not torch.equal(out, augment(x, rows, 4, 5)[0])
    else:
        assert out is x
        assert blend is None


@pytest.mark.parametrize("name", ["light", "standard", "strong"])
def test_a_rows_change_is_its_own_affair(name) -> None:
    settings_of = {"cutout": 0.25, "operations": 2, "flip": True, "flip_vertical": True, "crop": 0.5}
    augment = Augment(**settings_of) if name == "strong" else AUGMENTS["image"][name]()
    x, rows = noise(8), torch.tensor([5, 90, 2, 7, 1_000_003, 0, 44, 31])
    out, _ = augment(x, rows, 0, 9)
    order = torch.tensor([3, 0, 7, 6, 5, 1, 2, 4])
    torch.testing.assert_close(augment(x[order], rows[order], 0, 9)[0], out[order], rtol=0, atol=1e-4)
    for cut in (1, 3):
        parts = [augment(x[i : i + cut], rows[i : i + cut], 0, 9)[0] for i in range(0, 8, cut)]
        torch.testing.assert_close(torch.cat(parts), out, rtol=0, atol=1e-4)


def test_no_amount_is_no_change() -> None:
    for shape in ((3, 3, 12, 12), (3, 1, 7, 15)):
        torch.testing.assert_close(moved(noise(*shape)), noise(*shape).float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(12, 12), (8, 20), (20, 8)])
@pytest.mark.parametrize(("down", "right"), [(0, 3), (2, 0), (-2, 4), (-3, -1)])
def test_a_shift_by_whole_pixels_mirrors_the_edges(height, width, down, right) -> None:
    x = noise(2, 3, height, width)
    got = moved(x, shift_x=right / width, shift_y=down / height)
    around = ((0, 0), (0, 0), (height, height), (width, width))
    want = np.roll(np.pad(x.numpy(), around, "symmetric"), (-down, -right), (2, 3))[:, :, height:-height, width:-width]
    torch.testing.assert_close(got, torch.from_numpy(want.copy()).float(), rtol=0, atol=1e-2)


@pytest.mark.parametrize(("height", "width"), [(12, 12), (8, 20)])
def test_flips_are_flips(height, width) -> None:
    x = noise(2, 3, height, width)
    both = Augment(flip=True, flip_vertical=True)
    for across, down in ((0.2, 0.7), (0.7, 0.2), (0.2, 0.2)):
        dims = [axis for axis, u in ((3, across), (2, down)) if u < 0.5]
        got = moved(x, coin(2, u3=across, u6=down), both)
        torch.testing.assert_close(got, x.flip(dims).float(), rtol=0, atol=1e-3)


def test_half_of_the_rows_are_flipped() -> None:
    x = torch.arange(8.0).expand(2000, 1, 8, 8)
    out, _ = Augment(flip=True)(x, torch.arange(2000), 0, 0)
    assert 0.46 < float((out[:, 0, 0, 0] > 3.5).float().mean()) < 0.54


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_turns_by_a_right_angle_are_rot90(quarter) -> None:
    x = noise(2)
    torch.testing.assert_close(moved(x, rotate=90.0 * quarter), x.rot90(quarter, (2, 3)).float(), rtol=0, atol=1e-2)


@pytest.mark.parametrize(("height", "width"), [(15, 15), (11, 23), (24, 10)])
@pytest.mark.parametrize("flip", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_all_together_are_scipys_affine_transform(height, width, flip) -> None:
    x = noise(2, 2, height, width)
    turn, lean, scale = np.deg2rad(25.0), np.deg2rad(15.0), 0.2
    got = moved(
        x,
        coin(2, u3=0.2 if flip[0] < 0 else 0.7, u6=0.2 if flip[1] < 0 else 0.7),
        Augment(flip=True, flip_vertical=True),
        rotate=25.0, shear=15.0, scale=scale, shift_x=0.1, shift_y=-0.05,
    )  # fmt: skip
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotation @ np.array([[1, np.tan(lean)], [0, 1]]) @ np.diag(flip) / (1 + scale)  # on (x, y)
    want = by_scipy(x, matrix[::-1, ::-1], (-0.05 * height, 0.1 * width))
    torch.testing.assert_close(got, want, rtol=0, atol=0.5)


def test_scale_enlarges_and_a_crop_is_a_part_of_the_picture() -> None:
    square = torch.zeros(1, 1, 32, 32)
    square[:, :, 12:20, 12:20] = 255
    assert moved(square, scale=0.5).sum() > 2 * square.sum()
    assert moved(square, scale=-0.3).sum() < 0.6 * square.sum()
    gradient = torch.arange(32.0).expand(1, 1, 32, 32)
    for corner in (0.0, 0.5, 1.0):  # a quarter of the area, from the left end to the right one
        out = moved(gradient, coin(1, u0=0.0, u1=corner), Augment(crop=0.25))[0, 0, 0]
        assert float(out.min()) == pytest.approx(16 * corner - 0.25, abs=0.26)
        assert float(out.max()) == pytest.approx(16 * corner + 15.25, abs=0.26)


def test_crops_keep_at_least_their_share() -> None:
    gradient = torch.arange(64.0).expand(300, 1, 64, 64)
    out, _ = Augment(crop=0.36)(gradient, torch.arange(300), 0, 0)
    side = (out.amax((1, 2, 3)) - out.amin((1, 2, 3))) / 63
    assert 0.58 < float(side.min()) < 0.65
    assert float(side.max()) > 0.97


def test_colours_by_their_formulas() -> None:
    x = noise(5, 3)
    augment = Augment(brightness=0.3, contrast=0.4, saturation=0.5)
    rows = torch.tensor([3, 1, 4, 15, 9])
    drawn = augment.amounts(uniform_rows(rows, 2 * len(KINDS) + 12, 7, 2, "augment")[:, : 2 * len(KINDS)])[:, 5:]
    assert (drawn.abs() <= torch.tensor([0.3, 0.4, 0.5])).all()
    bright, contrast, saturation = (1 + drawn).double().T[:, :, None, None, None]
    want = x.double() * bright
    mean = want.mean((1, 2, 3), keepdim=True)
    want = mean + (want - mean) * contrast
    grey = (want * GREY).sum(1, keepdim=True)
    want = (grey + (want - grey) * saturation).clamp(0, 255)
    torch.testing.assert_close(augment(x, rows, 7, 2)[0].double(), want, rtol=0, atol=1e-2)


def test_grey_pictures_have_no_saturation() -> None:
    x = noise(4, 1)
    torch.testing.assert_close(Augment(saturation=1.0)(x, torch.arange(4), 0, 0)[0], x.float(), rtol=0, atol=1e-3)


def test_drawn_operations_are_that_many_and_that_strong() -> None:
    augment = Augment(operations=3, magnitude=0.5)
    amounts = augment.amounts(uniform_rows(torch.arange(4000), 2 * len(KINDS), 0, "x"))
    used = amounts != 0
    assert (used.sum(1) == 3).all()
    assert (amounts.abs() <= 0.5 * torch.tensor(REACH) + 1e-6).all()
    assert (used.float().mean(0) - 3 / len(KINDS)).abs().max() < 0.03
    assert (amounts[used].sign().mean().abs()) < 0.03


def test_cutout_blanks_a_square_with_the_mean() -> None:
    x = noise(200, 3, 16, 24)
    out, _ = Augment(cutout=0.5)(x, torch.arange(200), 0, 0)
    same = (out == x).all(1)
    mean = x.float().mean((1, 2, 3))
    for row in range(200):
        gone = ~same[row]
        assert torch.allclose(out[row][:, gone], mean[row])
        down, across = gone.any(1).nonzero(), gone.any(0).nonzero()
        assert int(gone.sum()) >= 0.9 * (int(down[-1] - down[0]) + 1) * (int(across[-1] - across[0]) + 1)
        assert int(gone.sum()) <= 9 * 13
    inside = (~same).flatten(1).sum(1).max()
    assert int(inside) >= 7 * 11


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_blends_say_what_they_are(kind) -> None:
    x = noise(64, 3, 16, 16).float()
    out, blend = Augment(**{kind: 1.0})(x, torch.arange(64), 0, 3)
    assert blend is not None
    assert sorted(blend.partner.tolist()) == list(range(64))
    share = blend.share.view(-1, 1, 1, 1)
    other = x[blend.partner]
    if kind == "mixup":
        torch.testing.assert_close(out, share * x + (1 - share) * other)
    else:
        kept = (out == x).all(1)
        assert ((out == other).all(1) | kept).all()
        certain = (blend.partner != torch.arange(64)) & ((x != other).any(1).flatten(1).all(1))
        torch.testing.assert_close(kept.float().mean((1, 2))[certain], blend.share[certain])
    assert 0.1 < float(blend.share.var()) ** 0.5 < 0.4


def test_both_blends_take_turns() -> None:
    augment = Augment(mixup=0.4, cutmix=1.0)
    x = noise(4).float()
    shares = [augment(x, torch.arange(4), 0, step)[1].share for step in range(20)]
    # a cut takes whole pixels of 144, a mixture any share
    kinds = {bool(torch.isclose(share * 144, (share * 144).round(), atol=1e-3).all()) for share in shares}
    assert kinds == {True, False}


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.4, 1.0, 2.0, 5.0, 40.0])
def test_shares_are_betas_quantiles(alpha) -> None:
    u = np.linspace(0, 1, 1025)
    np.testing.assert_allclose(beta_table(alpha).numpy()[1:-1], scipy.stats.beta.ppf(u, alpha, alpha)[1:-1], atol=1e-6)
    draws = quantile(beta_table(alpha), torch.linspace(0, 0.999999, 20001)).numpy()
    assert np.diff(draws).min() >= 0
    want = scipy.stats.beta.ppf(np.linspace(0, 0.999999, 20001), alpha, alpha)
    np.testing.assert_allclose(draws[200:-200], want[200:-200], atol=2e-3)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 5), st.sampled_from([1, 3, 4]), st.integers(1, 9), st.integers(1, 9),
    st.floats(0, 1), st.floats(0, 180), st.floats(0, 0.99), st.floats(0, 89.9), st.floats(0.01, 1), st.integers(0, 8),
)  # fmt: skip
def test_whatever_is_asked_gives_finite_pictures(rows, channels, height, width, shift, turn, scale, shear, crop, drawn):
    augment = Augment(
        shift=shift, rotate=turn, scale=scale, shear=shear, crop=crop, operations=drawn, magnitude=1.0, flip=True,
        cutout=0.5, mixup=0.3, cutmix=0.7,
    )  # fmt: skip
    out, _ = augment(noise(rows, channels, height, width), torch.arange(rows), 1, 2)
    assert torch.isfinite(out).all()
    assert out.shape == (rows, channels, height, width)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_host_never_waits_for_the_device() -> None:
    device = torch.device("cuda")
    x, rows = noise(8).to(device), torch.arange(8, device=device)
    augment = AUGMENTS["image"]["strong"]()
    augment(x, rows, 0, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        out, _ = augment(x, rows, 0, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(
        out.cpu(), AUGMENTS["image"]["strong"]()(noise(8), torch.arange(8), 0, 1)[0], atol=0.1, rtol=0
    )
