"""What writes a text: a literal table of the decoders' names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .decoder import Decoder, Forced
from .decoder_ctc import CTC
from .decoder_recurrent import RecurrentDecoder
from .decoder_transformer import TransformerDecoder

__all__ = ["CTC", "DECODERS", "Decoder", "Forced", "RecurrentDecoder", "TransformerDecoder"]

DECODERS: dict[str, Callable[..., Any]] = {"transformer": TransformerDecoder, "gru": RecurrentDecoder, "ctc": CTC}
