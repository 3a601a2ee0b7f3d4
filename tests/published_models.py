"""Small published models of every family, with weights by chance, as the library ``transformers`` writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

__all__ = ["BERTS", "DECODERS", "LLAMA", "ROWS", "SIZES", "STACKS", "TEXTS", "byte_tokenizer", "publish", "save"]

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TEXTS = ["The cat sat on the mat.", "a", "Dogs bark, cats meow; naïve café", "on the mat the cat sat down again"]
ROWS = 300  # of tables of words


def byte_tokenizer(special: list[str], template: str | None = None) -> Tokenizer:
    """A small tokenizer over bytes, whose special tokens come first."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=ROWS - 8, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator(TEXTS * 2, trainer)
    if template is not None:
        pairs = [(name, library.token_to_id(name)) for name in special]
        library.post_processor = processors.TemplateProcessing(single=template, special_tokens=pairs)
    return library


def save(model: transformers.PreTrainedModel, folder: Path) -> Path:
    """A folder as the hub has it, of a model with weights none of which is zero or one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight += 0.1 * torch.randn_like(weight)
            if "norm" in name.lower() and name.endswith("running_var"):
                weight.abs_()
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.1 * torch.randn_like(buffer)
            if name.endswith("running_var"):
                buffer += torch.rand_like(buffer)
    model.save_pretrained(folder)
    return folder


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
BERTS: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "bert": lambda: transformers.BertModel(
        transformers.BertConfig(**SIZES, vocab_size=ROWS, max_position_embeddings=40)
    ),
    "bert-without-pooler": lambda: transformers.BertModel(
        transformers.BertConfig(**SIZES, vocab_size=ROWS, max_position_embeddings=40), add_pooling_layer=False
    ),
    "bert-for-masked": lambda: transformers.BertForMaskedLM(
        transformers.BertConfig(**SIZES, vocab_size=ROWS, max_position_embeddings=40, hidden_act="gelu_new")
    ),
    "roberta": lambda: transformers.RobertaModel(
        transformers.RobertaConfig(**SIZES, vocab_size=ROWS, max_position_embeddings=42, pad_token_id=1)
    ),
    "distilbert": lambda: transformers.DistilBertModel(
        transformers.DistilBertConfig(
            dim=16, n_layers=2, n_heads=4, hidden_dim=24, vocab_size=ROWS, max_position_embeddings=40
        )
    ),
}
LLAMA = {**SIZES, "num_key_value_heads": 2, "vocab_size": ROWS, "max_position_embeddings": 64, "pad_token_id": None}
DECODERS: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=16, n_layer=2, n_head=4, n_positions=40, vocab_size=ROWS)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)),
    "llama-tied": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**LLAMA, tie_word_embeddings=True, rope_theta=500.0)
    ),
    "llama-3.1": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **LLAMA,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 30.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        )
    ),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**LLAMA, head_dim=6)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**LLAMA)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**LLAMA, head_dim=8)),
}
T5 = {"d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 3, "vocab_size": ROWS}
WHISPER = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "vocab_size": ROWS, "max_source_positions": 1500,
    "max_target_positions": 40, "decoder_start_token_id": 3, "pad_token_id": 1, "eos_token_id": 1, "bos_token_id": 1,
}  # fmt: skip
STACKS: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(**T5, decoder_start_token_id=0, num_decoder_layers=3)
    ),
    "t5-1.1": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0)
    ),
    "whisper": lambda: transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**WHISPER)),
}


def publish(family: str, folder: Path) -> Path:
    """A folder as the hub has it of a family's small model, with its tokenizer."""
    save((BERTS | DECODERS | STACKS)[family](), folder)
    if family in STACKS:
        special = ["<pad>", "</s>", "<unk>", "<|startoftranscript|>", "<|notimestamps|>"]
        library, names = byte_tokenizer(special, "$A </s>"), {"pad_token": "<pad>", "eos_token": "</s>"}
    elif family in BERTS:
        start, end = ("<s>", "</s>") if family == "roberta" else ("[CLS]", "[SEP]")
        padding = "<pad>" if family == "roberta" else "[PAD]"
        names = {"cls_token": start, "sep_token": end, "pad_token": padding, "unk_token": "<unk>"}
        library = byte_tokenizer([start, padding, end, "<unk>", "<mask>"], f"{start} $A {end}")
    else:
        names = {"bos_token": "<s>", "eos_token": "</s>"}
        library = byte_tokenizer(["<unk>", "<s>", "</s>"])
    library.save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").write_text(json.dumps(names), "utf-8")
    return folder
