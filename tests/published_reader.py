"""A small BERT's folder, written without the library that publishes it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

__all__ = ["WORDS", "reader"]

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "very", "a", "so", "the", "was"]
WIDTH, DEPTH = 16, 2


def reader(folder: Path) -> Path:
    """A small BERT's folder: its words, and its weights by their published names."""
    folder.mkdir()
    config = {
        "model_type": "bert", "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 2,
        "intermediate_size": 24, "hidden_act": "gelu", "max_position_embeddings": 20, "vocab_size": len(WORDS),
        "hidden_dropout_prob": 0.0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    library = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    library.normalizer, library.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    library.add_special_tokens(WORDS[:4])
    library.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    library.save(str(folder / "tokenizer.json"))
    torch.manual_seed(3)
    shapes = {f"embeddings.{name}_embeddings.weight": (rows, WIDTH) for name, rows in
              (("word", len(WORDS)), ("position", 20), ("token_type", 2))}  # fmt: skip
    shapes |= {f"embeddings.LayerNorm.{part}": (WIDTH,) for part in ("gamma", "beta")}  # as files of old have it
    for layer in range(DEPTH):
        base = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            shapes |= {f"{base}.attention.self.{name}.weight": (WIDTH, WIDTH),
                       f"{base}.attention.self.{name}.bias": (WIDTH,)}  # fmt: skip
        for name, (out, into) in (
            ("attention.output", (WIDTH, WIDTH)), ("intermediate", (24, WIDTH)), ("output", (WIDTH, 24)),
        ):  # fmt: skip
            shapes |= {f"{base}.{name}.dense.weight": (out, into), f"{base}.{name}.dense.bias": (out,)}
        for name in ("attention.output", "output"):
            shapes |= {f"{base}.{name}.LayerNorm.{part}": (WIDTH,) for part in ("weight", "bias")}
    save_file(
        {f"bert.{name}": 0.3 * torch.randn(shape) for name, shape in shapes.items()}, folder / "model.safetensors"
    )
    return folder
