"""Attention rollout: from which tokens the summary's content has flowed.

Shape legend: B rows, T tokens, S tokens with a class token, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...layers.attention import OPEN, Attention, Mask
from ...layers.positions import Rotation
from ...models.encoding import Encoding, pool_tokens
from ..subject import Entry, NotApplicableError, Subject
from .gradcam import spread
from .maps import Maps

__all__ = ["attention_rollout", "weights_of"]


def weights_of(attention: Attention, x_BTD: Tensor, mask: Mask = OPEN, rotation: Rotation | None = None) -> Tensor:
    """How much each token takes from each, as the mean over heads, [B, T, T]; a token that may look at nothing takes
    from none."""
    query, keys = attention.split(attention.query(x_BTD)), attention.keys_values(x_BTD, rotation).keys
    if rotation is not None:
        query = rotation.turn(query)
    keys = keys.repeat_interleave(attention.heads // attention.kv_heads, dim=1)
    scores = query.float() @ keys.float().transpose(2, 3) / attention.head_width**0.5
    if mask.scores is not None and mask.scores.dtype == torch.bool:
        scores = scores.masked_fill(~mask.scores, float("-inf"))
    elif mask.scores is not None:
        scores = scores + mask.scores
    elif mask.causal:
        scores = scores.masked_fill(torch.ones_like(scores[0, 0]).triu(1) > 0, float("-inf"))
    weights: Tensor = scores.softmax(-1).mean(1)
    return weights if mask.live is None else weights.masked_fill(~mask.live, 0.0)


@contextmanager
def watched(encoder: nn.Module) -> Iterator[list[Tensor]]:
    """The weights of each layer of attention to itself, first to last."""
    seen: list[Tensor] = []

    def note(module: nn.Module, given: Any, named: dict[str, Any]) -> None:
        assert isinstance(module, Attention)
        if len(given) == 1 and named.get("source") is None:
            seen.append(weights_of(module, given[0], named.get("mask", OPEN), named.get("rotation")))

    layers = [module for module in encoder.modules() if isinstance(module, Attention)]
    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def rolled(layers: list[Tensor]) -> Tensor:
    """From which token at the entrance each token at the end has how much, [B, S, S]: half of each layer's content
    goes around its attention."""
    flow = torch.eye(layers[0].shape[-1], device=layers[0].device).expand_as(layers[0])
    for weights in layers:
        step = weights + torch.eye(weights.shape[-1], device=weights.device)
        flow = step / step.sum(-1, keepdim=True) @ flow
    return flow


def summed_up(entry: Entry, encoding: Encoding, flow: Tensor) -> Tensor | None:
    """What the summary holds of each token, [B, T]: it is a class token's, or pooled from all as the encoder says."""
    count, pooling = encoding.tokens.shape[1], getattr(entry.encoder, "pooling", None)
    if flow.shape[-1] == count + 1:  # a class token, or that with which a text begins, stands before them
        return flow[:, 0, 1:] if pooling in (None, "cls") else pool_tokens(flow[:, 1:, 1:], encoding.mask, pooling)
    if flow.shape[-1] != count:
        return None
    return pool_tokens(flow, encoding.mask, pooling or "mean")


def attention_rollout(subject: Subject, *, seed: int = 0) -> Maps:
    """The products of all layers' attention (Abnar and Zuidema 2020, arXiv:2005.00928). It says where content comes
    from, not what it speaks for: all answers have the same map."""
    out: list[Tensor | None] = []
    for entry in subject.entries:
        with torch.no_grad(), watched(entry.encoder) as layers:
            encoding = entry.encode(entry.point)
        tokens = None
        if layers and len({layer.shape for layer in layers}) == 1:
            tokens = summed_up(entry, encoding, rolled(layers))
        out.append(None if tokens is None else spread(entry, tokens, encoding.grid))
    if all(part is None for part in out):
        names = ", ".join(type(entry.encoder).__name__ for entry in subject.entries)
        raise NotApplicableError(f"attention_rollout needs attention among tokens, and {names} has none")
    return Maps(out)
