"""Checkpoints: written whole or not at all, hashed, and verified whenever they are read.

A checkpoint is a folder ``step-00000400`` of safetensors and JSON files with a ``manifest.json`` of their SHA-256 and
sizes, and a ``manifest.sha256`` of that. It is written to a temporary folder, flushed to disk, renamed, and read back
before an older one is deleted. Nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from ..errors import CheckpointError

__all__ = ["Checkpoint", "Writer", "latest", "read_checkpoint", "write_checkpoint", "write_durably"]

FORMAT = 1
NAME = re.compile(r"step-(\d{8,})")


@dataclass
class Checkpoint:
    """Groups of tensors by name ("model", "optimizer", …) and whatever else is needed, as JSON."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in main memory that training can go on without changing."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        if tensor.ndim
        else tensor.detach().to("cpu", copy=True)
        for name, tensor in tensors.items()
    }


def flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_checkpoint(root: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write a checkpoint below ``root``, verify it, and only then delete all but the newest ``keep`` good ones.

    Raises:
        CheckpointError: it cannot be written (a full disk, say). Those that were there are as they were.
    """
    files = {f"{group}.safetensors": serialise_tensors(tensors) for group, tensors in checkpoint.tensors.items()}
    files["state.json"] = json.dumps({"step": checkpoint.step, **checkpoint.state}, sort_keys=True).encode()
    entries = {name: {"sha256": digest(content), "bytes": len(content)} for name, content in files.items()}
    files["manifest.json"] = json.dumps({"format": FORMAT, "files": entries}, sort_keys=True).encode()
    files["manifest.sha256"] = digest(files["manifest.json"]).encode()
    final = root / f"step-{checkpoint.step:08d}"
    part = root / f".part-{final.name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        for name, content in files.items():
            write_durably(part / name, content)
        flush_folder(part)
        if final.exists():  # the same step written before: kept if it is good, in the way if it is not
            if is_good(final):
                shutil.rmtree(part)
                return final
            shutil.rmtree(final)
        os.rename(part, final)
        flush_folder(root)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        need = sum(map(len, files.values()))
        raise CheckpointError(
            f"the checkpoint cannot be written ({error.strerror or error}); it needs {need:,} bytes",
            place=final,
            mend="Free some space; the last good checkpoint is untouched, and --resume goes on from it.",
        ) from error
    read_checkpoint(final)
    for old in checkpoints(root)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def is_good(folder: Path) -> bool:
    try:
        read_checkpoint(folder)
    except CheckpointError:
        return False
    return True


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint of which every byte is as it was written.

    Raises:
        CheckpointError: naming the file that is missing, cut or changed.
    """
    try:
        manifest_bytes = (folder / "manifest.json").read_bytes()
        if digest(manifest_bytes) != (folder / "manifest.sha256").read_bytes().decode("ascii", "replace"):
            raise CheckpointError("manifest.json is not what was written", place=folder)
        contents = {}
        for name, entry in json.loads(manifest_bytes)["files"].items():
            content = (folder / name).read_bytes()
            if len(content) != entry["bytes"] or digest(content) != entry["sha256"]:
                raise CheckpointError(f"{name} is not what was written ({len(content):,} bytes)", place=folder)
            contents[name] = content
        state = json.loads(contents.pop("state.json"))
        tensors = {name.removesuffix(".safetensors"): parse_tensors(content) for name, content in contents.items()}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read: {error}", place=folder) from error
    return Checkpoint(state.pop("step"), tensors, state)


def checkpoints(root: Path) -> list[Path]:
    """The checkpoint folders below ``root``, newest first."""
    if not root.is_dir():
        return []
    found = [(int(match[1]), path) for path in root.iterdir() if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def latest(root: Path) -> tuple[Checkpoint | None, list[CheckpointError]]:
    """The newest checkpoint that verifies, and what was wrong with each newer one."""
    wrong: list[CheckpointError] = []
    for path in checkpoints(root):
        try:
            return read_checkpoint(path), wrong
        except CheckpointError as error:
            wrong.append(error)
    return None, wrong


class Writer:
    """Writes checkpoints in the background, one at a time, so that training does not wait for the disk.

    What is offered while one is still being written is passed over: the disk sets the pace, not the training. A
    failure is raised at the next call.
    """

    def __init__(self, root: Path, *, keep: int = 2) -> None:
        self.root, self.keep = root, keep
        for left in root.glob(".part-*") if root.is_dir() else ():  # of a run that was killed while writing
            shutil.rmtree(left, ignore_errors=True)
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="zhixing-checkpoint")
        self.current: Future[Path] | None = None

    @property
    def busy(self) -> bool:
        return self.current is not None and not self.current.done()

    def write(self, checkpoint: Checkpoint) -> None:
        """Begin to write; the tensors must be copies (:func:`snapshot`)."""
        self.finish()
        self.current = self.pool.submit(write_checkpoint, self.root, checkpoint, keep=self.keep)

    def finish(self) -> None:
        """Wait for what is being written, and raise what went wrong with it."""
        current, self.current = self.current, None
        if current is not None:
            current.result()

    def close(self) -> None:
        try:
            self.finish()
        finally:
            self.pool.shutdown()
