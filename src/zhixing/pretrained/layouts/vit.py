"""The vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929), in the names of transformers and of timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from .layout import Part, Plan, Role
from .vision import Vision

__all__ = ["TimmViT", "ViT"]

HALF = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])


class ViT(Vision):
    """Patches behind a class token, each with a learned place."""

    kinds: ClassVar[tuple[str, ...]] = ("vit",)
    roots: ClassVar[tuple[str, ...]] = ("vit.",)
    spare: ClassVar[tuple[str, ...]] = (r"pooler\..*", r"classifier\..*", r".*mask_token")
    mean_std = HALF
    encoder_names: Mapping[str, str | Part] = {
        "patches": "embeddings.patch_embeddings.projection",
        "cls": "embeddings.cls_token",
        "blocks.positions.table.weight": "embeddings.position_embeddings",
        "blocks.blocks.{n}.attention.norm": "encoder.layer.{n}.layernorm_before",
        "blocks.blocks.{n}.attention.branch.query": "encoder.layer.{n}.attention.attention.query",
        "blocks.blocks.{n}.attention.branch.key": "encoder.layer.{n}.attention.attention.key",
        "blocks.blocks.{n}.attention.branch.value": "encoder.layer.{n}.attention.attention.value",
        "blocks.blocks.{n}.attention.branch.out": "encoder.layer.{n}.attention.output.dense",
        "blocks.blocks.{n}.feed_forward.norm": "encoder.layer.{n}.layernorm_after",
        "blocks.blocks.{n}.feed_forward.branch.up": "encoder.layer.{n}.intermediate.dense",
        "blocks.blocks.{n}.feed_forward.branch.down": "encoder.layer.{n}.output.dense",
        "blocks.norm": "layernorm",
    }

    def sizes(self) -> dict[str, Any]:
        return {
            "patch": self.number("patch_size"),
            "width": self.number("hidden_size"),
            "depth": self.number("num_hidden_layers"),
            "heads": self.number("num_attention_heads"),
            "hidden": self.number("intermediate_size"),
            "feed_forward": self.activation("hidden_act"),
            "eps": float(self.config.get("layer_norm_eps", 1e-12)),
            "qkv_bias": bool(self.config.get("qkv_bias", True)),
        }

    def side(self) -> int:
        return self.number("image_size")

    def encoder(self) -> Plan:
        rest = {"norm": "layer", "norm_first": True, "norm_input": False, "bias": True, "positions": "learned"}
        fixed = {**self.sizes(), **rest, "causal": False, "pooling": "cls"}
        column = {**self.column(), "size": self.side()}
        return Plan("vit", fixed, {"dropout": float(self.config.get("hidden_dropout_prob", 0.0))}, column)

    def tensor(self, role: Role, name: str, own: Tensor) -> Tensor:
        found = super().tensor(role, name, own)
        return found[0] if name == "blocks.positions.table.weight" else found


class TimmViT(ViT):
    """Queries, keys and values are one layer; sizes stand in the architecture's name."""

    kinds: ClassVar[tuple[str, ...]] = (
        "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_small_patch32_224", "vit_base_patch16_224",
        "vit_base_patch32_224", "vit_base_patch8_224", "vit_large_patch16_224", "vit_base_patch16_384",
        "vit_large_patch16_384", "deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224",
    )  # fmt: skip
    roots: ClassVar[tuple[str, ...]] = ()
    spare: ClassVar[tuple[str, ...]] = (r"head\..*", r"fc_norm\..*", r"pre_logits\..*")
    encoder_names: Mapping[str, str | Part] = {
        "patches": "patch_embed.proj",
        "cls": "cls_token",
        "blocks.positions.table.weight": "pos_embed",
        "blocks.blocks.{n}.attention.norm": "blocks.{n}.norm1",
        "blocks.blocks.{n}.attention.branch.query": Part("blocks.{n}.attn.qkv", 0, 3),
        "blocks.blocks.{n}.attention.branch.key": Part("blocks.{n}.attn.qkv", 1, 3),
        "blocks.blocks.{n}.attention.branch.value": Part("blocks.{n}.attn.qkv", 2, 3),
        "blocks.blocks.{n}.attention.branch.out": "blocks.{n}.attn.proj",
        "blocks.blocks.{n}.feed_forward.norm": "blocks.{n}.norm2",
        "blocks.blocks.{n}.feed_forward.branch.up": "blocks.{n}.mlp.fc1",
        "blocks.blocks.{n}.feed_forward.branch.down": "blocks.{n}.mlp.fc2",
        "blocks.norm": "norm",
    }
    widths: ClassVar[dict[str, tuple[int, int, int]]] = {  # width, depth, heads
        "tiny": (192, 12, 3),
        "small": (384, 12, 6),
        "base": (768, 12, 12),
        "large": (1024, 24, 16),
    }

    def sizes(self) -> dict[str, Any]:
        _, size, patch, _ = str(self.config["architecture"]).split("_")
        width, depth, heads = self.widths[size]
        shape = {"patch": int(patch.removeprefix("patch")), "width": width, "depth": depth, "heads": heads}
        return {**shape, "hidden": 4 * width, "feed_forward": "gelu", "eps": 1e-6, "qkv_bias": True}

    def side(self) -> int:
        return int(str(self.config["architecture"]).rpartition("_")[2])
