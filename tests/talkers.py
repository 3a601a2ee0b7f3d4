"""A small published model that knows the marks of a chat, and tables to teach it with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from published_models import LLAMA, ROWS, SIZES, byte_tokenizer, save

__all__ = ["PAIRS", "QUESTIONS", "TRAINING", "talker"]

NAMES = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
QUESTIONS = {
    "instruction": [f"Say {word} {number}" for number in range(8) for word in ("cat", "dog", "mat")],
    "answer": [f"The {word} sat down." for _ in range(8) for word in ("cat", "dog", "mat")],
}
PAIRS = {
    "prompt": QUESTIONS["instruction"],
    "chosen": QUESTIONS["answer"],
    "rejected": [f"bark {number % 3} meow" for number in range(24)],
}
TRAINING: dict[str, Any] = {
    "epochs": 3, "batch_size": 5, "threads": 1, "precision": "fp32", "fine_tuning": "lora", "checkpoint_every": 2,
}  # fmt: skip


def talker(folder: Path, kind: str = "llama") -> Path:
    """A folder as the hub has it; ``kind``: llama, with rotary places, or gpt2, with learned ones."""
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=4, n_positions=200, vocab_size=ROWS)
        save(transformers.GPT2LMHeadModel(config), folder)
    else:
        config = transformers.LlamaConfig(**{**LLAMA, **SIZES, "max_position_embeddings": 240})
        save(transformers.LlamaForCausalLM(config), folder)
    byte_tokenizer(["<|endoftext|>", *NAMES.values()]).save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").write_text(json.dumps(NAMES), "utf-8")
    return folder
