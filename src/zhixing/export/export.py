"""Export: a run as files that other runtimes read, each compared with the run before it stands in its place."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ..calibration import Calibration
from ..columns import Column
from ..console import Console
from ..data.batches import Batches
from ..errors import UsageError, did_you_mean
from ..explain.rows import Rows
from ..heads import TextHead
from ..model import Model
from .check import compare, refuse_beyond
from .formats import FORMATS, Format
from .graph import Graph, Part
from .writing import text_facts, writing_parts
from .written import Place, facts_of, tokenizer_files

__all__ = ["EXAMPLES", "ROWS", "TOLERANCE", "export", "parts_of"]

TOLERANCE = 1e-4
ROWS = 64  # that are compared
EXAMPLES = 3  # rows that an exporter follows through the model


def parts_of(
    columns: Mapping[str, Column], model: Model, calibrations: Mapping[str, Calibration] | None = None
) -> dict[str, Part]:
    """What a model is written as, by the ends of the files' names: one graph for all that is said in one pass; an
    encoder and a step for a text that is written token by token.

    Raises:
        UsageError: an output cannot be written.
    """
    written = texts_of(model)
    at_once = [name for name in model.outputs if name not in written]
    parts: dict[str, Part] = {"": Graph(columns, model, calibrations, at_once)} if at_once else {}
    if len(written) > 1:
        raise UsageError(f"there are several texts to write: {', '.join(written)}", mend="Export a run with one.")
    for name in written:
        parts |= writing_parts(columns, model, name)
    return parts


def texts_of(model: Model) -> list[str]:
    """The outputs that are written token by token."""
    return [name for name in model.outputs if model.head(name).forced and isinstance(model.head(name), TextHead)]


def export(
    columns: Mapping[str, Column],
    model: Model,
    rows: Rows,
    out: Path,
    *,
    form: str = "onnx",
    tolerance: float = TOLERANCE,
    calibrations: Mapping[str, Calibration] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write a model in one of ``FORMATS``; gives ``{"format", "files", "bytes", "rows", "differences", …}``.

    ``out`` is a folder, or a file that ends as the format's do. All is written beside it first, opened again and
    compared on ``rows``; only then does it come to its place.

    Raises:
        UsageError: nothing can be written there, or an output cannot be written in this format.
        RunError: the answers differ by more than ``tolerance``.
        MissingExtraError: a library is not installed.
    """
    if form not in FORMATS:
        raise UsageError(f"there is no format {form!r}", mend=did_you_mean(form, FORMATS))
    console = console or Console(quiet=True)
    kind = FORMATS[form]
    kind.require()
    place = Place.of(out, kind.suffix)
    parts = parts_of(columns, model.cpu(), calibrations)
    with TemporaryDirectory(dir=place.folder, prefix=".export-") as scratch:
        stage = Place(Path(scratch), place.stem)
        extra = {"tolerance": tolerance, "rows_compared": len(rows.rows), "target": form}
        texts = [text_facts(model, name) for name in texts_of(model)]
        facts = facts_of(columns, model, parts, {**extra, "texts": texts})
        write_parts(parts, stage, kind, rows, facts)
        console.say(f"written as {form}; comparing on {len(rows.rows)} rows")
        opened = {name: kind.open(stage.file(name, kind.suffix), part) for name, part in parts.items()}
        found = compare(parts, opened, rows)
        del opened
        refuse_beyond(tolerance, found, form)
        facts["differences"] = found
        stage.file("", ".json").write_text(json.dumps(facts, ensure_ascii=False, indent=1), "utf-8")
        for ending, content in tokenizer_files(columns, [*model.inputs, *model.outputs]).items():
            (stage.folder / f"{stage.stem}{ending}").write_bytes(content)
        files = arrive(stage, place)
    sizes = {path.name: path.stat().st_size for path in files}
    return {
        "format": form, "out": str(place.folder), "files": sizes, "bytes": sum(sizes.values()),
        "rows": len(rows.rows), "tolerance": tolerance, "differences": found,
    }  # fmt: skip


def write_parts(parts: Mapping[str, Part], stage: Place, kind: Format, rows: Rows, facts: dict[str, Any]) -> None:
    some = np.resize(rows.rows, max(EXAMPLES, min(EXAMPLES, len(rows.rows))))
    batch = Batches(rows.tensors, torch.device("cpu")).gather(some)
    for name, part in parts.items():
        notes = {"zhixing": json.dumps(facts, ensure_ascii=False)} if not name else {}
        try:
            kind.write(part, stage.file(name, kind.suffix), batch, notes)
        except (RuntimeError, ValueError) as error:  # what exporters raise where they cannot follow
            what = f"the part {name!r} of the model" if name else "the model"
            raise UsageError(
                f"the exporter cannot follow {what}: {next(iter(str(error).splitlines()), '')}",
                mend=f"Take another format ({', '.join(sorted(FORMATS))}) or another encoder.",
            ) from error


def arrive(stage: Place, place: Place) -> list[Path]:
    """Bring what was written and compared to its place."""
    files = []
    for path in sorted(stage.folder.iterdir()):
        os.replace(path, place.folder / path.name)
        files.append(place.folder / path.name)
    return files
