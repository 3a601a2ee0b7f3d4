"""A text, written token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor

from ..columns import Column
from ..columns.text import Text
from ..errors import UsageError
from ..models.encoding import Encoder, Encoding
from ..models.prompt import Prompt
from .decoders import CTC, DECODERS, Decoder, Forced, TransformerDecoder
from .head import Head
from .objective import DPO, OBJECTIVES, Likelihood, Objective
from .search import Search

__all__ = ["TextHead"]


class TextHead(Head):
    """A decoder, and the way in which texts are found with it.

    With an input that is translation, transcription or a summary; without one, a language model. Prediction: scores of
    each token [B, T, V], or (ctc) of each step of the input, or what the ``loss`` makes of them; target [B, T] int64,
    ended by END, then PAD.
    """

    reads = "tokens"
    higher = False

    def __init__(
        self,
        width: int,
        column: Column,
        *,
        decoder: Any = None,
        loss: Any = None,
        search: Annotated[Search, Field(description="how texts are found")] = Search(),  # noqa: B008
    ) -> None:
        super().__init__()
        assert isinstance(column, Text)
        length = column.spec().shape[0]
        name, settings = ("transformer", {}) if decoder is None else (decoder.name, decoder.keywords())
        lead = column.lead()
        self.decoder: Decoder = DECODERS[name](width, column.spec().vocabulary, length + len(lead), **settings)
        self.objective: Objective = DPO() if column.pairs else Likelihood()
        if loss is not None:
            self.objective = OBJECTIVES[loss.name](**loss.keywords())
        if self.objective.pairs and not column.pairs:
            raise UsageError(
                "it needs pairs of texts, of which one is preferred, and the column holds single ones",
                place="loss",
                mend="Name both columns: data.reshape={name: preference, chosen: …, rejected: …}.",
            )
        self.forced = self.decoder.forced  # type: ignore[misc]
        self.goal = self.objective.goal(self.decoder)  # type: ignore[misc]
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
        prompts = [encoder for encoder in encoders if isinstance(encoder, Prompt)]
        if self.objective.pairs and not prompts:
            raise UsageError(
                "what texts are preferred as answers to has to be an input that the decoder reads itself",
                place="loss",
                mend="Name a single input of type text, with encoder: prompt.",
            )
        if prompts and (len(encoders) > 1 or not isinstance(self.decoder, TransformerDecoder)):
            raise UsageError(
                "a prompt is read by a transformer decoder, as its only input",
                place="encoder: prompt",
                mend="Leave the other inputs out, or take another encoder.",
            )
        if prompts and isinstance(self.decoder, TransformerDecoder):
            self.decoder.make_room(prompts[0].most)

    def remember(self, *, shared: bool) -> None:
        """Note the weights that training starts from, where the loss compares with them; ``shared``: they will stay."""
        self.objective.remember(self.decoder, shared=shared)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.objective.moved(fn)
        return self

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        return self.objective.predict(self.decoder, encoding, target)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.objective.loss(self.decoder, prediction, target)

    def row_weights(self, target: Tensor) -> Tensor | None:
        return self.objective.row_weights(target)

    def keep(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.objective.keep(self.decoder, prediction, target)

    def answer(self, encoding: Encoding, prediction: Tensor | None = None, prompt: Tensor | None = None) -> Tensor:
        return self.decoder.write(encoding, self.search, self.most, prompt)

    def decode(self, prediction: Tensor, column: Column, *, probabilities: bool = False) -> dict[str, list[Any]]:
        return {"": column.restore(prediction)}

    def metrics(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, float]:
        if isinstance(self.decoder, CTC):
            return error_rates(as_texts(column.restore(prediction)), as_texts(column.restore(target)))
        return self.objective.metrics(prediction)

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
