"""Whisper from CTranslate2's binary form to the form that it is published in: safetensors and config.json.

The file is a version, the name of the model's kind, a count, and for each tensor its name, rank, dimensions, type, size
and content; all numbers little-endian, names preceded by their length. Attention's first layer holds queries, keys and
values behind each other (to a source: the queries), its second what is left.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["convert_whisper"]

TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
NAMES = {
    "embeddings/weight": "embed_tokens.weight",
    "position_encodings/encodings": "embed_positions.weight",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
    "self_attention/linear_1": "self_attn.out_proj",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/linear_0": "encoder_attn.q_proj",
    "attention/linear_2": "encoder_attn.out_proj",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
FUSED = {"self_attention/linear_0": ("q", "k", "v"), "attention/linear_1": ("k", "v")}


def number(file: BinaryIO, form: str) -> int:
    (value,) = struct.unpack(form, file.read(struct.calcsize(form)))
    return int(value)


def text(file: BinaryIO) -> str:
    return file.read(number(file, "<H")).rstrip(b"\0").decode()


def read(path: Path) -> dict[str, Tensor]:
    out = {}
    with path.open("rb") as file:
        number(file, "<I"), text(file), number(file, "<I")
        for _ in range(number(file, "<I")):
            name = text(file)
            shape = [number(file, "<I") for _ in range(number(file, "<B"))]
            kind, size = number(file, "<B"), number(file, "<I")
            out[name] = torch.from_numpy(np.frombuffer(file.read(size), TYPES[kind]).reshape(shape).copy())
    return out


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for name, tensor in tensors.items():
        side, _, rest = name.partition("/")
        found = re.fullmatch(r"layer_(\d+)/((?:\w+/)?\w+?(?:_\d)?)/(weight|bias|gamma|beta)", rest)
        if found is None:
            if tensor.ndim:
                out[f"model.{side}.{NAMES.get(rest, rest.replace('/', '.'))}"] = tensor
            continue
        number_, module, last = found.groups()
        last = {"gamma": "weight", "beta": "bias"}.get(last, last)
        base = f"model.{side}.layers.{number_}"
        if module not in FUSED:
            out[f"{base}.{NAMES[module]}.{last}"] = tensor
            continue
        attention = "self_attn" if module.startswith("self") else "encoder_attn"
        for part, piece in zip(FUSED[module], tensor.chunk(len(FUSED[module])), strict=True):
            if (part, last) != ("k", "bias"):  # which the published model lacks, and is zero
                out[f"{base}.{attention}.{part}_proj.{last}"] = piece.clone()
    return {name: tensor for name, tensor in out.items() if "alignment" not in name}


def convert_whisper(source: Path, folder: Path) -> None:
    """Write a folder as the hub has it: config.json, model.safetensors, tokenizer.json."""
    tensors = renamed(read(source / "model.bin"))
    tokens, width = tensors["model.decoder.embed_tokens.weight"].shape
    layers = {
        side: 1 + max(int(name.split(".")[3]) for name in tensors if name.startswith(f"model.{side}.layers"))
        for side in ("encoder", "decoder")
    }
    library = json.loads((source / "tokenizer.json").read_text("utf-8"))
    ids = {token["content"]: token["id"] for token in library["added_tokens"]}
    hidden = tensors["model.encoder.layers.0.fc1.weight"].shape[0]
    config = {
        "model_type": "whisper",
        "activation_function": "gelu",
        "d_model": width,
        "vocab_size": tokens,
        "num_mel_bins": tensors["model.encoder.conv1.weight"].shape[1],
        "max_source_positions": len(tensors["model.encoder.embed_positions.weight"]),
        "max_target_positions": len(tensors["model.decoder.embed_positions.weight"]),
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    for side, count in layers.items():
        # Heads of 64 units each, in all published sizes.
        config |= {f"{side}_layers": count, f"{side}_attention_heads": width // 64, f"{side}_ffn_dim": hidden}
    save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
