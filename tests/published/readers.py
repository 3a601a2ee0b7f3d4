"""Published models of one stack: GPT-2, Llama, BERT, and ViT, which reads pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
import transformers
from published.sides import DEPTH, HEADS, HIDDEN, LENGTH, WIDTH, WORDS, Ours, Tensors, padded, parts, stack
from torch import Tensor, nn

from zhixing.layers.transformer import PRESETS
from zhixing.models import Spec
from zhixing.models.vit import ViT
from zhixing.pretrained.layouts import bert, gpt2, llama

SIZE, PATCH = 12, 4  # of a picture and its squares


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
        **parts(gpt2.STACK),
        "attn": "attention.branch",
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
        **parts(llama.STACK),
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
        **parts(bert.Bert.encoder_names),
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
        self.encoder = ViT(Spec("image", (3, SIZE, SIZE)), patch=PATCH, width=WIDTH, depth=DEPTH, heads=HEADS)

    @staticmethod
    def published() -> transformers.PreTrainedModel:
        config = transformers.ViTConfig(
            hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
            image_size=SIZE, patch_size=PATCH, layer_norm_eps=PRESETS["vit"].eps,
        )  # fmt: skip
        return transformers.ViTModel(config, add_pooling_layer=False)

    def untangle(self, tensors: Tensors, gradient: bool) -> Tensors:
        return {name: tensor[0] if "position" in name else tensor for name, tensor in tensors.items()}

    def forward(self, pixel_values: Tensor) -> Tensors:
        encoding = self.encoder(pixel_values)
        return {"last_hidden_state": torch.cat([encoding.pooled[:, None], encoding.tokens], dim=1)}

    @staticmethod
    def source(length: int) -> Tensor:
        return torch.randn(3, SIZE, SIZE)

    @staticmethod
    def inputs(texts: Sequence[Tensor], sources: Sequence[Tensor], left: bool = False) -> Tensors:
        return {"pixel_values": torch.stack(list(sources))}
