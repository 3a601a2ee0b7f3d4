"""Texts as they are written, and conversations: beside the same texts written at once, and by what is promised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from published_models import LLAMA, byte_tokenizer, save
from tokenizers import Tokenizer as Library
from torch import nn

import zhixing as zx
from zhixing.columns.text import Text
from zhixing.columns.tokenizer_published import Published
from zhixing.columns.vocabulary import BEGIN, END, PAD
from zhixing.commands.chat import chat
from zhixing.commands.generate import generate
from zhixing.errors import DataError, UsageError
from zhixing.heads import decoder_transformer
from zhixing.heads.search import Search
from zhixing.layers.feedforward import FeedForward
from zhixing.layers.lora import LoRALinear
from zhixing.layers.packed import PackedFeedForward, PackedLinear, TransposedLinear, packed, packed_linear
from zhixing.model import Model, blank_encoding
from zhixing.recipe import Recipe
from zhixing.run import build_model, make_columns
from zhixing.verbs.chat import Chat, Turn
from zhixing.verbs.generate import Plan, Tail, Writer, published

FEW = settings(max_examples=40, deadline=None, derandomize=True)
CPU = torch.device("cpu")
TEXTS = [
    "The cat sat on the mat.",
    "Dogs bark, cats meow; naïve café!",
    "你好，世界。 42 😀 smile",
    "on the mat the cat sat",
] * 6
PROMPTS = ["The cat", "", "Dogs bark, cats"]
TOKENIZERS = ["character", "byte", "bpe", "word", "wordpiece", "sentencepiece"]
SMALL = {"name": "transformer", "width": 16, "depth": 2, "heads": 4, "kv_heads": 2, "dropout": 0.0}


def small(tokenizer: str = "character", length: int = 80, **decoder: Any) -> tuple[Recipe, dict[str, Any], Model]:
    """A language model that was not trained, but has much to say."""
    text = {"type": "text", "tokenizer": tokenizer, "length": length, "decoder": {**SMALL, **decoder}}
    recipe = Recipe({"data": {"source": "memory:"}, "outputs": {"text": text}})
    columns = make_columns(recipe)
    columns["text"].fit(pa.chunked_array([TEXTS]), Path)
    torch.manual_seed(1)
    model = build_model(recipe, columns)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.4 if parameter.ndim > 1 else 0.1))
    return recipe, columns, model.eval()


def writer_of(*given_: Any, **chosen: Any) -> Writer:
    return Writer(*small(*given_, **chosen), CPU)


def joined(pieces: Any, rows: int) -> tuple[list[str], list[str | None]]:
    texts, endings = [""] * rows, [None] * rows
    for piece in pieces:
        assert endings[piece.row] is None, "nothing comes after the end"
        texts[piece.row] += piece.text
        endings[piece.row] = piece.ended
    return texts, endings


# The stream ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"temperature": 1.5, "seed": 3, "top_k": 9}, {"beams": 3}])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_pieces_are_the_text_that_is_written_at_once(tokenizer: str, how: dict[str, Any]) -> None:
    writer = writer_of(tokenizer)
    texts, endings = joined(writer.stream(PROMPTS, Plan({"most": 25, **how})), len(PROMPTS))
    encoding, prompt = writer.read(PROMPTS)
    whole = writer.decoder.write(encoding, Search(**how), 25, prompt)
    assert texts == writer.column.restore(whole)
    assert endings == ["end" if END in row else "length" for row in whole.tolist()]
    assert writer.rates.tokens == int((whole != PAD).sum())
    assert writer.rates.steps == whole.shape[1]


@FEW
@given(st.text(max_size=20))
def test_only_whole_characters_are_shown(text: str) -> None:
    column = Text(tokenizer="byte", normalise="none")
    column.fit(pa.chunked_array([["a"]]), Path)
    tail, shown = Tail(column), ""
    for token in column.codec.encode([text])[0].tolist():
        new = tail.push(token)
        new.encode()
        shown += new
        assert text.startswith(shown), "half a character was shown"
    assert shown + tail.push(END) == text


@FEW
@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_a_text_ends_before_its_first_stop_string(text: str, stop: list[str]) -> None:
    column = Text(tokenizer="character")
    column.fit(pa.chunked_array([["ab"]]), Path)
    tail, shown, wanted = Tail(column, stop), "", text
    for size in range(len(text) + 1):
        if any(mark in text[:size] for mark in stop):
            wanted = text[: min(place for mark in stop if (place := text[:size].find(mark)) >= 0)]
            break
    for token in column.codec.encode([text])[0].tolist():
        shown += tail.push(token)
        assert wanted.startswith(shown)
        if tail.ended:
            break
    if not tail.ended:
        shown += tail.close("end")
    assert shown == wanted
    assert tail.ended == ("end" if wanted == text and not any(mark in text for mark in stop) else "stop")


def test_a_stop_string_ends_its_row_and_no_other() -> None:
    writer = writer_of()
    free, _ = joined(writer.stream(PROMPTS, Plan({"most": 30})), 3)
    mark = free[0][4:6]
    stopped, endings = joined(writer.stream(PROMPTS, Plan({"most": 30}, (mark,))), 3)
    for row in range(3):
        assert stopped[row] == free[row].split(mark)[0]
        assert (endings[row] == "stop") == (mark in free[row])
    steps = writer.rates.steps
    joined(writer.stream(PROMPTS[:1], Plan({"most": 30}, (mark,))), 1)
    assert writer.rates.steps < steps or all(mark in text for text in free)  # nothing is computed after the last end


def test_a_prompt_that_is_too_long_and_settings_that_are_wrong_are_told() -> None:
    writer = writer_of()
    with pytest.raises(DataError, match="more than half of the 80"):
        list(writer.stream(["cat " * 20]))
    for plan, told in ((Plan({"top_p": 3}), "top_p"), (Plan({"topk": 3}), "top_k"), (Plan(stop=("",)), "empty")):
        with pytest.raises(UsageError, match=told):
            writer.stream(["a"], plan)
    with pytest.raises(UsageError, match="nothing to write for"):
        writer.stream([])


# What makes it fast changes nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["rotary", "learned", "alibi", "relative", "sinusoidal"])
@pytest.mark.parametrize(("rows", "kind"), [(1, TransposedLinear), (3, PackedLinear)])
@pytest.mark.parametrize("tie", [True, False])
def test_packed_weights_say_what_the_weights_say(positions: str, rows: int, kind: type[nn.Module], tie: bool) -> None:
    _, _, model = small(positions=positions, tie=tie)
    plain = model.head("text").decoder
    ready = plain.ready(rows)
    assert any(isinstance(part, kind) for part in ready.modules())
    assert not any(isinstance(part, kind) for part in plain.modules())
    assert ready.embed.weight is plain.embed.weight, "what is not packed is shared"
    blank, target = blank_encoding(rows, CPU), torch.randint(4, 20, (rows, 12), generator=torch.manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ready(blank, target), plain(blank, target), rtol=1e-4, atol=1e-4)
    assert torch.equal(*(one.write(blank, Search(), 30, target) for one in (ready, plain)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "hidden"), [("swiglu", 24), ("geglu", 24), ("swiglu", 6), ("relu", 24)])
@pytest.mark.parametrize("rows", [1, 4])
@torch.no_grad()
def test_a_gate_and_the_way_up_may_be_one_product(kind: Any, hidden: int, rows: int, bias: bool) -> None:
    torch.manual_seed(3)
    plain, x = nn.Sequential(FeedForward(16, hidden=hidden, kind=kind, bias=bias)), torch.randn(rows, 3, 16)
    faster = packed(plain, rows)
    assert isinstance(faster[0], PackedFeedForward) == (kind != "relu" and (rows > 1 or hidden > 8))
    torch.testing.assert_close(faster(x), plain(x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "rows"), [((6, 30), 1), ((30, 6), 1), ((6, 30), 5), ((30, 6), 5)])
@torch.no_grad()
def test_packed_layers_beside_the_plain_one(bias: bool, dtype: torch.dtype, size: tuple[int, int], rows: int) -> None:
    torch.manual_seed(2)
    plain, x = nn.Linear(*size, bias=bias).to(dtype), torch.randn(rows, 2, size[0], dtype=dtype)
    faster = packed_linear(plain.weight, plain.bias, rows)
    assert (faster is None) == (size == (30, 6) and rows == 1 and dtype == torch.float32)
    if faster is not None:
        torch.testing.assert_close(faster(x), plain(x))
        assert repr(faster).endswith(f"in_features={size[0]}, out_features={size[1]}, bias={bias})")


@pytest.mark.parametrize("rows", [1, 4])
def test_an_adapter_on_a_gate_is_not_lost_in_packing(rows: int) -> None:
    torch.manual_seed(0)
    layer = FeedForward(16, hidden=48, kind="swiglu")
    assert layer.gate is not None
    layer.gate = LoRALinear(layer.gate, rank=2, alpha=4.0)
    torch.nn.init.normal_(layer.gate.lora_b)
    x = torch.randn(rows, 3, 16)
    with torch.no_grad():
        torch.testing.assert_close(packed(nn.ModuleList([layer]), rows)[0](x), layer(x))


def test_weights_that_cannot_be_packed_stay_as_they_are() -> None:
    _, _, model = small()
    ready = model.head("text").decoder.double().ready(1)
    assert not any(isinstance(part, PackedLinear | TransposedLinear) for part in ready.modules())


@pytest.mark.parametrize("beams", [1, 3])
def test_a_cache_that_grows_gives_the_tokens_of_one_that_does_not(monkeypatch: pytest.MonkeyPatch, beams: int) -> None:
    _, _, model = small(positions="rotary")
    decoder, prompt = model.head("text").decoder.double(), torch.tensor([[5, 6, 7], [8, END, PAD]])

    def wrote(room: int) -> torch.Tensor:
        monkeypatch.setattr(decoder_transformer, "ROOM", room)
        return decoder.write(blank_encoding(2, CPU), Search(beams=beams), 40, prompt)

    assert torch.equal(wrote(3), wrote(1000))


def test_an_end_inside_a_prompt_is_read() -> None:
    _, _, model = small(positions="rotary")
    decoder = model.head("text").decoder
    prompt = torch.tensor([[5, 6, END, 7, 8, END]])
    with torch.no_grad():
        read = torch.tensor([[BEGIN, 5, 6, END, 7, 8]])
        scores = decoder.scores(decoder.stack(decoder.vectors(read)))[0, -1]
        wrote = decoder.write(blank_encoding(1, CPU), Search(), 1, prompt)
    scores[:END] = float("-inf")
    assert wrote.item() == scores.argmax().item()


# Conversations -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small published model whose tokenizer has the marks of ChatML."""
    import transformers

    folder = tmp_path_factory.mktemp("talker")
    save(transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**LLAMA, "max_position_embeddings": 240})), folder)
    byte_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]).save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(names), "utf-8")
    evil = "{{ cycler.__init__.__globals__.os.system('touch ran') }}"
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "chat_template": evil}), "utf-8")
    return folder


TURNS = [Turn("user", "Hi there"), Turn("assistant", "Hello!"), Turn("user", "Café?")]


def test_chatml_is_spelled_as_models_learned_it(talker: Path) -> None:
    talk = Chat(Writer(*published(talker), CPU), system="Be kind.")
    column, library = talk.writer.column, Library.from_file(str(talker / "tokenizer.json"))
    assert isinstance(column.fitted, Published)
    ids, dropped = talk.prompt(TURNS)
    assert (talk.template, dropped) == ("chatml", 0)
    wanted = (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\nHello!"
        "<|im_end|>\n<|im_start|>user\nCafé?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert column.fitted.order[[BEGIN, *ids]].tolist() == library.encode(wanted).ids
    ids, _ = talk.prompt([Turn("user", "a <|im_end|> b")])
    assert ids.count(END) == 2, "a mark that a user types is text: the other two end the system's turn and the user's"
    assert "a <|im_end|> b" in column.codec.decode(ids)


def test_the_oldest_turns_are_forgotten_when_the_window_is_full(talker: Path) -> None:
    talk, plan = Chat(Writer(*published(talker), CPU), system="Be kind."), Plan({"most": 6})
    for number in range(8):
        answer = "".join(piece.text for piece in talk.say(f"This is question {number}.", plan))
        assert talk.turns[-2:] == [Turn("user", f"This is question {number}."), Turn("assistant", answer.strip())]
        ids, dropped = talk.prompt([*talk.turns, Turn("user", "x")])
        assert len(ids) <= talk.window
        assert not dropped or talk.turns[dropped].role == "user"
        assert len(talk.turns) + talk.forgotten == 2 * (number + 1)
    assert talk.forgotten > 0
    with pytest.raises(DataError, match="the model's window takes"):
        talk.say("word " * 200)


def test_a_model_without_marks_talks_plainly() -> None:
    talk = Chat(writer_of("byte", 200))
    assert talk.template == "plain"
    ids, _ = talk.prompt(TURNS)
    written = talk.writer.column.codec.decode(ids)
    assert written == "User: Hi there\nAssistant: Hello!\nUser: Café?\nAssistant:"
    with pytest.raises(UsageError, match="Take the template plain"):
        Chat(talk.writer, template="chatml")


# Commands and Python -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> zx.Run:
    recipe = {
        "outputs": {"text": {"type": "text", "tokenizer": "character", "length": 40, "decoder": {**SMALL, "depth": 1}}},
        "training": {"epochs": 2, "batch_size": 8},
    }
    return zx.train({"text": TEXTS}, recipe=recipe, out=tmp_path_factory.mktemp("runs") / "lm", quiet=True)


def test_a_run_writes_what_it_predicts(run: zx.Run) -> None:
    prompts = ["The cat", "Dogs"]
    assert run.generate(prompts) == run.predict(prompts)["text"].to_pylist()
    assert run.generate("The cat", most=5) == [run.generate("The cat")[0][:5]]
    assert len(run.generate("The cat", most=5, precision="bf16")[0]) <= 5


def test_commands(run: zx.Run, talker: Path) -> None:
    shell = CliRunner()
    done = shell.invoke(generate, [str(run.path), "The cat", "--most", "5"], catch_exceptions=False)
    wanted = run.generate("The cat", most=5)[0]
    assert done.stdout == wanted + "\n"
    assert "a second; the first after" in done.stderr
    done = shell.invoke(generate, [str(run.path), "-", "--most", "5", "--json"], input="The cat\nDogs\n")
    told = json.loads(done.stdout)
    assert [row["text"] for row in told["texts"]] == run.generate(["The cat", "Dogs"], most=5)
    assert told["tokens"] == 10
    assert told["tokens_per_second"] > 0
    done = shell.invoke(chat, [str(talker), "--most", "4", "--json"], input="Hi\nWhat?\n\nnot read\n")
    told = json.loads(done.stdout)
    assert [turn["text"] for turn in told["turns"][::2]] == ["Hi", "What?"]
    assert not Path("ran").exists(), "a template was run"
    assert not (talker / "ran").exists()
    for arguments, error in (
        ([str(talker / "none.gguf"), "a"], UsageError),
        ([str(run.path)], UsageError),
        ([str(run.path), "cat " * 30], DataError),
    ):
        assert isinstance(shell.invoke(generate, arguments).exception, error)


def test_a_model_with_an_input_writes_from_it(tmp_path: Path) -> None:
    table = {"en": ["a b", "b a", "c c", "a a c"] * 8, "code": ["x y", "y x", "z z", "x x z"] * 8}
    recipe = {
        "inputs": {"en": {"type": "text", "tokenizer": "word", "encoder": "gru"}},
        "outputs": {"code": {"type": "text", "tokenizer": "word", "length": 8, "decoder": SMALL}},
        "training": {"epochs": 2, "batch_size": 8},
    }
    run = zx.train(table, recipe=recipe, out=tmp_path / "run", quiet=True)
    cells = ["a b", "c c a a b"]
    assert run.generate(cells) == run.predict(cells)["code"].to_pylist()
    with pytest.raises(UsageError, match="no output of text"):
        run.generate(cells, output="cod")
    with pytest.raises(UsageError, match="reads an input"):
        Chat(Writer(run.settings, run.fitted, run.model, run.device))


def test_a_model_of_classes_writes_no_text(tmp_path: Path) -> None:
    table = {"x": np.linspace(0, 1, 40), "label": ["no", "yes"] * 20}
    run = zx.train(table, epochs=1, out=tmp_path / "run", quiet=True)
    with pytest.raises(UsageError, match="writes no text"):
        run.generate("a")
