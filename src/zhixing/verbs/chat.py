"""Chat: turns of a conversation as the tokens that a language model goes on from.

Templates are literal. What a model's own files say about it is a program (Jinja), and is not run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from ..columns.text import Text
from ..columns.tokenizer_published import Published
from ..columns.vocabulary import BEGIN
from ..errors import DataError, UsageError
from .generate import Piece, Plan, Writer

__all__ = ["TEMPLATES", "Chat", "Template", "Turn"]

Role = Literal["system", "user", "assistant"]
START, STOP = "<|im_start|>", "<|im_end|>"
AS_IT_IS = Plan()
NAMES = {"user": "User", "assistant": "Assistant"}


class Turn(NamedTuple):
    """What one side said."""

    role: Role
    text: str


class Template(NamedTuple):
    """How a conversation is spelled: the tokens of a turn, those that open the answer, and what else ends it."""

    turn: Callable[[Text, Turn], list[int]]
    opening: Callable[[Text], list[int]]
    stop: tuple[str, ...]
    fits: Callable[[Text], bool]


def tokens_of(column: Text, text: str) -> list[int]:
    """Tokens of a text as a user types it: the name of a special token in it is text like any other."""
    return [int(token) for token in column.codec.encode([text])[0]]


def special(column: Text, name: str) -> int | None:
    """The token that a published tokenizer knows by this name."""
    codec = column.fitted
    if not isinstance(codec, Published) or (own := codec.library.token_to_id(name)) is None:
        return None
    return codec.own_id(own)


def marks(column: Text) -> tuple[int, int]:
    start, stop = special(column, START), special(column, STOP)
    assert start is not None
    assert stop is not None
    return start, stop


def chatml_turn(column: Text, turn: Turn) -> list[int]:
    start, stop = marks(column)
    return [start, *tokens_of(column, f"{turn.role}\n{turn.text}"), stop, *tokens_of(column, "\n")]


def chatml_opening(column: Text) -> list[int]:
    return [marks(column)[0], *tokens_of(column, "assistant\n")]


def plain_turn(column: Text, turn: Turn) -> list[int]:
    return tokens_of(column, f"{turn.text}\n" if turn.role == "system" else f"{NAMES[turn.role]}: {turn.text}\n")


def plain_opening(column: Text) -> list[int]:
    return tokens_of(column, f"{NAMES['assistant']}:")


TEMPLATES: dict[str, Template] = {
    # As SmolLM2-Instruct and Qwen were tuned.
    "chatml": Template(
        chatml_turn, chatml_opening, (), lambda column: None not in (special(column, START), special(column, STOP))
    ),
    # For models that were not tuned to talk: a page on which two people do.
    "plain": Template(plain_turn, plain_opening, (f"\n{NAMES['user']}:",), lambda column: True),
}


class Chat:
    """A conversation with a language model, as long as its window; then the oldest turns are forgotten.

    Args:
        template: ``chatml`` or ``plain``; open: the first that the tokenizer knows.
        system: what is said before everything else and never forgotten; "": nothing.

    ``forgotten`` counts the turns that did not fit any more when the last answer was written.

    Raises:
        UsageError: the model is no language model, or does not know the template.
    """

    def __init__(self, writer: Writer, *, template: str | None = None, system: str = "") -> None:
        if writer.model.inputs:
            raise UsageError(
                "this model reads an input, so that it cannot go on from a conversation",
                mend="Take a language model: one with an output of type text and no input.",
            )
        self.writer = writer
        self.template = template or next(name for name, one in TEMPLATES.items() if one.fits(writer.column))
        if self.template not in TEMPLATES:
            raise UsageError(f"there is no template {self.template!r}", mend=f"Known: {', '.join(TEMPLATES)}.")
        if not TEMPLATES[self.template].fits(writer.column):
            raise UsageError(
                f"the tokenizer has no {START} and {STOP}, which the template chatml is made of",
                mend="Take the template plain.",
            )
        self.system = [Turn("system", system)] if system else []
        self.turns: list[Turn] = []
        self.forgotten = 0
        lead = len(writer.column.lead())  # a beginning may fill half of what the model reads, this included
        self.window = (writer.column.spec().shape[0] + lead) // 2 - lead

    def say(self, text: str, plan: Plan = AS_IT_IS) -> Iterator[Piece]:
        """Pieces of the answer; it is part of the conversation once they are read to the end.

        Raises:
            DataError: what was said is longer than the window by itself.
        """
        told = Turn("user", text)
        ids, forgotten = self.prompt([*self.turns, told])
        plan = Plan(plan.search, (*plan.stop, *TEMPLATES[self.template].stop))
        return self.answer(told, self.writer.go_on(ids, plan), forgotten)

    def answer(self, told: Turn, pieces: Iterator[Piece], forgotten: int) -> Iterator[Piece]:
        said = ""
        for piece in pieces:
            said += piece.text
            yield piece
        self.turns += [told, Turn("assistant", said.strip())]
        del self.turns[:forgotten]
        self.forgotten += forgotten

    def prompt(self, turns: Sequence[Turn]) -> tuple[list[int], int]:
        """The tokens of the last of these turns that fit into the window, and how many were left out. What is left
        begins with what a user said."""
        template, column = TEMPLATES[self.template], self.writer.column
        head = [token for turn in self.system for token in template.turn(column, turn)]
        bodies = [template.turn(column, turn) for turn in turns]
        opening = template.opening(column)
        for dropped in range(0, len(turns), 2):
            ids = [*head, *(token for body in bodies[dropped:] for token in body), *opening]
            ids = ids[1:] if ids[0] == BEGIN else ids  # the decoder puts it there by itself
            if len(ids) <= self.window:
                return ids, dropped
        raise DataError(
            f"this is {len(ids)} tokens with what stands around it, and the model's window takes {self.window}",
            mend="Say it in fewer words.",
        )
