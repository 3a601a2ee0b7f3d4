"""Sources: what is written comes back, what is damaged is told of in its place, and the rest stays as it was."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zhixing.data import source_csv
from zhixing.data.source import open_source
from zhixing.data.source_cells import from_values
from zhixing.data.source_text import read_utf8
from zhixing.data.table import Table, resolve
from zhixing.errors import DataError, MissingExtraError

SHARED = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
NAMES = st.lists(st.text("abcdefg", min_size=1, max_size=4), min_size=1, max_size=4, unique=True)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines_of(table: Table) -> list[int]:
    return [int(table.where(row).rpartition(" ")[2]) for row in range(table.rows)]


# --- delimited text


@SHARED
@given(data=st.data(), names=NAMES, delimiter=st.sampled_from(",;\t|"), end=st.sampled_from(["\n", "\r\n"]))
def test_csv_comes_back_as_python_writes_it(tmp_path: Path, data, names, delimiter, end) -> None:
    cell = st.one_of(TEXT, st.sampled_from(['"', "a\nb", "a,b;c\td|e", "\r\n", "1", ""]))
    rows = data.draw(st.lists(st.tuples(*[cell for _ in names]), max_size=8))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    if end == "\n" and any("\r" in cell for row in rows for cell in row):
        quoting = csv.QUOTE_ALL  # Python 3.11 leaves a lone \r bare there, which ends the line for any reader
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(names)
    line, expected_lines = 2, []
    for row in rows:
        expected_lines.append(line)
        before = out.tell()
        writer.writerow(row)
        out.seek(before)
        line += len(io.StringIO(out.read(), newline="").readlines())
    path = write(tmp_path / "a.csv", out.getvalue())
    table = open_source(path)
    assert table.columns == names
    assert table.problems == []
    assert table.data.to_pylist() == [{n: c or None for n, c in zip(names, row, strict=True)} for row in rows]
    assert all(column.type == pa.string() for column in table.data.columns)
    assert lines_of(table) == expected_lines


@SHARED
@given(body=st.lists(st.text('ab",;\n\r 1é', max_size=10), max_size=6), width=st.integers(1, 3))
def test_the_two_csv_readers_agree_on_any_text(tmp_path: Path, body, width) -> None:
    """What pyarrow accepts, Python's reader reads to the same cells, without a fault."""
    header = ["a", "b", "c"][:width]
    content = (",".join(header) + "\n" + "\n".join(body)).encode()
    fast = source_csv.read_fast(content, ",", header)
    if fast is not None and fast.num_rows:
        slow, lines, problems = source_csv.read_carefully(content, ",", header, tmp_path / "a.csv")
        assert slow.to_pylist() == fast.to_pylist()
        assert problems == []
        assert len(lines) == fast.num_rows


def test_many_rows_go_the_fast_way_and_the_places_are_true(tmp_path: Path) -> None:
    content = "a,b\n\n" + "".join(f"{i},x{i}\n" + "\n" * (i % 3 == 0) for i in range(10_000))
    path = write(tmp_path / "a.csv", content)
    assert source_csv.read_fast(content.encode(), ",", ["a", "b"]) is not None
    table = open_source(path)
    lines = content.split("\n")
    assert table["a"].to_pylist() == [str(i) for i in range(10_000)]
    for row in (0, 1, 2, 3, 5000, 9999):
        assert lines[int(table.where(row).rpartition(" ")[2]) - 1] == f"{row},x{row}"


def test_rows_of_a_wrong_width_are_told_with_their_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'a,b\n1,"x\ny"\n2\n3,z\n\n4,5,6\n7,8\n')
    table = open_source(path)
    assert table.data.to_pylist() == [{"a": "1", "b": "x\ny"}, {"a": "3", "b": "z"}, {"a": "7", "b": "8"}]
    assert [(p.row, p.place, p.reason, p.fatal) for p in table.problems] == [
        (1, f"{path}, line 4", "2 cells expected, 1 found", True),
        (2, f"{path}, line 7", "2 cells expected, 3 found", True),
    ]
    assert lines_of(table) == [2, 5, 8]


def test_a_cell_that_is_not_utf8_is_missing_and_its_row_stays(tmp_path: Path) -> None:
    rows = [f"{i},tên {i}".encode() for i in range(6000)]
    rows[4500] = b"4500,\xff\xfe"
    rows[3] = b"3,x,\xff"  # a wrong width and bad bytes at once
    path = write(tmp_path / "a.csv", b"n,name\r\n" + b"\r\n".join(rows))
    table = open_source(path)
    assert table.rows == 5999
    assert table["n"].to_pylist() == [str(i) for i in range(6000) if i != 3]
    assert table["name"].null_count == 1
    first, second = table.problems
    assert (first.row, first.fatal, first.place) == (3, True, f"{path}, line 5")
    assert (second.row, second.column, second.fatal, second.place) == (4499, "name", False, f"{path}, line 4502")
    assert "\\xff\\xfe" in second.reason
    assert table.data.slice(second.row, 1).to_pylist() == [{"n": "4500", "name": None}]
    assert table.where(second.row) == second.place


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16-le"])
def test_another_encoding_is_named_and_read_when_told(tmp_path: Path, encoding: str) -> None:
    text = "评论,标签\n" + "".join(f"这部电影很好看 {i},正面\n" for i in range(20))
    path = write(tmp_path / "评论.csv", text.encode(encoding))
    with pytest.raises(DataError, match="not UTF-8") as caught:
        open_source(path)
    assert f"#{encoding}" in caught.value.mend
    table = open_source(f"{path}#{encoding}")
    assert table.columns == ["评论", "标签"]
    assert table["评论"][3].as_py() == "这部电影很好看 3"
    with pytest.raises(DataError, match=r"no encoding is called 'gb18031'.*Did you mean 'gb18030'"):
        open_source(f"{path}#gb18031")


def test_bodies_in_another_encoding_under_an_english_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"text,label\n" + "很好,正面\n".encode("gb18030") * 9 + b"ok,x\n")
    with pytest.raises(DataError, match=r"not UTF-8.*a\.csv#gb18030"):
        open_source(path)


def test_bad_bytes_in_a_told_encoding_are_a_problem_of_their_cell(tmp_path: Path) -> None:
    content = "名,值\n甲,1\n乙,2\n丙,3\n".encode("gb18030").replace("乙".encode("gb18030"), b"\xff\xff")
    table = open_source(f"{write(tmp_path / 'a.csv', content)}#gb18030")
    assert table["名"].to_pylist() == ["甲", None, "丙"]
    assert [(p.row, p.column, p.fatal) for p in table.problems] == [(1, "名", False)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_at_the_head_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    table = open_source(write(tmp_path / "a.tsv", "名\tb\r\nx\ty, z\r\n".encode(encoding)))
    assert table.data.to_pylist() == [{"名": "x", "b": "y, z"}]


def test_gzip_and_cut_gzip(tmp_path: Path) -> None:
    content = gzip.compress(("a,b\n" + "1,2\n" * 5000).encode())
    table = open_source(write(tmp_path / "a.csv.gz", content))
    assert (table.rows, table.name) == (5000, "a")
    with pytest.raises(DataError, match=r"cut\.csv\.gz: the file cannot be read"):
        open_source(write(tmp_path / "cut.csv.gz", content[:-20]))


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("a;b\n1,5;2,5\n3,5;4\n", ["a", "b"]),
        ("text|n\nhello, world|1\na, b|2\n", ["text", "n"]),
        ("a\tb,c\n1\t2\n", ["a", "b,c"]),
        ('"x,y",b\n1,2\n', ["x,y", "b"]),
        ("alone\nx\ny\n", ["alone"]),
        ("alone\nhello, world\ny\n", ["alone"]),
        ("label,0,1\n5,0,0\n", ["label", "0", "1"]),
        ("2019,2020,2021\n1,2,3\n", ["2019", "2020", "2021"]),
    ],
)
def test_delimiters_and_headers_are_found(tmp_path: Path, content: str, columns: list[str]) -> None:
    table = open_source(write(tmp_path / "a.csv", content))
    assert table.columns == columns
    assert table.problems == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", "the first row looks like data: '5.1'"),
        ("photos/1.jpg,cat\nphotos/2.jpg,dog\n", r"the first row looks like data: 'photos/1.jpg'"),
        ("5,0,0\n4,1,0\n", "'0' names more than one column.*looks like data"),
        ("a,b,a\n1,2,3\n", "'a' names more than one column"),
        ("a,,b,\n1,2,3,4\n", "column 2, 4 of 4 has no name"),
        ("", "the file holds no row"),
        ("\n\n", "the file holds no row"),
        ('a,"b\nx"y,c\n1,2\n', "line 1: the names of the columns cannot be read"),
        ("a,b\n1\n2\n", r"line 2: 2 cells expected, 1 found.*No row"),
        ('a,b\n1,2\n3,"x\n4,5\n6,7\n', r"line 3: a quoted cell starts here and is not closed in the 2 lines"),
    ],
)
def test_files_without_a_usable_table(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(write(tmp_path / "a.csv", content))


def test_broken_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'a,b\n1,5" disk\n2,"x"y\n3,"u\n4,"v\n5,w\n6,"cut')
    table = open_source(path)
    assert table.data.to_pylist() == [{"a": "1", "b": '5" disk'}, {"a": "2", "b": "xy"}, {"a": "5", "b": "w"}]
    assert [(p.row, p.place.rpartition(" ")[2]) for p in table.problems] == [(2, "4"), (3, "7")]
    assert "goes on to line 5" in table.problems[0].reason
    assert lines_of(table) == [2, 3, 6]


def test_a_last_line_that_is_cut_in_a_quote_is_told(tmp_path: Path) -> None:
    """Also where the number of quotes is even, and where another delimiter would misplace them."""
    table = open_source(write(tmp_path / "a.csv", 'a,b\n1,5" x;y\n2,"z'))
    assert [p.place.rpartition(" ")[2] for p in table.problems] == ["3"]
    assert table["b"].to_pylist() == ['5" x;y']
    assert lines_of(table) == [2]
    whole = open_source(write(tmp_path / "a.csv", 'a,b\n1,x;"y\n2,z;\n'))
    assert whole["b"].to_pylist() == ['x;"y', "z;"]


def test_long_cells(tmp_path: Path) -> None:
    long = "x" * 300_000 + "\ny"
    table = open_source(write(tmp_path / "a.csv", f'a,b\n1,"{long}"\n'))
    assert table["b"][0].as_py() == long


def test_a_split_column_is_found_by_name_and_content(tmp_path: Path) -> None:
    table = open_source(write(tmp_path / "a.csv", "x,split\n1,Train\n2,val\n3,test\n"))
    assert (table.split_column, table.columns) == ("split", ["x"])
    assert table["split"].to_pylist() == ["train", "validation", "test"]
    banana = open_source(write(tmp_path / "b.csv", "x,split\n1,train\n2,banana\n"))
    assert (banana.split_column, banana.columns) == (None, ["x", "split"])


# --- JSON lines

PLAIN = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_categories=("Cs",)), max_size=8))


@SHARED
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"n": st.integers(-(2**63), 2**63 - 1), "t": TEXT},
            optional={"tags": st.lists(TEXT, max_size=3), "ok": st.booleans(), "x": st.floats(allow_nan=False)},
        ),
        min_size=1,
        max_size=8,
    ),
    ascii_only=st.booleans(),
)
def test_json_lines_come_back_as_python_writes_them(tmp_path: Path, rows, ascii_only) -> None:
    text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    table = open_source(write(tmp_path / "a.jsonl", text))
    names = list(dict.fromkeys(key for row in rows for key in row))
    assert table.columns == names
    assert table.data.to_pylist() == [{name: row.get(name) for name in names} for row in rows]
    assert lines_of(table) == list(range(1, len(rows) + 1))


@given(values=st.lists(st.one_of(PLAIN, st.booleans(), st.none(), st.lists(PLAIN, max_size=2)), min_size=1))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_mixed_values_keep_what_they_say(values) -> None:
    """Either the values themselves, or each one's JSON (strings as they are)."""
    column = from_values(values).to_pylist()
    words = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    assert column in (values, words)


def test_json_types(tmp_path: Path) -> None:
    rows = ['{"a": 1, "b": 1, "c": true, "e": 9007199254740993}',
            '{"a": 2.5, "b": "x", "c": 1, "d": {"k": [1]}, "e": 0.5}',
            '{"a": null, "big": 123456789012345678901234567890}']  # fmt: skip
    data = open_source(write(tmp_path / "a.ndjson", "\n".join(rows))).data
    assert data["a"].to_pylist() == [1.0, 2.5, None]
    assert data["b"].to_pylist() == ["1", "x", None]
    assert data["c"].to_pylist() == ["true", "1", None]
    assert data["d"].to_pylist() == [None, {"k": [1]}, None]
    assert data["e"].type == pa.float64()
    assert data["big"].to_pylist() == [None, None, "123456789012345678901234567890"]


def test_bad_json_lines_are_told_with_their_line(tmp_path: Path) -> None:
    lines = [b'{"a": 1}', b"", b'{"a": ', b"[1]", b'{"a": 2, "late": "x"}', b'{"a": "\xff"}', b"[" * 100_000,
             b'{"a": 3, "late": "\\ud800"}', b'{"a": 4}\r']  # fmt: skip
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(b"\n".join(lines)))
    table = open_source(path)
    assert table.data.to_pylist() == [{"a": n, "late": "x" if n == 2 else None} for n in (1, 2, 3, 4)]
    assert lines_of(table) == [1, 5, 8, 9]
    assert [(p.row, p.place.rpartition(" ")[2], p.fatal) for p in table.problems] == [
        (1, "3", True), (1, "4", True), (2, "6", True), (2, "7", True), (2, "8", False),
    ]  # fmt: skip
    assert "not a list" in table.problems[1].reason


def test_json_lists_and_useless_files(tmp_path: Path) -> None:
    table = open_source(write(tmp_path / "a.json", '[{"a": 1}, 3, {"a": 2}]'))
    assert table["a"].to_pylist() == [1, 2]
    assert table.where(1).endswith("item 3")
    assert [p.place.rpartition(" ")[2] for p in table.problems] == ["2"]
    for content, message in [
        ("[1]", "item 1: an object is needed"),
        ("[{}]", "no column"),
        ("[", "not JSON"),
        ("", "holds no row"),
    ]:
        with pytest.raises(DataError, match=message):
            open_source(write(tmp_path / "b.json", content))
    with pytest.raises(DataError, match=r"not UTF-8.*#gb18030"):
        open_source(write(tmp_path / "c.jsonl", '{"文": "很好"}\n'.encode("gb18030") * 4))


# --- Arrow, Parquet, saved data sets


def test_parquet_arrow_and_feather(tmp_path: Path) -> None:
    data = pa.table({"a": [1, None, 3], "t": pa.array(["x", "y", "x"]).dictionary_encode(), "tags": [["p"], [], None]})
    pa.parquet.write_table(data, tmp_path / "a.parquet")
    pa.feather.write_feather(data, tmp_path / "a.feather")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, data.schema) as writer:
        writer.write_table(data)
    for name in ("a.parquet", "a.feather", "a.arrow"):
        table = open_source(tmp_path / name)
        assert table.data.to_pylist() == data.to_pylist()
        assert table.data["t"].type == pa.string()
        damaged = (tmp_path / name).read_bytes()[: -len(b"ARROW1") * 9]
        with pytest.raises(DataError, match="damaged"):
            open_source(write(tmp_path / f"cut{name}", damaged))


def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    for name, values in [("test-00000", [7]), ("train-00001", [3, 4]), ("train-00000", [1, 2])]:
        (tmp_path / "data").mkdir(exist_ok=True)
        pa.parquet.write_table(pa.table({"a": pa.array(values, pa.int64())}), tmp_path / "data" / f"{name}.parquet")
    table = open_source(tmp_path)
    assert table["a"].to_pylist() == [7, 1, 2, 3, 4]
    assert table["split"].to_pylist() == ["test"] + ["train"] * 4
    assert table.where(4) == f"{tmp_path}/data/train-00001.parquet, row 1"
    assert table.base == tmp_path / "data"
    pa.parquet.write_table(pa.table({"a": ["x"]}), tmp_path / "data" / "test-00001.parquet")
    with pytest.raises(DataError, match="do not fit together"):
        open_source(tmp_path)


def save_part(folder: Path, values: list[int]) -> None:
    """What ``save_to_disk`` writes: an Arrow stream, its description and its state."""
    folder.mkdir(parents=True)
    picture = pa.array([{"bytes": b"png", "path": None}] * len(values))
    data = pa.table({"image": picture, "label": pa.array(values, pa.int64())})
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, data.schema) as out,
    ):
        out.write_table(data)
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    write(folder / "dataset_info.json", json.dumps({"features": features}))
    write(folder / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


def test_a_saved_data_set(tmp_path: Path) -> None:
    save_part(tmp_path / "d" / "train", [0, 1, 1])
    save_part(tmp_path / "d" / "test", [0, -1])
    write(tmp_path / "d" / "dataset_dict.json", '{"splits": ["train", "test"]}')
    table = open_source(tmp_path / "d")
    assert table["label"].to_pylist() == ["cat", "dog", "dog", "cat", None]
    assert table["split"].to_pylist() == ["train"] * 3 + ["test"] * 2
    assert table["image"][0].as_py() == {"bytes": b"png", "path": None}
    assert table.columns == ["image", "label"]
    assert open_source(tmp_path / "d" / "train").rows == 3
    write(tmp_path / "d" / "train" / "state.json", '{"_data_files": [{"filename": "../../secret.arrow"}]}')
    with pytest.raises(DataError, match="not a file of this folder"):
        open_source(tmp_path / "d")


# --- NumPy and idx


def test_npz_columns_and_keras_form(tmp_path: Path) -> None:
    x, y = np.arange(24, dtype=np.uint8).reshape(4, 2, 3), np.array([3, 1, 2, 0], ">i4")
    np.savez(tmp_path / "a.npz", image=x, label=y, word=np.array(["a", "b", "c", "d"]))
    table = open_source(tmp_path / "a.npz")
    assert table.columns == ["image", "label", "word"]
    assert np.array_equal(table["image"].combine_chunks().to_numpy_ndarray(), x)
    assert table["label"].to_pylist() == [3, 1, 2, 0]
    for keys in (["x_train", "y_train", "x_test", "y_test"], ["train_x", "train_y", "test_x", "test_y"]):
        np.savez_compressed(
            tmp_path / "k.npz", **dict(zip(keys, (x[:3], y[:3, None], x[3:], y[3:, None]), strict=True))
        )
        table = open_source(tmp_path / "k.npz")
        assert table.columns == ["x", "y"]
        assert table["y"].to_pylist() == [3, 1, 2, 0]
        assert table["split"].to_pylist() == ["train"] * 3 + ["test"]
        assert table.where(3).endswith("k.npz, test row 0")
        rows = [pixels for chunk in table["x"].chunks for pixels in chunk.to_numpy_ndarray()]
        assert np.array_equal(rows, x)


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(3, 2))
    table = open_source(tmp_path / "a.npy")
    assert table.columns == ["value"]
    assert table["value"].combine_chunks().to_numpy_ndarray().tolist() == [[0, 1], [2, 3], [4, 5]]
    np.save(tmp_path / "s.npy", np.array([(1, "x"), (2, "y")], dtype=[("n", "i4"), ("w", "U3")]))
    assert open_source(tmp_path / "s.npy").data.to_pylist() == [{"n": 1, "w": "x"}, {"n": 2, "w": "y"}]


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_pickles_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "a.npz", x=np.array([Bomb()], dtype=object))
    np.save(tmp_path / "a.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    for name in ("a.npz", "a.npy"):
        with pytest.raises(DataError, match="cannot be read"):
            open_source(tmp_path / name)
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(DataError, match="a pickle"):
        open_source(write(tmp_path / "a.pkl", b"x"))


def test_damaged_npz(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(1000), y=np.arange(999))
    with pytest.raises(DataError, match="'x' 1000, 'y' 999"):
        open_source(tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    for damaged in (whole[:200], whole[:60] + bytes(30) + whole[90:], b"no zip"):
        with pytest.raises(DataError, match=r"b\.npz"):
            open_source(write(tmp_path / "b.npz", damaged))
    np.savez(tmp_path / "c.npz", x_train=np.zeros(2), y_train=np.zeros(2), x_test=np.zeros(2))
    with pytest.raises(DataError, match="the test part lacks 'y'"):
        open_source(tmp_path / "c.npz")


def test_an_npz_that_declares_more_than_it_holds(tmp_path: Path) -> None:
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(DataError, match="declares 80000000000000 bytes"):
        open_source(tmp_path / "a.npz")


def idx(array: np.ndarray) -> bytes:
    code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
    big = array.astype(array.dtype.newbyteorder(">"))
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + big.tobytes()


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "i4", "f4", "f8"])
def test_idx_types(tmp_path: Path, kind: str) -> None:
    array = np.arange(12).reshape(3, 2, 2).astype(kind)
    table = open_source(write(tmp_path / "x-images-idx3-ubyte", idx(array)))
    found = table["image"].combine_chunks().to_numpy_ndarray()
    assert np.array_equal(found, array)
    assert found.dtype == array.dtype


def test_idx_and_arrays_without_rows(tmp_path: Path) -> None:
    table = open_source(write(tmp_path / "x-images-idx3-ubyte", idx(np.zeros((0, 2, 3), np.uint8))))
    assert (table.rows, table["image"].type.shape) == (0, [2, 3])
    huge = struct.pack(">HBB3I", 0, 8, 3, 0, 2**20, 2**20)
    with pytest.raises(DataError, match="too large"):
        open_source(write(tmp_path / "x-images-idx3-ubyte", huge))


def write_mnist_like(folder: Path, *, pack: bool = False) -> tuple[np.ndarray, list[int]]:
    image = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2)
    label = [3, 1, 4, 1, 5]
    for part, rows in (("train", slice(0, 3)), ("t10k", slice(3, 5))):
        for what, array in (("images-idx3", image[rows]), ("labels-idx1", np.array(label[rows], np.uint8))):
            content = idx(array)
            name = f"{part}-{what}-ubyte" + (".gz" if pack else "")
            write(folder / name, gzip.compress(content) if pack else content)
    return image, label


@pytest.mark.parametrize("pack", [False, True])
def test_idx_folder(tmp_path: Path, pack: bool) -> None:
    image, label = write_mnist_like(tmp_path / "m", pack=pack)
    table = open_source(tmp_path / "m")
    assert (table.name, table.columns) == ("m", ["image", "label"])
    assert np.array_equal(np.concatenate([chunk.to_numpy_ndarray() for chunk in table["image"].chunks]), image)
    assert table["label"].to_pylist() == label
    assert table["split"].to_pylist() == ["train"] * 3 + ["test"] * 2
    single = open_source(next((tmp_path / "m").glob("t10k-images*")))
    assert single["label"].to_pylist() == label[3:]
    assert single.split_column is None


def test_damaged_idx(tmp_path: Path) -> None:
    good = idx(np.zeros((3, 4), np.uint8))
    cases = {
        "ends after 11 of the 12 bytes": good[:-1],
        "goes on after the 12 bytes": good + b"x",
        "not idx": b"\x89PNG1234",
        "ends within its header": good[:7],
        "more than the file can hold": struct.pack(">HBB2I", 0, 8, 2, 2**31, 2**31),
    }
    for message, content in cases.items():
        for packed in (content, gzip.compress(content)):
            with pytest.raises(DataError, match=message) as caught:
                open_source(write(tmp_path / "a-labels-idx2-ubyte", packed))
            assert "a-labels-idx2-ubyte" in str(caught.value.place)
    with pytest.raises(DataError, match="cannot be read"):
        open_source(write(tmp_path / "a-labels-idx2-ubyte", gzip.compress(good)[:-9]))


def test_a_gzip_bomb_is_unpacked_no_further_than_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(idx(np.zeros(10, np.uint8)) + bytes(50_000_000))
    path = write(tmp_path / "a-labels-idx1-ubyte.gz", bomb)
    taken = 0
    read = gzip.GzipFile.read

    def counted(self, size=-1):
        nonlocal taken
        content = read(self, size)
        taken += len(content)
        return content

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(DataError, match="goes on after the 10 bytes"):
        open_source(path)
    assert 0 < taken < 100


# --- folders


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        write(folder / name, b"a picture, as far as this module cares")


def test_class_folders_with_splits_and_droppings(tmp_path: Path) -> None:
    pictures(tmp_path, "p/val/cat/1.jpg", "p/train/dog/b.PNG", "p/train/cat/Z.jpg", "p/train/cat/a.jpg",
             "p/train/cat/deep/c.webp", "p/test/9.jpg", "p/train/cat/.hidden.jpg", "p/train/Thumbs.db",
             "p/.DS_Store", "p/__MACOSX/x/y.jpg", "p/train/desktop.ini")  # fmt: skip
    pictures(tmp_path, "p/train/dog/note.txt", "p/README")
    table = open_source(tmp_path / "p")
    assert table.data.to_pydict() == {
        "image": ["train/cat/Z.jpg", "train/cat/a.jpg", "train/cat/deep/c.webp", "train/dog/b.PNG", "val/cat/1.jpg",
                  "test/9.jpg"],
        "label": ["cat", "cat", "cat", "dog", "cat", None],
        "split": ["train"] * 4 + ["validation", "test"],
    }  # fmt: skip
    assert table.split_column == "split"
    assert [(p.row, p.place, p.fatal) for p in table.problems] == [
        (0, f"{tmp_path}/p/README", True), (3, f"{tmp_path}/p/train/dog/note.txt", True),
    ]  # fmt: skip
    assert all(resolve(table.base, cell).is_file() for cell in table["image"].to_pylist())
    assert table.where(3) == f"{tmp_path}/p/train/dog/b.PNG"


def test_plain_class_folders_a_wrapper_and_a_flat_folder(tmp_path: Path) -> None:
    pictures(tmp_path, "z/inner/cat/1.jpg", "z/inner/train/2.jpg", "flat/b.jpg", "flat/a.jpg", "one/cat/1.jpg")
    table = open_source(tmp_path / "z")
    assert table.data.to_pydict() == {"image": ["inner/cat/1.jpg", "inner/train/2.jpg"], "label": ["cat", "train"]}
    assert table.split_column is None
    assert open_source(tmp_path / "flat").data.to_pydict() == {"image": ["a.jpg", "b.jpg"]}
    assert open_source(tmp_path / "one").data.to_pydict() == {"image": ["cat/1.jpg"], "label": ["cat"]}


def test_folders_that_can_be_read_in_two_ways_or_none(tmp_path: Path) -> None:
    pictures(tmp_path, "a/train/x/1.jpg", "a/test/x/1.jpg", "a/extra/1.jpg")
    with pytest.raises(DataError, match="beside split folders lie others: 'extra'"):
        open_source(tmp_path / "a")
    pictures(tmp_path, "b/train/x/1.jpg", "b/val/x/1.jpg", "b/valid/x/1.jpg")
    with pytest.raises(DataError, match="two folders are there for one split: 'val', 'valid'"):
        open_source(tmp_path / "b")
    write(tmp_path / "c" / "data.csv", "a\n1\n")
    with pytest.raises(DataError, match=r"holds no picture.*data\.csv"):
        open_source(tmp_path / "c")
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        open_source(tmp_path / "d")


def test_stray_pictures_have_no_class(tmp_path: Path) -> None:
    pictures(tmp_path, "cat/1.jpg", "dog/2.jpg", "stray.jpg")
    table = open_source(tmp_path)
    assert table["image"].to_pylist() == ["cat/1.jpg", "dog/2.jpg"]
    assert [p.reason for p in table.problems] == ["lies beside class folders, so it has no class"]


def test_class_folders_of_sounds_are_read_as_those_of_pictures(tmp_path: Path) -> None:
    pictures(tmp_path, "s/train/yes/1.wav", "s/train/no/2.FLAC", "s/test/yes/3.ogg", "s/train/no/cover.jpg",
             "s/readme.txt")  # fmt: skip
    table = open_source(tmp_path / "s")
    assert table.data.to_pydict() == {
        "audio": ["train/no/2.FLAC", "train/yes/1.wav", "test/yes/3.ogg"],
        "label": ["no", "yes", "yes"],
        "split": ["train", "train", "test"],
    }
    assert [(p.row, p.column, Path(p.place).name, p.reason, p.fatal) for p in table.problems] == [
        (0, "audio", "readme.txt", "not a sound: the suffix '.txt' is none of theirs", True),
        (0, "audio", "cover.jpg", "not a sound: the suffix '.jpg' is none of theirs", True),
    ]
    pictures(tmp_path, "flat/b.mp3", "flat/a.wav")
    assert open_source(tmp_path / "flat").data.to_pydict() == {"audio": ["a.wav", "b.mp3"]}
    with pytest.raises(DataError, match="a single sound"):
        open_source(tmp_path / "flat/a.wav")


def test_the_commonest_kind_is_read_and_pictures_of_equals(tmp_path: Path) -> None:
    pictures(tmp_path, "cat/1.jpg", "cat/1.wav", "dog/2.jpg", "dog/2.wav", "dog/2.txt", "read.txt")
    table = open_source(tmp_path)
    assert table.data.to_pydict() == {"image": ["cat/1.jpg", "dog/2.jpg"], "label": ["cat", "dog"]}
    assert [Path(p.place).name for p in table.problems] == ["read.txt", "1.wav", "2.txt", "2.wav"]
    pictures(tmp_path, "cat/3.wav")
    assert open_source(tmp_path)["audio"].to_pylist() == ["cat/1.wav", "cat/3.wav", "dog/2.wav"]
    # a text beside the one folder of an unpacked archive is no reason to stop there
    pictures(tmp_path, "z/readme.txt", "z/inner/cat/1.jpg", "z/inner/dog/2.jpg")
    assert open_source(tmp_path / "z")["label"].to_pylist() == ["cat", "dog"]
    assert open_source(tmp_path / "z").problems[0].place == str(tmp_path / "z/readme.txt")


def test_a_table_beside_the_sounds(tmp_path: Path) -> None:
    pictures(tmp_path, "p/clips/a.wav", "p/clips/b.wav")
    write(tmp_path / "p" / "metadata.tsv", "file\twords\nclips/a.wav\tyes\nclips/b.wav\tno\n")
    assert open_source(tmp_path / "p").data.to_pydict() == {
        "file": ["clips/a.wav", "clips/b.wav"], "words": ["yes", "no"],
    }  # fmt: skip


def test_links(tmp_path: Path) -> None:
    pictures(tmp_path, "p/cat/1.jpg", "p/dog/2.jpg", "outside/secret.jpg")
    (tmp_path / "p/dog/in.jpg").symlink_to("../cat/1.jpg")
    (tmp_path / "p/dog/out.jpg").symlink_to(tmp_path / "outside/secret.jpg")
    (tmp_path / "p/dog/loop").symlink_to("..")
    (tmp_path / "p/dog/gone.jpg").symlink_to("nothing.jpg")
    table = open_source(tmp_path / "p")
    assert table["image"].to_pylist() == ["cat/1.jpg", "dog/2.jpg", "dog/in.jpg"]
    assert [(Path(p.place).name, p.reason.partition(",")[0]) for p in table.problems] == [
        ("gone.jpg", "a broken link"),
        ("loop", "a symbolic link to a folder"),
        ("out.jpg", "a symbolic link out of the folder"),
    ]
    (tmp_path / "link").symlink_to("p")
    assert open_source(tmp_path / "link").data == table.data


def test_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path, *[f"c{i % 3}/{i}é.jpg" for i in range(30)], "c1/notes.txt", "c2/a.doc")
    first = open_source(tmp_path)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr("zhixing.data.source_folder.os.scandir", Backwards)
    monkeypatch.setattr("zhixing.data.source_arrow.os.walk", lambda folder: [])  # it needs a true iterator of entries
    second = open_source(tmp_path)
    assert second.data == first.data
    assert second.problems == first.problems


def test_a_table_beside_the_pictures(tmp_path: Path) -> None:
    pictures(tmp_path, "p/a.jpg", "p/b.jpg", "q/cat/1.jpg", "q/dog/2.jpg")
    write(tmp_path / "p" / "labels.csv", "file,label\na.jpg,cat\nb.jpg,dog\n")
    table = open_source(tmp_path / "p")
    assert table.data.to_pydict() == {"file": ["a.jpg", "b.jpg"], "label": ["cat", "dog"]}
    assert (table.name, table.base) == ("p", tmp_path / "p")
    write(tmp_path / "q" / "labels.csv", "name,what\ncat,an animal\ndog,another\n")
    table = open_source(tmp_path / "q")
    assert table["label"].to_pylist() == ["cat", "dog"]
    assert "labels.csv" in table.problems[0].place
    write(tmp_path / "p" / "labels.csv", "file,label\nno.jpg,cat\n")
    with pytest.raises(DataError, match="no column names a file"):
        open_source(tmp_path / "p")


def test_files_of_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "a,label\n1,x\nbroken\n2,y\n")
    write(tmp_path / "test.csv", "a\n3\n")
    table = open_source(tmp_path)
    assert table.data.to_pydict() == {
        "a": ["1", "2", "3"],
        "label": ["x", "y", None],
        "split": ["train"] * 2 + ["test"],
    }
    assert [(p.row, p.place) for p in table.problems] == [(1, f"{tmp_path}/train.csv, line 3")]
    assert [table.where(row) for row in range(3)] == [
        f"{tmp_path}/train.csv, line 2", f"{tmp_path}/train.csv, line 4", f"{tmp_path}/test.csv, line 2",
    ]  # fmt: skip


# --- what a program holds in memory


def test_data_frames() -> None:
    frame = pd.DataFrame({"n": [1.5, None], "c": pd.Categorical(["x", "y"]), "o": ["a", 1], 3: [[1], [2, 3]]})
    table = open_source(frame, name="mine")
    assert table.name == "mine"
    assert table.data.to_pylist() == [
        {"n": 1.5, "c": "x", "o": "a", "3": [1]},
        {"n": None, "c": "y", "o": "1", "3": [2, 3]},
    ]
    assert open_source(frame.set_index(pd.Index([7, 8], name="key"))).columns[0] == "key"
    assert open_source(frame.iloc[1:]).columns == ["n", "c", "o", "3"]
    with pytest.raises(DataError, match="'a' names more than one"):
        open_source(pd.DataFrame([[1, 2]], columns=["a", "a"]))


class Capsule:
    """As polars is: known by the protocol alone."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def test_arrow_objects() -> None:
    data = pa.table({"a": pa.array(["x", None], pa.large_string()), "v": pa.array(["p", "q"], pa.string_view())})
    for source in (data, Capsule(data), data.to_batches()[0]):
        table = open_source(source)
        assert table.data.to_pydict() == {"a": ["x", None], "v": ["p", "q"]}
        assert {field.type for field in table.data.schema} == {pa.string()}
    metadata = {
        "huggingface": json.dumps({"info": {"features": {"y": {"names": ["no", "yes"], "_type": "ClassLabel"}}}})
    }
    labelled = pa.table({"y": [1, 0, None]}).replace_schema_metadata(metadata)
    assert open_source(labelled)["y"].to_pylist() == ["yes", "no", None]


def test_dicts_and_arrays() -> None:
    table = open_source({"x": np.zeros((2, 3, 4), bool), "y": [None, Path("a/b")], "l": [np.ones(2), np.zeros(2)]})
    assert table["x"].type.shape == [3, 4]
    assert table["y"].to_pylist() == [None, "a/b"]
    assert table["l"].combine_chunks().to_numpy_ndarray().tolist() == [[1, 1], [0, 0]]
    assert open_source(np.arange(3)).data.to_pydict() == {"value": [0, 1, 2]}
    assert open_source(np.array([1.0, np.nan]))["value"].to_pylist() == [1.0, None]
    for source, message in [
        ({"a": [1], "b": [1, 2]}, "'a' 1, 'b' 2"),
        ({}, "no column"),
        ({"a": "text"}, "not str"),
        ({"a": [object()]}, "column 'a': values of these types make no column: object"),
        ({"a": np.zeros(2, complex)}, "complex128"),
        ({1: [1], "1": [2]}, "'1' names more than one"),
        (7, "int is no source"),
        (np.array(3.0), "single value"),
    ]:
        with pytest.raises(DataError, match=message):
            open_source(source)


# --- names, the hub, cells that name files


def test_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_source("iris").rows == 150
    pictures(tmp_path, "iris/a.jpg")
    write(tmp_path / "people.csv", "a\n1\n")
    assert open_source("iris").columns == ["image"]
    assert open_source("./iris").columns == ["image"]
    assert open_source("catalogue:iris").rows == 150
    assert open_source("people.csv").name == "people"
    for word, message in [
        ("irs", "Did you mean 'iris'"),
        ("poeple.csv", "Did you mean 'people.csv'"),
        ("./poeple.csv", "Did you mean 'people.csv'"),
        ("qqqq", "Known: breast-cancer"),
        ("https://a.b/c.csv", "URL, and nothing is fetched"),
        ("", "no source"),
        ("catalogue:irs", "Did you mean 'iris'"),
    ]:
        with pytest.raises(DataError, match=message):
            open_source(word)
    for name, message in [("a.xlsx", "Save the sheet as CSV"), ("a.zip", "Unpack it"), ("a.jpg", "a single picture"),
                          ("a", "no suffix"), ("a.parquet.gz", "no known kind")]:  # fmt: skip
        with pytest.raises(DataError, match=message):
            open_source(write(tmp_path / name, b"x"))


class HubPart:
    """As much of ``datasets.Dataset`` as is asked for."""

    def __init__(self, data: pa.Table) -> None:
        self.data, self.num_rows = data, data.num_rows
        names = {"names": ["no", "yes"], "_type": "ClassLabel"}
        self.features = types.SimpleNamespace(to_dict=lambda: {"y": names})

    def with_format(self, kind: str) -> HubPart:
        assert kind == "arrow"
        return self

    def __getitem__(self, rows: slice) -> pa.Table:
        return self.data[rows.start or 0 : self.num_rows] if rows.start else self.data


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"zhixing\[hub\]"):
        open_source("hub:a/b")
    calls = []

    def load_dataset(path, name=None, trust_remote_code=None):
        calls.append((path, name, trust_remote_code))
        if path == "no/net":
            raise ConnectionError("no route")
        part = HubPart(pa.table({"y": [0, 1]}))
        return {"test": part, "train": part, "unsupervised": part} if path == "a/b" else part

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    table = open_source("hub:a/b:small")
    assert table["y"].to_pylist() == ["no", "yes"] * 2
    assert table["split"].to_pylist() == ["train"] * 2 + ["test"] * 2
    assert (table.name, table.where(3)) == ("b", "hub:a/b:small, test, row 1")
    assert [p.place for p in table.problems] == ["hub:a/b:small, unsupervised"]
    assert open_source("hub:c").split_column is None
    with pytest.raises(DataError, match=r"hub:no/net: the hub did not give it: ConnectionError: no route"):
        open_source("hub:no/net")
    assert calls == [("a/b", "small", False), ("c", None, False), ("no/net", None, False)]
    for word in ("hub:", "hub:../x", "hub:a b", "hub:a/b/c"):
        with pytest.raises(DataError, match="no name on the hub"):
            open_source(word)


def test_cells_that_name_files(tmp_path: Path) -> None:
    assert resolve(tmp_path, "a/../b.jpg") == tmp_path / "a/../b.jpg"
    assert resolve(tmp_path, "/abs/x.jpg") == Path("/abs/x.jpg")
    assert resolve(None, "x.jpg") == Path("x.jpg")
    assert resolve(tmp_path, "a:b.jpg") == tmp_path / "a:b.jpg"
    for cell, message in [
        ("http://a/b.jpg", "nothing is fetched"),
        ("file:///x", "URL"),
        ("", "empty"),
        ("a\0", "zero"),
    ]:
        with pytest.raises(DataError, match=message):
            resolve(tmp_path, cell)


# --- anything at all


def usable_or_told(path: Path) -> None:
    """A table whose cells and places can be read, or an error that names the file."""
    try:
        table = open_source(path)
    except DataError as error:
        told = str(error)
    else:
        table.data.to_pylist()
        told = table.where(table.rows - 1) if table.rows else str(path)
        assert all(0 <= problem.row <= table.rows for problem in table.problems)
    assert str(path) in told


@pytest.fixture(scope="module")
def samples() -> dict[str, bytes]:
    """One good file of each format."""
    data = pa.table({"a": [1, 2, 3], "split": ["train", "test", "train"], "l": [["x"], [], None]})
    parquet, stream, ipc, npz, npy = (io.BytesIO() for _ in range(5))
    pa.parquet.write_table(data, parquet)
    for sink, new in ((stream, pa.ipc.new_stream), (ipc, pa.ipc.new_file)):
        with new(sink, data.schema) as writer:
            writer.write_table(data)
    np.savez_compressed(npz, x=np.arange(6), y=np.array(list("abcdef")))
    np.save(npy, np.arange(6.0))
    return {
        "a.csv": 'a,b\n1,"x\ny"\n2,é\n3,\n'.encode() * 3,
        "a.csv.gz": gzip.compress(b"a,b\n1,2\n"),
        "a.jsonl": '{"a": 1, "b": "é"}\n{"a": [2]}\n'.encode() * 3,
        "a.json": b'[{"a": 1}, {"a": 2}]',
        "a.npz": npz.getvalue(),
        "a.npy": npy.getvalue(),
        "a.parquet": parquet.getvalue(),
        "s.arrow": stream.getvalue(),
        "f.arrow": ipc.getvalue(),
        "a-images-idx3-ubyte": idx(np.arange(8).reshape(2, 2, 2).astype(np.uint8)),
        "b-images-idx1-ubyte.gz": gzip.compress(idx(np.arange(8).astype(np.uint8))),
    }


FORMATS = ["a.csv", "a.csv.gz", "a.jsonl", "a.json", "a.npz", "a.npy", "a.parquet", "s.arrow", "f.arrow",
           "a-images-idx3-ubyte", "b-images-idx1-ubyte.gz"]  # fmt: skip


@SHARED
@given(content=st.binary(max_size=100))
@pytest.mark.parametrize("name", FORMATS)
def test_any_bytes_give_a_table_or_a_data_error(tmp_path: Path, name: str, content: bytes) -> None:
    usable_or_told(write(tmp_path / name, content))


@SHARED
@given(where=st.floats(0, 1), damage=st.binary(min_size=1, max_size=4), cut=st.booleans())
@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_gives_a_table_or_a_data_error(tmp_path: Path, samples, name, where, damage, cut) -> None:
    content = samples[name]
    at = int(where * (len(content) - 1))
    usable_or_told(write(tmp_path / name, content[:at] + damage + (b"" if cut else content[at + len(damage) :])))


def test_reading_as_utf8_leaves_unknown_bytes(tmp_path: Path) -> None:
    assert read_utf8(write(tmp_path / "a.txt", b"\xef\xbb\xbfa\xff")) == b"a\xff"
