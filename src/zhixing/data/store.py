"""The store: every column encoded once into tensors that are mapped from disk.

An entry of the cache is a folder named after a hash of the cells, of the files that they point to (size and time of
change), and of the column's settings and fitted state. It is written beside its place and renamed when whole, so a
killed preparation leaves nothing half done. Memory stays bounded: a few runs of cells are in flight, and they are
written in order.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ..columns import Column, Finding, Tensorized
from ..errors import DataError
from .batches import ColumnBatch
from .table import Table

__all__ = ["Encoded", "cache_folder", "encode_column"]

FORMAT = 1  # raise it when what is stored for the same cells and settings changes
Progress = Callable[[int], None]


@dataclass
class Encoded:
    """One column, encoded: the tensors of all rows, a hash of each row's content, and what was found wrong."""

    batch: ColumnBatch
    present: NDArray[np.bool_]
    hashes: NDArray[np.uint64]
    findings: list[Finding]


def cache_folder() -> Path:
    """Where encoded columns are kept: ``$ZHIXING_CACHE``, else ``zhixing`` in the user's cache folder."""
    if "ZHIXING_CACHE" in os.environ:
        return Path(os.environ["ZHIXING_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zhixing"


def encode_column(
    table: Table, name: str, column: Column, *, cache: Path | None, progress: Progress = lambda rows: None
) -> Encoded:
    """Encode a column of a table, or find it in the cache. Without ``cache`` the tensors stay in memory."""
    values, locate = table[name], table.locate
    if cache is None:
        return gathered(list(run_in_order(column, values, locate, progress)), column, len(values))
    entry = cache / "columns" / entry_key(column, values, table)
    if not (entry / "entry.json").is_file():
        write_entry(entry, column, run_in_order(column, values, locate, progress), len(values))
    else:
        progress(len(values))
        os.utime(entry)
    return read_entry(entry)


def run_in_order(column: Column, values: pa.ChunkedArray, locate: Any, progress: Progress) -> Iterator[Tensorized]:
    """Tensorize runs of cells in threads (decoders release Python's lock); results come in order, few at a time."""
    workers = os.cpu_count() or 1

    def work(start: int) -> Tensorized:
        part = values.slice(start, column.chunk).combine_chunks()
        done = column.tensorize(part.chunk(0) if isinstance(part, pa.ChunkedArray) else part, locate)
        done.findings = [Finding(start + f.index, f.reason, f.kind) for f in done.findings]
        return done

    # Pillow warns of oddities in files that are judged here by our own rules, and filters are global to the process.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers, thread_name_prefix="zhixing-encode") as pool:
        warnings.simplefilter("ignore")
        waiting: deque[Any] = deque()
        for start in range(0, len(values), column.chunk):
            waiting.append(pool.submit(work, start))
            if len(waiting) > 2 * workers:
                done = waiting.popleft().result()
                progress(len(done.values))
                yield done
        for future in waiting:
            done = future.result()
            progress(len(done.values))
            yield done


def row_hashes(values: NDArray[Any]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row's bytes: equal rows have equal hashes."""
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


def gathered(parts: list[Tensorized], column: Column, rows: int) -> Encoded:
    if not parts:
        parts = [column.tensorize(pa.array([], pa.string()), Path)]
    values = np.concatenate([part.values for part in parts])
    return Encoded(
        ColumnBatch(torch.from_numpy(values)),
        np.concatenate([part.present for part in parts]),
        np.concatenate([row_hashes(part.values) for part in parts]),
        [finding for part in parts for finding in part.findings],
    )


def entry_key(column: Column, values: pa.ChunkedArray, table: Table) -> str:
    """The name of the cache entry: a hash of all that its content depends on."""
    digest = hashlib.blake2b(digest_size=20)
    about = {"format": FORMAT, "type": column.type, "role": column.role, "settings": column.settings()}
    digest.update(json.dumps(about | {"state": column.state()}, sort_keys=True).encode())
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
        for start in range(0, len(values), 65536):
            part = values.slice(start, 65536).combine_chunks()
            writer.write_batch(
                pa.record_batch([part.chunk(0) if isinstance(part, pa.ChunkedArray) else part], [field.name])
            )


def write_entry(entry: Path, column: Column, parts: Iterator[Tensorized], rows: int) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".part-", dir=entry.parent))
    findings: list[Finding] = []
    shape: tuple[int, ...] = ()
    dtype = ""
    try:
        with (
            (folder / "values").open("wb") as values,
            (folder / "present").open("wb") as present,
            (folder / "hashes").open("wb") as hashes,
        ):
            for part in parts:
                if not dtype:
                    shape, dtype = part.values.shape[1:], part.values.dtype.str
                    check_room(folder, rows * part.values[:1].nbytes)
                values.write(np.ascontiguousarray(part.values).data)
                present.write(part.present.data)
                hashes.write(row_hashes(part.values).data)
                findings += part.findings
        about = {"rows": rows, "shape": shape, "dtype": dtype, "findings": [vars(f) for f in findings]}
        (folder / "entry.json").write_text(json.dumps(about), "utf-8")
        os.replace(folder, entry)
    except OSError as error:
        if entry.is_dir():  # another process finished the same entry first
            return
        raise DataError(
            f"the encoded column cannot be written: {error.strerror or error}",
            place=folder,
            mend="Free some space, or name another folder in the variable ZHIXING_CACHE.",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_room(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DataError(
            f"encoding needs {need:,} bytes, {free:,} are free",
            place=folder,
            mend="Free some space, name another folder in the variable ZHIXING_CACHE, or ask for smaller pictures.",
        )


def read_entry(entry: Path) -> Encoded:
    about = json.loads((entry / "entry.json").read_text("utf-8"))
    shape = (about["rows"], *about["shape"])
    try:
        # Mode "c" maps pages that could be written without touching the file, which is what torch wants.
        values = np.memmap(entry / "values", about["dtype"], "c", shape=shape)
        present = np.fromfile(entry / "present", bool, about["rows"])
        hashes = np.fromfile(entry / "hashes", np.uint64, about["rows"])
    except (OSError, ValueError) as error:
        raise DataError(f"the cached column is damaged: {error}", place=entry, mend="Delete this folder.") from error
    findings = [Finding(**finding) for finding in about["findings"]]
    return Encoded(ColumnBatch(torch.from_numpy(values)), present, hashes, findings)
