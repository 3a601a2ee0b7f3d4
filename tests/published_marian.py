"""A small model as OPUS-MT publishes its translators, with weights by chance."""

from __future__ import annotations

import io
import json
import os
import warnings
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported

import sentencepiece
import torch
import transformers

__all__ = ["CPU", "MOST", "PAIRS", "SOURCE", "their_tokenizer", "write_model"]

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

CPU = torch.device("cpu")
WIDTH, HEADS, MOST = 16, 4, 40
SUBJECTS = {"the cat": "le chat", "a dog": "un chien", "my brother": "mon frère", "the old man": "le vieil homme"}
VERBS = {"sees": "voit", "likes": "aime", "eats": "mange", "looks for": "cherche"}
OBJECTS = {"the bread": "le pain", "an apple": "une pomme", "her book": "son livre", "the house": "la maison"}
PAIRS = {
    f"{subject} {verb} {thing}.": f"{sujet} {verbe} {chose}."
    for subject, sujet in SUBJECTS.items()
    for verb, verbe in VERBS.items()
    for thing, chose in OBJECTS.items()
}
SOURCE = ["the cat eats her book.", "a dog", "my brother looks for the old house; naïve €", ">>fr<< the cat sees"]
ROLES = ("encoder", "decoder")


def pieces(texts: list[str]) -> bytes:
    """A SentencePiece model as OPUS-MT's are: </s> and <unk> first, no bytes for letters that it does not know."""
    model: Any = io.BytesIO()
    trainer: Any = sentencepiece.SentencePieceTrainer
    trainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=70, hard_vocab_limit=False, character_coverage=1,
        num_threads=1, eos_id=0, unk_id=1, bos_id=-1, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    made: bytes = model.getvalue()
    return made


def write_tokenizers(folder: Path) -> int:
    """Both languages' models and the table of the pieces of both; gives how many there are."""
    names = dict.fromkeys(["</s>", "<unk>"])
    for file, texts in (("source.spm", list(PAIRS)), ("target.spm", list(PAIRS.values()))):
        (folder / file).write_bytes(pieces(texts))
        processor = sentencepiece.SentencePieceProcessor(model_proto=(folder / file).read_bytes())
        names |= dict.fromkeys(processor.id_to_piece(number) for number in range(processor.get_piece_size()))
    numbers = {name: number for number, name in enumerate([*names, ">>fr<<", "<pad>"])}  # padding comes last
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False), "utf-8")
    told = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(told), "utf-8")
    return len(numbers)


def write_model(folder: Path, **more: Any) -> Path:
    """A folder as OPUS-MT has it, whose weights are drawn at random, the bias of scores among them."""
    folder.mkdir(exist_ok=True)
    rows = write_tokenizers(folder)
    sizes = {f"{side}_{part}": number for side in ROLES
             for part, number in (("layers", 2), ("attention_heads", HEADS), ("ffn_dim", 24))}  # fmt: skip
    config = transformers.MarianConfig(
        **{
            "vocab_size": rows, "d_model": WIDTH, **sizes, "activation_function": "swish", "scale_embedding": True,
            "max_position_embeddings": MOST, "pad_token_id": rows - 1, "decoder_start_token_id": rows - 1,
            "eos_token_id": 0, "bos_token_id": 0, "forced_eos_token_id": None, **more,
        }
    )  # fmt: skip
    torch.manual_seed(1)
    model = transformers.MarianMTModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "positions" not in name:
                weight += 0.2 * torch.randn_like(weight)
        model.final_logits_bias.normal_()
    model.save_pretrained(folder)
    return folder


def their_tokenizer(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it would like another library
        return transformers.MarianTokenizer.from_pretrained(folder)
