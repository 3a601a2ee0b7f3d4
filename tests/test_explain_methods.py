"""Methods of attribution: equal to captum's, complete, blind to padding, and dependent on what was learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum import attr as captum
from torch import Tensor, nn

import zhixing as zx
from zhixing.console import Console
from zhixing.explain.checks import areas, places_of, randomised, rank_correlation
from zhixing.explain.methods import METHODS
from zhixing.explain.methods.integrated import pieces_of_way
from zhixing.explain.methods.occlusion import covers, occlusion_of, windows_of
from zhixing.explain.methods.rollout import weights_of
from zhixing.explain.methods.shapley import players_of, shapley_values
from zhixing.explain.rows import given_rows
from zhixing.explain.subject import NotApplicableError, Subject
from zhixing.layers.attention import Attention, Mask
from zhixing.model import Model
from zhixing.models.encoding import Encoding

CPU = torch.device("cpu")
WORDS = ["red", "green", "blue", "white", "black", "grey", "pink", "brown"]


def subject_of(
    run: zx.Run, source: Any, *, rows: int = 8, model: Model | None = None, output: str = "label"
) -> Subject:
    model = model or run.model
    found = given_rows(run.settings, run.fitted, model, source, Console(quiet=True))
    batch, _ = next(found.take(rows).batches(CPU))
    return Subject(model, run.fitted, batch, output)


def sentences(count: int, seed: int = 0) -> dict[str, list[Any]]:
    """Texts of 2 to 9 words, of which ``red`` alone says the label; a number and a class that say nothing."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        words = list(rng.choice(WORDS[1:], rng.integers(2, 10)))
        if rng.integers(2):
            words[rng.integers(len(words))] = "red"
        texts.append(" ".join(words))
        labels.append("yes" if "red" in words else "no")
    return {"text": texts, "label": labels}


Trained = Callable[..., zx.Run]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: dict[str, list[Any]]) -> Trained:
    """Runs of small encoders on pictures of digits or on sentences, each trained once."""
    kept: dict[str, zx.Run] = {}

    def of(data: str, encoder: str, **settings: Any) -> zx.Run:
        key = f"{data} {encoder} {settings}"
        if key not in kept:
            table = digits if data == "digits" else sentences(400)
            chosen = {"name": encoder, **settings}
            kept[key] = zx.train(
                table, target="label", encoder=chosen, epochs=8 if data == "digits" else 4, batch_size=32, lr=0.01,
                out=tmp_path_factory.mktemp("runs") / "r",
            )  # fmt: skip
        return kept[key]

    return of


CNN = {"layers": [8, 16], "dense": [32]}
READERS = [
    ("digits", "mlp", {}),
    ("digits", "cnn", CNN),
    ("digits", "vit", {"patch": 2, "width": 16, "depth": 2}),
    ("digits", "gru", {"width": 16}),
    ("text", "bag", {}),
    ("text", "text_cnn", {"embedding": 16, "channels": 8, "dropout": 0.0}),
    ("text", "lstm", {"embedding": 16, "width": 16}),
    ("text", "transformer", {"width": 16, "depth": 2}),
]


@pytest.fixture(params=READERS, ids=lambda reader: f"{reader[1]}-{reader[0]}")
def subject(request: pytest.FixtureRequest, trained: Trained, digits: dict[str, list[Any]]) -> Subject:
    data, encoder, settings = request.param
    table = {"picture": digits["picture"]} if data == "digits" else sentences(40, seed=1)
    return subject_of(trained(data, encoder, **settings), table)


def function_of(subject: Subject) -> Callable[[Tensor], Tensor]:
    """The score as a function of the points alone; rows may be repeated whole, as captum does."""

    def function(points: Tensor) -> Tensor:
        times = len(points) // subject.size
        rows = torch.arange(subject.size).repeat(times)
        return subject.score([points], rows)

    return function


# Beside captum --------------------------------------------------------------------------------------------------------


def test_integrated_gradients_are_captums(subject: Subject) -> None:
    entry, everything = subject.entries[0], torch.arange(subject.size)
    (found,), _ = pieces_of_way(subject, everything, torch.zeros(subject.size), torch.ones(subject.size))
    wanted = captum.IntegratedGradients(function_of(subject), multiply_by_inputs=True).attribute(
        entry.point.clone().requires_grad_(), entry.baseline, n_steps=32, method="gausslegendre"
    )
    torch.testing.assert_close(entry.cells(found), entry.cells(wanted.float()), rtol=1e-4, atol=1e-5)


def test_gradient_x_input_is_captums(subject: Subject) -> None:
    entry = subject.entries[0]
    wanted = captum.InputXGradient(function_of(subject)).attribute(entry.point.clone().requires_grad_())
    torch.testing.assert_close(METHODS["gradient_x_input"](subject).cells[0], entry.cells(wanted), rtol=1e-5, atol=1e-6)


def test_occlusion_is_captums(trained: Trained, digits: dict[str, list[Any]]) -> None:
    subject = subject_of(trained("digits", "cnn", **CNN), {"picture": digits["picture"]})
    for sides, strides in (((1, 3, 3), (1, 2, 2)), ((1, 2, 5), (1, 2, 3)), windows_of(subject.entries[0])):
        wanted = captum.Occlusion(function_of(subject)).attribute(
            subject.points[0], sliding_window_shapes=sides, strides=strides, baselines=subject.baselines[0]
        )
        found = occlusion_of(subject, 0, covers(subject.entries[0].shape, sides, strides, CPU))
        torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-5)


def test_occlusion_of_tokens_is_captums(trained: Trained) -> None:
    subject = subject_of(trained("text", "text_cnn", embedding=16, channels=8, dropout=0.0), sentences(40, seed=1))
    entry = subject.entries[0]
    width = entry.point.shape[-1]
    wanted = captum.Occlusion(function_of(subject)).attribute(
        entry.point, sliding_window_shapes=(1, width), baselines=entry.baseline
    )
    found = METHODS["occlusion"](subject).cells[0]
    torch.testing.assert_close(found, entry.real_alone(wanted[..., 0].float()), rtol=1e-4, atol=1e-5)


def test_grad_cam_is_captums(trained: Trained, digits: dict[str, list[Any]]) -> None:
    """Slope times activation in each cell of the layer, over all its units."""
    run = trained("digits", "cnn", layers=[8, 16], dense=[32])
    subject = subject_of(run, {"picture": digits["picture"]})
    encoder: Any = subject.entries[0].encoder
    layer = captum.LayerGradientXActivation(function_of(subject), encoder.features[-2])  # 6 x 6; the last has 4 x 4
    assert tuple(encoder.features(subject.points[0]).shape[2:]) == (4, 4)
    cams = layer.attribute(subject.points[0].clone().requires_grad_()).sum(1, keepdim=True).relu()
    wanted = captum.LayerAttribution.interpolate(cams, (8, 8), "bilinear")
    torch.testing.assert_close(METHODS["grad_cam"](subject).cells[0], wanted, rtol=1e-4, atol=1e-5)


class MeanOfMap(zx.Encoder):
    """The kind of network that Grad-CAM was made for."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())
        self.width = self.token_width = 8

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        maps = self.layers(values)
        return Encoding(maps.mean((2, 3)), maps.flatten(2).transpose(1, 2), grid=(6, 6))


def test_where_a_map_is_averaged_it_is_the_grad_cam_of_2017(tmp_path: Path, digits: dict[str, list[Any]]) -> None:
    run = zx.train(digits, target="label", encoder=MeanOfMap(), epochs=2, lr=0.01, out=tmp_path / "run")
    subject = subject_of(run, {"picture": digits["picture"]})
    encoder: Any = subject.entries[0].encoder
    layer = captum.LayerGradCam(function_of(subject), encoder.layers)
    cams = layer.attribute(subject.points[0].clone().requires_grad_(), relu_attributions=True)
    wanted = captum.LayerAttribution.interpolate(cams, (8, 8), "bilinear")
    torch.testing.assert_close(METHODS["grad_cam"](subject).cells[0], wanted, rtol=1e-4, atol=1e-6)


class Behind(nn.Module):
    """The model from the states of a recurrent network on, which captum wants to see with units second, [B, D, T]."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject, self.encoder, self.states = subject, subject.entries[0].encoder, nn.Identity()

    def forward(self, points: Tensor) -> Tensor:
        states, _ = self.encoder.recurrent(points)
        pooled = self.states(states.transpose(1, 2)).mean(2)
        return self.subject.goal.score(Encoding(pooled, states))


def test_grad_cam_of_steps_is_captums(trained: Trained) -> None:
    run = trained("text", "lstm", embedding=16, width=16, pooling="mean")
    table = {"text": [text for text in sentences(80, seed=1)["text"] if len(text.split()) == 5]}  # captum has no masks
    subject = subject_of(run, table, rows=4)
    behind = Behind(subject)
    torch.testing.assert_close(behind(subject.points[0]), subject.score(subject.points))
    layer = captum.LayerGradCam(behind, behind.states)
    cams = layer.attribute(subject.points[0].clone().requires_grad_(), relu_attributions=True)
    torch.testing.assert_close(METHODS["grad_cam"](subject).cells[0], cams[:, 0], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> tuple[zx.Run, dict[str, Any]]:
    """A network over numbers, one of them often missing, a class, tags and a text."""
    rng = np.random.default_rng(3)
    n = 300
    x, y, shop = rng.normal(size=n), rng.normal(50, 9, n), rng.choice(["a", "b", "c"], n)
    table = {
        "x": x.tolist(),
        "y": [None if i % 5 == 0 else float(v) for i, v in enumerate(y)],
        "shop": shop.tolist(),
        "marks": [["m"] if i % 3 else ["m", "n"] for i in range(n)],
        "text": sentences(n)["text"],
        "label": [str(int((a > 0) ^ (b == "a"))) for a, b in zip(x, shop, strict=True)],
    }
    raw = {"inputs": {"text": {"type": "text", "encoder": "bag"}}}
    run = zx.train(table, recipe=raw, target="label", epochs=10, settings=["data.others=read"], batch_size=32, lr=0.01,
                   out=tmp_path_factory.mktemp("runs") / "r")  # fmt: skip
    return run, {name: cells[:12] for name, cells in table.items()}


def test_exact_shapley_values_are_captums(columns: tuple[zx.Run, dict[str, Any]]) -> None:
    run, table = columns
    subject = subject_of(run, table, rows=6)
    owners, count = players_of(subject)
    assert count == 5
    found = shapley_values(subject, owners, count)
    masks = tuple(torch.full((1, *point.shape[1:]), i) for i, point in enumerate(subject.points))

    def function(*points: Tensor) -> Tensor:
        return subject.score(list(points), torch.arange(subject.size).repeat(len(points[0]) // subject.size))

    wanted = captum.ShapleyValues(function).attribute(
        tuple(subject.points), baselines=tuple(subject.baselines), feature_mask=masks
    )
    each = torch.stack([part.flatten(1)[:, 0] for part in wanted], dim=1)
    torch.testing.assert_close(found, each.float(), rtol=1e-4, atol=1e-5)


def test_sampled_shapley_values_come_near_captums(trained: Trained, digits: dict[str, list[Any]]) -> None:
    subject = subject_of(trained("digits", "mlp"), {"picture": digits["picture"]}, rows=2)
    owners, count = players_of(subject)
    assert count == 49
    found = shapley_values(subject, owners, count)
    torch.manual_seed(0)
    wanted = captum.ShapleyValueSampling(function_of(subject)).attribute(
        subject.points[0], baselines=subject.baselines[0], feature_mask=owners[0][:1], n_samples=60
    )
    shared = torch.zeros_like(found).scatter_(1, owners[0].flatten(1), wanted.flatten(1).float())
    assert float(rank_correlation(found, shared, torch.ones_like(found) > 0).min()) > 0.9
    torch.testing.assert_close(found.sum(1), shared.sum(1), rtol=1e-3, atol=1e-3)


# What must hold ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["integrated_gradients", "shapley"])
def test_attributions_add_up(subject: Subject, name: str) -> None:
    maps = METHODS[name](subject)
    with torch.no_grad():
        change = subject.score(subject.points) - subject.score(subject.baselines)
    total = torch.stack([cells.flatten(1).sum(1) for cells in maps.cells if cells is not None]).sum(0)
    assert bool(((total - change).abs() <= 0.01 * change.abs() + 1e-5).all())
    if name == "integrated_gradients":
        assert maps.gap is not None
        assert float(maps.gap.max()) <= 0.01


def test_every_method_works_or_says_why_not(subject: Subject) -> None:
    refused: dict[str, str] = {}
    for name, method in METHODS.items():
        try:
            cells = method(subject).cells
        except NotApplicableError as error:
            refused[name] = str(error)
            continue
        assert cells[0] is not None
        assert cells[0].shape == (subject.size, *subject.entries[0].shape)
        assert bool(cells[0].isfinite().all())
        assert bool(cells[0].any())
    assert set(refused) <= {"grad_cam", "attention_rollout"}
    assert all(name in why and type(subject.entries[0].encoder).__name__ in why for name, why in refused.items())


@pytest.mark.parametrize("encoder", ["text_cnn", "lstm", "transformer", "bag"])
def test_padding_has_nothing_and_changes_nothing(trained: Trained, encoder: str) -> None:
    settings = next(reader[2] for reader in READERS if reader[1] == encoder)
    run = trained("text", encoder, **settings)
    short = "red blue green white"
    alone = subject_of(run, {"text": [short]})
    beside = subject_of(run, {"text": [short, " ".join(WORDS)]})
    row = int(beside.entries[0].real.sum(1).argmin())
    for name in METHODS:
        try:
            one, two = METHODS[name](alone).cells[0], METHODS[name](beside).cells[0]
        except NotApplicableError:
            continue
        assert one is not None
        assert two is not None
        assert not bool(two[row, 4:].any())
        torch.testing.assert_close(two[row, :4], one[0], rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_bits(trained: Trained, digits: dict[str, list[Any]]) -> None:
    subject = subject_of(trained("digits", "cnn", **CNN), {"picture": digits["picture"]}, rows=3)
    one, two, other = (METHODS["shapley"](subject, seed=seed).cells[0] for seed in (5, 5, 6))
    assert one is not None
    assert two is not None
    assert other is not None
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("reader", [READERS[1], READERS[2], READERS[5]], ids=lambda reader: reader[1])
def test_maps_follow_the_weights(trained: Trained, digits: dict[str, list[Any]], reader: Any) -> None:
    data, encoder, settings = reader
    run = trained(data, encoder, **settings)
    table = {"picture": digits["picture"]} if data == "digits" else sentences(40, seed=1)
    before, after = (subject_of(run, table, model=model) for model in (run.model, randomised(run.model)))
    after.goal = replace(after.goal, target=before.goal.target)
    for method in METHODS.values():
        try:
            maps = [method(one).cells[0] for one in (before, after)]
        except NotApplicableError:
            continue
        (one, real), (two, _) = (places_of(before, 0, cells) for cells in maps if cells is not None)
        assert float(rank_correlation(one, two, real).mean()) < 0.6


@pytest.mark.parametrize("reader", [READERS[0], READERS[1], READERS[5]], ids=lambda reader: reader[1])
@pytest.mark.parametrize("name", ["integrated_gradients", "occlusion", "shapley", "gradient_x_input"])
def test_what_is_important_matters_more_than_what_is_drawn(
    trained: Trained, digits: dict[str, list[Any]], reader: Any, name: str
) -> None:
    data, encoder, settings = reader
    table = {"picture": digits["picture"]} if data == "digits" else sentences(80, seed=2)
    subject = subject_of(trained(data, encoder, **settings), table, rows=24)
    cells = METHODS[name](subject).cells[0]
    assert cells is not None
    found = areas(subject, 0, cells)
    assert float(found.deletion.mean()) < float(found.random_deletion.mean())
    assert float(found.insertion.mean()) > float(found.random_insertion.mean())


@pytest.mark.parametrize("name", ["integrated_gradients", "occlusion", "shapley"])
def test_the_word_that_matters_has_most(trained: Trained, name: str) -> None:
    table = sentences(60, seed=4)
    table = {"text": [text for text in table["text"] if "red" in text.split() and len(set(text.split())) > 2]}
    run = trained("text", "text_cnn", embedding=16, channels=8, dropout=0.0)
    subject = subject_of(run, table, rows=len(table["text"]))
    cells, ids = METHODS[name](subject).cells[0], subject.entries[0].values
    assert cells is not None
    red = int(run.fitted["text"].codec.look_up(zx_words("red"))[0])  # type: ignore[attr-defined]
    share = (cells.abs() * (ids == red)).sum(1) / cells.abs().sum(1)
    assert float((share > 0.5).float().mean()) >= 0.95


def zx_words(*words: str) -> Any:
    import pyarrow as pa

    return pa.array(words, pa.string())


# Checks and parts ----------------------------------------------------------------------------------------------------


def test_rank_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    one, two = (torch.from_numpy(rng.integers(0, 6, (4, 30)).astype(float)) for _ in range(2))
    real = torch.from_numpy(rng.random((4, 30)) < 0.8)
    wanted = [spearmanr(a[r], b[r]).statistic for a, b, r in zip(one.numpy(), two.numpy(), real.numpy(), strict=True)]
    np.testing.assert_allclose(rank_correlation(one, two, real).numpy(), wanted, atol=1e-9)


def test_weights_of_attention_are_those_that_are_used() -> None:
    torch.manual_seed(0)
    layer = Attention(16, heads=4, kv_heads=2).eval()
    x, real = torch.randn(3, 5, 16), torch.arange(5) < torch.tensor([[5], [3], [0]])
    for mask in (Mask.of(real), Mask.of(real, causal=True), Mask.of(None, causal=True), Mask()):
        weights = weights_of(layer, x, mask)
        sums = weights.sum(-1)
        live = torch.ones_like(sums) if mask.live is None else mask.live[..., 0].expand_as(sums).float()
        torch.testing.assert_close(sums, live)
    # With one head whose values are passed on as they are, the layer's answer is the weighted mean.
    plain = Attention(4, heads=1).eval()
    with torch.no_grad():
        for linear in (plain.value, plain.out):
            linear.weight.copy_(torch.eye(4))
            linear.bias.zero_()
    x = torch.randn(2, 6, 4)
    torch.testing.assert_close(weights_of(plain, x, Mask.of(None, causal=True)) @ x, plain(x, mask=Mask(causal=True)))


def test_rollout_is_a_share_of_each_patch(trained: Trained, digits: dict[str, list[Any]]) -> None:
    subject = subject_of(trained("digits", "vit", patch=2, width=16, depth=2), {"picture": digits["picture"]})
    cells = METHODS["attention_rollout"](subject).cells[0]
    assert cells is not None
    assert bool((cells >= 0).all())
    small = F.avg_pool2d(cells, 2).sum((1, 2, 3))
    assert bool((small < 1.0).all())  # the rest has stayed in the class token
    assert bool((small > 0.2).all())


def test_randomised_weights_are_the_same_numbers_elsewhere(trained: Trained, tmp_path: Path) -> None:
    model = trained("text", "bag").model
    other = randomised(model, seed=1)
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        if name.endswith("embedding.weight"):
            assert not bool(two[0].any())
            continue
        torch.testing.assert_close(one.flatten().sort().values, two.flatten().sort().values)
    assert all(
        torch.equal(a, b) for a, b in zip(randomised(model, seed=1).parameters(), other.parameters(), strict=True)
    )
