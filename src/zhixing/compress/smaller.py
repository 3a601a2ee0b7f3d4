"""The same architecture with fewer channels, units and heads: as settings of a recipe, and which of them to keep.

An encoder that can be made smaller has a line in ``SLIMMERS``. What is cut is whole: a channel of a convolution with
the filters that read it, a unit of a layer, a head of attention. The smaller model is that of an ordinary recipe.

Shape legend: D units of a state, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..layers.attention import Attention
from ..layers.convolution import ConvBlock, SameConv2d
from ..layers.feedforward import FeedForward
from ..layers.positions import ALiBi, RelativeBias
from ..layers.recurrent import Recurrent
from ..layers.transformer import Transformer, TransformerBlock
from ..models.cnn import CNN
from ..models.encoding import Encoder
from ..models.histories import SASRec
from ..models.mlp import MLP
from ..models.recurrent import GRU, LSTM, RNN
from ..models.text_cnn import TextCNN
from ..models.transformer import TransformerEncoder
from ..models.vit import ViT
from ..models.whisper import Whisper

__all__ = ["SLIMMERS", "Cuts", "Scores", "dense", "slim"]

Scores = Callable[[str], Tensor]  # by a parameter's name: how much the loss depends on each of its numbers


@dataclass
class Cuts:
    """What is kept of an encoder.

    ``settings`` change in its recipe. ``kept`` holds, by parameter, the places kept along each axis that is cut;
    ``pooled`` those units of its summary, None where all stay.
    """

    settings: dict[str, Any]
    kept: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    pooled: Tensor | None = None

    def cut(self, name: str, axis: int, places: Tensor) -> None:
        self.kept.setdefault(name, {})[axis] = places


def slim(encoder: Encoder, scores: Scores, keep: float, *, whole: bool) -> Cuts:
    """What to keep of an encoder, the share ``keep`` of what it can do without; ``whole``: all units of its summary.

    Raises:
        UsageError: there is no way to make this encoder smaller.
    """
    slimmer = SLIMMERS.get(type(encoder))
    if slimmer is None:
        raise UsageError(f"there is no way to cut whole channels, units or heads out of {type(encoder).__name__}")
    cuts = slimmer(encoder, scores, keep, whole)
    if not cuts.kept:
        raise UsageError(f"nothing of this {type(encoder).__name__} can be cut")
    return cuts


def best(values: Tensor, count: int) -> Tensor:
    """The places of the largest values, in order."""
    return values.topk(count).indices.sort().values


def share_of(count: int, keep: float) -> int:
    return max(1, round(count * keep))


def of_rows(scores: Scores, *names: str) -> Tensor:
    """How much the loss depends on each unit, by all the weights that make it."""
    return torch.stack([values.reshape(len(values), -1).sum(1) for values in map(scores, names)]).sum(0)


def named(layer: nn.Module, name: str) -> list[str]:
    return [f"{name}.{part}" for part, _ in layer.named_parameters(recurse=False)]


# Chains of layers ---------------------------------------------------------------------------------------------------


def dense(
    layers: nn.Sequential, name: str, scores: Scores, keep: float, whole: bool, read: Tensor | None, cuts: Cuts
) -> tuple[list[int], Tensor | None]:
    """Cut a chain of linear layers, of whose inputs ``read`` are left; gives their widths, and what the last keeps."""
    linear = [(f"{name}.{place}", layer) for place, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    widths = []
    for number, (path, layer) in enumerate(linear, start=1):
        if read is not None:
            cuts.cut(f"{path}.weight", 1, read)
        read = None
        if not (whole and number == len(linear)):
            read = best(of_rows(scores, *named(layer, path)), share_of(layer.out_features, keep))
            for parameter in named(layer, path):
                cuts.cut(parameter, 0, read)
        widths.append(layer.out_features if read is None else len(read))
    return widths, read


def slim_mlp(encoder: MLP, scores: Scores, keep: float, whole: bool) -> Cuts:
    cuts = Cuts({})
    widths, cuts.pooled = dense(encoder.layers, "layers", scores, keep, whole, None, cuts)
    cuts.settings = {"widths": widths}
    return cuts


def slim_cnn(encoder: CNN, scores: Scores, keep: float, whole: bool) -> Cuts:
    cuts, layers, read = Cuts({}), list[Any](), None
    flat = next((layer.in_features for layer in encoder.dense if isinstance(layer, nn.Linear)), None)
    blocks = [place for place, one in enumerate(encoder.features) if isinstance(one, ConvBlock)]
    channels = 0
    for place, block in enumerate(encoder.features):
        if not isinstance(block, ConvBlock):
            layers.append("pool")
            continue
        convolution, name = block.convolution, f"features.{place}"
        if read is not None:
            cuts.cut(f"{name}.convolution.weight", 1, read)
        read, channels = None, convolution.out_channels
        if not (whole and flat is None and place == blocks[-1]):
            own = named(convolution, f"{name}.convolution") + named(block.norm, f"{name}.norm")
            read = best(of_rows(scores, *own), share_of(channels, keep))
            for parameter in own:
                cuts.cut(parameter, 0, read)
            for buffer, tensor in block.norm.named_buffers(recurse=False):
                if tensor.ndim:
                    cuts.cut(f"{name}.norm.{buffer}", 0, read)
        layers.append(spelled(convolution, channels if read is None else len(read)))
    if read is not None:  # the flattened map holds all cells of a channel, then those of the next
        cells = (flat or encoder.width) // channels
        read = (read[:, None] * cells + torch.arange(cells)).flatten()
    widths, kept = dense(encoder.dense, "dense", scores, keep, whole, read, cuts)
    cuts.settings = {"layers": layers, "dense": widths}
    cuts.pooled = kept if widths else read
    return cuts


def spelled(convolution: nn.Conv2d, channels: int) -> dict[str, Any]:
    """A convolution as a recipe spells it out."""
    padding: Any = "same" if isinstance(convolution, SameConv2d) else int(convolution.padding[0])
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    return {"channels": channels, "kernel": kernel, "stride": stride, "padding": padding or "valid"}


def slim_text_cnn(encoder: TextCNN, scores: Scores, keep: float, whole: bool) -> Cuts:
    if whole:
        return Cuts({})
    cuts, pooled = Cuts({}), list[Tensor]()
    maps = encoder.convolutions[0].out_channels
    assert isinstance(maps, int)
    for place, layer in enumerate(encoder.convolutions):
        own = named(layer, f"convolutions.{place}")
        kept = best(of_rows(scores, *own), share_of(maps, keep))
        for parameter in own:
            cuts.cut(parameter, 0, kept)
        pooled.append(place * maps + kept)
    cuts.settings, cuts.pooled = {"channels": share_of(maps, keep)}, torch.cat(pooled)
    return cuts


# Recurrent networks -------------------------------------------------------------------------------------------------


def slim_recurrent(encoder: RNN | LSTM | GRU, scores: Scores, keep: float, whole: bool) -> Cuts:
    if whole:  # each layer has as many units as the summary
        return Cuts({})
    cuts, recurrent = Cuts({}), encoder.recurrent
    assert isinstance(recurrent, Recurrent)
    read: Tensor | None = None
    count = 0
    for number, stage in enumerate(recurrent.stages):
        assert isinstance(stage, nn.ModuleList)
        ways, width = list[Tensor](), 0
        for way, kernel in enumerate(stage):
            assert isinstance(kernel, nn.RNNBase)
            below, width = read, kernel.hidden_size
            count = share_of(width, keep)
            for layer in range(kernel.num_layers):
                below = cut_cells(kernel, f"recurrent.stages.{number}.{way}", layer, scores, count, below, cuts)
            assert below is not None
            ways.append(way * width + below)
        read = torch.cat(ways)
    assert read is not None
    cuts.settings, cuts.pooled = {"width": count}, read
    if encoder.attention is not None:
        own = named(encoder.attention.states, "attention.states")
        hidden = best(of_rows(scores, *own), count * len(ways))
        cuts.cut("attention.states.weight", 1, read)
        cuts.cut("attention.score.weight", 1, hidden)
        for parameter in own:
            cuts.cut(parameter, 0, hidden)
    return cuts


def cut_cells(
    kernel: nn.RNNBase, name: str, layer: int, scores: Scores, count: int, read: Tensor | None, cuts: Cuts
) -> Tensor:
    """Cut one layer of a kernel, whose gates [G D, ...] stand behind each other; gives the units that are kept."""
    width = kernel.hidden_size
    own = [f"{name}.{part}_l{layer}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    units = best(of_rows(scores, *own).view(-1, width).sum(0), count)
    gates = torch.arange(len(scores(own[2])) // width)[:, None] * width
    for parameter in own:
        cuts.cut(parameter, 0, (gates + units).flatten())
    cuts.cut(own[1], 1, units)
    if read is not None:
        cuts.cut(own[0], 1, read)
    return units


# Transformers -------------------------------------------------------------------------------------------------------


def slim_transformer(encoder: Any, scores: Scores, keep: float, whole: bool) -> Cuts:
    """Units of the feed-forward layers, and heads: the width stays, so that the summary does."""
    cuts, stack = Cuts({}), encoder.blocks
    assert isinstance(stack, Transformer)
    apart = isinstance(stack.positions, RelativeBias | ALiBi)  # they know each head, the same one in all blocks
    for number, block in enumerate(stack.blocks):
        assert isinstance(block, TransformerBlock)
        middle, attention = block.feed_forward.branch, block.attention.branch
        assert isinstance(middle, FeedForward)
        assert isinstance(attention, Attention)
        path = f"blocks.blocks.{number}"
        cut_units(middle, f"{path}.feed_forward.branch", scores, keep, cuts)
        if not apart:
            cut_heads(attention, f"{path}.attention.branch", scores, keep, cuts)
    return cuts


def cut_units(layer: FeedForward, name: str, scores: Scores, keep: float, cuts: Cuts) -> None:
    own = named(layer.up, f"{name}.up") + ([] if layer.gate is None else named(layer.gate, f"{name}.gate"))
    kept = best(of_rows(scores, *own), share_of(layer.up.out_features, keep))
    for parameter in own:
        cuts.cut(parameter, 0, kept)
    cuts.cut(f"{name}.down.weight", 1, kept)
    cuts.settings["hidden"] = len(kept)


def cut_heads(layer: Attention, name: str, scores: Scores, keep: float, cuts: Cuts) -> None:
    """Cut heads of keys and values with the heads that share them."""
    groups, size = share_of(layer.kv_heads, keep), layer.head_width
    asked = layer.heads // layer.kv_heads  # heads of queries to one of keys
    if groups == layer.kv_heads:
        return
    worth = scores(f"{name}.out.weight").sum(0).view(layer.kv_heads, -1).sum(1)
    kept = best(worth, groups)
    narrow = (kept[:, None] * size + torch.arange(size)).flatten()
    wide = (kept[:, None] * size * asked + torch.arange(size * asked)).flatten()
    for part, places in (("query", wide), ("key", narrow), ("value", narrow)):
        for parameter in named(getattr(layer, part), f"{name}.{part}"):
            cuts.cut(parameter, 0, places)
    cuts.cut(f"{name}.out.weight", 1, wide)
    cuts.settings |= {"heads": groups * asked, "head_width": size}
    if asked > 1:
        cuts.settings["kv_heads"] = groups


SLIMMERS: Mapping[type[Encoder], Callable[[Any, Scores, float, bool], Cuts]] = {
    MLP: slim_mlp,
    CNN: slim_cnn,
    TextCNN: slim_text_cnn,
    RNN: slim_recurrent,
    LSTM: slim_recurrent,
    GRU: slim_recurrent,
    TransformerEncoder: slim_transformer,
    SASRec: slim_transformer,
    ViT: slim_transformer,
    Whisper: slim_transformer,
}
