"""What a server is told: where it listens, how rows are gathered into batches, and the bounds of all that it takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from ..errors import UsageError, did_you_mean

__all__ = ["LOOPBACK", "Limits", "Settings", "limits_of", "tokens_of"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
SHORTEST = 16  # characters of a token


@dataclass(frozen=True)
class Limits:
    """Bounds of what one request, one connection and all of them together may take; none is left to the stack.

    Sizes are in bytes, times in seconds.
    """

    body: int = 10 << 20  # of a request
    buffered: int = 20 << 20  # of all requests that are being read
    head: int = 16 << 10  # request line and headers
    headers: int = 64  # how many
    chunks: int = 1024  # pieces of a chunked body
    parts: int = 64  # of a form
    field: int = 1 << 20  # characters of a text, or numbers and words of a list
    rows: int = 1024  # of a request
    explained: int = 16  # rows of a request that asks for explanations
    pixels: int = 25_000_000  # of a picture
    seconds: float = 60.0  # of a sound
    tokens: int = 1024  # written for one request
    streams: int = 16  # texts and explanations that are worked on at once
    connections: int = 512
    head_time: float = 5.0  # for a whole head
    idle_time: float = 10.0  # between two pieces of a body, or of an answer that is not fetched
    body_time: float = 30.0  # for a whole body
    total_time: float = 120.0  # for an answer
    keep_alive: float = 15.0  # of a connection on which nothing is asked
    drain_time: float = 60.0  # for what was accepted before the end
    linger_time: float = 1.0  # in which a refused body is thrown away, so that the refusal is read


@dataclass(frozen=True)
class Settings:
    """How a server runs.

    ``max_batch`` rows go through the model at once; the first of them waits ``wait`` seconds at most for others. As
    many as ``queue`` rows may wait in all (open: four batches), and none whose answer would come more than
    ``patience`` seconds from now.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    tokens: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()  # further names that the server may be called by
    max_batch: int = 32
    wait: float = 0.005
    queue: int | None = None
    patience: float | None = None
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def most_waiting(self) -> int:
        return 4 * self.max_batch if self.queue is None else self.queue

    def for_one(self) -> Settings:
        """The same with a row at a time; as many may wait."""
        return replace(self, max_batch=1, queue=self.most_waiting)

    @property
    def names(self) -> frozenset[str]:
        """What may stand in a request's Host, without the port."""
        own = LOOPBACK | {"[::1]"} if self.host in LOOPBACK else {self.host, f"[{self.host}]"}
        return frozenset(name.lower() for name in own | self.hosts)

    def check(self) -> None:
        """Raises UsageError: anybody could ask, or every request would be refused for its Host."""
        if self.host in LOOPBACK:
            return
        if not self.tokens:
            raise UsageError(
                f"on {self.host} others than this machine can ask, and there is no token",
                place="--host",
                mend="Give a file with a token: --token-file FILE.",
            )
        if self.host in ("0.0.0.0", "::") and not self.hosts:  # noqa: S104
            raise UsageError(
                f"{self.host} is no name that a request could be sent to",
                place="--host",
                mend="Say what the server is called: --allow-host NAME.",
            )


def limits_of(given: Iterable[str]) -> Limits:
    """Limits from flags such as ``body=1000000``.

    Raises:
        UsageError: a limit that is not known, or that is no number above 0.

    >>> limits_of(["rows=8"]).rows
    8
    """
    known: dict[str, type[int] | type[float]] = {one.name: type(getattr(Limits, one.name)) for one in fields(Limits)}
    found: dict[str, int | float] = {}
    for flag in given:
        name, sign, value = flag.partition("=")
        if name not in known or not sign:
            raise UsageError(f"{flag!r} is no limit", place="--limit", mend=did_you_mean(name, known))
        try:
            found[name] = known[name](value)
        except ValueError:
            found[name] = 0
        if not 0 < found[name] < float("inf"):
            raise UsageError(f"{name} is {value!r}, not a {known[name].__name__} above 0", place="--limit")
    return replace(Limits(), **found)  # type: ignore[arg-type]


def tokens_of(path: Path | None) -> tuple[str, ...]:
    """The tokens of a file, one a line.

    Raises:
        UsageError: the file cannot be read, holds none, or one that could be guessed.
    """
    if path is None:
        return ()
    try:
        found = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token file cannot be read: {error}", place=path) from error
    if not found:
        raise UsageError("the file holds no token", place=path, mend="Put one on its first line.")
    if not all(len(token) >= SHORTEST and token.isascii() and token.isprintable() for token in found):
        raise UsageError(
            f"a token has fewer than {SHORTEST} characters, or such as no header holds",
            place=path,
            mend="Make one with: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    return found
