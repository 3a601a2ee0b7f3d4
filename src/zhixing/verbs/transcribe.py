"""Transcribe: recordings of any length, window by window, with the times at which things are said."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..columns import Column
from ..columns.audio import Audio
from ..columns.column import Locate
from ..columns.sound import describe_failure, read_sound, seconds_of
from ..columns.text import Text
from ..columns.tokenizer_published import Published
from ..columns.vocabulary import END, UNKNOWN
from ..data.batches import Batch, ColumnBatch
from ..data.table import Problem, Table
from ..heads.decoder_transformer import TransformerDecoder
from ..heads.search import Search
from ..heads.text import TextHead
from ..heads.timed import Clock, Heard, Phrase, hear, phrases_of
from ..model import Model

__all__ = ["Listener", "Segment", "listener_of", "recordings"]

MARK = "<|notimestamps|>"  # after which, in a published vocabulary, the tokens of times stand
SILENCE = ("<|nospeech|>", "<|nocaptions|>")
# Signs around what is no speech, such as [BLANK_AUDIO] and ♪: what its own command leaves out too.
UNSPOKEN = tuple('"#()*+/:;<=>@[\\]^_`{|}~「」『』♩♪♫♬♭♮♯')
STEP = 0.02  # seconds from one such token to the next
LONGEST = 12 * 3600.0  # seconds of a recording
SLACK = 0.01  # seconds beyond a window that are no more than rounding
PAUSE, PAUSE_WITHIN, QUIETER = 0.06, 0.6, 0.05  # seconds of a pause, seconds to either side of where it is to be, power
# As Whisper's own command has them: what is less likely, or repeats itself more, is heard again with more chance.
UNSURE, REPETITIVE, SILENT = -1.0, 2.4, 0.6
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)


class Segment(NamedTuple):
    """What is said from ``start`` to ``end``, in seconds from the beginning of the recording."""

    start: float
    end: float
    text: str

    def line(self) -> str:
        """For a person.

        >>> Segment(61.5, 3672.04, "Hello.").line()
        '[00:01:01.50 - 01:01:12.04] Hello.\\n'
        """
        return f"[{clock_time(self.start)} - {clock_time(self.end)}] {self.text}\n"


def clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds * 100), 6000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest / 100:05.2f}"


class Listener:
    """A model that writes what is said in a sound and knows tokens for times: Whisper.

    A window of thirty seconds is heard at a time; the next begins where the last whole phrase ended, so that words at
    the border are neither lost nor written twice (Radford et al. 2022, arXiv:2212.04356, section 4.5). Beyond the
    paper, a border that lies in speech is moved to a pause near it; and what was said before is not told to the decoder
    again, so that a mistake does not spread.

    Args:
        read, written: the names of its input and output.
    """

    def __init__(
        self, columns: Mapping[str, Column], model: Model, device: torch.device, clock: Clock, read: str, written: str
    ) -> None:
        sound, text, head = columns[read], columns[written], model.head(written)
        assert isinstance(sound, Audio)
        assert isinstance(text, Text)
        assert isinstance(head, TextHead)
        assert isinstance(head.decoder, TransformerDecoder)
        self.model, self.device, self.clock, self.read, self.written = model, device, clock, read, written
        self.sound, self.text, self.head, self.decoder = sound, text, head, head.decoder

    def is_long(self, cell: Any, locate: Locate) -> bool:
        """Whether a sound is longer than one window; False where that cannot be told."""
        try:
            return seconds_of(cell, locate, self.sound.rate, LONGEST) > self.sound.most / self.sound.rate + SLACK
        except Exception:  # decoders raise nearly anything; whoever reads the sound tells of it
            return False

    def samples(self, cell: Any, locate: Locate) -> NDArray[np.int16]:
        """All of a sound.

        Raises:
            ValueError: it cannot be read; why, in words.
        """
        try:
            return read_sound(cell, locate, self.sound.rate, most=None, max_seconds=LONGEST).samples
        except Exception as error:  # decoders raise nearly anything
            raise ValueError(describe_failure(error)) from error

    def segments(self, samples: NDArray[np.int16], settings: Search | None = None) -> Iterator[Segment]:
        """What is said, as it is heard."""
        rate, start = self.sound.rate, 0
        while start < len(samples):
            window = samples[start : start + self.sound.most]
            phrases, reached = self.phrases(window, settings or self.head.search)
            moved = round(reached * rate)
            moved = pause_near(window, moved, rate) if moved < len(window) else moved
            moved = moved if moved >= rate * STEP else len(window)
            for phrase in phrases:
                text = str(self.text.restore(torch.tensor([phrase.tokens]))[0]).strip()
                if text:
                    begun, ended = (start / rate + min(place, moved / rate) for place in (phrase.start, phrase.end))
                    yield Segment(round(begun, 2), round(ended, 2), text)
            start += moved

    def phrases(self, window: NDArray[np.int16], settings: Search) -> tuple[list[Phrase], float]:
        """Those of one window, and up to which second it has been understood."""
        span = len(window) / self.sound.rate
        if window.min() == window.max():  # nothing at all, of which a model may yet make words
            return [], span
        heard = self.hear(window, settings)
        return ([], span) if silent(heard) else phrases_of(heard.tokens, self.clock, span)

    @torch.inference_mode()
    def hear(self, window: NDArray[np.int16], settings: Search) -> Heard:
        """One window, again with some chance where what was heard is unlikely or repeats itself."""
        values = torch.from_numpy(np.ascontiguousarray(window))[None].to(self.device)
        batch = Batch(
            {self.read: ColumnBatch(values, torch.ones_like(values, dtype=torch.bool))},
            torch.zeros(1, dtype=torch.int64, device=self.device),
        )
        self.model.eval()
        encoding = self.model.encode(batch)
        first = heard = hear(self.decoder, encoding, self.clock, settings)
        for temperature in TEMPERATURES if settings.temperature == 0 else ():
            if silent(heard) or (heard.confidence >= UNSURE and not self.repeats(heard)):
                return heard
            bold = Search(temperature=temperature, seed=settings.seed, most=settings.most)
            heard = hear(self.decoder, encoding, self.clock, bold)
        return first if heard.confidence < UNSURE else heard

    def repeats(self, heard: Heard) -> bool:
        words = [token for token in heard.tokens if token < self.clock.first]
        text = str(self.text.restore(torch.tensor([words]))[0]).encode() if words else b""
        return bool(text) and len(text) / len(zlib.compress(text)) > REPETITIVE


def pause_near(samples: NDArray[np.int16], place: int, rate: int) -> int:
    """The quietest moment near a place that is to lie between two phrases, where that is far quieter than the place
    itself: the times that a model writes may be some tenths of a second beside the pause that they mean.

    >>> speech = np.full(3000, 9, np.int16)
    >>> speech[1200:1400] = 0
    >>> pause_near(speech, 1500, 1000), pause_near(speech, 1300, 1000), pause_near(speech, 2500, 1000)
    (1370, 1300, 2500)
    """
    reach, frame = round(PAUSE_WITHIN * rate), max(1, round(PAUSE * rate))
    begin, end = max(0, place - reach), min(len(samples), place + reach)
    sums = np.concatenate([[0.0], samples[begin:end].astype(np.float64) ** 2]).cumsum()
    if len(sums) <= frame + 1:
        return place
    power = (sums[frame:] - sums[:-frame]) / frame
    places = begin + frame // 2 + np.arange(len(power))
    here = power[np.abs(places - place).argmin()]
    quiet = np.flatnonzero(power <= power.min() + 0.01 * here)
    best = quiet[np.abs(places[quiet] - place).argmin()]
    return int(places[best]) if power[best] < QUIETER * here else place


def silent(heard: Heard) -> bool:
    return heard.silence > SILENT and heard.confidence < UNSURE


def recordings(
    listener: Listener, table: Table, rows: Sequence[int], problems: Sequence[Problem]
) -> tuple[dict[int, list[Segment]], list[Problem]]:
    """What is said in these rows of a table, and the problems as they now are: that a sound is too long for one window
    no longer counts, that it cannot be read does."""
    said, told = dict[int, list[Segment]](), list[Problem]()
    cells = table[listener.read]
    for row in rows:
        if (cell := cells[row].as_py()) is None:
            continue
        try:
            said[row] = list(listener.segments(listener.samples(cell, table.locate)))
        except ValueError as error:
            place = listener.sound.place(cell, table.locate) or table.where(row)
            told.append(Problem(row, listener.read, place, str(error)))
    lost = {problem.row for problem in told}
    kept = [
        one for one in problems if one.row not in lost and (one.row not in said or "cut to the first" not in one.reason)
    ]
    return said, [replace(one, fatal=one.fatal and one.row not in said) for one in kept] + told


def listener_of(columns: Mapping[str, Column], model: Model, device: torch.device) -> Listener | None:
    """The model as a listener; None where it does not write what is said in a sound, or knows nothing of times."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        return None
    read, written = model.inputs[0], model.outputs[0]
    sound, text, head = columns[read], columns[written], model.head(written)
    if not (isinstance(sound, Audio) and sound.features == "whisper" and isinstance(text, Text)):
        return None
    if not (isinstance(head, TextHead) and isinstance(head.decoder, TransformerDecoder)):
        return None
    clock = clock_of(text)
    return None if clock is None else Listener(columns, model, device, clock, read, written)


def clock_of(text: Text) -> Clock | None:
    """The tokens of times of a published vocabulary, where it has them."""
    codec = text.codec
    if not isinstance(codec, Published) or (mark := codec.library.token_to_id(MARK)) is None:
        return None
    end, rows = codec.facts.special[END], codec.facts.rows
    if rows <= mark + 1:
        return None
    named = (codec.library.token_to_id(name) for name in SILENCE)
    silence = next((codec.own_id(token) for token in named if token is not None), None)
    added = codec.library.get_added_tokens_decoder()
    others = {codec.own_id(token) for token, told in added.items() if told.special and token <= mark and token != end}
    for sign in (*UNSPOKEN, *(f" {sign}" for sign in UNSPOKEN)):
        ids = codec.encode([sign])[0].tolist()
        others |= set(ids) if len(ids) == 1 and ids[0] != UNKNOWN else set()
    lead = tuple(token for token in codec.lead if token != codec.own_id(mark))
    return Clock(codec.own_id(mark + 1), codec.own_id(rows - 1), STEP, lead, tuple(sorted(others)), silence)
