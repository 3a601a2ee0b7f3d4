"""A published model, fine-tuned here and written back: transformers reads it, with the same outputs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import zhixing as zx
from zhixing.cli import main
from zhixing.errors import RunError, UsageError
from zhixing.export import huggingface
from zhixing.export.command import export_command

transformers.logging.set_verbosity_error()

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "very", "a", "so", "the", "was"]
SIZES: dict[str, Any] = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (
        lambda: transformers.BertModel(
            transformers.BertConfig(**SIZES, intermediate_size=24, max_position_embeddings=24, pad_token_id=0)
        ),
        {"inputs": {"text": {"encoder": "FOLDER"}}, "outputs": {"label": "category"}},
    ),
    "gpt2": (
        lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=256, bos_token_id=2, eos_token_id=3
            )
        ),
        {"outputs": {"text": {"type": "text", "decoder": "FOLDER"}}},
    ),
    "llama": (
        lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                **SIZES,
                num_key_value_heads=1,
                intermediate_size=24,
                max_position_embeddings=64,
                pad_token_id=0,
                bos_token_id=2,
                eos_token_id=3,
                tie_word_embeddings=False,
            )
        ),
        {"outputs": {"text": {"type": "text", "decoder": "FOLDER"}}},
    ),
    "vit": (
        lambda: transformers.ViTModel(
            transformers.ViTConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=24,
                image_size=16,
                patch_size=4,
            ),
            add_pooling_layer=False,
        ),
        {"inputs": {"picture": {"encoder": "FOLDER"}}, "outputs": {"label": "category"}},
    ),
    "resnet": (
        lambda: transformers.ResNetModel(
            transformers.ResNetConfig(
                embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
            )
        ),
        {"inputs": {"picture": {"encoder": "FOLDER", "size": 32}}, "outputs": {"label": "category"}},
    ),
}


def folder_of(family: str, folder: Path) -> Path:
    torch.manual_seed(3)
    FAMILIES[family][0]().save_pretrained(folder)
    library = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.add_special_tokens(WORDS[:4])
    if family == "bert":
        library.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    library.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def trained(family: str, tmp_path: Path) -> zx.api.Run:
    folder, random = folder_of(family, tmp_path / "published"), np.random.default_rng(0)
    raw = json.loads(json.dumps(FAMILIES[family][1]).replace("FOLDER", str(folder)))
    raw["training"] = {"epochs": 1, "batch_size": 8, "threads": 1, "optimizer": {"name": "adamw", "lr": 0.01}}
    labels = ["good" if row % 2 else "bad" for row in range(40)]
    if "picture" in raw.get("inputs", {}):
        pictures = tmp_path / "pictures"
        for row, label in enumerate(labels):
            (pictures / label).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(pictures / label / f"{row}.png")
        raw["inputs"]["image"] = raw["inputs"].pop("picture")
        source: Path = pictures
    else:
        source = tmp_path / "films.jsonl"
        rows = [{"text": " ".join(map(str, [*random.choice(WORDS[6:], 1 + row % 5), label])), "label": label}
                for row, label in enumerate(labels)]  # fmt: skip
        alone = [{"text": row["text"]} for row in rows] if "inputs" not in raw else rows
        source.write_text("\n".join(map(json.dumps, alone)), "utf-8")
    return zx.train(str(source), recipe=raw, out=tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in ("bert", "vit") else pytest.mark.slow) for name in FAMILIES]
)
def test_what_is_written_is_read_by_transformers(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(family, tmp_path)
    out = tmp_path / "out"
    main(["export", str(run.path), "--format", "huggingface", "--out", str(out), "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert max(told["differences"].values()) < 1e-4
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(told["files"])
    # The weights are those that were trained, and none is missing or new.
    before, after = load_file(tmp_path / "published" / "model.safetensors"), load_file(out / "model.safetensors")
    shared = [name for name in after if name in before]
    moved = [name for name in shared if not torch.allclose(before[name].float(), after[name].float(), atol=1e-4)]
    assert family in ("vit", "resnet") or len(moved) > 10
    kind = json.loads((out / "config.json").read_text()).get("architectures", ["AutoModel"])[0]
    _, info = getattr(transformers, kind).from_pretrained(str(out), output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not [name for name in info["missing_keys"] if "pooler" not in name]
    assert (out / "head.safetensors").is_file() == (family == "bert")


def test_a_classifier_of_pictures_answers_as_predict_does(tmp_path: Path) -> None:
    run = trained("vit", tmp_path)
    export_command(
        run.settings, run.fitted, run.model, form="huggingface", out=tmp_path / "out", console=zx.console.Console()
    )
    theirs = transformers.ViTForImageClassification.from_pretrained(str(tmp_path / "out")).eval()
    picture = next((tmp_path / "pictures" / "good").iterdir())
    column = run.fitted["image"]
    pixels = torch.from_numpy(column.read(str(picture), Path)[0])[None]
    with torch.no_grad():
        logits = theirs(pixel_values=run.model.stems[0](pixels)[0]).logits
    assert theirs.config.id2label[int(logits.argmax())] == run.predict([str(picture)])["label"][0].as_py()


def test_a_difference_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained("bert", tmp_path)

    def wrong(*given: Any) -> dict[str, torch.Tensor]:
        return {name: tensor + 0.01 for name, tensor in real(*given).items()}

    real = huggingface.reversed_tensors
    monkeypatch.setattr(huggingface, "reversed_tensors", wrong)
    with pytest.raises(RunError, match="differs from the run's own answers"):
        export_command(
            run.settings, run.fitted, run.model, form="huggingface", out=tmp_path / "out", console=zx.console.Console()
        )
    assert not list((tmp_path / "out").iterdir())


def test_a_network_of_ones_own_has_no_layout(tmp_path: Path) -> None:
    data = {"x": [0.0, 1.0] * 20, "label": ["no", "yes"] * 20}
    run = zx.train(data, epochs=1, out=tmp_path / "run", device="cpu")
    with pytest.raises(UsageError, match="was not fine-tuned from a published model"):
        huggingface.body_of(run.settings, run.fitted, run.model)
