"""A text, written token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from ..columns import Column
from ..columns.text import Text
from ..columns.vocabulary import PAD
from ..errors import UsageError
from ..models.encoding import Encoder, Encoding
from .decoders import CTC, DECODERS, Decoder, Forced
from .head import Head
from .search import Search

__all__ = ["TextHead"]


class TextHead(Head):
    """A decoder, and the way in which texts are found with it.

    With an input that is translation, transcription or a summary; without one, a language model. Prediction: scores of
    each token [B, T, V], or (ctc) of each step of the input; target [B, T] int64, ended by END, then PAD. Each token
    counts the same, whichever text it stands in.
    """

    reads = "tokens"
    higher = False

    def __init__(
        self,
        width: int,
        column: Column,
        *,
        decoder: Any = None,
        search: Annotated[Search, Field(description="how texts are found")] = Search(),  # noqa: B008
    ) -> None:
        super().__init__()
        assert isinstance(column, Text)
        length = column.spec().shape[0]
        name, settings = ("transformer", {}) if decoder is None else (decoder.name, decoder.keywords())
        lead = column.lead()
        self.decoder: Decoder = DECODERS[name](width, column.spec().vocabulary, length + len(lead), **settings)
        self.forced, self.goal = self.decoder.forced, self.decoder.goal  # type: ignore[misc]
        if isinstance(self.decoder, CTC) and search != Search(most=search.most):
            raise UsageError(
                "ctc takes the likeliest token of each step and has nothing to search",
                place="search",
                mend="Leave it out, or take the transformer decoder.",
            )
        self.search, self.most = search, search.most or length
        if isinstance(self.decoder, Forced) and (token_bytes := column.token_bytes()) is not None:
            self.decoder.count_bytes(torch.tensor(token_bytes, dtype=torch.float32))
        if isinstance(self.decoder, Forced):
            self.decoder.follow(column.absent(), lead)

    def meet(self, encoders: Sequence[Encoder]) -> None:
        """Raises UsageError where there is no one row of steps that a text could be aligned with."""
        if isinstance(self.decoder, CTC) and len(encoders) != 1:
            raise UsageError(
                f"ctc aligns the text with the steps of one input, and there are {len(encoders)} inputs",
                place="decoder",
                mend="Take the transformer decoder, or leave the other inputs out.",
            )

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        out: Tensor = self.decoder(encoding, target)
        return out

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.decoder.loss(prediction, target)

    def row_weights(self, target: Tensor) -> Tensor | None:
        """The number of tokens that are predicted."""
        return (target > PAD).sum(1).float()

    def keep(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.decoder.keep(prediction, target)

    def answer(self, encoding: Encoding, prediction: Tensor | None = None, prompt: Tensor | None = None) -> Tensor:
        return self.decoder.write(encoding, self.search, self.most, prompt)

    def decode(self, prediction: Tensor, column: Column, *, probabilities: bool = False) -> dict[str, list[Any]]:
        return {"": column.restore(prediction)}

    def metrics(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, float]:
        if isinstance(self.decoder, CTC):
            return error_rates(as_texts(column.restore(prediction)), as_texts(column.restore(target)))
        loss, right, tokens, bytes_ = prediction.double().sum(0).tolist()
        out = {"perplexity": math.exp(min(loss / max(tokens, 1), 700)), "token_accuracy": right / max(tokens, 1)}
        return out | ({"bits_per_byte": loss / math.log(2) / bytes_} if bytes_ else {})

    def answer_metrics(self, answers: list[Any], truth: list[Any]) -> dict[str, float]:
        exact = sum(said == true for said, true in zip(answers, truth, strict=True)) / max(1, len(truth))
        answers, truth = as_texts(answers), as_texts(truth)
        near = {} if isinstance(self.decoder, CTC) else overlap(answers, truth)  # of what is heard, only errors count
        return {"exact": exact, **near, **error_rates(answers, truth)}


def as_texts(cells: list[Any]) -> list[str]:
    """Cells that are lists of words as texts with spaces."""
    return [" ".join(cell) if isinstance(cell, list) else cell for cell in cells]


def overlap(answers: list[str], truth: list[str]) -> dict[str, float]:
    """BLEU and chrF by sacreBLEU (Post 2018); texts without spaces between words are cut into characters."""
    from sacrebleu import corpus_bleu, corpus_chrf

    characters = sum(map(len, truth))
    wide = sum(1 for text in truth for letter in text if "\u3040" <= letter <= "\u9fff")
    cut = "zh" if wide > 0.3 * max(1, characters) else "13a"
    return {
        "bleu": float(corpus_bleu(answers, [truth], tokenize=cut).score),
        "chrf": float(corpus_chrf(answers, [truth]).score),
    }


def error_rates(answers: list[str], truth: list[str]) -> dict[str, float]:
    """Errors in words and in characters by jiwer, as shares of the true ones. Empty true texts count all that is said.

    >>> error_rates(["a cat"], ["a hat"])
    {'wer': 0.5, 'cer': 0.2}
    """
    from jiwer import process_characters, process_words

    some = [(said, true) for said, true in zip(answers, truth, strict=True) if true.strip()]
    spurious = [said for said, true in zip(answers, truth, strict=True) if not true.strip()]
    if not some:
        return {}
    out = {}
    for name, process, count in (
        ("wer", process_words, lambda text: len(text.split())),
        ("cer", process_characters, len),
    ):
        done = process([true for _, true in some], [said for said, _ in some])
        errors = done.substitutions + done.deletions + done.insertions + sum(map(count, spurious))
        out[name] = errors / max(1, done.substitutions + done.deletions + done.hits)
    return out
