"""Published weights in this project's layers, beside the library ``transformers`` or the truth.

MiniLM: cosine similarities of 200 pairs of sentences. SmolLM2-135M from GGUF: what it answers, its scores, and its
perplexity on a page of a dictionary. Whisper tiny.en: words that are wrong in five clips read aloud.
EfficientNet-Lite0: how many of twenty photographs are named rightly. One line of JSON each.

    python -m benchmarks.pretrained [minilm] [smollm2] [whisper] [efficientnet]

Weights are fetched once into ``downloads/``; after that no network is used.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported

import pyarrow as pa
import torch
import torch.nn.functional as F
from jiwer import process_words
from safetensors.torch import save_file
from torch import Tensor, nn

from zhixing.columns.text import Text
from zhixing.heads.text import TextHead
from zhixing.model import blank_encoding
from zhixing.models import ENCODERS
from zhixing.models.encoding import Spec
from zhixing.pretrained import open_model, untrained
from zhixing.verbs.predict import predict

from . import efficientnet_lite0
from .data import DOWNLOADS, english_dictionary, librivox, minilm, smollm2, translation, whisper_tiny_en

CPU = torch.device("cpu")
PAIRS, PAGE = 200, 3000  # pairs of sentences; characters of a page


def rows_of(column: Text, texts: list[str]) -> list[Tensor]:
    done = column.tensorize(pa.array(texts), Path)
    assert done.lengths is not None
    return [part.long() for part in torch.from_numpy(done.values).split(done.lengths.tolist())]


@torch.inference_mode()
def sentences() -> dict[str, Any]:
    """Largest difference of cosine similarities."""
    import transformers

    with translation("fr").open(encoding="utf-8", newline="") as file:
        texts = [row["en"] for row in csv.DictReader(file, delimiter="\t") if 30 < len(row["en"]) < 300][: 2 * PAIRS]
    model = open_model(minilm())
    plan = model.plan("encoder")
    column = Text(**plan.column, length=model.layout.positions())
    column.fitted = model.tokenizer
    encoder = ENCODERS[plan.name](column.spec(), **plan.open, **plan.fixed).eval()
    model.fill("encoder", encoder)
    reader, published = (
        transformers.AutoTokenizer.from_pretrained(minilm()),
        transformers.AutoModel.from_pretrained(minilm()).eval(),
    )
    ours, theirs = [], []
    for start in range(0, len(texts), 20):
        values = nn.utils.rnn.pad_sequence(rows_of(column, texts[start : start + 20]), batch_first=True)
        ours.append(encoder(values, values > 0).pooled)
        given = reader(texts[start : start + 20], padding=True, truncation=True, max_length=256, return_tensors="pt")
        real = given["attention_mask"][:, :, None]
        theirs.append((published(**given).last_hidden_state * real).sum(1) / real.sum(1))
    found, expected = (F.cosine_similarity(v[::2], v[1::2]) for v in (torch.cat(ours), torch.cat(theirs)))
    spread = {"lowest": round(float(expected.min()), 4), "highest": round(float(expected.max()), 4)}
    return {"pairs": len(found), "largest_difference": float((found - expected).abs().max()), **spread}


@torch.inference_mode()
def language() -> dict[str, Any]:
    """What SmolLM2 answers; differences of its scores and of its perplexity."""
    import transformers

    model = open_model(smollm2())
    plan = model.plan("decoder")
    column = Text(**plan.column, length=1024)
    column.role, column.fitted = "output", model.tokenizer
    settings = {**plan.open, **plan.fixed}
    head = TextHead(0, column, decoder=SimpleNamespace(name=plan.name, keywords=lambda: settings)).eval()
    model.fill("decoder", head.decoder)
    prompt = rows_of(column, ["The capital of France is"])[0][:-1]
    head.most = 8
    answer = column.restore(head.answer(blank_encoding(1, CPU), prompt=prompt[None]))[0]
    page = english_dictionary().read_text("utf-8", "replace")[-PAGE:]
    row = rows_of(column, [page])[0]
    scores = head(blank_encoding(1, CPU), row[None])[0]
    config = {key: value for key, value in model.files.config.items() if key != "model_type"}
    published = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    weights = {name: model.files.read(name) for name in model.files.names()}
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    published.load_state_dict(weights)
    order = torch.from_numpy(model.tokenizer.order)
    begun = torch.cat([torch.tensor([2]), row[:-1]])  # BEGIN
    expected = published(input_ids=order[begun][None]).logits[0]
    there = torch.tensor([token for token in range(len(order)) if token not in column.absent()])
    difference = (scores[:, there] - expected[:, order[there]]).abs().max()
    ours = F.cross_entropy(scores[:-1], row[:-1]).item()
    theirs = F.cross_entropy(expected[:-1], order[row[:-1]]).item()
    return {
        "answer": answer,
        "right": "Paris" in answer,
        "tokens_of_the_page": len(row) - 1,
        "largest_difference_of_scores": float(difference),
        "perplexity": math.exp(ours),
        "perplexity_of_transformers": math.exp(theirs),
    }


def words(text: str) -> str:
    """A text as it is compared: small letters, no marks, numbers and titles as they are spoken."""
    text = text.lower().replace("mr.", "mister").replace("mrs.", "missus").replace("-", " ")
    return " ".join(re.findall(r"[a-z']+", text))


def speech() -> dict[str, Any]:
    """Words that are wrong in each clip, with five beams (as Whisper's own command has it) and greedily."""
    rows = [json.loads(line) for line in librivox().read_text("utf-8").splitlines()]
    clips = [str(librivox().parent / row["audio"]) for row in rows]
    folder, out = str(whisper_tiny_en()), dict[str, Any]()
    for name, beams in (("wrong_words", 5), ("wrong_words_greedily", 1)):
        text = {"type": "text", "length": 100, "decoder": folder, "search": {"beams": beams}}
        audio = {"type": "audio", "encoder": folder}
        recipe, columns, model = untrained({"inputs": {"audio": audio}, "outputs": {"text": text}})
        said = predict(recipe, columns, model, clips, device=CPU)["text"].to_pylist()
        done = [process_words(row["text"], words(one)) for row, one in zip(rows, said, strict=True)]
        out[name] = [one.substitutions + one.deletions + one.insertions for one in done]
        out.setdefault("said", said)
    return out


@torch.inference_mode()
def photographs() -> dict[str, Any]:
    """Photographs that EfficientNet-Lite0 names rightly, read from a folder with its safetensors and a config.json."""
    efficientnet_lite0.download(DOWNLOADS)
    weights = efficientnet_lite0.load_weights(DOWNLOADS)
    with tempfile.TemporaryDirectory() as folder:
        save_file(weights, Path(folder) / "model.safetensors")
        (Path(folder) / "config.json").write_text('{"architecture": "efficientnet_lite0"}', "utf-8")
        model = open_model(folder)
        plan = model.plan("encoder")
        encoder = ENCODERS[plan.name](Spec("image", (3, 224, 224)), **plan.open, **plan.fixed).eval()
        model.fill("encoder", encoder)
    pictures, labels = efficientnet_lite0.load_photos(DOWNLOADS)
    scores = F.linear(encoder(pictures).pooled, weights["_fc.weight"], weights["_fc.bias"])
    return {
        "statistics": plan.column["statistics"],
        "right": int((scores.argmax(1) == labels).sum()),
        "of": len(labels),
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "minilm": sentences,
    "smollm2": language,
    "whisper": speech,
    "efficientnet": photographs,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", choices=[[], *PARTS], default=[])
    for name in parser.parse_args().models or PARTS:
        print(json.dumps({"model": name, **PARTS[name]()}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
