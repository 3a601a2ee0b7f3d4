"""The encoders, by the names that recipes use."""

from __future__ import annotations

from .alexnet import AlexNet
from .cnn import CNN
from .conformer import Conformer
from .efficientnet import (
    EfficientNetB0,
    EfficientNetB1,
    EfficientNetB2,
    EfficientNetB3,
    EfficientNetB4,
    EfficientNetB5,
    EfficientNetB6,
    EfficientNetB7,
    EfficientNetLite0,
)
from .embedding import Embedding
from .encoding import Encoder, Encoding, Spec
from .histories import GRU4Rec, SASRec
from .mlp import MLP
from .pooled import Bag
from .recurrent import GRU, LSTM, RNN
from .resnet import ResNet18, ResNet34, ResNet50, ResNet101, ResNet152
from .tcn import TCN
from .text_cnn import TextCNN
from .transformer import TransformerEncoder
from .vgg import VGG11, VGG13, VGG16, VGG19, VGG11BatchNorm, VGG13BatchNorm, VGG16BatchNorm, VGG19BatchNorm
from .vit import ViT
from .whisper import Whisper

__all__ = ["ENCODERS", "Encoder", "Encoding", "Spec", "encoders_for"]

ENCODERS: dict[str, type[Encoder]] = {
    "mlp": MLP,
    "cnn": CNN,
    "alexnet": AlexNet,
    "vgg11": VGG11,
    "vgg11_bn": VGG11BatchNorm,
    "vgg13": VGG13,
    "vgg13_bn": VGG13BatchNorm,
    "vgg16": VGG16,
    "vgg16_bn": VGG16BatchNorm,
    "vgg19": VGG19,
    "vgg19_bn": VGG19BatchNorm,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "resnet101": ResNet101,
    "resnet152": ResNet152,
    "efficientnet_b0": EfficientNetB0,
    "efficientnet_b1": EfficientNetB1,
    "efficientnet_b2": EfficientNetB2,
    "efficientnet_b3": EfficientNetB3,
    "efficientnet_b4": EfficientNetB4,
    "efficientnet_b5": EfficientNetB5,
    "efficientnet_b6": EfficientNetB6,
    "efficientnet_b7": EfficientNetB7,
    "efficientnet_lite0": EfficientNetLite0,
    "rnn": RNN,
    "lstm": LSTM,
    "gru": GRU,
    "transformer": TransformerEncoder,
    "vit": ViT,
    "text_cnn": TextCNN,
    "tcn": TCN,
    "conformer": Conformer,
    "whisper": Whisper,
    "bag": Bag,
    "sasrec": SASRec,
    "gru4rec": GRU4Rec,
    "embedding": Embedding,
}


def encoders_for(kind: str) -> dict[str, type[Encoder]]:
    """The encoders that take columns of one kind (:class:`Spec`), by name.

    >>> list(encoders_for("vector"))
    ['mlp']
    """
    return {name: encoder for name, encoder in ENCODERS.items() if kind in encoder.accepts}
