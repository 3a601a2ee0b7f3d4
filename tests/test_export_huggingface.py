"""Published models, fine-tuned here and written back: transformers reads them, with the same outputs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported

import numpy as np
import published_marian as marian
import pytest
import soundfile
import torch
import transformers
from PIL import Image
from published_files import write_llama
from published_models import publish, save
from safetensors.torch import load_file
from talkers import PAIRS, QUESTIONS, TRAINING, talker
from torch import nn

import zhixing as zx
from zhixing.cli import main
from zhixing.errors import RunError, UsageError
from zhixing.export import huggingface
from zhixing.export.command import export_command
from zhixing.export.endings import ENDINGS, behind_relu, behind_tanh
from zhixing.layers.transformer import Transformer
from zhixing.models import ENCODERS, Spec
from zhixing.pretrained.layouts import LAYOUTS

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

WORDS = ["good", "bad", "film", "very", "a", "so", "the", "was", "café"]
SMALL = {"epochs": 1, "batch_size": 8, "threads": 1, "optimizer": {"name": "adamw", "lr": 0.01}}
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
PICTURES: dict[str, Callable[[], Any]] = {
    "vit": lambda: transformers.ViTModel(
        transformers.ViTConfig(**TINY, image_size=16, patch_size=4), add_pooling_layer=False
    ),
    "resnet": lambda: transformers.ResNetModel(
        transformers.ResNetConfig(
            embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
        )
    ),
    "efficientnet": lambda: transformers.EfficientNetModel(transformers.EfficientNetConfig.from_dict(B0)),
}
B0 = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "image_size": 224, "hidden_dim": 1280}


def folder_of(family: str, folder: Path) -> Path:
    """A small published folder of random weights, with its tokenizer."""
    torch.manual_seed(3)
    if family.startswith("talker"):
        return talker(folder, family.removeprefix("talker-"))
    if family == "marian":
        return marian.write_model(folder)
    if family == "gguf":
        folder.mkdir()
        write_llama(folder / "model.gguf")
        return folder / "model.gguf"
    if family in PICTURES:
        return save(PICTURES[family](), folder)
    return publish(family, folder)


def films(folder: Path, *columns: str) -> str:
    """A file of words, what they say, two tags, and the same words in another language."""
    random, file = np.random.default_rng(0), folder / "films.jsonl"
    lines = []
    for row in range(32):
        label = "good" if row % 2 else "bad"
        text = " ".join(map(str, [*random.choice(WORDS[2:], 1 + row % 5), label]))
        told = {"text": text, "label": label, "tags": ["long", "short"][: row % 3], "said": text[::-1]}
        lines.append(json.dumps({name: told[name] for name in columns}, ensure_ascii=False))
    file.write_text("\n".join(lines), "utf-8")
    return str(file)


def pictures(folder: Path) -> str:
    random = np.random.default_rng(0)
    for row in range(24):
        place = folder / "pictures" / ("good" if row % 2 else "bad")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(place / f"{row}.png")
    return str(folder / "pictures")


def sounds(folder: Path) -> str:
    random = np.random.default_rng(0)
    lines = []
    for row in range(8):
        soundfile.write(folder / f"{row}.wav", 0.1 * random.normal(size=8000 + 500 * row), 16_000)
        lines.append(json.dumps({"audio": f"{row}.wav", "said": "the cat" if row % 2 else "a dog"}))
    (folder / "sounds.jsonl").write_text("\n".join(lines), "utf-8")
    return str(folder / "sounds.jsonl")


def trained(case: str, folder: Path) -> zx.api.Run:
    """A run that began with a published folder, which lies in ``published`` beside it."""
    make, raw = CASES[case][0], json.loads(json.dumps(CASES[case][1]))
    family = re.sub(r"[+:].*", "", case)
    base = folder_of(family, folder / "published")
    raw = json.loads(json.dumps({"training": SMALL} | raw).replace("FOLDER", str(base)))
    data = make(folder) if callable(make) else make
    return zx.train(data, recipe=raw, out=folder / "run", device="cpu")


def text_in(**encoder: Any) -> dict[str, Any]:
    return {"inputs": {"text": {"encoder": {"name": "FOLDER", **encoder}}}, "outputs": {"label": "category"}}


def labelled(folder: Path) -> str:
    return films(folder, "text", "label")


def tagged(folder: Path) -> str:
    return films(folder, "text", "tags")


def alone(folder: Path) -> str:
    return films(folder, "text")


def paired(folder: Path) -> str:
    return films(folder, "text", "said")


LORA = {"training": {**SMALL, "fine_tuning": "lora"}}
WRITES = {"outputs": {"text": {"type": "text", "decoder": "FOLDER", "length": 32}}}
BOTH = {
    "inputs": {"text": {"type": "text", "encoder": "FOLDER"}},
    "outputs": {"said": {"type": "text", "decoder": "FOLDER"}},
}
TALKS = {"outputs": {"answer": {"decoder": "FOLDER"}}, "training": TRAINING}
FRENCH = {
    "inputs": {"en": {"type": "text", "encoder": "FOLDER", "length": 30}},
    "outputs": {"fr": {"type": "text", "decoder": "FOLDER", "length": 20}},
}
HEARS = {
    "inputs": {"audio": {"type": "audio", "encoder": "FOLDER"}},
    "outputs": {"said": {"type": "text", "decoder": "FOLDER"}},
}
SEES = {"inputs": {"image": {"encoder": "FOLDER", "size": 32}}, "outputs": {"label": "category"}}
TAGS = {**text_in(pooling="first"), "outputs": {"tags": "tags"}}
TRANSLATIONS = {"en": list(marian.PAIRS)[:40], "fr": list(marian.PAIRS.values())[:40]}
# By family, and what is special: the data, the recipe, and the class of transformers that reads what is written.
CASES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "bert": (labelled, text_in(), "AutoModel"),
    "bert+first": (labelled, text_in(pooling="first"), "BertForSequenceClassification"),
    "bert+tags": (tagged, TAGS, "BertForSequenceClassification"),
    "bert+lora": (labelled, text_in(pooling="first") | LORA, "BertForSequenceClassification"),
    "bert-for-masked": (labelled, text_in(), "AutoModel"),
    "roberta": (labelled, text_in(), "AutoModel"),
    "roberta+first": (labelled, text_in(pooling="first"), "RobertaForSequenceClassification"),
    "distilbert": (labelled, text_in(), "AutoModel"),
    "distilbert+first": (labelled, text_in(pooling="first"), "DistilBertForSequenceClassification"),
    "gpt2": (alone, WRITES, "GPT2LMHeadModel"),
    "gpt2+lora": (alone, WRITES | LORA, "GPT2LMHeadModel"),
    "gpt2+reads": (labelled, text_in(), "AutoModel"),
    "llama": (alone, WRITES, "LlamaForCausalLM"),
    "llama-tied": (alone, WRITES, "LlamaForCausalLM"),
    "llama-3.1": (alone, WRITES, "LlamaForCausalLM"),
    "llama+packed": (alone, {"outputs": {"text": {**WRITES["outputs"]["text"], "packed": True}}}, "LlamaForCausalLM"),
    "llama+reads": (labelled, text_in(), "AutoModel"),
    "mistral": (alone, WRITES, "MistralForCausalLM"),
    "qwen2": (alone, WRITES, "Qwen2ForCausalLM"),
    "qwen3": (alone, WRITES, "Qwen3ForCausalLM"),
    "qwen3+lora": (alone, WRITES | LORA, "Qwen3ForCausalLM"),
    "gguf": (alone, WRITES, "LlamaForCausalLM"),
    "talker-llama": (QUESTIONS, TALKS, "LlamaForCausalLM"),
    "talker-gpt2": (QUESTIONS, TALKS, "GPT2LMHeadModel"),
    "t5": (paired, BOTH, "T5ForConditionalGeneration"),
    "t5+lora": (paired, BOTH | LORA, "T5ForConditionalGeneration"),
    "t5+reads": (labelled, text_in(), "AutoModel"),
    "t5-1.1": (paired, BOTH, "T5ForConditionalGeneration"),
    "marian": (TRANSLATIONS, FRENCH, "MarianMTModel"),
    "marian+lora": (TRANSLATIONS, FRENCH | LORA, "MarianMTModel"),
    "whisper": (sounds, HEARS, "WhisperForConditionalGeneration"),
    "vit": (pictures, {**SEES, "inputs": {"image": {"encoder": "FOLDER"}}}, "ViTForImageClassification"),
    "resnet": (pictures, SEES, "ResNetForImageClassification"),
    "efficientnet": (pictures, SEES, "EfficientNetForImageClassification"),
}
QUICK = {"bert", "bert+first", "distilbert+first", "gguf", "t5", "talker-llama"}


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_what_is_written_is_read_by_transformers(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(case, tmp_path)
    kind, out = CASES[case][2], tmp_path / "out"
    if isinstance(CASES[case][0], dict):
        told = export_command(
            run.settings, run.fitted, run.model, form="huggingface", out=out, own=run.source,
            console=zx.console.Console(quiet=True),
        )  # fmt: skip
    else:
        main(["export", str(run.path), "--format", "huggingface", "--out", str(out), "--json"])
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert max(told["differences"].values()) < 1e-4
    assert told["class"] == kind
    assert {"config.json", "model.safetensors", "README.md"} <= set(told["files"])
    # None of the weights is missing, and none is new.
    _, info = getattr(transformers, kind).from_pretrained(str(out), output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not [name for name in info["missing_keys"] if "pooler" not in name]
    assert (out / "head.safetensors").is_file() == (kind == "AutoModel")
    # They are those that were trained.
    if case != "gguf":
        before, after = bare(tmp_path / "published"), bare(out)
        moved = [name for name in after if name in before and not torch.allclose(before[name], after[name], atol=1e-5)]
        assert moved


def bare(folder: Path) -> dict[str, torch.Tensor]:
    """A folder's tensors, by their names without those of the class that holds the body."""
    roots = re.compile(r"^(model|bert|roberta|distilbert|transformer|vit|resnet|efficientnet)\.(?!layer)")
    return {roots.sub("", name): tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}


def test_a_classifier_of_texts_answers_as_predict_does(tmp_path: Path) -> None:
    run = trained("bert+lora", tmp_path)
    run.export("huggingface", out=tmp_path / "out")
    theirs = transformers.BertForSequenceClassification.from_pretrained(str(tmp_path / "out")).eval()
    cut = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "out" / "tokenizer.json"))
    texts = ["the film was very good", "so bad", "a café"]
    said = run.predict({"text": texts}).to_pylist()
    for text, row in zip(texts, said, strict=True):
        with torch.no_grad():
            chances = theirs(**cut(text, return_tensors="pt", return_token_type_ids=False)).logits[0].softmax(0)
        assert theirs.config.id2label[int(chances.argmax())] == row["label"]
        assert float(chances.max()) == pytest.approx(row["label_probability"], abs=1e-4)


def test_a_classifier_of_pictures_answers_as_predict_does(tmp_path: Path) -> None:
    run = trained("vit", tmp_path)
    run.export("huggingface", out=tmp_path / "out")
    theirs = transformers.ViTForImageClassification.from_pretrained(str(tmp_path / "out")).eval()
    picture = next((tmp_path / "pictures" / "good").iterdir())
    column = run.fitted["image"]
    pixels = torch.from_numpy(column.read(str(picture), Path)[0])[None]
    with torch.no_grad():
        logits = theirs(pixel_values=run.model.stems[0](pixels)[0]).logits
    assert theirs.config.id2label[int(logits.argmax())] == run.predict([str(picture)])["label"][0].as_py()


@pytest.mark.slow
def test_a_translator_writes_as_predict_does(tmp_path: Path) -> None:
    run = trained("marian", tmp_path)
    run.export("huggingface", out=tmp_path / "out", source=run.source)
    theirs = transformers.MarianMTModel.from_pretrained(str(tmp_path / "out")).eval()
    cut = marian.their_tokenizer(tmp_path / "out")
    texts = list(marian.PAIRS)[41:45]
    said = run.predict({"en": texts})["fr"].to_pylist()
    for text, one in zip(texts, said, strict=True):
        found = theirs.generate(**cut(text, return_tensors="pt"), max_new_tokens=20, num_beams=1, do_sample=False)
        assert cut.decode(found[0], skip_special_tokens=True) == one


@pytest.mark.slow
def test_what_is_written_is_a_start_again(tmp_path: Path) -> None:
    """A run that goes on from a run is written too; and what is written can be fine-tuned here."""
    run = trained("bert+first", tmp_path)
    raw = {
        "inputs": {"text": {"encoder": {"name": str(run.path)}}},
        "outputs": {"label": "category"},
        "training": SMALL,
    }
    again = zx.train(films(tmp_path, "text", "label"), recipe=raw, out=tmp_path / "again", device="cpu")
    again.export("huggingface", out=tmp_path / "out")
    raw["inputs"]["text"]["encoder"]["name"] = str(tmp_path / "out")
    third = zx.train(films(tmp_path, "text", "label"), recipe=raw, out=tmp_path / "third", device="cpu")
    assert third.settings.inputs["text"].encoder.pooling == "mean"


@pytest.mark.slow
def test_preferences_are_written_as_any_language_model(tmp_path: Path) -> None:
    base = folder_of("talker-llama", tmp_path / "published")
    raw = {
        "data": {"reshape": "preference"},
        "outputs": {"answer": {"decoder": str(base), "loss": "dpo"}},
        "training": TRAINING,
    }
    run = zx.train(PAIRS, recipe=raw, out=tmp_path / "run", device="cpu")
    told = export_command(
        run.settings, run.fitted, run.model, form="huggingface", out=tmp_path / "out", own=run.source,
        console=zx.console.Console(quiet=True),
    )  # fmt: skip
    assert told["class"] == "LlamaForCausalLM"


# Heads --------------------------------------------------------------------------------------------------------------


def test_all_families_with_a_classifier_are_read_here() -> None:
    assert set(ENDINGS) <= set(LAYOUTS)


@pytest.mark.parametrize("gain", [0.01, 1.0, 40.0])
@pytest.mark.parametrize("make", [behind_tanh, behind_relu])
def test_a_dense_layer_passes_tokens_on(make: Any, gain: float) -> None:
    """Whatever a normalised token is, the largest that there can be among them."""
    torch.manual_seed(0)
    encoder: Any = ENCODERS["transformer"](Spec("tokens", (5,), 9), width=64, depth=1, norm_first=False)
    assert isinstance(encoder.blocks, Transformer)
    norm = encoder.blocks.blocks[-1].feed_forward.norm
    nn.init.normal_(norm.weight, std=gain)
    nn.init.normal_(norm.bias, std=gain)
    spike = torch.zeros(1, 64)
    spike[0, 3] = 1e6
    tokens = norm(torch.cat([torch.randn(50, 64), spike, -spike]))
    linear = nn.Linear(64, 3)
    made = make("dense", "last")(linear, encoder)
    squash = torch.tanh if make is behind_tanh else torch.relu
    hidden = squash(tokens @ made["dense.weight"].T + made["dense.bias"])
    found = hidden @ made["last.weight"].T + made["last.bias"]
    torch.testing.assert_close(found, linear(tokens), rtol=1e-5, atol=1e-6 * max(1.0, 8 * gain))


# Refusals -----------------------------------------------------------------------------------------------------------


def test_a_difference_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained("bert", tmp_path)

    def wrong(*given: Any) -> Any:
        found = real(*given)
        return found._replace(tensors={name: tensor + 0.01 for name, tensor in found.tensors.items()})

    real = huggingface.reversed_tensors
    monkeypatch.setattr(huggingface, "reversed_tensors", wrong)
    with pytest.raises(RunError, match="differs from the run's own answers"):
        run.export("huggingface", out=tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    monkeypatch.undo()
    (tmp_path / "published" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(RunError, match="not the files that the run began with"):
        run.export("huggingface", out=tmp_path / "out")


def test_a_network_of_ones_own_has_no_layout(tmp_path: Path) -> None:
    data = {"x": [0.0, 1.0] * 20, "label": ["no", "yes"] * 20}
    run = zx.train(data, epochs=1, out=tmp_path / "run", device="cpu")
    with pytest.raises(UsageError, match="was not fine-tuned from a published model"):
        run.export("huggingface", out=tmp_path / "out", source=data)
