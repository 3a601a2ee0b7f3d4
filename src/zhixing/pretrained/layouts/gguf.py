"""GGUF's names of settings and tensors, in the words of the other files: config.json and safetensors."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ...errors import UsageError, did_you_mean
from ..gguf import GGUF

__all__ = ["FAMILIES", "Family", "Named", "config_of", "names_of"]


class Named(NamedTuple):
    """A tensor by its name in the file; with ``heads`` its rows are rotary pairs of so many heads, to be set apart."""

    name: str
    heads: int = 0


class Family(NamedTuple):
    """One architecture: its model_type, and the settings that all of its files share."""

    kind: str
    paired: bool  # whether queries and keys lie as pairs of units, as llama.cpp wants them
    fixed: dict[str, Any]


LLAMA: dict[str, Any] = {"hidden_act": "silu"}
FAMILIES: dict[str, Family] = {
    "llama": Family("llama", True, LLAMA),
    "qwen2": Family("qwen2", False, LLAMA),
    "qwen3": Family("qwen3", False, LLAMA),
}
# Settings: ours by the file's, after the architecture's own name and a dot.
SETTINGS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
}
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
WHOLE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "rope_freqs": "model.rope_freqs",
}
BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def config_of(gguf: GGUF) -> dict[str, Any]:
    """The file's settings as config.json would say them.

    Raises:
        UsageError: an architecture that is not known here.
    """
    told = gguf.settings
    architecture = str(told.get("general.architecture"))
    if architecture not in FAMILIES:
        raise UsageError(
            f"the architecture {architecture!r} is not read from GGUF",
            place=gguf.path,
            mend=did_you_mean(architecture, FAMILIES),
        )
    family = FAMILIES[architecture]
    config: dict[str, Any] = {"model_type": family.kind, **family.fixed}
    for theirs, ours in SETTINGS.items():
        if (value := told.get(f"{architecture}.{theirs}")) is not None:
            config[ours] = value
    if "rms_norm_eps" in config:  # 9.999999747378752e-06 in the file, which has no doubles
        config["rms_norm_eps"] = float(f"{config['rms_norm_eps']:.6g}")
    if told.get(f"{architecture}.rope.scaling.type", "none") != "none" or "rope_freqs.weight" in gguf.tensors:
        config["rope_scaling"] = {"rope_type": str(told.get(f"{architecture}.rope.scaling.type", "llama3"))}
    if "token_embd.weight" in gguf.tensors:
        config["vocab_size"] = gguf.tensors["token_embd.weight"].shape[0]
    config["tie_word_embeddings"] = "output.weight" not in gguf.tensors
    return config


def names_of(gguf: GGUF, config: dict[str, Any]) -> dict[str, Named]:
    """The file's tensors by the names they have in safetensors; a name that is not known stays as it is."""
    paired = FAMILIES[str(gguf.settings["general.architecture"])].paired
    heads = {"attn_q": config.get("num_attention_heads", 0)}
    heads["attn_k"] = config.get("num_key_value_heads", heads["attn_q"])
    out = {}
    for name in gguf.tensors:
        found = BLOCK.fullmatch(name)
        if found is not None:
            number, part, last = found.groups()
            key = f"model.layers.{number}.{PARTS[part]}.{last}" if part in PARTS else name
            out[key] = Named(name, heads.get(part, 0) if paired else 0)
        else:
            module, _, last = name.rpartition(".")
            out[f"{WHOLE[module]}.{last}" if module in WHOLE else name] = Named(name)
    return out
