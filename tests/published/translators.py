"""Published models of two stacks, an encoder of a source and a decoder that looks at it: BART, Marian, T5, Whisper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
import transformers
from published.sides import DEPTH, HEADS, HIDDEN, LENGTH, WIDTH, WORDS, Ours, Tensors, padded, parts, stack
from torch import Tensor, nn

from zhixing.layers.positions import Sinusoidal
from zhixing.pretrained.layouts import t5, whisper

MELS = 5  # bands of a sound

PARTS = {
    "model.encoder.layer_norm": "encoder.norm",
    "model.decoder.layer_norm": "decoder.norm",
    "model.encoder.layernorm_embedding": "encoder.norm_input",
    "model.decoder.layernorm_embedding": "decoder.norm_input",
    "model.encoder.embed_positions": "encoder.positions.table",
    "model.decoder.embed_positions": "decoder.positions.table",
    "model.encoder.layers": "encoder.blocks",
    "model.decoder.layers": "decoder.blocks",
    "model.shared": "words",
    **{theirs: ours for ours, theirs in whisper.BLOCK.items()},
}
SIZES = {
    "d_model": WIDTH, "encoder_layers": DEPTH, "decoder_layers": DEPTH, "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS, "encoder_ffn_dim": HIDDEN, "decoder_ffn_dim": HIDDEN, "vocab_size": WORDS,
    "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None, "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}  # fmt: skip


class Translator(Ours):
    """A text to the scores of another's words; one table serves both texts and the scores."""

    preset: ClassVar[str]
    names: ClassVar = PARTS
    scale: ClassVar[float] = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.encoder, self.decoder = stack(self.preset), stack(f"{self.preset}_decoder")

    def enter(self, words: Tensor) -> Tensor:
        out: Tensor = self.words(words) * self.scale
        return out

    def scores(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.words.weight)

    def encode(self, given: Tensors) -> tuple[Tensor, Tensor | None]:
        """Vectors of the source, and which are real."""
        real = given["attention_mask"].bool()
        return self.encoder(self.enter(given["input_ids"]), real), real

    def forward(self, decoder_input_ids: Tensor, decoder_attention_mask: Tensor, **given: Tensor) -> Tensors:
        source, source_real = self.encode(given)
        hidden = self.decoder(
            self.enter(decoder_input_ids), decoder_attention_mask.bool(), source=source, source_real=source_real
        )
        return {"logits": self.scores(hidden)}

    @staticmethod
    def inputs(texts: Sequence[Tensor], sources: Sequence[Tensor], left: bool = False) -> Tensors:
        words, real = padded(texts)
        given = {"decoder_input_ids": words, "decoder_attention_mask": real.long()}
        words, real = padded(sources)
        return {**given, "input_ids": words, "attention_mask": real.long()}


class Bart(Translator):
    """Their table of positions begins with two that are not used."""

    preset = "bart"

    @staticmethod
    def published() -> transformers.PreTrainedModel:
        return transformers.BartForConditionalGeneration(
            transformers.BartConfig(**SIZES, max_position_embeddings=LENGTH, forced_bos_token_id=None)
        )

    def untangle(self, tensors: Tensors, gradient: bool) -> Tensors:
        return {name: tensor[2:] if "embed_positions" in name else tensor for name, tensor in tensors.items()}


class Marian(Translator):
    preset, scale = "marian", WIDTH**0.5

    def __init__(self) -> None:
        super().__init__()
        self.encoder.positions = self.decoder.positions = Sinusoidal(interleaved=False)

    @staticmethod
    def published() -> transformers.PreTrainedModel:
        return transformers.MarianMTModel(
            transformers.MarianConfig(
                **SIZES, max_position_embeddings=LENGTH, activation_function="swish", scale_embedding=True
            )
        )


class T5(Translator):
    """Vectors are scaled down before they are scored. Their scores of attention are not scaled: ours are, by
    1 / sqrt(C) for heads of width C, so that queries are sqrt(C) times theirs and their gradients 1 / sqrt(C) times."""

    preset = "t5"
    names: ClassVar = {
        "shared": "words",
        "coder.block.0.layer.0.SelfAttention.relative_attention_bias": "coder.positions.table",
        "coder.block": "coder.blocks",
        **parts(t5.block("decoder", 2)),
        "layer.2.DenseReluDense.wi": "feed_forward.branch.up",
        "final_layer_norm": "norm",
    }

    @staticmethod
    def published() -> transformers.PreTrainedModel:
        config = transformers.T5Config(
            d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=HIDDEN, num_layers=DEPTH, num_heads=HEADS, vocab_size=WORDS,
            eos_token_id=None, decoder_start_token_id=2,
        )  # fmt: skip
        return transformers.T5ForConditionalGeneration(config)

    def scores(self, hidden: Tensor) -> Tensor:
        return super().scores(hidden * WIDTH**-0.5)

    def untangle(self, tensors: Tensors, gradient: bool) -> Tensors:
        root, out = (WIDTH // HEADS) ** 0.5, Tensors()
        for name, tensor in tensors.items():
            if name.startswith("encoder"):  # whose feed-forward follows at once
                name = name.replace("layer.1", "layer.2")
            factor = 1.0 if not name.endswith("Attention.q.weight") else 1 / root if gradient else root
            out[name] = tensor * factor
        return out


class Entrance(nn.Module):
    """Two convolutions over time, the second of which halves it: [B, M, 2S] to [B, S, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MELS, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)

    def forward(self, sound: Tensor) -> Tensor:
        return F.gelu(self.conv2(F.gelu(self.conv1(sound)))).transpose(1, 2)


class Whisper(Translator):
    """Sound to words. Keys have no bias there; the longest wave of the positions is 2 pi x 10,000."""

    preset = "whisper"
    names: ClassVar = {
        "model.encoder.conv": "entrance.conv",
        "model.decoder.embed_tokens": "words",
        **PARTS,
    }

    def __init__(self) -> None:
        super().__init__()
        self.entrance = Entrance()
        pairs = WIDTH // 2
        self.encoder.positions = Sinusoidal(base=10_000 ** (pairs / (pairs - 1)), interleaved=False)

    @staticmethod
    def published() -> transformers.PreTrainedModel:
        config = transformers.WhisperConfig(
            **SIZES, num_mel_bins=MELS, max_source_positions=LENGTH, max_target_positions=LENGTH
        )
        return transformers.WhisperForConditionalGeneration(config)

    def untangle(self, tensors: Tensors, gradient: bool) -> Tensors:
        keys = {name: tensor for name, tensor in tensors.items() if name.endswith("k_proj.weight")}
        return tensors | {name[: -len("weight")] + "bias": tensor[:, 0] * 0 for name, tensor in keys.items()}

    def encode(self, given: Tensors) -> tuple[Tensor, Tensor | None]:
        return self.encoder(self.entrance(given["input_features"])), None

    @staticmethod
    def source(length: int) -> Tensor:
        return torch.randn(MELS, 2 * LENGTH)

    @staticmethod
    def inputs(texts: Sequence[Tensor], sources: Sequence[Tensor], left: bool = False) -> Tensors:
        words, real = padded(texts)
        return {
            "decoder_input_ids": words,
            "decoder_attention_mask": real.long(),
            "input_features": torch.stack(list(sources)),
        }
