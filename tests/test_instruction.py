"""Instructions and their answers: token by token what a chat writes, loss on the answer alone, the base untouched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from talkers import QUESTIONS, TRAINING, talker

import zhixing as zx
from zhixing.columns.template import TEMPLATES, Turn, spell, spell_within, turns_of
from zhixing.columns.text import Text
from zhixing.columns.vocabulary import BEGIN, END, PAD
from zhixing.commands.chat import chat
from zhixing.data.batches import Batch, ColumnBatch
from zhixing.errors import DataError, RecipeError, UsageError
from zhixing.heads.search import Search
from zhixing.models.encoding import Encoding, Spec
from zhixing.models.prompt import Prompt
from zhixing.pretrained import open_adapter, open_model, untrained
from zhixing.verbs.chat import Chat
from zhixing.verbs.generate import Plan, Writer

CPU = torch.device("cpu")
TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Café?"},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talker(tmp_path_factory.mktemp("talker"))


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> zx.Run:
    return trained(base, tmp_path_factory.mktemp("instructed") / "run")


def trained(base: Path, out: Path, data: Any = QUESTIONS, **training: Any) -> zx.Run:
    raw = {"outputs": {"answer": {"decoder": str(base)}}, "training": TRAINING | training}
    return zx.train(data, recipe=raw, out=out, device="cpu")


def model_of(base: Path, **more: Any) -> Any:
    own = {"type": "text", "length": 80, **more}
    text = {"type": "text", "length": 40, "decoder": str(base)}
    return untrained({"inputs": {"ask": own}, "outputs": {"answer": text}})


def ids_of(column: Text, cells: pa.Array) -> list[list[int]]:
    done = column.tensorize(cells, Path)
    assert done.lengths is not None
    return [part.tolist() for part in torch.from_numpy(done.values).split(done.lengths.tolist())]


# Spelling ------------------------------------------------------------------------------------------------------------


def test_a_training_row_is_what_a_chat_reads_and_writes(run: zx.Run) -> None:
    ask, answer = run.fitted["instruction"], run.fitted["answer"]
    assert isinstance(ask, Text)
    assert isinstance(answer, Text)
    talk = Chat(Writer(run.settings, run.fitted, run.model, CPU))
    assert (talk.template, ask.template) == ("chatml", "chatml")
    for question, said in zip(QUESTIONS["instruction"][:4], QUESTIONS["answer"][:4], strict=True):
        (row,), (written,) = ids_of(ask, pa.array([question])), ids_of(answer, pa.array([said]))
        told, dropped = talk.prompt([Turn("user", question)])
        assert row == [BEGIN, *told]
        assert not dropped
        # What the next turn reads begins with all of this one, answer and end included.
        more, _ = spell(ask.codec, "chatml", [Turn("user", question), Turn("assistant", said), Turn("user", "x")], 999)
        assert more[: len(row) + len(written)] == [*row, *written]
        assert written[-1] == END


def test_a_conversation_in_a_cell_is_spelled_as_a_chat_of_these_turns(base: Path) -> None:
    recipe, columns, model = model_of(base)
    (row,) = ids_of(columns["ask"], pa.array([TALK]))
    talk = Chat(Writer(recipe, columns, model, CPU), system="Be kind.")
    ids, _ = talk.prompt([Turn("user", "Hi there"), Turn("assistant", "Hello!"), Turn("user", "Café?")])
    assert row == [BEGIN, *ids]
    library = open_model(base).tokenizer
    wanted = (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\nHello!"
        "<|im_end|>\n<|im_start|>user\nCafé?<|im_end|>\n<|im_start|>assistant\n"
    )
    library.library.encode_special_tokens = False
    assert library.order[row].tolist() == library.library.encode(wanted).ids


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 60), st.lists(st.text("ab c\n", max_size=30), min_size=1, max_size=5), st.booleans())
def test_what_is_too_long_loses_its_oldest_turns_and_never_what_opens_the_answer(
    base: Path, room: int, texts: list[str], system: bool
) -> None:
    codec = open_model(base).tokenizer
    texts = texts[: len(texts) - 1 + len(texts) % 2]  # a user begins and ends
    turns = [Turn("system", "be")] if system else []
    turns += [Turn("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]
    whole, _ = spell(codec, "chatml", turns, 10_000)
    least, _ = spell(codec, "chatml", [*turns[: int(system)], Turn("user", "")], 0)
    if len(least) > room:
        with pytest.raises(ValueError, match="stand around a turn"):
            spell_within(codec, "chatml", turns, room)
        return
    ids, remark = spell_within(codec, "chatml", turns, room)
    opening = TEMPLATES["chatml"].opening(codec)
    assert len(ids) <= room
    assert ids[0] == BEGIN
    assert ids[-len(opening) :] == opening
    assert bool(remark) == (len(whole) > room)
    assert ids == whole or remark


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ([{"role": "bot", "content": "x"}], "is of 'bot'"),
        ([{"role": "user", "content": None}], "says nothing"),
        (TALK[:3], "has to be the user's"),
        ([], "has to be the user's"),
    ],
)
def test_malformed_conversations_are_told_of(base: Path, cell: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        turns_of(cell)
    _, columns, _ = model_of(base)
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    done = columns["ask"].tensorize(pa.array([cell, TALK, None], kind), Path)
    assert done.present.tolist() == [False, True, False]
    assert [(one.index, one.kind) for one in done.findings] == [(0, "broken")]


def test_cells_that_are_no_texts_are_refused(base: Path) -> None:
    _, columns, _ = model_of(base)
    with pytest.raises(DataError, match="no conversation"):
        columns["ask"].tensorize(pa.array([1.5]), Path)


# The decoder reads the prompt itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@torch.no_grad()
def test_scores_are_those_of_prompt_and_answer_in_one_row(kind: str, base: Path, tmp_path: Path) -> None:
    """Prompts of unequal lengths in one batch, beside the plain stack over the whole row; and the library that
    publishes such models."""
    import transformers

    folder = base if kind == "llama" else talker(tmp_path / "talker", kind)
    _, columns, model = model_of(folder)
    asks = ids_of(columns["ask"], pa.array(["The cat sat", "a", "Dogs bark, cats meow"]))
    says = ids_of(columns["answer"], pa.array(["on the mat", "down again", "x"]))
    batch = batch_of({"ask": asks, "answer": says})
    scores, order = model(batch)["answer"], torch.from_numpy(open_model(folder).tokenizer.order)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    decoder, known = model.head("answer").decoder, order >= 0
    known[decoder.absent] = False
    for place, (ask, said) in enumerate(zip(asks, says, strict=True)):
        row = torch.tensor([ask + said])
        alone = decoder.scores(decoder.stack(decoder.vectors(row)))[0, len(ask) - 1 : -1]
        torch.testing.assert_close(scores[place, : len(said)], alone, rtol=1e-4, atol=1e-4)
        expected = theirs(input_ids=order[row]).logits[0, len(ask) - 1 : -1]
        torch.testing.assert_close(alone[:, known], expected[:, order[known]], rtol=1e-4, atol=1e-4)


def batch_of(columns: dict[str, list[list[int]]]) -> Batch:
    made = {}
    for name, rows in columns.items():
        values = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        made[name] = ColumnBatch(values, values != PAD)
    return Batch(made, torch.arange(len(next(iter(columns.values())))))


def test_the_loss_is_that_of_the_answer_alone(base: Path) -> None:
    _, columns, model = model_of(base)
    asks = ids_of(columns["ask"], pa.array(["The cat sat", "a"]))
    says = ids_of(columns["answer"], pa.array(["on", "x y"]))
    batch = model.weigh(batch_of({"ask": asks, "answer": says}))
    found, decoder = model.loss(batch), model.head("answer").decoder
    losses = []
    for ask, said in zip(asks, says, strict=True):
        row = torch.tensor([ask + said])
        scores = decoder.scores(decoder.stack(decoder.vectors(row)))[0, len(ask) - 1 : -1]
        losses.append(F.cross_entropy(scores, torch.tensor(said), reduction="sum"))
    expected = torch.stack(losses).sum() / sum(map(len, says))
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_writing_goes_on_as_the_scores_say(base: Path) -> None:
    """Greedy words of a batch of prompts are those that the forced scores of each row choose."""
    _, columns, model = model_of(base)
    asks = ids_of(columns["ask"], pa.array(["The cat sat", "a"]))
    batch = batch_of({"ask": asks})
    head = model.head("answer")
    wrote = head.decoder.write(model.encode(batch), Search(), 6)
    for ask, row in zip(asks, wrote.tolist(), strict=True):
        one = Encoding(torch.zeros(1, 0), torch.zeros(1, len(ask), 0), ids=torch.tensor([ask]))
        scores = head.decoder(one, torch.tensor([row]))[0]
        scores[:, :END] = float("-inf")
        end = row.index(END) + 1 if END in row else len(row)
        assert scores.argmax(-1).tolist()[:end] == row[:end]


@torch.no_grad()
def test_a_prompt_that_asks_nothing_begins_a_text(base: Path) -> None:
    model = model_of(base)[2]
    encoding = Prompt(Spec("tokens", (2,), 10))(torch.tensor([[7, 8], [0, 0]]))
    said = torch.tensor([[9, 8, END], [9, 8, END]])
    decoder = model.head("answer").decoder
    begun = encoding._replace(ids=torch.tensor([[7, 8], [BEGIN, 0]]))
    assert torch.equal(decoder(encoding, said), decoder(begun, said))
    assert torch.equal(decoder.write(encoding, Search(), 5), decoder.write(begun, Search(), 5))


# Runs ----------------------------------------------------------------------------------------------------------------


def test_columns_alone_say_that_the_decoder_reads_the_instruction(run: zx.Run, base: Path) -> None:
    plain = run.settings.plain()
    ask = plain["inputs"]["instruction"]
    assert (ask["encoder"], ask["tokenizer"], ask["template"]) == ({"name": "prompt"}, "published", "chatml")
    assert ask["pretrained"] == plain["outputs"]["answer"]["pretrained"]
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "validation"]
    assert losses[-1] < losses[0]
    again = zx.train(QUESTIONS, recipe=plain, out=run.path.parent / "again", device="cpu")
    assert (again.path / "model.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()


def test_the_adapter_holds_thin_matrices_alone_and_merged_it_is_the_run(run: zx.Run, base: Path) -> None:
    learned = load_file(run.path / "adapter.safetensors")
    assert learned
    assert all("lora_" in name for name in learned)
    adapted = open_adapter(run.path / "adapter.safetensors", base)
    asks = ids_of(run.fitted["instruction"], pa.array(["Say cat 3", "Say dog 1"]))  # type: ignore[arg-type]
    says = ids_of(run.fitted["answer"], pa.array(["The cat sat down.", "x"]))  # type: ignore[arg-type]
    batch = batch_of({"instruction": asks, "answer": says})
    with torch.inference_mode():
        ours, theirs = adapted.model(batch)["answer"], run.model(batch)["answer"]
    assert float((ours - theirs).abs().max()) < 1e-4


def test_a_run_predicts_generates_and_talks_the_same(run: zx.Run) -> None:
    questions = QUESTIONS["instruction"][:3]
    predicted = run.predict({"instruction": questions})["answer"].to_pylist()
    writer = Writer(run.settings, run.fitted, run.model, CPU)
    written = [""] * len(questions)
    for piece in writer.stream(questions):
        written[piece.row] += piece.text
    assert written == predicted
    said = "".join(piece.text for piece in Chat(writer).say(questions[0], Plan()))
    assert said == predicted[0]
    assert run.evaluate(QUESTIONS, part="all")["answer"]["perplexity"] > 1


def test_the_command_talks_with_a_run(run: zx.Run) -> None:
    done = CliRunner().invoke(chat, [str(run.path), "--most", "5", "--json"], input="Say cat 1\nSay dog 2\n")
    assert done.exit_code == 0, done.output
    turns = json.loads(done.output.splitlines()[-1])["turns"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
    assert turns[-2]["text"] == "Say dog 2"


def test_conversations_are_learned_from(base: Path, tmp_path: Path) -> None:
    table = {"talk": [TALK, TALK[:2], TALK[1:2]] * 5, "answer": ["The cat", "sat", "down"] * 5}
    raw = {"inputs": {"talk": {"type": "text"}}, "outputs": {"answer": {"decoder": str(base)}}, "training": TRAINING}
    run = zx.train(table, recipe=raw, out=tmp_path / "run", device="cpu")
    assert len(run.predict({"talk": [TALK]})["answer"]) == 1


# What cannot be ------------------------------------------------------------------------------------------------------


def test_a_prompt_without_a_published_decoder_is_refused(tmp_path: Path) -> None:
    raw = {"inputs": {"instruction": {"type": "text", "encoder": "prompt"}}, "outputs": {"answer": "text"}}
    with pytest.raises(RecipeError, match="read by a published language model"):
        zx.train(QUESTIONS, recipe=raw, out=tmp_path / "run", device="cpu")


def test_a_prompt_beside_other_inputs_is_refused(base: Path, tmp_path: Path) -> None:
    table = {**QUESTIONS, "age": [float(place) for place in range(24)]}
    raw = {
        "inputs": {"instruction": {"type": "text", "encoder": "prompt"}, "age": "number"},
        "outputs": {"answer": {"decoder": str(base)}},
    }
    with pytest.raises(RecipeError, match="the only input of a model"):
        zx.train(table, recipe=raw, out=tmp_path / "run", device="cpu")


def test_a_chat_with_a_model_that_reads_otherwise_is_refused(tmp_path: Path) -> None:
    decoder = {"name": "transformer", "width": 8, "depth": 1, "heads": 2}
    raw = {
        "inputs": {"instruction": {"type": "text", "encoder": {"name": "gru", "width": 8}}},
        "outputs": {"answer": {"type": "text", "decoder": decoder}},
        "training": {"epochs": 1, "threads": 1},
    }
    run = zx.train(QUESTIONS, recipe=raw, out=tmp_path / "run", device="cpu")
    with pytest.raises(UsageError, match="reads an input"):
        Chat(Writer(run.settings, run.fitted, run.model, CPU))


def test_an_answer_is_explained_by_its_prompt(run: zx.Run) -> None:
    """By the vectors of its tokens in the decoder's own table; what they add up to is the answer's log probability."""
    asked = {"instruction": ["Say cat 1", "Say mat"]}
    told = run.explain(asked, methods=["integrated_gradients", "occlusion"])
    answers = run.predict(asked)["answer"].to_pylist()
    assert [row["answer"] for row in told.rows] == answers
    assert told.facts["gap"] < 0.02
    for row in told.rows:
        for maps in row["maps"].values():
            (column,) = maps["columns"]
            assert sum(abs(value) for _, value in column["shown"]["pieces"] if value is not None) > 0
    with pytest.raises(UsageError, match="no summary"):
        run.explain(asked, nearest=1)
    with pytest.raises(UsageError, match="attention_rollout"):
        run.explain(asked, methods=["attention_rollout"])
