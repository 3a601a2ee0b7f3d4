"""GPT-2 (Radford et al. 2019) and DistilGPT-2. Linear layers are stored transposed, and three of them as one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import UsageError
from .bert import TEXT
from .layout import Layout, Part, Plan, Role

__all__ = ["GPT2"]

STACK: dict[str, str | Part] = {
    "positions.table": "wpe",
    "norm": "ln_f",
    "blocks.{n}.attention.norm": "h.{n}.ln_1",
    "blocks.{n}.attention.branch.query": Part("h.{n}.attn.c_attn", 0, 3),
    "blocks.{n}.attention.branch.key": Part("h.{n}.attn.c_attn", 1, 3),
    "blocks.{n}.attention.branch.value": Part("h.{n}.attn.c_attn", 2, 3),
    "blocks.{n}.attention.branch.out": "h.{n}.attn.c_proj",
    "blocks.{n}.feed_forward.norm": "h.{n}.ln_2",
    "blocks.{n}.feed_forward.branch.up": "h.{n}.mlp.c_fc",
    "blocks.{n}.feed_forward.branch.down": "h.{n}.mlp.c_proj",
}
TRANSPOSED = re.compile(r"h\.\d+\.(attn|mlp)\.c_\w+\.weight")


class GPT2(Layout):
    """A causal stack with learned positions; scores share the table of words."""

    kinds = ("gpt2",)
    roots = ("transformer.",)
    spare = (r"h\.\d+\.attn\.(bias|masked_bias)", r"lm_head\..*", r"score\..*")
    encoder_names: Mapping[str, str | Part] = {
        "steps.embedding": "wte",
        **{f"blocks.{ours}": theirs for ours, theirs in STACK.items()},
    }
    decoder_names: Mapping[str, str | Part] = {
        "embed": "wte",
        **{f"stack.{ours}": theirs for ours, theirs in STACK.items()},
    }

    def blocks(self) -> dict[str, Any]:
        if self.config.get("scale_attn_by_inverse_layer_idx") or not self.config.get("scale_attn_weights", True):
            raise UsageError("attention that is scaled by the block is not done here", place=self.files.path)
        width = self.number("n_embd")
        return {
            "width": width,
            "depth": self.number("n_layer"),
            "heads": self.number("n_head"),
            "hidden": self.number("n_inner", default=4 * width),
            "feed_forward": self.activation("activation_function"),
            "norm": "layer",
            "norm_first": True,
            "norm_input": False,
            "eps": float(self.config.get("layer_norm_epsilon", 1e-5)),
            "bias": True,
            "positions": "learned",
        }

    def encoder(self) -> Plan:
        chosen = {"pooling": "last", "dropout": float(self.config.get("resid_pdrop", 0.1))}
        return Plan("transformer", {**self.blocks(), "causal": True}, chosen, TEXT)

    def decoder(self) -> Plan:
        chosen = {"dropout": float(self.config.get("resid_pdrop", 0.1))}
        return Plan("transformer", {**self.blocks(), "tie": True}, chosen, TEXT)

    def positions(self) -> int:
        return self.number("n_positions", "n_ctx", default=1024)

    def read(self, name: str) -> Tensor:
        found = super().read(name)
        return found.T if TRANSPOSED.fullmatch(name) else found

    def tensor(self, role: Role, name: str, own: Tensor) -> Tensor:
        found = super().tensor(role, name, own)
        return self.first_places(found, own) if name.endswith("positions.table.weight") else found
