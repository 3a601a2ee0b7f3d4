"""The store: found where nothing has changed, encoded anew where anything has, and never half done."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from zhixing.columns import COLUMNS, Column, Finding
from zhixing.columns.column import Ragged, Tensorized
from zhixing.columns.image import Image
from zhixing.data import store
from zhixing.data.store import cache_folder, encode_column, hashes_of, row_hashes
from zhixing.data.table import Table
from zhixing.errors import DataError


def pictures(folder: Path, count: int = 12, side: int = 16) -> Table:
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for index in range(count):
        Pillow.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"{index}.png")
    return Table(pa.table({"photo": [f"{i}.png" for i in range(count)]}), base=folder)


def fitted(kind: str, table: Table, name: str, **settings_of: object) -> Column:
    column = COLUMNS[kind](**settings_of)
    column.fit(table[name], table.locate)
    return column


class Counted:
    """Counts the cells that a column tensorizes."""

    def __init__(self, column: Column, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cells, inner = 0, column.tensorize

        def tensorize(values, locate):
            self.cells += len(values)
            return inner(values, locate)

        monkeypatch.setattr(column, "tensorize", tensorize)


def encoded_anew(table: Table, column: Column, cache: Path, name: str = "photo") -> bool:
    """Whether the column had to be encoded again."""
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(column, patch)
        encode_column(table, name, column, cache=cache)
    assert counted.cells in (0, table.rows)
    return counted.cells > 0


def same(one: store.Encoded, other: store.Encoded) -> bool:
    return (
        torch.equal(one.batch.values, other.batch.values)
        and np.array_equal(one.present, other.present)
        and np.array_equal(one.hashes, other.hashes)
        and one.findings == other.findings
        and ((one.sums is None and other.sums is None) or np.array_equal(one.sums, other.sums))
    )


TABLES = {
    "category": {"a": ["x", "y", None, "x"] * 5},
    "date": {"a": ["2026-01-31", "2026-02-01 12:00", "never", None] * 5},
    "number": {"a": ["1", "2.5", "x", None] * 5},
    "tags": {"a": ["x|y", "y", "", None] * 5},
}


@pytest.mark.parametrize("kind", TABLES)
def test_the_cache_gives_back_what_memory_would(kind, tmp_path) -> None:
    table = Table(pa.table(TABLES[kind]))
    column = fitted(kind, table, "a")
    without = encode_column(table, "a", column, cache=None)
    assert same(without, encode_column(table, "a", column, cache=tmp_path))
    assert same(without, encode_column(table, "a", column, cache=tmp_path))
    assert not encoded_anew(table, column, tmp_path, "a")


def test_pictures_are_found_again_until_something_changes(tmp_path) -> None:
    table = pictures(tmp_path / "photos")
    cache = tmp_path / "cache"
    assert encoded_anew(table, fitted("image", table, "photo", size=8), cache)
    assert not encoded_anew(table, fitted("image", table, "photo", size=8), cache)
    assert not encoded_anew(table, fitted("image", table, "photo", size=8, statistics="imagenet"), cache)
    assert encoded_anew(table, fitted("image", table, "photo", size=9), cache)
    assert encoded_anew(table, fitted("image", table, "photo", size=8, fit="pad"), cache)
    assert encoded_anew(table, fitted("image", table, "photo", size=8, channels=1), cache)
    assert encoded_anew(table, fitted("image", table, "photo", size=8, max_pixels=10_000), cache)


def test_what_is_calibrated_later_does_not_matter(tmp_path) -> None:
    """A trained run evaluates on what training has stored: mean and deviation are learned after encoding."""
    table = pictures(tmp_path / "photos")
    column = fitted("image", table, "photo")
    done = encode_column(table, "photo", column, cache=tmp_path)
    column.calibrate(done.batch.values, np.arange(table.rows), done.sums)
    later = Image(**column.settings())
    later.load_state(json.loads(json.dumps(column.state())))
    assert later.mean != [0.0]
    assert not encoded_anew(table, later, tmp_path)


@pytest.mark.parametrize("what", ["size", "time", "content", "gone"])
def test_a_file_that_changes_is_read_again(what, tmp_path) -> None:
    table = pictures(tmp_path / "photos")
    column = fitted("image", table, "photo")
    path = tmp_path / "photos" / "5.png"
    before = encode_column(table, "photo", column, cache=tmp_path)
    if what == "size":
        Pillow.new("RGB", (16, 16)).save(path)
    elif what == "time":
        os.utime(path, ns=(0, 123))
    elif what == "content":  # of the same size, and dated back
        stat = path.stat()
        time.sleep(0.02)  # the finest step of a file's times
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        path.unlink()
    assert encoded_anew(table, column, tmp_path)
    after = encode_column(table, "photo", column, cache=tmp_path)
    others = np.arange(table.rows) != 5
    assert torch.equal(before.batch.values[others], after.batch.values[others])
    assert bool(after.batch.values[5].any()) == (what in ("time", "content"))
    assert [f.index for f in after.findings] == ([5] if what == "gone" else [])


def test_two_folders_alike_in_name_size_and_time_are_not_mixed_up(tmp_path) -> None:
    tables = []
    for shade in (10, 200):
        folder = tmp_path / str(shade)
        folder.mkdir()
        Pillow.new("L", (8, 8), shade).save(folder / "a.bmp")
        os.utime(folder / "a.bmp", ns=(0, 0))
        tables.append(Table(pa.table({"photo": ["a.bmp"]}), base=folder))
    shades = []
    for table in tables:
        column = fitted("image", table, "photo")
        shades.append(int(encode_column(table, "photo", column, cache=tmp_path).batch.values[0, 0, 0, 0]))
    assert shades == [10, 200]


@pytest.mark.parametrize("kind", TABLES)
def test_a_cell_or_a_fitted_state_that_changes_is_encoded_anew(kind, tmp_path) -> None:
    table = Table(pa.table(TABLES[kind]))
    column = fitted(kind, table, "a")
    assert encoded_anew(table, column, tmp_path, "a")
    cells = [*TABLES[kind]["a"][:-1], TABLES[kind]["a"][1]]
    assert encoded_anew(Table(pa.table({"a": cells})), column, tmp_path, "a")
    other = fitted(kind, Table(pa.table({"a": TABLES[kind]["a"][:1]})), "a")
    assert other.state() != column.state()
    assert encoded_anew(table, other, tmp_path, "a")
    column.role = "output"
    assert encoded_anew(table, column, tmp_path, "a")


def test_chunks_of_a_table_do_not_matter(tmp_path) -> None:
    cells = [str(i) for i in range(1000)]
    whole = Table(pa.table({"a": cells}))
    column = fitted("number", whole, "a")
    assert encoded_anew(whole, column, tmp_path, "a")
    cut = Table(pa.table({"a": pa.chunked_array([cells[:1], cells[1:700], [], cells[700:]])}))
    assert not encoded_anew(cut, column, tmp_path, "a")


def test_order_is_kept_whoever_is_done_first(tmp_path, monkeypatch) -> None:
    table = Table(pa.table({"a": [str(i) for i in range(400)]}))
    column = fitted("number", table, "a", scale="none")
    inner = column.tensorize

    def slow(values, locate):
        time.sleep(0.003 * (int(values[0].as_py()) % 3))
        return inner(values, locate)

    monkeypatch.setattr(type(column), "chunk", 7)
    monkeypatch.setattr(column, "tensorize", slow)
    seen: list[int] = []
    done = encode_column(table, "a", column, cache=tmp_path, progress=seen.append)
    assert done.batch.values[:, 0].tolist() == list(range(400))
    assert sum(seen) == 400


def test_findings_name_rows_of_the_whole_column(tmp_path, monkeypatch) -> None:
    table = Table(pa.table({"a": ["1"] * 50 + ["x"] + ["2"] * 49}))
    column = fitted("number", table, "a")
    monkeypatch.setattr(type(column), "chunk", 9)
    for cache in (None, tmp_path, tmp_path):
        assert encode_column(table, "a", column, cache=cache).findings == [Finding(50, "not a number: 'x'")]


def test_an_error_while_encoding_leaves_nothing(tmp_path, monkeypatch) -> None:
    table = Table(pa.table({"a": ["1"] * 100}))
    column = fitted("number", table, "a")
    monkeypatch.setattr(type(column), "chunk", 5)
    monkeypatch.setattr(column, "tensorize", lambda values, locate: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        encode_column(table, "a", column, cache=tmp_path)
    assert list((tmp_path / "columns").iterdir()) == []


# --- damage, death, and want of room


@pytest.mark.parametrize("name", ["values", "present", "hashes", "sums", "entry.json"])
@pytest.mark.parametrize("damage", ["cut", "longer", "emptied", "gone", "rubbish"])
def test_a_damaged_entry_is_noticed_and_made_again(name, damage, tmp_path) -> None:
    table = pictures(tmp_path / "photos")
    column = fitted("image", table, "photo")
    good = encode_column(table, "photo", column, cache=None)
    encode_column(table, "photo", column, cache=tmp_path)
    (entry,) = (tmp_path / "columns").iterdir()
    path = entry / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "rubbish":
        path.write_bytes(b"\xff\x00rubbish" if name == "entry.json" else content + b"x")
    else:
        path.write_bytes({"cut": content[:-1], "longer": content + content[-8:], "emptied": b""}[damage])
    assert encoded_anew(table, column, tmp_path)
    assert same(good, encode_column(table, "photo", column, cache=tmp_path))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [{"dtype": "|O"}, {"dtype": "V1"}, {"rows": 99}, {"shape": [3, 16]}, {"shape": "x"}, {"findings": [{"bad": 1}]}],
)
def test_an_entry_that_says_otherwise_is_not_believed(change, tmp_path) -> None:
    table = pictures(tmp_path / "photos")
    column = fitted("image", table, "photo")
    encode_column(table, "photo", column, cache=tmp_path)
    (path,) = (tmp_path / "columns").glob("*/entry.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert encoded_anew(table, column, tmp_path)


def test_nothing_is_unpickled(tmp_path, monkeypatch) -> None:
    table = pictures(tmp_path / "photos")
    column = fitted("image", table, "photo")
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *a, **k: pytest.fail("unpickled"))
    encode_column(table, "photo", column, cache=tmp_path)
    (entry,) = (tmp_path / "columns").iterdir()
    for name in ("values", "present", "hashes", "sums", "entry.json"):
        (entry / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    encode_column(table, "photo", column, cache=tmp_path)


SCRIPT = """
import os, sys, time
from pathlib import Path
import pyarrow as pa
from zhixing.columns.number import Number
from zhixing.data.store import encode_column
from zhixing.data.table import Table

class Slow(Number):
    chunk = 100
    def tensorize(self, values, locate):
        time.sleep(float(sys.argv[2]))
        os.write(1, b"run\\n")  # at once: threads must not write into each other's line
        return super().tensorize(values, locate)

table = Table(pa.table({"a": [str(i) for i in range(3000)]}))
column = Slow()
column.fit(table["a"], table.locate)
done = encode_column(table, "a", column, cache=Path(sys.argv[1]))
print("sum", float(done.batch.values.abs().sum()), flush=True)
"""


def start(cache: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(cache), str(pause)], stdout=subprocess.PIPE, text=True)


def test_a_killed_preparation_leaves_nothing_half_done(tmp_path) -> None:
    with start(tmp_path, 0.2) as child:
        assert child.stdout is not None
        try:
            lines = [child.stdout.readline() for _ in range(8)]  # some parts have been written by then
        finally:
            child.send_signal(signal.SIGKILL)
    assert lines == ["run\n"] * 8
    (left,) = (tmp_path / "columns").iterdir()
    assert left.name.startswith(".part-")
    again = start(tmp_path, 0)
    out, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert out.count("run") == 31 - 1
    assert left.exists()  # it may be another process at work
    old = time.time() - 2 * store.STALE
    for path in (left, *left.iterdir()):
        os.utime(path, (old, old))
    table = Table(pa.table({"a": ["1", "2"]}))
    encode_column(table, "a", fitted("number", table, "a"), cache=tmp_path)
    assert not left.exists()
    assert len(list((tmp_path / "columns").iterdir())) == 2


def test_two_processes_at_once_both_succeed(tmp_path) -> None:
    both = [start(tmp_path, 0.02), start(tmp_path, 0.02)]
    outs = [child.communicate(timeout=60)[0] for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert outs[0].splitlines()[-1] == outs[1].splitlines()[-1]
    assert len(list((tmp_path / "columns").iterdir())) == 1


def test_a_disk_that_is_full_is_told_of_with_path_and_bytes(tmp_path) -> None:
    """A limit on the size of files stands for a disk that fills up while it is written to."""
    code = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        import pyarrow as pa
        from zhixing.columns.number import Number
        from zhixing.data.store import encode_column
        from zhixing.data.table import Table
        from zhixing.errors import DataError
        table = Table(pa.table({"a": [str(i) for i in range(50_000)]}))
        column = Number()
        column.fit(table["a"], table.locate)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            encode_column(table, "a", column, cache=Path(sys.argv[1]))
        except DataError as error:
            print(error)
        """
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    need = 50_000 * (4 + 1 + 8)
    assert out.startswith(
        f"{tmp_path / 'columns'}: the encoded column, {need:,} bytes, cannot be written: File too large"
    )
    assert "ZHIXING_CACHE" in out
    assert list((tmp_path / "columns").iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000


def test_want_of_room_is_seen_before_the_work(tmp_path, monkeypatch) -> None:
    table = Table(pa.table({"a": [str(i) for i in range(1000)]}))
    column = fitted("number", table, "a")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: SimpleNamespace(free=99))
    with pytest.raises(DataError, match=r"encoding needs 13,000 bytes, 99 are free") as caught:
        encode_column(table, "a", column, cache=tmp_path)
    assert str(tmp_path / "columns") in str(caught.value)
    assert list((tmp_path / "columns").iterdir()) == []


def test_a_cache_that_cannot_be_is_an_error_for_the_user(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    table = Table(pa.table({"a": ["1", "2"]}))
    with pytest.raises(DataError, match="cannot be written"):
        encode_column(table, "a", fitted("number", table, "a"), cache=tmp_path / "file")


def test_no_row_is_no_entry(tmp_path) -> None:
    for kind, cells in TABLES.items():
        column = fitted(kind, Table(pa.table(cells)), "a")
        none = Table(pa.table(cells).slice(0, 0))
        assert len(encode_column(none, "a", column, cache=tmp_path).batch.values) == 0
    table = pictures(tmp_path / "photos")
    column = fitted("image", table, "photo")
    none = encode_column(Table(table.data.slice(0, 0)), "photo", column, cache=tmp_path)
    assert none.batch.values.shape == (0, 3, 16, 16)
    assert not (tmp_path / "columns").exists()


def test_where_the_cache_is(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("ZHIXING_CACHE", str(tmp_path / "a"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("ZHIXING_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "b" / "zhixing"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "zhixing"


# --- hashes of rows


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.binary(min_size=11, max_size=11), min_size=1, max_size=40))
def test_rows_are_equal_when_their_hashes_are(rows) -> None:
    hashes = row_hashes(np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), 11))
    assert len(set(hashes.tolist())) == len(set(rows))
    assert len({(row, int(one)) for row, one in zip(rows, hashes, strict=True)}) == len(set(rows))


def test_hashes_tell_many_rows_apart() -> None:
    draw = np.random.default_rng(0)
    pictures_of = np.repeat(draw.integers(0, 256, (1, 3, 16, 16), np.uint8), 768 * 3, axis=0)
    for index in range(768 * 3):  # one value changed, by little or by much
        pictures_of[index].reshape(-1)[index // 3] ^= (1, 128, 255)[index % 3]
    swapped = np.repeat(draw.permutation(256).astype(np.uint8)[None], 500, axis=0)
    for index in range(500):
        one, other = draw.choice(256, 2, replace=False)
        swapped[index, [one, other]] = swapped[index, [other, one]]
    cases = [
        pictures_of,
        np.unique(swapped, axis=0),
        np.arange(300_000)[:, None],
        np.arange(300_000)[:, None] << 40,
        np.stack([np.arange(90_000) // 300, np.arange(90_000) % 300], 1).astype(np.float32),
        np.eye(512, dtype=np.uint8),
    ]
    for rows in cases:
        assert len(np.unique(row_hashes(rows))) == len(rows)


# --- rows of unequal length

UNEVEN = {
    "history": [["x", "y"], [], None, ["y"], ["x", "x", "y", "x"]] * 3,
    "labels": [["x", "y"], None, ["y"], ["x", "x", "y", "x"], []] * 3,
    "series": [[1.0, 2.0], [], None, [3.0], [5.0, None, 7.0, 8.0]] * 3,
    "text": ["x y", "", None, "y", "x x y x"] * 3,
}


def uneven(kind: str) -> tuple[Table, Column]:
    table = Table(pa.table({"a": UNEVEN[kind]}))
    return table, fitted(kind, table, "a")


def test_all_types_of_unequal_rows_are_here() -> None:
    ragged = {name for name, column in COLUMNS.items() if column.kind in ("tokens", "sequence")}
    assert ragged == {*UNEVEN, "audio"}  # the store of sounds is looked at in test_audio_column.py


@pytest.mark.parametrize("kind", UNEVEN)
def test_unequal_rows_come_back_from_the_cache(kind, tmp_path, monkeypatch) -> None:
    table, column = uneven(kind)
    without = encode_column(table, "a", column, cache=None)
    monkeypatch.setattr(type(column), "chunk", 4)
    for cache in (None, tmp_path, tmp_path):
        done = encode_column(table, "a", column, cache=cache)
        assert same(without, done)
        assert isinstance(done.batch, Ragged)
        assert isinstance(without.batch, Ragged)
        assert done.batch.values.dtype == without.batch.values.dtype
        assert np.array_equal(done.batch.offsets, without.batch.offsets)
        assert ((np.diff(done.batch.offsets) > 0) <= done.present).all()
    assert not encoded_anew(table, column, tmp_path, "a")
    for row in range(5):  # cells that are equal
        assert torch.equal(done.batch.row(row), done.batch.row(row + 5))
        assert done.hashes[row] == done.hashes[row + 5]


@pytest.mark.parametrize("kind", UNEVEN)
@pytest.mark.parametrize("name", ["values", "present", "hashes", "lengths", "entry.json"])
@pytest.mark.parametrize("damage", ["cut", "longer", "emptied", "gone"])
def test_a_damaged_entry_of_unequal_rows_is_made_again(kind, name, damage, tmp_path) -> None:
    table, column = uneven(kind)
    good = encode_column(table, "a", column, cache=tmp_path)
    values = good.batch.values.clone()
    (entry,) = (tmp_path / "columns").iterdir()
    path = entry / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": content[:-1], "longer": content + content[-8:], "emptied": b""}[damage])
    assert encoded_anew(table, column, tmp_path, "a")
    again = encode_column(table, "a", column, cache=tmp_path)
    assert torch.equal(again.batch.values, values)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "lengths",
    [
        [2, 0, 0, 1, 5, 2, 0, 0, 1, 4, 2, 0, 0, 1, 4],
        [1] * 15,
        [-1, 3, 0, 1, 4, 2, 0, 0, 1, 4, 2, 0, 0, 1, 4],
        [2**62] * 15,
    ],
)
def test_lengths_that_do_not_fit_the_values_are_not_believed(lengths, tmp_path) -> None:
    table, column = uneven("history")
    good = encode_column(table, "a", column, cache=None)
    encode_column(table, "a", column, cache=tmp_path)
    (entry,) = (tmp_path / "columns").iterdir()
    stored = np.fromfile(entry / "lengths", np.int64)
    assert stored.tolist() == [2, 0, 0, 1, 4] * 3
    assert len(lengths) == len(stored)
    np.array(lengths, np.int64).tofile(entry / "lengths")
    assert encoded_anew(table, column, tmp_path, "a")
    assert same(good, encode_column(table, "a", column, cache=tmp_path))


def test_an_entry_is_not_taken_for_one_of_equal_rows(tmp_path) -> None:
    table, column = uneven("series")
    encode_column(table, "a", column, cache=tmp_path)
    (path,) = (tmp_path / "columns").glob("*/entry.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ragged": False}))
    assert encoded_anew(table, column, tmp_path, "a")


def test_a_table_without_a_single_step(tmp_path) -> None:
    _, column = uneven("history")
    none = Table(pa.table({"a": pa.array([[], None, []], pa.list_(pa.string()))}))
    for cache in (None, tmp_path, tmp_path):
        done = encode_column(none, "a", column, cache=cache)
        assert isinstance(done.batch, Ragged)
        assert done.batch.offsets.tolist() == [0, 0, 0, 0]
        assert not done.present.any()
        assert len(set(done.hashes.tolist())) == 1


ROWS_OF_IDS = st.lists(st.lists(st.integers(1, 5), max_size=6), min_size=1, max_size=30)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(ROWS_OF_IDS, st.integers(0, 9))
def test_unequal_rows_are_equal_when_their_hashes_are(rows, first) -> None:
    def hashed(some: list[list[int]]) -> list[int]:
        flat = np.array([token for row in some for token in row], np.int32)
        lengths = np.array([len(row) for row in some], np.int64)
        return hashes_of(Tensorized(flat, lengths > 0, lengths=lengths)).tolist()

    hashes = hashed(rows)
    assert len(set(hashes)) == len({tuple(row) for row in rows})
    assert len(set(zip(map(tuple, rows), hashes, strict=True))) == len(set(hashes))
    cut = min(first, len(rows))  # where a run begins does not matter
    assert hashed(rows[:cut]) + hashed(rows[cut:]) == hashes


def test_hashes_tell_many_unequal_rows_apart() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(0, 30, 60_000)
    tokens = draw.integers(1, 40, int(lengths.sum())).astype(np.int32)
    ends = np.cumsum(lengths)
    distinct = {tokens[end - length : end].tobytes() for end, length in zip(ends, lengths, strict=True)}
    found = hashes_of(Tensorized(tokens, lengths > 0, lengths=lengths))
    assert len(np.unique(found)) == len(distinct)
    base = draw.integers(1, 9, 12).astype(np.int32)
    swapped = np.stack([np.roll(base, turn) for turn in range(12)])
    kinds = {row.tobytes() for row in swapped}
    each = np.full(12, 12, np.int64)
    assert len(set(hashes_of(Tensorized(swapped.ravel(), each > 0, lengths=each)).tolist())) == len(kinds)
