"""``zhixing compress``: write a run's model in every form asked for, measure each, keep the best within the limit."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..calibration import dump
from ..columns import Column
from ..console import Console
from ..errors import UsageError, did_you_mean
from ..model import Model
from ..recipe import Recipe
from ..report.files import write_atomically
from ..run import RunFolder, environment, finite
from ..verbs.calibrate import fit_calibrations
from .candidate import Candidate, choose
from .compressed import REPORT, seal
from .distil import IMITATES
from .page import render
from .retrain import open_material
from .runtime import FORM_FILE
from .work import METHODS, SMALLER, Ask, Work

__all__ = ["METHODS", "Ask", "compress"]

FOLDER = "compressed"


def compress(
    folder: Path, recipe: Recipe, columns: Mapping[str, Column], model: Model, ask: Ask | None = None, *,
    source: Any = None, out: Path | None = None, device: torch.device, console: Console,
) -> dict[str, Any]:  # fmt: skip
    """Compress the run in ``folder``; gives what ``compressed.json`` holds.

    Raises:
        UsageError: a method that is not known, an output that is not predicted at once, a folder that is taken.
        RunError: the run's data are no longer what it was trained on.
    """
    ask = ask or Ask()
    if (folder / FORM_FILE).is_file():
        raise UsageError("this is compressed already", place=folder, mend="Give the run that it was made of.")
    check(ask, model)
    out = folder / FOLDER if out is None else out
    check_out(out)
    facts = RunFolder(folder).read_json("environment.json") or {}
    material = open_material(
        recipe, columns, model, source, fingerprint=facts.get("data_fingerprint"), device=device, console=console
    )
    with TemporaryDirectory(prefix="zhixing-compress-") as scratch, console:
        model = copy.deepcopy(model).cpu().eval()  # the run's own stays where and as it is
        work = Work(material, model, ask, Path(scratch), console)
        work.try_forms()
        if any(method in SMALLER for method in ask.methods):
            work.try_smaller()
        work.time()
        chosen = choose(work.candidates, ask.max_drop, ask.aim)
        told = {
            "run": folder.resolve().name,
            "asked": {"max_drop": ask.max_drop, "aim": ask.aim, "batch": ask.batch, "rounds": ask.rounds,
                      "keep": ask.keep, "methods": list(ask.methods)},
            "measured": measured(work, columns, model),
            "chosen": chosen.name,
            "test": work.test(chosen),
            "candidates": [one.plain() for one in work.candidates],
        }  # fmt: skip
        keep(work, chosen, out, told)
    return told | {"out": str(out)}


def check(ask: Ask, model: Model) -> None:
    for name in ask.methods:
        if name not in METHODS:
            raise UsageError(f"there is no method {name!r}", mend=did_you_mean(name, METHODS))
    for name in model.outputs:
        head = model.head(name)
        if type(head) not in IMITATES:
            raise UsageError(
                f"the output {name!r} ({type(head).__name__}) is not answered in one pass of a graph",
                mend="Compress runs whose outputs are classes, tags, labels, numbers or series.",
            )
    if not model.inputs:
        raise UsageError("a model without inputs cannot be compressed", mend="Take a run with an input.")


def check_out(out: Path) -> None:
    """Raises UsageError where something else than an earlier result lies there, which is replaced."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file", mend="Name another folder with --out.")
    if out.is_dir() and any(out.iterdir()) and not (out / REPORT).is_file():
        raise UsageError(f"{out} holds something else", mend="Name another folder with --out.")


# What is kept -------------------------------------------------------------------------------------------------------


def measured(work: Work, columns: Mapping[str, Column], model: Model) -> dict[str, Any]:
    """On what, by what, and where."""
    return {
        "validation_rows": len(work.validation),
        "goals": {name: {"metric": model.head(name).goal, "higher": model.head(name).higher} for name in model.outputs},
        "machine": environment(torch.device("cpu"))["hardware"] | {"threads": 1},
        "versions": environment(torch.device("cpu"))["versions"] | dict(library_versions()),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def library_versions() -> Iterator[tuple[str, str]]:
    from importlib.metadata import PackageNotFoundError, version

    for name in ("onnx", "onnxruntime", "openvino", "nncf", "torchao"):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def keep(work: Work, chosen: Candidate, out: Path, told: dict[str, Any]) -> None:
    """Put the chosen model, its figures and the page into ``out``, with calibrations of its own.

    The folder is made beside its place and renamed: under its name it is whole.
    """
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(chosen.folder, part)
    model = work.opened(chosen)
    fitted = fit_calibrations(model, work.batches, work.validation)  # type: ignore[arg-type]
    seal(part, dump(fitted) if fitted else None)
    write_atomically(part / REPORT, json.dumps(finite(told), ensure_ascii=False, indent=1))
    write_atomically(part / "compressed.html", render(told))
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)
