"""Recordings longer than Whisper's window: the rules of times beside the published ones, seams that lose nothing, and
runs from columns of sounds and texts."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from published_models import byte_tokenizer, save
from torch import Tensor
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

import zhixing as zx
from zhixing.columns.vocabulary import END
from zhixing.commands.generate import generate
from zhixing.commands.predict import predict as predict_
from zhixing.data.batches import Batch
from zhixing.errors import UsageError
from zhixing.heads.search import Search
from zhixing.heads.timed import Clock, Heard, State, phrases_of, timed
from zhixing.pretrained import untrained
from zhixing.training.loop import Loop
from zhixing.verbs.generate import Plan, Writer, published
from zhixing.verbs.predict import Wanted, predict
from zhixing.verbs.train import resume
from zhixing.verbs.transcribe import Listener, Segment, listener_of

CPU = torch.device("cpu")
RATE, TIMED = 16_000, 1501
SPECIAL = ["<pad>", "</s>", "<unk>", "<|startoftranscript|>", "<|nospeech|>"]

# Rules of times ------------------------------------------------------------------------------------------------------

TEXT, TIMES = 20, 60  # words; times
CLOCK = Clock(first=4 + TEXT, last=4 + TEXT + TIMES - 1, step=0.02, lead=(), others=(), silence=None)


def theirs(ours: int) -> int:
    """The published order: words, the end, the mark, times."""
    return TEXT if ours == END else ours - 4 if ours < CLOCK.first else ours - CLOCK.first + TEXT + 2


def write_by(rules: Callable[[list[int]], Tensor], draws: NDArray[np.float64]) -> list[int]:
    """Tokens that are drawn as scores allow them, by these numbers."""
    out: list[int] = []
    for chance in draws:
        allowed = rules(out).softmax(-1).double()
        out.append(int(torch.searchsorted(allowed.cumsum(0), float(chance) * float(allowed.sum())).clamp(max=83)))
        if out[-1] == END:
            break
    return out


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.floats(0.0, 8.0))
def test_rules_of_times_are_the_published_ones(seed: int, bold: float) -> None:
    """Step by step along texts that are drawn by the rules themselves, among scores of any sharpness."""
    random = np.random.default_rng(seed)
    count, own = TEXT + 2 + TIMES, CLOCK.first + TIMES
    config = SimpleNamespace(no_timestamps_token_id=TEXT + 1, eos_token_id=TEXT, max_initial_timestamp_index=50)
    processor = WhisperTimeStampLogitsProcessor(config, begin_index=0)
    order = [theirs(token) for token in range(own) if token >= 3]
    scores_of: dict[int, Tensor] = {}

    def rules(text: list[int]) -> Tensor:
        if len(text) not in scores_of:
            scores_of[len(text)] = torch.from_numpy(random.normal(0, bold, own)).float()
        scores = scores_of[len(text)].clone()
        scores[:3] = float("-inf")
        last, before = (text[-1] if text else -1), (text[-2] if len(text) > 1 else -1)
        latest = max([token for token in text if token >= CLOCK.first], default=CLOCK.first - 1)
        state = State(None, torch.tensor([before]), torch.tensor([last]), torch.tensor([latest]))  # type: ignore[arg-type]
        found = timed(scores[None], state, CLOCK)[0]
        published = torch.full((1, count), float("-inf"))
        published[0, order] = scores[3:]
        read = torch.tensor([[theirs(token) for token in text]], dtype=torch.int64).reshape(1, len(text))
        expected = processor(read, published)[0, order]
        assert torch.equal(found[3:], expected)
        return found

    write_by(rules, random.random(40))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, TEXT + TIMES - 1), max_size=25), st.booleans(), st.floats(0.5, 1.18))
def test_phrases_are_in_order_within_their_window_whatever_was_written(
    tokens: list[int], ended: bool, span: float
) -> None:
    given_ = [4 + token for token in tokens] + ([END] if ended else [])
    phrases, reached = phrases_of(given_, CLOCK, span)
    assert 0 <= reached <= span
    for phrase in phrases:
        assert phrase.tokens
        assert all(4 <= token < CLOCK.first for token in phrase.tokens)
        assert phrase.end <= span
    if not any(token >= CLOCK.first for token in given_):
        assert [token for phrase in phrases for token in phrase.tokens] == [token for token in given_ if token != END]


# Seams ---------------------------------------------------------------------------------------------------------------


class Oracle(Listener):
    """Hears words that are stretches of one loudness each, which is their number; its times are a little off."""

    def __init__(self, late: float) -> None:
        self.sound = SimpleNamespace(rate=1000, most=30_000)  # type: ignore[assignment]
        self.clock, self.late, self.windows = Clock(1000, 2500, 0.02, (), (), None), late, 0
        self.head = SimpleNamespace(search=Search())  # type: ignore[assignment]
        self.text = SimpleNamespace(restore=lambda ids: [" ".join(map(str, ids[0].tolist()))])  # type: ignore[assignment]

    def hear(self, window: NDArray[np.int16], settings: Search) -> Heard:
        self.windows += 1
        borders = np.flatnonzero(np.diff(np.concatenate([[0], window, [0]]).astype(int)))
        tokens: list[int] = []
        for start, end in zip(borders[::2].tolist(), borders[1::2].tolist(), strict=True):
            tokens += [self.token(start), int(window[start])]
            if end < len(window) or len(window) < self.sound.most:
                tokens += [self.token(end)]  # else the window cuts the word, and it has no end here
        return Heard([*tokens, END], 0.0, 0.0)

    def token(self, place: int) -> int:
        return 1000 + max(0, min(1500, round((place / 1000 + (self.late if place else 0)) / 0.02)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(200, 6000), st.integers(450, 3000)), min_size=1, max_size=25),
    st.sampled_from([-0.3, 0.0, 0.2, 0.35]),
)
def test_no_word_is_lost_or_doubled_at_a_seam(words: list[tuple[int, int]], late: float) -> None:
    sound = np.concatenate(
        [part for number, (said, pause) in enumerate(words)
         for part in (np.full(said, 5 + 30 * number), np.zeros(pause))]
    ).astype(np.int16)  # fmt: skip
    oracle = Oracle(late)
    found = list(oracle.segments(sound))
    assert " ".join(segment.text for segment in found) == " ".join(str(5 + 30 * n) for n in range(len(words)))
    begin = 0
    for segment, (said, pause) in zip(found, words, strict=True):
        assert segment.start == pytest.approx(begin / 1000, abs=0.7)
        assert segment.end == pytest.approx((begin + said) / 1000, abs=0.7)
        begin += said + pause
    assert oracle.windows >= len(sound) / 30_000 - 1


def test_nothing_is_made_of_no_sound_at_all() -> None:
    oracle = Oracle(0.0)
    assert list(oracle.segments(np.zeros(65_000, np.int16))) == []
    assert oracle.windows == 0


# A small published model ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whisper's parts at sizes for tests, with tokens of times after the mark."""
    library = byte_tokenizer(SPECIAL)
    library.add_special_tokens(["<|notimestamps|>", *(f"<|{place / 50:.2f}|>" for place in range(TIMED))])
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "d_model": 16}
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 2}
    tokens = {"decoder_start_token_id": 3, "pad_token_id": 1, "eos_token_id": 1, "bos_token_id": 1}
    config = transformers.WhisperConfig(
        **sizes, **heads, **tokens, vocab_size=library.get_vocab_size(), max_target_positions=40
    )
    made = save(transformers.WhisperForConditionalGeneration(config), tmp_path_factory.mktemp("hearer"))
    library.save(str(made / "tokenizer.json"))
    return made


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Tones of 2, 33 and 1 seconds, each file of its own pitch."""
    place, out = tmp_path_factory.mktemp("sounds"), []
    for number, seconds in enumerate((2.0, 33.0, 1.0)):
        at = np.arange(int(seconds * RATE)) / RATE
        wave = 0.3 * np.sin(2 * np.pi * (200 + 150 * number) * at) * (np.sin(3 * at) > -0.7)
        soundfile.write(place / f"{number}.wav", wave, RATE)
        out.append(str(place / f"{number}.wav"))
    return out


def model_of(folder: Path) -> Any:
    text = {"type": "text", "length": 30, "decoder": str(folder), "search": {"beams": 1}}
    return untrained({"inputs": {"audio": {"type": "audio", "encoder": str(folder)}}, "outputs": {"text": text}})


def test_long_sounds_are_heard_to_their_end_and_short_ones_as_before(folder: Path, sounds: list[str]) -> None:
    recipe, columns, model = model_of(folder)
    listener = listener_of(columns, model, CPU)
    assert listener is not None
    assert [listener.is_long(sound, Path) for sound in sounds] == [False, True, False]
    both = predict(recipe, columns, model, sounds, device=CPU)
    alone = [predict(recipe, columns, model, [sound], device=CPU)["text"][0].as_py() for sound in sounds]
    assert both["text"].to_pylist() == alone
    assert both.column_names == ["text"]
    told = predict(recipe, columns, model, sounds, device=CPU, wanted=Wanted(timestamps=True))
    assert told.column_names == ["text", "text_segments"]
    for text, segments, seconds in zip(*told.to_pydict().values(), (2, 33, 1), strict=True):
        assert text == " ".join(segment["text"] for segment in segments)
        assert all(0 <= one["start"] <= one["end"] <= seconds for one in segments)
    starts = [segment["start"] for segment in told["text_segments"][1].as_py()]
    assert starts == sorted(starts)
    assert starts[-1] > 30
    assert told["text"][1].as_py() == alone[1]


def test_a_sound_that_cannot_be_read_has_no_answer_and_is_told_of(folder: Path, sounds: list[str]) -> None:
    from zhixing.verbs.predict import asked_table, predict_table

    recipe, columns, model = model_of(folder)
    cells = [Path(sounds[1]).read_bytes()[:60_000], b"RIFF no sound at all", Path(sounds[0]).read_bytes()]
    table = asked_table(recipe, {"audio": cells})
    answers, problems = predict_table(recipe, columns, model, table, device=CPU, wanted=Wanted(timestamps=True))
    assert [cell is None for cell in answers["text"].to_pylist()] == [False, True, False]
    assert [cell is None for cell in answers["text_segments"].to_pylist()] == [False, True, False]
    assert {problem.row for problem in problems if problem.fatal} == {1}


def test_generate_writes_what_predict_says(folder: Path, sounds: list[str]) -> None:
    recipe, columns, model = model_of(folder)
    writer = Writer(recipe, columns, model, CPU)
    said = predict(recipe, columns, model, sounds[1:2], device=CPU)["text"][0].as_py()
    pieces = list(writer.stream(sounds[1:2]))
    assert "".join(piece.text for piece in pieces) == said
    assert pieces[-1].ended == "end"
    lines = "".join(piece.text for piece in writer.stream(sounds[:1], Plan(timestamps=True))).splitlines()
    segments = predict(recipe, columns, model, sounds[:1], device=CPU, wanted=Wanted(timestamps=True))["text_segments"]
    assert lines == "".join(Segment(**one).line() for one in segments[0].as_py()).splitlines()


def test_a_published_folder_generates_by_the_command(folder: Path, sounds: list[str]) -> None:
    recipe, _, _ = published(folder)
    assert list(recipe.inputs) == ["input"]
    done = CliRunner().invoke(
        generate, [str(folder), sounds[2], "--timestamps", "--beams", "1", "--most", "12", "--json"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.output.splitlines()[-1])
    assert told["texts"][0]["ended"] == "end"


def test_times_are_refused_where_there_are_none(tmp_path: Path) -> None:
    run = zx.train(
        {"x": [0.0, 1.0] * 20, "label": ["a", "b"] * 20},
        recipe={"outputs": {"label": "category"}, "training": {"epochs": 1, "threads": 1}}, out=tmp_path / "run",
        device="cpu",
    )  # fmt: skip
    with pytest.raises(UsageError, match="tells no times"):
        predict(run.settings, run.fitted, run.model, {"x": [1.0]}, device=CPU, wanted=Wanted(timestamps=True))


# Fine-tuning ---------------------------------------------------------------------------------------------------------


class Limit(Exception):  # noqa: N818
    """The time that was lent is over."""


def clips() -> dict[str, list[Any]]:
    """Tones of three pitches, which are three words."""
    cells, words = [], ("on the mat", "down again", "cat")
    for number in range(12):
        at = np.arange(RATE // 2) / RATE
        buffer = io.BytesIO()
        wave = 0.4 * np.sin(2 * np.pi * (300 * (1 + number % 3) + number) * at)
        soundfile.write(buffer, wave, RATE, format="WAV")
        cells.append(buffer.getvalue())
    return {"audio": cells, "text": [words[number % 3] for number in range(12)]}


@pytest.mark.slow
def test_a_published_model_learns_from_sounds_and_texts_and_resumes(
    folder: Path, sounds: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = {
        "data": {"split": {"train": 0.75, "validation": 0.25, "test": 0.0}},
        "inputs": {"audio": {"encoder": str(folder), "longest": 30.0}},
        "outputs": {"text": {"decoder": str(folder), "length": 20, "search": {"beams": 1}}},
        "training": {
            "epochs": 6, "batch_size": 3, "threads": 1, "precision": "fp32", "checkpoint_every": 2,
            "optimizer": {"name": "adamw", "lr": 5e-3},
        },
    }  # fmt: skip
    alone = zx.train(clips(), recipe=raw, out=tmp_path / "alone", device="cpu")
    lines = [json.loads(line) for line in (alone.path / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "validation"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.5
    assert len(alone.predict([sounds[1]])["text"]) == 1
    gradients = Loop.gradients

    def stopping(loop: Loop, batch: Batch) -> Tensor:
        found = gradients(loop, batch)
        if loop.progress.step == 9:
            raise Limit
        return found

    monkeypatch.setattr(Loop, "gradients", stopping)
    with pytest.raises(Limit):
        zx.train(clips(), recipe=raw, out=tmp_path / "run", device="cpu")
    monkeypatch.undo()
    resume(tmp_path / "run", source=clips(), device="cpu")
    for file in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "run" / file).read_bytes() == (alone.path / file).read_bytes(), file
    done = CliRunner().invoke(predict_, [str(alone.path), sounds[1], "--timestamps", "--format", "csv"])
    assert done.exit_code == 0, done.output
    assert "text_segments" in done.output.splitlines()[0]
