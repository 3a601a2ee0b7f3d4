"""T5 and T5 1.1, on which Flan-T5 stands: text to text (Raffel et al. 2020, arXiv:1910.10683)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from ...errors import UsageError
from .bert import TEXT
from .layout import Layout, Part, Plan, Role

__all__ = ["T5"]

ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}


def block(side: str, feed_forward: int) -> dict[str, str | Part]:
    """One side's table; ``feed_forward`` is the place of that part in a block."""
    last = f"{side}.block.{{n}}.layer.{feed_forward}"
    return {
        "positions.table": f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias",
        "blocks.{n}.attention.norm": f"{side}.block.{{n}}.layer.0.layer_norm",
        **{
            f"blocks.{{n}}.attention.branch.{ours}": f"{side}.block.{{n}}.layer.0.SelfAttention.{theirs}"
            for ours, theirs in ATTENTION.items()
        },
        "blocks.{n}.cross.norm": f"{side}.block.{{n}}.layer.1.layer_norm",
        **{
            f"blocks.{{n}}.cross.branch.{ours}": f"{side}.block.{{n}}.layer.1.EncDecAttention.{theirs}"
            for ours, theirs in ATTENTION.items()
        },
        "blocks.{n}.feed_forward.norm": f"{last}.layer_norm",
        "blocks.{n}.feed_forward.branch.down": f"{last}.DenseReluDense.wo",
        "norm": f"{side}.final_layer_norm",
    }


class T5(Layout):
    """Two stacks whose attention knows distances alone.

    Scores of attention are not divided by the root of a head's width there: queries' weights are multiplied by it.
    Where one table serves words and scores, the latter are scaled down, so that ours are two tables.
    """

    kinds: ClassVar[tuple[str, ...]] = ("t5",)
    spare: ClassVar[tuple[str, ...]] = (r"(en|de)coder\.embed_tokens\.weight", r"lm_head\.weight", r"shared\.weight")
    fresh: ClassVar[tuple[str, ...]] = (r"project\..*",)
    rate: ClassVar[float] = 1e-4

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        gated = self.gated()
        encoder, decoder = (
            block(side, place)
            | {
                "blocks.{n}.feed_forward.branch.up": (
                    f"{side}.block.{{n}}.layer.{place}.DenseReluDense.{'wi_1' if gated else 'wi'}"
                ),
                "blocks.{n}.feed_forward.branch.gate": f"{side}.block.{{n}}.layer.{place}.DenseReluDense.wi_0",
            }
            for side, place in (("encoder", 1), ("decoder", 2))
        )
        self.encoder_names: Mapping[str, str | Part] = {f"blocks.{ours}": theirs for ours, theirs in encoder.items()}
        self.decoder_names: Mapping[str, str | Part] = {f"stack.{ours}": theirs for ours, theirs in decoder.items()}

    def gated(self) -> bool:
        kind = self.config.get("feed_forward_proj", "relu")
        if kind not in ("relu", "gated-gelu"):
            raise UsageError(f"the feed-forward part {kind!r} is not known of T5", place=self.files.path)
        return bool(kind == "gated-gelu")

    def blocks(self, side: str) -> dict[str, Any]:
        buckets = (
            self.config.get("relative_attention_num_buckets", 32),
            self.config.get("relative_attention_max_distance", 128),
        )
        if buckets != (32, 128):
            raise UsageError(
                f"distances in {buckets[0]} classes up to {buckets[1]} are not known", place=self.files.path
            )
        depth = self.number("num_layers")
        return {
            "width": self.number("d_model"),
            "depth": depth if side == "encoder" else self.number("num_decoder_layers", default=depth),
            "heads": self.number("num_heads"),
            "head_width": self.number("d_kv"),
            "hidden": self.number("d_ff"),
            "feed_forward": "geglu" if self.gated() else "relu",
            "norm": "rms",
            "norm_first": True,
            "norm_input": False,
            "eps": float(self.config.get("layer_norm_epsilon", 1e-6)),
            "bias": False,
            "positions": "relative",
        }

    def encoder(self) -> Plan:
        chosen = {"pooling": "mean", "dropout": float(self.config.get("dropout_rate", 0.1))}
        return Plan("transformer", {**self.blocks("encoder"), "causal": False}, chosen, TEXT)

    def decoder(self) -> Plan:
        chosen = {"dropout": float(self.config.get("dropout_rate", 0.1))}
        return Plan("transformer", {**self.blocks("decoder"), "tie": False, "join": "cross"}, chosen, TEXT)

    def begin(self, library: Any, found: int) -> int:
        return self.number("decoder_start_token_id", "pad_token_id", default=0)

    def words(self, role: Role) -> Tensor:
        """One table for both sides, but where they were written apart."""
        own, shared = f"{role}.embed_tokens.weight", "shared.weight"
        tied = self.config.get("tie_word_embeddings", True)
        return self.rows(self.read(own if self.has(own) and not (tied and self.has(shared)) else shared))

    def tensor(self, role: Role, name: str, own: Tensor) -> Tensor:
        root = math.sqrt(own.shape[-1])
        if name == "steps.embedding.weight":  # our encoder multiplies tokens by the root of the width
            return self.words("encoder") / root
        if name == "embed.weight":
            return self.words("decoder")
        if name == "out.weight":
            scaled = self.config.get("scale_decoder_outputs", self.config.get("tie_word_embeddings", True))
            out = self.rows(self.read("lm_head.weight")) if self.has("lm_head.weight") else self.words("decoder")
            return out / root if scaled else out
        found = super().tensor(role, name, own)
        return found * math.sqrt(self.number("d_kv")) if name.endswith("query.weight") else found
