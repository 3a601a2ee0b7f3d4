"""Text files as bytes of UTF-8: unpacked, their encoding found or told, and what is wrong with it said."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path

from ..errors import DataError, did_you_mean

__all__ = ["ENCODINGS", "not_utf8", "read_utf8", "split_hint", "stem", "unpacked_suffix"]

ENCODINGS = (
    "utf-8", "gb18030", "gbk", "gb2312", "big5", "big5hkscs", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "shift_jis",
    "euc_jp", "euc_kr", "latin-1", "cp1252", "cp1250", "cp1251", "koi8-r",
)  # fmt: skip
SAMPLE = 1 << 16  # bytes that an encoding is guessed from
GUESSES = ("gb18030", "big5", "shift_jis", "cp1252", "latin-1")
BOMS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip


def split_hint(source: str) -> tuple[str, str | None]:
    """A path and the encoding that it is marked with, as in ``people.csv#gb18030``.

    A file whose own name holds the ``#`` is that file.

    Raises:
        DataError: an unknown encoding after the name of a file that exists.
    """
    path, mark, encoding = source.rpartition("#")
    if not mark or Path(source).exists() or not Path(path).is_file():
        return source, None
    if encoding.lower() not in ENCODINGS:
        raise DataError(f"no encoding is called {encoding!r}", place=path, mend=did_you_mean(encoding, ENCODINGS))
    return path, encoding.lower()


def unpacked_suffix(path: Path) -> str:
    """The suffix that tells the format: ``.csv`` for ``a.CSV.gz``."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def stem(path: Path) -> str:
    """A short name for a run: ``my.data`` for ``photos/my.data.csv.gz``."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem or path.resolve().name


def read_utf8(path: Path, encoding: str | None = None) -> bytes:
    """The whole text, unpacked where it is gzip, as UTF-8 without a mark at its head.

    Bytes that the encoding does not know stay as they are, so that they show up as bad UTF-8 in their own cell. A
    file that starts with the mark of UTF-16 or UTF-32 has told its encoding.

    Raises:
        DataError: a file that cannot be read, is cut short, or is UTF-16 without a mark.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"the file cannot be read: {error}", place=path, mend="Fetch or pack it again.") from error
    if encoding is None:
        encoding = next((name for mark, name in BOMS if content.startswith(mark)), None)
    if encoding not in (None, "utf-8"):
        try:
            content = content.decode(encoding, "surrogateescape").encode("utf-8", "surrogateescape")
        except UnicodeError as error:
            raise DataError(f"the text is not {encoding}: {error}", place=path) from error
    elif wide(content[:SAMPLE]):
        raise not_utf8(path, content)
    return content.removeprefix(codecs.BOM_UTF8)


def not_utf8(path: Path, content: bytes) -> DataError:
    """The error for a file that as a whole is in another encoding, with the encodings that it may be in."""
    head = content[:SAMPLE]
    likely = wide(head)
    fits = [likely] if likely else [name for name in GUESSES if decodes(head, name)]
    return DataError(
        "the text is not UTF-8",
        place=path,
        mend=f"It may be {' or '.join(fits)}: name it as {path.name}#{fits[0]}, or convert the file to UTF-8.",
    )


def wide(head: bytes) -> str | None:
    """UTF-16 without a mark, by its line ends, or by its zeros where most letters are Latin."""
    ends, little, big = head.count(b"\n"), head.count(b"\n\0"), head.count(b"\0\n")
    if not (ends and max(little, big) * 2 > ends) and head.count(0) * 4 <= len(head):
        return None
    return "utf-16-le" if little > big or head[1::2].count(0) > head[0::2].count(0) else "utf-16-be"


def decodes(head: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeError:
        return False
    return True
