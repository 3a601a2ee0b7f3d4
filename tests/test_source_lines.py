"""Plain text: prose and tables told apart, paragraphs and lines, places, encodings; folders of texts and sounds."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zhixing.data.source import open_source
from zhixing.errors import DataError

SHARED = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WORD = st.text("abcdeé知", min_size=1, max_size=5)
LINE = st.lists(WORD, min_size=1, max_size=5).map(" ".join)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- single files


@SHARED
@given(st.lists(LINE, min_size=1, max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_lines_come_back(tmp_path: Path, lines, end) -> None:
    path = write(tmp_path / "a.txt", end.join(lines) + end)
    table = open_source(path)
    assert table.data.to_pydict() == {"text": lines}
    assert [table.where(row) for row in range(len(lines))] == [f"{path}, line {row + 1}" for row in range(len(lines))]
    assert table.problems == []


@SHARED
@given(st.lists(st.lists(LINE, min_size=1, max_size=6), min_size=2, max_size=6), st.integers(1, 3))
def test_paragraphs_come_back(tmp_path: Path, paragraphs, gap) -> None:
    lines = "\n".join(("\n" * gap).join(["\n".join(one) + "\n" for one in paragraphs]).split("\n"))
    path = write(tmp_path / "a.txt", "\n\n" + lines)
    table = open_source(path)
    assert table["text"].to_pylist() == ["\n".join(one) for one in paragraphs]
    content = path.read_text().split("\n")
    for row, one in enumerate(paragraphs):
        assert content[int(table.where(row).rpartition(" ")[2]) - 1] == one[0]


def test_a_stray_blank_line_makes_no_paragraphs(tmp_path: Path) -> None:
    lines = [f"line number {i}" for i in range(200)]
    table = open_source(write(tmp_path / "a.txt", "\n".join([*lines[:99], "", *lines[99:]])))
    assert table["text"].to_pylist() == lines
    assert table.where(199).endswith("line 201")


PROSE = """It was late, and the rain, which had begun at noon, would not end.
"No," said the man; "we shall go on, whatever comes."
They went, without a word, along the river.
Nobody followed.
In the morning there was nothing but mist; the boats, three of them, were gone.
"""


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (PROSE, ["text"]),
        (PROSE.replace("\n", "\n\n"), ["text"]),
        ('"Where?" he asked,\n"Here," she said, and "there.\nThen, nothing.\n', ["text"]),
        ("a single line, with a comma\n", ["text"]),
        ("a\nb\nc\n", ["text"]),
        ("天地玄黄，宇宙洪荒。\n日月盈昃，辰宿列张。\n", ["text"]),
        ("name\tage\nAnn\t31\nBob\t45\n", ["name", "age"]),
        ("name,remark\nAnn,\"tall, dark\"\nBob,none\nEve,\"a\nb\"\n", ["name", "remark"]),
        ("a|b\n1|2\n\n3|4\n", ["a", "b"]),
        ("a;b\n" + "1;2\n" * 9 + "broken\n", ["a", "b"]),
    ],
)  # fmt: skip
def test_prose_and_tables_are_told_apart(tmp_path: Path, content: str, columns: list[str]) -> None:
    table = open_source(write(tmp_path / "a.txt", content))
    assert table.columns == columns
    if columns == ["text"]:
        assert "\n".join(table["text"].to_pylist()) == "\n".join(line for line in content.split("\n") if line)
    # another suffix says what it is, whatever it looks like
    assert open_source(write(tmp_path / "b.tsv", "a\nb, c\n")).columns == ["a"]


def test_encodings_and_bad_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one\ntwo \xff\nthree\nfour\n")
    table = open_source(path)
    assert table["text"].to_pylist() == ["one", None, "three", "four"]
    assert [(one.row, one.column, one.place, one.fatal) for one in table.problems] == [
        (1, "text", f"{path}, line 2", False)
    ]
    path = write(tmp_path / "b.txt", "天地玄黄\n宇宙洪荒\n".encode("gb18030"))
    with pytest.raises(DataError, match="#gb18030"):
        open_source(path)
    assert open_source(f"{path}#gb18030")["text"].to_pylist() == ["天地玄黄", "宇宙洪荒"]
    packed = write(tmp_path / "c.txt.gz", gzip.compress(b"x\ny\n"))
    assert open_source(packed)["text"].to_pylist() == ["x", "y"]
    for content in ("", "\n \n"):
        with pytest.raises(DataError, match="holds no text"):
            open_source(write(tmp_path / "d.txt", content))


@SHARED
@given(st.binary(max_size=80))
def test_any_bytes_give_a_table_or_a_data_error(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "a.txt", content)
    try:
        table = open_source(path)
    except DataError as error:
        told = [str(error)]
    else:
        table.data.to_pylist()
        told = [table.where(row) for row in range(table.rows)]
    assert all(str(path) in place for place in told)


# --- folders


def test_class_folders_of_texts(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "train/good/1.txt": "Fine,\r\nthank you.\n", "train/bad/deep/2.txt": "no", "test/good/3.TXT": "",
        "test/bad/4.txt": b"\xff", "train/bad/notes.doc": "x",
    }  # fmt: skip
    for name, content in files.items():
        write(tmp_path / "p" / name, content)
    table = open_source(tmp_path / "p")
    assert table.data.to_pydict() == {
        "text": ["no", "Fine,\nthank you.", None, None],
        "label": ["bad", "good", "bad", "good"],
        "split": ["train", "train", "test", "test"],
    }
    assert table.where(1) == f"{tmp_path}/p/train/good/1.txt"
    assert [(one.row, one.place.rpartition("/")[2], one.reason, one.fatal) for one in table.problems] == [
        (0, "notes.doc", "not a text: the suffix '.doc' is none of theirs", True),
        (2, "4.txt", "the text is not UTF-8", False),
    ]
    for name in ("train/good/1.txt", "train/bad/deep/2.txt"):
        write(tmp_path / "p" / name, b"\xe9t\xe9")
    with pytest.raises(DataError, match=r"2\.txt: the text is not UTF-8"):
        open_source(tmp_path / "p")


def test_flat_folders_of_texts(tmp_path: Path) -> None:
    write(tmp_path / "one" / "book.txt", "a\nb\n")
    write(tmp_path / "one" / "LICENSE", "x")
    table = open_source(tmp_path / "one")
    assert table["text"].to_pylist() == ["a", "b"]
    assert [one.reason for one in table.problems] == ["not a text: it has no suffix"]
    write(tmp_path / "one" / "other.txt", "c\nd\n")
    assert open_source(tmp_path / "one")["text"].to_pylist() == ["a\nb", "c\nd"]
    for part in ("train", "test"):
        write(tmp_path / "parts" / f"{part}.txt", f"{part}\nmore\n")
    table = open_source(tmp_path / "parts")
    assert table.data.to_pydict() == {"text": ["train", "more", "test", "more"], "split": ["train"] * 2 + ["test"] * 2}
    write(tmp_path / "table" / "data.csv", "a\n1\n")
    write(tmp_path / "table" / "readme.txt", "about the table")
    with pytest.raises(DataError, match=r"For the table give data\.csv"):
        open_source(tmp_path / "table")
