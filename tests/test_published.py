"""Our Transformer beside the published ones, with the same weights; and what its own settings promise."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from published.pairs import SIDES, Pair, make_pair, trained
from published.readers import Reader
from published.sides import WORDS, padded, small
from published.translators import Translator
from torch import Tensor

from zhixing.layers.positions import PositionKind
from zhixing.layers.transformer import Transformer, TransformerBlock

transformers.logging.set_verbosity_error()

KINDS: list[PositionKind] = ["none", "sinusoidal", "learned", "rotary", "relative", "alibi"]
pair = cache(lambda name: make_pair(SIDES[name]))


def draw_text(length: int) -> Tensor:
    return torch.randint(1, WORDS, (length,))


def compare(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def real_outputs(outputs: dict[str, Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of real words alone, [N, F], where an output has one for each word."""
    mask = inputs.get("decoder_attention_mask", inputs.get("attention_mask"))
    if mask is None:
        return outputs
    return {name: output[mask.bool()] if output.ndim == 3 else output for name, output in outputs.items()}


def both_outputs(both: Pair, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    found, theirs = both.ours(**inputs), both.theirs(**inputs)
    return real_outputs(found, inputs), real_outputs({name: theirs[name] for name in found}, inputs)


@pytest.mark.parametrize(("name", "scale"), [*((name, 1) for name in SIDES), ("t5", 25)])
def test_outputs_and_all_gradients_are_the_published_ones(name: str, scale: int) -> None:
    """T5 also in texts long enough for all of its classes of distances: the last begins at 128."""
    both = make_pair(SIDES[name])
    texts, sources = [draw_text(n * scale) for n in (6, 3, 1)], [both.ours.source(n * scale) for n in (2, 7, 4)]
    found, expected = both_outputs(both, both.ours.inputs(texts, sources))
    compare(found, expected)
    weights = {key: torch.randn_like(output) / scale for key, output in found.items()}
    for outputs in (found, expected):
        sum((weights[key] * output).sum() for key, output in outputs.items()).backward()
    theirs = {key: weight.grad for key, weight in trained(both.theirs).items()}
    gradients = {key: weight.grad for key, weight in trained(both.ours).items()}
    compare(gradients, both.ours.translate(theirs, gradient=True), 1e-4)
    dead = {key for key, gradient in gradients.items() if gradient.abs().max() < 1e-3}
    assert all(key.endswith(".key.bias") for key in dead), dead
    if scale > 1:
        assert all(
            stack.positions.table.weight.grad.any(1).sum() > 30 for stack in (both.ours.encoder, both.ours.decoder)
        )


def test_biases_on_keys_change_nothing() -> None:
    """Whisper's keys have none; ours do, and whatever they hold, outputs are the published ones."""
    both = make_pair(SIDES["whisper"])
    with torch.no_grad():
        for key, weight in both.ours.named_parameters():
            if key.endswith(".key.bias"):
                weight += torch.randn_like(weight)
    inputs = both.ours.inputs([draw_text(5), draw_text(2)], [both.ours.source(0) for _ in range(2)])
    compare(*both_outputs(both, inputs))


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(sorted(set(SIDES) - {"vit"})),
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=4),
    st.booleans(),
)
@torch.no_grad()
def test_padding_changes_no_result(name: str, lengths: list[tuple[int, int]], left: bool) -> None:
    both = pair(name)
    torch.manual_seed(1)
    texts, sources = [draw_text(n) for n, _ in lengths], [both.ours.source(n) for _, n in lengths]
    inputs = both.ours.inputs(texts, sources, left)
    found, expected = both_outputs(both, inputs)
    if left:
        found.pop("pooler_output", None)  # of the first word, which is padding
        expected.pop("pooler_output", None)
    compare(found, expected)
    alone = [both.ours(**both.ours.inputs([text], [source])) for text, source in zip(texts, sources, strict=True)]
    for key, output in found.items():
        compare(output, torch.cat([one[key].flatten(0, -2) for one in alone]))


# Greedy writing


def write_with_cache(reader: Reader, words: Tensor, real: Tensor, more: int) -> tuple[Tensor, Tensor]:
    """The next words [B, more] and the scores [B, more, V] that chose them; prompts end at the right."""
    hidden, cache = reader.stack.step(reader.words(words), reader.stack.start(len(words), words.shape[1] + more), real)
    scores = [reader.scores(hidden[:, -1])]
    while len(scores) < more:
        hidden, cache = reader.stack.step(reader.words(scores[-1].argmax(-1, keepdim=True)), cache)
        scores.append(reader.scores(hidden[:, -1]))
    chosen = torch.stack(scores, dim=1)
    return chosen.argmax(-1), chosen


def write_without_cache(reader: Reader, text: Tensor, more: int) -> Tensor:
    for _ in range(more):
        scores = reader.scores(reader.stack(reader.words(text[None])))
        text = torch.cat([text, scores[0, -1:].argmax(-1)])
    return text[-more:]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("use_cache", [True, False])
@torch.no_grad()
def test_readers_write_the_published_words(name: str, use_cache: bool) -> None:
    both, more = pair(name), 6
    torch.manual_seed(2)
    prompts = [draw_text(n) for n in (5, 2, 1, 3)]
    words, real = padded(prompts, left=True)
    theirs = both.theirs.generate(
        words, attention_mask=real.long(), max_new_tokens=more, do_sample=False, use_cache=use_cache, pad_token_id=0,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    expected, tokens = torch.stack(theirs.logits, dim=1), theirs.sequences[:, words.shape[1] :]
    found, scores = write_with_cache(both.ours, words, real, more)
    assert torch.equal(found, tokens)
    assert len(tokens.unique()) > 3
    compare(scores, expected)
    for prompt, row in zip(prompts, tokens, strict=True):
        assert torch.equal(write_without_cache(both.ours, prompt, more), row)


@pytest.mark.parametrize("name", ["bart", "marian", "t5", "whisper"])
@torch.no_grad()
def test_translators_read_word_by_word_as_the_published_do_at_once(name: str) -> None:
    """With the source's keys and values computed once. (Untrained, they would write one word again and again.)"""
    both = pair(name)
    torch.manual_seed(3)
    side: Translator = both.ours
    inputs = side.inputs([draw_text(7) for _ in range(3)], [side.source(n) for n in (5, 2, 7)])
    source, source_real = side.encode(inputs)
    cache, scores = side.decoder.start(3, 7, source=source, source_real=source_real), []
    for words in inputs["decoder_input_ids"].split([3, 1, 1, 2], dim=1):
        hidden, cache = side.decoder.step(side.enter(words), cache)
        scores.append(side.scores(hidden))
    compare(torch.cat(scores, dim=1), both.theirs(**inputs).logits)


# Our own settings


def own_stack(positions: PositionKind, *, cross: bool = False, **changes: Any) -> Transformer:
    torch.manual_seed(0)
    made = Transformer(16, 2, small("gpt2", positions=positions, **changes), length=30, cross=cross)
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return made


@pytest.mark.parametrize("positions", KINDS)
@pytest.mark.parametrize("cross", [False, True])
def test_recomputing_gives_the_same_loss_and_gradients(positions: PositionKind, cross: bool) -> None:
    """To the bit, with dropout and rows that are skipped: chance is drawn alike when a block runs again."""
    changes: dict[str, Any] = {"dropout": 0.3, "stochastic_depth": 0.3, "cross": cross}
    plain, thrifty = own_stack(positions, **changes), own_stack(positions, recompute=True, **changes)
    runs = [0, 0]
    for number, made in enumerate((plain, thrifty)):
        for block in made.blocks:
            block.register_forward_pre_hook(counter(runs, number))
    x, real = torch.randn(4, 7, 16), padded([draw_text(n) for n in (7, 5, 1, 3)])[1]
    source = {"source": torch.randn(4, 3, 16), "source_real": padded([draw_text(n) for n in (3, 1, 2, 2)])[1]}
    results = []
    for made in (plain, thrifty):
        torch.manual_seed(5)
        entered = x.clone().requires_grad_()
        loss = made(entered, real, **(source if cross else {}))[real].square().mean()
        loss.backward()
        results.append([loss.detach(), entered.grad, *(weight.grad for weight in made.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert all(gradient.any() for gradient in results[0][1:3])
    assert runs == [2, 4]
    with torch.no_grad():
        thrifty(x, real, **(source if cross else {}))
    assert runs == [2, 6]


def counter(runs: list[int], number: int) -> Callable[..., None]:
    def hook(block: TransformerBlock, given: Any) -> None:
        runs[number] += 1

    return hook


def pack(rows: list[list[Tensor]], after: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Texts [T, D] behind one another, one row for each list: vectors, which are real, the number of each vector's
    text (``after`` the last: this), and its place there."""
    most = max(sum(map(len, texts)) for texts in rows)
    x, real = torch.randn(len(rows), most, 16), torch.zeros(len(rows), most, dtype=torch.bool)
    pieces, at = torch.full((len(rows), most), after), torch.zeros(len(rows), most, dtype=torch.int64)
    for row, texts in enumerate(rows):
        lengths = torch.tensor([len(text) for text in texts])
        filled = int(lengths.sum())
        x[row, :filled], real[row, :filled] = torch.cat(texts), True
        pieces[row, :filled] = torch.arange(len(texts)).repeat_interleave(lengths)
        at[row, :filled] = torch.cat([torch.arange(len(text)) for text in texts])
    return x, real, pieces, at


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=3),
    st.sampled_from(KINDS),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_pieces_of_a_row_are_texts_of_their_own(
    lengths: list[list[int]], positions: PositionKind, causal: bool, padding: bool, told: bool
) -> None:
    """Outputs and gradients. Places are ``told`` or counted; what follows a row's last text is said to be ``padding``
    (then its number is that of the first text, which must not matter), or is one more text."""
    made = own_stack(positions, causal=causal).eval()
    rows = [[torch.randn(length, 16) for length in texts] for texts in lengths]
    x, real, pieces, at = pack(rows, 0 if padding else 9)
    together = made(x, real if padding else None, at=at if told else None, pieces=pieces)[real]
    alone = torch.cat([made(text[None])[0] for texts in rows for text in texts])
    compare(together, alone, 2e-5)
    weights = torch.randn_like(alone)
    for one, other in zip(*(gradients(made, weights, out) for out in (together, alone)), strict=True):
        compare(one, other, 1e-4)


def gradients(made: Transformer, weights: Tensor, out: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((weights * out).sum(), list(made.parameters()), materialize_grads=True)
