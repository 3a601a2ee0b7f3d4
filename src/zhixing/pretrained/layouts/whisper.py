"""Whisper (Radford et al. 2022, arXiv:2212.04356): speech to text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import UsageError
from .bart import BLOCK, blocks
from .bert import TEXT
from .layout import Layout, Part, Plan, Role

__all__ = ["Whisper"]

MULTILINGUAL = 51865  # tokens from which on there are languages to choose among


class Whisper(Layout):
    """Thirty seconds of mel bands through two convolutions and a stack; a decoder that looks at them.

    A text stands behind tokens that say what is wanted: here always a transcript without times, in the ``language``
    that is asked for (English if none is) where the model knows several. Keys have no bias there; ours is zero.
    """

    kinds: ClassVar[tuple[str, ...]] = ("whisper",)
    reads: ClassVar[str] = "audio"
    roots: ClassVar[tuple[str, ...]] = ("model.",)
    spare: ClassVar[tuple[str, ...]] = (r"proj_out\..*",)
    fresh: ClassVar[tuple[str, ...]] = (r"project\..*",)
    rate: ClassVar[float] = 1e-5
    encoder_names: Mapping[str, str | Part] = {
        "first": "encoder.conv1",
        "second": "encoder.conv2",
        "blocks.positions.table": "encoder.embed_positions",
        **{f"blocks.blocks.{{n}}.{ours}": f"encoder.layers.{{n}}.{theirs}" for ours, theirs in BLOCK.items()},
        "blocks.norm": "encoder.layer_norm",
    }
    decoder_names: Mapping[str, str | Part] = {
        "embed": "decoder.embed_tokens",
        "stack.positions.table": "decoder.embed_positions",
        **{f"stack.blocks.{{n}}.{ours}": f"decoder.layers.{{n}}.{theirs}" for ours, theirs in BLOCK.items()},
        "stack.norm": "decoder.layer_norm",
    }

    def blocks(self, side: str) -> dict[str, Any]:
        if self.config.get("scale_embedding"):
            raise UsageError("scaled vectors of tokens are not known of Whisper", place=self.files.path)
        return {**blocks(self, side), "norm_first": True, "positions": "learned"}

    def encoder(self) -> Plan:
        sound = {
            "features": "whisper",
            "rate": 16_000,
            "bands": self.number("num_mel_bins"),
            "window": 25.0,
            "hop": 10.0,
        }
        chosen = {"dropout": float(self.config.get("dropout", 0.0))}
        return Plan("whisper", self.blocks("encoder"), chosen, sound, {"longest": 30.0})

    def decoder(self) -> Plan:
        fixed = {**self.blocks("decoder"), "tie": True, "join": "cross"}
        chosen = {"dropout": float(self.config.get("dropout", 0.0))}
        return Plan("transformer", fixed, chosen, TEXT, {"search": {"beams": 5}})  # as its own command has it

    def positions(self) -> int:
        return self.number("max_target_positions") - 3

    def begin(self, library: Any, found: int) -> int:
        return self.number("decoder_start_token_id", default=found)

    @property
    def languages(self) -> bool:
        return self.number("vocab_size") >= MULTILINGUAL

    def lead(self, library: Any) -> tuple[int, ...]:
        names = ["<|notimestamps|>"]
        if self.languages:
            names = [f"<|{self.language or 'en'}|>", "<|transcribe|>", *names]
        found = [library.token_to_id(name) for name in names]
        if None in found:
            raise UsageError(
                f"the tokenizer lacks one of {', '.join(names)}",
                place=self.files.path,
                mend="Name a language by its code, such as en or zh.",
            )
        return tuple(found)

    def tensor(self, role: Role, name: str, own: Tensor) -> Tensor:
        if name.endswith(".key.bias"):
            return torch.zeros_like(own)
        found = super().tensor(role, name, own)
        return self.first_places(found, own) if name.endswith("positions.table.weight") else found
