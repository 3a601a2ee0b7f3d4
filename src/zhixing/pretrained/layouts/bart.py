"""What Marian and Whisper have of BART (Lewis et al. 2020, arXiv:1910.13461): names of a block's weights, sizes."""

from __future__ import annotations

from typing import Any

from .layout import Layout

__all__ = ["BLOCK", "blocks"]

BLOCK = {
    "attention.norm": "self_attn_layer_norm",
    "attention.branch.query": "self_attn.q_proj",
    "attention.branch.key": "self_attn.k_proj",
    "attention.branch.value": "self_attn.v_proj",
    "attention.branch.out": "self_attn.out_proj",
    "cross.norm": "encoder_attn_layer_norm",
    "cross.branch.query": "encoder_attn.q_proj",
    "cross.branch.key": "encoder_attn.k_proj",
    "cross.branch.value": "encoder_attn.v_proj",
    "cross.branch.out": "encoder_attn.out_proj",
    "feed_forward.norm": "final_layer_norm",
    "feed_forward.branch.up": "fc1",
    "feed_forward.branch.down": "fc2",
}


def blocks(layout: Layout, side: str) -> dict[str, Any]:
    """Settings of the blocks of one side, ``encoder`` or ``decoder``."""
    return {
        "width": layout.number("d_model"),
        "depth": layout.number(f"{side}_layers"),
        "heads": layout.number(f"{side}_attention_heads"),
        "hidden": layout.number(f"{side}_ffn_dim"),
        "feed_forward": layout.activation("activation_function"),
        "norm": "layer",
        "norm_input": False,
        "eps": 1e-5,
        "bias": True,
    }
