"""The store: every column encoded once into tensors that are mapped from disk.

An entry of the cache is a folder named after a hash of the cells, of the files that they point to (size and time of
change), and of the column's settings and fitted state. It is written beside its place and renamed when whole, so a
killed preparation leaves nothing half done; what it leaves beside is cleared away by a later one. Memory stays bounded:
a few runs of cells are in flight, and they are written in order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ..columns import Column, Finding, Tensorized
from ..columns.column import Ragged, whole
from ..errors import DataError
from .batches import ColumnBatch
from .table import Table

__all__ = ["Encoded", "cache_folder", "encode_column"]

FORMAT = 3  # raise it when what is stored for the same cells and settings changes
STALE = 3600.0  # seconds after which a folder that nobody has written to is taken for a killed process's
PART = ".part-"
SLICE_BYTES = 16 << 20
DTYPES = ("|u1", "<i2", "<i4", "<i8", "<f4")  # what columns store; an entry that names another is none of ours
Progress = Callable[[int], None]


class Damaged(Exception):  # noqa: N818
    """An entry of the cache is not whole. It never leaves this file: the column is encoded anew."""


class Hashed(NamedTuple):
    """A run of cells, encoded, and a hash of each row."""

    part: Tensorized
    hashes: NDArray[np.uint64]


@dataclass
class Encoded:
    """One column, encoded: the tensors of all rows, a hash of each row's content, and what was found wrong."""

    batch: ColumnBatch | Ragged
    present: NDArray[np.bool_]
    hashes: NDArray[np.uint64]
    findings: list[Finding]
    sums: NDArray[np.int64] | None = None


def cache_folder() -> Path:
    """Where encoded columns are kept: ``$ZHIXING_CACHE``, else ``zhixing`` in the user's cache folder."""
    if "ZHIXING_CACHE" in os.environ:
        return Path(os.environ["ZHIXING_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zhixing"


def encode_column(
    table: Table, name: str, column: Column, *, cache: Path | None, progress: Progress = lambda rows: None
) -> Encoded:
    """Encode a column of a table, or find it in the cache. Without ``cache`` the tensors stay in memory.

    Raises:
        DataError: the cache cannot be written; it names the folder and the bytes that are needed.
    """
    values, locate = table[name], table.locate
    if cache is None or not len(values):
        return gathered(list(run_in_order(column, values, locate, progress)), column, values, locate)
    entry = cache / "columns" / entry_key(column, values, table)
    try:
        found = read_entry(entry, len(values))
    except Damaged:
        shutil.rmtree(entry, ignore_errors=True)
        write_entry(entry, column, run_in_order(column, values, locate, progress), len(values))
        try:
            return read_entry(entry, len(values))
        except Damaged as error:
            raise DataError(
                f"the cached column is damaged: {error}", place=entry, mend="Delete this folder."
            ) from error
    progress(len(values))
    with contextlib.suppress(OSError):  # a cache that may only be read is as good
        os.utime(entry)
    return found


def run_in_order(column: Column, values: pa.ChunkedArray, locate: Any, progress: Progress) -> Iterator[Hashed]:
    """Tensorize and hash runs of cells in threads (decoders and NumPy release Python's lock); results come in order,
    few at a time."""
    workers, chunk = os.cpu_count() or 1, column.chunk

    def work(start: int) -> Hashed:
        done = column.tensorize(whole(values.slice(start, chunk)), locate)
        done.findings = [Finding(start + f.index, f.reason, f.kind) for f in done.findings]
        return Hashed(done, hashes_of(done))

    waiting: deque[Future[Hashed]] = deque()
    # Pillow warns of oddities in files that are judged here by our own rules, and filters are global to the process.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers, thread_name_prefix="zhixing-encode") as pool:
        warnings.simplefilter("ignore")
        try:
            for start in range(0, len(values), chunk):
                waiting.append(pool.submit(work, start))
                if len(waiting) > 2 * workers:
                    done = waiting.popleft().result()
                    progress(len(done.hashes))
                    yield done
            while waiting:
                done = waiting.popleft().result()
                progress(len(done.hashes))
                yield done
        finally:  # after an error, what has not begun need not
            for future in waiting:
                future.cancel()


def row_hashes(values: NDArray[Any]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row's bytes: equal rows have equal hashes."""
    if not values.size:
        return np.zeros(len(values), np.uint64)
    flat = np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8)
    pad = -flat.shape[1] % 8
    if pad:
        flat = np.pad(flat, ((0, 0), (0, pad)))
    words = np.ascontiguousarray(flat).view(np.uint64)
    odd = (
        np.random.Generator(np.random.Philox(words.shape[1])).integers(0, 2**63, words.shape[1], dtype=np.uint64) * 2
        + 1
    )
    mixed = (words ^ (words >> np.uint64(29))) * odd.astype(np.uint64)
    return np.asarray(
        np.bitwise_xor.reduce(mixed ^ (mixed >> np.uint64(32)), axis=1) + mixed.sum(axis=1, dtype=np.uint64)
    )


def hashes_of(part: Tensorized) -> NDArray[np.uint64]:
    """A hash of each row, whether rows are of one length or not."""
    if part.lengths is None:
        return row_hashes(part.values)
    steps = row_hashes(part.values)
    starts = np.cumsum(part.lengths) - part.lengths
    place = (np.arange(len(steps)) - np.repeat(starts, part.lengths)).astype(np.uint64)
    place = (place + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (steps ^ place) * ((place >> np.uint64(31)) | np.uint64(1))
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed ^ (mixed >> np.uint64(29)), dtype=np.uint64)])
    lengths = part.lengths.astype(np.uint64)
    return np.asarray((total[starts + part.lengths] - total[starts]) ^ (lengths * np.uint64(0xD1B54A32D192ED03)))


def tensors_of(values: NDArray[Any], lengths: NDArray[np.int64] | None) -> ColumnBatch | Ragged:
    if lengths is None:
        return ColumnBatch(torch.from_numpy(values))
    return Ragged(torch.from_numpy(values), np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))


def gathered(found: list[Hashed], column: Column, values: pa.ChunkedArray, locate: Any) -> Encoded:
    parts = [part for part, _ in found] or [column.tensorize(whole(values), locate)]
    sums = [part.sums for part in parts if part.sums is not None]
    lengths = [part.lengths for part in parts if part.lengths is not None]
    return Encoded(
        tensors_of(np.concatenate([part.values for part in parts]), np.concatenate(lengths) if lengths else None),
        np.concatenate([part.present for part in parts]),
        np.concatenate([hashes for _, hashes in found] or [hashes_of(parts[0])]),
        [finding for part in parts for finding in part.findings],
        np.concatenate(sums) if sums else None,
    )


def entry_key(column: Column, values: pa.ChunkedArray, table: Table) -> str:
    """The name of the cache entry: a hash of all that its content depends on."""
    digest = hashlib.blake2b(digest_size=20)
    about = {"format": FORMAT, "type": column.type, "role": column.role}
    digest.update(json.dumps(about | column.stored_as(), sort_keys=True).encode())
    hash_cells(digest, values)
    for chunk in values.chunks:
        digest.update(column.files(chunk, table.locate))
    return digest.hexdigest()


def hash_cells(digest: Any, values: pa.ChunkedArray) -> None:
    """Feed cells to a hash in Arrow's own stream form, a run at a time."""

    class Sink:
        closed = False

        def write(self, data: Any) -> int:
            digest.update(data)
            return len(data)

        def flush(self) -> None: ...

        def close(self) -> None: ...

    field = pa.field("cells", values.type)
    with pa.ipc.new_stream(pa.PythonFile(Sink(), mode="w"), pa.schema([field])) as writer:
        rows = max(1, min(65536, SLICE_BYTES * len(values) // max(1, values.nbytes)))
        for start in range(0, len(values), rows):
            for part in pa.chunked_array([whole(values.slice(start, rows))]).chunks:
                writer.write_batch(pa.record_batch([part], [field.name]))


def write_entry(entry: Path, column: Column, parts: Iterator[Hashed], rows: int) -> None:
    folder, need = None, 0
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        clear_stale(entry.parent)
        folder = Path(tempfile.mkdtemp(prefix=PART, dir=entry.parent))
        with contextlib.ExitStack() as stack:
            values, present, hashes, sums, lengths = (
                stack.enter_context((folder / name).open("wb"))
                for name in ("values", "present", "hashes", "sums", "lengths")
            )
            findings: list[Finding] = []
            about: dict[str, Any] = {}
            for part, part_hashes in parts:
                if not about:
                    width = 0 if part.sums is None else part.sums.shape[1]
                    dtype = part.values.dtype.str
                    about = {"rows": rows, "shape": part.values.shape[1:], "dtype": dtype, "sums": width}
                    about["ragged"] = part.lengths is not None
                    assert dtype in DTYPES
                    # Of rows of unequal length, the first run stands for all.
                    beside = 9 + 8 * width + (8 if part.lengths is not None else 0)
                    need = rows * part.values.nbytes // max(1, len(part.present)) + rows * beside
                    check_room(folder, need)
                values.write(np.ascontiguousarray(part.values).data)
                present.write(np.ascontiguousarray(part.present).data)
                hashes.write(part_hashes.data)
                if part.sums is not None:
                    sums.write(np.ascontiguousarray(part.sums).data)
                if part.lengths is not None:
                    lengths.write(np.ascontiguousarray(part.lengths, np.int64).data)
                findings += part.findings
        about["findings"] = [vars(finding) for finding in findings]
        (folder / "entry.json").write_text(json.dumps(about), "utf-8")
        os.replace(folder, entry)
    except OSError as error:
        if entry.is_dir():  # another process finished the same entry first
            return
        raise DataError(
            f"the encoded column, {need:,} bytes, cannot be written: {error.strerror or error}",
            place=entry.parent,
            mend="Free some space, or name another folder in the variable ZHIXING_CACHE.",
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def clear_stale(folder: Path) -> None:
    """Remove what killed processes have left half done: folders in which nothing was written for long."""
    for part in folder.glob(PART + "*"):
        with contextlib.suppress(OSError):
            latest = max(path.stat().st_mtime for path in (part, *part.iterdir()))
            if time.time() - latest > STALE:
                shutil.rmtree(part, ignore_errors=True)


def check_room(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DataError(
            f"encoding needs {need:,} bytes, {free:,} are free",
            place=folder.parent,
            mend="Free some space, name another folder in the variable ZHIXING_CACHE, or ask for smaller pictures.",
        )


def read_entry(entry: Path, rows: int) -> Encoded:
    """An entry of so many rows. Raises Damaged where it is not there or not whole."""
    try:
        about = json.loads((entry / "entry.json").read_text("utf-8"))
        if about["rows"] != rows or about["dtype"] not in DTYPES:
            raise Damaged("it is of other rows or of an unknown type")
        shape = tuple(int(side) for side in about["shape"])
        lengths = column_of(entry / "lengths", np.int64, rows if about["ragged"] else 0)
        if len(lengths) and not 0 <= lengths.min() <= lengths.max() <= (entry / "values").stat().st_size:
            raise Damaged("lengths: a row has less than no steps, or more than there are")
        values = mapped(entry / "values", about["dtype"], (int(lengths.sum()) if about["ragged"] else rows, *shape))
        present = column_of(entry / "present", np.bool_, rows)
        hashes = column_of(entry / "hashes", np.uint64, rows)
        sums = column_of(entry / "sums", np.int64, rows * int(about["sums"]))
        findings = [Finding(**finding) for finding in about["findings"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Damaged(str(error)) from error
    wide = sums.reshape(rows, -1) if len(sums) else None
    return Encoded(tensors_of(values, lengths if about["ragged"] else None), present, hashes, findings, wide)


def mapped(path: Path, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if not math.prod(shape):  # there is nothing to map in an empty file
        return np.zeros(shape, dtype)
    if math.prod(shape) * np.dtype(dtype).itemsize != path.stat().st_size:
        raise Damaged("values: the size is not what was written")
    # Mode "c" maps pages that could be written without touching the file, which is what torch wants.
    return np.memmap(path, dtype, "c", shape=shape)


def column_of(path: Path, dtype: Any, count: int) -> NDArray[Any]:
    found = np.fromfile(path, dtype)
    if len(found) != count or found.nbytes != path.stat().st_size:
        raise Damaged(f"{path.name}: the size is not what was written")
    return found
