"""Chat: turns of a conversation as the tokens that a language model goes on from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..columns.template import START, STOP, TEMPLATES, Turn, fitting, spell
from ..columns.text import Text
from ..errors import DataError, UsageError
from ..layers.positions import Learned
from .generate import MOST, Piece, Plan, Writer

__all__ = ["TEMPLATES", "Chat", "Turn"]

AS_IT_IS = Plan()


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
        asked = writer.prompted
        if writer.model.inputs and asked is None:
            raise UsageError(
                "this model reads an input, so that it cannot go on from a conversation",
                mend="Take a language model: one that writes text, without an input or with encoder: prompt.",
            )
        self.writer, codec = writer, writer.column.codec
        self.template = template or (asked and asked.spelling) or fitting(codec)
        if self.template not in TEMPLATES:
            raise UsageError(f"there is no template {self.template!r}", mend=f"Known: {', '.join(TEMPLATES)}.")
        if not TEMPLATES[self.template].fits(codec):
            raise UsageError(
                f"the tokenizer has no {START} and {STOP}, which the template chatml is made of",
                mend="Take the template plain.",
            )
        self.system = [Turn("system", system)] if system else []
        self.turns: list[Turn] = []
        self.forgotten = 0
        self.window = window_of(writer.column) if asked is None else window_after(writer, asked)

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
        ids, dropped = spell(self.writer.column.codec, self.template, [*self.system, *turns], self.window + 1)
        if len(ids) - 1 <= self.window:
            return ids[1:], dropped  # the decoder puts BEGIN there by itself
        raise DataError(
            f"this is {len(ids) - 1} tokens with what stands around it, and the model's window takes {self.window}",
            mend="Say it in fewer words.",
        )


def window_after(writer: Writer, prompts: Text) -> int:
    """The same of a model whose decoder reads prompts itself, BEGIN not counted: half of what its weights were made
    for, and where each place has a vector of its own, no more than the prompts that it was trained with."""
    own, known = prompts.spec().shape[0] - 1, min(writer.column.codec.most or 0, MOST) // 2
    learned = any(isinstance(module, Learned) for module in writer.decoder.modules())
    return own if learned else max(own, known)


def window_of(column: Text) -> int:
    """The tokens of a conversation that a language model goes on from: a beginning may fill half of what it reads, what
    stands before each text included."""
    lead = len(column.lead())
    return (column.spec().shape[0] + lead) // 2 - lead
