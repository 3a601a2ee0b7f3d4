"""BERT and its relatives: RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, and what was distilled from them (MiniLM).

Devlin et al. 2019 (arXiv:1810.04805); Liu et al. 2019 (arXiv:1907.11692); Sanh et al. 2019 (arXiv:1910.01108).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from ...errors import UsageError
from .layout import Layout, Part, Plan, Role

__all__ = ["Bert", "DistilBert", "Roberta"]

TEXT: dict[str, Any] = {"tokenizer": "published", "normalise": "none", "lowercase": False}


class Bert(Layout):
    """Words, places and kinds of words, normalised; blocks that normalise after each part.

    The first kind of words is all that is ever read here: its vector is added to those of the places.
    """

    kinds: ClassVar[tuple[str, ...]] = ("bert",)
    roots: ClassVar[tuple[str, ...]] = ("bert.", "model.")
    spare: ClassVar[tuple[str, ...]] = (
        r"pooler\..*",
        r"cls\..*",
        r"classifier\..*",
        r"lm_head\..*",
        r".*position_ids",
        r"qa_outputs\..*",
    )
    encoder_names: Mapping[str, str | Part] = {
        "steps.embedding": "embeddings.word_embeddings",
        "blocks.positions.table": "embeddings.position_embeddings",
        "blocks.norm_input": "embeddings.LayerNorm",
        "blocks.blocks.{n}.attention.branch.query": "encoder.layer.{n}.attention.self.query",
        "blocks.blocks.{n}.attention.branch.key": "encoder.layer.{n}.attention.self.key",
        "blocks.blocks.{n}.attention.branch.value": "encoder.layer.{n}.attention.self.value",
        "blocks.blocks.{n}.attention.branch.out": "encoder.layer.{n}.attention.output.dense",
        "blocks.blocks.{n}.attention.norm": "encoder.layer.{n}.attention.output.LayerNorm",
        "blocks.blocks.{n}.feed_forward.branch.up": "encoder.layer.{n}.intermediate.dense",
        "blocks.blocks.{n}.feed_forward.branch.down": "encoder.layer.{n}.output.dense",
        "blocks.blocks.{n}.feed_forward.norm": "encoder.layer.{n}.output.LayerNorm",
    }
    first_place: ClassVar[int] = 0  # where the table of places begins
    word_kinds: ClassVar[str] = "embeddings.token_type_embeddings.weight"

    def encoder(self) -> Plan:
        if self.config.get("position_embedding_type", "absolute") != "absolute" or self.config.get("is_decoder"):
            raise UsageError("relative positions, or a decoder, of BERT are not read", place=self.files.path)
        fixed = {
            "width": self.number("hidden_size", "dim"),
            "depth": self.number("num_hidden_layers", "n_layers"),
            "heads": self.number("num_attention_heads", "n_heads"),
            "hidden": self.number("intermediate_size", "hidden_dim"),
            "feed_forward": self.activation("hidden_act", "activation"),
            "norm": "layer",
            "norm_first": False,
            "norm_input": True,
            "eps": float(self.config.get("layer_norm_eps", 1e-12)),
            "bias": True,
            "positions": "learned",
            "causal": False,
        }
        dropout = self.config.get("hidden_dropout_prob", self.config.get("dropout", 0.1))
        return Plan("transformer", fixed, {"pooling": self.pooling(), "dropout": float(dropout)}, TEXT)

    def pooling(self) -> str:
        """As the folder of a sentence model says; else the mean."""
        told = self.files.json("1_Pooling/config.json") or {}
        return (
            "first" if told.get("pooling_mode_cls_token") else "last" if told.get("pooling_mode_lasttoken") else "mean"
        )

    def positions(self) -> int:
        told = (self.files.json("sentence_bert_config.json") or {}).get("max_seq_length")
        there = self.number("max_position_embeddings") - self.first_place
        return min(there, told) if isinstance(told, int) else there

    def tensor(self, role: Role, name: str, own: Tensor) -> Tensor:
        if name != "blocks.positions.table.weight":
            return super().tensor(role, name, own)
        places = self.first_places(self.copied(role, name)[self.first_place :], own)
        return places + self.read(self.word_kinds)[0] if self.has(self.word_kinds) else places

    def known(self, name: str) -> bool:
        return name == self.word_kinds or super().known(name)


class Roberta(Bert):
    """Places are counted from the id of padding on, and one more."""

    kinds: ClassVar[tuple[str, ...]] = ("roberta", "xlm-roberta", "camembert")
    roots: ClassVar[tuple[str, ...]] = ("roberta.", "model.")
    first_place = 2


class DistilBert(Bert):
    """Other names, and no kinds of words."""

    kinds: ClassVar[tuple[str, ...]] = ("distilbert",)
    roots: ClassVar[tuple[str, ...]] = ("distilbert.", "model.")
    spare: ClassVar[tuple[str, ...]] = (
        r"vocab_\w+\..*",
        r"pre_classifier\..*",
        r"classifier\..*",
        r"qa_outputs\..*",
        r".*position_ids",
    )
    encoder_names: Mapping[str, str | Part] = {
        "steps.embedding": "embeddings.word_embeddings",
        "blocks.positions.table": "embeddings.position_embeddings",
        "blocks.norm_input": "embeddings.LayerNorm",
        "blocks.blocks.{n}.attention.branch.query": "transformer.layer.{n}.attention.q_lin",
        "blocks.blocks.{n}.attention.branch.key": "transformer.layer.{n}.attention.k_lin",
        "blocks.blocks.{n}.attention.branch.value": "transformer.layer.{n}.attention.v_lin",
        "blocks.blocks.{n}.attention.branch.out": "transformer.layer.{n}.attention.out_lin",
        "blocks.blocks.{n}.attention.norm": "transformer.layer.{n}.sa_layer_norm",
        "blocks.blocks.{n}.feed_forward.branch.up": "transformer.layer.{n}.ffn.lin1",
        "blocks.blocks.{n}.feed_forward.branch.down": "transformer.layer.{n}.ffn.lin2",
        "blocks.blocks.{n}.feed_forward.norm": "transformer.layer.{n}.output_layer_norm",
    }
