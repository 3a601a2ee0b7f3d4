"""Forms: the parts of a ``multipart/form-data`` body that lies in memory."""

from __future__ import annotations

from typing import Any

from ..errors import MissingExtraError
from .refusal import Refusal
from .settings import Limits

__all__ = ["parse_form"]

HEAD = 4096  # bytes of a part's headers


def parse_form(kind: str, body: bytes | bytearray, limits: Limits) -> dict[str, bytes | str]:
    """Parts by name: those with a file's name or a type of their own as bytes, others as text.

    A file's name is not looked at further than whether there is one.

    Raises:
        Refusal: the form is malformed, has too many parts, or names one twice.
    """
    try:
        from python_multipart.exceptions import FormParserError
        from python_multipart.multipart import MultipartParser, parse_options_header
    except ImportError as error:
        raise MissingExtraError("python-multipart", "serve", purpose="forms") from error
    boundary = parse_options_header(kind)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= 200:
        raise Refusal(400, "the form states no boundary", reason="form", place="Content-Type")
    parts = Parts(limits)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(bytes(body))
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, f"the form is malformed: {error}", reason="form") from None
    if not parts.ended:
        raise Refusal(400, "the form ends before its last boundary", reason="form")
    return {name: content_of(headers, data) for name, headers, data in parts.found(parse_options_header)}


class Parts:
    """What a parser tells of a form, piece by piece."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.all: list[tuple[dict[bytes, bytes], bytearray]] = []
        self.name, self.value = bytearray(), bytearray()
        self.head = 0
        self.ended = False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self.begin,
            "on_header_field": lambda data, start, end: self.take(self.name, data, start, end),
            "on_header_value": lambda data, start, end: self.take(self.value, data, start, end),
            "on_header_end": self.header,
            "on_part_data": lambda data, start, end: self.all[-1][1].extend(memoryview(data)[start:end]),
            "on_end": self.end,
        }

    def begin(self) -> None:
        if len(self.all) >= self.limits.parts:
            raise Refusal(413, f"the form has more than {self.limits.parts} parts", reason="parts")
        self.all.append(({}, bytearray()))
        self.head = 0

    def take(self, into: bytearray, data: bytes, start: int, end: int) -> None:
        self.head += end - start
        if self.head > HEAD:
            raise Refusal(431, f"the head of a part has more than {HEAD} bytes", reason="head")
        into += data[start:end]

    def header(self) -> None:
        self.all[-1][0][bytes(self.name).lower()] = bytes(self.value)
        self.name.clear()
        self.value.clear()

    def end(self) -> None:
        self.ended = True

    def found(self, parse_options: Any) -> list[tuple[str, dict[bytes, bytes], bytearray]]:
        """Each part with its name. Raises Refusal where one has none, or another's."""
        out, names = [], set[str]()
        for headers, data in self.all:
            kind, options = parse_options(headers.get(b"content-disposition", b""))
            name = options.get(b"name", b"").decode("utf-8", "replace")
            if kind != b"form-data" or not name or name in names:
                raise Refusal(422, f"a part of the form has no name of its own: {name[:100]!r}", reason="form")
            names.add(name)
            out.append((name, {**headers, b"file": options.get(b"filename", b"")}, data))
        return out


def content_of(headers: dict[bytes, bytes], data: bytearray) -> bytes | str:
    media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if headers[b"file"] or (media and not media.startswith(b"text/") and media != b"application/json"):
        return bytes(data)
    try:
        return data.decode()
    except UnicodeDecodeError:  # a file without a name, as some clients send it
        return bytes(data)
