"""A published model as it lies on disk: its settings, and its tensors one by one.

Read are safetensors (one file, or shards with an index) and GGUF. Neither can run code, and nothing else in a folder is
executed. PyTorch's own files are pickles, which can: they are refused, but for an explicit flag and then with
``weights_only``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import DataError, MissingExtraError, UsageError
from .gguf import GGUF

__all__ = ["Files", "GGUFFile", "SafetensorsFolder", "local", "names_files", "open_files"]

INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "model.bin", "*.pth", "*.pt", "*.bin", "*.ckpt")
WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.spm"]  # of a repository on the hub
BESIDE = ("*token*.json", "vocab.*", "*.model", "*.spm", "merges.txt", "*processor_config.json")  # of the weights
HUB = re.compile(r"[\w.-]+/[\w.-]+")
PIECE = 1 << 24


def names_files(name: str) -> bool:
    """Whether a name stands for files of a model: a path, or ``owner/name`` on the hub. No part here is called so.

    >>> names_files("./minilm"), names_files("transformer")
    (True, False)
    """
    return "/" in name or os.sep in name or name.startswith(".") or name.endswith((".gguf", ".safetensors"))


def local(name: str) -> Path:
    """The folder or file that a name stands for; from the hub it is fetched once.

    Raises:
        UsageError: there is nothing of that name.
        MissingExtraError: it is on the hub, and the library for that is not installed.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path.resolve()
    if not HUB.fullmatch(name) or name.startswith("."):
        raise UsageError(
            "there is no such file or folder",
            place=name,
            mend="Give the folder that holds config.json, or a .gguf file.",
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtraError("huggingface_hub", "hub", purpose=f"{name}, which is no folder here,") from None
    try:
        return Path(snapshot_download(name, allow_patterns=WANTED))
    except Exception as error:  # of several libraries: network, hub, names
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"there is no such folder, and the hub did not give it: {told}",
            place=name,
            mend="Check the name and the network, or fetch its files and give their folder.",
        ) from error


class Files(ABC):
    """Settings and tensors of one model. ``config`` is in the words of the files' ``config.json``."""

    path: Path
    config: dict[str, Any]

    @abstractmethod
    def names(self) -> list[str]:
        """Of all tensors."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor."""

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """One tensor, in float32."""

    @abstractmethod
    def parts(self) -> list[Path]:
        """The files that the content is made of."""

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON file beside the weights; None where there is none."""
        return None

    def sha256(self) -> str:
        """A hash of the content of all its files, wherever they lie."""
        whole = hashlib.sha256()
        for path in sorted(self.parts(), key=lambda path: path.name):
            one = hashlib.sha256()
            with path.open("rb") as file:
                while piece := file.read(PIECE):
                    one.update(piece)
            whole.update(path.name.encode() + one.digest())
        return whole.hexdigest()


class SafetensorsFolder(Files):
    """A folder with ``config.json`` and ``model.safetensors``, or shards and ``model.safetensors.index.json``."""

    def __init__(self, path: Path, *, allow_pickle: bool = False) -> None:
        self.path = path
        config = self.json("config.json")
        if config is None:
            raise UsageError(
                "this is no model: it has no config.json",
                place=path,
                mend="Give the folder of a published model, as the hub has it, or a .gguf file.",
            )
        self.config = config
        self.held: dict[str, Tensor] = {}
        self.weights = self.find(allow_pickle)
        self.opened = {file: self.open(path / file) for file in sorted(set(self.weights.values()))}
        self.check()

    def find(self, allow_pickle: bool) -> dict[str, str]:
        """The file of each tensor."""
        index = self.json(INDEX)
        if index is not None:
            return self.shards(index)
        found = self.path / "model.safetensors"
        single = [found] if found.is_file() else sorted(self.path.glob("*.safetensors"))
        if len(single) == 1:
            return dict.fromkeys(self.open(single[0]).keys(), single[0].name)
        if single:
            raise DataError(
                f"there are {len(single)} files of weights and no {INDEX} that says what is in which",
                place=self.path,
                mend="Fetch the index from where the weights are from.",
            )
        pickled = next((file for pattern in PICKLES for file in sorted(self.path.glob(pattern))), None)
        if pickled is None:
            raise DataError(
                "there are no weights here: no model.safetensors", place=self.path, mend="Fetch them as safetensors."
            )
        if not allow_pickle:
            raise DataError(
                "these weights are a pickle, a program that runs as it is read",
                place=pickled,
                mend="Take the model's safetensors, or convert the file if you trust it: "
                'python -c "import torch; from safetensors.torch import save_file; '
                f"save_file({{k: v.clone() for k, v in torch.load('{pickled}', weights_only=True).items()}}, "
                f"'{pickled.with_name('model.safetensors')}')\". "
                "Or set allow_pickle: true beside the encoder's name: it is then read with weights_only.",
            )
        self.held = unpickled(pickled)
        return dict.fromkeys(self.held, pickled.name)

    def shards(self, index: Mapping[str, Any]) -> dict[str, str]:
        table = index.get("weight_map")
        table = table if isinstance(table, dict) else {"": ""}
        if any(not isinstance(file, str) or not file or Path(file).name != file for file in table.values()):
            raise DataError("its weight_map names no files beside it", place=self.path / INDEX)
        missing = sorted({file for file in table.values() if not (self.path / file).is_file()})
        if missing:
            raise DataError(
                f"{len(missing)} of {len(set(table.values()))} shards are missing: {', '.join(missing)}",
                place=self.path,
                mend="Fetch them from where the others are from.",
            )
        return dict(table)

    def open(self, file: Path) -> Any:
        if self.held:
            return self.held
        try:
            return safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"these weights cannot be read, the file is cut short or damaged: {error}",
                place=file,
                mend=f"It has {file.stat().st_size:,} bytes; fetch it again.",
            ) from error

    def check(self) -> None:
        there = {file: set(opened.keys()) for file, opened in self.opened.items()}
        lost = sorted(name for name, file in self.weights.items() if name not in there[file])
        if lost:
            raise DataError(
                f"{self.weights[lost[0]]} lacks {lost[0]}, which the index places there",
                place=self.path,
                mend="Fetch index and shards again, all of one version.",
            )

    def names(self) -> list[str]:
        return list(self.weights)

    def shape(self, name: str) -> tuple[int, ...]:
        if self.held:
            return tuple(self.held[name].shape)
        return tuple(self.opened[self.weights[name]].get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        found: Tensor = self.held[name] if self.held else self.opened[self.weights[name]].get_tensor(name)
        return found.float()

    def parts(self) -> list[Path]:
        known = (self.path / name for name in ("config.json", INDEX, *sorted(set(self.weights.values()))))
        more = (path for pattern in BESIDE for path in self.path.glob(pattern))
        return sorted({path for path in (*known, *more) if path.is_file()})

    def json(self, name: str) -> dict[str, Any] | None:
        place = self.path / name
        try:
            content = json.loads(place.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"this is no readable JSON: {error}", place=place, mend="Fetch it again.") from error
        if not isinstance(content, dict):
            raise DataError(f"a mapping was expected, this is {type(content).__name__}", place=place)
        return content


def unpickled(file: Path) -> dict[str, Tensor]:
    """Tensors of a file of PyTorch's, read with ``weights_only``: the user has said that they trust it."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle raises nearly anything
        raise DataError(f"it holds more than weights, or is damaged: {error}", place=file) from error
    with suppress(AttributeError, KeyError, TypeError):
        found = found.get("state_dict", found)
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError("it holds no mapping of names to tensors", place=file)
    return found


class GGUFFile(Files):
    """One file of llama.cpp's, that holds settings, tokenizer and (dequantised) weights."""

    def __init__(self, path: Path) -> None:
        from .layouts.gguf import config_of, names_of

        self.path, self.gguf = path, GGUF(path)
        self.config = config_of(self.gguf)
        self.own = names_of(self.gguf, self.config)  # the name here of each tensor by its name in other files

    def names(self) -> list[str]:
        return list(self.own)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.gguf.tensors[self.own[name].name].shape

    def read(self, name: str) -> Tensor:
        entry = self.own[name]
        found = torch.from_numpy(self.gguf.read(entry.name))
        if entry.heads:  # rows of a head lie as pairs (0, 1), (2, 3), …: bring the first of all pairs before the second
            rows = found.reshape(entry.heads, -1, 2, *found.shape[1:])
            found = rows.transpose(1, 2).reshape(found.shape).contiguous()
        return found

    def parts(self) -> list[Path]:
        return [self.path]


def open_files(path: Path, *, allow_pickle: bool = False) -> Files:
    """A model's files, checked to be whole.

    Raises:
        UsageError: it is no model.
        DataError: a file is damaged or missing, or is one that can run code.
    """
    if path.is_file():
        if path.suffix == ".gguf":
            return GGUFFile(path)
        if path.name.endswith((".safetensors", "config.json")):
            return SafetensorsFolder(path.parent, allow_pickle=allow_pickle)
        raise UsageError("this is no model", place=path, mend="Give the folder of a published model, or a .gguf file.")
    packed = sorted(path.glob("*.gguf"))
    if len(packed) == 1 and not (path / "config.json").is_file():
        return GGUFFile(packed[0])
    if packed and not (path / "config.json").is_file():
        raise UsageError(f"there are {len(packed)} models here", place=path, mend=f"Name one, such as {packed[0]}.")
    return SafetensorsFolder(path, allow_pickle=allow_pickle)
