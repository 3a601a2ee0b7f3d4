"""Small published models, as the library ``transformers`` builds them, and ours, which take over their weights.

Ours are called with the library's arguments and give the outputs that are compared, by the library's names. What is
not one of our layers (tables of words, entrances, scores) is plain torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from zhixing.layers.positions import Sinusoidal
from zhixing.layers.transformer import PRESETS, Transformer, TransformerSettings
from zhixing.models import Spec
from zhixing.models.vit import ViT

WORDS, WIDTH, HEADS, HIDDEN, DEPTH, LENGTH = 23, 16, 4, 24, 2, 12
MELS, PICTURE, PATCH = 5, 12, 4

Tensors = dict[str, Tensor]


def small(name: str, **changes: Any) -> TransformerSettings:
    """A preset at a size for tests."""
    chosen = {"heads": HEADS, "hidden": HIDDEN, "kv_heads": 2 if PRESETS[name].kv_heads else None}
    return TransformerSettings.model_validate(PRESETS[name].model_dump() | chosen | changes)


def stack(name: str) -> Transformer:
    return Transformer(WIDTH, DEPTH, small(name), length=LENGTH, cross=name.endswith("_decoder"))


def padded(texts: Sequence[Tensor], left: bool = False) -> tuple[Tensor, Tensor]:
    """Texts side by side [B, T] and which of their words are real; padding is a word like others, to be ignored."""
    most = max(map(len, texts))
    words, real = torch.full((len(texts), most), 1), torch.zeros(len(texts), most, dtype=torch.bool)
    for row, text in enumerate(texts):
        where = slice(most - len(text), most) if left else slice(len(text))
        words[row, where], real[row, where] = text, True
    return words, real


class Ours(nn.Module):
    """Base of our side. ``names`` says what parts of the library's names are in ours, the first that fits."""

    names: ClassVar[dict[str, str]]

    @staticmethod
    def published() -> transformers.PreTrainedModel:
        """Their side, at the same size."""
        raise NotImplementedError

    def untangle(self, tensors: Tensors, gradient: bool) -> Tensors:
        """Tensors by their names, one for each of our weights; a gradient may need another factor than its weight."""
        return tensors

    def translate(self, tensors: Tensors, *, gradient: bool = False) -> Tensors:
        """Their weights or gradients by our names. What is done to them is linear, so that it is right for both."""
        pattern = re.compile("|".join(map(re.escape, self.names)))
        untangled = self.untangle(tensors, gradient)
        return {pattern.sub(lambda found: self.names[found[0]], name): tensor for name, tensor in untangled.items()}

    @staticmethod
    def source(length: int) -> Tensor:
        """A random source, where there is one."""
        return torch.randint(1, WORDS, (length,))

    @staticmethod
    def inputs(texts: Sequence[Tensor], sources: Sequence[Tensor], left: bool = False) -> Tensors:
        """The arguments of both sides for a batch."""
        raise NotImplementedError


# One stack: a reader of words


class Reader(Ours):
    """Words through a causal stack to scores [B, T, V] of the next ones."""

    preset: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.stack = stack(self.preset)

    def scores(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.words.weight)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensors:
        hidden = self.stack(self.words(input_ids), attention_mask.bool(), at=position_ids)
        return {"logits": self.scores(hidden)}

    @staticmethod
    def inputs(texts: Sequence[Tensor], sources: Sequence[Tensor], left: bool = False) -> Tensors:
        words, real = padded(texts, left)
        return {"input_ids": words, "attention_mask": real.long(), "position_ids": (real.cumsum(1) - 1).clamp(min=0)}


class GPT2(Reader):
    """Scores share the table of the words. Their linear layers are transposed, and three of them are one."""

    preset = "gpt2"
    names: ClassVar = {
        "transformer.wte": "words",
        "transformer.wpe": "stack.positions.table",
        "transformer.ln_f": "stack.norm",
        "transformer.h": "stack.blocks",
        "ln_1": "attention.norm",
        "ln_2": "feed_forward.norm",
        "attn.c_proj": "attention.branch.out",
        "attn": "attention.branch",
        "mlp.c_fc": "feed_forward.branch.up",
        "mlp.c_proj": "feed_forward.branch.down",
    }

    @staticmethod
    def published() -> transformers.PreTrainedModel:
        config = transformers.GPT2Config(
            vocab_size=WORDS, n_embd=WIDTH, n_layer=DEPTH, n_head=HEADS, n_inner=HIDDEN, n_positions=LENGTH,
            bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config)

    def untangle(self, tensors: Tensors, gradient: bool) -> Tensors:
        out = Tensors()
        for name, tensor in tensors.items():
            if re.search(r"\.c_\w+\.weight$", name):
                tensor = tensor.T
            if "c_attn" in name:
                for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    out[name.replace("c_attn", part)] = third
            else:
                out[name] = tensor
        return out


class Llama(Reader):
    preset = "llama"
    names: ClassVar = {
        "model.embed_tokens": "words",
        "model.norm": "stack.norm",
        "model.layers": "stack.blocks",
        "lm_head": "head",
        "input_layernorm": "attention.norm",
        "post_attention_layernorm": "feed_forward.norm",
        "self_attn.q_proj": "attention.branch.query",
        "self_attn.k_proj": "attention.branch.key",
        "self_attn.v_proj": "attention.branch.value",
        "self_attn.o_proj": "attention.branch.out",
        "mlp.gate_proj": "feed_forward.branch.gate",
        "mlp.up_proj": "feed_forward.branch.up",
        "mlp.down_proj": "feed_forward.branch.down",
    }

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, WORDS, bias=False)

    def scores(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.head(hidden)
        return out

    @staticmethod
    def published() -> transformers.PreTrainedModel:
        config = transformers.LlamaConfig(
            vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
            num_key_value_heads=2, intermediate_size=HIDDEN, rms_norm_eps=PRESETS["llama"].eps,
            bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        return transformers.LlamaForCausalLM(config)


class Bert(Reader):
    """All words look at all. Each is also of one of two kinds (here: even and odd ones); the first is the summary."""

    preset = "bert"
    names: ClassVar = {
        "embeddings.word_embeddings": "words",
        "embeddings.token_type_embeddings": "kinds",
        "embeddings.position_embeddings": "stack.positions.table",
        "embeddings.LayerNorm": "stack.norm_input",
        "encoder.layer": "stack.blocks",
        "attention.self": "attention.branch",
        "attention.output.dense": "attention.branch.out",
        "attention.output.LayerNorm": "attention.norm",
        "intermediate.dense": "feed_forward.branch.up",
        "output.dense": "feed_forward.branch.down",
        "output.LayerNorm": "feed_forward.norm",
        "pooler.dense": "pooler",
    }

    def __init__(self) -> None:
        super().__init__()
        self.kinds = nn.Embedding(2, WIDTH)
        self.pooler = nn.Linear(WIDTH, WIDTH)

    @staticmethod
    def published() -> transformers.PreTrainedModel:
        config = transformers.BertConfig(
            vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
            intermediate_size=HIDDEN, max_position_embeddings=LENGTH,
        )  # fmt: skip
        return transformers.BertModel(config)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, **given: Tensor) -> Tensors:  # type: ignore[override]
        x_BTD = self.words(input_ids) + self.kinds(token_type_ids)
        hidden = self.stack(x_BTD, given["attention_mask"].bool(), at=given["position_ids"])
        return {"last_hidden_state": hidden, "pooler_output": self.pooler(hidden[:, 0]).tanh()}

    @staticmethod
    def inputs(texts: Sequence[Tensor], sources: Sequence[Tensor], left: bool = False) -> Tensors:
        given = Reader.inputs(texts, sources, left)
        return {**given, "token_type_ids": given["input_ids"] % 2}


class Vision(Ours):
    """Our encoder of pictures as it is."""

    names: ClassVar = {
        "embeddings.patch_embeddings.projection": "encoder.patches",
        "embeddings.cls_token": "encoder.cls",
        "embeddings.position_embeddings": "encoder.blocks.positions.table.weight",
        "layers": "encoder.blocks.blocks",
        "layernorm_before": "attention.norm",
        "layernorm_after": "feed_forward.norm",
        "layernorm": "encoder.blocks.norm",
        "attention.q_proj": "attention.branch.query",
        "attention.k_proj": "attention.branch.key",
        "attention.v_proj": "attention.branch.value",
        "attention.o_proj": "attention.branch.out",
        "mlp.fc1": "feed_forward.branch.up",
        "mlp.fc2": "feed_forward.branch.down",
    }

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ViT(Spec("image", (3, PICTURE, PICTURE)), patch=PATCH, width=WIDTH, depth=DEPTH, heads=HEADS)

    @staticmethod
    def published() -> transformers.PreTrainedModel:
        config = transformers.ViTConfig(
            hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
            image_size=PICTURE, patch_size=PATCH, layer_norm_eps=PRESETS["vit"].eps,
        )  # fmt: skip
        return transformers.ViTModel(config, add_pooling_layer=False)

    def untangle(self, tensors: Tensors, gradient: bool) -> Tensors:
        return {name: tensor[0] if "position" in name else tensor for name, tensor in tensors.items()}

    def forward(self, pixel_values: Tensor) -> Tensors:
        encoding = self.encoder(pixel_values)
        return {"last_hidden_state": torch.cat([encoding.pooled[:, None], encoding.tokens], dim=1)}

    @staticmethod
    def source(length: int) -> Tensor:
        return torch.randn(3, PICTURE, PICTURE)

    @staticmethod
    def inputs(texts: Sequence[Tensor], sources: Sequence[Tensor], left: bool = False) -> Tensors:
        return {"pixel_values": torch.stack(list(sources))}


# Two stacks: an encoder of a source, a decoder that looks at it

PARTS = {
    "self_attn_layer_norm": "attention.norm",
    "encoder_attn_layer_norm": "cross.norm",
    "final_layer_norm": "feed_forward.norm",
    "model.encoder.layer_norm": "encoder.norm",
    "model.decoder.layer_norm": "decoder.norm",
    "model.encoder.layernorm_embedding": "encoder.norm_input",
    "model.decoder.layernorm_embedding": "decoder.norm_input",
    "model.encoder.embed_positions": "encoder.positions.table",
    "model.decoder.embed_positions": "decoder.positions.table",
    "model.encoder.layers": "encoder.blocks",
    "model.decoder.layers": "decoder.blocks",
    "model.shared": "words",
    "self_attn.q_proj": "attention.branch.query",
    "self_attn.k_proj": "attention.branch.key",
    "self_attn.v_proj": "attention.branch.value",
    "self_attn.out_proj": "attention.branch.out",
    "encoder_attn.q_proj": "cross.branch.query",
    "encoder_attn.k_proj": "cross.branch.key",
    "encoder_attn.v_proj": "cross.branch.value",
    "encoder_attn.out_proj": "cross.branch.out",
    "fc1": "feed_forward.branch.up",
    "fc2": "feed_forward.branch.down",
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
        "layer.0.SelfAttention.q": "attention.branch.query",
        "layer.0.SelfAttention.k": "attention.branch.key",
        "layer.0.SelfAttention.v": "attention.branch.value",
        "layer.0.SelfAttention.o": "attention.branch.out",
        "layer.0.layer_norm": "attention.norm",
        "layer.1.EncDecAttention.q": "cross.branch.query",
        "layer.1.EncDecAttention.k": "cross.branch.key",
        "layer.1.EncDecAttention.v": "cross.branch.value",
        "layer.1.EncDecAttention.o": "cross.branch.out",
        "layer.1.layer_norm": "cross.norm",
        "layer.2.DenseReluDense.wi": "feed_forward.branch.up",
        "layer.2.DenseReluDense.wo": "feed_forward.branch.down",
        "layer.2.layer_norm": "feed_forward.norm",
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


class Pair(NamedTuple):
    ours: Any
    theirs: Any


def make_pair(side: type[Ours]) -> Pair:
    """Both sides with the same random weights, none of which is zero or one."""
    torch.manual_seed(0)
    ours, theirs = side().eval(), side.published().eval()
    theirs.set_attn_implementation("eager")  # the formula, not a kernel that both sides would share
    with torch.no_grad():
        for weight in theirs.parameters():
            if weight.requires_grad:
                weight += 0.2 * torch.randn_like(weight)
        ours.load_state_dict(ours.translate(trained(theirs)))
    return Pair(ours, theirs)


def trained(module: nn.Module) -> Tensors:
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


SIDES: dict[str, type[Ours]] = {
    "bart": Bart,
    "bert": Bert,
    "gpt2": GPT2,
    "llama": Llama,
    "marian": Marian,
    "t5": T5,
    "vit": Vision,
    "whisper": Whisper,
}
