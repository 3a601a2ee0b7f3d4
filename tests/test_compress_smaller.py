"""Smaller models: thin factors, pruning, learning from a teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zhixing.compress.distil import SHARE, SMALLER, Student, student_recipe
from zhixing.compress.low_rank import factorise, low_rank, rank_for, take_factors
from zhixing.compress.prune import plan, prune, slim_recipe
from zhixing.data.batches import Batch, Batches
from zhixing.errors import UsageError
from zhixing.models import ENCODERS
from zhixing.recipe import Recipe
from zhixing.run import build_model

# Factors ------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.floats(0.05, 0.95))
def test_a_rank_holds_the_share_of_weights(features: int, units: int, keep: float) -> None:
    rank = rank_for(features, units, keep)
    assert rank == 1 or rank * (features + units) <= keep * features * units


def test_factors_of_full_rank_are_the_layer() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(7, 5), torch.randn(40, 7)
    pair = factorise(layer, (x.T @ x / len(x)).double(), 5)
    assert torch.allclose(pair(x), layer(x), atol=1e-5)


def test_factors_are_the_best_for_the_inputs_that_there_are() -> None:
    """Against the plain decomposition, and against the bound of Eckart and Young on the outputs."""
    torch.manual_seed(0)
    layer = nn.Linear(12, 9, bias=False)
    x = torch.randn(500, 12) * torch.logspace(1, -2, 12)
    moments = (x.T @ x / len(x)).double()
    truth = layer(x)

    def error(pair: nn.Module) -> float:
        return float((pair(x) - truth).detach().square().sum())

    ours, plain = error(factorise(layer, moments, 3)), error(factorise(layer, torch.eye(12).double(), 3))
    sizes = torch.linalg.svdvals(truth.detach().double())
    assert ours == pytest.approx(float(sizes[3:].square().sum()), rel=1e-3)
    assert ours < 0.5 * plain


def test_factors_of_a_model_are_fewer_numbers_and_can_be_read_back(pictures: Callable[..., Any]) -> None:
    bench = pictures(encoder_settings={"name": "mlp", "widths": [48, 32]})
    model = bench.model().eval()
    batch = bench.batches().gather(bench.rows[:64])
    before = sum(p.numel() for p in model.parameters())
    names = low_rank(model, [batch], 0.4)
    assert names == ["encoders.0.layers.0", "encoders.0.layers.2"]
    assert sum(p.numel() for p in model.parameters()) < 0.5 * before
    tensors, again = model.state_dict(), bench.model().eval()
    take_factors(again, tensors)
    again.load_state_dict(tensors)
    assert torch.equal(again(batch)["label"], model(batch)["label"])


def test_where_factors_would_not_be_smaller_it_is_said(pictures: Callable[..., Any]) -> None:
    bench = pictures(encoder_settings={"name": "lstm", "width": 8})
    with pytest.raises(UsageError, match="no linear layer"):
        low_rank(bench.model(), [], 0.5)


def rows_of(made: Any, count: int | None = None) -> Batch:
    return Batches(made.tensors, torch.device("cpu")).gather(made.rows[:count])


# Pruning ------------------------------------------------------------------------------------------------------------

PRUNABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("picture", {"name": "mlp", "widths": [12, 10]}),
    "cnn": ("picture", {"name": "cnn", "layers": [6, "pool", {"channels": 5, "kernel": 2, "stride": 1}], "dense": [9]}),
    "cnn, normalised": ("picture", {"name": "cnn", "layers": [6, 4], "dense": [], "batch_norm": True}),
    "cnn, open": ("picture", {"name": "cnn"}),
    "rnn": ("picture", {"name": "rnn", "width": 8, "layers": 2}),
    "lstm": ("picture", {"name": "lstm", "width": 8, "layers": 2, "bidirectional": True}),
    "gru": ("text", {"name": "gru", "width": 8, "pooling": "attention", "embedding": 6}),
    "text_cnn": ("text", {"name": "text_cnn", "channels": 6, "kernels": [2, 3], "embedding": 6}),
    "transformer": ("text", {"name": "transformer", "width": 16, "heads": 4, "kv_heads": 2}),
    "transformer, rotary": ("picture", {"name": "transformer", "width": 16, "heads": 4, "positions": "rotary",
                                        "feed_forward": "swiglu", "pooling": "cls"}),
    "transformer, alibi": ("text", {"name": "transformer", "width": 16, "heads": 4, "positions": "alibi"}),
    "vit": ("picture", {"name": "vit", "width": 16, "heads": 2, "depth": 2}),
    "whisper": ("steps", {"name": "whisper", "width": 16, "heads": 4, "depth": 1}),
}  # fmt: skip


@pytest.fixture(scope="module")
def make(bench: Callable[..., Any], digits: dict[str, list[Any]]) -> Callable[..., Any]:
    data: dict[str, dict[str, list[Any]]] = {
        "picture": {"x": digits["picture"][:40], "y": digits["label"][:40]},
        "text": {"x": ["a b c", "b", "c c a b a", "a b"] * 10, "y": ["p", "q", "r", "p"] * 10},
        "steps": {"x": [[[float(i % 3), 1.0 * t] for t in range(6)] for i in range(40)], "y": ["p", "q"] * 20},
    }
    types: dict[str, dict[str, Any]] = {
        "picture": {"type": "image"},
        "text": {"type": "text"},
        "steps": {"type": "series"},
    }

    def of(kind: str, encoder: dict[str, Any], output: str = "category", **more: Any) -> Any:
        return bench(data[kind], {"x": types[kind] | {"encoder": encoder} | more}, {"y": {"type": output}})

    return of


@pytest.mark.parametrize("name", PRUNABLE)
def test_units_that_nothing_reads_can_be_cut_without_a_change(make: Callable[..., Any], name: str) -> None:
    """The weights that read what is cut are zeroed in the large model: it and the small one must then agree."""
    torch.manual_seed(0)
    bench = make(*PRUNABLE[name])
    model = bench.model().eval()
    for parameter in model.parameters():  # biases and the like, which start alike, would hide a unit out of place
        nn.init.normal_(parameter, std=0.3)
    left = plan(model, [rows_of(bench, 20)], 0.5)
    recipe = slim_recipe(bench.recipe, left)
    with torch.no_grad():
        for parameter, tensor in model.named_parameters():
            for axis, places in left.kept.get(parameter, {}).items():
                if axis == 1:
                    gone = torch.ones(tensor.shape[1], dtype=torch.bool)
                    gone[places] = False
                    tensor[:, gone] = 0.0
    small = prune(model, recipe, bench.columns, left).eval()
    batch = rows_of(bench)
    with torch.inference_mode():
        assert torch.allclose(small(batch)["y"], model(batch)["y"], atol=1e-4, rtol=1e-4)
    fewer = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())
    assert fewer < 0.95


def test_units_that_matter_stay(make: Callable[..., Any]) -> None:
    """Units without any influence on the answer are the ones that go."""
    bench = make("picture", {"name": "mlp", "widths": [12]})
    model = bench.model().eval()
    idle = torch.tensor([1, 4, 5, 8, 10, 11])
    with torch.no_grad():
        model.heads[0].linear.weight[:, idle] = 0.0
    left = plan(model, [rows_of(bench)], 0.5)
    kept = left.kept["encoders.0.layers.0.weight"][0]
    assert not set(kept.tolist()) & set(idle.tolist())


def test_several_inputs_and_their_fusion_are_cut_together(bench: Callable[..., Any]) -> None:
    data = {
        "a": [0.1 * i for i in range(40)],
        "b": ["x", "y"] * 20,
        "t": ["u v", "v"] * 20,
        "y": [1.0 * i for i in range(40)],
    }
    inputs = {
        "a": {"type": "number"},
        "b": {"type": "category"},
        "t": {"type": "text", "encoder": {"name": "gru", "width": 8}},
    }
    made = bench(data, inputs, {"y": {"type": "number"}})
    model, batch = made.model().eval(), rows_of(made)
    left = plan(model, [batch], 0.5)
    recipe = slim_recipe(made.recipe, left)
    assert recipe.fusion.widths == (64, 32)
    assert recipe.inputs["t"].encoder.width == 4
    small = prune(model, recipe, made.columns, left).eval()
    assert small(batch)["y"].shape == model(batch)["y"].shape


def test_an_encoder_that_has_no_such_units_says_so(make: Callable[..., Any]) -> None:
    bench = make("text", {"name": "tcn"})
    with pytest.raises(UsageError, match="TCN"):
        plan(bench.model(), [rows_of(bench)], 0.5)


def test_a_family_has_a_next_smaller_member() -> None:
    assert set(SMALLER) | set(SMALLER.values()) <= set(ENCODERS)
    columns = {"inputs": {"x": {"type": "image", "encoder": "resnet34"}}, "outputs": {"y": "category"}}
    recipe = Recipe({"data": {"source": "memory"}, **columns})
    assert student_recipe(recipe, lambda: pytest.fail("not needed")).inputs["x"].encoder.name == "resnet18"


# A teacher ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["category", "number"])
def test_a_student_learns_from_the_truth_and_the_teacher(
    make: Callable[..., Any], bench: Callable[..., Any], output: str
) -> None:
    values: list[Any] = ["p", "q"] * 20 if output == "category" else [float(i % 7) for i in range(40)]
    made = bench({"x": [0.1 * i for i in range(40)], "y": values}, {"x": {"type": "number"}}, {"y": {"type": output}})
    teacher, model = made.model(), made.model()
    nn.init.normal_(teacher.heads[0].linear.weight)
    student = Student(model, teacher).train()
    batch = student.weigh(rows_of(made))
    hard, said = model.loss(batch), teacher(batch)["y"].detach()
    mine = model(batch)["y"]
    if output == "category":
        soft = 4 * ((said / 2).softmax(-1) * ((said / 2).log_softmax(-1) - (mine / 2).log_softmax(-1))).sum(-1).mean()
    else:
        soft = (mine - said).square().mean()
    assert torch.allclose(student.loss(batch), (1 - SHARE) * hard + SHARE * soft, atol=1e-6)
    assert student.state_dict().keys() == model.state_dict().keys()
    assert {id(p) for p in student.parameters()} == {id(p) for p in model.parameters()}
    assert torch.allclose(student.eval().loss(batch), hard)  # what it is validated by is the truth alone


def test_a_student_becomes_like_its_teacher(make: Callable[..., Any]) -> None:
    bench = make("picture", {"name": "mlp", "widths": [16]})
    torch.manual_seed(1)
    teacher, model = bench.model(), bench.model()
    for parameter in teacher.parameters():
        nn.init.normal_(parameter, std=0.5)
    student = Student(model, teacher).train()
    batch = student.weigh(rows_of(bench))

    def apart() -> float:
        with torch.no_grad():
            return float((teacher(batch)["y"].softmax(-1) - model(batch)["y"].softmax(-1)).abs().mean())

    before = apart()
    for _ in range(40):
        model.zero_grad()
        student.loss(batch).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.05 * parameter.grad
    assert apart() < 0.9 * before
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_recipe_of_fewer_units_is_a_valid_recipe(make: Callable[..., Any]) -> None:
    bench = make("picture", {"name": "cnn"})
    model = bench.model()
    recipe = student_recipe(bench.recipe, lambda: plan(model, [rows_of(bench)], 0.25))
    assert isinstance(recipe, Recipe)
    small = build_model(recipe, bench.columns)
    assert sum(p.numel() for p in small.parameters()) < 0.2 * sum(p.numel() for p in model.parameters())
