"""Texts: losses beside sums written out, generation beside a loop of whole forwards, figures beside their libraries."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zhixing.columns.text import Text
from zhixing.columns.vocabulary import BEGIN, END, PAD
from zhixing.data.batches import Batch, ColumnBatch
from zhixing.errors import DataError, UsageError
from zhixing.heads.decoders import CTC, DECODERS, Decoder, TransformerDecoder
from zhixing.heads.search import Search
from zhixing.heads.text import TextHead, error_rates, overlap
from zhixing.model import blank_encoding
from zhixing.models.encoding import Encoding
from zhixing.recipe import Recipe
from zhixing.run import build_model
from zhixing.settings import settings_of

FEW = settings(max_examples=25, deadline=None, derandomize=True)
WIDTH = 6
LETTERS = "abcd"
V = 4 + len(LETTERS)
SMALL = {"width": 8, "depth": 2, "heads": 2, "dropout": 0.0}
FORCED: dict[str, tuple[str, dict[str, Any]]] = {
    "cross": ("transformer", SMALL),
    "prefix": ("transformer", {**SMALL, "join": "prefix"}),
    "gru": ("gru", {"width": 8, "dropout": 0.0}),
}
for positions in ("learned", "rotary", "relative"):
    FORCED[positions] = ("transformer", {**SMALL, "positions": positions, "tie": False})
    if positions != "learned":  # of which there are none for the input
        FORCED[f"prefix {positions}"] = ("transformer", {**SMALL, "positions": positions, "join": "prefix"})


def column_of(texts: list[Any], **chosen: Any) -> Text:
    column = Text(**{"tokenizer": "character", **chosen})
    column.role = "output"
    column.fit(pa.chunked_array([pa.array(texts)]), Path)
    return column


def letters(length: int = 12, **chosen: Any) -> Text:
    """Tokens 4, 5, … are a, b, …"""
    column = column_of([LETTERS * 3, "abc", "ab", "a"], length=length, **chosen)
    assert column.restore(torch.arange(4, V)[None]) == [LETTERS]
    return column


def head_of(name: str, reads: int = WIDTH, column: Text | None = None, **chosen: Any) -> TextHead:
    """A head whose scores are far apart, so that what it writes depends on what it reads."""
    kind, given_ = FORCED.get(name, (name, {}))
    torch.manual_seed(5)
    decoder = settings_of(DECODERS[kind], name=kind)(**{**given_, **chosen})
    head = TextHead(reads, column or letters(), decoder=decoder).double().eval()
    with torch.no_grad():
        for key, parameter in head.named_parameters():
            # A language model alone would say the same for ever: let it listen to its input and to what it has said.
            parameter.add_(torch.randn_like(parameter) * (1.5 if parameter.ndim > 1 and "norm" not in key else 0.1))
    return head


def encoding_of(lengths: list[int], most: int | None = None, seed: int = 0) -> Encoding:
    mask = torch.arange(most or max(1, *lengths)) < torch.tensor(lengths)[:, None]
    chance = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(lengths), 40, WIDTH, generator=chance, dtype=torch.float64)[:, : mask.shape[1]]
    return Encoding(tokens[:, 0], tokens * mask[:, :, None], mask)


def row_of(encoding: Encoding, row: int) -> Encoding:
    """One row, without what is not real."""
    assert encoding.mask is not None
    steps = max(1, int(encoding.mask[row].sum()))
    return Encoding(
        encoding.pooled[row : row + 1], encoding.tokens[row : row + 1, :steps], encoding.mask[row : row + 1, :steps]
    )


def ids(*texts: str, end: bool = True) -> Tensor:
    rows = [[4 + LETTERS.index(letter) for letter in text] + [END] * end for text in texts]
    most = max(map(len, rows))
    return torch.tensor([row + [PAD] * (most - len(row)) for row in rows], dtype=torch.int64)


def spoken(row: Tensor) -> list[int]:
    found = [token for token in row.tolist() if token != PAD]
    return found[: found.index(END) + 1] if END in found else found


# Losses --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("name", FORCED)
def test_the_loss_is_the_mean_over_tokens_of_what_each_costs_after_those_before_it(name: str, smoothing: float) -> None:
    head, texts = head_of(name, smoothing=smoothing), ids("abca", "", "dd", "c")
    encoding = encoding_of([3, 5, 1, 0])
    rows = head.loss(head(encoding, texts), texts)
    for row in range(len(texts)):
        wanted, costs = spoken(texts[row]), []
        for place, token in enumerate(wanted):
            # No token at this place or after it can be seen: another one stands there.
            read = torch.tensor([[*wanted[:place], 4 + (token % len(LETTERS))]])
            scores = head(row_of(encoding, row), read)[0, place].detach()
            chance = (scores - scores.max()).exp()
            chance = chance / chance.sum()
            even = -sum(math.log(p) for p in chance.tolist()) / V
            costs.append((1 - smoothing) * -math.log(chance[token]) + smoothing * even)
        assert float(rows[row].detach()) == pytest.approx(sum(costs) / len(costs), rel=1e-9)
    weights = head.row_weights(texts)
    assert weights is not None
    assert weights.tolist() == [5, 1, 3, 2]


def test_the_gru_decoder_is_its_equations() -> None:
    head, texts, encoding = head_of("gru"), ids("abc", "d"), encoding_of([4, 2])
    decoder: Any = head.decoder
    scores = head(encoding, texts)
    for row, text in enumerate(("abc", "d")):
        source = row_of(encoding, row).tokens[0]
        state = torch.tanh(decoder.start.weight @ source.mean(0) + decoder.start.bias)
        for place, token in enumerate([BEGIN, *ids(text, end=False)[0].tolist()]):
            vector, look = decoder.embed.weight[token], decoder.attention
            weigh = torch.tanh(source @ look.states.weight.T + look.states.bias + look.query.weight @ state)
            seen = (weigh @ look.score.weight[0]).softmax(0) @ source
            parts = decoder.cell.weight_ih @ torch.cat([vector, seen]) + decoder.cell.bias_ih
            own = decoder.cell.weight_hh @ state + decoder.cell.bias_hh
            (r, z, n), (r_own, z_own, n_own) = parts.chunk(3), own.chunk(3)
            reset, keep = torch.sigmoid(r + r_own), torch.sigmoid(z + z_own)
            state = (1 - keep) * torch.tanh(n + reset * n_own) + keep * state
            joined = torch.tanh(decoder.join.weight @ torch.cat([state, seen, vector]) + decoder.join.bias)
            torch.testing.assert_close(scores[row, place], decoder.out.weight @ joined + decoder.out.bias)


@pytest.mark.parametrize("micro", [1, 3, 5])
@pytest.mark.parametrize("decoder", ["transformer", "prefix", "gru", "ctc", "language model"])
def test_parts_of_uneven_token_counts_make_the_whole(decoder: str, micro: int) -> None:
    kind, given_ = FORCED.get({"transformer": "cross"}.get(decoder, decoder), (decoder, {}))
    plain = {"name": kind, **given_, **({"smoothing": 0.1} if decoder != "ctc" else {})}
    if decoder == "language model":
        plain = {"name": "transformer", **SMALL}
    inputs = {} if decoder == "language model" else {"x": {"type": "text", "tokenizer": "character"}}
    for settings_ in inputs.values():
        settings_["encoder"] = {"name": "gru", "width": WIDTH, "embedding": 4}  # type: ignore[assignment]
    recipe = Recipe({"data": {"source": "m"}, "inputs": inputs, "outputs": {"y": {"type": "text", "decoder": plain}}})
    source = letters()
    model = build_model(recipe, {"x": source, "y": letters(packed=not inputs)}).double()
    texts = ids("abcdabcdab", "", "d", "cab", "aaaa", "bd", "", "dcbadcba")
    read = texts.clone().flip(0)
    columns = {"x": ColumnBatch(read, read > PAD), "y": ColumnBatch(texts, texts > PAD)}
    batch = model.weigh(Batch({name: columns[name] for name in ("y", *inputs)}, torch.arange(8)))
    whole = model.loss(batch)
    whole.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert max(float(g.abs().max()) for g in gradients.values()) > 1e-3
    model.zero_grad()
    total = 0.0
    for start in range(0, 8, micro):
        part = model.loss(batch.part(start, min(8, start + micro)))
        part.backward()
        total += float(part.detach())
    assert total == pytest.approx(float(whole.detach()), abs=1e-10)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name not in gradients)
        if parameter.grad is not None:
            assert float((parameter.grad - gradients[name]).abs().max()) < 1e-10, name
    tokens = int((texts > PAD).sum())
    with torch.no_grad():
        rows = model.target_losses(batch, "y", model(batch)["y"])
        by_hand = float((rows * (texts > PAD).sum(1)).sum()) / tokens  # each token counts the same
    assert float(whole.detach()) == pytest.approx(by_hand, rel=1e-6)


# Generation ----------------------------------------------------------------------------------------------------------


def next_scores(head: TextHead, encoding: Encoding, text: list[int]) -> Tensor:
    """What comes after a text, by a whole forward; what no text may hold has no chance."""
    read = torch.tensor([[*text, END]])
    scores = head(encoding, read)[0, len(text)].detach()
    scores[:END] = float("-inf")
    return scores


def greedy_by_hand(head: TextHead, encoding: Encoding, most: int, prompt: list[int]) -> list[int]:
    text: list[int] = []
    while len(text) < most and END not in text:
        text.append(int(next_scores(head, encoding, [*prompt, *text]).argmax()))
    return text


def beams_by_hand(head: TextHead, encoding: Encoding, most: int, width: int, alpha: float) -> list[int]:
    """The K best texts so far, each grown by all tokens; those that have ended stay among them."""

    def score(one: tuple[list[int], float]) -> float:
        return one[1] / ((5 + len(one[0])) / 6) ** alpha

    beams: list[tuple[list[int], float]] = [([], 0.0)]
    for _ in range(most):
        grown = [one for one in beams if one[0][-1:] == [END]]
        for text, total in beams:
            if text[-1:] != [END]:
                chance = next_scores(head, encoding, text).log_softmax(-1)
                grown += [([*text, token], total + float(chance[token])) for token in range(END, V)]
        beams = sorted(grown, key=score, reverse=True)[:width]
    return max(beams, key=score)[0]


@pytest.mark.parametrize("name", FORCED)
def test_greedy_texts_are_those_of_whole_forwards(name: str) -> None:
    head, encoding = head_of(name), encoding_of([3, 5, 1, 0, 4, 2])
    written = head.decoder.write(encoding, Search(), 9)
    by_hand = [greedy_by_hand(head, row_of(encoding, row), 9, []) for row in range(6)]
    assert [spoken(row) for row in written] == by_hand
    assert len({tuple(text) for text in by_hand}) > 1  # they listen to their input


@pytest.mark.parametrize("name", ["cross", "prefix", "gru", "relative"])
@pytest.mark.parametrize(("width", "alpha"), [(2, 0.6), (3, 0.0), (4, 1.0)])
def test_beams_are_those_of_whole_forwards(name: str, width: int, alpha: float) -> None:
    head, encoding = head_of(name), encoding_of([3, 5, 1, 0, 4, 2])
    written = head.decoder.write(encoding, Search(beams=width, length_penalty=alpha), 6)
    assert [spoken(row) for row in written] == [
        beams_by_hand(head, row_of(encoding, row), 6, width, alpha) for row in range(6)
    ]


KINDS = st.sampled_from(["sinusoidal", "learned", "rotary", "relative"])
PROMPTS = ["ab", "", "dcab", "a", "ccc"]


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary", "relative"])
def test_a_language_model_goes_on_from_beginnings_of_any_length(positions: str) -> None:
    head = head_of("transformer", 0, **{**SMALL, "positions": positions})
    prompt = ids(*PROMPTS, end=False)
    written = head.answer(blank(len(PROMPTS)), prompt=prompt)
    for row, text in enumerate(PROMPTS):
        start = [] if not text else ids(text, end=False)[0].tolist()
        # As far as there is room for it, whatever the others need.
        assert spoken(written[row]) == greedy_by_hand(head, blank(1), 12 - len(start), start)
        alone = head.answer(blank(1), prompt=torch.tensor([start], dtype=torch.int64))
        assert spoken(alone[0]) == spoken(written[row])
    ended = torch.cat([prompt, torch.full((len(prompt), 1), END)], dim=1)  # as an output's cells are stored
    assert torch.equal(head.answer(blank(len(PROMPTS)), prompt=ended), written)


def blank(rows: int) -> Encoding:
    encoding = blank_encoding(rows, torch.device("cpu"))
    return encoding._replace(pooled=encoding.pooled.double(), tokens=encoding.tokens.double())


def test_beginnings_that_are_too_long_and_those_that_just_fit() -> None:
    for length in (1, 2, 3, 6, 7):
        column = letters(length=length)
        head = head_of("transformer", 0, column, **{**SMALL, "positions": "learned"})
        most = length // 2
        written = head.answer(blank(2), prompt=torch.full((2, most), 5))
        assert 1 <= written.shape[1] <= length
        with pytest.raises(DataError, match=f"has {most + 1} tokens, more than half of the {length}"):
            head.answer(blank(2), prompt=torch.full((2, most + 1), 5))


@FEW
@given(
    st.sampled_from(["cross", "prefix", "gru", "ctc", "prefix relative", "rotary"]),
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.integers(0, 5),
    st.integers(1, 3),
    st.integers(0, 99),
)
def test_padding_of_inputs_changes_no_text_and_no_loss(name, lengths, more, beams, seed) -> None:
    head, chance = head_of(name), torch.Generator().manual_seed(seed)
    encoding = encoding_of(lengths, seed=seed)
    further = encoding_of(lengths, most=encoding.tokens.shape[1] + more, seed=seed)
    assert further.mask is not None
    noise = torch.randn(further.tokens.shape, generator=chance, dtype=torch.float64)
    further = further._replace(tokens=torch.where(further.mask[:, :, None], further.tokens, noise * 10))
    texts = ids(*["abcadbca"[: max(0, length - row)] for row, length in enumerate(lengths)])
    longer = torch.cat([texts, torch.zeros(len(texts), more, dtype=torch.int64)], dim=1)
    how = Search(beams=beams)
    written = [head.decoder.write(one, how, 6) for one in (encoding, further)]
    losses = [
        head.loss(head(one, target), target)
        for one, target in ((encoding, texts), (further, longer))  # as batches pad each column by itself
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-9, atol=1e-9)
    for row in range(len(lengths)):
        alone = head.decoder.write(row_of(encoding, row), how, 6)
        assert spoken(written[0][row]) == spoken(written[1][row]) == spoken(alone[0])
        own = texts[row : row + 1, : max(1, int((texts[row] > PAD).sum()))]
        mine = head.loss(head(row_of(encoding, row), own), own)
        torch.testing.assert_close(losses[0][row], mine[0], rtol=1e-9, atol=1e-9)


@FEW
@given(st.lists(st.text(LETTERS, max_size=5), min_size=1, max_size=4), st.integers(0, 3), st.integers(1, 3), KINDS)
def test_padding_of_beginnings_changes_no_text(prompts, more, beams, positions) -> None:
    head = head_of("transformer", 0, letters(length=10), **{**SMALL, "positions": positions})
    how = Search(beams=beams)
    prompt = torch.zeros(len(prompts), max(map(len, prompts)) + more, dtype=torch.int64)
    for row, text in enumerate(prompts):
        if text:
            prompt[row, : len(text)] = ids(text, end=False)[0]
    written = head.decoder.write(blank(len(prompts)), how, 10, prompt)
    for row, text in enumerate(prompts):
        alone = head.decoder.write(blank(1), how, 10, prompt[row : row + 1, : len(text)])
        assert spoken(alone[0]) == spoken(written[row])


# Alignments ----------------------------------------------------------------------------------------------------------


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token != PAD]


def chance_by_hand(scores: Tensor, text: list[int]) -> float:
    """The sum over all ways to say a text, one token or nothing a step."""
    return sum(
        math.exp(sum(float(scores[step, token]) for step, token in enumerate(path)))
        for path in itertools.product(range(scores.shape[1]), repeat=len(scores))
        if collapsed(path) == text
    )


@pytest.mark.parametrize("text", ["", "a", "ab", "aa", "aba", "abc", "aab", "aaaa"])
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_the_loss_of_ctc_is_the_sum_over_all_alignments(text: str, steps: int) -> None:
    head = head_of("ctc")
    encoding = encoding_of([steps, 0], most=steps + 2)
    target = ids(text, "")
    prediction = head(encoding, target)
    rows = head.loss(prediction, target)
    assert encoding.mask is not None
    chance = chance_by_hand(prediction[0, :steps].detach(), spoken(target[0])[:-1])
    tokens = len(text) + 1  # its end is one: so each token of a batch counts the same
    assert float(rows[0].detach()) == pytest.approx(-math.log(chance) / tokens if chance else 0.0, rel=1e-6, abs=1e-9)
    assert float(rows[1].detach()) == 0.0  # nothing is said with certainty where nothing is


def test_all_texts_together_are_certain() -> None:
    head, encoding = head_of("ctc"), encoding_of([3])
    scores = head(encoding).detach()[0]
    texts = {tuple(collapsed(path)) for path in itertools.product(range(V), repeat=3)}
    assert sum(chance_by_hand(scores, list(text)) for text in texts) == pytest.approx(1.0)


def test_ctc_rows_that_cannot_be_said_move_nothing() -> None:
    head, target = head_of("ctc"), ids("abc", "aa", "b")
    encoding = encoding_of([2, 2, 2], most=6)  # "aa" needs three steps
    rows = head.loss(head(encoding, target), target)
    assert rows[:2].tolist() == [0, 0]
    assert rows[2] > 0
    rows[:2].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in head.parameters())


def test_what_ctc_says_is_its_likeliest_path() -> None:
    head, encoding = head_of("ctc"), encoding_of([6, 3, 0, 8, 8], seed=3)
    prediction = head(encoding)
    kept = head.keep(prediction, ids("a", "b", "", "c", "d"))
    for row, path in enumerate(prediction.argmax(-1).tolist()):
        assert spoken_whole(kept[row]) == collapsed(tuple(path))
    assert torch.equal(head.answer(encoding, prediction), kept)
    repeated = torch.tensor([[5, 5, 0, 5, 6, 6, 0, 0]])
    fixed = torch.nn.functional.one_hot(repeated, V).double()
    assert head.keep(fixed, repeated)[0].tolist() == [5, 5, 6, 0, 0, 0, 0, 0]


def spoken_whole(row: Tensor) -> list[int]:
    return [token for token in row.tolist() if token != PAD]


# Language models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary", "relative"])
def test_texts_in_one_row_do_not_see_each_other(positions: str) -> None:
    head = head_of("transformer", 0, letters(length=16), **{**SMALL, "positions": positions})
    texts = ["abca", "", "dd", "cab"]
    packed = torch.cat([ids(text)[0] for text in texts])[None]
    scores, start = head(blank(1), packed), 0
    for text in texts:
        alone = head(blank(1), ids(text))
        torch.testing.assert_close(scores[:, start : start + len(text) + 1], alone, rtol=1e-9, atol=1e-9)
        start += len(text) + 1
    cut = head(blank(1), packed[:, :7])  # a block may end within a text
    torch.testing.assert_close(cut, scores[:, :7])


def test_context_is_seen_and_not_scored() -> None:
    head = head_of("transformer", 0, **SMALL)
    text = ids("abcadb")
    marked = torch.where(torch.arange(text.shape[1]) < 3, -text, text)
    other = marked.clone()
    other[0, 1] = -7
    scores = head(blank(1), text)
    torch.testing.assert_close(head(blank(1), marked), scores)
    assert not torch.allclose(head(blank(1), other)[0, -1], scores[0, -1])
    costs = -scores[0].log_softmax(-1)[torch.arange(3, 7), text[0, 3:]]
    torch.testing.assert_close(head.loss(scores, marked)[0], costs.mean())
    weights = head.row_weights(marked)
    assert weights is not None
    assert weights.tolist() == [4]
    loss, right, tokens, _ = head.keep(scores, marked)[0].tolist()
    assert (loss, tokens) == (pytest.approx(float(costs.sum().detach())), 4)
    assert right == int((scores[0, 3:].argmax(-1) == text[0, 3:]).sum())
    empty = torch.where(text > 0, -text, text)
    assert head.loss(scores, empty).tolist() == [0.0]


# Figures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["byte", "bpe"])
def test_bits_for_each_byte_are_those_of_the_definition(tokenizer: str) -> None:
    texts = ["知行 a", "é", "", "abc 知 abc abc"]
    column = column_of(texts * 5, tokenizer=tokenizer, vocabulary=280, length=30)
    head = head_of("transformer", 0, column, **SMALL)
    rows = [column.tensorize(pa.array([text]), Path).values.tolist() for text in texts]
    target = torch.zeros(4, max(map(len, rows)), dtype=torch.int64)
    for row, tokens in enumerate(rows):
        target[row, : len(tokens)] = torch.tensor(tokens)
    scores = head(blank(4), target).detach()
    figures = head.metrics(head.keep(scores, target), target, column)
    costs = [
        -float(scores[row].log_softmax(-1)[place, token])
        for row, tokens in enumerate(rows)
        for place, token in enumerate(tokens)
    ]
    bytes_ = sum(len(text.encode()) + 1 for text in texts)  # the end of each counts as a line break
    assert figures["bits_per_byte"] == pytest.approx(sum(costs) / math.log(2) / bytes_)
    assert figures["perplexity"] == pytest.approx(math.exp(sum(costs) / len(costs)))
    guesses = [(int(scores[r, p].argmax()), t) for r, tokens in enumerate(rows) for p, t in enumerate(tokens)]
    assert figures["token_accuracy"] == pytest.approx(np.mean([said == true for said, true in guesses]))


def test_smoothing_does_not_touch_the_figures() -> None:
    text, encoding = ids("abca", "d"), encoding_of([3, 2])
    plain, smooth = head_of("cross"), head_of("cross", smoothing=0.4)
    scores = plain(encoding, text)
    torch.testing.assert_close(plain.keep(scores, text), smooth.keep(scores, text))
    assert not torch.allclose(plain.loss(scores, text), smooth.loss(scores, text))


SAID = ["the cat sat on a mat", "a dog", "", "so it is", "知行合一", "noise"]
TRUE = ["the cat sat on the mat", "a dog", "a bird", "it is so", "知行合一也", ""]


def test_figures_of_answers_are_those_of_their_libraries() -> None:
    import jiwer
    import sacrebleu

    figures = head_of("cross").answer_metrics(SAID, TRUE)
    assert figures["exact"] == pytest.approx(1 / 6)
    assert figures["bleu"] == pytest.approx(sacrebleu.corpus_bleu(SAID, [TRUE]).score)
    assert figures["chrf"] == pytest.approx(sacrebleu.corpus_chrf(SAID, [TRUE]).score)
    # jiwer takes no empty reference: what is said there is added by hand to its errors.
    words = jiwer.process_words(TRUE[:5], SAID[:5])
    wrong = words.substitutions + words.deletions + words.insertions
    assert figures["wer"] == pytest.approx((wrong + 1) / sum(len(text.split()) for text in TRUE))
    assert jiwer.wer(TRUE[:5], SAID[:5]) == pytest.approx(wrong / sum(len(text.split()) for text in TRUE))
    letters_ = jiwer.process_characters(TRUE[:5], SAID[:5])
    wrong = letters_.substitutions + letters_.deletions + letters_.insertions
    assert figures["cer"] == pytest.approx((wrong + len("noise")) / sum(map(len, TRUE)))


def test_texts_without_spaces_are_cut_into_characters_for_bleu() -> None:
    import sacrebleu

    said, true = ["我们在这里等你", "他今天不来了"], ["我们在那里等你", "他今天不会来了"]
    assert overlap(said, true)["bleu"] == pytest.approx(sacrebleu.corpus_bleu(said, [true], tokenize="zh").score)
    assert overlap(said, true)["bleu"] > 10 > overlap(["x"], ["y"])["bleu"]
    assert error_rates([""], [""]) == {}
    assert error_rates(["b", "a"], ["", "a"]) == {"wer": 1.0, "cer": 1.0}
    assert overlap([""], [""]) == {"bleu": 0.0, "chrf": pytest.approx(0.0)}


def test_figures_of_ctc_are_error_rates_of_what_it_says() -> None:
    head, column = head_of("ctc"), letters()
    said, true = ids("abca", "dd", "", end=False), ids("abda", "d", "a")
    assert head.metrics(said, true, column) == error_rates(["abca", "dd", ""], ["abda", "d", "a"])
    assert head.goal == "cer"
    assert not head.forced
    assert not head.higher


def test_texts_that_are_lists_of_words_have_figures_too() -> None:
    cells = [["the", "cat"], ["a", "dog", "sat"], []]
    column = column_of(cells, tokenizer="word")
    head = head_of("cross", column=column)
    target = torch.tensor([[*ids_of(column, cell), END][:4] + [PAD] * (3 - len(cell)) for cell in cells])
    truth = column.restore(target)
    assert truth == cells
    said = [["the", "cat"], ["a", "dog"], ["a"]]
    assert head.answer_metrics(said, truth) == head.answer_metrics(
        ["the cat", "a dog", "a"], ["the cat", "a dog sat", ""]
    )
    spelled = head_of("ctc", column=column).metrics(target, target, column)
    assert spelled == {"wer": 0.0, "cer": 0.0}


def ids_of(column: Text, cell: list[str]) -> list[int]:
    return [
        token
        for token in column.tensorize(pa.array([cell], pa.list_(pa.string())), Path).values.tolist()
        if token > END
    ]


@pytest.mark.parametrize("name", [*FORCED, "ctc"])
def test_empty_texts_and_empty_inputs(name: str) -> None:
    head, target = head_of(name), ids("", "")
    encoding = encoding_of([0, 3])
    rows = head.loss(head(encoding, target), target)
    assert rows.isfinite().all()
    rows.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())
    answers = head.decode(head.answer(encoding), letters())[""]
    assert len(answers) == 2
    figures = head.metrics(head.keep(head(encoding, target), target), target, letters())
    assert all(math.isfinite(value) for value in figures.values())
    absent = torch.zeros(2, 1, dtype=torch.int64)  # rows without a target
    assert head.loss(head(encoding, absent), absent).isfinite().all()
    weights = head.row_weights(absent)
    assert weights is not None
    assert weights.tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["gru", "ctc"])
def test_decoders_that_read_an_input_say_so(kind: str) -> None:
    with pytest.raises(UsageError, match="Take the transformer decoder"):
        head_of(kind, 0)


def test_ctc_has_nothing_to_search() -> None:
    with pytest.raises(UsageError, match="nothing to search"):
        TextHead(WIDTH, letters(), decoder=settings_of(DECODERS["ctc"], name="ctc")(), search=Search(beams=4))


def test_learned_places_leave_none_for_a_prefix() -> None:
    with pytest.raises(UsageError, match=r"learned positions.*Choose positions"):
        TransformerDecoder(WIDTH, V, 12, join="prefix", positions="learned")
    TransformerDecoder(0, V, 12, join="prefix", positions="learned")  # nothing to read before the text


def test_all_decoders_are_covered_here() -> None:
    assert {kind for kind, _ in FORCED.values()} | {"ctc"} == set(DECODERS)
    assert all(issubclass(decoder, Decoder) for decoder in DECODERS.values() if isinstance(decoder, type))
    assert not CTC.forced
