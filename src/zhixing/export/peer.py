"""What transformers says of rows, read from what was written, beside what the run says.

Shape legend: B rows, T tokens, S steps of the input, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..columns.vocabulary import BEGIN, PAD
from ..data.batches import Batch, Batches
from ..explain.rows import Rows
from ..heads import TagsHead, TextHead
from ..heads.decoder import Forced, shifted
from ..heads.decoder_transformer import TransformerDecoder, begun
from ..heads.objective import pair_of
from ..heads.search import Search
from ..model import Model
from ..models.encoding import Encoding
from .answers import largest
from .published import Body

__all__ = ["compare", "opened"]

ROWS = 8  # of a batch
WRITTEN = 16  # tokens that are written where a row holds no text


def opened(folder: Path, kind: str) -> Any:
    """The folder as this class of transformers reads it, in float32."""
    import transformers

    told: Any = transformers.logging
    told.disable_progress_bar()
    told.set_verbosity_error()
    return getattr(transformers, kind).from_pretrained(str(folder), dtype=torch.float32).eval()


def compare(body: Body, model: Model, rows: Rows, theirs: Any) -> dict[str, float]:
    """The largest difference of probabilities, or of tokens where nothing is said of them."""
    source, found = Batches(rows.tensors, torch.device("cpu")), 0.0
    with torch.inference_mode():
        for start in range(0, len(rows.rows), ROWS):
            batch = source.gather(rows.rows[start : start + ROWS])
            ask = written if "decoder" in body.modules else read
            ours, got = ask(body, model, batch, theirs)
            found = max(found, largest(ours.double() - got.double()))
    return {body.name: found}


def read(body: Body, model: Model, batch: Batch, theirs: Any) -> tuple[Tensor, Tensor]:
    """What our encoder and theirs make of a batch: answers, where the head is written too, else tokens."""
    seen, mask = stemmed(body, model, batch)
    encoding = body.modules["encoder"](seen, mask)
    given = inputs_of(body, seen, mask)
    if body.ending is not None:
        (linear,) = body.linears.values()
        logits, got = linear(encoding.pooled), theirs(**given).logits
        if isinstance(model.head(model.outputs[0]), TagsHead):
            return logits.sigmoid(), got.sigmoid()
        return logits.softmax(-1), got.softmax(-1)
    whole = theirs.get_encoder() if theirs.config.is_encoder_decoder else theirs
    got = whole(**given).last_hidden_state
    if got.ndim == 4:  # a map of features
        got = got.flatten(2).transpose(1, 2)
    tokens = encoding.tokens
    got = got[:, -tokens.shape[1] :]  # behind a class token
    real = encoding.real
    return tokens[real], got[real]


def stemmed(body: Body, model: Model, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """What the encoder takes."""
    name = body.columns["encoder"]
    seen: tuple[Tensor, Tensor | None] = model.stems[model.inputs.index(name)](*batch.columns[name])
    return seen


def inputs_of(body: Body, seen: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """The same as their model takes it."""
    reads = body.published.layout.reads
    if reads == "text":
        assert mask is not None
        return {"input_ids": their_ids(body, seen), "attention_mask": mask.long()}
    return {"pixel_values": seen} if reads == "image" else {"input_features": seen.transpose(1, 2)}


def their_ids(body: Body, tokens: Tensor) -> Tensor:
    order = body.published.layout.order
    assert order is not None
    return torch.from_numpy(order)[tokens].clamp(min=0)


def written(body: Body, model: Model, batch: Batch, theirs: Any) -> tuple[Tensor, Tensor]:
    """The probabilities [N, V] that ours and theirs give to each token of the texts: those of the rows, or what the
    model writes of them."""
    head, encoding = cast(TextHead, model.head(body.name)), model.encode(batch)
    decoder = cast(TransformerDecoder, body.modules["decoder"])
    if body.name in batch.columns:
        target = batch.columns[body.name].values
        target = pair_of(target)[0] if head.objective.pairs else target
    else:
        target = decoder.write(encoding, Search(), min(WRITTEN, head.most))
    scores = decoder(encoding, target)
    if "encoder" in body.modules:
        seen, mask = stemmed(body, model, batch)
        begun_with = their_ids(body, shifted(decoder.after_lead(target)))
        got = theirs(**inputs_of(body, seen, mask), decoder_input_ids=begun_with).logits[:, len(decoder.lead) :]
    else:
        got = torch.stack([torch.cat(list(gone_on(body, encoding, row, target, theirs))) for row in range(len(target))])
    return known(body, decoder, scores[target != PAD], got[target != PAD])


def gone_on(body: Body, encoding: Encoding, row: int, target: Tensor, theirs: Any) -> Iterator[Tensor]:
    """Their scores [T', V] of one row of texts, text by text, or behind its prompt."""
    if encoding.ids is not None:
        prompt = begun(encoding.ids[row : row + 1])[0]
        prompt = prompt[prompt > PAD]
        whole = torch.cat([prompt, target[row, :-1].abs()])
        yield theirs(input_ids=their_ids(body, whole)[None]).logits[0, len(prompt) - 1 :]
        return
    whole = shifted(target[row : row + 1])[0]
    starts = [*(whole == BEGIN).nonzero()[:, 0].tolist(), len(whole)]
    for start, end in pairwise(starts):
        yield theirs(input_ids=their_ids(body, whole[start:end])[None]).logits[0]


def known(body: Body, decoder: Forced, scores: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Chances [N, V'] of the tokens that both know, in our order."""
    order = body.published.layout.order
    assert order is not None
    place = torch.from_numpy(order)
    both = (place >= 0) & ~torch.isin(torch.arange(len(place)), decoder.absent)
    return scores[:, both].softmax(-1), theirs[:, place[both]].softmax(-1)
