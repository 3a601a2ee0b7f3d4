"""Checkpoints: written whole or not at all, hashed, and verified whenever they are read.

A checkpoint is a folder ``step-00000400`` of safetensors and JSON files with a ``manifest.json`` of their SHA-256 and
sizes, and a ``manifest.sha256`` of that. It is written to a temporary folder, flushed to disk, renamed, and read back
before an older one is deleted. Nothing in it is ever executed.

What a loss of power may leave is decided by the order of the flushes: the files, the temporary folder, the logs that
the checkpoint counts on, and only then the rename and the folder above it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from torch import Tensor

from ..errors import CheckpointError, RunError

__all__ = ["Checkpoint", "FormatError", "Writer", "exclusive", "latest", "read_checkpoint", "write_checkpoint"]

FORMAT = 1
NAME = re.compile(r"step-(\d{8,})")
MEND_SPACE = "Free some space; the last good checkpoint is untouched, and --resume goes on from it."
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class FormatError(CheckpointError):
    """A whole checkpoint that another version of Zhixing has written."""


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


# Writing ------------------------------------------------------------------------------------------------------------


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def layout(tensors: Mapping[str, Tensor]) -> tuple[bytes, list[Tensor]]:
    """The head of a safetensors file, and the tensors in the order in which they follow it: the widest types first,
    so that each lies at a multiple of its own size."""
    entries, offset, ordered = {}, 0, []
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        entries[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
        ordered.append(tensor)
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head, ordered


def pieces(head: bytes, tensors: list[Tensor]) -> Iterator[Any]:
    """The bytes of a safetensors file, straight from the tensors' memory: a large model is not copied once more."""
    yield head
    for tensor in tensors:
        if tensor.numel():
            yield tensor.contiguous().view(-1).view(torch.uint8).numpy().data


def write_hashed(path: Path, parts: Iterator[Any]) -> dict[str, Any]:
    """Write a file, wait until it is on disk, and give the hash and the size of what was meant to be written."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for part in parts:
            digest.update(part)
            size += len(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": digest.hexdigest(), "bytes": size}


def write_files(folder: Path, files: Mapping[str, tuple[bytes, list[Tensor]]]) -> None:
    """All files of a checkpoint, the manifest after what it lists, and everything on disk."""
    entries = {name: write_hashed(folder / name, pieces(*content)) for name, content in files.items()}
    manifest = json.dumps({"format": FORMAT, "files": entries}, sort_keys=True).encode()
    told = write_hashed(folder / "manifest.json", iter([manifest]))
    write_hashed(folder / "manifest.sha256", iter([told["sha256"].encode()]))
    flush(folder)


def write_checkpoint(root: Path, checkpoint: Checkpoint, *, keep: int = 2, logs: Sequence[Path] = ()) -> Path:
    """Write a checkpoint below ``root``, verify it, and only then delete all but it and the ``keep - 1`` before it.

    Those of a later step go too: a run that writes an earlier one could not use them. ``logs`` are brought to disk
    before the checkpoint counts.

    Raises:
        CheckpointError: it cannot be written (a full disk, say). Those that were there are as they were.
    """
    state = json.dumps({"step": checkpoint.step, **checkpoint.state}, sort_keys=True).encode()
    files = {f"{group}.safetensors": layout(tensors) for group, tensors in checkpoint.tensors.items()}
    files["state.json"] = (state, [])
    final = root / f"step-{checkpoint.step:08d}"
    part = root / f".part-{final.name}"
    try:
        if not root.exists():
            root.mkdir(parents=True, exist_ok=True)
            flush(root.parent)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        write_files(part, files)
        for log in logs:
            if log.exists():
                flush(log)
        if final.exists() and not is_good(final):
            shutil.rmtree(final)
        if final.exists():  # the same step, written before a restart: it holds the same
            shutil.rmtree(part)
        else:
            os.rename(part, final)
        flush(root)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        need = sum(len(head) + sum(t.nbytes for t in tensors) for head, tensors in files.values())
        what = f"the checkpoint cannot be written ({error.strerror or error}); it needs {need:,} bytes"
        raise CheckpointError(what, place=final, mend=MEND_SPACE) from error
    verify(final)
    found = checkpoints(root)
    place = found.index(final)
    for old in found[:place] + found[place + keep :]:
        shutil.rmtree(old, ignore_errors=True)
    return final


# Reading ------------------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Hash and size by file."""
    try:
        content = (folder / "manifest.json").read_bytes()
        written = (folder / "manifest.sha256").read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error}", place=folder) from error
    if hashlib.sha256(content).hexdigest().encode() != written:
        raise CheckpointError("manifest.json is not what was written", place=folder)
    manifest = json.loads(content)
    if manifest["format"] != FORMAT:
        raise FormatError(
            f"this checkpoint is of format {manifest['format']}, and this version of Zhixing reads format {FORMAT}",
            place=folder,
            mend="Go on with the version that wrote it (environment.json names it), or start a new run.",
        )
    files: dict[str, dict[str, Any]] = manifest["files"]
    if any(Path(name).name != name for name in files):
        raise CheckpointError("manifest.json names a file outside of the checkpoint", place=folder)
    return files


def verify(folder: Path) -> None:
    """Read every byte of a checkpoint, a little at a time.

    Raises:
        CheckpointError: naming the file that is missing, cut or changed.
    """
    for name, entry in read_manifest(folder).items():
        try:
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"cannot be read: {error}", place=folder) from error
        if digest != entry["sha256"]:
            raise CheckpointError(f"{name} is not what was written", place=folder)


def is_good(folder: Path) -> bool:
    try:
        verify(folder)
    except CheckpointError:
        return False
    return True


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint of which every byte is as it was written.

    Raises:
        CheckpointError: naming the file that is missing, cut or changed; :class:`FormatError` for another version's.
    """
    tensors, state = {}, {}
    for name, entry in read_manifest(folder).items():
        try:
            content = (folder / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                size = f"{len(content):,} bytes, {entry['bytes']:,} written"
                raise CheckpointError(f"{name} is not what was written ({size})", place=folder)
            if name == "state.json":
                state = json.loads(content)
            else:
                tensors[name.removesuffix(".safetensors")] = parse_tensors(content)
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"cannot be read: {error}", place=folder) from error
    return Checkpoint(state.pop("step"), tensors, state)


def checkpoints(root: Path) -> list[Path]:
    """The checkpoint folders below ``root``, newest first."""
    if not root.is_dir():
        return []
    found = [(int(match[1]), path) for path in root.iterdir() if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def latest(root: Path) -> tuple[Checkpoint | None, list[CheckpointError]]:
    """The newest checkpoint that verifies, and what was wrong with each newer one.

    Raises:
        FormatError: there is a good one that this version cannot read; to pass it over would be to lose it.
    """
    wrong: list[CheckpointError] = []
    for path in checkpoints(root):
        try:
            return read_checkpoint(path), wrong
        except FormatError:
            raise
        except CheckpointError as error:
            wrong.append(error)
    return None, wrong


# In the background --------------------------------------------------------------------------------------------------


class Writer:
    """Writes checkpoints in the background, one at a time, so that training does not wait for the disk.

    What is offered while one is still being written is passed over: the disk sets the pace, not the training. A
    failure is raised at the next call of any method but :attr:`busy`. As a context it waits at its end for what is
    being written.
    """

    def __init__(self, root: Path, *, keep: int = 2, logs: Sequence[Path] = ()) -> None:
        self.root, self.keep, self.logs = root, keep, logs
        for left in root.glob(".part-*") if root.is_dir() else ():  # of a run that was killed while writing
            shutil.rmtree(left, ignore_errors=True)
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="zhixing-checkpoint")
        self.current: Future[Path] | None = None

    @property
    def busy(self) -> bool:
        return self.current is not None and not self.current.done()

    def write(self, checkpoint: Checkpoint) -> bool:
        """Begin to write; False if one is still being written. The tensors must be copies (:func:`snapshot`)."""
        if self.busy:
            return False
        self.finish()
        self.current = self.pool.submit(write_checkpoint, self.root, checkpoint, keep=self.keep, logs=self.logs)
        return True

    def check(self) -> None:
        """Raise what went wrong with what was being written, without waiting for it."""
        if not self.busy:
            self.finish()

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

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except CheckpointError as failed:
            if error is None:
                raise
            error.add_note(str(failed))  # what ended the training is what a person has to hear first


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes from working on the same folder. The system takes the lock away when a process dies.

    Raises:
        RunError: another process is at it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):  # others: a file system without locks
                raise RunError(
                    "another process is training this run",
                    place=folder,
                    mend="Wait until it ends, or stop it and resume then.",
                ) from None
        yield
    finally:
        os.close(handle)
