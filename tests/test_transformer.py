"""The Transformer block against torch's, published counts, caches, and the encoders made of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zhixing.errors import UsageError
from zhixing.layers.attention import Attention, Mask
from zhixing.layers.feedforward import FeedForward
from zhixing.layers.positions import RelativeBias, sinusoids_2d
from zhixing.layers.transformer import PRESETS, Residual, Transformer, TransformerBlock, TransformerSettings
from zhixing.models import Spec
from zhixing.models.encoding import pool_tokens
from zhixing.models.transformer import TransformerEncoder
from zhixing.models.vit import ViT

CAUSAL = ["gpt2", "llama", "transformer_decoder", "whisper_decoder"]


def ragged(lengths: list[int], most: int) -> Tensor:
    return torch.arange(most) < torch.tensor(lengths)[:, None]


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def small(name: str, **changes: Any) -> TransformerSettings:
    """A preset at a size for tests, without chance."""
    chosen = {"heads": 4, "hidden": 24, "dropout": 0.0, "kv_heads": 2 if PRESETS[name].kv_heads else None}
    return TransformerSettings.model_validate(PRESETS[name].model_dump() | chosen | changes)


def build(name: str, depth: int = 2, *, cross: bool = False, **changes: Any) -> Transformer:
    torch.manual_seed(0)
    stack = Transformer(16, depth, small(name, **changes), length=12, cross=cross)
    with torch.no_grad():
        for parameter in stack.parameters():  # biases and norms too, so that a forgotten one shows
            parameter += 0.1 * torch.randn_like(parameter)
    return stack.eval()


# Against torch


def copy_residual(ours: Residual, theirs: nn.Module, norm: nn.Module) -> None:
    norm.load_state_dict(ours.norm.state_dict())
    if isinstance(theirs, nn.MultiheadAttention):
        layer = ours.branch
        assert isinstance(layer, Attention)
        stacked = [
            torch.cat([getattr(part, name) for part in (layer.query, layer.key, layer.value)])
            for name in ("weight", "bias")
        ]
        names = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        theirs.load_state_dict(dict(zip(names, [*stacked, layer.out.weight, layer.out.bias], strict=True)))


def copy_block(ours: TransformerBlock, theirs: Any) -> None:
    copy_residual(ours.attention, theirs.self_attn, theirs.norm1)
    if ours.cross is not None:
        copy_residual(ours.cross, theirs.multihead_attn, theirs.norm2)
    copy_residual(ours.feed_forward, theirs, theirs.norm2 if ours.cross is None else theirs.norm3)
    feed_forward = ours.feed_forward.branch
    assert isinstance(feed_forward, FeedForward)
    theirs.linear1.load_state_dict(feed_forward.up.state_dict())
    theirs.linear2.load_state_dict(feed_forward.down.state_dict())


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kind", ["relu", "gelu"])
@pytest.mark.parametrize("causal", [True, False])
def test_encoder_is_torchs(norm_first: bool, kind: Any, causal: bool) -> None:
    ours = build("transformer", norm_first=norm_first, feed_forward=kind, positions="none", causal=causal)
    layer = nn.TransformerEncoderLayer(16, 4, 24, 0.0, kind, batch_first=True, norm_first=norm_first)
    last = nn.LayerNorm(16) if norm_first else None
    theirs = nn.TransformerEncoder(layer, 2, last, enable_nested_tensor=False)  # in training mode: the slow, plain path
    for mine, other in zip(ours.blocks, theirs.layers, strict=True):
        copy_block(mine, other)
    if last is not None and theirs.norm is not None:
        theirs.norm.load_state_dict(ours.norm.state_dict())
    x, real = torch.randn(3, 6, 16), ragged([6, 4, 1], 6)
    ahead = torch.ones(6, 6).triu(1).bool() if causal else None
    expected = theirs(x, mask=ahead, src_key_padding_mask=~real)
    torch.testing.assert_close(ours(x, real)[real], expected[real], rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kind", ["relu", "gelu"])
def test_decoder_is_torchs(norm_first: bool, kind: Any) -> None:
    ours = build("transformer_decoder", norm_first=norm_first, feed_forward=kind, positions="none", cross=True)
    layer = nn.TransformerDecoderLayer(16, 4, 24, 0.0, kind, batch_first=True, norm_first=norm_first)
    theirs = nn.TransformerDecoder(layer, 2, nn.LayerNorm(16) if norm_first else None)
    for mine, other in zip(ours.blocks, theirs.layers, strict=True):
        copy_block(mine, other)
    if theirs.norm is not None:
        theirs.norm.load_state_dict(ours.norm.state_dict())
    x, real, source, source_real = torch.randn(2, 5, 16), ragged([5, 3], 5), torch.randn(2, 7, 16), ragged([4, 7], 7)
    expected = theirs(
        *(x, source),
        tgt_mask=torch.ones(5, 5).triu(1).bool(),
        tgt_key_padding_mask=~real,
        memory_key_padding_mask=~source_real,
    )
    found = ours(x, real, source=source, source_real=source_real)
    torch.testing.assert_close(found[real], expected[real], rtol=1e-5, atol=5e-6)


def test_swiglu_is_its_formula_and_costs_no_more() -> None:
    layer, x = FeedForward(6, kind="swiglu", bias=False), torch.randn(2, 3, 6)
    assert layer.gate is not None
    gate, up, down = (part.weight for part in (layer.gate, layer.up, layer.down))
    torch.testing.assert_close(layer(x), ((x @ gate.T) * torch.sigmoid(x @ gate.T) * (x @ up.T)) @ down.T)
    assert count(FeedForward(96, kind="swiglu", bias=False)) == count(FeedForward(96, bias=False))
    tanh = FeedForward(6, kind="gelu_tanh")
    torch.testing.assert_close(tanh(x), tanh.down(nn.GELU("tanh")(tanh.up(x))))


# Published counts, on the meta device


def test_bert_base() -> None:
    with torch.device("meta"):
        stack = Transformer(768, 12, PRESETS["bert"], length=512)
        parts = nn.Embedding(30522, 768), nn.Embedding(2, 768), nn.Linear(768, 768)  # words, segments, the pooler
    assert count(stack, *parts) == 109_482_240


def test_gpt2_small() -> None:
    with torch.device("meta"):  # the head shares the matrix of the words
        assert count(Transformer(768, 12, PRESETS["gpt2"], length=1024), nn.Embedding(50257, 768)) == 124_439_808


def test_vit_b16() -> None:
    with torch.device("meta"):
        encoder = ViT(Spec("image", (3, 224, 224)), patch=16, width=768, depth=12, heads=12)
        assert count(encoder, nn.Linear(768, 1000)) == 86_567_656
    assert PRESETS["vit"].eps == encoder.blocks.norm.eps == 1e-6


def test_whisper_base() -> None:
    with torch.device("meta"):
        encoder = Transformer(512, 6, PRESETS["whisper"])
        decoder = Transformer(512, 6, PRESETS["whisper_decoder"], length=448, cross=True)
        stem = nn.Conv1d(80, 512, 3), nn.Conv1d(512, 512, 3, stride=2), nn.Embedding(51865, 512)
    sines, key_biases = 1500 * 512, 18 * 512  # it counts its sines among the parameters, and its keys have no bias
    assert count(encoder, decoder, *stem) + sines - key_biases == 72_593_920


def test_llama3_8b() -> None:
    chosen, width, depth = PRESETS["llama"], 4096, 32
    assert chosen.kv_heads
    assert chosen.hidden
    with torch.device("meta"):
        stack = Transformer(width, depth, chosen)
    shared = width // chosen.heads * chosen.kv_heads
    block = 2 * width * width + 2 * width * shared + 3 * width * chosen.hidden + 2 * width
    assert count(stack) == depth * block + width
    assert count(stack) + 2 * 128_256 * width == 8_030_261_248


# What the settings promise


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_run_and_causal_ones_do_not_see_ahead(name: str) -> None:
    cross = name.endswith("_decoder")
    stack, x, source = build(name, cross=cross), torch.randn(2, 6, 16), torch.randn(2, 4, 16) if cross else None
    out = stack(x, source=source)
    changed = torch.cat([x[:, :4], torch.randn(2, 2, 16)], dim=1)
    again = stack(changed, source=source)
    assert out.shape == x.shape
    assert torch.allclose(again[:, :4], out[:, :4], atol=1e-5) is PRESETS[name].causal
    if cross:
        assert not torch.allclose(stack(x, source=torch.randn(2, 4, 16)), out, atol=1e-3)


@pytest.mark.parametrize("positions", ["none", "sinusoidal", "learned", "rotary", "relative", "alibi"])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing(positions: str, causal: bool) -> None:
    stack = build("vit", positions=positions, causal=causal)
    lengths = [5, 2, 1]
    x, real = torch.randn(3, 5, 16), ragged(lengths, 5)
    out = stack(torch.where(real.unsqueeze(-1), x, 100.0), real)
    assert out.isfinite().all()
    for row, length in enumerate(lengths):
        torch.testing.assert_close(out[row, :length], stack(x[row : row + 1, :length])[0], rtol=1e-4, atol=1e-5)


def test_the_order_of_tokens_matters_with_positions_alone() -> None:
    x, order = torch.randn(1, 6, 16), torch.tensor([3, 1, 5, 0, 2, 4])
    for positions in ("none", "sinusoidal", "learned", "rotary", "relative", "alibi"):
        stack = build("vit", positions=positions)
        same = torch.allclose(stack(x[:, order]), stack(x)[:, order], atol=1e-5)
        assert same is (positions == "none"), positions
        torch.testing.assert_close(stack(x[:, order], at=order), stack(x)[:, order], rtol=1e-4, atol=1e-5)


def test_one_table_of_relative_biases_serves_all_blocks() -> None:
    stack = build("vit", depth=3, positions="relative")
    assert isinstance(stack.positions, RelativeBias)
    assert sum(isinstance(module, RelativeBias) for module in stack.modules()) == 1


def test_dropout_and_stochastic_depth_act_in_training_alone() -> None:
    stack, x = build("vit", depth=3, dropout=0.5, stochastic_depth=0.6), torch.randn(64, 3, 16)
    assert torch.equal(stack(x), stack(x))
    stack.train()
    torch.manual_seed(1)
    one = stack(x)
    torch.manual_seed(1)
    assert torch.equal(stack(x), one)
    assert not torch.equal(stack(x), one)
    rates = [block.attention.skip.rate if block.attention.skip else 0.0 for block in stack.blocks]
    assert rates == pytest.approx([0, 0.3, 0.6])
    block = TransformerBlock(16, small("vit"), skip=0.5)
    same = (block(x) == x).flatten(1).all(1)  # both parts skipped
    assert 4 <= int(same.sum()) <= 30


@torch.no_grad()
def test_signals_neither_die_nor_explode_in_a_fresh_deep_stack() -> None:
    torch.manual_seed(0)
    for name in ("gpt2", "llama", "bert"):
        out = Transformer(64, 24, small(name, hidden=None), length=32)(torch.randn(2, 32, 64))
        assert 0.5 < float(out.std()) < 2


def test_gradients_of_a_block() -> None:
    for name in ("llama", "transformer_decoder"):
        torch.manual_seed(0)
        block = TransformerBlock(4, small(name, heads=2, kv_heads=1, hidden=3), cross=True).double()
        x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
        source = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
        mask = Mask.of(ragged([3, 2], 3), causal=True)

        def run(x: Tensor, source: Tensor, block: TransformerBlock = block, mask: Mask = mask) -> Tensor:
            out: Tensor = block(x, mask, source=source)
            return out

        assert torch.autograd.gradcheck(run, (x, source))


def test_bfloat16_and_compilation() -> None:
    for name in ("bert", "llama"):
        stack, x, real = build(name), torch.randn(2, 6, 16), ragged([6, 3], 6)
        expected = stack(x, real)
        with torch.autocast("cpu", torch.bfloat16):
            halved = stack(x, real)
        torch.testing.assert_close(halved.float()[real], expected[real], rtol=0.1, atol=0.1)
        torch._dynamo.reset()
        compiled = torch.compile(stack, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, real), expected)


# The cache


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_token_by_token_is_all_at_once(name: str) -> None:
    cross = name.endswith("_decoder")
    stack, x = build(name, cross=cross), torch.randn(3, 7, 16)
    source = {"source": torch.randn(3, 5, 16), "source_real": ragged([5, 2, 4], 5)} if cross else {}
    whole = stack(x, **source)
    for sizes in ([1] * 7, [4, 1, 2], [7]):
        cache = stack.start(3, 10, **source)
        parts = []
        for part in x.split(sizes, dim=1):
            out, cache = stack.step(part, cache)
            parts.append(out)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)
        assert int(cache.filled) == 7
        assert cache.blocks[0].keys.shape[2] == 10


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.sampled_from(["sinusoidal", "learned", "rotary", "relative", "alibi", "none"]),
    st.booleans(),
)
@torch.no_grad()
def test_rows_of_unequal_length_go_on_as_if_alone(lengths: list[int], positions: str, left: bool) -> None:
    """A padded batch of prompts, to the right or to the left, then three more tokens of each row."""
    stack, rows, most = build("llama", positions=positions), len(lengths), max(lengths)
    prompts, more = torch.randn(rows, most, 16), torch.randn(rows, 3, 16)
    real = ragged(lengths, most)
    real = real.flip(1) if left else real
    out, cache = stack.step(torch.where(real.unsqueeze(-1), prompts, 50.0), stack.start(rows, most + 3), real)
    after = []
    for step in range(3):
        token, cache = stack.step(more[:, step : step + 1], cache)
        after.append(token)
    for row in range(rows):
        alone = stack(torch.cat([prompts[row, real[row]], more[row]])[None])[0]
        found = torch.cat([out[row, real[row]], torch.cat(after, dim=1)[row]])
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=2e-5)


@torch.no_grad()
def test_steps_are_compiled_once() -> None:
    stack, x = build("llama"), torch.randn(2, 6, 16)
    torch._dynamo.reset()
    step = torch.compile(stack.step, backend="eager", fullgraph=True)
    _, cache = stack.step(x[:, :2], stack.start(2, 8))
    out, cache = step(x[:, 2:3], cache)
    with torch.compiler.set_stance("fail_on_recompile"):
        for place in range(3, 6):
            out, cache = step(x[:, place : place + 1], cache)
    torch.testing.assert_close(out, stack(x)[:, 5:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_more_tokens_than_slots_are_an_error() -> None:
    stack = build("llama")
    _, cache = stack.step(torch.randn(1, 2, 16), stack.start(1, 3))
    with pytest.raises(IndexError):
        stack.step(torch.randn(1, 2, 16), cache)
    with pytest.raises(AssertionError, match="causal"):
        build("vit").step(torch.randn(1, 2, 16), cache)


# The encoders


def test_pooling() -> None:
    tokens, mask = (
        torch.randn(4, 5, 3),
        torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 1], [0] * 5]).bool(),
    )
    for row in range(3):
        real = tokens[row, mask[row]]
        for how, expected in {"mean": real.mean(0), "max": real.amax(0), "first": real[0], "last": real[-1]}.items():
            torch.testing.assert_close(pool_tokens(tokens, mask, how)[row], expected)
    for how in ("mean", "max", "first", "last"):
        assert not pool_tokens(tokens, mask, how)[3].any()
        torch.testing.assert_close(pool_tokens(tokens, None, how), pool_tokens(tokens, torch.ones(4, 5).bool(), how))


@pytest.mark.parametrize("pooling", ["mean", "first", "last", "cls"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary"])
def test_sequence_encoder_reads_real_steps_alone(pooling: Any, positions: Any) -> None:
    torch.manual_seed(0)
    keywords = {"pooling": pooling, "positions": positions, "width": 16, "norm": "rms", "feed_forward": "swiglu"}
    encoder = TransformerEncoder(Spec("sequence", (6, 3)), kv_heads=2, **keywords).eval()
    values, mask = torch.randn(3, 6, 3), ragged([6, 2, 0], 6)
    encoding = encoder(values, mask)
    assert encoding.tokens.shape == (3, 6, 16)
    assert encoding.mask is mask
    other = encoder(values.masked_fill(~mask.unsqueeze(-1), torch.nan), mask)
    torch.testing.assert_close(other.pooled, encoding.pooled)
    alone = encoder(values[1:2, :2])
    torch.testing.assert_close(alone.pooled[0], encoding.pooled[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.tokens[0], encoding.tokens[1, :2], rtol=1e-4, atol=1e-5)
    assert bool(encoding.pooled[2].any()) is (pooling == "cls")
    encoding.pooled.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_rows_of_a_picture_are_its_steps() -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(Spec("image", (2, 4, 5)), width=8, heads=2).eval()
    values = torch.randn(3, 2, 4, 5)
    rows = torch.stack([values[:, :, row].flatten(1) for row in range(4)], dim=1)
    sequence = TransformerEncoder(Spec("sequence", (4, 10)), width=8, heads=2).eval()
    sequence.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder(values, torch.ones(3).bool()).pooled, sequence(rows).pooled)


@pytest.mark.parametrize(("keywords", "what"), [
    ({"heads": 5}, "width 128 is not a multiple of 5 heads"),
    ({"kv_heads": 3}, "4 heads cannot share 3"),
    ({"causal": True, "pooling": "cls"}, "first token sees no other"),
    ({"width": 12, "positions": "rotary"}, "cannot be paired"),
])  # fmt: skip
def test_wrong_settings_are_refused(keywords: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        TransformerEncoder(Spec("sequence", (6, 3)), **keywords)


def test_vit_patches_are_linear_maps_of_squares() -> None:
    encoder = ViT(Spec("image", (2, 5, 7)), patch=3, width=8, heads=2).eval()
    values = torch.randn(1, 2, 5, 7)
    padded = torch.zeros(1, 2, 6, 9)
    padded[:, :, :5, :7] = values
    squares = [padded[0, :, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3].flatten() for i in range(2) for j in range(3)]
    patches = torch.stack(squares) @ encoder.patches.weight.flatten(1).T + encoder.patches.bias
    assert encoder.cls is not None
    expected = encoder.blocks(torch.cat([encoder.cls[0], patches])[None])
    encoding = encoder(values)
    assert encoding.grid == (2, 3)
    torch.testing.assert_close(encoding.pooled, expected[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoding.tokens, expected[:, 1:], rtol=1e-5, atol=1e-5)


def test_vit_with_sines_and_a_mean() -> None:
    encoder = ViT(Spec("image", (1, 8, 12)), width=16, heads=2, positions="sinusoidal", pooling="mean").eval()
    encoding = encoder(torch.randn(2, 1, 8, 12))
    torch.testing.assert_close(encoding.pooled, encoding.tokens.mean(1))
    assert torch.equal(encoder.places, sinusoids_2d(2, 3, 16))
    assert not any("places" in key or "positions" in key for key in encoder.state_dict())
    plain = encoder.blocks(
        encoder.patches(torch.zeros(1, 1, 8, 12)).flatten(2).transpose(1, 2) + sinusoids_2d(2, 3, 16)
    )
    torch.testing.assert_close(encoder(torch.zeros(1, 1, 8, 12)).tokens, plain)


def test_vit_patch_follows_the_size() -> None:
    with torch.device("meta"):
        sizes = {28: (4, 7), 32: (4, 8), 64: (8, 8), 128: (16, 8), 224: (16, 14), 3: (4, 1)}
        for size, (patch, side) in sizes.items():
            encoder = ViT(Spec("image", (3, size, size)))
            assert encoder.patch == patch
            assert encoder(torch.zeros(1, 3, size, size)).grid == (side, side)
