"""How a conversation is spelled as tokens: literal templates, the same for training and for talking.

What a model's own files say about it is a program (Jinja), and is not run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import pyarrow as pa

from .tokenizer_plain import Tokenizer
from .tokenizer_published import Published
from .vocabulary import BEGIN

__all__ = ["TEMPLATES", "Role", "Template", "Turn", "fitting", "holds_turns", "spell", "turns_of"]

Role = Literal["system", "user", "assistant"]
START, STOP = "<|im_start|>", "<|im_end|>"
NAMES = {"user": "User", "assistant": "Assistant"}


class Turn(NamedTuple):
    """What one side said."""

    role: Role
    text: str


class Template(NamedTuple):
    """How a conversation is spelled: the tokens of a turn, those that open the answer, and what else ends it."""

    turn: Callable[[Tokenizer, Turn], list[int]]
    opening: Callable[[Tokenizer], list[int]]
    stop: tuple[str, ...]
    fits: Callable[[Tokenizer], bool]


def tokens_of(codec: Tokenizer, text: str) -> list[int]:
    """Tokens of a text as a user types it: the name of a special token in it is text like any other."""
    return [int(token) for token in codec.encode([text])[0]]


def special(codec: Tokenizer, name: str) -> int | None:
    """The token that a published tokenizer knows by this name."""
    if not isinstance(codec, Published) or (own := codec.library.token_to_id(name)) is None:
        return None
    return codec.own_id(own)


def marks(codec: Tokenizer) -> tuple[int, int]:
    start, stop = special(codec, START), special(codec, STOP)
    assert start is not None
    assert stop is not None
    return start, stop


def chatml_turn(codec: Tokenizer, turn: Turn) -> list[int]:
    start, stop = marks(codec)
    return [start, *tokens_of(codec, f"{turn.role}\n{turn.text}"), stop, *tokens_of(codec, "\n")]


def chatml_opening(codec: Tokenizer) -> list[int]:
    return [marks(codec)[0], *tokens_of(codec, "assistant\n")]


def plain_turn(codec: Tokenizer, turn: Turn) -> list[int]:
    return tokens_of(codec, f"{turn.text}\n" if turn.role == "system" else f"{NAMES[turn.role]}: {turn.text}\n")


def plain_opening(codec: Tokenizer) -> list[int]:
    return tokens_of(codec, f"{NAMES['assistant']}:")


TEMPLATES: dict[str, Template] = {
    # As SmolLM2-Instruct and Qwen were tuned.
    "chatml": Template(
        chatml_turn, chatml_opening, (), lambda codec: None not in (special(codec, START), special(codec, STOP))
    ),
    # For models that were not tuned to talk: a page on which two people do.
    "plain": Template(plain_turn, plain_opening, (f"\n{NAMES['user']}:",), lambda codec: True),
}


def fitting(codec: Tokenizer) -> str:
    """The first template that a tokenizer has the marks of."""
    return next(name for name, one in TEMPLATES.items() if one.fits(codec))


def spell(codec: Tokenizer, name: str, turns: Sequence[Turn], room: int) -> tuple[list[int], int]:
    """The tokens of a conversation up to where the answer begins, BEGIN first, and how many turns were left out.

    Where they are more than ``room``, the oldest turns go, two at a time, so that what is left begins with what a user
    said; what the system says before all turns stays. The last turn always stays, and may be too long by itself.
    """
    template = TEMPLATES[name]
    leading = next((place for place, turn in enumerate(turns) if turn.role != "system"), len(turns))
    head = [token for turn in turns[:leading] for token in template.turn(codec, turn)]
    bodies = [template.turn(codec, turn) for turn in turns[leading:]]
    opening, ids, dropped = template.opening(codec), list[int](), 0
    for dropped in range(0, max(1, len(bodies)), 2):
        ids = [*head, *(token for body in bodies[dropped:] for token in body), *opening]
        ids = ids if ids[0] == BEGIN else [BEGIN, *ids]
        if len(ids) <= room:
            break
    return ids, dropped


def spell_within(codec: Tokenizer, name: str, turns: Sequence[Turn], room: int) -> tuple[list[int], str]:
    """The same in no more than ``room`` tokens, and what was left out, in words; of a last turn that is too long by
    itself the beginning is kept.

    Raises:
        ValueError: there is not even room for what stands around a turn.
    """
    ids, dropped = spell(codec, name, turns, room)
    remark = f"the oldest {dropped} turns are left out" if dropped else ""
    whole, last = len(ids), turns[-1]
    while len(ids) > room:
        if not last.text:
            raise ValueError(f"{len(ids)} tokens stand around a turn, and there is room for {room}")
        remark = f"{whole} tokens as it is spelled, of which {room} are kept"
        last = Turn(last.role, last.text[: int(len(last.text) * 0.98 * room / len(ids))])
        ids, _ = spell(codec, name, [*turns[:-1], last], room)
    return ids, remark


def holds_turns(kind: pa.DataType) -> bool:
    """Whether cells are conversations: lists of ``{role, content}``."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    inner = kind.value_type
    return bool(pa.types.is_struct(inner)) and {field.name for field in inner} >= {"role", "content"}


def turns_of(cell: Any) -> list[Turn]:
    """What was said, of a cell: a text is a user's turn; a list of ``{role, content}`` a conversation that ends with
    one.

    Raises:
        ValueError: it is neither, or somebody else speaks last.

    >>> turns_of("Hello")
    [Turn(role='user', text='Hello')]
    """
    if isinstance(cell, str):
        return [Turn("user", cell)]
    turns, roles = list[Turn](), get_args(Role)
    for number, one in enumerate(cell):
        role, text = (one or {}).get("role"), (one or {}).get("content")
        if role not in roles:
            raise ValueError(f"turn {number} is of {role!r}, not of {', '.join(roles)}")
        if not isinstance(text, str):
            raise ValueError(f"turn {number} says nothing")
        turns.append(Turn(roles[roles.index(role)], text))
    if not turns or turns[-1].role != "user":
        raise ValueError("the last turn has to be the user's: the answer to it is what is written")
    return turns
