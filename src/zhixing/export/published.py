"""What of a run was published before, and as what it can be written back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from ..calibration import Calibration
from ..calibration.outputs import Classes
from ..errors import RunError, UsageError
from ..heads import CategoryHead, TagsHead, TextHead
from ..model import Model
from ..models.prompt import Prompt
from ..pretrained import open_model
from ..pretrained.layouts import Role
from ..pretrained.model import PublishedModel
from ..pretrained.runs import is_run, open_run
from ..recipe import Recipe
from .endings import Ending, ending_of

__all__ = ["Body", "body_of"]

MEND = "Export it as onnx, openvino or torch."


class Start(NamedTuple):
    """An encoder or decoder that began with other weights: its column, and the recipe's ``pretrained`` of it."""

    role: Role
    name: str
    module: nn.Module
    settings: Mapping[str, Any]


@dataclass
class Body:
    """The published part of a run: its files, our modules by what they are there, and the columns that they are of.

    ``linears`` are the layers of the heads over its summary, by column, with what calibration makes of the logits;
    ``ending`` how the only one is written with it, in the class that transformers has for that.
    """

    published: PublishedModel
    modules: dict[Role, nn.Module]
    columns: dict[Role, str]
    linears: dict[str, nn.Linear]
    ending: Ending | None = None

    @property
    def name(self) -> str:
        """Of the column that is compared: what is written, else what is read."""
        return self.columns.get("decoder", self.columns.get("encoder", ""))


def starts_of(recipe: Recipe, model: Model) -> list[Start]:
    """All parts that began with other weights; those of a run as the published ones that it began with."""
    found: list[tuple[Role, str, nn.Module, Any]] = [
        ("encoder", name, model.encoders[number], recipe.inputs[name].pretrained)
        for number, name in enumerate(model.inputs)
        if not isinstance(model.encoders[number], Prompt)  # which has no weights of its own
    ]
    for name in model.outputs:
        head = model.head(name)
        if isinstance(head, TextHead):
            found.append(("decoder", name, head.decoder, getattr(recipe.outputs[name], "pretrained", None)))
    known = ((role, name, module, origin(start.model_dump())) for role, name, module, start in found if start)
    return [Start(role, name, module, start) for role, name, module, start in known if start is not None]


def origin(start: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was published, behind any number of runs that went on from it; None: nothing was."""
    while is_run(str(start["source"])):
        before = open_run(str(start["source"]), start.get("column")).settings.get("pretrained")
        if before is None:
            return None
        start = before
    return start


def body_of(recipe: Recipe, model: Model, calibrations: Mapping[str, Calibration]) -> Body:
    """The published part of a run.

    Raises:
        UsageError: there is none, there are several, or transformers has no class for it.
        RunError: its files are no longer those that the run began with.
    """
    import transformers

    starts = starts_of(recipe, model)
    roles: dict[Role, nn.Module] = {start.role: start.module for start in starts}
    reads = [encoder for encoder in model.encoders if not isinstance(encoder, Prompt)]
    refuse_others(starts, roles, len(reads))
    settings = starts[0].settings
    published = open_model(settings["source"], allow_pickle=bool(settings.get("allow_pickle")))
    if published.sha256() != settings["sha256"]:
        raise RunError("these are not the files that the run began with", place=published.source, mend="Restore them.")
    layout = published.layout
    layout.language = settings.get("language")
    if layout.config.get("model_type") not in transformers.CONFIG_MAPPING:
        raise UsageError("its names are those of another library than transformers", place=published.source, mend=MEND)
    if any(published.plan(role).column.get("tokenizer") for role in roles):
        layout.order = published.tokenizer.order
    linears = {}
    for name in model.outputs:
        layer = getattr(model.head(name), "linear", None)
        if isinstance(layer, nn.Linear):
            linears[name] = cooled(layer, calibrations.get(name))
    body = Body(published, roles, {start.role: start.name for start in starts}, linears)
    whole = set(roles) == {"encoder"} and len(model.outputs) == 1 and model.passes
    if whole and isinstance(model.head(model.outputs[0]), CategoryHead | TagsHead):
        body.ending = ending_of(layout, roles["encoder"])
    return body


def cooled(layer: nn.Linear, calibration: Calibration | None) -> nn.Linear:
    """A head's layer whose logits are divided by the temperature already."""
    if not isinstance(calibration, Classes):
        return layer
    out = copy.deepcopy(layer)
    with torch.no_grad():
        for part in out.parameters():
            part.div_(calibration.temperature)
    return out


def refuse_others(starts: list[Start], roles: Mapping[Role, nn.Module], read: int) -> None:
    """Raises UsageError where no class of transformers holds these parts: one encoder, one causal decoder, or an
    encoder and the decoder that was published with it."""
    what = None
    if not starts:
        what = "was not fine-tuned from a published model"
    elif len({start.settings["sha256"] for start in starts}) > 1 or len(roles) < len(starts):
        what = "has parts of several published models"
    elif "decoder" in roles and read and ("encoder" not in roles or read > 1):
        what = "has a published decoder that reads another input"
    if what is not None:
        raise UsageError(f"this run {what}: there is no layout of transformers that it is written in", mend=MEND)
