"""Published models as a start: ``encoder: ./minilm`` reads weights into this project's own layers.

A recipe that names a folder (or a file, or a name on the hub) in place of an encoder or decoder is :func:`resolve`-d
into the encoder's own name and settings, with ``pretrained: {source, sha256}`` beside them. Columns are then
:func:`equip`-ped with the tokenizer that belongs to the weights, and :func:`put_weights` fills the model. A finished
run holds all of it and needs the folder no more.
"""

from __future__ import annotations

from .adapter import Adapted, fine_tune, open_adapter, write_adapter
from .model import PublishedModel, open_model
from .resolve import equip, put_weights, resolve, untrained

__all__ = [
    "Adapted", "PublishedModel", "equip", "fine_tune", "open_adapter", "open_model", "put_weights", "resolve",
    "untrained", "write_adapter",
]  # fmt: skip
