"""One Transformer block, whose settings make it that of 2017, BERT, GPT-2, T5, Llama or Whisper; and a stack of it.

Shape legend: B rows, T tokens, S tokens of a source (or slots of a cache), D width.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..settings import Settings
from .attention import OPEN, Attention, KeysValues, Mask
from .convolution import StochasticDepth
from .feedforward import FeedForward, FeedForwardKind
from .initialise import initialise
from .normalise import Norm, make_norm
from .positions import PositionKind, Rotation, Stretch, make_positions

__all__ = [
    "PRESETS",
    "BlockSettings",
    "Cache",
    "Depth",
    "Dropout",
    "Heads",
    "KVHeads",
    "Transformer",
    "TransformerBlock",
    "TransformerSettings",
    "Width",
]

Width = Annotated[int, Field(ge=1, description="units of a token; a multiple of heads")]
Depth = Annotated[int, Field(ge=1, description="blocks")]
Heads = Annotated[int, Field(ge=1, description="attention heads")]
KVHeads = Annotated[int | None, Field(ge=1, description="heads of keys and values, a divisor of heads; open: as many")]
Dropout = Annotated[float, Field(ge=0, lt=1, description="share of units dropped after each part of a block")]


class BlockSettings(Settings):
    """Settings of the blocks of a stack, and of what surrounds them."""

    heads: Heads = 8
    kv_heads: KVHeads = None
    hidden: Annotated[int | None, Field(ge=1, description="units in feed-forward; open: 4 x width (swiglu 8/3)")] = None
    feed_forward: Annotated[FeedForwardKind, Field(description="function in feed-forward")] = "gelu"
    norm: Annotated[Norm, Field(description="layer norm or root mean square norm")] = "layer"
    norm_first: Annotated[bool, Field(description="normalise before each part (and at the end) instead of after")] = (
        True
    )
    norm_input: Annotated[bool, Field(description="also normalise after positions were added")] = False
    eps: Annotated[float, Field(gt=0, description="added to the variance in norms")] = 1e-5
    bias: Annotated[bool, Field(description="biases in linear layers and layer norms")] = True
    qkv_bias: Annotated[bool | None, Field(description="biases of queries, keys, values; open: as bias")] = None
    qk_norm: Annotated[bool, Field(description="root mean square norm of each head's queries and keys")] = False
    head_width: Annotated[int | None, Field(ge=1, description="units of a head; open: width / heads")] = None
    positions: Annotated[PositionKind, Field(description="how the order of tokens is told")] = "sinusoidal"
    base: Annotated[float, Field(gt=1, description="of the angles of rotary positions; larger for longer texts")] = (
        10_000.0
    )
    stretch: Annotated[Stretch | None, Field(description="of rotary positions to longer texts; open: none")] = None
    dropout: Dropout = 0.0
    stochastic_depth: Annotated[
        float, Field(ge=0, lt=1, description="chance of skipping the last block's parts; earlier blocks' in proportion")
    ] = 0.0
    recompute: Annotated[
        bool, Field(description="keep no activations inside blocks: less memory, a third more time (Chen et al. 2016)")
    ] = False


class TransformerSettings(BlockSettings):
    """Those of a stack that may be causal."""

    causal: Annotated[bool, Field(description="each token looks only at itself and those before it")] = False


# The published architectures. Heads are those of the sizes that are named here; widths, depths and the lengths of
# learned positions go to Transformer itself; the decoder of a pair takes cross=True. They are functions: with published
# weights copied in they give the published numbers, when the waves of Marian and Whisper are laid out as
# positions.Sinusoidal says, and two things are known. Whisper's keys have no bias; one moves all scores of a query
# alike, so that it changes nothing. T5 does not divide scores by the root of a head's width, so that its queries'
# weights are to be multiplied by that root.
PRESETS: dict[str, TransformerSettings] = {
    # Vaswani et al. 2017, base: width 512, depth 6.
    "transformer": TransformerSettings(heads=8, feed_forward="relu", norm_first=False, dropout=0.1),
    "transformer_decoder": TransformerSettings(
        heads=8, feed_forward="relu", norm_first=False, dropout=0.1, causal=True
    ),
    # Devlin et al. 2019, base: width 768, depth 12, length 512.
    "bert": TransformerSettings(
        heads=12, norm_first=False, norm_input=True, eps=1e-12, positions="learned", dropout=0.1
    ),
    # Radford et al. 2019, small: width 768, depth 12, length 1024.
    "gpt2": TransformerSettings(heads=12, feed_forward="gelu_tanh", positions="learned", causal=True, dropout=0.1),
    # Lewis et al. 2020, base: width 768, depth 6, length 1024.
    "bart": TransformerSettings(heads=12, norm_first=False, norm_input=True, positions="learned", dropout=0.1),
    "bart_decoder": TransformerSettings(
        heads=12, norm_first=False, norm_input=True, positions="learned", dropout=0.1, causal=True
    ),
    # Junczys-Dowmunt et al. 2018, in the size of OPUS-MT (Tiedemann and Thottingal 2020): width 512, depth 6. Tokens
    # are multiplied by the root of the width before they enter.
    "marian": TransformerSettings(heads=8, feed_forward="silu", norm_first=False, dropout=0.1),
    "marian_decoder": TransformerSettings(heads=8, feed_forward="silu", norm_first=False, dropout=0.1, causal=True),
    # Raffel et al. 2020, small: width 512, depth 6. (3B and 11B have heads wider than width / heads, and no preset.)
    "t5": TransformerSettings(
        heads=8, feed_forward="relu", norm="rms", eps=1e-6, bias=False, positions="relative", dropout=0.1
    ),
    "t5_decoder": TransformerSettings(
        heads=8, feed_forward="relu", norm="rms", eps=1e-6, bias=False, positions="relative", dropout=0.1, causal=True
    ),
    # Llama 3, 8B: width 4096, depth 32 (its base of angles is larger, for longer texts).
    "llama": TransformerSettings(
        heads=32,
        kv_heads=8,
        hidden=14336,
        feed_forward="swiglu",
        norm="rms",
        bias=False,
        positions="rotary",
        causal=True,
    ),
    # Dosovitskiy et al. 2021, B/16: width 768, depth 12, length 197.
    "vit": TransformerSettings(heads=12, eps=1e-6, positions="learned"),
    # Radford et al. 2022, base: width 512, depth 6; the decoder has length 448.
    "whisper": TransformerSettings(heads=8),
    "whisper_decoder": TransformerSettings(heads=8, positions="learned", causal=True),
}


class Residual(nn.Module):
    """x + branch(norm(x)), or norm(x + branch(x)); while training, units or whole rows of the branch may be dropped."""

    def __init__(self, branch: nn.Module, width: int, settings: TransformerSettings, skip: float) -> None:
        super().__init__()
        self.branch = branch
        self.norm = make_norm(settings.norm, width, eps=settings.eps, bias=settings.bias)
        self.norm_first = settings.norm_first
        self.dropout = nn.Dropout(settings.dropout) if settings.dropout else nn.Identity()
        self.skip = StochasticDepth(skip) if skip else None

    def forward(self, x_BTD: Tensor, *given: Any, **named: Any) -> Tensor:
        change = self.dropout(self.branch(self.norm(x_BTD) if self.norm_first else x_BTD, *given, **named))
        if self.skip is not None:
            change = self.skip(change.unsqueeze(-1)).squeeze(-1)
        out: Tensor = x_BTD + change
        return out if self.norm_first else self.norm(out)


class TransformerBlock(nn.Module):
    """Attention to itself, to a source (with ``cross``), then feed-forward; each a residual branch.

    Shape: x [B, T, D], source [B, S, D] to [B, T, D].

    >>> block = TransformerBlock(16, TransformerSettings(heads=2))
    >>> block(torch.randn(3, 5, 16)).shape
    torch.Size([3, 5, 16])
    """

    def __init__(self, width: int, settings: TransformerSettings, *, cross: bool = False, skip: float = 0.0) -> None:
        super().__init__()

        def attention() -> Residual:
            chosen = settings.model_dump(
                include={"heads", "kv_heads", "bias", "qkv_bias", "qk_norm", "head_width", "eps"}
            )
            layer = Attention(width, **chosen)
            return Residual(layer, width, settings, skip)

        self.attention = attention()
        self.cross = attention() if cross else None
        feed_forward = FeedForward(width, hidden=settings.hidden, kind=settings.feed_forward, bias=settings.bias)
        self.feed_forward = Residual(feed_forward, width, settings, skip)

    def forward(
        self,
        x_BTD: Tensor,
        mask: Mask = OPEN,
        *,
        rotation: Rotation | None = None,
        source: Tensor | KeysValues | None = None,
        source_mask: Mask = OPEN,
        cache: KeysValues | None = None,
        slots_T: Tensor | None = None,
    ) -> Tensor:
        x_BTD = self.attention(x_BTD, mask=mask, rotation=rotation, cache=cache, slots_T=slots_T)
        if self.cross is not None:
            assert source is not None, "a block with cross-attention needs a source"
            x_BTD = self.cross(x_BTD, source, mask=source_mask)
        out: Tensor = self.feed_forward(x_BTD)
        return out


class Cache(NamedTuple):
    """All that a causal stack remembers of the tokens it has read, in a fixed number of slots.

    ``blocks`` hold keys and values by block, ``sources`` those of a source that is attended to, with ``source_mask``.
    ``real`` [B, S] is True where a slot holds a real token, ``at`` [B, S] the token's place in its row, ``filled`` []
    the number of slots in use.
    """

    blocks: tuple[KeysValues, ...]
    sources: tuple[KeysValues, ...]
    source_mask: Mask
    real: Tensor
    at: Tensor
    filled: Tensor

    def pick(self, rows: Tensor) -> Cache:
        """The cache of these rows [B'], in this order; a row may be taken several times."""

        def chosen(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, rows)

        def both(pairs: tuple[KeysValues, ...]) -> tuple[KeysValues, ...]:
            return tuple(KeysValues(chosen(keys), chosen(values)) for keys, values in pairs)

        scores, live, causal = self.source_mask
        mask = Mask(None if scores is None else chosen(scores), None if live is None else chosen(live), causal)
        return Cache(both(self.blocks), both(self.sources), mask, chosen(self.real), chosen(self.at), self.filled)

    def widened(self, more: int) -> Cache:
        """The cache with ``more`` further slots."""
        blocks = tuple(KeysValues(*(F.pad(part, (0, 0, 0, more)) for part in block)) for block in self.blocks)
        return self._replace(blocks=blocks, real=F.pad(self.real, (0, more)), at=F.pad(self.at, (0, more)))


def places_in(pieces_BT: Tensor) -> Tensor:
    """The place of each token in its piece, a run of one number.

    >>> places_in(torch.tensor([[4, 4, 4, 7, 7, 5]])).tolist()
    [[0, 1, 2, 0, 1, 0]]
    """
    place = torch.arange(pieces_BT.shape[1], device=pieces_BT.device).expand_as(pieces_BT)
    begins = torch.ones_like(pieces_BT, dtype=torch.bool)
    begins[:, 1:] = pieces_BT[:, 1:] != pieces_BT[:, :-1]
    return place - torch.where(begins, place, 0).cummax(1).values


class Transformer(nn.Module):
    """Positions, then ``depth`` blocks, then (where norms come first) a last norm.

    Weights start from Xavier's uniform distribution, biases at zero.

    Args:
        length: the most tokens that learned positions take.
        cross: whether blocks also attend to a source.

    Shape: x [B, T, D], source [B, S, D] to [B, T, D].

    >>> stack = Transformer(16, 2, TransformerSettings(heads=2, causal=True))
    >>> stack(torch.randn(3, 5, 16)).shape
    torch.Size([3, 5, 16])
    """

    def __init__(
        self, width: int, depth: int, settings: TransformerSettings, *, length: int = 512, cross: bool = False
    ) -> None:
        super().__init__()
        self.causal, self.recompute = settings.causal, settings.recompute
        self.positions = make_positions(
            settings.positions,
            width=width,
            heads=settings.heads,
            length=length,
            causal=settings.causal,
            base=settings.base,
            head_width=settings.head_width,
            stretch=settings.stretch,
        )

        def norm() -> nn.Module:
            return make_norm(settings.norm, width, eps=settings.eps, bias=settings.bias)

        self.norm_input = norm() if settings.norm_input else nn.Identity()
        self.dropout = nn.Dropout(settings.dropout) if settings.dropout else nn.Identity()
        skips = [settings.stochastic_depth * block / max(depth - 1, 1) for block in range(depth)]
        self.blocks = nn.ModuleList(TransformerBlock(width, settings, cross=cross, skip=skip) for skip in skips)
        self.norm = norm() if settings.norm_first else nn.Identity()
        initialise(self, "xavier")

    def forward(
        self,
        x_BTD: Tensor,
        real_BT: Tensor | None = None,
        *,
        at: Tensor | None = None,
        pieces: Tensor | None = None,
        source: Tensor | None = None,
        source_real: Tensor | None = None,
    ) -> Tensor:
        """All tokens at once. ``real_BT`` and ``source_real`` [B, S] are True where tokens are real; None: all are.

        ``at`` [T] or [B, T] are the tokens' places; None: 0, 1, 2, ... in each row. Where several texts stand in a
        row, one behind another, ``pieces`` [B, T] numbers them: none looks at another, and places are counted in each.
        """
        if at is None:
            at = torch.arange(x_BTD.shape[1], device=x_BTD.device) if pieces is None else places_in(pieces)
        mask = Mask.of(real_BT, causal=self.causal, bias=self.positions.bias(at, at), pieces_BT=pieces)
        source_mask = Mask.of(source_real)
        rotation = self.positions.rotation(at, x_BTD.dtype)
        x_BTD = self.enter(x_BTD, at)
        for block in self.blocks:
            named: dict[str, Any] = {"rotation": rotation, "source": source, "source_mask": source_mask}
            if self.recompute and torch.is_grad_enabled():
                x_BTD = checkpoint(block, x_BTD, mask, use_reentrant=False, **named)
            else:
                x_BTD = block(x_BTD, mask, **named)
        out: Tensor = self.norm(x_BTD)
        return out

    def enter(self, x_BTD: Tensor, at: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.norm_input(self.positions.embed(x_BTD, at)))
        return out

    def start(self, rows: int, slots: int, *, source: Tensor | None = None, source_real: Tensor | None = None) -> Cache:
        """An empty cache for ``rows`` rows of up to ``slots`` tokens, padding included."""
        weight = next(self.parameters())
        blocks: list[KeysValues] = []
        sources: list[KeysValues] = []
        for block in self.blocks:
            assert isinstance(block, TransformerBlock)
            own = block.attention.branch
            assert isinstance(own, Attention)
            shape = (rows, own.kv_heads, slots, own.head_width)
            blocks.append(KeysValues(weight.new_zeros(shape), weight.new_zeros(shape)))
            if block.cross is not None:
                cross = block.cross.branch
                assert isinstance(cross, Attention)
                assert source is not None, "a stack with cross-attention needs a source"
                sources.append(cross.keys_values(source))
        at = torch.zeros(rows, slots, dtype=torch.int64, device=weight.device)
        return Cache(tuple(blocks), tuple(sources), Mask.of(source_real), at.bool(), at, at.new_zeros(()))

    def step(self, x_BTD: Tensor, cache: Cache, real_BT: Tensor | None = None) -> tuple[Tensor, Cache]:
        """The next T tokens of each row, a whole prompt or a single one, and the cache to go on with.

        Rows may be of unequal length, with padding anywhere: a token's place is the number of real ones before it in
        its row. The tensors of keys and values are written in place, so the cache that was passed in is used up. For
        use without gradients. More tokens than there are slots are an error of torch's.
        """
        assert self.causal, "only a causal stack can go on from what it has read"
        if real_BT is None:
            real_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool, device=x_BTD.device)
        slots_T = cache.filled + torch.arange(x_BTD.shape[1], device=x_BTD.device)
        at = (cache.real.sum(1, keepdim=True) + real_BT.cumsum(1) - 1).clamp(min=0)
        cache = cache._replace(
            real=cache.real.index_copy(1, slots_T, real_BT),
            at=cache.at.index_copy(1, slots_T, at),
            filled=cache.filled + x_BTD.shape[1],
        )
        mask = Mask.of(cache.real, causal=True, slots_T=slots_T, bias=self.positions.bias(at, cache.at))
        rotation = self.positions.rotation(at, x_BTD.dtype)
        x_BTD = self.enter(x_BTD, at)
        for number, block in enumerate(self.blocks):
            source = cache.sources[number] if cache.sources else None
            x_BTD = block(
                x_BTD,
                mask,
                rotation=rotation,
                source=source,
                source_mask=cache.source_mask,
                cache=cache.blocks[number],
                slots_T=slots_T,
            )
        out: Tensor = self.norm(x_BTD)
        return out, cache
