"""Fusions: shapes, gradients to every input, rows apart from one another."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zhixing.errors import RecipeError
from zhixing.fusion import FUSIONS, Attention, Fusion
from zhixing.models.encoding import Encoding

SIZES = [5, 1, 12]


def made(name: str, sizes: list[int], **settings: Any) -> Fusion:
    torch.manual_seed(0)
    fusion: Any = FUSIONS[name]
    built: Fusion = fusion(sizes, **settings)
    return built


def encodings(rows: int = 6, sizes: list[int] = SIZES) -> list[Encoding]:
    made = [torch.randn(rows, size, requires_grad=True) for size in sizes]
    return [Encoding(pooled, pooled[:, None]) for pooled in made]


@pytest.mark.parametrize("name", list(FUSIONS))
@pytest.mark.parametrize("widths", [None, (), (7,)])
def test_shapes_and_gradients_to_every_input(name: str, widths: Any) -> None:
    settings = {} if name == "factorised" else {"widths": widths}
    fusion, parts = made(name, SIZES, **settings), encodings()
    out = fusion(parts)
    assert out.pooled.shape == (6, fusion.width)
    if name == "factorised":  # the sum of products, and three inputs of the largest's width
        assert fusion.width == 4 * max(SIZES)
    elif name == "deep_cross":  # the crossed inputs, and the perceptron beside them
        assert fusion.width == sum(SIZES) + {None: 64, (7,): 7}.get(widths, 0)
    else:
        assert fusion.width == {None: 64, (7,): 7}.get(widths, sum(SIZES) if name == "concat" else 64)
    assert out.tokens.shape == (6, 1, fusion.width)
    out.pooled.square().sum().backward()
    for part in parts:
        assert part.pooled.grad is not None
        assert (part.pooled.grad.abs().sum(1) > 0).all()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in fusion.parameters() if p.numel() > 1)


@pytest.mark.parametrize("name", list(FUSIONS))
def test_a_row_does_not_depend_on_the_others(name: str) -> None:
    fusion, parts = made(name, SIZES).eval(), encodings()
    whole = fusion(parts).pooled
    for row in range(6):
        one = fusion([Encoding(part.pooled[row : row + 1], part.tokens[row : row + 1]) for part in parts]).pooled
        torch.testing.assert_close(one[0], whole[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(FUSIONS))
def test_a_single_input_passes_through_with_its_tokens_and_grid(name: str) -> None:
    tokens = torch.randn(3, 4, 9)
    one = Encoding(torch.randn(3, 5), tokens, grid=(2, 2))
    fusion = made(name, [5])
    assert fusion.width == 5
    assert not list(fusion.parameters())
    out = fusion([one])
    assert out.pooled is one.pooled
    assert out.tokens is tokens
    assert out.grid == (2, 2)
    if name == "factorised":
        return
    deeper = made(name, [5], widths=(8,))
    assert deeper([one]).pooled.shape == (3, 8)
    assert deeper([one]).tokens is tokens


def test_concat_is_the_inputs_side_by_side() -> None:
    parts = encodings()
    out = made("concat", SIZES, widths=())(parts)
    assert torch.equal(out.pooled, torch.cat([part.pooled for part in parts], dim=1))


def test_gates_weigh_each_input_between_nothing_and_all() -> None:
    fusion, parts = made("gated", [4, 4], width=4, widths=()), encodings(sizes=[4, 4])
    projected = [layer(part.pooled).tanh() for layer, part in zip(fusion.project, parts, strict=True)]  # type: ignore[arg-type,union-attr]
    out = fusion(parts).pooled
    assert (out.abs() <= sum(p.abs() for p in projected) + 1e-6).all()  # type: ignore[operator]
    with torch.no_grad():
        fusion.gates.weight.zero_()  # type: ignore[union-attr,operator]
        fusion.gates.bias.copy_(torch.tensor([50.0] * 4 + [-50.0] * 4))  # type: ignore[union-attr,operator]
    torch.testing.assert_close(fusion(parts).pooled, projected[0])


@pytest.mark.parametrize("sizes", [[3], [3, 4]])
def test_heads_must_divide_the_width(sizes: list[int]) -> None:
    with pytest.raises(RecipeError, match=r"fusion\.heads: width 64 is not a multiple of 5 heads"):
        Attention(sizes, heads=5)


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_tokens_of_several_inputs_follow_the_summary_and_padding_stays_out(name: str) -> None:
    torch.manual_seed(0)
    sizes = [6, 6] if name == "factorised" else [6, 4]
    fusion = FUSIONS[name](sizes).eval()
    fusion.keep_tokens([3, 4])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    first = Encoding(torch.randn(2, sizes[0]), torch.randn(2, 3, 3), mask)
    second = Encoding(torch.randn(2, sizes[1]), torch.randn(2, 2, 4))
    out = fusion([first, second])
    assert out.tokens.shape == (2, 1 + 3 + 2, fusion.width)
    assert out.mask is not None
    assert out.mask.tolist() == [[True, *row, True, True] for row in mask.tolist()]
    assert torch.equal(out.tokens[:, 0], out.pooled)
    assert torch.allclose(out.tokens[:, 4:], fusion.tokens[1](second.tokens))  # type: ignore[index]
