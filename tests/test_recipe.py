"""The recipe: everything wrong with it told at once, and the same settings after any way through a file."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.data.source import open_source
from zhixing.data.table import Table
from zhixing.errors import RecipeError, UsageError
from zhixing.recipe import Recipe, built_in, check, dump, json_schema, load, override, parse, recipe_model, recipe_of
from zhixing.recipe_file import Dumper
from zhixing.verbs.complete import complete

FULL: dict[str, Any] = {
    "data": {"source": "photos/"},
    "inputs": {
        "photo": {"type": "image", "size": 64, "encoder": {"name": "resnet18"}, "augment": "standard"},
        "age": {"type": "number"},
        "shop": {"type": "category", "encoder": {"name": "embedding", "width": 4}},
    },
    "outputs": {"label": {"type": "category", "smoothing": 0.1}, "price": {"type": "number", "loss": "huber"}},
    "training": {"optimizer": {"name": "adamw", "lr": 0.001}, "schedule": "one_cycle"},
}
SMALL: dict[str, Any] = {"data": {"source": "x"}, "inputs": {"a": "number"}, "outputs": {"b": "category"}}


def problems(**parts: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipe_of({**copy.deepcopy(FULL), **parts})
    return caught.value.problems


# What is wrong -------------------------------------------------------------------------------------------------------


def test_all_that_is_wrong_is_told_at_once_with_the_nearest_name() -> None:
    told = problems(
        inputs={"photo": {"type": "image", "encoder": {"name": "resnet19"}, "sise": 3}, "age": "nummer"},
        outputs={"label": {"type": "category", "smoothing": 2}},
        training={"optimizer": {"name": "adamw", "learning_rate": 1}, "epochs": 0, "keep": "bets"},
        fusion="concatt",
        sead=3,
    )
    expected = [
        "inputs.photo.encoder: 'resnet19' is not known. Did you mean 'resnet18'?",
        "inputs.photo.sise: there is no such setting. Did you mean 'size'?",
        "inputs.age: 'nummer' is not known. Did you mean 'number'?",
        "outputs.label.smoothing: input should be less than 1, not 2",
        "fusion: 'concatt' is not known. Did you mean 'concat'?",
        "training.epochs: input should be greater than 0, not 0",
        "training.keep: 'bets' is not known. Did you mean 'best'?",
        "sead: there is no such setting. Did you mean 'seed'?",
    ]
    assert [line for line in told if "learning_rate" not in line] == expected
    assert any(line.startswith("training.optimizer.learning_rate: there is no such setting.") for line in told)
    message = str(RecipeError(told))
    assert message.startswith("9 problems in the recipe\n")
    assert len(message.splitlines()) == 10


def test_a_setting_inside_a_list_is_told_what_there_is() -> None:
    encoder = {"name": "cnn", "layers": [32, {"channels": 24, "kernal": 5}]}
    assert problems(inputs={"photo": {"type": "image", "encoder": encoder}}) == [
        "inputs.photo.encoder.layers.1.kernal: there is no such setting. Did you mean 'kernel'?"
    ]


def test_a_setting_that_stands_deeper_is_named_with_its_path() -> None:
    assert problems(training={"lr": 0.1}) == [
        "training.lr: there is no such setting. Did you mean 'training.optimizer.lr'?"
    ]
    assert problems(smoothing=0.1)[0].startswith("smoothing: there is no such setting. Known: ")  # of which output?
    raw: dict[str, Any] = {**SMALL, "epochs": 3}
    with pytest.raises(RecipeError, match=r"epochs: there is no such setting. Did you mean 'training\.epochs'"):
        recipe_of(raw)


@pytest.mark.parametrize(
    ("parts", "pattern"),
    [
        (
            {"training": {"optimizer": {"lr": "fast"}}},
            r"training\.optimizer\.lr: .*number.*; or .*'fast'.* Known: find",
        ),
        ({"training": {"epochs": float("inf")}}, r"training\.epochs: .*finite"),
        ({"training": {"epochs": float("nan")}}, r"training\.epochs: "),
        ({"training": 5}, r"training: .*not 5"),
        ({"training": {"optimizer": [1]}}, r"training\.optimizer: a name is missing"),
        ({"inputs": {"photo": {"size": 3}}}, r"inputs\.photo: a type is missing, as in type"),
        ({"inputs": {"photo": {"type": "image", "channels": 2}}}, r"inputs\.photo\.channels: .*1 or 3.*not 2"),
        ({"inputs": {"photo": {"type": "image", "encoder": {"name": "cnn", "layers": [8, "poll"]}}}}, r"layers\.1: .*"),
        ({"inputs": {"a": {"type": "number", "encoder": "resnet18"}}}, r"inputs\.a\.encoder: 'resnet18' is not known"),
        ({"inputs": {"label": "number"}}, r"inputs\.label: this column is to be predicted"),
        ({"outputs": {}}, r"outputs: "),
        ({"outputs": {"x": "image"}}, r"outputs\.x: 'image' is not known"),
        ({"seed": -1}, r"seed: .*not -1"),
        ({"data": {}}, r"data\.source: has to be given"),
        ({"data": {"source": "x", "split": {"train": 0.9, "test": 0.3}}}, r"data\.split: .*add up to 1"),
        ({"data": {"source": "x", "split": {"by": "group"}}}, r"data\.split: .*needs the name of a column"),
    ],
)
def test_each_mistake_is_one_line_in_words(parts: dict[str, Any], pattern: str) -> None:
    told = problems(**parts)
    assert len(told) == 1
    assert re.search(pattern, told[0]), told[0]
    assert "\n" not in told[0]
    assert "pydantic" not in told[0]


@pytest.fixture
def table() -> Table:
    return open_source(
        {"size.cm": [1.0, 2.5] * 20, "名 称": ["甲", "乙"] * 20, "note": [f"x{i}" * 9 for i in range(40)]}
    )


def test_columns_that_the_table_lacks_are_told_with_the_wrong_settings(table: Table) -> None:
    raw = {
        "data": {"unused": ["notes"], "split": {"by": "group", "column": "shop"}},
        "inputs": {"size_cm": {}},
        "outputs": {"名称": {"type": "category", "smooth": 1}},
        "seed": "x",
    }
    with pytest.raises(RecipeError) as caught:
        complete(raw, table, source="here")
    told = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 6
    for part in ("inputs: no column is called 'size_cm'. Did you mean 'size.cm'?", "'名 称'", "'note'",
                 "data.split.column: no column is called 'shop'", "smooth: there is no such", "seed: "):  # fmt: skip
        assert part in told


def test_a_column_that_fits_no_type_is_left_out_and_told_of(table: Table) -> None:
    done = complete({"outputs": {"名 称": {}}}, table, source="here")
    assert done.dropped == ["note"]
    assert done.raw["data"]["unused"] == ["note"]
    assert "no column type fits" in done.reasons["note"]
    assert list(done.raw["inputs"]) == ["size.cm"]


def test_naming_inputs_shuts_out_the_others_unless_asked_otherwise() -> None:
    wide = open_source({"a": [0.5, 1.5] * 20, "b": [1.5, 2.5] * 20, "y": ["p", "q"] * 20})
    outputs = {"outputs": {"y": {}}}
    assert list(complete(outputs, wide, source="s").raw["inputs"]) == ["a", "b"]
    named = complete({**outputs, "inputs": {"b": {}}}, wide, source="s")
    assert list(named.raw["inputs"]) == ["b"]
    assert named.raw["data"]["unused"] == ["a"]
    both = complete({**outputs, "inputs": {"b": {}}, "data": {"others": "read"}}, wide, source="s")
    assert set(both.raw["inputs"]) == {"a", "b"}
    again = complete(both.raw, wide, source="s")
    assert again.raw == both.raw


def test_without_a_target_the_columns_are_named(table: Table) -> None:
    with pytest.raises(UsageError, match=r"predicted\? Name it with --target; the columns are: size.cm, 名 称, note\."):
        complete({}, table, source="here")


# Ways through a file ------------------------------------------------------------------------------------------------


def test_a_recipe_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    recipe = Recipe(FULL)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(recipe.plain()), "utf-8")
    again = Recipe(load(path))
    assert again.plain() == recipe.plain()
    assert again.training == recipe.training
    assert dump(again.plain()) == path.read_text("utf-8")


def test_a_bare_name_and_settings_without_a_name() -> None:
    recipe = Recipe({**SMALL, "inputs": {"p": {"type": "image", "encoder": {"dense": [7]}, "augment": {"shift": 0.1}}}})
    assert recipe.inputs["p"].encoder.name == "cnn"
    assert recipe.inputs["p"].encoder.dense == (7,)
    assert recipe.inputs["p"].augment.name == "custom"
    assert recipe.outputs["b"].type == "category"
    spelled = Recipe({**SMALL, "training": {"optimizer": {"lr": 0.5}, "schedule": "cosine"}, "fusion": {"widths": [3]}})
    assert (spelled.training.optimizer.name, spelled.training.optimizer.lr) == ("adamw", 0.5)
    assert spelled.training.schedule.name == "cosine"
    assert spelled.fusion.name == "concat"


WORDS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\ufffe\uffff"), min_size=1),
    st.sampled_from([
        "no", "on", "null", "~", "3e-4", "1e5", "12:30", "2026-01-31", "007", "0x1f", "1_000", ".5", "=", "<<", "#",
        "- a", "a: b", "{", "'", '"', "名.称", ".inf", "true",
    ]),
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(WORDS, VALUES, max_size=4))
@settings(max_examples=150, deadline=None)
def test_plain_data_come_back_from_yaml_as_they_were(raw: dict[str, Any]) -> None:
    again = parse(dump(raw)) or {}
    assert again == raw
    assert json.dumps(again) == json.dumps(raw)  # 1 is not 1.0 and not True


@given(name=WORDS.filter(lambda word: word.strip() == word and "\\" not in word), value=VALUES)
@settings(max_examples=150, deadline=None)
def test_set_reaches_any_name_and_gives_the_value_of_a_file(name: str, value: Any) -> None:
    escaped = name.replace(".", "\\.").replace("=", "\\=")
    line = yaml.dump(value, Dumper=Dumper, default_flow_style=True, width=10**6)
    raw = override({}, [f"inputs.{escaped}.deep={line}"])
    assert raw == {"inputs": {name: {"deep": value}}}


def test_set() -> None:
    raw = override(copy.deepcopy(FULL), [
        "training.optimizer.lr=3e-4", "inputs.photo.encoder=vgg16", "inputs.photo.size=[32, 48]", "seed=7",
        "inputs.shop=number", "inputs.age.scale=log", "outputs.label.class_weights={7: 2, no: 0.5}",
    ])  # fmt: skip
    recipe = Recipe(raw)
    assert recipe.training.optimizer.lr == 3e-4
    assert recipe.inputs["photo"].encoder.name == "vgg16"
    assert recipe.inputs["photo"].size == (32, 48)
    assert recipe.inputs["shop"].type == "number"
    assert recipe.outputs["label"].class_weights == {"7": 2.0, "no": 0.5}
    named = override({"inputs": {"p": "image"}, "training": {"optimizer": "sgd"}},
                     ["inputs.p.size=8", "training.optimizer.momentum=0.9"])  # fmt: skip
    assert named == {"inputs": {"p": {"type": "image", "size": 8}},
                     "training": {"optimizer": {"name": "sgd", "momentum": 0.9}}}  # fmt: skip
    other = override({"training": {"optimizer": {"name": "sgd", "momentum": 0.9}}}, ["training.optimizer.name=adamw"])
    assert other == {"training": {"optimizer": {"name": "adamw"}}}  # settings of the one before go with it


@pytest.mark.parametrize("line", ["epochs", "=3", "a..b=3", "a=[1", "a=!!python/name:os.system"])
def test_wrong_assignments_are_told_together(line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        override({}, [line, "b=2", "nothing"])
    assert len(caught.value.problems) == 2
    assert all(told.startswith("--set") for told in caught.value.problems)


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", r"line 3"),
        ("a: 1\n  b: 2\n", r"line 2"),
        ("training:\n\tepochs: 3\n", r"line 2"),
        ("seed: 1\ntraining: {}\nseed: 2\n", r"line 3.*'seed' stands here twice"),
        ("? [1, 2]\n: 3\n", r"line 1.*key has to be a word"),
        ("- 1\n", r"a mapping, this is list"),
        ("", r"a mapping, this is NoneType"),
        ("a: !!python/object/apply:os.system [echo]\n", r"line 1.*python"),
        ("!!python/name:os.system : 1\n", r"line 1.*python"),
        ("a: !mine 3\n", r"line 1.*!mine"),
        ("a: !!int x\n", r"not valid YAML"),
        ("a: !!timestamp x\n", r"not valid YAML"),
        ("[" * 3000, r"nested too deeply|not valid YAML"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, pattern: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(RecipeError, match=pattern) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_list_that_holds_itself_is_no_setting(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("seed: &x [*x]\n", "utf-8")
    assert [line.split(":")[0] for line in check(load(path))] == ["seed"]


def test_bytes_folders_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load(tmp_path / "r.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(RecipeError, match=r"no such file, and no recipe of that name.*Did you mean 'mnist-cnn'"):
        load("mnist-cn")
    with pytest.raises(RecipeError, match=r"Known: emails, fashion-mnist-cnn, .*translation\."):
        load("zzz")


@pytest.mark.parametrize("name", list(built_in()))
def test_recipes_that_come_with_the_package_are_sound(name: str) -> None:
    raw = load(name)
    whole = {"inputs": {}, "outputs": {"label": "category"}, **raw, "data": {"source": "?", **raw.get("data", {})}}
    assert check(whole, complete=True) == []
    lines = (built_in()[name]).read_text("utf-8").splitlines()
    command = re.fullmatch(r"# zhixing train (?:\S+ )?(?:--target (\S+) )?--recipe (\S+)", lines[1])
    assert command is not None, "the second line of a recipe is the command that it is for"
    assert command[2] == name
    if command[1] is not None and "outputs" in raw:
        assert list(Recipe(whole).outputs) in ([command[1]], ["*"])


# The schema ----------------------------------------------------------------------------------------------------------


def accepts(schema: Any, value: Any, root: dict[str, Any]) -> bool:
    """JSON Schema, as much of it as recipes use; a keyword that is not known here fails the test."""
    if "$ref" in schema:
        schema = {
            **root["$defs"][schema["$ref"].rsplit("/", 1)[-1]],
            **{k: v for k, v in schema.items() if k != "$ref"},
        }
    kinds = {
        "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
        "integer": int, "number": (int, float),
    }  # fmt: skip
    rules = {
        "type": lambda t: isinstance(value, kinds[t]) and (t == "boolean" or not isinstance(value, bool)),
        "const": lambda c: value == c,
        "enum": lambda e: value in e,
        "anyOf": lambda options: any(accepts(one, value, root) for one in options),
        "oneOf": lambda options: sum(accepts(one, value, root) for one in options) == 1,
        "minimum": lambda x: not isinstance(value, float | int) or value >= x,
        "maximum": lambda x: not isinstance(value, float | int) or value <= x,
        "exclusiveMinimum": lambda x: not isinstance(value, float | int) or value > x,
        "exclusiveMaximum": lambda x: not isinstance(value, float | int) or value < x,
        "minLength": lambda n: not isinstance(value, str) or len(value) >= n,
        "minItems": lambda n: not isinstance(value, list) or len(value) >= n,
        "maxItems": lambda n: not isinstance(value, list) or len(value) <= n,
        "minProperties": lambda n: not isinstance(value, dict) or len(value) >= n,
        "required": lambda names: not isinstance(value, dict) or set(names) <= set(value),
        "items": lambda one: not isinstance(value, list) or all(accepts(one, item, root) for item in value),
        "prefixItems": lambda ones: not isinstance(value, list)
        or all(accepts(one, item, root) for one, item in zip(ones, value, strict=False)),
        "properties": lambda fields: not isinstance(value, dict)
        or all(accepts(fields[key], item, root) for key, item in value.items() if key in fields),
        "additionalProperties": lambda rule: not isinstance(value, dict)
        or all(
            rule is not False and (rule is True or accepts(rule, item, root))
            for key, item in value.items()
            if key not in schema.get("properties", {})
        ),
    }  # fmt: skip
    ignored = {"title", "description", "default", "$defs", "$schema", "discriminator"}
    return all(rules[key](rule) for key, rule in schema.items() if key not in ignored)


def test_the_schema_accepts_what_is_written_and_what_people_write() -> None:
    schema = json.loads(json_schema())
    try:
        import jsonschema
    except ModuleNotFoundError:
        pass
    else:
        jsonschema.Draft202012Validator.check_schema(schema)
    for raw in (
        FULL, Recipe(FULL).plain(), {}, {"inputs": {"age": None, "photo": {"size": 64}, "shop": "category"}},
        {"training": {"optimizer": {"lr": "find"}}}, *(load(name) for name in built_in()),
    ):  # fmt: skip
        assert accepts(schema, json.loads(json.dumps(raw)), schema), raw
    for raw in ({"sead": 1}, {"inputs": {"p": "imagge"}}, {"training": {"epochs": 0}},
                {"inputs": {"p": {"type": "image", "encoder": {"name": "cnn", "denze": []}}}}):  # fmt: skip
        assert not accepts(schema, raw, schema), raw


def test_every_setting_says_what_it_is_for() -> None:
    schema = json.loads(json_schema())
    silent = [
        f"{name}.{key}"
        for name, model in schema["$defs"].items()
        for key, field in model.get("properties", {}).items()
        if key not in ("name", "type") and "description" not in field and "$ref" not in field
    ]
    assert set(silent) <= {"sgd_settings.nesterov"}


@pytest.mark.parametrize("column", [{}, {"type": ["image"]}, {"type": None}, None, 3])
def test_a_column_without_a_known_type_is_not_taken_for_the_others(column: Any) -> None:
    raw = {"data": {"source": "x"}, "inputs": {"a": {"type": "image"}, "b": column}, "outputs": {"y": "category"}}
    assert any("inputs.b" in problem for problem in check(raw, complete=True))


def test_a_bare_name_stands_for_a_column_of_that_type() -> None:
    raw = {"data": {"source": "x"}, "inputs": {"a": "image", "b": {"type": "number"}}, "outputs": {"y": "category"}}
    assert Recipe(raw).plain() == recipe_model().model_validate(raw).model_dump(mode="json")
