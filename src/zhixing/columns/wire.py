"""Cells as they stand in a request: the types that several kinds of column share."""

from __future__ import annotations

import base64
import binascii
import io
import wave
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

__all__ = ["FAR", "LISTED", "Word", "file_of", "quantity", "silence", "word_of"]

LISTED = 1000  # classes that are told one by one
FAR = 1e6  # standard deviations beyond which a number is taken for a mistake


def word_of(value: str | bool | int | float) -> str:
    """A value as a table's text has it.

    >>> [word_of(value) for value in ("a", True, 3, 3.0, 2.5)]
    ['a', 'true', '3', '3', '2.5']
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2.0**53 else repr(value)
    return str(value)


Number = Annotated[float, Field(allow_inf_nan=False)]
Word = Annotated[str | bool | int | Number, AfterValidator(word_of)]


def quantity(low: float, high: float) -> Any:
    """A number within bounds, or none."""
    return Annotated[float, Field(ge=max(low, -1e300), le=min(high, 1e300), allow_inf_nan=False)] | None


def file_of(media: str) -> Any:
    """A file as ``{"base64": …}``; bytes, which no JSON holds, are what came as a file of a form."""
    schema = {
        "type": "object",
        "properties": {
            "base64": {"type": "string", "format": "byte", "contentEncoding": "base64", "contentMediaType": media}
        },
        "required": ["base64"],
        "additionalProperties": False,
    }
    return Annotated[bytes, BeforeValidator(content_of), WithJsonSchema(schema)]


def content_of(value: Any) -> bytes:
    """The bytes of a file. A path or an address is neither of what is taken, whatever it names."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, dict) or set(value) != {"base64"} or not isinstance(value["base64"], str):
        raise ValueError('a file is {"base64": "…"}; paths and addresses are not opened')
    try:
        return base64.b64decode(value["base64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64: {error}") from error


def silence(rate: int, seconds: float) -> bytes:
    """A short WAV file, as an example."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        file.writeframes(bytes(2 * round(rate * seconds)))
    return buffer.getvalue()
