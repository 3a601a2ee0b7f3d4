"""Llama and what is shaped like it: Mistral, SmolLM2, Qwen2, Qwen3.

Touvron et al. 2023 (arXiv:2302.13971); Jiang et al. 2023 (arXiv:2310.06825); Yang et al. 2024 (arXiv:2407.10671) and
2025 (arXiv:2505.09388). Qwen2 has biases on queries, keys and values; Qwen3 norms of queries and keys in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import UsageError
from .bert import TEXT
from .layout import Layout, Part, Plan, Role

__all__ = ["Llama"]

STACK = {
    "norm": "norm",
    "blocks.{n}.attention.norm": "layers.{n}.input_layernorm",
    "blocks.{n}.attention.branch.query": "layers.{n}.self_attn.q_proj",
    "blocks.{n}.attention.branch.key": "layers.{n}.self_attn.k_proj",
    "blocks.{n}.attention.branch.value": "layers.{n}.self_attn.v_proj",
    "blocks.{n}.attention.branch.out": "layers.{n}.self_attn.o_proj",
    "blocks.{n}.attention.branch.query_norm": "layers.{n}.self_attn.q_norm",
    "blocks.{n}.attention.branch.key_norm": "layers.{n}.self_attn.k_norm",
    "blocks.{n}.feed_forward.norm": "layers.{n}.post_attention_layernorm",
    "blocks.{n}.feed_forward.branch.gate": "layers.{n}.mlp.gate_proj",
    "blocks.{n}.feed_forward.branch.up": "layers.{n}.mlp.up_proj",
    "blocks.{n}.feed_forward.branch.down": "layers.{n}.mlp.down_proj",
}


class Llama(Layout):
    """A causal stack: as a decoder it goes on from a text; as an encoder its last token is the summary."""

    kinds = ("llama", "mistral", "qwen2", "qwen3")
    roots = ("model.",)
    spare = (r".*rotary_emb\.inv_freq", r"score\..*", r"lm_head\..*")
    encoder_names: Mapping[str, str | Part] = {
        "steps.embedding": "embed_tokens",
        **{f"blocks.{ours}": theirs for ours, theirs in STACK.items()},
    }
    decoder_names: Mapping[str, str | Part] = {
        "embed": "embed_tokens",
        "out": "lm_head",
        **{f"stack.{ours}": theirs for ours, theirs in STACK.items()},
    }

    def blocks(self) -> dict[str, Any]:
        self.check()
        width, heads = self.number("hidden_size"), self.number("num_attention_heads")
        kind = self.config.get("model_type")
        head_width = self.number("head_dim", default=width // heads)
        return {
            "width": width,
            "depth": self.number("num_hidden_layers"),
            "heads": heads,
            "kv_heads": self.number("num_key_value_heads", default=heads),
            "hidden": self.number("intermediate_size"),
            "feed_forward": "swiglu",
            "norm": "rms",
            "norm_first": True,
            "norm_input": False,
            "eps": float(self.config.get("rms_norm_eps", 1e-6)),
            "bias": False,
            "qkv_bias": kind == "qwen2" or bool(self.config.get("attention_bias")),
            "qk_norm": kind == "qwen3",
            "head_width": None if head_width * heads == width else head_width,
            "positions": "rotary",
            "base": self.base(),
            "stretch": self.stretch(),
        }

    def base(self) -> float:
        rope = self.config.get("rope_parameters") or {}
        return float(rope.get("rope_theta", self.config.get("rope_theta", 10_000.0)))

    def rope(self) -> dict[str, Any]:
        """What the files say of rotary positions; older ones say it under another name."""
        return dict(self.config.get("rope_parameters") or self.config.get("rope_scaling") or {})

    def stretch(self) -> dict[str, Any] | None:
        told = self.rope()
        names = {"factor": "factor", "slow": "low_freq_factor", "fast": "high_freq_factor"}
        if "low_freq_factor" not in told:
            return None
        length = told.get("original_max_position_embeddings", 8192)
        return {**{ours: float(told[theirs]) for ours, theirs in names.items()}, "length": int(length)}

    def check(self) -> None:
        """Say so where the files ask for what is not done here: its results would be wrong in silence."""
        rope = self.rope()
        kind = rope.get("rope_type", rope.get("type", "default"))
        wrong = []
        if kind != "default" and not (kind == "llama3" and "low_freq_factor" in rope):
            wrong.append(f"stretched rotary positions ({kind})")
        if self.activation("hidden_act") != "silu":
            wrong.append(f"the activation {self.config['hidden_act']}")
        if self.config.get("mlp_bias") or (self.config.get("attention_bias") and self.config["model_type"] == "llama"):
            wrong.append("biases")
        if self.config.get("use_sliding_window"):
            wrong.append("attention within a window")
        if wrong:
            raise UsageError(
                f"this model has {' and '.join(wrong)}, which is not done here",
                place=self.files.path,
                mend="Take a model without, such as SmolLM2, Mistral, Qwen2 or Qwen3.",
            )

    def tied(self) -> bool:
        return bool(self.config.get("tie_word_embeddings", False)) or not self.has("lm_head.weight")

    def encoder(self) -> Plan:
        fixed = {**self.blocks(), "causal": True}
        return Plan("transformer", fixed, {"pooling": "last", "dropout": 0.0}, TEXT)

    def decoder(self) -> Plan:
        return Plan("transformer", {**self.blocks(), "tie": self.tied()}, {"join": "prefix", "dropout": 0.0}, TEXT)

    def positions(self) -> int:
        window = self.config.get("sliding_window") if self.config.get("model_type") == "mistral" else None
        most = self.number("max_position_embeddings", default=1 << 20)
        return min(most, window) if isinstance(window, int) else most

    def tensor(self, role: Role, name: str, own: Tensor) -> Tensor:
        found = super().tensor(role, name, own)
        # An encoder multiplies its tokens by the root of the width, unless positions are learned.
        return found / own.shape[1] ** 0.5 if name == "steps.embedding.weight" else found
