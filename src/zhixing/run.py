"""The run folder: all that was learned and measured, and nothing that could be executed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from . import recipe as recipes
from .columns import Column
from .errors import RunError, UsageError, did_you_mean
from .fusion import FUSIONS, Concat, Fusion
from .heads import Head
from .layers.initialise import initialise
from .model import Model
from .models import ENCODERS
from .models.encoding import Encoder, Encoding
from .models.prompt import Prompt
from .pretraining import ALL_HEADS, Pretext, column_class
from .randomness import fold
from .recipe import Recipe
from .settings import Settings, parameters_of

__all__ = ["RunFolder", "build_model", "environment", "finite", "make_columns", "new_folder", "write_whole"]

FILES = ("recipe.yaml", "columns.json", "model.safetensors")
OPTIONAL = ("calibration.json",)  # needed to predict where it is there


def make_columns(recipe: Recipe) -> dict[str, Column]:
    """The columns of a recipe, inputs first, not yet fitted."""
    columns: dict[str, Column] = {}
    for role, part in (("input", recipe.inputs), ("output", recipe.outputs)):
        for name, settings in part.items():
            kind = column_class(settings.type)
            column = kind(**own(settings, kind))
            column.role = role  # type: ignore[assignment]
            columns[name] = column
            if isinstance(column, Pretext):
                column.beside({key: columns[key] for key in recipe.inputs})
    return columns


def own(settings: Settings, target: Any) -> dict[str, Any]:
    """Those of the settings that a class or function takes itself."""
    return {name: getattr(settings, name) for name in parameters_of(target)}


def build_model(recipe: Recipe, columns: Mapping[str, Column], custom: Mapping[str, Encoder] | None = None) -> Model:
    """The model of a recipe over fitted columns. Weights follow from the recipe's seed.

    ``custom`` holds encoders that were passed in from Python, by input column.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(fold(recipe.seed, "weights") >> 1)
        encoders: dict[str, Encoder] = {}
        for name, settings in recipe.inputs.items():
            choice = settings.encoder
            if custom and name in custom:
                encoders[name] = checked_custom(custom[name], name, columns[name])
            elif choice.name == "custom":
                raise RunError(
                    f"the encoder of {name!r} is {choice.module or 'a module'} that was passed in from Python",
                    mend=f"Pass it in again: zx.load(run, encoder={{{name!r}: module}}).",
                )
            else:
                kind = Prompt if choice.name == "prompt" else ENCODERS[choice.name]
                encoders[name] = kind(columns[name].spec(), **choice.keywords())
        fusion = build_fusion(recipe, encoders)
        heads: dict[str, Head] = {}
        for name, settings in recipe.outputs.items():
            heads[name] = build_head(settings, columns[name], fusion, list(encoders.values()))
        importance = {name: settings.importance for name, settings in recipe.outputs.items()}
        model = Model(columns, encoders, fusion, heads, importance)
        initialise(model, recipe.training.initialisation)
        for name, one in heads.items():
            one.baseline(columns[name])
    return model


def build_fusion(recipe: Recipe, encoders: Mapping[str, Encoder]) -> Fusion:
    sizes = [encoder.width for encoder in encoders.values()]
    if not sizes:  # a language model
        return Concat([])
    make: Any = FUSIONS[recipe.fusion.name]
    fusion: Fusion = make(sizes, **recipe.fusion.keywords())
    if len(sizes) > 1 and any(ALL_HEADS[settings.type].reads == "tokens" for settings in recipe.outputs.values()):
        fusion.keep_tokens([encoder.token_width for encoder in encoders.values()])
    return fusion


def build_head(settings: Any, column: Column, fusion: Fusion, encoders: list[Encoder]) -> Head:
    """The head of one output, for the width of what it reads: a single input's tokens, or what the fusion gives."""
    kind = ALL_HEADS[settings.type]
    width = encoders[0].token_width if kind.reads == "tokens" and len(encoders) == 1 else fusion.width
    head = kind(width, column, **own(settings, kind))
    head.meet(encoders)
    return head


def checked_custom(module: Any, name: str, column: Column) -> Encoder:
    """A module that was passed in, once it has shown on two blank rows that it does what an encoder does.

    Raises:
        UsageError: it does not.
    """
    mend = "Its forward(values, mask) gives a zhixing Encoding whose pooled is [B, width]."
    what = f"the encoder passed in for {name!r}"
    if not isinstance(module, torch.nn.Module) or not isinstance(getattr(module, "width", None), int):
        raise UsageError(f"{what} must be a torch.nn.Module with a whole number `width`", mend=mend)
    was_training = module.training
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            stored, real = column.blank(2)
            values, mask = column.stem()(stored, real)
            given = module.eval()(values.to(device), None if mask is None else mask.to(device))
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{what} cannot read {column.spec()}: {error}", mend=mend) from error
    finally:
        module.train(was_training)
    if not isinstance(given, Encoding) or given.pooled.shape != (2, module.width):
        found = given.pooled.shape if isinstance(given, Encoding) else type(given).__name__
        raise UsageError(f"{what} gives {found} for two rows, with a width of {module.width}", mend=mend)
    return module  # type: ignore[return-value]


def new_folder(runs: Path, name: str) -> Path:
    """``runs/NAME-1``, or the first such number that is free."""
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    runs.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = runs / f"{stem}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            continue
        return folder


class RunFolder:
    """Paths of a run, and what is read from them.

    Raises:
        RunError: the folder is not a run.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not (self.path / "recipe.yaml").is_file():
            near = [file.parent.name for file in self.path.parent.glob("*/recipe.yaml")]
            raise RunError(
                "this is not a run: it has no recipe.yaml" if self.path.exists() else "there is no such run",
                place=self.path,
                mend=did_you_mean(self.path.name, near) if near else "Give the folder that `zhixing train` wrote.",
            )

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        return (self.path / "manifest.json").is_file()

    def recipe(self) -> Recipe:
        place = self.path / "recipe.yaml"
        return Recipe(recipes.load(place), place=place)

    def columns(self, recipe: Recipe) -> dict[str, Column]:
        """The fitted columns."""
        try:
            states = json.loads((self.path / "columns.json").read_text("utf-8"))
            columns = make_columns(recipe)
            for name, column in columns.items():
                column.load_state(states[name])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"columns.json cannot be read: {error!r}", place=self.path) from error
        return columns

    def write_json(self, name: str, content: Any) -> None:
        """Write one JSON file whole or not at all; numbers that JSON lacks become null."""
        text = json.dumps(finite(content), ensure_ascii=False, indent=1)
        write_whole(self.path / name, text.encode())

    def read_json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RunError(f"{name} is not valid JSON: {error}", place=self.path) from error

    def write_columns(self, columns: Mapping[str, Column]) -> None:
        self.write_json("columns.json", {name: column.state() for name, column in columns.items()})

    def write_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Write the weights, then the manifest of hashes that marks the run as finished."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        write_whole(self.path / "model.safetensors", serialise_tensors(tensors))
        there = [name for name in OPTIONAL if (self.path / name).is_file()]
        entries = {name: {"sha256": self.hash(name)} for name in (*FILES, *there)}
        self.write_json("manifest.json", {"format": 1, "files": entries})

    def hash(self, name: str) -> str:
        return hashlib.sha256((self.path / name).read_bytes()).hexdigest()

    def verify(self) -> dict[str, bytes]:
        """The content of each file that is needed to predict, once it is known to be what was written.

        Raises:
            RunError: the run is unfinished, or a file is not what was written.
        """
        manifest = self.read_json("manifest.json")
        if manifest is None:
            raise RunError(
                "this run is not finished, it has no final weights",
                place=self.path,
                mend=f"Go on with it: zhixing train --resume {self.path}",
            )
        files = manifest.get("files") if isinstance(manifest, dict) else None
        more = [name for name in OPTIONAL if isinstance(files, dict) and name in files]  # else it is none of this run's
        return {name: self.verified(name, manifest) for name in (*FILES, *more)}

    def load_weights(self, model: Model, content: bytes) -> None:
        """Put weights that :meth:`verify` gave into the run's model.

        Raises:
            RunError: they are those of another model.
        """
        try:
            model.load_state_dict(parse_tensors(content))
        except (RuntimeError, SafetensorError) as error:
            raise RunError(f"the weights do not fit the recipe: {error}", place=self.path) from error

    def verified(self, name: str, manifest: Mapping[str, Any]) -> bytes:
        try:
            content = (self.path / name).read_bytes()
            good = hashlib.sha256(content).hexdigest() == manifest["files"][name]["sha256"]
        except (OSError, KeyError, TypeError) as error:
            raise RunError(f"{name} cannot be verified: {error!r}", place=self.path) from error
        if not good:
            raise RunError(
                f"{name} is not what was written when the run ended",
                place=self.path,
                mend="Undo the change; other settings want a new run: zhixing train --recipe FILE."
                if name == "recipe.yaml"
                else "Restore it from a copy, or train again from the recipe.",
            )
        return content


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, flush it, and rename it."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, for the record."""
    versions = {}
    for package in ("zhixing", "torch", "numpy", "pyarrow", "pydantic", "pillow", "safetensors"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    hardware: dict[str, Any] = {
        "device": str(device),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
        hardware["cuda"] = torch.version.cuda
    system = {"python": platform.python_version(), "platform": platform.platform()}
    return {"versions": system | versions, "hardware": hardware, "git_commit": git_commit()}


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_commit() -> str | None:
    """The commit of the folder that training was started in, marked where files differ from it."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607
            capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() or None if commit.returncode == 0 else None
