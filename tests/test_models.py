"""The encoders: one contract for all of them, then what the perceptron and the convolutional ones promise."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from zhixing.errors import UsageError
from zhixing.layers.convolution import AverageTo, ConvBlock, SameConv2d, StochasticDepth, pool_first
from zhixing.layers.initialise import initialise
from zhixing.models import ENCODERS, Encoder, Encoding, Spec, encoders_for
from zhixing.models.cnn import CNN, Convolution
from zhixing.models.efficientnet import EfficientNet, EfficientNetB0, EfficientNetB3, InvertedBottleneck
from zhixing.models.mlp import MLP
from zhixing.models.resnet import ResidualBlock, ResNet18, ResNet50
from zhixing.models.vgg import VGG19
from zhixing.settings import settings_of

NAMES = [
    *("mlp", "cnn", "alexnet"),
    *(f"vgg{depth}{suffix}" for depth in (11, 13, 16, 19) for suffix in ("", "_bn")),
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"efficientnet_{member}" for member in ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "lite0")),
    *("rnn", "lstm", "gru", "transformer", "vit", "text_cnn", "tcn"),
]
STEPS = ("rnn", "lstm", "gru", "transformer", "text_cnn", "tcn")  # read the rows of a picture one by one
ONE_EACH = [
    "mlp",
    "cnn",
    "alexnet",
    "vgg11_bn",
    "resnet18",
    "resnet50",
    "efficientnet_b0",
    "efficientnet_lite0",
    *(*STEPS, "vit"),
]
# Where numbers are computed, one member stands for those that only repeat its blocks more often; the rest are slow.
EVERY = [name if name in ONE_EACH else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


def small(name: str) -> tuple[tuple[int, int, int], tuple[int, int] | None, dict[str, Any]]:
    """A picture about as small as the encoder takes, wider than high; its last grid; settings without chance."""
    if name == "mlp":
        return (2, 3, 5), None, {"widths": (16, 8)}
    if name == "cnn":
        return (2, 18, 22), (1, 2), {}
    if name == "text_cnn":
        return (2, 3, 5), None, {"channels": 4, "kernels": (2, 3), "dropout": 0.0}
    if name == "tcn":
        return (2, 3, 5), None, {"width": 8, "dropout": 0.0}
    if name in STEPS:
        return (2, 3, 5), None, {"width": 8}
    if name == "vit":
        return (2, 7, 11), (2, 3), {"width": 8, "heads": 2}
    if name == "alexnet":
        return (2, 63, 95), (1, 2), {"dense": (16, 8), "dropout": 0.0}
    if name.startswith("vgg"):
        return (2, 32, 64), (1, 2), {"dense": (16, 8), "dropout": 0.0}
    if name.startswith("resnet"):
        return (2, 16, 24), (2, 3), {}
    return (2, 32, 64), (1, 2), {"dropout": 0.0, "stochastic_depth": 0.0}


def build(name: str, seed: int = 0) -> Encoder:
    shape, _, keywords = small(name)
    torch.manual_seed(seed)
    return ENCODERS[name](Spec("image", shape), **keywords)


@cache
def built(name: str) -> Encoder:
    """One encoder shared by tests that leave it as it is."""
    return build(name).eval()


def pictures(name: str, rows: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, *small(name)[0], generator=torch.Generator().manual_seed(seed))


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    return importlib.import_module(f"benchmarks.{name}")


# The contract


def test_the_table_holds_the_promised_names() -> None:
    assert list(encoders_for("image")) == NAMES
    assert encoders_for("vector")["mlp"] is MLP
    assert not set(encoders_for("vector")) & set(NAMES[1:])
    assert list(encoders_for("sequence")) == [*STEPS, "conformer", "whisper"]
    assert list(encoders_for("tokens")) == [*STEPS, "bag", "sasrec", "gru4rec"]
    assert encoders_for("no such kind") == {}


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name: str) -> None:
    _, grid, _ = small(name)
    with torch.device("meta"):
        encoder = build(name)
    encoding = encoder(pictures(name, 3).to("meta"))
    assert isinstance(encoding, Encoding)
    assert encoding.pooled.shape == (3, encoder.width)
    tokens = grid[0] * grid[1] if grid else small(name)[0][1] if name in STEPS else 1
    assert encoding.tokens.shape == (3, tokens, encoder.token_width)
    assert encoding.grid == grid
    assert encoding.mask is None


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_derived_from_the_signature(name: str) -> None:
    model = settings_of(ENCODERS[name], name=name)
    assert model.__doc__
    assert all(field.description for key, field in model.model_fields.items() if key != "name")
    chosen = model.model_validate(yaml.safe_load(yaml.safe_dump(model().model_dump(mode="json"))))
    assert chosen == model()
    with torch.device("meta"):
        ENCODERS[name](Spec("image", (3, 64, 64)), **chosen.keywords())
    with pytest.raises(ValidationError):
        model.model_validate({"no_such_setting": 1})


@pytest.mark.parametrize("name", EVERY)
def test_same_seed_same_weights(name: str) -> None:
    first, again, other = built(name).state_dict(), build(name).state_dict(), build(name, seed=1).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_reach_every_parameter_and_the_input_stays(name: str) -> None:
    encoder = copy.deepcopy(built(name)).train()
    values = pictures(name, 4).requires_grad_()
    before = values.detach().clone()
    encoding = encoder(values)
    chance = torch.Generator().manual_seed(2)
    loss = sum((part * torch.randn(part.shape, generator=chance)).sum() for part in (encoding.pooled, encoding.tokens))
    assert isinstance(loss, Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.equal(values, before)
    assert values.grad is not None
    assert values.grad.abs().sum() > 0
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        # A batch normalisation subtracts what the bias before it adds: there the true gradient is zero.
        if not (name.endswith("_bn") and key.endswith("convolution.bias")):
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", EVERY)
@torch.inference_mode()
def test_rows_do_not_see_each_other_in_evaluation(name: str) -> None:
    encoder, values = built(name), pictures(name, 3)
    together = encoder(values)
    alone = encoder(torch.cat([values[1:2], 9 * pictures(name, 1, seed=5)]))
    for part, same in ((together.pooled, alone.pooled), (together.tokens, alone.tokens)):
        torch.testing.assert_close(same[0], part[1], rtol=1e-4, atol=1e-4 * float(part.abs().max()))


@pytest.mark.parametrize("name", EVERY)
@torch.inference_mode()
def test_float64(name: str) -> None:
    precise = copy.deepcopy(built(name)).double()(pictures(name, 2).double())
    single = built(name)(pictures(name, 2))
    for wide, narrow in ((precise.pooled, single.pooled), (precise.tokens, single.tokens)):
        assert wide.dtype == torch.float64
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-3, atol=1e-4 * float(wide.abs().max()))


@pytest.mark.parametrize("name", ONE_EACH)
def test_channels_last_and_bfloat16(name: str) -> None:
    encoder, values = built(name), pictures(name, 2)
    expected = encoder(values).pooled
    scale = float(expected.detach().abs().max())
    last = copy.deepcopy(encoder).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    laid_out = last(values.to(memory_format=torch.channels_last)).pooled
    torch.testing.assert_close(laid_out, expected, rtol=1e-3, atol=1e-4 * scale)
    with torch.autocast("cpu", torch.bfloat16):
        halved = encoder(values).pooled
    torch.testing.assert_close(halved.float(), expected, rtol=0.2, atol=0.1 * scale)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("cnn", "resnet18", "vit", *STEPS) else pytest.param(name, marks=pytest.mark.slow)
        for name in ONE_EACH
    ],
)
def test_compiles_as_one_graph(name: str) -> None:
    encoder, values = built(name), pictures(name, 2)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(encoder, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(values).pooled, encoder(values).pooled)


# Against what is published


def test_parameter_counts_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = benchmark("parameter_counts", monkeypatch)
    assert set(counts.PUBLISHED) == set(NAMES) - {"mlp", "cnn", "vit", *STEPS}
    assert {name: counts.count(name) for name in counts.PUBLISHED} == counts.PUBLISHED


BILLIONS = [  # multiplications and additions of one picture
    *(("alexnet", 224, 0.71), ("vgg11", 224, 7.61), ("vgg13", 224, 11.31), ("vgg16", 224, 15.47)),
    *(("vgg19_bn", 224, 19.63), ("resnet18", 224, 1.81), ("resnet34", 224, 3.66), ("resnet50", 224, 4.09)),
    *(("resnet101", 224, 7.80), ("resnet152", 224, 11.51), ("efficientnet_b0", 224, 0.39)),
    *(("efficientnet_b1", 240, 0.69), ("efficientnet_b2", 288, 1.09), ("efficientnet_b3", 300, 1.83)),
    *(("efficientnet_b4", 380, 4.39), ("efficientnet_b5", 456, 10.27), ("efficientnet_b6", 528, 19.07)),
    ("efficientnet_b7", 600, 37.75),
]


@pytest.mark.parametrize(
    ("name", "size", "billions"),
    [row if row[0] in ONE_EACH else pytest.param(*row, marks=pytest.mark.slow) for row in BILLIONS],
)
def test_multiplications_are_the_published_ones(name: str, size: int, billions: float) -> None:
    """Parameters do not tell where a stride stands; the multiplications and additions of one picture do."""
    with torch.device("meta"):
        encoder = ENCODERS[name](Spec("image", (3, size, size)))
        model = nn.Linear(encoder.width, 1000)
    with FlopCounterMode(display=False) as counter:
        model(encoder.eval()(torch.empty(1, 3, size, size, device="meta")).pooled)
    assert counter.get_total_flops() / 2e9 == pytest.approx(billions, abs=0.006, rel=1e-3)


# Multilayer perceptron


def test_mlp_is_matrix_products() -> None:
    encoder = MLP(Spec("vector", (5,)), widths=(4, 3), activation="tanh")
    values = torch.randn(6, 5)
    (w1, b1), (w2, b2) = [(layer.weight, layer.bias) for layer in encoder.layers if isinstance(layer, nn.Linear)]
    expected = torch.tanh(torch.tanh(values @ w1.T + b1) @ w2.T + b2)
    encoding = encoder(values)
    torch.testing.assert_close(encoding.pooled, expected)
    torch.testing.assert_close(encoding.tokens[:, 0], expected)


def test_mlp_without_layers_hands_on_the_values() -> None:
    values = torch.randn(2, 3, 4, 4)
    encoder = MLP(Spec("image", (3, 4, 4)), widths=())
    assert encoder.width == 48
    assert torch.equal(encoder(values).pooled, values.reshape(2, 48))


@pytest.mark.parametrize(
    ("name", "function"),
    [("sigmoid", torch.sigmoid), ("tanh", torch.tanh), ("relu", F.relu), ("gelu", F.gelu), ("silu", F.silu)],
)
def test_activations(name: Any, function: Callable[[Tensor], Tensor]) -> None:
    encoder = MLP(Spec("vector", (3,)), widths=(50,), activation=name)
    values = torch.randn(4, 3)
    torch.testing.assert_close(encoder(values).pooled, function(F.linear(values, *encoder.layers[0].parameters())))


@pytest.mark.parametrize("wrong", [{"widths": [0]}, {"widths": 3}, {"activation": "rleu"}, {"dropout": 1.0}])
def test_wrong_mlp_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings_of(MLP, name="mlp").model_validate(wrong)


# Convolutional network


def test_default_cnn_is_the_textbook_one() -> None:
    encoder = CNN(Spec("image", (1, 28, 28)))
    reference = nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU()),
    )
    reference.load_state_dict(dict(zip(reference.state_dict(), encoder.state_dict().values(), strict=True)))
    values = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(encoder(values).pooled, reference(values))
    assert sum(p.numel() for p in encoder.parameters()) + 64 * 10 + 10 == 93_322


def test_cnn_layers_from_yaml() -> None:
    text = (
        "{layers: [16, pool, {channels: 8, kernel: 5, stride: 2, padding: same}, {channels: 4, padding: 1}], dense: []}"
    )
    keywords = settings_of(CNN, name="cnn").model_validate(yaml.safe_load(text)).keywords()
    assert keywords["layers"] == (
        16,
        "pool",
        Convolution(channels=8, kernel=5, stride=2, padding="same"),
        Convolution(channels=4, padding=1),
    )
    encoder = CNN(Spec("image", (3, 20, 17)), **keywords)
    encoding = encoder(torch.randn(2, 3, 20, 17))
    assert encoding.grid == (5, 4)  # 20x17, 18x15, 9x7, 5x4, 5x4
    assert encoding.tokens.shape == (2, 20, 4)
    assert torch.equal(encoding.pooled, encoding.tokens.transpose(1, 2).flatten(1))


@pytest.mark.parametrize("layer", ["pol", 0, True, None, {"kernel": 3}, {"channels": 3, "kernal": 5}, [3]])
def test_a_wrong_layer_is_one_error_at_its_place(layer: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        settings_of(CNN, name="cnn").model_validate({"layers": [8, layer]})
    assert caught.value.error_count() == 1
    assert caught.value.errors()[0]["loc"][:2] == ("layers", 1)


def test_a_cnn_that_shrinks_to_nothing_names_layer_and_sizes() -> None:
    with pytest.raises(UsageError) as caught:
        CNN(Spec("image", (1, 12, 14)), layers=(32, "pool", 64, "pool", 64))
    assert str(caught.value).startswith(
        "cnn, layer 5 (64): a 3x3 convolution with padding valid does not fit the 1x2 cells that are left "
        "of a 12x14 picture."
    )
    with pytest.raises(UsageError, match=r"layer 2 \(pool\): a 2x2 pool does not fit the 1x1 cells"):
        CNN(Spec("image", (1, 3, 3)), layers=(4, "pool"))


convolutions = st.builds(
    Convolution,
    channels=st.integers(1, 3),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["same", "valid", 0, 1, 2]),
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.integers(1, 3), st.just("pool"), convolutions), max_size=5),
    st.integers(1, 16),
    st.integers(1, 16),
)
def test_any_cnn_either_runs_or_says_why_not(layers: list[Any], height: int, width: int) -> None:
    spec = Spec("image", (2, height, width))
    values = torch.zeros(2, 2, height, width)
    try:
        encoder = CNN(spec, layers=tuple(layers))
    except UsageError as error:
        number = int(str(error).split()[2])
        fits = CNN(spec, layers=tuple(layers[: number - 1]))  # all before it do
        with pytest.raises(RuntimeError):  # and torch agrees that it does not
            apply_layer(layers[number - 1], fits.features(values))
    else:
        encoding = encoder(values)
        assert encoding.pooled.shape == (2, 64)
        assert encoding.grid is not None
        assert encoding.tokens.shape == (2, encoding.grid[0] * encoding.grid[1], encoder.token_width)


def apply_layer(layer: Any, features: Tensor) -> Tensor:
    if layer == "pool":
        return F.max_pool2d(features, 2)
    layer = Convolution(channels=layer) if isinstance(layer, int) else layer
    padding = 0 if layer.padding == "valid" else layer.padding
    weight = torch.zeros(layer.channels, features.shape[1], layer.kernel, layer.kernel)
    return F.conv2d(features, weight, None, layer.stride, padding)


# The families


@pytest.mark.parametrize(("name", "least"), [("alexnet", 63), *((f"vgg{depth}", 32) for depth in (11, 13, 16, 19))])
def test_the_least_size_is_exact(name: str, least: int) -> None:
    keywords = {"dense": (4,)}
    with pytest.raises(UsageError, match=f"at least {least}x{least}.*these are {least - 1}x{least}"):
        ENCODERS[name](Spec("image", (1, least - 1, least)), **keywords)
    encoder = ENCODERS[name](Spec("image", (1, least, least)), **keywords).eval()
    assert encoder(torch.randn(1, 1, least, least)).grid == (1, 1)
    with pytest.raises(RuntimeError, match="too small"):  # torch would indeed fail on less
        encoder(torch.randn(1, 1, least - 1, least))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_b0", "efficientnet_lite0"])
@torch.inference_mode()
def test_any_size_does_for_residual_networks(name: str) -> None:
    encoder = ENCODERS[name](Spec("image", (5, 1, 1))).eval()
    assert encoder(torch.randn(2, 5, 1, 1)).pooled.isfinite().all()


def test_resnet_stem_follows_the_size() -> None:
    def grid(size: int, **keywords: Any) -> Any:
        with torch.device("meta"):
            return ResNet18(Spec("image", (3, size, size)), **keywords).eval()(torch.zeros(1, 3, size, size)).grid

    assert grid(32) == (4, 4)
    assert grid(63) == (8, 8)
    assert grid(64) == (2, 2)
    assert grid(64, small_input=True) == (8, 8)
    assert grid(32, small_input=False) == (1, 1)
    chosen = settings_of(ResNet18, name="resnet18").model_validate(yaml.safe_load("small_input: true"))
    assert chosen.keywords()["small_input"] is True


@torch.inference_mode()
def test_zero_init_starts_blocks_as_their_shortcut() -> None:
    for family in (ResNet18, ResNet50):
        encoder = family(Spec("image", (3, 16, 16)), zero_init=True).eval()
        values = torch.randn(2, 256, 4, 4) if family is ResNet50 else torch.randn(2, 64, 4, 4)
        block = encoder.blocks[1]
        assert isinstance(block, ResidualBlock)
        assert torch.equal(block(values), values.relu())
        plain = family(Spec("image", (3, 16, 16))).eval().blocks[1]
        assert not torch.equal(plain(values), values.relu())


@torch.inference_mode()
def test_signals_neither_die_nor_explode_in_a_fresh_vgg19() -> None:
    torch.manual_seed(0)
    encoder = VGG19(Spec("image", (3, 32, 32)), dense=(512, 512), dropout=0.0)
    spread = encoder(torch.randn(4, 3, 32, 32)).pooled.std()
    assert 0.1 < spread < 30


def test_efficientnet_skips_later_blocks_more_often() -> None:
    with torch.device("meta"):
        encoder = EfficientNetB0(Spec("image", (3, 32, 32)), stochastic_depth=0.32)
    rates = [block.skip.rate for block in encoder.blocks if isinstance(block, InvertedBottleneck)]
    assert rates == pytest.approx([0.02 * number for number in range(16)])


def test_efficientnet_dropout_is_the_published_one_unless_set() -> None:
    def rate(family: type[EfficientNet], **keywords: Any) -> float:
        with torch.device("meta"):
            return family(Spec("image", (3, 32, 32)), **keywords).dropout.p

    assert (rate(EfficientNetB0), rate(EfficientNetB3), rate(EfficientNetB3, dropout=0.0)) == (0.2, 0.3, 0.0)


# Layers


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(1, 4))
def test_same_convolution(height: int, width: int, kernel: int, stride: int) -> None:
    layer = SameConv2d(1, 1, kernel, stride=stride, bias=False).double()
    values = torch.randn(1, 1, height, width, dtype=torch.float64)
    with torch.no_grad():
        result, weight = layer(values), layer.weight.detach()
    assert result.shape == (1, 1, -(height // -stride), -(width // -stride))
    # By the definition: window (i, j) starts at stride * i - before, before being half of the zeros, rounded down.
    row, column = result.shape[2] - 1, result.shape[3] - 1
    total = 0.0
    for y in range(kernel):
        for x in range(kernel):
            at_y = stride * row - max(stride * row + kernel - height, 0) // 2 + y
            at_x = stride * column - max(stride * column + kernel - width, 0) // 2 + x
            if 0 <= at_y < height and 0 <= at_x < width:
                total += float(weight[0, 0, y, x] * values[0, 0, at_y, at_x])
    assert float(result[0, 0, row, column]) == pytest.approx(total, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 8))
def test_average_to_is_adaptive_pooling(height: int, width: int, size: int) -> None:
    features = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    ours, theirs = AverageTo(size)(features), F.adaptive_avg_pool2d(features, size)
    torch.testing.assert_close(ours, theirs)
    (gradient,) = torch.autograd.grad(ours.square().sum(), features)
    (expected,) = torch.autograd.grad(theirs.square().sum(), features)
    torch.testing.assert_close(gradient, expected)


def test_stochastic_depth_drops_whole_rows_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer, features = StochasticDepth(0.25), torch.ones(4000, 2, 3, 3)
    result = layer(features)
    rows = result.flatten(1)
    assert (rows == rows[:, :1]).all()
    assert sorted(set(rows[:, 0].tolist())) == pytest.approx([0, 4 / 3])
    assert float(result.mean()) == pytest.approx(1.0, abs=0.04)  # 4 standard deviations are 0.037
    assert torch.equal(layer.eval()(features), features)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128), nn.Conv2d(128, 128, 3, groups=8), nn.Linear(128, 96)
    )


@pytest.mark.parametrize("scheme", ["he", "xavier", "orthogonal", "normal"])
def test_initialise(scheme: Any) -> None:
    first, again, double = network(), network(), network().double()
    for module in (first, again, double):
        initialise(module, scheme, generator=torch.Generator().manual_seed(7))
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    for layer in first.children():
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            continue
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        weight = layer.weight.detach().flatten(1)
        fan_in = weight.shape[1]
        fan_out = len(weight) * weight.shape[1] // layer.weight.shape[1]
        deviation = {
            "he": (2 / fan_in) ** 0.5,
            "xavier": (2 / (fan_in + fan_out)) ** 0.5,
            "normal": 0.02,
            "orthogonal": max(weight.shape) ** -0.5,
        }[scheme]
        assert float(weight.std()) == pytest.approx(deviation, rel=0.05)
        assert layer.bias is not None
        assert not layer.bias.any()
        if scheme == "orthogonal":
            gram = weight @ weight.T if len(weight) <= fan_in else weight.T @ weight
            torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-4)
    assert next(double.parameters()).dtype == torch.float64


def test_initialise_default_leaves_what_was_built_and_half_precision_works() -> None:
    module, same = network(), network()
    initialise(module, "default", generator=torch.Generator().manual_seed(7))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), same.parameters(), strict=True))
    initialise(module.bfloat16(), "orthogonal", generator=torch.Generator().manual_seed(7))
    initialise(same, "orthogonal", generator=torch.Generator().manual_seed(7))
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(module.parameters(), same.parameters(), strict=True))


# Real data


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("mlp", {"widths": (64,)}),
        ("cnn", {"layers": (16, "pool", 32), "batch_norm": True}),
        *((name, {"width": 128}) for name in ("rnn", "lstm", "gru")),
        *((name, {"width": 32}) for name in ("transformer", "vit")),
        *(("text_cnn", {}), ("tcn", {})),
        pytest.param("resnet18", {"zero_init": True}, marks=pytest.mark.slow),
    ],
)
def test_encoders_learn_real_digits(name: str, keywords: dict[str, Any]) -> None:
    """The 8x8 digits of scikit-learn: most of the last 400 are told rightly after a little training on the others."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    values = torch.from_numpy(digits.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(digits.target)
    torch.manual_seed(0)
    encoder = ENCODERS[name](Spec("image", (1, 8, 8)), **keywords)
    head = nn.Linear(encoder.width, 10)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=2e-3)
    steps = 40 if name == "resnet18" else 200
    for rows in torch.randint(len(values) - 400, (steps, 64)):
        loss = F.cross_entropy(head(encoder(values[rows]).pooled), labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    encoder.eval()
    with torch.inference_mode():
        right = head(encoder(values[-400:]).pooled).argmax(1) == labels[-400:]
    assert float(right.float().mean()) > 0.85


@pytest.mark.parametrize("kernel", [2, 3])
def test_a_rectifier_after_its_pool_gives_the_same_bits(kernel: int) -> None:
    def layers() -> nn.Sequential:
        torch.manual_seed(0)
        block = ConvBlock(nn.Conv2d(3, 8, 3), norm=True, activation=nn.ReLU())
        return nn.Sequential(block, nn.MaxPool2d(kernel, stride=2, padding=kernel // 3), nn.Conv2d(8, 4, 3))

    pictures = torch.randn(5, 3, 17, 17).to(memory_format=torch.channels_last).round(decimals=1)
    found = []
    for network in (layers(), pool_first(layers())):
        given = pictures.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):  # in which many numbers of a window are equal
            out = network(given)
        out.float().square().sum().backward()
        found.append([out, given.grad, *(parameter.grad for parameter in network.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
