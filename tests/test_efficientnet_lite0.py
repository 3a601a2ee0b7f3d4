"""Published EfficientNet weights in our network."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zhixing.errors import RunError
from zhixing.models import Spec
from zhixing.models.efficientnet import EfficientNet, EfficientNetB0, EfficientNetLite0, load_published

ROOT = Path(__file__).parents[1]
PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def published_name(name: str) -> str:
    """The published name of one of our tensors, written a second time and the other way around."""
    pieces = name.split(".")
    if pieces[0] == "stem":
        return ("_conv_stem." if pieces[1] == "convolution" else "_bn0.") + pieces[2]
    if pieces[0] == "top":
        return ("_conv_head." if pieces[1] == "convolution" else "_bn1.") + pieces[2]
    _, number, part, layer, last = pieces
    if part == "excite":
        return f"_blocks.{number}._se_{layer}.{last}"
    return f"_blocks.{number}.{PARTS[part][layer == 'norm']}.{last}"


def network(family: type[EfficientNet]) -> tuple[EfficientNet, nn.Linear]:
    torch.manual_seed(0)
    encoder = family(Spec("image", (3, 32, 32)))
    return encoder, nn.Linear(encoder.width, 10)


def synthetic(encoder: EfficientNet, head: nn.Linear) -> dict[str, Tensor]:
    """A state in the published layout, each tensor full of a number of its own."""
    state = {published_name(name): tensor for name, tensor in encoder.state_dict().items()}
    state |= {f"_fc.{name}": tensor for name, tensor in head.state_dict().items()}
    return {name: torch.full_like(tensor, number) for number, (name, tensor) in enumerate(state.items())}


@pytest.mark.parametrize(("family", "count"), [(EfficientNetLite0, 296), (EfficientNetB0, 360)])
def test_every_published_name_finds_its_tensor(family: type[EfficientNet], count: int) -> None:
    encoder, head = network(family)
    tensors = synthetic(encoder, head)
    assert len(tensors) == count
    assert {name.split(".")[-1] for name in tensors} == set(NORM)
    load_published(encoder, head, tensors)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, tensors[published_name(name)]), name
    assert torch.equal(head.weight, tensors["_fc.weight"])
    assert torch.equal(head.bias, tensors["_fc.bias"])


def test_wrong_weights_stop_with_their_names_and_change_nothing() -> None:
    encoder, head = network(EfficientNetLite0)
    tensors = synthetic(encoder, head)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    del tensors["_blocks.3._bn1.running_var"]
    tensors["_blocks.0._se_reduce.weight"] = torch.zeros(8, 32, 1, 1)
    tensors["_fc.weight"] = torch.zeros(1000, 1280)
    with pytest.raises(RunError) as caught:
        load_published(encoder, head, tensors)
    message = str(caught.value)
    assert "missing: _blocks.3._bn1.running_var" in message
    assert "not known: _blocks.0._se_reduce.weight" in message
    assert "_fc.weight is [1000, 1280], not [10, 1280]" in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.slow
def test_published_weights_name_real_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads 19 MB the first time; chance would name none of the twenty."""
    monkeypatch.syspath_prepend(str(ROOT))
    result = importlib.import_module("benchmarks.efficientnet_lite0").classify(ROOT / "downloads")
    assert result["of"] == 20
    assert result["correct"] >= 18
