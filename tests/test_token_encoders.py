"""Encoders of tokens: one contract for all, then what each of them promises; and columns that act together."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence

from zhixing.errors import RecipeError
from zhixing.models.cross import CrossNetwork, DeepCross, Factorised
from zhixing.models.embedding import Embedding
from zhixing.models.encoding import Encoder, Encoding, Spec, StepEncoder, Steps, pool_tokens
from zhixing.models.histories import GRU4Rec, SASRec
from zhixing.models.pooled import Bag
from zhixing.models.recurrent import GRU, LSTM, RNN
from zhixing.models.tcn import TCN, reach
from zhixing.models.text_cnn import TextCNN
from zhixing.models.transformer import TransformerEncoder
from zhixing.settings import settings_of

WORDS, MOST = 30, 9
SMALL: dict[str, tuple[type[StepEncoder], dict[str, Any]]] = {
    "rnn": (RNN, {"width": 6, "embedding": 5}),
    "lstm": (LSTM, {"width": 6, "embedding": 5, "bidirectional": True, "layers": 2, "pooling": "attention"}),
    "gru": (GRU, {"width": 6, "embedding": 5, "pooling": "max"}),
    "transformer": (TransformerEncoder, {"width": 8, "heads": 2}),
    "transformer_learned": (TransformerEncoder, {"width": 8, "heads": 2, "positions": "learned", "pooling": "last"}),
    "transformer_cls": (TransformerEncoder, {"width": 8, "heads": 2, "positions": "rotary", "pooling": "cls"}),
    "text_cnn": (TextCNN, {"embedding": 5, "channels": 4, "kernels": (1, 2, 5)}),
    "tcn": (TCN, {"width": 6, "embedding": 5}),
    "tcn_both_ways": (TCN, {"width": 6, "embedding": 5, "causal": False, "kernel": 4, "weight_norm": False}),
    "bag": (Bag, {"width": 6}),
    "bag_attention": (Bag, {"width": 6, "pooling": "attention"}),
    "sasrec": (SASRec, {"width": 8, "heads": 2}),
    "gru4rec": (GRU4Rec, {"width": 6, "layers": 2}),
}
EVERY = pytest.mark.parametrize("name", SMALL)
STEPS = [name for name, (kind, _) in SMALL.items() if "sequence" in kind.accepts]


def build(name: str, spec: Spec | None = None, seed: int = 0, **more: Any) -> StepEncoder:
    kind, keywords = SMALL[name]
    torch.manual_seed(seed)
    return kind(spec or Spec("tokens", (MOST,), WORDS), **{**keywords, **more}).eval()


def ragged(lengths: list[int], most: int) -> Tensor:
    return torch.arange(most) < torch.tensor(lengths)[:, None]


def drawn(lengths: list[int], most: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Tokens [B, T], padding 0, and their mask."""
    mask = ragged(lengths, most)
    tokens = torch.randint(1, WORDS, mask.shape, generator=torch.Generator().manual_seed(seed))
    return tokens * mask, mask


# The contract


@EVERY
def test_shapes_and_what_is_handed_on(name: str) -> None:
    encoder, (tokens, mask) = build(name), drawn([9, 3, 1], MOST)
    encoding = encoder(tokens, mask)
    assert isinstance(encoding, Encoding)
    assert encoding.pooled.shape == (3, encoder.width)
    assert encoding.tokens.shape == (3, MOST, encoder.token_width)
    assert encoding.mask is mask
    assert encoding.grid is None
    without = encoder(tokens)  # padding is told by its id
    assert without.mask is not None
    assert torch.equal(without.mask, mask)
    assert torch.equal(without.pooled, encoding.pooled)


@EVERY
def test_settings_are_derived_from_the_signature(name: str) -> None:
    model = settings_of(SMALL[name][0], name=name)
    assert model.__doc__
    assert all(field.description for key, field in model.model_fields.items() if key != "name")
    chosen = model.model_validate(yaml.safe_load(yaml.safe_dump(model().model_dump(mode="json"))))
    assert chosen == model()
    with torch.device("meta"):
        encoder = SMALL[name][0](Spec("tokens", (40,), 1000), **chosen.keywords())
    assert encoder(torch.ones(2, 7, dtype=torch.int64, device="meta")).pooled.shape == (2, encoder.width)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(list(SMALL)), st.lists(st.integers(0, MOST), min_size=1, max_size=4), st.integers(0, 3))
@torch.inference_mode()
def test_only_real_tokens_are_read(name: str, lengths: list[int], more: int) -> None:
    """In a batch with whatever behind it, a row gives what it gives alone, and nothing at all where it has no token."""
    encoder, (tokens, mask) = build(name), drawn(lengths, max(lengths))
    garbage = F.pad(tokens.masked_fill(~mask, 10**9), (0, min(more, MOST - max(lengths))), value=-1)
    encoding = encoder(garbage, F.pad(mask, (0, garbage.shape[1] - mask.shape[1])))
    assert encoding.pooled.isfinite().all()
    assert encoding.tokens.isfinite().all()
    for row, length in enumerate(lengths):
        if length:
            alone = encoder(tokens[row : row + 1, :length], None)
            torch.testing.assert_close(encoding.pooled[row], alone.pooled[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(encoding.tokens[row, :length], alone.tokens[0], rtol=1e-4, atol=1e-5)
        else:
            assert bool(encoding.pooled[row].any()) is (name == "transformer_cls")


@EVERY
@pytest.mark.parametrize("most", [0, 1, 5])
def test_batches_of_nothing_but_padding(name: str, most: int) -> None:
    encoder = build(name).train()
    encoding = encoder(torch.zeros(2, most, dtype=torch.int64), torch.zeros(2, most, dtype=torch.bool))
    assert encoding.mask is not None
    assert not encoding.mask.any()
    assert encoding.tokens.shape[:2] == encoding.mask.shape == (2, max(most, 1))
    (encoding.pooled.sum() + encoding.tokens.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@EVERY
def test_gradients_reach_every_parameter_but_the_vector_of_padding(name: str) -> None:
    encoder, (tokens, mask) = build(name), drawn([9, 4, 2, 0], MOST)
    encoding = encoder(tokens, mask)
    chance = torch.Generator().manual_seed(2)
    parts = (encoding.pooled, encoding.tokens * mask.unsqueeze(-1))
    torch.stack([(part * torch.randn(part.shape, generator=chance)).sum() for part in parts]).sum().backward()
    table = encoder.item_embedding
    assert table is not None
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key
    assert table.weight.grad is not None
    told = torch.zeros(WORDS, dtype=torch.bool)
    told[tokens[mask].unique()] = True
    assert torch.equal(table.weight.grad.any(1), told)
    assert not table.weight[0].any()


@EVERY
@torch.inference_mode()
def test_precision_compilation_and_seeds(name: str) -> None:
    encoder, (tokens, mask) = build(name), drawn([9, 3, 5], MOST)
    expected = encoder(tokens, mask).pooled
    assert torch.equal(build(name)(tokens, mask).pooled, expected)
    assert not torch.equal(build(name, seed=1)(tokens, mask).pooled, expected)
    wide = copy.deepcopy(encoder).double()(tokens, mask).pooled
    torch.testing.assert_close(wide, expected.double(), rtol=1e-3, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        halved = encoder(tokens, mask).pooled
    torch.testing.assert_close(halved.float(), expected, rtol=0.1, atol=0.1 * float(expected.abs().max()))
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(encoder, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(tokens, mask).pooled, expected)


@EVERY
def test_order_tells_all_but_bags(name: str) -> None:
    tokens, mask = drawn([9, 9], MOST)
    there, back = (build(name)(some, mask).pooled for some in (tokens, tokens.flip(1)))
    assert torch.allclose(there, back, atol=1e-6) is name.startswith("bag")


@pytest.mark.parametrize("name", STEPS)
@torch.inference_mode()
def test_sequences_and_pictures_have_no_table(name: str) -> None:
    encoder = build(name, Spec("sequence", (MOST, 3)))
    assert encoder.item_embedding is None
    assert not any("embedding" in key for key in encoder.state_dict())
    values, mask = torch.randn(3, MOST, 3), ragged([9, 4, 0], MOST)
    encoding = encoder(values, mask)
    other = encoder(values.masked_fill(~mask.unsqueeze(-1), torch.nan), mask)
    assert torch.equal(other.pooled, encoding.pooled)
    alone = encoder(values[1:2, :4])
    torch.testing.assert_close(alone.pooled[0], encoding.pooled[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.tokens[0], encoding.tokens[1, :4], rtol=1e-4, atol=1e-5)
    picture = build(name, Spec("image", (1, MOST, 3)))
    picture.load_state_dict(encoder.state_dict())
    assert torch.equal(picture(values.unsqueeze(1), torch.ones(3).bool()).pooled, encoder(values).pooled)


def test_other_encoders_have_no_table_to_share() -> None:
    assert Encoder().item_embedding is None
    assert Embedding(Spec("ids", (), 5)).item_embedding is None


# The entrance


def test_vectors_of_tokens_start_with_a_length_of_one() -> None:
    torch.manual_seed(0)
    table = Steps(Spec("tokens", (4,), 2000), 64).embedding
    assert table is not None
    assert not table.weight[0].any()
    assert float(table.weight[1:].detach().square().sum(1).mean()) == pytest.approx(1.0, rel=0.02)


def test_steps_that_are_vectors_pass_as_they_are() -> None:
    values = torch.randn(2, 5, 3)
    steps = Steps(Spec("sequence", (5, 3)), 64)
    assert (steps.width, steps.most, list(steps.parameters())) == (3, 5, [])
    assert steps(values)[0] is values
    picture = Steps(Spec("image", (2, 7, 4)), 64)
    assert (picture.width, picture.most) == (8, 7)


@pytest.mark.parametrize(("positions", "scale"), [("sinusoidal", 4.0), ("rotary", 4.0), ("learned", 1.0)])
def test_a_transformer_scales_tokens_unless_positions_are_learned(positions: Any, scale: float) -> None:
    encoder = TransformerEncoder(Spec("tokens", (6,), 9), width=16, heads=2, positions=positions).eval()
    tokens = torch.tensor([[3, 8, 1]])
    assert encoder.item_embedding is not None
    expected = encoder.blocks(scale * encoder.item_embedding.weight[tokens])
    torch.testing.assert_close(encoder(tokens).tokens, expected)


def test_pooling_a_sum() -> None:
    tokens, mask = torch.randn(2, 5, 3), ragged([4, 0], 5)
    torch.testing.assert_close(pool_tokens(tokens, mask, "sum")[0], tokens[0, :4].sum(0))
    assert not pool_tokens(tokens, mask, "sum")[1].any()


# Bags and convolutions


@pytest.mark.parametrize("pooling", ["mean", "sum", "max"])
def test_a_bag_is_torchs(pooling: Any) -> None:
    encoder, (tokens, mask) = build("bag", pooling=pooling), drawn([9, 4, 0], MOST)
    assert encoder.item_embedding is not None
    theirs = nn.EmbeddingBag(WORDS, 6, mode=pooling, padding_idx=0)
    theirs.weight = encoder.item_embedding.weight
    torch.testing.assert_close(encoder(tokens, mask).pooled, theirs(tokens))


@torch.inference_mode()
def test_text_cnn_is_the_largest_answer_to_any_window() -> None:
    encoder, (tokens, mask) = build("text_cnn"), drawn([6, 1], MOST)
    assert isinstance(encoder, TextCNN)
    vectors, _ = encoder.steps(tokens, mask)
    pooled = encoder(tokens, mask).pooled
    for row, length in enumerate([6, 1]):
        answers = []
        for layer in encoder.convolutions:
            assert isinstance(layer, nn.Conv1d)
            assert layer.bias is not None
            kernel = layer.kernel_size[0]
            best = torch.zeros(4)
            for step in range(length):
                window = torch.zeros(kernel, 5)
                for place in range(kernel):
                    at = step + place - (kernel - 1) // 2
                    if 0 <= at < length:
                        window[place] = vectors[row, at]
                best = torch.maximum(best, torch.einsum("ofk,kf->o", layer.weight, window) + layer.bias)
            answers.append(best)
        torch.testing.assert_close(pooled[row], torch.cat(answers), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weight_norm", [True, False])
@torch.inference_mode()
def test_tcn_is_made_of_torchs_convolutions(weight_norm: bool) -> None:
    encoder = build("tcn", Spec("sequence", (12, 4)), depth=3, weight_norm=weight_norm)
    values = torch.randn(2, 12, 4)
    x = values.transpose(1, 2)
    for number, block in enumerate(encoder.blocks):  # type: ignore[arg-type]
        inner = x
        for ours in (block.first, block.second):
            theirs: nn.Module = nn.Conv1d(ours.in_channels, 6, 3, dilation=2**number, padding=2 * 2**number)
            theirs.load_state_dict({"weight": ours.weight, "bias": ours.bias})
            theirs = parametrizations.weight_norm(theirs) if weight_norm else theirs
            inner = theirs(inner)[..., :12].relu()  # what the padding behind adds is cut off: Bai et al.'s "chomp"
        x = (inner + block.shortcut(x)).relu()
    torch.testing.assert_close(encoder(values).tokens, x.transpose(1, 2), rtol=1e-4, atol=1e-6)


def test_weight_norm_keeps_length_and_direction_apart() -> None:
    encoder = build("tcn")
    layer: Any = encoder.blocks[1].first  # type: ignore[index]
    x = torch.randn(2, 6, 7)
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(3.0)
    torch.testing.assert_close(layer(x), before)
    with torch.no_grad():
        layer.gain.mul_(2.0)
    torch.testing.assert_close(layer(x) - layer.bias[:, None], 2 * (before - layer.bias[:, None]))


@pytest.mark.parametrize(("depth", "kernel"), [(1, 2), (2, 3), (3, 2), (3, 4)])
@pytest.mark.parametrize("causal", [True, False])
def test_how_far_a_tcn_sees(depth: int, kernel: int, causal: bool) -> None:
    """Gradients of the middle step's token are zero outside of its field, at whose both ends they are not."""
    most, middle = 121, 60
    encoder = build("tcn", Spec("sequence", (most, 2)), depth=depth, kernel=kernel, causal=causal, width=16)
    values = torch.randn(1, most, 2, requires_grad=True)
    encoder(values).tokens[0, middle].sum().backward()
    assert values.grad is not None
    seen = values.grad[0].any(1).nonzero().flatten()
    around = reach(depth, kernel) - 1
    before = around if causal else around // 2
    assert (middle - int(seen.min()), int(seen.max()) - middle) == (before, around - before)


def test_tcn_grows_until_it_sees_the_longest_row() -> None:
    def depth(most: int, **keywords: Any) -> int:
        with torch.device("meta"):
            return len(TCN(Spec("sequence", (most, 2)), **keywords).blocks)

    assert [depth(most) for most in (1, 5, 6, 13, 14, 10_000)] == [1, 1, 2, 2, 3, 8]
    assert depth(100, depth=2) == 2
    assert depth(9, kernel=2) == 3
    assert [TCN(Spec("sequence", (4, 2)), causal=causal).pooling for causal in (True, False)] == ["last", "mean"]


@pytest.mark.parametrize("name", ["rnn", "gru4rec", "tcn", "sasrec"])
@torch.inference_mode()
def test_causal_states_do_not_see_what_follows(name: str) -> None:
    encoder, (tokens, mask) = build(name), drawn([9], MOST)
    other = tokens.clone()
    other[0, 5:] = other[0, 5:] % (WORDS - 1) + 1
    states, changed = encoder(tokens, mask).tokens[0], encoder(other, mask).tokens[0]
    torch.testing.assert_close(states[:5], changed[:5])
    assert not torch.allclose(states[5], changed[5])


# Histories


@torch.inference_mode()
def test_sasrec_counts_places_from_the_newest_item() -> None:
    """The papers' layout, in which rows are padded in front and places run to the end of all, gives the same."""
    encoder, (tokens, mask) = build("sasrec"), drawn([9, 4, 1], MOST)
    assert encoder.item_embedding is not None
    encoding = encoder(tokens, mask)
    for row, length in enumerate([9, 4, 1]):
        items = encoder.item_embedding.weight[tokens[row : row + 1, :length]]
        states = encoder.blocks(items, at=torch.arange(length).flip(0))  # type: ignore[operator]
        torch.testing.assert_close(encoding.tokens[row, :length], states[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoding.pooled[row], states[0, -1], rtol=1e-4, atol=1e-5)
        front = F.pad(tokens[row : row + 1, :length], (MOST - length, 0))
        torch.testing.assert_close(encoder(front).pooled[0], encoding.pooled[row], rtol=1e-4, atol=1e-5)


def test_sasrec_is_as_wide_as_its_table_and_as_narrow_as_the_paper_says() -> None:
    encoder = SASRec(Spec("tokens", (50,), 3418))
    table = encoder.item_embedding
    assert table is not None
    assert table.weight.shape == (3418, encoder.width) == (3418, 64)
    block = 4 * (64 * 64 + 64) + 2 * (64 * 64 + 64) + 2 * 2 * 64  # attention, feed-forward of 64 units, two norms
    assert sum(p.numel() for p in encoder.parameters()) == 3418 * 64 + 50 * 64 + 2 * block + 2 * 64
    assert not torch.equal(encoder.train()(torch.tensor([[5]])).pooled, encoder(torch.tensor([[5]])).pooled)


def test_gru4rec_is_torchs_with_packed_rows() -> None:
    encoder, (tokens, mask) = build("gru4rec"), drawn([9, 4, 1], MOST)
    assert isinstance(encoder, GRU4Rec)
    table = encoder.item_embedding
    assert table is not None
    assert table.weight.shape[1] == encoder.width
    theirs = nn.GRU(6, 6, 2, batch_first=True)
    theirs.load_state_dict(encoder.recurrent.stages[0][0].state_dict())  # type: ignore[index]
    packed = pack_padded_sequence(table(tokens), mask.sum(1), batch_first=True)
    torch.testing.assert_close(encoder(tokens, mask).pooled, theirs(packed)[1][-1], rtol=1e-5, atol=1e-6)


# Learning


def fit(modules: list[nn.Module], loss_of: Any, steps: int, *, lr: float = 1e-2) -> None:
    optimizer = torch.optim.AdamW([p for module in modules for p in module.parameters()], lr=lr)
    for step in range(steps):
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def has_phrase(tokens: Tensor) -> Tensor:
    """Whether the word 2 stands right before the word 3 anywhere."""
    return ((tokens[:, :-1] == 2) & (tokens[:, 1:] == 3)).any(1).long()


@pytest.mark.parametrize("name", ["lstm", "gru", "transformer", "text_cnn", "tcn"])
def test_they_learn_a_phrase_that_a_bag_cannot_tell(name: str) -> None:
    def batch(seed: int, rows: int = 64) -> tuple[Tensor, Tensor, Tensor]:
        chance = torch.Generator().manual_seed(seed)
        mask = torch.arange(MOST) < torch.randint(2, MOST + 1, (rows, 1), generator=chance)
        tokens = torch.randint(4, WORDS, (rows, MOST), generator=chance)
        at = torch.randint(0, 100, (rows,), generator=chance) % (mask.sum(1) - 1)
        pair = torch.tensor([[2, 3], [3, 2]])[torch.randint(2, (rows,), generator=chance)]
        tokens = tokens.scatter(1, torch.stack([at, at + 1], dim=1), pair) * mask
        return tokens, mask, has_phrase(tokens)

    def judge(kind: str, steps: int) -> float:
        torch.manual_seed(0)
        more = {"pooling": "max"} if kind == "tcn" else {"positions": "relative"} if kind == "transformer" else {}
        encoder = build(kind, **more).train()
        head = nn.Linear(encoder.width, 2)

        def loss_of(step: int) -> Tensor:
            tokens, mask, label = batch(step)
            return F.cross_entropy(head(encoder(tokens, mask).pooled), label)

        fit([encoder, head], loss_of, steps)
        tokens, mask, label = batch(10**6, 500)
        with torch.inference_mode():
            return float((head(encoder.eval()(tokens, mask).pooled).argmax(1) == label).float().mean())

    assert judge(name, 160) > 0.95
    if name == "text_cnn":
        assert judge("bag", 60) < 0.65


@pytest.mark.parametrize("kind", [SASRec, GRU4Rec])
def test_histories_learn_the_next_item_with_the_shared_table(kind: type[SASRec] | type[GRU4Rec]) -> None:
    """The next item follows from the last two: a table of pairs, of which bags and single items know nothing."""
    torch.manual_seed(0)
    items, most = 8, 5
    rule = torch.randint(1, items, (items, items), generator=torch.Generator().manual_seed(3))

    def batch(seed: int, rows: int = 128) -> tuple[Tensor, Tensor]:
        chance = torch.Generator().manual_seed(seed)
        tokens = torch.randint(1, items, (rows, most), generator=chance)
        length = torch.randint(2, most + 1, (rows,), generator=chance)
        last = tokens.gather(1, torch.stack([length - 2, length - 1], dim=1))
        return tokens * (torch.arange(most) < length[:, None]), rule[last[:, 0], last[:, 1]]

    encoder = kind(Spec("tokens", (most,), items), width=32, dropout=0.0)
    table = encoder.item_embedding
    assert table is not None

    def loss_of(step: int) -> Tensor:
        tokens, after = batch(step)
        return F.cross_entropy(encoder(tokens).pooled @ table.weight.T, after)

    fit([encoder], loss_of, 200, lr=5e-3)
    tokens, after = batch(10**6, 1000)
    with torch.inference_mode():
        right = (encoder.eval()(tokens).pooled @ table.weight.T).argmax(1) == after
    assert float(right.float().mean()) > 0.9


# Columns that act together


@pytest.mark.parametrize("rank", [None, 2])
def test_cross_layers_are_their_formula(rank: int | None) -> None:
    network = CrossNetwork(5, depth=3, rank=rank).double()
    first = torch.randn(4, 5, dtype=torch.float64)
    x = first
    for layer in network.layers:
        if rank is None:
            assert isinstance(layer, nn.Linear)
            weight, bias = layer.weight, layer.bias
        else:
            assert isinstance(layer, nn.Sequential)
            into, out = layer
            assert isinstance(into, nn.Linear)
            assert isinstance(out, nn.Linear)
            weight, bias = out.weight @ into.weight, out.bias
        x = torch.stack([start * (weight @ row + bias) + row for start, row in zip(first, x, strict=True)])
    torch.testing.assert_close(network(first), x)


def test_cross_layers_multiply_once_more_each() -> None:
    """Along a line through zero the result is a polynomial of degree depth + 1: its next differences vanish."""
    for depth in (1, 2, 3):
        network = CrossNetwork(4, depth=depth).double()
        line = torch.arange(depth + 3, dtype=torch.float64)[:, None] * torch.randn(1, 4, dtype=torch.float64)
        with torch.no_grad():
            values = network(line)
        assert values.diff(n=depth + 1, dim=0).abs().max() > 1e-6
        assert values.diff(n=depth + 2, dim=0).abs().max() < 1e-9 * values.abs().max()


def test_deep_and_cross_side_by_side_and_on_each_other() -> None:
    parts = [torch.randn(3, 2), torch.randn(3, 4)]
    together = torch.cat(parts, dim=1)
    beside = DeepCross([2, 4], depth=1, widths=(7, 5), activation="tanh")
    assert beside.width == 11
    torch.testing.assert_close(beside(parts), torch.cat([beside.cross(together), beside.deep(together)], dim=1))
    stacked = DeepCross([2, 4], depth=1, widths=(7, 5), structure="stacked")
    assert stacked.width == 5
    torch.testing.assert_close(stacked(parts), stacked.deep(stacked.cross(together)))
    for structure in ("parallel", "stacked"):
        alone = DeepCross([2, 4], widths=(), structure=structure)  # type: ignore[arg-type]
        assert alone.width == 6
        assert torch.equal(alone(parts), alone.cross(together))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 5))
def test_factorised_is_the_sum_over_all_pairs(inputs: int, width: int) -> None:
    parts = [torch.randn(3, width, dtype=torch.float64) for _ in range(inputs)]
    module = Factorised([width] * inputs)
    out = module(parts)
    assert out.shape == (3, module.width)
    pairs = torch.zeros(3, dtype=torch.float64)
    for one in range(inputs):
        for other in range(one + 1, inputs):
            pairs += (parts[one] * parts[other]).sum(1)
    torch.testing.assert_close(out[:, :width].sum(1), pairs)
    assert torch.equal(out[:, width:], torch.cat(parts, dim=1))


def test_factorised_refuses_encodings_of_unequal_width() -> None:
    with pytest.raises(RecipeError, match=r"must have the same width; these have 8, 1, 8"):
        Factorised([8, 1, 8])


def test_products_of_users_and_items_are_learned() -> None:
    """Ratings of a few hidden traits, a third of them held back: sums of what users and items are say little."""
    torch.manual_seed(0)
    users, items, traits = 30, 25, 2
    rating = torch.randn(users, traits) @ torch.randn(items, traits).T
    cells = torch.cartesian_prod(torch.arange(users), torch.arange(items))[torch.randperm(users * items)]
    train, test = cells[:500], cells[500:]

    def error(joint: nn.Module) -> float:
        encoders = [Embedding(Spec("ids", (), count + 2), width=8) for count in (users, items)]
        head = nn.Linear(joint.width, 1)  # type: ignore[arg-type]

        def said(rows: Tensor) -> Tensor:
            pooled = [encoder(rows[:, place]).pooled for place, encoder in enumerate(encoders)]
            return head(joint(pooled)).squeeze(1)  # type: ignore[no-any-return]

        def loss_of(step: int) -> Tensor:
            decay = 3e-3 * sum(encoder.table.weight.square().sum(1).mean() for encoder in encoders)
            return F.mse_loss(said(train), rating[train[:, 0], train[:, 1]]) + decay

        fit([joint, head, *encoders], loss_of, 200)
        truth = rating[test[:, 0], test[:, 1]]
        with torch.inference_mode():
            return float(F.mse_loss(said(test), truth) / truth.var())

    class Sum(nn.Module):
        width = 16

        def forward(self, parts: list[Tensor]) -> Tensor:
            return torch.cat(parts, dim=1)

    assert error(Sum()) > 0.7
    assert error(Factorised([8, 8])) < 0.3
    assert error(DeepCross([8, 8], widths=())) < 0.5
