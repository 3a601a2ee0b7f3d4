"""Files of published models: GGUF number by number, shards, tokenizers; and what is said of each that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from published_files import (
    CONFIG,
    WIDTH,
    tensors,
    write_llama,
    write_tokenizer,
)
from safetensors.torch import save_file

from zhixing.errors import DataError, RecipeError, RunError, UsageError, ZhixingError
from zhixing.pretrained import files as pretrained_files
from zhixing.pretrained import open_model, resolve, untrained
from zhixing.pretrained.files import names_files
from zhixing.pretrained.gguf import GGUF, KINDS, dequantise
from zhixing.run import build_model, make_columns

# A small GPT-2, made without the library that publishes it ---------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    save_file(tensors(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    write_tokenizer(folder)
    return folder


def shard(folder: Path, parts: int = 3) -> list[Path]:
    """The same weights in several files, with their index."""
    whole, paths, table = tensors(), [], {}
    for number in range(parts):
        name = f"model-{number + 1:05}-of-{parts:05}.safetensors"
        some = {key: whole[key] for key in sorted(whole)[number::parts]}
        save_file(some, folder / name)
        table |= dict.fromkeys(some, name)
        paths.append(folder / name)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}), "utf-8")
    return paths


def language_model(source: Path, **more: Any) -> Any:
    return untrained(
        {"outputs": {"text": {"type": "text", "length": 12, "packed": True, "decoder": str(source), **more}}}
    )


def test_shards_are_the_same_model_as_one_file(folder: Path) -> None:
    _, _, one = language_model(folder)
    shard(folder)
    _, _, other = language_model(folder)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert torch.equal(one.state_dict()["heads.0.decoder.stack.positions.table.weight"], tensors()["wpe.weight"][:12])


def test_a_repository_on_the_hub_is_fetched_once_and_read_from_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[tuple[str, list[str]]] = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    raw = resolve({"outputs": {"text": {"type": "text", "decoder": "owner/small"}}})
    assert raw["outputs"]["text"]["pretrained"]["source"] == "owner/small"
    assert raw["outputs"]["text"]["decoder"]["width"] == WIDTH
    assert asked == [("owner/small", pretrained_files.WANTED)]
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in pretrained_files.WANTED)


def test_names_of_parts_are_not_taken_for_files() -> None:
    from zhixing.heads.decoders import DECODERS
    from zhixing.models import ENCODERS

    assert not any(names_files(name) for name in (*ENCODERS, *DECODERS, "custom"))


# What is wrong ------------------------------------------------------------------------------------------------------


def change(folder: Path, **settings: Any) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **settings}), "utf-8")


def rewrite(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file(weights, folder / "model.safetensors")


def cut(path: Path, share: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(tensors(), folder / "pytorch_model.bin")


def other_vocabulary(folder: Path) -> None:
    vocabulary = {**json.loads((folder / "vocab.json").read_text("utf-8"))}
    vocabulary |= {f"word{number}": len(vocabulary) + number for number in range(50)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")


WRONG: dict[str, tuple[Callable[[Path], Any], type[ZhixingError], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), UsageError, "has no config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), DataError, "no model.safetensors"),
    "another family": (lambda folder: change(folder, model_type="gtp2"), UsageError, "Did you mean 'gpt2'"),
    "config is no JSON": (lambda folder: (folder / "config.json").write_text("{"), DataError, "no readable JSON"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), DataError, "mapping was expected"),
    "config lacks a size": (lambda folder: change(folder, n_embd=None), DataError, "lacks the number n_embd"),
    "an activation": (lambda folder: change(folder, activation_function="mish"), UsageError, "'mish' is not known"),
    "cut short": (lambda folder: cut(folder / "model.safetensors"), DataError, "cut short or damaged.*fetch it again"),
    "a shard cut short": (lambda folder: cut(shard(folder)[1]), DataError, "00002-of-00003.*cut short"),
    "a shard missing": (lambda folder: shard(folder)[2].unlink(), DataError, "1 of 3 shards are missing: .*00003"),
    "an index to elsewhere": (
        lambda folder: (shard(folder), (folder / "model.safetensors.index.json").write_text(
            '{"weight_map": {"wte.weight": "../model.safetensors"}}'
        )), DataError, "names no files beside it",
    ),
    "a shard of another version": (
        lambda folder: save_file({"wte.weight": torch.zeros(2)}, shard(folder)[0]), DataError, "which the index places",
    ),
    "a tensor missing": (
        lambda folder: rewrite(folder, {k: v for k, v in tensors().items() if k != "h.0.ln_2.bias"}), DataError,
        "lack h.0.ln_2.bias",
    ),
    "a tensor not known": (
        lambda folder: rewrite(folder, {**tensors(), "h.0.adapter.weight": torch.zeros(2)}), DataError,
        "nothing here stands for, h.0.adapter.weight",
    ),
    "a tensor of another shape": (
        lambda folder: rewrite(folder, {**tensors(), "ln_f.bias": torch.zeros(9)}), DataError, r"\(9,\), not \(8,\)",
    ),
    "no tokenizer": (lambda folder: (folder / "vocab.json").unlink(), DataError, "no tokenizer beside"),
    "a broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), DataError, "cannot be read"),
    "a larger tokenizer": (other_vocabulary, DataError, "it is another model's"),
    "a smaller tokenizer": (lambda folder: change(folder, vocab_size=5000), DataError, "it is another model's"),
    "a pickle": (pickled, DataError, "a pickle.*save_file.*allow_pickle"),
    "attention by block": (
        lambda folder: change(folder, scale_attn_by_inverse_layer_idx=True), UsageError, "is not done here",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_each_thing_that_is_wrong_is_one_message(name: str, folder: Path) -> None:
    spoil, kind, told = WRONG[name]
    spoil(folder)
    with pytest.raises(kind, match=f"(?s){told}") as caught:
        language_model(folder)
    assert str(folder.name) in str(caught.value)


def test_a_pickle_is_read_where_the_user_says_so_and_holds_tensors_alone(folder: Path) -> None:
    _, _, expected = language_model(folder)
    pickled(folder)
    decoder = {"name": str(folder), "allow_pickle": True}
    recipe, _, model = untrained(
        {"outputs": {"text": {"type": "text", "length": 12, "packed": True, "decoder": decoder}}}
    )
    assert recipe.outputs["text"].pretrained.allow_pickle
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), expected.state_dict().values(), strict=True)
    )

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (folder / "exploded",))

    torch.save({"wte.weight": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="more than weights"):
        untrained({"outputs": {"text": {"type": "text", "length": 12, "decoder": decoder}}})
    assert not (folder / "exploded").exists()


def test_settings_that_the_weights_fix_are_told_of_together(folder: Path) -> None:
    decoder = {"name": str(folder), "width": 12, "depth": 1, "dropout": 0.3, "positions": "rotary"}
    text = {"type": "text", "tokenizer": "bpe", "length": 99, "decoder": decoder}
    with pytest.raises(RecipeError) as caught:
        resolve({"outputs": {"text": text}})
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    for path in ("text.decoder.width", "text.decoder.positions", "text.tokenizer", "text.length"):
        assert f"outputs.{path}: the weights" in problems
    with pytest.raises(UsageError, match="no such file or folder"):
        resolve({"inputs": {"text": {"type": "text", "encoder": "./nowhere"}}})


def test_a_rate_that_suits_is_taken_where_none_is_given(folder: Path) -> None:
    outputs = {"outputs": {"text": {"type": "text", "decoder": str(folder)}}}
    assert resolve(outputs)["training"]["optimizer"] == {"name": "adamw", "lr": 5e-5}
    given_ = {**outputs, "training": {"optimizer": {"name": "adamw", "lr": 0.1}}}
    assert resolve(given_)["training"] == given_["training"]
    assert resolve({**outputs, "training": {"optimizer": "sgd"}})["training"] == {"optimizer": "sgd"}
    assert resolve({"outputs": {"text": "text"}}) == {"outputs": {"text": "text"}}


def test_a_run_is_resumed_from_the_same_files_alone(folder: Path) -> None:
    from zhixing.pretrained import equip

    recipe, _, _ = language_model(folder)
    equip(recipe, make_columns(recipe))
    change(folder, resid_pdrop=0.2)
    with pytest.raises(RunError, match="not the files that the recipe was made with"):
        equip(recipe, make_columns(recipe))


def test_a_finished_run_needs_no_folder(folder: Path) -> None:
    recipe, columns, model = language_model(folder)
    columns["text"].lists, columns["text"].measured = False, {}  # what a fit would leave
    states = {name: json.loads(json.dumps(column.state())) for name, column in columns.items()}
    for path in folder.iterdir():
        path.unlink()
    again = make_columns(recipe)
    again["text"].load_state(states["text"])
    other = build_model(recipe, again)
    other.load_state_dict(model.state_dict())
    words = columns["text"].codec.encode(["the then"])[0]
    assert np.array_equal(again["text"].codec.encode(["the then"])[0], words)
    assert again["text"].codec.decode(words) == "the then"


# GGUF ---------------------------------------------------------------------------------------------------------------


def by_hand(kind: str, block: NDArray[np.uint8]) -> list[float]:
    """One block as the format describes it, number by number."""

    def half(start: int) -> np.float32:
        return np.float32(block[start : start + 2].view("<f2")[0])

    b, out = [int(byte) for byte in block], []
    if kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        head = {"Q4_0": 2, "Q4_1": 4, "Q5_0": 6, "Q5_1": 8}[kind]
        for i in range(32):
            quant = b[head + i % 16] >> (4 * (i // 16)) & 15
            if kind.startswith("Q5"):
                quant |= (int.from_bytes(bytes(b[head - 4 : head]), "little") >> i & 1) << 4
            zero = {"Q4_0": 8, "Q5_0": 16}.get(kind)
            low = half(2) if zero is None else np.float32(0)
            out.append(half(0) * np.float32(quant - (zero or 0)) + low)
    elif kind == "Q8_0":
        out = [half(0) * np.float32((b[2 + i] + 128) % 256 - 128) for i in range(32)]
    elif kind in ("Q4_K", "Q5_K"):
        for i in range(256):
            group, within = i // 32, i % 32
            s = b[4:16]
            if group < 4:
                scale, minimum = s[group] & 63, s[group + 4] & 63
            else:
                scale = s[group + 4] & 15 | s[group - 4] >> 6 << 4
                minimum = s[group + 4] >> 4 | s[group] >> 6 << 4
            start = 16 if kind == "Q4_K" else 48
            quant = b[start + group // 2 * 32 + within] >> (4 * (group % 2)) & 15
            if kind == "Q5_K":
                quant |= (b[16 + within] >> group & 1) << 4
            out.append(half(0) * np.float32(scale) * np.float32(quant) - half(2) * np.float32(minimum))
    else:
        assert kind == "Q6_K"
        for i in range(256):
            side, rest = i // 128, i % 128
            quarter, within = rest // 32, rest % 32
            low = b[64 * side + 32 * (quarter % 2) + within] >> (4 * (quarter // 2)) & 15
            high = b[128 + 32 * side + within] >> (2 * quarter) & 3
            scale = (b[192 + i // 16] + 128) % 256 - 128
            out.append(half(208) * np.float32(scale) * np.float32((low | high << 4) - 32))
    return [float(x) for x in out]


@pytest.mark.parametrize("number", [key for key, kind in KINDS.items() if kind.numbers > 1])
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_each_kind_of_block_gives_the_numbers_that_the_format_describes(number: int, data: st.DataObject) -> None:
    kind = KINDS[number]
    block = np.frombuffer(data.draw(st.binary(min_size=kind.bytes, max_size=kind.bytes)), np.uint8).copy()
    for place in {"Q6_K": (208,)}.get(kind.name, (0, 2) if kind.name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else (0,)):
        block[place : place + 2] = np.array([data.draw(st.floats(-4, 4, width=16))], "<f2").view(np.uint8)
    found = dequantise(np.tile(block, 2), kind)
    assert found.shape == (2 * kind.numbers,)
    np.testing.assert_allclose(found[: kind.numbers], by_hand(kind.name, block), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("number", "form"), [(0, "<f4"), (1, "<f2"), (28, "<f8")])
def test_plain_numbers_come_back(number: int, form: str) -> None:
    values = np.array([0, 1.5, -2.25, 1e-3], form)
    assert np.array_equal(dequantise(values.view(np.uint8), KINDS[number]), values.astype(np.float32))


def test_bfloat16_comes_back() -> None:
    values = torch.tensor([0, 1.5, -2.25, 1e30], dtype=torch.bfloat16)
    found = dequantise(values.view(torch.uint8).numpy(), KINDS[30])
    assert np.array_equal(found, values.float().numpy())


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_gguf_file_holds_the_model_that_was_written(architecture: str, tmp_path: Path) -> None:
    """Rotary pairs too: a Llama's are interleaved in the file, others' are not."""
    path = tmp_path / "model.gguf"
    weights = write_llama(path, architecture=architecture)
    found = open_model(path).files
    assert set(found.names()) == set(weights)
    for name, expected in weights.items():
        assert np.array_equal(found.read(name).numpy(), expected), name
        assert found.shape(name) == expected.shape
    assert open_model(tmp_path).sha256() == open_model(path).sha256()  # the folder with that one file
    if architecture == "llama":
        recipe, columns, _ = language_model(path)
        decoder = recipe.outputs["text"].decoder
        assert (decoder.base, decoder.eps, decoder.kv_heads, decoder.tie) == (500.0, 1e-5, 2, True)
        ids, _ = columns["text"].codec.encode(["the 12"])
        assert [columns["text"].codec.piece(token) for token in ids] == ["the", "Ġ", "1", "2"]
        assert columns["text"].codec.decode(ids) == "the 12"


def test_what_is_wrong_with_a_gguf_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_llama(path, pre="jais")
    with pytest.raises(DataError, match="cut 'jais', which is not read"):
        language_model(path)
    write_llama(path, architecture="mamba")
    with pytest.raises(UsageError, match="'mamba' is not read from GGUF"):
        open_model(path)
    write_llama(path)
    whole = path.read_bytes()
    for share in (0.0005, 0.01, 0.3, 0.6, 0.95):
        path.write_bytes(whole[: max(4, int(len(whole) * share))])
        with pytest.raises(DataError, match=r"model\.gguf: this is no GGUF file, or it is cut short"):
            open_model(path)
    path.write_bytes(b"not a model at all, but long enough to be read")
    with pytest.raises(DataError, match="does not begin with GGUF"):
        GGUF(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="no GGUF file"):
        GGUF(path)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_damaged_head_never_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "model.gguf"
    write_llama(path)
    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[data.draw(st.integers(0, 2000))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    with suppress(ZhixingError):  # anything else fails the test
        language_model(path)
