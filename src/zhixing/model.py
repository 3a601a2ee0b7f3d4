"""The model: an encoder for each input column, a fusion, a head for each output column."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .columns import Column
from .columns.column import Stem
from .columns.image import Standardise
from .data.batches import Batch, ColumnBatch
from .fusion import Fusion
from .heads import Head
from .models.encoding import Encoder, Encoding
from .models.mlp import MLP
from .pretraining import PretextHead

__all__ = ["Model"]


class Model(nn.Module):
    """Encode, fuse, predict.

    ``stems`` bring stored tensors to what encoders take (they hold the columns' statistics, so that these travel with
    the weights). ``importance`` says how much each output's loss counts.

    Example::

        prediction = model(batch)                 # {"label": [B, C]}
        loss = model.loss(model.weigh(batch))     # a scalar
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        encoders: Mapping[str, Encoder],
        fusion: Fusion,
        heads: Mapping[str, Head],
        importance: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = list(encoders), list(heads)
        self.stems = nn.ModuleList(columns[name].stem() for name in encoders)
        self.encoders = nn.ModuleList(encoders.values())
        self.fusion = fusion
        self.passes = len(encoders) == 1 and not len(fusion.layers)  # nothing to join and nothing after it
        self.forced = any(head.forced for head in heads.values())
        self.pretext = next(((name, head) for name, head in heads.items() if isinstance(head, PretextHead)), None)
        self.heads = nn.ModuleList(heads.values())
        self.even: dict[tuple[str, int, torch.device], Tensor] = {}
        # Plain Python beside the registered modules: looking a module up through them takes longer than a small layer.
        self.head_of = dict(heads)
        self.readers = [
            (name, None if hands_on(stem, encoder) else (stem, encoder))
            for name, stem, encoder in zip(self.inputs, self.stems, self.encoders, strict=True)
        ]
        self.importance = {name: (importance or {}).get(name, 1.0) for name in heads}

    def head(self, name: str) -> Head:
        return self.head_of[name]

    def encode(self, batch: Batch) -> Encoding:
        if not self.readers:  # nothing to read: a language model
            return blank_encoding(len(batch), batch.rows.device)
        encodings = []
        for name, reader in self.readers:
            values, mask = batch.columns[name]
            if reader is None:  # in a table of hundreds of numbers, modules that do nothing would take most of a step
                encodings.append(Encoding(values, values.unsqueeze(1)))
            else:
                stem, encoder = reader
                if self.pretext is not None and self.pretext[0] in batch.columns:
                    encodings.append(self.question(*self.pretext, batch.columns[name], stem, encoder, batch))
                else:
                    encodings.append(encoder(*stem(values, mask)))
        if self.passes:
            return encodings[0]
        out: Encoding = self.fusion(encodings)
        return out

    def question(
        self, name: str, head: PretextHead, given: ColumnBatch, stem: nn.Module, encoder: nn.Module, batch: Batch
    ) -> Encoding:
        """Where a model learns without labels: what the encoder makes of what the head asks of the input."""
        values, mask, asked = head.ask(stem, given, batch.columns[name], batch.draw)
        encoding: Encoding = encoder(values, mask)
        return encoding._replace(asked=asked)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The prediction of each output; heads that predict token after token need its target in the batch."""
        encoding = self.encode(batch)
        return {name: self.predict(name, encoding, batch) for name in self.outputs}

    def predict(self, name: str, encoding: Encoding, batch: Batch) -> Tensor:
        head = self.head_of[name]
        out: Tensor = head(encoding, batch.columns[name].values) if head.forced else head(encoding)
        return out

    def weigh(self, batch: Batch) -> Batch:
        """Say what each row of a whole batch counts for in each output's loss.

        The weights of an output add up to its importance over the batch. A batch may be cut into parts afterwards: the
        sum of the parts' losses is the loss of the whole, whatever the classes' weights and the parts' sizes.

        Weights are [B], and [B, 2] where rows are blended: of the row itself and of the one that was blended in.
        """
        for name in self.outputs:
            weight = self.target_weights(name, batch.columns[name])
            if batch.share is not None:
                other = self.target_weights(name, batch.blends[name])
                own, blended = (1.0 if one is None else one for one in (weight, other))
                weight = torch.stack([batch.share * own, (1 - batch.share) * blended], dim=1)
            if weight is None:
                weight = self.even_weights(name, len(batch), batch.rows.device)
            else:
                total = weight.sum()
                weight = weight * (self.importance[name] / torch.where(total > 0, total, 1.0))
            batch.weights[name] = weight
        return batch

    def even_weights(self, name: str, rows: int, device: torch.device) -> Tensor:
        """Weights of a batch in which every row counts the same; kept, since an epoch has two sizes of batch."""
        key = (name, rows, device)
        if key not in self.even:
            self.even[key] = torch.full((rows,), self.importance[name] / rows, device=device)
        return self.even[key]

    def target_weights(self, name: str, column: ColumnBatch) -> Tensor | None:
        """What each row counts for beside the others, [B]: nothing where the target is missing; None: all the same."""
        target, present = column
        weight = self.head(name).row_weights(target)
        if present is not None and present.ndim > 1:
            present = present.any(1)
        if present is None or weight is None:
            return weight if present is None else present.float()
        return weight * present

    def loss(self, batch: Batch) -> Tensor:
        """The weighted loss of a batch, or of a part of one, that :meth:`weigh` has seen."""
        predictions = self.forward(batch)
        parts = []
        for name in self.outputs:
            rows, weights = self.target_losses(batch, name, predictions[name]), batch.weights[name]
            if rows.dtype != weights.dtype:
                weights = weights.to(rows.dtype)
            if rows.ndim > 1:
                rows, weights = rows.flatten(), weights.flatten()
            # torch.dot keeps float32 under autocast, which a matrix product would not.
            parts.append(torch.dot(rows, weights))
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum()

    def channels_last(self) -> Model:
        """Keep pictures as [B, H, W, C] in memory, which convolutions run faster on; shapes stay as they are."""
        if any(isinstance(module, nn.Conv2d) for module in self.modules()):
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for stem in self.stems:
                if isinstance(stem, Standardise):
                    stem.memory_format = torch.channels_last
        return self

    def target_losses(self, batch: Batch, name: str, prediction: Tensor) -> Tensor:
        """The loss of each row in one output in float32 or wider, in the shape of its weights."""
        head = self.head(name)
        wide = prediction.float() if prediction.dtype in (torch.bfloat16, torch.float16) else prediction
        rows = head.loss(wide, batch.columns[name].values)
        if batch.share is None:
            return rows
        return torch.stack([rows, head.loss(wide, batch.blends[name].values)], dim=1)


def hands_on(stem: nn.Module, encoder: nn.Module) -> bool:
    """Whether stem and encoder give stored values [B, F] as they are: a perceptron without layers."""
    return type(stem) is Stem and type(encoder) is MLP and not len(encoder.layers)


def blank_encoding(rows: int, device: torch.device) -> Encoding:
    """What is known before anything is read: nothing, of so many rows."""
    return Encoding(torch.zeros(rows, 0, device=device), torch.zeros(rows, 0, 0, device=device))
