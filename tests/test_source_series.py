"""Time series from .ts and .arff files: what is written comes back, what is damaged is told of with its line."""

from __future__ import annotations

import gzip
import io
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import arff as scipy_arff

from zhixing.columns.series import Series
from zhixing.data.source import open_source
from zhixing.data.source_series import arff_cells, nested
from zhixing.data.split import SplitSettings, split
from zhixing.errors import DataError

SHARED = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
HEAD = "#about\n@problemName Vowels\n@timeStamps false\n@univariate false\n@classLabel true a b\n@data\n"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


VALUE = st.one_of(st.none(), st.integers(-99, 99).map(float), st.floats(-1e9, 1e9))


@SHARED
@given(data=st.data(), dimensions=st.integers(1, 3), pack=st.booleans())
def test_ts_comes_back(tmp_path: Path, data, dimensions, pack) -> None:
    length = st.integers(1, 6)
    rows = data.draw(
        st.lists(
            length.flatmap(lambda n: st.lists(st.lists(VALUE, min_size=dimensions, max_size=dimensions), min_size=n,
                                              max_size=n)),
            min_size=1, max_size=5,
        )
    )  # fmt: skip
    labels = data.draw(st.lists(st.sampled_from("ab?"), min_size=len(rows), max_size=len(rows)))
    body = "\n".join(
        ":".join(",".join("?" if step[d] is None else repr(step[d]) for step in row) for d in range(dimensions))
        + f":{label}"
        for row, label in zip(rows, labels, strict=True)
    )
    content = (HEAD + body).encode()
    path = write(tmp_path / ("a.ts.gz" if pack else "a.ts"), gzip.compress(content) if pack else content)
    table = open_source(path)
    assert table["series"].type == pa.list_(pa.list_(pa.float64()))
    assert table["series"].to_pylist() == rows
    assert table["label"].to_pylist() == [None if label == "?" else label for label in labels]
    assert table.problems == []
    assert [table.where(row) for row in range(len(rows))] == [f"{path}, line {7 + row}" for row in range(len(rows))]


def test_bad_rows_of_a_ts_file_are_told_with_their_line(tmp_path: Path) -> None:
    head = HEAD.replace("@univariate false", "@dimensions 2\n@seriesLength 3")
    rows = ["1,2,3:4,5,6:a", "1,2:3:b", "1,2,3:a", "1,x,3:4,5,6:b", "", "1,2,3:4,?,NaN:c", "1,2:3,4:b",
            "1,1_0,3:4,5,6:b", "1,2,3:4,5,6,7:a:b"]  # fmt: skip
    path = write(tmp_path / "a.ts", (head + "\n".join(rows)).encode() + b"\n1,2,3:4,5,6:\xff\n")
    table = open_source(path)
    assert table["series"].to_pylist() == [
        [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]],
        [[1.0, 4.0], [2.0, None], [3.0, None]],
        [[1.0, 3.0], [2.0, 4.0]],
    ]
    assert [(one.row, one.place.rpartition(" ")[2], one.reason, one.fatal) for one in table.problems] == [
        (1, "9", "dimension 1 has 1 steps, dimension 0 has 2", True),
        (1, "10", "2 dimensions expected, 1 found", True),
        (1, "11", "not a number: 'x'", True),
        (1, "13", "the header lists no class 'c'", False),
        (2, "14", "3 steps stand in the header, 2 in the row", False),
        (3, "15", "not a number: '1_0'", True),
        (3, "16", "2 dimensions expected, 3 found", True),
        (3, "17", "the line is not UTF-8: b'1,2,3:4,5,6:\\xff'", True),
    ]
    assert [table.where(row).rpartition(" ")[2] for row in range(3)] == ["8", "13", "14"]


def test_targets_and_files_without_labels(tmp_path: Path) -> None:
    table = open_source(write(tmp_path / "a.ts", "@univariate true\n@targetlabel true\n@data\n1,2:0.5\n3:?\n4,5:x\n"))
    assert table.data.to_pydict() == {"series": [[[1.0], [2.0]], [[3.0]]], "label": [0.5, None]}
    assert [one.reason for one in table.problems] == ["not a number: 'x'"]
    table = open_source(write(tmp_path / "b.ts", "@classLabel false\n@data\n1,2:3,4\n"))
    assert table.data.to_pydict() == {"series": [[[1.0, 3.0], [2.0, 4.0]]]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ts", "export const x = 1;\n", "no @data line, so this is not a file of time series"),
        ("a.ts", "@classLabel true a\n", "no @data line"),
        ("a.ts", "@timestamps true\n@data\n(0,1):a\n", "line 1: series with a time stamp"),
        ("a.ts", "@dimensions two\n@data\n1\n", "line 1: @dimensions must be a whole number, not 'two'"),
        ("a.ts", HEAD, "holds no row"),
        ("a.ts", HEAD + "1,x:a\n2,y:b\n", r"line 7: not a number: 'x'.*No row"),
        ("a.arff", "@relation x\n@attribute a numeric\n@data\n{0 5}\n", r"line 4: sparse rows.*SparseToNonSparse"),
        ("a.arff", "@relation x\n@attribute a numeric\n", "no @data line"),
        ("a.arff", "@relation x\n@data\n1\n", "no @attribute line"),
        ("a.arff", "@attribute a colour\n@data\n1\n", "no type of attribute is called 'colour'"),
        ("a.arff", "@attribute a\n@data\n1\n", "a name and a type"),
        ("a.arff", "@attribute r relational\n@attribute a string\n@end r\n@data\n1\n", "other things than numbers"),
        ("a.arff", "@attribute a numeric\n@attribute a numeric\n@data\n1,2\n", "'a' names more than one column"),
        ("a.arff", "a,b\n1,2\n", "line 1: @relation, @attribute or @data expected"),
    ],
)
def test_files_that_hold_no_series(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(write(tmp_path / name, content))


def test_arff_as_scipy_reads_it(tmp_path: Path) -> None:
    content = (
        "% a comment\n@RELATION 'two words'\n@attribute 'leaf length' REAL\n@attribute n integer\n"
        "@attribute kind {a, 'b c', d}\n\n@data\n% another\n1.5, 2, a\n?,3,'b c'\n-1e3,4,?\n"
    )
    path = write(tmp_path / "a.arff", content)
    table = open_source(path)
    assert table.data.to_pydict() == {
        "leaf length": [1.5, None, -1000.0], "n": [2.0, 3.0, 4.0], "kind": ["a", "b c", None],
    }  # fmt: skip
    found, _ = scipy_arff.loadarff(io.StringIO(content.replace("'b c'", "bc").replace("'leaf length'", "leaf")))
    np.testing.assert_array_equal(
        found["leaf"], [math.nan if x is None else x for x in table["leaf length"].to_pylist()]
    )
    assert [table.where(row).rpartition(" ")[2] for row in range(3)] == ["9", "10", "11"]


def test_series_in_arff_and_its_bad_rows(tmp_path: Path) -> None:
    content = (
        "@relation r\n@attribute bag relational\n" + "".join(f"@attribute t{i} numeric\n" for i in range(3))
        + "@end bag\n@attribute what {run, 'sit still'}\n@data\n"
        + "'1,2,3\\n4,?,6',run\n\"1,2,3\\n4,5,6\",\"sit still\"\n'1,2\\n3,4',run\n'1,2,x\\n4,5,6',run\n?,run\n"
        + "'1,2,3',fly\n'1,2,3,run\n'1,2,3\\n4,5',run\n"
    )  # fmt: skip
    table = open_source(write(tmp_path / "a.arff", content))
    assert table["bag"].to_pylist() == [
        [[1.0, 4.0], [2.0, None], [3.0, 6.0]],
        [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]],
        None,
        [[1.0], [2.0], [3.0]],
    ]
    assert table["what"].to_pylist() == ["run", "sit still", "run", "fly"]
    assert [(one.row, one.reason.partition(":")[0], one.fatal) for one in table.problems] == [
        (2, "attribute 'bag'", True),
        (2, "attribute 'bag'", True),
        (3, "the header lists no class 'fly'", False),
        (4, "a quote is not closed, or text stands behind one", True),
        (4, "attribute 'bag'", True),
    ]
    assert "3 steps expected, 2 found" in table.problems[0].reason
    assert "not a number: 'x'" in table.problems[1].reason


@SHARED
@given(st.lists(st.one_of(st.none(), st.text(st.sampled_from("ab,'\"\\\n\t ?é"), max_size=6)), min_size=1, max_size=5))
def test_quoted_cells_come_back(cells) -> None:
    def quoted(cell: str | None) -> str:
        if cell is None:
            return "?"
        for plain, written in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\t", "\\t")):
            cell = cell.replace(plain, written)
        return f"'{cell}'"

    assert arff_cells(", ".join(map(quoted, cells))) == cells


def test_folders_keep_their_split(tmp_path: Path) -> None:
    rows = {"TRAIN": "1,2:3,4:a\n5:6:b\n", "TEST": "7,8,9:1,2,3:b\n"}
    for part, body in rows.items():
        write(tmp_path / "p" / f"Vowels_{part}.ts", HEAD + body)
    write(tmp_path / "p" / "Vowels_TRAIN.arff", "not read")
    write(tmp_path / "p" / "readme.md", "not read")
    table = open_source(tmp_path / "p")
    assert (table.name, table.columns, table.split_column) == ("Vowels", ["series", "label"], "split")
    assert table["split"].to_pylist() == ["train", "train", "test"]
    assert table.where(2) == f"{tmp_path}/p/Vowels_TEST.ts, line 7"
    assert {name: len(rows) for name, rows in split(table, SplitSettings(validation=0, train=0.9), 0).items()} == {
        "train": 2, "validation": 0, "test": 1,
    }  # fmt: skip
    assert Series.claims(table["series"], "series") is not None
    column = Series()
    column.fit(table["series"], table.locate)
    assert column.spec().shape == (3, 2)
    for part, body in rows.items():
        write(tmp_path / "p" / f"Vowels_eq_{part}.ts", HEAD + body)
    table = open_source(tmp_path / "p")
    assert (table.name, table.rows) == ("Vowels", 3)
    assert [(one.fatal, one.reason) for one in table.problems] == [
        (False, "the files of 'Vowels_eq' are left out: 'Vowels' lies beside them")
    ]
    for part, body in rows.items():
        write(tmp_path / "p" / f"Other_{part}.ts", HEAD + body)
    with pytest.raises(DataError, match="several data sets lie here: 'Other', 'Vowels', 'Vowels_eq'"):
        open_source(tmp_path / "p")
    for part in rows:
        write(tmp_path / "q" / f"x_{part}.arff", "@relation r\n@attribute a numeric\n@data\n1\n")
    assert open_source(tmp_path / "q").data.to_pydict() == {"a": [1.0, 1.0], "split": ["train", "test"]}
    write(tmp_path / "q" / "x_Training.arff", "")
    with pytest.raises(DataError, match="two files are there for one split"):
        open_source(tmp_path / "q")


def test_nested_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhixing.data.source_series.LARGEST_PACK", 10)
    grids = [None, *(np.arange(2.0 * n).reshape(n, 2) for n in (3, 0, 4, 9, 1)), None]
    column = nested(grids)
    assert column.num_chunks > 2
    assert column.to_pylist() == [None if grid is None else grid.tolist() for grid in grids]
    assert nested([]).to_pylist() == []


SAMPLES = {
    "a.ts": HEAD + "1,2:3,4:a\n5,?:6,7:b\n" * 3,
    "a.arff": "@relation 'r'\n@attribute x numeric\n@attribute k {a,'b'}\n@attribute r relational\n"
    "@attribute t numeric\n@end r\n@data\n1,a,'2\\n3'\n?,'b',\"4\\n5\"\n",
}


@SHARED
@given(where=st.floats(0, 1), damage=st.binary(min_size=1, max_size=4), cut=st.booleans())
@pytest.mark.parametrize("name", SAMPLES)
def test_a_damaged_file_gives_a_table_or_a_data_error(tmp_path: Path, name: str, where, damage, cut) -> None:
    content = SAMPLES[name].encode()
    at = int(where * (len(content) - 1))
    path = write(tmp_path / name, content[:at] + damage + (b"" if cut else content[at + len(damage) :]))
    try:
        table = open_source(path)
    except DataError as error:
        told = str(error)
    else:
        table.data.to_pylist()
        told = table.where(table.rows - 1)
        assert all(0 <= one.row <= table.rows for one in table.problems)
    assert str(path) in told
