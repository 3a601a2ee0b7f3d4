"""A linear layer over the summary of a published encoder, as the classes of transformers for classification hold it.

Vision Transformers and convolutional networks have just that layer there. BERT and RoBERTa put a dense layer with tanh
before it, DistilBERT one with ReLU, and all three look at the first token alone. These layers can be passed unchanged:
tanh is straight near 0, ReLU above it, and how large a unit of a normalised token can become is known. So a head over
the first token (``pooling: first``) is written exactly, to the rounding of float32; one over the mean of all is not.

GPT-2 and Llama have a layer without a bias, which ours has: there only the body is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..layers.transformer import TransformerBlock
from ..models.transformer import StepTransformer
from ..pretrained.layouts import Layout

__all__ = ["ENDINGS", "Ending", "behind_relu", "behind_tanh", "ending_of"]

Make = Callable[[nn.Linear, nn.Module], dict[str, Tensor]]
STRAIGHT = 2.0**-12  # up to which tanh is the identity in float32: it lacks x**3 / 3


class Ending(NamedTuple):
    """The class of transformers, and its tensors of our linear layer and the encoder before it."""

    kind: str
    tensors: Make


def plain(name: str) -> Make:
    """The layer as it is."""

    def make(linear: nn.Linear, encoder: nn.Module) -> dict[str, Tensor]:
        return {f"{name}.weight": linear.weight.detach(), f"{name}.bias": linear.bias.detach()}

    return make


def behind_tanh(dense: str, last: str) -> Make:
    """Behind a dense layer with tanh: it scales down by a power of two, to where tanh is straight; ``last`` scales up
    again."""

    def make(linear: nn.Linear, encoder: nn.Module) -> dict[str, Tensor]:
        most = float(largest_units(encoder).max())
        scale = 2.0 ** -math.ceil(math.log2(max(most, 1.0) / STRAIGHT))
        width = linear.in_features
        return {
            f"{dense}.weight": scale * torch.eye(width),
            f"{dense}.bias": torch.zeros(width),
            f"{last}.weight": linear.weight.detach() / scale,
            f"{last}.bias": linear.bias.detach(),
        }

    return make


def behind_relu(dense: str, last: str) -> Make:
    """Behind a dense layer with ReLU: it adds so much that no unit is cut off; ``last`` takes it off again."""

    def make(linear: nn.Linear, encoder: nn.Module) -> dict[str, Tensor]:
        lift = largest_units(encoder)
        weight, bias = linear.weight.detach(), linear.bias.detach()
        return {
            f"{dense}.weight": torch.eye(linear.in_features),
            f"{dense}.bias": lift,
            f"{last}.weight": weight,
            f"{last}.bias": (bias.double() - weight.double() @ lift.double()).float(),
        }

    return make


def largest_units(encoder: nn.Module) -> Tensor:
    """How large each unit of a token can be, [D]: of D normalised numbers none is above the root of D."""
    assert isinstance(encoder, StepTransformer)
    block = encoder.blocks.blocks[-1]
    assert isinstance(block, TransformerBlock)
    norm = block.feed_forward.norm
    assert isinstance(norm, nn.LayerNorm)
    most: Tensor = norm.weight.detach().abs() * math.sqrt(len(norm.weight)) + norm.bias.detach().abs()
    return most.float()


TANH_BERT = behind_tanh("bert.pooler.dense", "classifier")
TANH_ROBERTA = behind_tanh("classifier.dense", "classifier.out_proj")
# By the model_type of config.json.
ENDINGS: dict[str, Ending] = {
    "vit": Ending("ViTForImageClassification", plain("classifier")),
    "resnet": Ending("ResNetForImageClassification", plain("classifier.1")),
    "efficientnet": Ending("EfficientNetForImageClassification", plain("classifier")),
    "bert": Ending("BertForSequenceClassification", TANH_BERT),
    "roberta": Ending("RobertaForSequenceClassification", TANH_ROBERTA),
    "xlm-roberta": Ending("XLMRobertaForSequenceClassification", TANH_ROBERTA),
    "camembert": Ending("CamembertForSequenceClassification", TANH_ROBERTA),
    "distilbert": Ending("DistilBertForSequenceClassification", behind_relu("pre_classifier", "classifier")),
}


def ending_of(layout: Layout, encoder: nn.Module) -> Ending | None:
    """The class that holds a linear layer over this encoder's summary; None where there is none."""
    found = ENDINGS.get(str(layout.config.get("model_type")))
    of_text = isinstance(encoder, StepTransformer) and layout.reads == "text"
    return None if of_text and encoder.pooling != "first" else found
