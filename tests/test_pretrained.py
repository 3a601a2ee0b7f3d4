"""Published models in this project's layers, beside the library ``transformers``, at sizes for tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported

import pyarrow as pa
import pytest
import torch
import transformers
from published_models import BERTS, DECODERS, SIZES, STACKS, TEXTS, byte_tokenizer, publish, save
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from zhixing.columns.audio import Audio
from zhixing.columns.text import Text
from zhixing.columns.tokenizer_published import Published
from zhixing.errors import RecipeError, UsageError
from zhixing.heads.text import TextHead
from zhixing.model import blank_encoding
from zhixing.models import ENCODERS, Spec
from zhixing.pretrained import PublishedModel, open_model, untrained

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's small model with its tokenizer, made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = publish(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make


def text_column(model: PublishedModel, role: Any, *, length: int = 30) -> Text:
    plan = model.plan("encoder" if role == "input" else "decoder")
    column = Text(**plan.column, length=length)
    column.role, column.fitted = role, model.tokenizer
    return column


def rows_of(column: Text, texts: list[str]) -> list[Tensor]:
    done = column.tensorize(pa.array(texts), Path)
    assert done.lengths is not None
    return [part.long() for part in torch.from_numpy(done.values).split(done.lengths.tolist())]


def theirs(model: PublishedModel, ids: Tensor) -> Tensor:
    return torch.from_numpy(model.tokenizer.order)[ids]


def decoder_of(model: PublishedModel, column: Text, width_in: int = 0, **more: Any) -> TextHead:
    plan = model.plan("decoder")
    settings = {**plan.open, **plan.fixed, "dropout": 0.0, **more}
    head = TextHead(width_in, column, decoder=SimpleNamespace(name=plan.name, keywords=lambda: settings)).eval()
    model.fill("decoder", head.decoder)
    return head


def compare(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", BERTS)
@torch.no_grad()
def test_readers_of_texts_give_the_published_vectors(name: str, folder_of: Callable[[str], Path]) -> None:
    folder = folder_of(name)
    model = open_model(folder)
    column, plan = text_column(model, "input"), model.plan("encoder")
    encoder = ENCODERS[plan.name](column.spec(), **{**plan.open, **plan.fixed, "dropout": 0.0}).eval()
    model.fill("encoder", encoder)
    published = transformers.AutoModel.from_pretrained(folder).eval()
    rows = rows_of(column, TEXTS)
    values = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    encoding = encoder(values, values > 0)
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for row, text in enumerate(TEXTS):
        ids = library.encode(text).ids
        assert theirs(model, rows[row]).tolist() == ids
        hidden = published(input_ids=torch.tensor([ids])).last_hidden_state[0]
        compare(encoding.tokens[row, : len(ids)], hidden)
        compare(encoding.pooled[row], hidden.mean(0))


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_writers_give_the_published_scores_and_words(name: str, folder_of: Callable[[str], Path]) -> None:
    folder = folder_of(name)
    model = open_model(folder)
    column = text_column(model, "output")
    head = decoder_of(model, column)
    published = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    there = torch.tensor([token for token in range(column.spec().vocabulary) if token not in column.absent()])
    for text, row in zip(TEXTS, rows_of(column, TEXTS), strict=True):
        scores = head(blank_encoding(1, CPU), row[None])[0]
        ids = theirs(model, torch.cat([torch.tensor([2]), row[:-1]]))  # BEGIN before the text, no END
        expected = published(input_ids=ids[None]).logits[0]
        compare(scores[:, there], expected[:, theirs(model, there)])
        assert (scores[:, column.absent()] < -1000).all()
        said = head.answer(blank_encoding(1, CPU), prompt=row[None, :-1])[0]
        for token in theirs(model, said[:6]).tolist():
            allowed = published(input_ids=ids[None]).logits[0, -1]
            allowed[theirs(model, torch.tensor([token for token in range(3) if token not in column.absent()]))] = -1e9
            assert token == int(allowed.argmax())
            ids = torch.cat([ids, torch.tensor([token])])
        assert column.restore(row[None]) == [text]


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
@torch.no_grad()
def test_writers_can_read_too(name: str, folder_of: Callable[[str], Path]) -> None:
    folder = folder_of(name)
    model = open_model(folder)
    column, plan = text_column(model, "input"), model.plan("encoder")
    encoder = ENCODERS[plan.name](column.spec(), **{**plan.open, **plan.fixed, "dropout": 0.0}).eval()
    model.fill("encoder", encoder)
    published = transformers.AutoModel.from_pretrained(folder).eval()
    for row in rows_of(column, TEXTS):
        hidden = published(input_ids=theirs(model, row)[None]).last_hidden_state[0]
        compare(encoder(row[None]).tokens[0], hidden)
        compare(encoder(row[None]).pooled[0], hidden[-1])


# Text to text, sound to text


@pytest.mark.parametrize("name", STACKS)
@torch.no_grad()
def test_pairs_of_stacks_give_the_published_scores(name: str, tmp_path: Path) -> None:
    folder = publish(name, tmp_path)
    model, published = (
        open_model(folder),
        transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        if name != "whisper"
        else transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval(),
    )
    target, plan = text_column(model, "output"), model.plan("encoder")
    row = rows_of(target, TEXTS[:1])[0]
    read = torch.cat([torch.tensor([2, *target.lead()]), row[:-1]])
    if name == "whisper":
        source: Any = Audio(**plan.column, longest=30.0)
        sound = torch.randint(-3000, 3000, (1, 50_000), dtype=torch.int16)
        values, mask = source.stem()(sound, torch.ones_like(sound, dtype=torch.bool))
        listen = transformers.WhisperFeatureExtractor()
        features = listen(sound[0].numpy() / 32768, sampling_rate=16_000, return_tensors="pt").input_features
        compare(values.transpose(1, 2), features.float(), 1e-4)
        given = {"input_features": features.float()}
    else:
        source = text_column(model, "input")
        values = rows_of(source, TEXTS[2:3])[0][None]
        mask, given = values > 0, {"input_ids": theirs(model, values)}
        assert given["input_ids"][0, -1] == 1  # which ends what is read
    encoder = ENCODERS[plan.name](source.spec(), **{**plan.open, **plan.fixed, "dropout": 0.0}).eval()
    model.fill("encoder", encoder)
    head = decoder_of(model, target, encoder.token_width)
    scores = head(encoder(values, mask), row[None])[0]
    expected = published(**given, decoder_input_ids=theirs(model, read)[None]).logits[0, len(target.lead()) :]
    there = [token for token in range(target.spec().vocabulary) if token not in target.absent()]
    compare(scores[:, there], expected[:, theirs(model, torch.tensor(there))], 1e-4)
    said = head.answer(encoder(values, mask), prompt=row[None, :3])[0]
    assert int(said[0]) == int(scores[3, 3:].argmax()) + 3


def test_a_model_of_several_languages_writes_the_one_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zhixing.pretrained.layouts.whisper.MULTILINGUAL", 10)  # tokens from which on it knows several
    folder = save(STACKS["whisper"](), tmp_path)
    special = ["<pad>", "</s>", "<unk>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|transcribe|>"]
    byte_tokenizer([*special, "<|notimestamps|>"]).save(str(folder / "tokenizer.json"))

    def leads(**more: str) -> list[int]:
        decoder = {"name": str(folder), **more}
        raw = {"inputs": {"audio": {"type": "audio", "encoder": str(folder)}},
               "outputs": {"text": {"type": "text", "length": 9, "decoder": decoder}}}  # fmt: skip
        _, columns, _ = untrained(raw)
        text = columns["text"]
        assert isinstance(text, Text)
        assert isinstance(text.codec, Published)
        return text.codec.order[list(text.lead())].tolist()

    assert leads() == [4, 6, 7]
    assert leads(language="zh") == [5, 6, 7]
    with pytest.raises(UsageError, match=r"lacks one of <\|fr\|>"):
        leads(language="fr")
    monkeypatch.setattr("zhixing.pretrained.layouts.whisper.MULTILINGUAL", 10_000)
    with pytest.raises(RecipeError, match=r"outputs.text.decoder.language: a model of type whisper takes none"):
        leads(language="zh")


# Pictures

VISION: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "vit": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**SIZES, image_size=16, patch_size=4, qkv_bias=True)
    ),
    "resnet18": lambda: transformers.ResNetForImageClassification(
        transformers.ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic")
    ),
    "resnet50": lambda: transformers.ResNetModel(transformers.ResNetConfig()),
    "efficientnet": lambda: transformers.EfficientNetModel(
        transformers.EfficientNetConfig(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280)
    ),
}


@pytest.mark.parametrize("name", VISION)
@torch.no_grad()
def test_readers_of_pictures_give_the_published_features(name: str, tmp_path: Path) -> None:
    folder = save(VISION[name](), tmp_path)
    model = open_model(folder)
    plan = model.plan("encoder")
    side = plan.column.get("size", 64)
    encoder = ENCODERS[plan.name](Spec("image", (3, side, side)), **plan.open, **plan.fixed).eval()
    model.fill("encoder", encoder)
    published = transformers.AutoModel.from_pretrained(folder).eval()
    pictures = torch.randn(2, 3, side, side)
    encoding, expected = encoder(pictures), published(pixel_values=pictures).last_hidden_state
    if name == "vit":
        compare(torch.cat([encoding.pooled[:, None], encoding.tokens], dim=1), expected)
    else:
        scale = expected.abs().max()
        compare(encoding.tokens / scale, expected.flatten(2).transpose(1, 2) / scale)
        compare(encoding.pooled / scale, expected.mean((2, 3)) / scale)


# Names of torchvision and timm, written here from our own networks by rules of their own


def as_torchvision(own: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for name, value in own.items():
        parts = name.split(".")
        kind, last = ("conv" if parts[-2] == "convolution" else "bn"), parts[-1]
        if parts[0] == "stem":
            out[f"{kind}1.{last}"] = value
            continue
        base = f"layer{int(parts[1]) // 2 + 1}.{int(parts[1]) % 2}"
        if parts[2] == "shortcut":
            out[f"{base}.downsample.{int(kind == 'bn')}.{last}"] = value
        else:
            out[f"{base}.{kind}{int(parts[3]) + 1}.{last}"] = value
    return {**out, "fc.weight": torch.zeros(3, 512), "fc.bias": torch.zeros(3)}


def as_timm_transformer(own: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {
        "cls_token": own["cls"],
        "pos_embed": own["blocks.positions.table.weight"][None],
        **{f"patch_embed.proj.{last}": own[f"patches.{last}"] for last in ("weight", "bias")},
        **{f"norm.{last}": own[f"blocks.norm.{last}"] for last in ("weight", "bias")},
        "head.weight": torch.zeros(3, 192),
    }
    modules = {"attention.norm": "norm1", "attention.branch.out": "attn.proj", "feed_forward.norm": "norm2",
               "feed_forward.branch.up": "mlp.fc1", "feed_forward.branch.down": "mlp.fc2"}  # fmt: skip
    for block in range(12):
        for last in ("weight", "bias"):
            three = [own[f"blocks.blocks.{block}.attention.branch.{part}.{last}"] for part in ("query", "key", "value")]
            out[f"blocks.{block}.attn.qkv.{last}"] = torch.cat(three)
            for ours, theirs_ in modules.items():
                out[f"blocks.{block}.{theirs_}.{last}"] = own[f"blocks.blocks.{block}.{ours}.{last}"]
    return out


def as_timm_efficientnet(own: dict[str, Tensor]) -> dict[str, Tensor]:
    places = [(stage, i) for stage, count in enumerate((1, 2, 2, 3, 3, 4, 1)) for i in range(count)]
    ends = {"stem.convolution": "conv_stem", "stem.norm": "bn1", "top.convolution": "conv_head", "top.norm": "bn2"}
    wide = {"expand.convolution": "conv_pw", "expand.norm": "bn1", "depthwise.convolution": "conv_dw",
            "depthwise.norm": "bn2", "project.convolution": "conv_pwl", "project.norm": "bn3",
            "excite.reduce": "se.conv_reduce", "excite.expand": "se.conv_expand"}  # fmt: skip
    narrow = {**wide, "depthwise.norm": "bn1", "project.convolution": "conv_pw", "project.norm": "bn2"}
    out = {"classifier.weight": torch.zeros(3, 1280)}
    for name, value in own.items():
        module, _, last = name.rpartition(".")
        if module in ends:
            out[f"{ends[module]}.{last}"] = value
            continue
        number, _, part = module.removeprefix("blocks.").partition(".")
        stage, i = places[int(number)]
        out[f"blocks.{stage}.{i}.{(wide if stage else narrow)[part]}.{last}"] = value
    return out


NAMED: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "resnet18": as_torchvision,
    "vit_tiny_patch16_224": as_timm_transformer,
    "tf_efficientnet_b0": as_timm_efficientnet,
}


@pytest.mark.parametrize("name", NAMED)
@torch.no_grad()
def test_names_of_other_libraries_are_read(name: str, tmp_path: Path) -> None:
    told = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3], "input_size": [3, 224, 224]}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name, "pretrained_cfg": told}), "utf-8")
    save_file({"none": torch.zeros(192, 768)}, tmp_path / "model.safetensors")
    plan = open_model(tmp_path).plan("encoder")
    assert plan.column["statistics"] == {"mean": [127.5, 102.0, 76.5], "std": [25.5, 51.0, 76.5]}
    assert {**plan.suggested, **plan.column}["size"] == 224
    made = [ENCODERS[plan.name](Spec("image", (3, 224, 224)), **plan.fixed).eval() for _ in range(2)]
    assert not torch.equal(next(made[0].parameters()), next(made[1].parameters()))
    weights = NAMED[name](made[0].state_dict())
    save_file({key: value.contiguous() for key, value in weights.items()}, tmp_path / "model.safetensors")
    open_model(tmp_path).fill("encoder", made[1])
    picture = torch.randn(1, 3, 224, 224)
    assert torch.equal(made[0](picture).pooled, made[1](picture).pooled)
