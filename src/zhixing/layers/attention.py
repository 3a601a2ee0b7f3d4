"""Attention: each token asks, and is answered by a mean of values weighted by how well their keys match.

Shape legend: B rows, T tokens that ask, S tokens that are asked, D width, H heads, G heads of keys and values,
C width of a head, D / H where nothing else is asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .normalise import RMSNorm
from .positions import Rotation

__all__ = ["OPEN", "Attention", "KeysValues", "Mask"]

# Written-down weights: of so many tokens at most, so many of a batch that are kept for the way back, and so many at a
# time, which fit into a processor's caches. From MANY tokens on torch's softmax in bf16 is faster than in float32.
SHORT, KEPT, CACHED, MANY = 512, 2**26, 2**21, 64


class Mask(NamedTuple):
    """Who may look at whom, made once by :meth:`of` and used by all blocks.

    ``scores`` [1 or B, 1 or H, 1 or T, S] is boolean (True: may look) or a float that is added to the scores. ``live``
    [B, 1 or T, 1] is False where a token may look at nothing; what it gets is zeros. ``causal`` alone, without a
    tensor, lets torch take its fastest way.
    """

    scores: Tensor | None = None
    live: Tensor | None = None
    causal: bool = False

    @classmethod
    def of(
        cls,
        real_BS: Tensor | None = None,
        *,
        causal: bool = False,
        slots_T: Tensor | None = None,
        bias: Tensor | None = None,
        pieces_BT: Tensor | None = None,
    ) -> Mask:
        """The mask for ``real_BS`` (True where a token is real) and a ``bias`` [1 or B, H, T, S] on the scores.

        With ``causal`` a token looks at itself and at those before it. ``slots_T`` are the places among S of the
        tokens that ask, where these are not all of S in order. With ``pieces_BT`` several pieces stand in a row, and a
        token looks at those of its own piece's number alone.

        >>> Mask.of(torch.tensor([[True, True, False]]), causal=True).scores[0, 0].int()
        tensor([[1, 0, 0],
                [1, 1, 0],
                [1, 1, 0]], dtype=torch.int32)
        """
        if pieces_BT is not None and real_BS is None:
            real_BS = torch.ones_like(pieces_BT, dtype=torch.bool)
        if real_BS is None and bias is None:
            assert slots_T is None, "which of the S tokens are real must be said"
            return cls(causal=causal)
        allowed = None if real_BS is None else real_BS[:, None, None, :]
        if causal:
            wide = bias if real_BS is None else real_BS
            assert wide is not None
            sources = torch.arange(wide.shape[-1], device=wide.device)
            before = sources <= (sources if slots_T is None else slots_T)[:, None]
            allowed = before if allowed is None else allowed & before
        if pieces_BT is not None:
            same = pieces_BT[:, None, :, None] == pieces_BT[:, None, None, :]
            allowed = same if allowed is None else allowed & same
        if allowed is None:
            return cls(bias)
        live = None
        if real_BS is not None:
            live = allowed.any(-1, keepdim=True)
            allowed = allowed | ~live  # a softmax over nothing would be NaN; what these get is cleared afterwards
        scores = allowed if bias is None else bias.masked_fill(~allowed, float("-inf"))
        return cls(scores, None if live is None else live.squeeze(1))


OPEN = Mask()  # everyone looks at everyone


class KeysValues(NamedTuple):
    """Keys and values [B, G, S, C]: of a source that is asked many times, or the slots of a cache."""

    keys: Tensor
    values: Tensor

    def write(self, slots_T: Tensor, new: KeysValues) -> KeysValues:
        """Put those of T tokens into these slots, in place: shapes stay the same from step to step."""
        self.keys.index_copy_(2, slots_T, new.keys.to(self.keys.dtype))
        self.values.index_copy_(2, slots_T, new.values.to(self.values.dtype))
        return self


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762), of a sequence to itself or to a source.

    With fewer ``kv_heads`` than ``heads``, each head of keys and values serves several heads of queries: grouped-query
    attention (Ainslie et al. 2023, arXiv:2305.13245), with 1 multi-query attention (Shazeer 2019).

    Args:
        qkv_bias: biases of queries, keys and values alone, as in Qwen2; None: as ``bias``.
        qk_norm: divide each head's queries and keys by their root mean square, as in Qwen3 (Dehghani et al. 2023,
            arXiv:2302.05442, with layer norm).
        head_width: units of a head; None: width / heads.

    Shape: x [B, T, D] and source [B, S, D] to [B, T, D].

    Raises:
        UsageError: heads that do not divide the width, or heads of keys and values that do not divide the heads.

    >>> layer = Attention(8, heads=4, kv_heads=2)
    >>> real = torch.tensor([[True, True, False], [False, False, False]])
    >>> out = layer(torch.randn(2, 3, 8), mask=Mask.of(real))
    >>> out.shape, bool(out[1].any())
    (torch.Size([2, 3, 8]), False)
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        kv_heads: int | None = None,
        bias: bool = True,
        qkv_bias: bool | None = None,
        qk_norm: bool = False,
        head_width: int | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        qkv_bias = bias if qkv_bias is None else qkv_bias
        if head_width is None and width % heads:
            raise UsageError(
                f"width {width} is not a multiple of {heads} heads", place="attention", mend="Change one of them."
            )
        if heads % kv_heads:
            raise UsageError(
                f"{heads} heads cannot share {kv_heads} heads of keys and values evenly",
                place="attention",
                mend="Choose kv_heads that divide heads.",
            )
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, head_width or width // heads
        self.query = nn.Linear(width, heads * self.head_width, bias=qkv_bias)
        self.key = nn.Linear(width, kv_heads * self.head_width, bias=qkv_bias)
        self.value = nn.Linear(width, kv_heads * self.head_width, bias=qkv_bias)
        self.out = nn.Linear(heads * self.head_width, width, bias=bias)
        self.query_norm = RMSNorm(self.head_width, eps=eps) if qk_norm else nn.Identity()
        self.key_norm = RMSNorm(self.head_width, eps=eps) if qk_norm else nn.Identity()

    def extra_repr(self) -> str:
        return f"heads={self.heads}, kv_heads={self.kv_heads}"

    def keys_values(self, source_BSD: Tensor, rotation: Rotation | None = None) -> KeysValues:
        """Keys and values of a source, to be asked once or many times."""
        keys_BGSC: Tensor = self.key_norm(self.split(self.key(source_BSD)))
        if rotation is not None:
            keys_BGSC = rotation.turn(keys_BGSC)
        return KeysValues(keys_BGSC, self.split(self.value(source_BSD)))

    def weights(self, x_BTD: Tensor, source: Tensor, mask: Mask = OPEN) -> Tensor:
        """How much each token of x takes from each of a source's, as the mean over heads: [B, T, S], for people.

        What is computed is never made of these: the fused kernel does not write them down.
        """
        query_BHTC, (keys_BGSC, _) = self.query_norm(self.split(self.query(x_BTD))), self.keys_values(source)
        keys_BHSC = keys_BGSC.repeat_interleave(self.heads // self.kv_heads, dim=1)
        scores = query_BHTC.float() @ keys_BHSC.float().transpose(2, 3) / self.head_width**0.5
        if mask.scores is not None and mask.scores.dtype == torch.bool:
            scores = scores.masked_fill(~mask.scores, float("-inf"))
        elif mask.scores is not None:
            scores = scores + mask.scores
        out: Tensor = scores.softmax(-1).mean(1)
        return out

    def split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1, self.head_width).transpose(1, 2)

    def forward(
        self,
        x_BTD: Tensor,
        source: Tensor | KeysValues | None = None,
        *,
        mask: Mask = OPEN,
        rotation: Rotation | None = None,
        cache: KeysValues | None = None,
        slots_T: Tensor | None = None,
    ) -> Tensor:
        """Answers for x from ``source``: a sequence, its keys and values, or (None) x itself.

        With a ``cache``, the keys and values of x are first written into its ``slots_T``, and all its slots are asked.
        """
        query_BHTC: Tensor = self.query_norm(self.split(self.query(x_BTD)))
        if rotation is not None:
            query_BHTC = rotation.turn(query_BHTC)
        if not isinstance(source, KeysValues):
            source = self.keys_values(x_BTD if source is None else source, rotation)
        if cache is not None:
            assert slots_T is not None
            source = cache.write(slots_T, source)
        answer_BHTC = self.answer(query_BHTC, source, mask, alone=cache is not None and query_BHTC.shape[2] == 1)
        out_BTD: Tensor = self.out(answer_BHTC.transpose(1, 2).flatten(2))
        return out_BTD if mask.live is None else out_BTD * mask.live.to(out_BTD.dtype)

    def answer(self, query_BHTC: Tensor, source: KeysValues, mask: Mask, *, alone: bool) -> Tensor:
        """Means of values [B, H, T, C]. Of a token that asks ``alone``, the heads that share keys ask these as if they
        were several tokens, so that keys are read once and not once for each head."""
        scores, shape = mask.scores, query_BHTC.shape
        if scores is not None and scores.dtype != torch.bool:
            scores = scores.to(query_BHTC.dtype)
        shares = self.kv_heads != self.heads
        if alone and shares:
            query_BHTC = query_BHTC.reshape(shape[0], self.kv_heads, -1, shape[3])
            if scores is not None and scores.shape[1] == self.heads:
                scores = scores.reshape(scores.shape[0], self.kv_heads, -1, scores.shape[3])
        keys, values = source.keys.to(query_BHTC.dtype), source.values.to(query_BHTC.dtype)
        if pays_to_write_down(query_BHTC, keys):
            return written_down(query_BHTC, keys, values, scores, causal=mask.causal)
        answer = F.scaled_dot_product_attention(
            query_BHTC, keys, values, attn_mask=scores, is_causal=mask.causal, enable_gqa=shares and not alone
        )
        return answer.reshape(shape)


def pays_to_write_down(query_BHTC: Tensor, keys_BGSC: Tensor) -> bool:
    """Whether :func:`written_down` is faster than torch's fused kernel: where it learns in bf16 on a processor, whose
    way back is slow in the latter (benchmarks/attention.py). Code that is compiled takes no parts."""
    if not (query_BHTC.requires_grad and query_BHTC.device.type == "cpu" and query_BHTC.dtype == torch.bfloat16):
        return False
    asked, most = keys_BGSC.shape[2], CACHED if torch.compiler.is_compiling() else KEPT
    return asked <= SHORT and query_BHTC.shape[:3].numel() * asked <= most


def written_down(query_BHTC: Tensor, keys: Tensor, values: Tensor, scores: Tensor | None, *, causal: bool) -> Tensor:
    """What :func:`torch.nn.functional.scaled_dot_product_attention` gives, by way of all weights, some rows at a time:
    from one operation to the next, their scores stay in the cache."""
    shared = query_BHTC.shape[1] // keys.shape[1]
    if shared > 1:
        keys, values = keys.repeat_interleave(shared, 1), values.repeat_interleave(shared, 1)
    if causal:
        scores = torch.ones(query_BHTC.shape[2], keys.shape[2], dtype=torch.bool, device=keys.device).tril()[None, None]
    if scores is not None and scores.dtype == torch.bool:
        # A sum is several times as fast as masked_fill, which is done on the mask alone.
        scores = query_BHTC.new_zeros(scores.shape).masked_fill_(~scores, float("-inf"))
    rows = max(1, CACHED // (query_BHTC.shape[1:3].numel() * keys.shape[2]))
    if rows >= len(query_BHTC):
        return weighed(query_BHTC, keys, values, scores)
    starts = range(0, len(query_BHTC), rows)
    masks = [scores] * len(starts) if scores is None or len(scores) == 1 else torch.split(scores, rows)
    parts = zip(*(torch.split(whole, rows) for whole in (query_BHTC, keys, values)), masks, strict=True)
    return torch.cat([weighed(*part) for part in parts])


def weighed(query_BHTC: Tensor, keys: Tensor, values: Tensor, scores: Tensor | None) -> Tensor:
    """Means of values by a softmax, summed in float32, of how well keys match, to which ``scores`` are added."""
    found = (query_BHTC * query_BHTC.shape[-1] ** -0.5) @ keys.transpose(2, 3)
    if scores is not None:
        found = found + scores
    # Sizes that are unknown numbers must not decide in code that is compiled.
    few = torch.compiler.is_compiling() or keys.shape[2] < MANY
    weights: Tensor = found.softmax(-1, dtype=torch.float32 if few else None).to(values.dtype)
    return weights @ values
