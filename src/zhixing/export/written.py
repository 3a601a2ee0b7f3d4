"""What stands beside an exported model: all that a reader needs to make tensors of cells and answers of tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..columns import Column
from ..errors import UsageError
from ..model import Model
from ..run import finite
from .graph import Part

__all__ = ["Place", "column_facts", "facts_of", "tokenizer_files"]

FORMAT = 1


@dataclass(frozen=True)
class Place:
    """Where an export is written: files in ``folder`` that are called ``stem`` and something more."""

    folder: Path
    stem: str = "model"

    @classmethod
    def of(cls, out: Path, suffix: str) -> Place:
        """A path that ends as the format's files do names the file, any other one the folder.

        Raises:
            UsageError: the path ends as files of another kind do, or cannot be a folder.
        """
        if out.suffix == suffix:
            place = cls(out.parent, out.stem)
        elif out.suffix in SUFFIXES:
            raise UsageError(f"files of this format end with {suffix}", place=out, mend="Or give a folder.")
        else:
            place = cls(out)
        if place.folder.exists() and not place.folder.is_dir():
            raise UsageError("this is a file, not a folder", place=place.folder, mend="Choose another --out.")
        try:
            place.folder.mkdir(parents=True, exist_ok=True)
            probe = place.folder / f".{place.stem}.probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"nothing can be written there ({error.strerror})", place=place.folder, mend="Choose another --out."
            ) from error
        return place

    def file(self, part: str, suffix: str) -> Path:
        """The file of a part, the main one of which is called ""."""
        return self.folder / f"{self.stem}{f'_{part}' if part else ''}{suffix}"


SUFFIXES = frozenset({".onnx", ".pt2", ".pte", ".tflite", ".xml", ".bin", ".json", ".safetensors"})


def column_facts(column: Column) -> dict[str, Any]:
    """Type, role, settings and state of a column: what it learned from training rows."""
    return {"type": column.type, "role": column.role, "settings": column.settings(), "state": column.state()}


def facts_of(
    columns: Mapping[str, Column], model: Model, parts: Mapping[str, Part], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The facts of an export, as JSON."""
    import torch

    def ports(part: Part) -> dict[str, Any]:
        inputs = [{**one._asdict(), "dtype": str(one.dtype).removeprefix("torch.")} for one in part.inputs]
        outputs = [{"name": name, "kind": one.kind, **one.facts} for name, one in part.outputs.items()]
        return {"inputs": inputs, "outputs": outputs}

    facts = {
        "format": FORMAT,
        "versions": {"zhixing": version("zhixing"), "torch": torch.__version__},
        "inputs": list(model.inputs),
        "outputs": list(model.outputs),
        "columns": {name: column_facts(columns[name]) for name in (*model.inputs, *model.outputs)},
        "parts": {name: ports(part) for name, part in parts.items()},
        **extra,
    }
    plain: dict[str, Any] = json.loads(json.dumps(finite(facts), ensure_ascii=False))
    return plain


def tokenizer_files(columns: Mapping[str, Column], names: list[str]) -> dict[str, bytes]:
    """Files of the columns' tokenizers, by the ends of their names: those of the library tokenizers as it reads them,
    SentencePiece's model as that does. What learned no more than a list stands in the facts."""
    import base64

    files = {}
    for name in names:
        state = columns[name].state()
        kept = state.get("tokenizer") if isinstance(state, dict) else None
        if isinstance(kept, dict) and "json" in kept:
            files[f"_{name}.tokenizer.json"] = json.dumps(kept["json"], ensure_ascii=False).encode()
        elif isinstance(kept, dict) and ("model" in kept or "pieces" in kept):  # whose numbers stand in the facts
            files[f"_{name}.tokenizer.model"] = base64.b64decode(kept.get("pieces", kept)["model"])
    return files
