"""Plain text: ``.txt`` files of prose, told apart from tables by looking, and files that are one text each."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ..errors import DataError
from .source_csv import DELIMITERS, SAMPLE, read_csv, records
from .source_text import not_utf8, read_utf8, stem
from .table import Problem, Table

__all__ = ["is_table", "read_lines", "read_text"]

EVEN = 0.8  # share of a table's rows that have as many cells as its header
BLANKS = 0.02  # gaps between paragraphs to lines; fewer are strays


def read_text(path: Path, encoding: str | None = None) -> Table:
    """A table from a ``.txt`` file, plain or gzip.

    It is delimited text, read as CSV is, where :func:`is_table` finds a delimiter that works on most lines. Else it is
    prose, read by :func:`read_lines` into one column ``text``.
    """
    content = read_utf8(path, encoding)
    return read_csv(path, encoding) if is_table(content, path) else read_lines(path, encoding)


def is_table(content: bytes, path: Path) -> bool:
    """Whether some delimiter parts the first line and at least four in five of the others into as many cells.

    There must be another line, and the first one must not end with the delimiter. Judged by the first 64 KiB. Lines
    that hold one delimiter each by chance (``Well, yes``) are few in any longer text; a table of one column has no
    delimiter, and is prose.
    """
    sample = content if len(content) <= SAMPLE else content[: content.rfind(b"\n", 0, SAMPLE) + 1] or content[:SAMPLE]
    for delimiter in DELIMITERS:
        rows = [cells for _, cells, _ in records(sample, delimiter, path, cut=True) if cells != []]
        header = (rows[0] if rows else None) or [""]
        width = len(header)
        even = sum(cells is not None and len(cells) == width for cells in rows[1:])
        if width > 1 and header[-1].strip() and len(rows) > 1 and even >= EVEN * (len(rows) - 1):
            return True
    return False


def read_lines(path: Path, encoding: str | None = None) -> Table:
    """A table from a file of prose: a column ``text``, a row a paragraph, or a row a line.

    Blank lines separate paragraphs where there is at least one such gap to fifty lines; a paragraph keeps the ends of
    its lines. Else each line that is not blank is a row. A text that is not UTF-8 is missing, and told of.

    Raises:
        DataError: a file without text, or in another encoding.
    """
    content = read_utf8(path, encoding)
    rows = content.replace(b"\r\n", b"\n").split(b"\n")
    filled = [number for number, row in enumerate(rows) if row.strip()]
    if not filled:
        raise DataError("the file holds no text", place=path)
    heads = [number for number, before in zip(filled, [-2, *filled], strict=False) if number > before + 1]
    if len(heads) == 1 or (len(heads) - 1) < BLANKS * len(filled):
        heads = filled
    texts: list[str | None] = []
    problems: list[Problem] = []
    for head, end in zip(heads, [*heads[1:], len(rows)], strict=True):
        piece = b"\n".join(rows[head:end]).strip()
        try:
            texts.append(piece.decode("utf-8"))
        except UnicodeDecodeError:
            reason = f"the text is not UTF-8: {piece[:40]!r}"
            problems.append(Problem(len(texts), "text", f"{path}, line {head + 1}", reason, fatal=False))
            texts.append(None)
    if len(problems) * 2 > len(texts):
        raise not_utf8(path, content)
    return Table(
        pa.table({"text": pa.array(texts, pa.string())}),
        name=stem(path),
        base=path.parent,
        place=lambda row: f"{path}, line {heads[row] + 1}",
        problems=problems,
    )
