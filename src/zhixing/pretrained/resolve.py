"""From a recipe that names a published model to one that names this project's own parts, and from that to weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..columns import Column
from ..columns.text import Text
from ..errors import RecipeError, RunError, UsageError
from ..heads.text import TextHead
from ..model import Model
from ..recipe import Recipe
from ..run import build_model, make_columns
from ..training.tuning import TUNINGS
from .files import names_files
from .layouts import Role
from .layouts.bert import TEXT
from .model import PublishedModel, open_model
from .runs import RunStart, is_run, open_run

__all__ = ["equip", "put_weights", "resolve", "untrained"]

OWN = ("name", "allow_pickle", "language", "column")  # settings of the source, not of what is made of it
SLOTS: dict[str, Role] = {"inputs": "encoder", "outputs": "decoder"}


def resolve(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain data in which every encoder or decoder that is a published model is spelled out.

    Where no learning rate is given, it becomes one that suits weights that are good already.

    Raises:
        RecipeError: settings that contradict the weights, all of them.
        UsageError, DataError: a model that cannot be read.
    """
    out, problems, rates = dict(raw), list[str](), list[float]()
    for part, role in SLOTS.items():
        columns = raw.get(part)
        if not isinstance(columns, Mapping):
            continue
        out[part] = dict(columns)
        for name, settings in columns.items():
            chosen = named(settings, role)
            if chosen is None:
                continue
            model = open_start(chosen["name"], chosen.get("column"), allow_pickle=bool(chosen.get("allow_pickle")))
            spell = from_run if isinstance(model, RunStart) else spelled_out
            out[part][name], wrong = spell(settings, chosen, model, role)  # type: ignore[arg-type]
            problems += [f"{part}.{name}.{line}" for line in wrong]
            rates.append(model.rate)
    wrong = with_prompt(out)
    if problems + wrong:
        raise RecipeError(problems + wrong)
    return with_rate(out, min(rates)) if rates else out


def open_start(source: str, column: str | None, *, allow_pickle: bool = False) -> PublishedModel | RunStart:
    """What weights come from: a finished run, or a published model; a name beside runs is to be one of theirs, though
    the hub's look the same."""
    path = Path(source).expanduser()
    if is_run(source) or (not path.exists() and any(path.parent.glob("*/recipe.yaml"))):
        return open_run(source, column)
    return open_model(source, allow_pickle=allow_pickle)


def from_run(
    settings: Mapping[str, Any], chosen: Mapping[str, Any], start: RunStart, role: Role
) -> tuple[dict[str, Any], list[str]]:
    """A column's settings with those of a run's, and what contradicts it."""
    plan = start.plan(role)
    own = {key: value for key, value in chosen.items() if key not in OWN}
    wrong = [contradiction(f"{role}.{key}", own[key], plan.fixed[key]) for key in own if differs(own, plan.fixed, key)]
    fixed = plan.column
    wrong += [contradiction(key, settings[key], fixed[key]) for key in fixed if differs(settings, fixed, key)]
    told = {"source": start.source, "sha256": start.sha256(), "column": start.column}
    parts = {"name": plan.name, **plan.open, **own, **plan.fixed}
    return {**plan.suggested, **settings, **plan.column, role: parts, "pretrained": told}, wrong


def with_prompt(raw: dict[str, Any]) -> list[str]:
    """Have a published language model read the only input itself, where that is a text for which no encoder is named;
    gives what is wrong with inputs that are to be read so."""
    inputs, outputs = raw.get("inputs"), raw.get("outputs")
    if not isinstance(inputs, Mapping) or not isinstance(outputs, Mapping):
        return []
    start = next((found for one in outputs.values() if (found := causal(one)) is not None), None)
    wrong = []
    for name, settings in inputs.items():
        if not isinstance(settings, Mapping) or settings.get("type") != "text":
            continue
        chosen = settings.get("encoder")
        asked = (chosen.get("name") if isinstance(chosen, Mapping) else chosen) == "prompt"
        if asked and len(inputs) > 1:
            wrong.append(f"inputs.{name}.encoder: a prompt is the only input of a model. Leave the others out")
            continue
        if asked and settings.get("pretrained"):  # of a run's own recipe
            continue
        if start is None and asked:
            wrong.append(f"inputs.{name}.encoder: a prompt is read by a published language model. Name one as decoder")
        elif start is not None and (asked or (chosen is None and len(inputs) == 1)):
            own = {"template": "auto", **TEXT, **settings, "encoder": {"name": "prompt"}, "pretrained": start}
            raw["inputs"] = {**raw["inputs"], name: own}
    return wrong


def causal(settings: Any) -> dict[str, Any] | None:
    """What an output starts from, where that is a published language model that has not been told to do otherwise."""
    start, decoder = (settings.get(key) if isinstance(settings, Mapping) else None for key in ("pretrained", "decoder"))
    alone = isinstance(decoder, Mapping) and decoder.get("join") != "cross"
    return dict(start) if alone and isinstance(start, Mapping) else None


def named(settings: Any, role: Role) -> dict[str, Any] | None:
    """The settings of an encoder or decoder whose name is that of a model's files."""
    chosen = settings.get(role) if isinstance(settings, Mapping) else None
    chosen = {"name": chosen} if isinstance(chosen, str) else chosen
    if not isinstance(chosen, Mapping) or not isinstance(chosen.get("name"), str) or not names_files(chosen["name"]):
        return None
    return dict(chosen)


def spelled_out(
    settings: Mapping[str, Any], chosen: Mapping[str, Any], model: PublishedModel, role: Role
) -> tuple[dict[str, Any], list[str]]:
    """A column's settings with those of the model, and what contradicts it."""
    plan, kind = model.plan(role), model.layout.reads if role == "encoder" else "text"
    own = {key: value for key, value in chosen.items() if key not in OWN}
    wrong = [contradiction(f"{role}.{key}", own[key], plan.fixed[key]) for key in own if differs(own, plan.fixed, key)]
    fixed = {"type": kind, **plan.column}
    wrong += [contradiction(key, settings[key], fixed[key]) for key in fixed if differs(settings, fixed, key)]
    most, length = model.layout.positions(), settings.get("length")
    if most is not None and isinstance(length, int) and length > most:
        wrong.append(f"length: the weights know {most} places, not {length}. Set it to {most} or less, or leave it out")
    path = Path(chosen["name"]).expanduser()
    start: dict[str, Any] = {
        "source": str(path.resolve()) if path.exists() else chosen["name"],
        "sha256": model.sha256(),
    }
    start |= {key: chosen[key] for key in OWN[1:] if chosen.get(key)}
    if "language" in start and not model.layout.languages:
        wrong.append(
            f"{role}.language: a model of type {model.files.config.get('model_type')} takes none. Leave it out"
        )
    parts = {"name": plan.name, **plan.open, **own, **plan.fixed}
    return {**plan.suggested, **settings, **fixed, role: parts, "pretrained": start}, wrong


def differs(given: Mapping[str, Any], fixed: Mapping[str, Any], key: str) -> bool:
    return key in fixed and given.get(key) is not None and given[key] != fixed[key]


def contradiction(path: str, given: Any, fixed: Any) -> str:
    return f"{path}: the weights have {fixed!r}, not {given!r}. Leave it out"


def with_rate(raw: dict[str, Any], rate: float) -> dict[str, Any]:
    """The recipe with a learning rate where none is given: the usual one would undo what was learned before."""
    training = raw.get("training")
    training = dict(training) if isinstance(training, Mapping) else {}
    method = training.get("fine_tuning")
    method = TUNINGS.get(str(method.get("name") if isinstance(method, Mapping) else method))
    rate = (method and method.rate) or rate  # thin matrices and heads start from nothing
    chosen = training.get("optimizer", "adamw")
    chosen = {"name": chosen} if isinstance(chosen, str) else chosen
    if isinstance(chosen, Mapping) and chosen.get("name", "adamw") == "adamw" and chosen.get("lr") is None:
        training["optimizer"] = {"name": "adamw", **chosen, "lr": rate}
        return {**raw, "training": training}
    return raw


def starts(recipe: Recipe, role: Role) -> dict[str, PublishedModel | RunStart]:
    """The models that columns start from, by column.

    Raises:
        RunError: one is not the one that the recipe was resolved with.
    """
    out = {}
    for name, settings in (recipe.inputs if role == "encoder" else recipe.outputs).items():
        start = getattr(settings, "pretrained", None)
        if start is None:
            continue
        model = open_start(start.source, start.column, allow_pickle=start.allow_pickle)
        if model.sha256() != start.sha256:
            raise RunError(
                "these are not the files that the recipe was made with",
                place=start.source,
                mend=f"Restore them, or name them anew: {role}: {start.source}",
            )
        if isinstance(model, PublishedModel):
            model.layout.language = start.language
        out[name] = model
    return out


def equip(recipe: Recipe, columns: Mapping[str, Column]) -> None:
    """Give columns the tokenizers that belong to the weights, before they are fitted."""
    for role in SLOTS.values():
        for name, model in starts(recipe, role).items():
            column = columns[name]
            if isinstance(model, RunStart):
                model.give_state(column)
                continue
            if not isinstance(column, Text):
                continue
            if column.tokenizer != "published":
                raise UsageError(
                    f"the weights read tokens of their own, not of the tokenizer {column.tokenizer}",
                    place=f"the column {name!r}",
                    mend="Set its tokenizer to published.",
                )
            column.fitted = model.tokenizer_of(role)


def put_weights(recipe: Recipe, columns: Mapping[str, Column], model: Model) -> None:
    """Fill the encoders and decoders of a fresh model that start from published weights.

    Raises:
        DataError: weights are missing, of another shape, or not known.
    """
    for name, start in starts(recipe, "encoder").items():
        start.fill("encoder", model.encoders[model.inputs.index(name)])
    for name, start in starts(recipe, "decoder").items():
        head = model.head(name)
        assert isinstance(head, TextHead)
        start.fill("decoder", head.decoder)
        tuning = recipe.training.fine_tuning
        head.remember(shared=tuning is not None and TUNINGS[tuning.name].keeps)


def untrained(raw: Mapping[str, Any]) -> tuple[Recipe, dict[str, Column], Model]:
    """Published weights as they are, without a table and without training: a recipe, its columns, its model.

    Columns have nothing to learn from, so that what they would learn has to be given (the ``length`` of a text) or to
    come with the weights. :func:`zhixing.verbs.predict.predict` takes what this gives.

    Raises:
        RecipeError: settings that are wrong, or contradict the weights.

    Example::

        text = {"type": "text", "length": 64, "packed": True, "decoder": "smollm2.gguf"}
        recipe, columns, model = untrained({"outputs": {"text": text}})
        predict(recipe, columns, model, ["The capital of France is"], device=torch.device("cpu"))
    """
    recipe = Recipe(resolve({"data": {"source": "nothing"}, **raw}))
    columns = make_columns(recipe)
    equip(recipe, columns)
    for name, column in columns.items():
        if isinstance(column, Text) and (column.fitted is None or column.length is None):
            what = "tokenizer" if column.fitted is None else "length"
            raise UsageError(
                f"the {what} of {name!r} would have to be learned from a table",
                mend="Give its length, and published weights that read or write it.",
            )
    model = build_model(recipe, columns)
    put_weights(recipe, columns, model)
    return recipe, columns, model.eval()
