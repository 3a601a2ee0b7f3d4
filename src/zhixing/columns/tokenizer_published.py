"""A tokenizer that comes with published weights: its own pieces, under this project's ids."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, MissingExtraError, RunError
from .tokenizer_plain import Ids, Plan, Tokenizer
from .tokenizer_subword import library_of
from .vocabulary import SPECIAL, UNKNOWN

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

__all__ = ["Facts", "Pieces", "Published"]

FIRST = len(SPECIAL)
NONE = -1  # there is no such token among theirs


class Facts(NamedTuple):
    """What is known of a published tokenizer beside its pieces; all ids are its own.

    ``special`` are those of padding, unknown, begin and end, -1 where it has none; one id may serve as two of them.
    ``rows`` is how many vectors the weights hold, which may be more than there are pieces. ``begins`` and ``ends`` say
    what surrounds a text that is read, ``lead`` what stands between begin and a text that is written. ``most`` is the
    most tokens of a text, None where there is no limit.
    """

    special: tuple[int, int, int, int]
    rows: int
    begins: bool = False
    ends: bool = False
    lead: tuple[int, ...] = ()
    most: int | None = None

    def order(self) -> NDArray[np.int64]:
        """Their id of each of ours, -1 where they have none: the four special ones, then all others in their order.

        >>> Facts((2, -1, 0, 0), 4).order().tolist()
        [2, -1, 0, 0, 1, 3]
        """
        others = [token for token in range(self.rows) if token not in self.special]
        return np.array([*self.special, *others], np.int64)


class Tokens(NamedTuple):
    """What :class:`Pieces` makes of a text."""

    ids: list[int]


class Pieces:
    """A SentencePiece model whose pieces are numbered by a table of their own, as Marian's are: all that
    :class:`Published` asks of a library. What a text begins with is one piece where it is the name of a language, such
    as ``>>fr<<``, that the table knows.

    Raises:
        ValueError: the model, or the table, is damaged.
    """

    encode_special_tokens = True

    def __init__(self, model: bytes, numbers: Mapping[str, int]) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise MissingExtraError("sentencepiece", "text", purpose="this tokenizer") from None
        whole = all(isinstance(number, int) and number >= 0 for number in numbers.values())
        if not whole or len(set(numbers.values())) < len(numbers) or not {"</s>", "<unk>"} <= numbers.keys():
            raise ValueError("its table is none of pieces and numbers, or lacks </s> or <unk>")
        self.model, self.numbers = model, dict(numbers)
        self.names = {number: piece for piece, number in numbers.items()}
        try:
            self.processor: Any = SentencePieceProcessor(model_proto=model)
            known = self.processor.get_piece_size()
        except RuntimeError as error:
            raise ValueError(f"no SentencePiece model: {error}") from error
        if not known:
            raise ValueError("a SentencePiece model without pieces")

    def no_truncation(self) -> None:
        """Nothing is ever cut."""

    def no_padding(self) -> None:
        """Nothing is ever padded."""

    def to_str(self) -> str:
        return json.dumps({"model": base64.b64encode(self.model).decode(), "numbers": self.numbers})

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        try:
            return cls(base64.b64decode(state["model"]), state["numbers"])
        except ValueError as error:
            raise RunError(f"a tokenizer cannot be read back: {error}") from error

    def get_vocab_size(self) -> int:
        return max(self.names) + 1

    def token_to_id(self, piece: str) -> int | None:
        return self.numbers.get(piece)

    def id_to_token(self, number: int) -> str | None:
        return self.names.get(number)

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        return {}

    def encode(self, text: str) -> Tokens:
        """A text as it is read, with its end."""
        return Tokens([*self.encode_batch_fast([text])[0].ids, self.numbers["</s>"]])

    def encode_batch_fast(self, texts: list[str], *, add_special_tokens: bool = False) -> list[Tokens]:
        assert not add_special_tokens
        leads = [self.language(text) for text in texts]
        rest = [text[len(lead) :] for text, lead in zip(texts, leads, strict=True)]
        unknown = self.numbers["<unk>"]
        return [
            Tokens([self.numbers.get(piece, unknown) for piece in ([lead, *pieces] if lead else pieces)])
            for lead, pieces in zip(leads, self.processor.encode(rest, out_type=str, num_threads=1), strict=True)
        ]

    def language(self, text: str) -> str:
        """The name of a language that a text begins with; empty if none."""
        name = text[: text.find("<<") + 2] if text.startswith(">>") and "<<" in text else ""
        return name if name in self.numbers else ""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        text = str(self.processor.decode_pieces([self.names[number] for number in ids if number in self.names]))
        return text.replace("▁", " ").strip()


class Published(Tokenizer):
    """The pieces of a file ``tokenizer.json`` or its like, with ids in another order: 0 to 3 are padding, unknown,
    begin and end, as everywhere here.

    A text that spells the name of a special token is taken for text. Nothing is learned from training texts.
    """

    def __init__(self, library: Library | Pieces, facts: Facts) -> None:
        self.facts = facts
        self.order = facts.order()
        self.size = len(self.order)
        self.lead = tuple(self.own_id(token) for token in facts.lead)
        self.most, self.frame = facts.most, (facts.begins, facts.ends)
        library.no_truncation()
        library.no_padding()
        self.spelled = library.to_str()  # what comes now is no part of the file's form
        library.encode_special_tokens = True
        self.library = library
        self.ours = np.full(max(facts.rows, library.get_vocab_size()), UNKNOWN, np.int32)
        self.ours[self.order[FIRST:]] = np.arange(FIRST, self.size)
        self.pieces = [library.id_to_token(int(token)) if token != NONE else None for token in self.order]

    def own_id(self, token: int) -> int:
        """Our id of one of theirs."""
        return int(np.flatnonzero(self.order == token)[0])

    def absent(self) -> list[int]:
        """Our ids that the published model does not know, or knows as another one: it never gives them."""
        special = self.facts.special
        return [token for token in range(FIRST) if special[token] == NONE or special[token] in special[token + 1 :]]

    @classmethod
    def train(cls, texts: Sequence[str], plan: Plan) -> Self:
        raise DataError(
            "a published tokenizer comes with published weights and is not learned",
            place="a column of type text",
            mend="Name the model's folder as the encoder or decoder, or choose another tokenizer.",
        )

    def encode(self, texts: Sequence[str]) -> Ids:
        done = [found.ids for found in self.library.encode_batch_fast(list(texts), add_special_tokens=False)]
        lengths = np.fromiter(map(len, done), np.int64, len(done))
        theirs = np.fromiter((token for row in done for token in row), np.int64, int(lengths.sum()))
        return self.ours[theirs], lengths

    def decode(self, ids: Sequence[int]) -> str:
        theirs = [int(self.order[token]) for token in ids if token >= FIRST]
        return self.library.decode(theirs, skip_special_tokens=True)

    def piece(self, token: int) -> str:
        return self.pieces[token] or f"[{token}]"

    def bytes_of_pieces(self) -> list[int] | None:
        """Known of byte-level pieces alone, where each byte is spelled as one letter."""
        if '"ByteLevel"' not in json.dumps(json.loads(self.spelled).get("decoder")):
            return None
        return [0] * FIRST + [len(piece or "") for piece in self.pieces[FIRST:]]

    def state(self) -> dict[str, Any]:
        form = "pieces" if isinstance(self.library, Pieces) else "json"
        return {form: json.loads(self.spelled), "facts": self.facts._asdict()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        facts = state["facts"]
        special, lead = tuple(map(int, facts["special"])), tuple(map(int, facts["lead"]))
        assert len(special) == FIRST
        library = Pieces.from_json(state["pieces"]) if "pieces" in state else library_of(state["json"])
        return cls(library, Facts(**{**facts, "special": special, "lead": lead}))
