"""The layout of published models: a run that was fine-tuned from one, as a folder that ``transformers`` reads.

What is written are the weights under their published names, with the folder's own settings and tokenizer. A head of
ours goes with them where the published class has one that computes the same: the classifier of a vision Transformer or
a residual network. BERT and its relatives put a dense layer with tanh between the first token and their classifier,
and GPT-2 and Llama have one without a bias: there the folder holds the body, and ``head.safetensors`` the linear layer
over its pooled tokens.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..columns import Column
from ..columns.category import Category
from ..console import Console
from ..data.batches import Batch, Batches
from ..errors import MissingExtraError, UsageError
from ..explain.rows import Rows
from ..heads import CategoryHead, TextHead
from ..heads.decoder import shifted
from ..model import Model
from ..pretrained import open_model
from ..pretrained.files import SafetensorsFolder
from ..pretrained.layouts import Layout, Role
from ..pretrained.layouts.resnet import ResNet
from ..pretrained.layouts.vit import ViT
from ..pretrained.model import PublishedModel
from ..recipe import Recipe
from .check import refuse_beyond
from .export import arrive
from .reverse import reversed_tensors
from .written import Place

__all__ = ["CLASSIFIERS", "Body", "body_of", "export_huggingface"]

# Where our linear layer over the pooled tokens is theirs, by family: its name, and the class of transformers.
CLASSIFIERS: dict[type[Layout], tuple[str, str]] = {
    ViT: ("classifier", "ViTForImageClassification"),
    ResNet: ("classifier.1", "ResNetForImageClassification"),
}
WRITERS = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
           "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}  # fmt: skip
MOST = 50 << 20  # bytes of a file that is copied along


@dataclass
class Body:
    """What of a run was published before: its files, and our modules by what they are there."""

    published: PublishedModel
    modules: dict[Role, nn.Module]
    name: str  # of the column that the encoder reads or the decoder writes
    head: CategoryHead | None = None

    @property
    def classifier(self) -> tuple[str, str] | None:
        return CLASSIFIERS.get(type(self.published.layout)) if self.head is not None else None


def body_of(recipe: Recipe, columns: Mapping[str, Column], model: Model) -> Body:
    """The published part of a run.

    Raises:
        UsageError: there is none, there are several, or its files are not in this layout.
    """
    starts: list[tuple[Role, str, nn.Module, Any]] = []
    for number, name in enumerate(model.inputs):
        starts.append(("encoder", name, model.encoders[number], recipe.inputs[name].pretrained))
    for name in model.outputs:
        head = model.head(name)
        if isinstance(head, TextHead):
            starts.append(("decoder", name, head.decoder, getattr(recipe.outputs[name], "pretrained", None)))
    known = [one for one in starts if one[3] is not None]
    sources = {str(start.model_dump().get("source", "")) for *_, start in known}
    beside = bool(known) and known[0][0] == "decoder" and bool(model.inputs)
    if len(sources) != 1 or len(known) > 1 or beside:
        what = "was not fine-tuned from a published model"
        if known:
            what = "has a published decoder that reads an input" if beside else "has two published parts, such as T5's"
        raise UsageError(
            f"this run {what}: there is no layout of transformers that it is written in",
            mend="Export it as onnx, openvino or torch.",
        )
    published = open_model(sources.pop())
    if not isinstance(published.files, SafetensorsFolder):
        raise UsageError("a GGUF file has no layout of transformers", place=published.source, mend="Export as onnx.")
    role, name, module, _ = known[0]
    if published.plan(role).column.get("tokenizer"):
        published.layout.order = published.tokenizer.order
    heads = [model.head(output) for output in model.outputs]
    alone = len(heads) == 1 and len(model.inputs) == 1 and isinstance(heads[0], CategoryHead) and model.passes
    return Body(published, {role: module}, name, heads[0] if alone else None)  # type: ignore[arg-type]


def export_huggingface(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    rows: Rows,
    out: Path,
    *,
    tolerance: float,
    console: Console,
) -> dict[str, Any]:
    """Write a fine-tuned run as a folder that transformers reads; it is read back by it, and compared on the rows.

    Raises:
        UsageError: the run has no such layout, or nothing can be written there.
        RunError: what is read back differs by more than the tolerance.
        MissingExtraError: transformers is not installed.
    """
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise MissingExtraError("transformers", "huggingface", purpose="reading back what is written") from None
    body = body_of(recipe, columns, model.cpu())
    place = Place.of(out, ".safetensors")
    with TemporaryDirectory(dir=place.folder, prefix=".export-") as scratch:
        folder = Path(scratch)
        write_folder(body, columns, model, folder)
        console.say(f"written for transformers; comparing on {len(rows.rows)} rows")
        found = compare(body, columns, model, rows, folder)
        refuse_beyond(tolerance, found, "transformers")
        for old in sorted(folder.glob("*/")):
            shutil.copytree(old, place.folder / old.name, dirs_exist_ok=True)
            shutil.rmtree(old)
        files = arrive(Place(folder), place)
    sizes = {path.name: path.stat().st_size for path in files}
    return {
        "format": "huggingface", "out": str(place.folder), "files": sizes, "bytes": sum(sizes.values()),
        "rows": len(rows.rows), "tolerance": tolerance, "differences": found,
    }  # fmt: skip


def write_folder(body: Body, columns: Mapping[str, Column], model: Model, folder: Path) -> None:
    layout, source = body.published.layout, Path(body.published.files.path)
    for file in source.iterdir():
        plain = file.suffix in (".json", ".txt", ".model", ".jinja") and "index" not in file.name
        if file.is_file() and plain and file.stat().st_size <= MOST:
            shutil.copyfile(file, folder / file.name)
    whole = {own: theirs for theirs, own in layout.theirs.items()}
    tensors = {whole[name]: tensor for name, tensor in reversed_tensors(layout, body.modules).items()}
    config = dict(layout.config) | {"torch_dtype": "float32", "dtype": "float32"}
    if body.classifier is not None:
        assert body.head is not None
        module, config["architectures"] = body.classifier[0], [body.classifier[1]]
        tensors = {f"{layout.roots[0]}{name}": tensor for name, tensor in tensors.items()}
        linear = body.head.linear
        tensors |= {f"{module}.weight": linear.weight.detach(), f"{module}.bias": linear.bias.detach()}
        column = columns[model.outputs[0]]
        assert isinstance(column, Category)
        config |= {
            "id2label": {str(code): name for code, name in enumerate(column.classes)},
            "label2id": {name: code for code, name in enumerate(column.classes)},
        }
    elif "decoder" in body.modules:
        config["architectures"] = [WRITERS.get(str(config.get("model_type")), "AutoModelForCausalLM")]
        tensors = {f"{'' if name.startswith('lm_head') else layout.roots[0]}{name}": t for name, t in tensors.items()}
    else:
        config.pop("architectures", None)
        kept: dict[str, Tensor] = {}
        for name in model.outputs:
            own = getattr(model.head(name), "linear", None)
            if isinstance(own, nn.Linear):
                kept |= {f"{name}.{part}": tensor.detach() for part, tensor in own.state_dict().items()}
        if kept:
            save_file(kept, folder / "head.safetensors")
    (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), "utf-8")
    save_file({name: t.clone() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


def compare(body: Body, columns: Mapping[str, Column], model: Model, rows: Rows, folder: Path) -> dict[str, float]:
    """The largest difference of tokens, scores or probabilities between the run and what transformers reads."""
    import transformers

    role = next(iter(body.modules))
    kind = "AutoModelForCausalLM" if role == "decoder" else "AutoModel"
    if body.classifier is not None:
        kind = body.classifier[1]
    told: Any = transformers.logging
    told.disable_progress_bar()
    told.set_verbosity_error()
    theirs = getattr(transformers, kind).from_pretrained(str(folder), dtype=torch.float32).eval()
    source, found = Batches(rows.tensors, torch.device("cpu")), 0.0
    with torch.inference_mode():
        for start in range(0, len(rows.rows), 8):
            batch = source.gather(rows.rows[start : start + 8])
            wanted, got = both(body, columns, model, batch, theirs)
            found = max(found, float((wanted.double() - got.double()).abs().max()))
    return {body.name: found}


def both(body: Body, columns: Mapping[str, Column], model: Model, batch: Batch, theirs: Any) -> tuple[Tensor, Tensor]:
    """What we and they say of a batch."""
    values, mask = batch.columns[body.name]
    order = None if body.published.layout.order is None else torch.from_numpy(body.published.layout.order)
    if "decoder" in body.modules:
        assert order is not None
        decoder: Any = body.modules["decoder"]
        real = values != 0
        ours = model.predict(body.name, model.encode(batch), batch).softmax(-1)
        read = order[shifted(values)].clamp(min=0)
        scores = theirs(input_ids=read, attention_mask=torch.ones_like(read)).logits
        known = (order >= 0) & ~torch.isin(torch.arange(len(order)), decoder.absent)
        said = torch.zeros_like(ours)
        said[..., known] = scores[..., order[known]].softmax(-1)
        return ours[real], said[real]
    number = model.inputs.index(body.name)
    stem, encoder = model.stems[number], model.encoders[number]
    seen, real_BT = stem(values, mask)
    if order is not None:
        assert mask is not None
        tokens = encoder(seen, real_BT).tokens
        got = theirs(input_ids=order[values].clamp(min=0), attention_mask=mask.long()).last_hidden_state
        return tokens[mask], got[mask]
    if body.classifier is not None:
        assert body.head is not None
        return body.head(encoder(seen)).softmax(-1), theirs(pixel_values=seen).logits.softmax(-1)
    encoding = encoder(seen)
    got = theirs(pixel_values=seen).last_hidden_state
    got = got.flatten(2).transpose(1, 2) if got.ndim == 4 else got[:, -encoding.tokens.shape[1] :]
    return encoding.tokens, got
