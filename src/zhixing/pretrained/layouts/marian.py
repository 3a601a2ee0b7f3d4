"""Marian (Junczys-Dowmunt et al. 2018, arXiv:1804.00344): translation, as OPUS-MT publishes it.

Tiedemann and Thottingal, "OPUS-MT: building open translation services for the world", 2020.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import UsageError
from ...layers.positions import sinusoids
from .bart import BLOCK, blocks
from .bert import TEXT
from .layout import Layout, Part, Plan, Role

__all__ = ["Marian"]

SHARED = "shared.weight"
# What reads the decoder's units, and what writes them.
COLUMNS = re.compile(
    r".*\.(attention\.branch\.(query|key|value)|cross\.branch\.query|feed_forward\.branch\.up)\.weight"
)
ROWS = re.compile(r".*\.(norm|out|down)\.(weight|bias)")


class Marian(Layout):
    """Two stacks of the Transformer of 2017 that share one table of words, and a bias for the score of each word.

    Places are waves of which all sines stand before all cosines. The encoder has them as a table, which training may
    move, so that its tokens are the published ones to the unit. The decoder has the waves of this project, where sines
    and cosines take turns: its units are brought into their order, in all weights that read or write them, which
    changes no score. So its words are scaled up as they are read, and scored by the same table unscaled, as published.

    A model of several target languages is told which by the first word of what it reads, such as ``>>fr<<``.
    """

    kinds: ClassVar[tuple[str, ...]] = ("marian",)
    roots: ClassVar[tuple[str, ...]] = ("model.",)
    spare: ClassVar[tuple[str, ...]] = (
        r"shared\.weight",
        r"lm_head\.weight",
        r"final_logits_bias",
        r"(en|de)coder\.embed_(tokens|positions)\.weight",
    )
    fresh: ClassVar[tuple[str, ...]] = (r"project\..*",)
    encoder_names: Mapping[str, str | Part] = {
        f"blocks.blocks.{{n}}.{ours}": f"encoder.layers.{{n}}.{theirs}"
        for ours, theirs in BLOCK.items()
        if not ours.startswith("cross")
    }
    decoder_names: Mapping[str, str | Part] = {
        f"stack.blocks.{{n}}.{ours}": f"decoder.layers.{{n}}.{theirs}" for ours, theirs in BLOCK.items()
    }

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        shared = self.config.get("share_encoder_decoder_embeddings", True)
        if not shared or self.config.get("decoder_vocab_size") not in (None, self.number("vocab_size")):
            raise UsageError(
                "of Marian, models with one vocabulary for both languages are read, and this one has two",
                place=self.files.path,
                mend="Take one whose share_encoder_decoder_embeddings is true, as those of OPUS-MT mostly have it.",
            )
        self.scaled = bool(self.config.get("scale_embedding", False))
        self.tied = bool(self.config.get("tie_word_embeddings", True))

    def encoder(self) -> Plan:
        fixed = {**blocks(self, "encoder"), "norm_first": False, "positions": "learned", "causal": False}
        return Plan("transformer", fixed, {"pooling": "mean", "dropout": self.dropout()}, TEXT)

    def decoder(self) -> Plan:
        fixed = {
            **blocks(self, "decoder"),
            "norm_first": False,
            "positions": "sinusoidal",
            "tie": self.scaled and self.tied,
            "score_bias": self.has("final_logits_bias"),
            "join": "cross",
        }
        return Plan("transformer", fixed, {"dropout": self.dropout()}, TEXT, {"search": {"beams": self.beams()}})

    def dropout(self) -> float:
        return float(self.config.get("dropout", 0.1))

    def beams(self) -> int:
        """As many as it was published with."""
        told = (self.files.json("generation_config.json") or {}).get("num_beams", self.config.get("num_beams"))
        return told if isinstance(told, int) and told > 0 else 1

    def positions(self) -> int:
        return self.number("max_position_embeddings")

    def begin(self, library: Any, found: int) -> int:
        return self.number("decoder_start_token_id", "pad_token_id")

    def words(self, role: Role) -> Tensor:
        own = f"{role}.embed_tokens.weight"  # of a tied model a copy, if anything
        return self.rows(self.read(own if self.has(own) and not (self.tied and self.has(SHARED)) else SHARED))

    def tensor(self, role: Role, name: str, own: Tensor) -> Tensor:
        return self.of_encoder(name, own) if role == "encoder" else self.of_decoder(name, own)

    def of_encoder(self, name: str, own: Tensor) -> Tensor:
        if name == "blocks.positions.table.weight":  # float32 would be off by 1e-5 at the last places
            at = torch.arange(self.positions())
            return self.first_places(sinusoids(at, own.shape[1], torch.float64, interleaved=False).float(), own)
        if name == "steps.embedding.weight":  # which our encoder scales up before waves alone
            return self.words("encoder") * (math.sqrt(own.shape[1]) if self.scaled else 1.0)
        return self.copied("encoder", name)

    def of_decoder(self, name: str, own: Tensor) -> Tensor:
        if name in ("score_bias", "out.bias"):
            return self.rows(self.read("final_logits_bias").T)[:, 0]
        if name == "embed.weight":  # which our decoder always scales up
            return self.words("decoder")[:, units(own.shape[1])] / (1.0 if self.scaled else math.sqrt(own.shape[1]))
        if name == "out.weight":
            scored = self.words("decoder") if self.tied else self.rows(self.read("lm_head.weight"))
            return scored[:, units(own.shape[1])]
        found = self.copied("decoder", name)
        if COLUMNS.fullmatch(name):
            return found[:, units(found.shape[1])]
        return found[units(len(found))] if ROWS.fullmatch(name) else found


def units(width: int) -> Tensor:
    """Where each unit, of which sines and cosines take turns, stands when all sines come before all cosines.

    >>> units(5).tolist()
    [0, 3, 1, 4, 2]
    """
    unit = torch.arange(width)
    return unit // 2 + (unit % 2) * ((width + 1) // 2)
