"""Files of small published models that are written without the library that publishes them: GPT-2's, and GGUF."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["CONFIG", "WIDTH", "tensors", "write_llama", "write_tokenizer"]

WIDTH, WORDS, PLACES = 8, 268, 16
TOKENS = ["<|endoftext|>", *sorted(map(chr, {*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)}))]
CONFIG = {
    "model_type": "gpt2", "n_embd": WIDTH, "n_layer": 1, "n_head": 2, "n_positions": PLACES, "vocab_size": WORDS,
    "activation_function": "gelu_new", "eos_token_id": 0, "bos_token_id": 0,
}  # fmt: skip


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = {
        "wte.weight": (WORDS, WIDTH), "wpe.weight": (PLACES, WIDTH), "ln_f.weight": (WIDTH,), "ln_f.bias": (WIDTH,),
        "h.0.ln_1.weight": (WIDTH,), "h.0.ln_1.bias": (WIDTH,), "h.0.ln_2.weight": (WIDTH,), "h.0.ln_2.bias": (WIDTH,),
        "h.0.attn.c_attn.weight": (WIDTH, 3 * WIDTH), "h.0.attn.c_attn.bias": (3 * WIDTH,),
        "h.0.attn.c_proj.weight": (WIDTH, WIDTH), "h.0.attn.c_proj.bias": (WIDTH,),
        "h.0.mlp.c_fc.weight": (WIDTH, 4 * WIDTH), "h.0.mlp.c_fc.bias": (4 * WIDTH,),
        "h.0.mlp.c_proj.weight": (4 * WIDTH, WIDTH), "h.0.mlp.c_proj.bias": (WIDTH,),
    }  # fmt: skip
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def write_tokenizer(folder: Path) -> None:
    vocabulary = {token: number for number, token in enumerate(TOKENS)}
    pairs = ["t h", "th e", "Ġ t"]
    for pair in pairs:
        vocabulary[pair.replace(" ", "")] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]), "utf-8")


class Writer:
    """A GGUF file, written for tests."""

    def __init__(self) -> None:
        self.head, self.pairs, self.names = b"", 0, 0
        self.directory, self.data = b"", b""

    @staticmethod
    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    def put(self, key: str, value: Any) -> None:
        kinds = {bool: (7, "<?"), int: (4, "<I"), float: (6, "<f")}
        self.pairs += 1
        self.head += self.text(key)
        if isinstance(value, str):
            self.head += struct.pack("<I", 8) + self.text(value)
        elif isinstance(value, list):
            inner = 8 if isinstance(value[0], str) else 5
            self.head += struct.pack("<IIQ", 9, inner, len(value))
            self.head += b"".join(self.text(one) if inner == 8 else struct.pack("<i", one) for one in value)
        else:
            kind, form = kinds[type(value)]
            self.head += struct.pack("<I", kind) + struct.pack(form, value)

    def tensor(self, name: str, value: NDArray[np.float32], kind: int = 0) -> None:
        self.names += 1
        self.directory += self.text(name) + struct.pack("<I", value.ndim)
        self.directory += struct.pack(f"<{value.ndim}Q", *value.shape[::-1])
        self.directory += struct.pack("<IQ", kind, len(self.data))
        raw = value.astype("<f2" if kind == 1 else "<f4").tobytes()
        self.data += raw + b"\0" * (-len(raw) % 32)

    def write(self, path: Path) -> None:
        head = b"GGUF" + struct.pack("<IQQ", 3, self.names, self.pairs) + self.head + self.directory
        path.write_bytes(head + b"\0" * (-len(head) % 32) + self.data)


HEADS, HALF = 4, 4  # of queries; pairs of units in each


def interleaved(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of a head as the format wants them: unit i beside unit i + HALF."""
    out = np.empty_like(rows)
    for head in range(heads):
        for pair in range(HALF):
            for side in range(2):
                out[head * 2 * HALF + 2 * pair + side] = rows[head * 2 * HALF + side * HALF + pair]
    return out


def write_llama(path: Path, *, architecture: str = "llama", **more: Any) -> dict[str, NDArray[np.float32]]:
    """A small Llama; gives its weights under the names of safetensors."""
    random = np.random.default_rng(0)
    width, hidden, tokens = 32, 16, [*TOKENS, "th", "the"]
    writer = Writer()
    writer.put("general.architecture", architecture)
    for key, value in {
        "block_count": 1, "embedding_length": width, "feed_forward_length": hidden, "attention.head_count": HEADS,
        "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-5, "context_length": 64,
        "rope.freq_base": 500.0,
    }.items():  # fmt: skip
        writer.put(f"{architecture}.{key}", value)
    for key, value in {
        "model": "gpt2", "pre": "smollm", "tokens": tokens, "merges": ["t h", "th e"],
        "token_type": [3] + [1] * (len(tokens) - 1), "bos_token_id": 0, "eos_token_id": 0, **more,
    }.items():  # fmt: skip
        writer.put(f"tokenizer.ggml.{key}", value)
    shapes = {
        "token_embd.weight": ("model.embed_tokens.weight", (len(tokens), width)),
        "output_norm.weight": ("model.norm.weight", (width,)),
        "blk.0.attn_norm.weight": ("model.layers.0.input_layernorm.weight", (width,)),
        "blk.0.attn_q.weight": ("model.layers.0.self_attn.q_proj.weight", (width, width)),
        "blk.0.attn_k.weight": ("model.layers.0.self_attn.k_proj.weight", (width // 2, width)),
        "blk.0.attn_v.weight": ("model.layers.0.self_attn.v_proj.weight", (width // 2, width)),
        "blk.0.attn_output.weight": ("model.layers.0.self_attn.o_proj.weight", (width, width)),
        "blk.0.ffn_norm.weight": ("model.layers.0.post_attention_layernorm.weight", (width,)),
        "blk.0.ffn_gate.weight": ("model.layers.0.mlp.gate_proj.weight", (hidden, width)),
        "blk.0.ffn_up.weight": ("model.layers.0.mlp.up_proj.weight", (hidden, width)),
        "blk.0.ffn_down.weight": ("model.layers.0.mlp.down_proj.weight", (width, hidden)),
    }
    out = {}
    for name, (key, shape) in shapes.items():
        out[key] = random.standard_normal(shape).astype(np.float16).astype(np.float32)
        heads = {"blk.0.attn_q.weight": HEADS, "blk.0.attn_k.weight": 2}.get(name, 0)
        stored = interleaved(out[key], heads) if heads and architecture == "llama" else out[key]
        writer.tensor(name, stored, kind=1 if out[key].ndim == 2 else 0)
    writer.write(path)
    return out
