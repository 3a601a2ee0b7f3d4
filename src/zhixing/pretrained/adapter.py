"""What fine-tuning has learned, apart from the base: applied to a fresh model, saved alone, put on the base again.

``adapter.safetensors`` holds every tensor that is not the base's own (thin matrices, heads, fusion), and in its header
the recipe, the columns and the hash of the base. A few megabytes and the base are the whole model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from ..columns import Column
from ..errors import RecipeError, RunError
from ..model import Model
from ..recipe import Recipe
from ..run import RunFolder, build_model, make_columns, write_whole
from ..training.tuning import TUNINGS, Tuned
from .resolve import open_start, put_weights

__all__ = ["ADAPTER", "Adapted", "fine_tune", "open_adapter", "write_adapter"]

ADAPTER = "adapter.safetensors"
FORMAT = "1"


class Adapted(NamedTuple):
    """A base with an adapter on it, as :func:`zhixing.verbs.predict.predict` takes it."""

    recipe: Recipe
    columns: dict[str, Column]
    model: Model


def bases(recipe: Recipe, model: Model) -> dict[str, Any]:
    """The ``pretrained`` settings of each base, by its path in the model; None: a module that was passed in."""
    found: dict[str, Any] = {}
    for number, name in enumerate(model.inputs):
        settings = recipe.inputs[name]
        if settings.encoder.name == "prompt":  # which has no weights
            continue
        if settings.pretrained is not None or settings.encoder.name == "custom":
            found[f"encoders.{number}"] = settings.pretrained
    for number, name in enumerate(model.outputs):
        if getattr(recipe.outputs[name], "pretrained", None) is not None:
            found[f"heads.{number}.decoder"] = recipe.outputs[name].pretrained
    return found


def fine_tune(recipe: Recipe, model: Model) -> Tuned | None:
    """Make a model ready for fine-tuning as the recipe asks; None where it does not. A second call changes nothing.

    Raises:
        RecipeError: no part of the model was trained before.
        UsageError: the base lacks the layers that are to be adapted.
    """
    chosen = recipe.training.fine_tuning
    if chosen is None:
        return None
    found = bases(recipe, model)
    if not found:
        raise RecipeError(
            ["training.fine_tuning: nothing here was trained before. Name a published model: --encoder ./FOLDER"]
        )
    again = {path: start is not None for path, start in found.items()}
    return Tuned(model, again, TUNINGS[chosen.name](**chosen.keywords()), seed=recipe.seed)


def write_adapter(run: RunFolder, recipe: Recipe, model: Model, tuned: Tuned) -> Path | None:
    """Write what a trained, not yet merged model has learned beside its base; None where no base stayed as it was."""
    if not tuned.constant:
        return None
    state = model.state_dict()
    learned = {name: t.detach().cpu().contiguous() for name, t in state.items() if name not in tuned.constant}
    metadata = {
        "zhixing_adapter": FORMAT,
        "recipe": json.dumps(recipe.plain(), ensure_ascii=False),
        "columns": (run.path / "columns.json").read_text("utf-8"),
    }
    write_whole(run.path / ADAPTER, serialise_tensors(learned, metadata))
    return run.path / ADAPTER


def open_adapter(path: Path | str, base: Path | str | None = None, *, beside: Adapted | None = None) -> Adapted:
    """Put an adapter on its base.

    Args:
        path: the file, or the run that it is in.
        base: where the base lies; None: where it lay in training.
        beside: another adapter on the same base, whose weights of the base are then used by both: several adapters
            take the memory of one base.

    Raises:
        RunError: it is no adapter, it is damaged, or the base is another one.

    Example::

        spam = open_adapter("runs/emails-1", "./minilm")
        topic = open_adapter("topic.safetensors", beside=spam)
        predict(*topic, ["Dear all, …"], device=torch.device("cpu"))
    """
    place = Path(path) / ADAPTER if Path(path).is_dir() else Path(path)
    plain, states, tensors = read(place)
    try:
        if base is not None:
            plain = on_base(plain, base, place)
        recipe = Recipe(plain)
        columns = make_columns(recipe)
        for name, column in columns.items():
            column.load_state(states[name])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"the adapter cannot be read: {error!r}", place=place) from error
    model = build_model(recipe, columns)
    if beside is None:
        put_weights(recipe, columns, model)
    tuned = fine_tune(recipe, model)
    if tuned is None or not tuned.constant:
        raise RunError("this is no adapter: it holds all of a model", place=place)
    if beside is not None:
        share(recipe, model, beside, place)
    own = {name: tensor for name, tensor in model.state_dict().items() if name in tuned.constant}
    try:
        model.load_state_dict(own | tensors)
    except RuntimeError as error:
        raise RunError(f"the adapter does not fit its recipe: {error}", place=place) from error
    return Adapted(recipe, columns, model.eval())


def read(place: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """Recipe, columns and tensors of an adapter's file."""
    try:
        with safe_open(place, framework="pt") as file:
            told = file.metadata() or {}
            if told.get("zhixing_adapter") != FORMAT:
                raise RunError("this is no adapter, or one of another version", place=place)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(told["recipe"]), json.loads(told["columns"]), tensors
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(
            f"the adapter cannot be read: {error}", place=place, mend=f"Give a {ADAPTER}, or the run that it is in."
        ) from error


def on_base(plain: dict[str, Any], base: Path | str, place: Path) -> dict[str, Any]:
    """The recipe with a base where it lies now.

    Raises:
        RunError: it is not what the adapter was trained on.
    """
    columns = (*plain["inputs"].values(), *plain["outputs"].values())
    starts = [settings["pretrained"] for settings in columns if settings.get("pretrained")]
    trusted, column = any(start["allow_pickle"] for start in starts), next((s.get("column") for s in starts), None)
    found = open_start(str(base), column, allow_pickle=trusted).sha256()
    mine = [start for start in starts if start["sha256"] == found]
    if not mine:
        raise RunError(
            f"{base} is not what this adapter was trained on: its hash is {found[:12]}…, not "
            + ", ".join(f"{start['sha256'][:12]}…" for start in starts),
            place=place,
            mend=f"It was {starts[0]['source']}." if starts else "",
        )
    for start in mine:
        start["source"] = str(Path(base).resolve()) if Path(base).exists() else str(base)
    return plain


def share(recipe: Recipe, model: Model, beside: Adapted, place: Path) -> None:
    """Have a model's bases use the weights of another's."""
    theirs: Mapping[str, Any] = bases(beside.recipe, beside.model)
    for path, start in bases(recipe, model).items():
        same = next((p for p, other in theirs.items() if other and start and other.sha256 == start.sha256), None)
        if same is None:
            raise RunError("the other adapter is on another base", place=place, mend="Give the base's own folder.")
        base, other = model.get_submodule(path), beside.model.get_submodule(same)
        frozen = {name: p for name, p in other.named_parameters() if not p.requires_grad}
        for name, parameter in list(base.named_parameters()):
            if not parameter.requires_grad:
                if name not in frozen or frozen[name].shape != parameter.shape:
                    raise RunError(f"the other adapter's base lacks {name} of this shape", place=place)
                owner, _, own = name.rpartition(".")
                base.get_submodule(owner).register_parameter(own, frozen[name])
