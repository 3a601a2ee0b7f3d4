"""The README.md of a folder for transformers: which class reads it, with the lines that do, and where its head is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..columns import Column
from ..heads import CategoryHead, LabelsHead, TagsHead
from ..model import Model
from ..models.transformer import StepTransformer
from .published import Body

__all__ = ["readme"]

PROCESSORS = {"text": "AutoTokenizer", "image": "AutoImageProcessor", "audio": "AutoProcessor"}


def readme(body: Body, columns: Mapping[str, Column], model: Model, kind: str, kept: Mapping[str, Tensor]) -> str:
    """The text of the file, for a folder that the class ``kind`` reads; ``kept`` stands in head.safetensors."""
    layout = body.published.layout
    reads = layout.reads if "encoder" in body.modules else "text"
    processor = PROCESSORS[reads]
    source = Path(body.published.source)
    base = source.name if source.exists() else body.published.source
    lines = [
        "---", "library_name: transformers", "---", "",
        f"# {kind}, fine-tuned", "",
        f"A model of type `{layout.config['model_type']}` that was fine-tuned from `{base}` with Zhixing.", "",
        "```python", f"from transformers import {kind}, {processor}", "",
        f'model = {kind}.from_pretrained(".").eval()', f'processor = {processor}.from_pretrained(".")', "```", "",
    ]  # fmt: skip
    if kept:
        lines += [*head_lines(body, model), ""]
    elif body.ending is not None and layout.reads == "text":
        lines += [
            "The dense layer before the classifier passes the first token on unchanged, so that the classifier is the",
            "linear layer that was trained. To train on, set that layer up anew.", "",
        ]  # fmt: skip
    return "\n".join(lines)


def head_lines(body: Body, model: Model) -> list[str]:
    """How the answers come of the tokens."""
    encoder = body.modules["encoder"]
    pooling = encoder.pooling if isinstance(encoder, StepTransformer) else "mean"
    told = {CategoryHead: "softmax", TagsHead: "sigmoid", LabelsHead: "softmax, of each token"}
    ends = [f"`{name}` ({told.get(type(model.head(name)), 'as it was trained')})" for name in model.outputs]
    why = {
        "mean": "No class of transformers has a linear layer over the mean of all tokens.",
        "last": "The classes of transformers have no bias there, which this layer has.",
    }.get(pooling, "This head has no class of transformers.")
    return [
        f"{why} So this folder holds the body alone, and `head.safetensors` the linear layers over its tokens,",
        f"summed up as `{pooling}`: for {', '.join(ends)}.",
    ]
