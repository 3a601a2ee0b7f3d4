"""What may vary: over every encoder, head and augmentation that there is, and as a person writes it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhixing.columns import COLUMNS
from zhixing.errors import RecipeError
from zhixing.fusion import FUSIONS
from zhixing.heads import HEADS
from zhixing.models import encoders_for
from zhixing.recipe import Recipe, check
from zhixing.training.optimizers import OPTIMIZERS
from zhixing.tune.objectives import Objective
from zhixing.tune.paths import settings_at, with_settings
from zhixing.tune.ranges import given_space, read_range
from zhixing.tune.space import Dimension, default_space
from zhixing.tune.suggest import Space, suggest

PAIRS = [(kind, name) for kind, column in COLUMNS.items() for name in encoders_for(column.kind)]
GOAL = Objective("accuracy", True, "y")
BASE: dict[str, Any] = {"data": {"source": "x.csv"}, "outputs": {"y": {"type": "category"}}}


def recipe(**parts: Any) -> Recipe:
    return Recipe({**BASE, **parts})


def ends(one: Dimension) -> list[Any]:
    return list(one.choices) if one.kind == "choices" else [one.drawn(one.low), one.drawn(one.high)]


def sound(found: Recipe) -> list[str]:
    """Paths of the default space, after all its ends have been seen to make valid recipes."""
    space = default_space(found)
    plain = json.loads(json.dumps(found.plain()))
    for one in space:
        assert one.distribution() is not None
        assert one.path in settings_at(plain, [one.path]), one.path
        for end in ends(one):
            assert check(with_settings(plain, {one.path: end}), complete=True) == [], (one.path, end)
    assert len({one.path for one in space}) == len(space)
    return [one.path for one in space]


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_every_encoder_has_a_space(kind: str, name: str) -> None:
    paths = sound(recipe(inputs={"a.b": {"type": kind, "encoder": name}}))
    assert {"training.optimizer.lr", "training.batch_size", "outputs.y.smoothing"} <= set(paths)


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_has_a_space(kind: str) -> None:
    assert sound(recipe(inputs={"x": {"type": "number"}}, outputs={"y": {"type": kind}}))


@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_has_a_space_where_it_matters(name: str) -> None:
    one, two = {"x": {"type": "number"}}, {"x": {"type": "number"}, "z": {"type": "category"}}
    assert not any(path.startswith("fusion") for path in sound(recipe(inputs=one, fusion=name)))
    wide = {"name": name} if name in ("fm", "deepfm") else {"name": name, "widths": [32]}
    if not check({**BASE, "inputs": two, "fusion": wide}):
        assert any(path.startswith("fusion") for path in sound(recipe(inputs=two, fusion=wide)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_a_range_around_its_rate(name: str) -> None:
    found = recipe(inputs={"x": {"type": "number"}}, training={"optimizer": name})
    sound(found)
    lr = next(one for one in default_space(found) if one.path == "training.optimizer.lr")
    assert lr.log
    assert lr.low < found.training.optimizer.lr < lr.high
    hunted = recipe(inputs={"x": {"type": "number"}}, training={"optimizer": {"name": name, "lr": "find"}})
    assert lr in default_space(hunted)


def test_heads_of_attention_divide_every_width() -> None:
    found = recipe(inputs={"t": {"type": "text", "encoder": {"name": "transformer", "width": 96, "heads": 6}}})
    width = next(one for one in default_space(found) if one.path.endswith(".width"))
    assert all(value % 6 == 0 for value in range(int(width.low), int(width.high) + 1, width.step))


def test_what_has_no_effect_is_not_searched() -> None:
    paths = sound(recipe(inputs={"x": {"type": "number"}}))  # an encoder without layers
    assert not any("dropout" in path for path in paths)


@given(st.data())
def test_drawn_values_come_back(data: st.DataObject) -> None:
    space = default_space(recipe(inputs={"p": {"type": "image"}, "s": {"type": "series"}}))
    one = data.draw(st.sampled_from(space))
    value = data.draw(st.sampled_from(ends(one)))
    assert one.value(one.drawn(value)) == value


# As a person writes it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:0.5", Dimension("a", "float", 0.0, 0.5)),
        ("log:1e-4:1e-1", Dimension("a", "float", 1e-4, 1e-1, True)),
        ("int:1:4", Dimension("a", "int", 1.0, 4.0)),
        ("log:int:1:64", Dimension("a", "int", 1.0, 64.0, True)),
        ("[a, 2, null]", Dimension("a", "choices", choices=("a", 2, None))),
        ([32, 64], Dimension("a", "choices", choices=(32, 64))),
    ],
)
def test_ranges_are_read(text: Any, expected: Dimension) -> None:
    assert read_range("a", text) == expected


@pytest.mark.parametrize("text", ["", "1", "5:1", "log:0:1", "int:0.5:2", "1:2:3", "a:b", "[]", "log:1", "nan:1", 3])
def test_a_range_that_cannot_be_read_is_told(text: Any) -> None:
    with pytest.raises(RecipeError, match=r"tune\.training\.clip"):
        given_space({"training.clip": text}, recipe(inputs={"x": {"type": "number"}}).plain())


def test_ends_have_to_make_valid_recipes_and_all_problems_are_told() -> None:
    base = recipe(inputs={"x": {"type": "number"}}).plain()
    with pytest.raises(RecipeError) as told:
        given_space({"training.clip": "0:1", "training.optimzer.lr": "0:1", "fusion.name": "[concat, cat]"}, base)
    assert len(told.value.problems) == 3
    assert "optimizer" in str(told.value)
    assert "'cat' is not known" in str(told.value)


def test_a_drawn_encoder_brings_its_own_settings() -> None:
    base = recipe(inputs={"p": {"type": "image"}}).plain()
    ranges = {"inputs.p.encoder.name": "[cnn, vit]", "inputs.p.encoder.depth": "int:1:3"}
    space = Space(base, given_space(ranges, base), defaults=True)
    seen = set()
    for number in range(1, 12):
        draw = suggest(space, number, [], queue=[{}], objectives=[GOAL], sampler="random", seed=number)
        Recipe(with_settings(base, draw.settings))
        name = draw.settings["inputs.p.encoder.name"]
        seen.add(name)
        assert ("inputs.p.encoder.depth" in draw.settings) == (name == "vit")
        assert all(f"({name})" in key for key in draw.params if ".encoder." in key and not key.endswith(".name"))
    assert seen == {"cnn", "vit"}


def test_the_recipe_may_give_ranges_and_a_run_does_not_keep_them() -> None:
    found = recipe(inputs={"x": {"type": "number"}}, tune={"training.optimizer.lr": "log:1e-3:1e-1"})
    assert found.tune == {"training.optimizer.lr": "log:1e-3:1e-1"}
    assert "tune" not in found.plain()
