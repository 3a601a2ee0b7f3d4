"""Marian's translators in this project's layers, beside the library ``transformers``, at sizes for tests."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported

import pyarrow as pa
import pyarrow.csv
import pytest
import torch
import transformers
from published_marian import (
    CPU,
    MOST,
    PAIRS,
    SOURCE,
    their_tokenizer,
    write_model,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from zhixing.cli import main
from zhixing.columns import tokenizers
from zhixing.columns.text import Text
from zhixing.errors import DataError, RunError, UsageError, ZhixingError
from zhixing.heads.decoders import TransformerDecoder
from zhixing.heads.text import TextHead
from zhixing.models import ENCODERS
from zhixing.pretrained import PublishedModel, open_model, untrained
from zhixing.recipe import Recipe
from zhixing.verbs.predict import predict

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("marian") / "opus-mt-en-fr")


def text_column(model: PublishedModel, role: Any) -> Text:
    slot = "encoder" if role == "input" else "decoder"
    column = Text(**model.plan(slot).column, length=MOST)
    column.role, column.fitted = role, model.tokenizer_of(slot)  # type: ignore[arg-type]
    return column


def rows_of(column: Text, texts: list[str]) -> list[Tensor]:
    done = column.tensorize(pa.array(texts), Path)
    assert done.lengths is not None
    return [part.long() for part in torch.from_numpy(done.values).split(done.lengths.tolist())]


def settings(folder: Path, **decoder: Any) -> dict[str, Any]:
    return {
        "inputs": {"en": {"type": "text", "encoder": str(folder), "length": 30}},
        "outputs": {"fr": {"type": "text", "decoder": {"name": str(folder), **decoder}, "length": 20}},
    }


def compare(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_each_language_is_cut_by_its_own_tokenizer_as_published(folder: Path) -> None:
    model, published = open_model(folder), their_tokenizer(folder)
    order = torch.from_numpy(model.tokenizer.order)
    source, target = text_column(model, "input"), text_column(model, "output")
    targets = [*list(PAIRS.values())[:5], "zut €"]
    for text, row in zip(SOURCE, rows_of(source, SOURCE), strict=True):
        assert order[row].tolist() == published(text).input_ids
    for text, row in zip(targets, rows_of(target, targets), strict=True):
        ids = published(text_target=text).input_ids
        assert order[row].tolist() == ids
        there = published.decode([token for token in ids if token != 1], skip_special_tokens=True)
        assert target.restore(row[None]) == [there]
    assert rows_of(source, [">>de<< a"])[0].tolist() != rows_of(source, [">>fr<< a"])[0].tolist()
    assert rows_of(source, targets[:1])[0].tolist() != rows_of(target, targets[:1])[0].tolist()  # two tokenizers
    kept = json.loads(json.dumps(target.codec.state()))
    again = tokenizers.load("published", kept)
    assert again.encode(targets)[0].tolist() == target.codec.encode(targets)[0].tolist()
    assert (again.frame, again.most, again.size) == ((False, True), MOST, target.codec.size)
    with pytest.raises(RunError, match="a tokenizer cannot be read back"):
        tokenizers.load("published", {**kept, "pieces": {**kept["pieces"], "model": "YWJj"}})


VARIANTS: dict[str, dict[str, Any]] = {
    "opus": {},
    "unscaled": {"scale_embedding": False},
    "untied": {"tie_word_embeddings": False, "activation_function": "relu"},
    "odd": {"d_model": 15, "encoder_attention_heads": 5, "decoder_attention_heads": 3},
    "without-bias": {"decoder_layers": 1},
}


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_tokens_and_scores_are_the_published_ones(name: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / name, **VARIANTS[name])
    if name == "without-bias":
        weights = load_file(folder / "model.safetensors")
        del weights["final_logits_bias"]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model, published = open_model(folder), transformers.MarianMTModel.from_pretrained(folder).eval()
    order = torch.from_numpy(model.tokenizer.order)
    source, target, plan = text_column(model, "input"), text_column(model, "output"), model.plan("encoder")
    encoder = ENCODERS[plan.name](source.spec(), **{**plan.open, **plan.fixed, "dropout": 0.0}).eval()
    model.fill("encoder", encoder)
    rows = rows_of(source, SOURCE)
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    encoding = encoder(values, values > 0)
    decoding = model.plan("decoder")
    asked = {**decoding.open, **decoding.fixed, "dropout": 0.0}
    head = TextHead(
        encoder.token_width, target, decoder=SimpleNamespace(name=decoding.name, keywords=lambda: asked)
    ).eval()
    model.fill("decoder", head.decoder)
    names = set(head.decoder.state_dict())
    assert ("out.weight" in names) == (name in ("unscaled", "untied"))
    assert bool(names & {"score_bias", "out.bias"}) == (name != "without-bias")
    written = rows_of(target, list(PAIRS.values())[:1])[0]
    read = order[torch.cat([torch.tensor([2]), written[:-1]])]  # the start is the published padding
    assert int(read[0]) == published.config.pad_token_id
    scores = head(encoding, written.expand(len(rows), -1))
    ready = head.decoder.ready(1)  # as it writes
    there = torch.tensor([token for token in range(target.spec().vocabulary) if token not in target.absent()])
    for row, ids in enumerate(rows):
        done = published(input_ids=order[ids][None], decoder_input_ids=read[None])
        compare(encoding.tokens[row, : len(ids)], done.encoder_last_hidden_state[0])
        compare(scores[row][:, there], done.logits[0][:, order[there]])
    one = encoder(rows[0][None])
    compare(ready(one, written[None])[0], head(one, written[None])[0])


@torch.no_grad()
def test_greedy_texts_are_the_published_ones_and_never_hold_padding(folder: Path) -> None:
    table = {"en": [*list(PAIRS)[::4], *SOURCE]}
    recipe, columns, model = untrained(settings(folder))
    answers = predict(recipe, columns, model, pa.table(table), device=CPU).column("fr").to_pylist()
    published, tokenizer = transformers.MarianMTModel.from_pretrained(folder).eval(), their_tokenizer(folder)
    barred = [[tokenizer.pad_token_id], [tokenizer.unk_token_id]]
    for text, answer in zip(table["en"], answers, strict=True):
        given = tokenizer(text, return_tensors="pt")
        ids = published.generate(**given, bad_words_ids=barred, num_beams=1, do_sample=False, max_new_tokens=20)[0]
        assert answer == tokenizer.decode(ids, skip_special_tokens=True)
    assert len(set(answers)) > 5
    head = model.head("fr")
    assert isinstance(head, TextHead)
    decoder = head.decoder
    assert isinstance(decoder, TransformerDecoder)
    assert decoder.score_bias is not None
    decoder.score_bias[2] = 1e3  # the start, which is the published padding: of all tokens it is now the likeliest
    again = predict(recipe, columns, model, pa.table(table), device=CPU).column("fr").to_pylist()
    assert again == answers


def test_a_translator_is_fine_tuned_and_used_by_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("en,fr\n" + "\n".join(f"{en},{fr}" for en, fr in PAIRS.items()), "utf-8")
    out = tmp_path / "run"
    main(["train", str(table), "--target", "fr", "--out", str(out), "--device", "cpu", "--json", "--set",
          f"inputs.en.encoder={folder}", f"outputs.fr.decoder={folder}", "training.epochs=1"])  # fmt: skip
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]["fr"]["perplexity"] > 1
    kept, (_, _, published) = load_file(out / "model.safetensors"), untrained(settings(folder))
    start = published.state_dict()
    assert sum(name.endswith("score_bias") for name in kept) == 1
    for name, value in kept.items():  # a few small steps from what was published
        begun = start[name] if "positions" not in name else start[name][: len(value)]
        assert 0 < float((value - begun).abs().max()) < 1e-2, name
    columns = json.loads((out / "columns.json").read_text("utf-8"))
    codecs = {name: column["tokenizer"] for name, column in columns.items()}
    assert codecs["en"]["facts"] == codecs["fr"]["facts"]
    assert codecs["en"]["pieces"]["model"] != codecs["fr"]["pieces"]["model"]
    shutil.move(folder, away := tmp_path / "away")  # a run needs the folder no more
    try:
        main(["predict", str(out), str(table), "--device", "cpu", "--out", str(tmp_path / "answers.csv")])
    finally:
        shutil.move(away, folder)
    answers = pa.csv.read_csv(tmp_path / "answers.csv")
    assert answers.num_rows == len(PAIRS)
    assert any(isinstance(text, str) and text for text in answers.column(answers.column_names[-1]).to_pylist())


def test_only_published_biases_are_part_of_a_decoder() -> None:
    torch.manual_seed(0)
    plain = TransformerDecoder(0, 9, 5, width=8, depth=1, heads=2)
    after = torch.rand(1)
    torch.manual_seed(0)
    biased = TransformerDecoder(0, 9, 5, width=8, depth=1, heads=2, score_bias=True)
    assert torch.equal(after, torch.rand(1))
    assert biased.state_dict().keys() - plain.state_dict().keys() == {"score_bias"}
    assert all(torch.equal(value, biased.state_dict()[name]) for name, value in plain.state_dict().items())
    assert untied_names(score_bias=True) - untied_names() == {"out.bias"}


def untied_names(**more: bool) -> set[str]:
    return set(TransformerDecoder(0, 9, 5, width=8, depth=1, heads=2, tie=False, **more).state_dict())


def without(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def change_config(**more: Any) -> Any:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps(config | more), "utf-8")

    return change


def change_weights(drop: str, add: str) -> Any:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights = {key: value for key, value in weights.items() if key != drop}
        save_file(weights | ({add: torch.ones(2)} if add else {}), folder / "model.safetensors", {"format": "pt"})

    return change


def change_table(**more: Any) -> Any:
    def change(folder: Path) -> None:
        table = json.loads((folder / "vocab.json").read_text("utf-8"))
        (folder / "vocab.json").write_text(json.dumps(table | more), "utf-8")

    return change


WRONG: dict[str, tuple[Any, type[ZhixingError], str]] = {
    "no-source": (without("source.spm"), DataError, "the tokenizer lacks source.spm. Fetch"),
    "no-target": (without("target.spm"), DataError, "the tokenizer lacks target.spm. Fetch"),
    "no-table": (without("vocab.json"), DataError, "the tokenizer lacks vocab.json. Fetch"),
    "no-config": (without("config.json"), UsageError, "this is no model: it has no config.json"),
    "garbage": (lambda folder: (folder / "target.spm").write_bytes(b"garbage"), DataError, "target.spm with vocab"),
    "empty": (lambda folder: (folder / "source.spm").write_bytes(b""), DataError, "the tokenizer cannot be read"),
    "not-numbers": (change_table(le="x"), DataError, "its table is none of pieces and numbers"),
    "twice": (change_table(le=0), DataError, "its table is none of pieces and numbers"),
    "too-many": (change_table(le=10**12), DataError, "it is another model's"),
    "two-tables": (change_config(share_encoder_decoder_embeddings=False), UsageError, "this one has two"),
    "activation": (change_config(activation_function="mish"), UsageError, "'mish' is not known"),
    "lost": (change_weights("model.decoder.layers.1.fc1.weight", ""), DataError, "lack decoder.layers.1.fc1.weight"),
    "lost-words": (change_weights("model.shared.weight", ""), DataError, "lack shared.weight"),
    "unknown": (change_weights("", "model.decoder.gate"), DataError, "nothing here stands for, model.decoder.gate"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_folder_is_said_in_one_message(name: str, folder: Path, tmp_path: Path) -> None:
    spoiled = shutil.copytree(folder, tmp_path / "copy")
    change, kind, message = WRONG[name]
    change(spoiled)
    with pytest.raises(kind, match=message.replace(".", r"\.")):
        untrained(settings(spoiled))


def test_settings_that_the_weights_decide_are_theirs(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="score_bias: the weights have True, not False"):
        untrained(settings(folder, score_bias=False))
    with pytest.raises(UsageError, match="the weights know 40 places, not 41"):
        untrained({"inputs": {"en": {"type": "text", "encoder": str(folder), "length": 41}}, "outputs": {}})
    copy = shutil.copytree(folder, tmp_path / "copy")
    change_config(num_beams=6)(copy)
    (copy / "generation_config.json").unlink()
    recipe: Recipe = untrained(settings(copy))[0]
    assert recipe.outputs["fr"].search.beams == 6  # as it was published, unless another number is asked for
