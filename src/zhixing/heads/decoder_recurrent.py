"""A recurrent network that writes token after token and looks at the input before each.

Shape legend: B rows, T tokens of the text, S tokens of the input, D width, V tokens of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..columns.vocabulary import BEGIN
from ..errors import UsageError
from ..layers.recurrent import AdditiveAttention
from ..layers.transformer import Dropout, Width
from ..models.encoding import Encoding
from .decoder import Forced, Smoothing, shifted
from .search import Search, Steps, stream

__all__ = ["RecurrentDecoder"]


class Memory:
    """What a recurrent decoder remembers: its state [B, D], and the input's tokens with their mask."""

    def __init__(self, state: Tensor, source: Tensor, real: Tensor) -> None:
        self.state, self.source, self.real = state, source, real

    def pick(self, rows: Tensor) -> Memory:
        return Memory(*(tensor.index_select(0, rows) for tensor in (self.state, self.source, self.real)))


class RecurrentDecoder(Forced):
    """A gated recurrent unit that looks at the input before each token (Bahdanau et al. 2015, arXiv:1409.0473)."""

    def __init__(
        self,
        width_in: int,
        vocabulary: int,
        length: int,
        *,
        width: Width = 256,
        dropout: Dropout = 0.1,
        smoothing: Smoothing = 0.0,
    ) -> None:
        super().__init__()
        if not width_in:
            raise UsageError("a gru decoder reads an input", place="decoder", mend="Take the transformer decoder.")
        self.smoothing = smoothing
        self.embed = nn.Embedding(vocabulary, width)
        self.start = nn.Linear(width_in, width)
        self.attention = AdditiveAttention(width_in, hidden=width, query_width=width)
        self.cell = nn.GRUCell(width + width_in, width)
        self.join = nn.Linear(2 * width + width_in, width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, vocabulary)

    def remember(self, encoding: Encoding) -> Memory:
        real = encoding.real
        mean = (encoding.tokens * real[:, :, None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        return Memory(self.start(mean).tanh(), encoding.tokens, real)

    def step(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        vector = self.dropout(self.embed(tokens))
        seen, _ = self.attention(memory.source, memory.real, memory.state)
        state = self.cell(torch.cat([vector, seen], dim=1), memory.state)
        hidden = self.join(torch.cat([state, seen.to(state.dtype), vector.to(state.dtype)], dim=1)).tanh()
        return self.out(self.dropout(hidden)), Memory(state, memory.source, memory.real)

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        assert target is not None
        memory, scores = self.remember(encoding), []
        for tokens in shifted(target).unbind(1):
            one, memory = self.step(tokens, memory)
            scores.append(one)
        return torch.stack(scores, dim=1)

    def looks(self, encoding: Encoding, target: Tensor) -> Tensor | None:
        memory, weights = self.remember(encoding), []
        for tokens in shifted(target).unbind(1):
            weights.append(self.attention(memory.source, memory.real, memory.state)[1])
            _, memory = self.step(tokens, memory)
        return torch.stack(weights, dim=1)

    def stream(self, encoding: Encoding, settings: Search, most: int, prompt: Tensor | None = None) -> Steps:
        begin = torch.full((len(encoding.pooled),), BEGIN, device=encoding.pooled.device)
        logits, memory = self.step(begin, self.remember(encoding))
        return stream(logits, memory, self.step, settings, most)
