"""The layout of published models: a run that was fine-tuned from one, as a folder that ``transformers`` reads.

What is written are the weights under their published names, with the folder's own settings and tokenizer. What was
LoRA is part of them; a GGUF file's are written as safetensors. A head of ours goes with them where a published class
computes the same (see :mod:`zhixing.export.endings`); otherwise the folder holds the body, and ``head.safetensors``
the linear layers over its tokens. Which it is stands in the folder's README.md, with the lines that read it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ..calibration import Calibration
from ..columns import Column
from ..columns.category import Category
from ..columns.tags import Tags
from ..console import Console
from ..errors import MissingExtraError
from ..explain.rows import Rows
from ..heads import TagsHead
from ..model import Model
from ..pretrained.files import GGUFFile
from ..pretrained.model import PublishedModel
from ..recipe import Recipe
from .check import refuse_beyond
from .export import arrive
from .peer import compare, opened
from .published import Body, body_of
from .readme import readme
from .reverse import reversed_tensors
from .written import Place

__all__ = ["WRITERS", "export_huggingface"]

WRITERS = {
    "gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "t5": "T5ForConditionalGeneration",
    "marian": "MarianMTModel", "whisper": "WhisperForConditionalGeneration",
}  # fmt: skip
ABOVE = ("lm_head.weight", "final_logits_bias", "proj_out.weight")  # tensors that stand beside the body, not in it
COPIED = (".json", ".txt", ".model", ".spm", ".jinja")
HEADS = "head.safetensors"
MOST = 50 << 20  # bytes of a file that is copied along


def export_huggingface(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    rows: Rows,
    out: Path,
    *,
    tolerance: float,
    calibrations: Mapping[str, Calibration] | None = None,
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
    body = body_of(recipe, model.cpu(), calibrations or {})
    place = Place.of(out, ".safetensors")
    with TemporaryDirectory(dir=place.folder, prefix=".export-") as scratch:
        folder = Path(scratch)
        kind = write_folder(body, columns, model, folder)
        apart = "; the heads stand apart, in head.safetensors: see README.md" if (folder / HEADS).is_file() else ""
        console.say(f"written for {kind} of transformers{apart}; comparing on {len(rows.rows)} rows")
        found = compare(body, model, rows, opened(folder, kind))
        refuse_beyond(tolerance, found, "transformers")
        for old in sorted(folder.glob("*/")):
            shutil.copytree(old, place.folder / old.name, dirs_exist_ok=True)
            shutil.rmtree(old)
        files = arrive(Place(folder), place)
    sizes = {path.name: path.stat().st_size for path in files}
    return {
        "format": "huggingface", "class": kind, "out": str(place.folder), "files": sizes, "bytes": sum(sizes.values()),
        "rows": len(rows.rows), "tolerance": tolerance, "differences": found,
    }  # fmt: skip


def write_folder(body: Body, columns: Mapping[str, Column], model: Model, folder: Path) -> str:
    """Write all files; gives the class of transformers that reads them."""
    layout = body.published.layout
    files_beside(body.published, folder)
    tensors, untied = reversed_tensors(layout, body.modules)
    config = {key: value for key, value in layout.config.items() if key != "architectures"}
    config |= {"torch_dtype": "float32", "dtype": "float32"}
    if untied and config["model_type"] != "t5":  # whose readers take it for whether scores are scaled
        config["tie_word_embeddings"] = False
    kind, kept = "AutoModel", dict[str, Tensor]()
    if body.ending is not None:
        kind, (linear,) = body.ending.kind, body.linears.values()
        tensors = rooted(body, tensors) | body.ending.tensors(linear, body.modules["encoder"])
        config |= labels_of(columns[model.outputs[0]], isinstance(model.head(model.outputs[0]), TagsHead))
    elif "decoder" in body.modules:
        kind = WRITERS.get(str(config["model_type"]), "AutoModelForCausalLM")
        tensors = rooted(body, tensors)
    else:
        for name, linear in body.linears.items():
            kept |= {f"{name}.{part}": tensor.detach() for part, tensor in linear.state_dict().items()}
        if config.get("is_encoder_decoder"):  # what was not trained is needed for the whole to be read
            tensors = unread(body.published, tensors) | tensors
    if kind != "AutoModel":
        config["architectures"] = [kind]
    if kept:
        save_file(kept, folder / HEADS)
    (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), "utf-8")
    save_file({name: t.clone() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    (folder / "README.md").write_text(readme(body, columns, model, kind, kept), "utf-8")
    return kind


def files_beside(published: PublishedModel, folder: Path) -> None:
    """Copy settings and tokenizer; those that a GGUF file holds are written as transformers has them."""
    if isinstance(published.files, GGUFFile):
        library, config = published.tokenizer.library, published.files.config
        (folder / "tokenizer.json").write_text(published.tokenizer.spelled, "utf-8")
        names = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "pad_token_id"}
        told: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        told |= {name: library.id_to_token(config[key]) for name, key in names.items() if config.get(key) is not None}
        (folder / "tokenizer_config.json").write_text(json.dumps(told, ensure_ascii=False, indent=1), "utf-8")
        return
    for file in published.files.path.iterdir():
        plain = file.suffix in COPIED and "index" not in file.name
        if file.is_file() and plain and file.stat().st_size <= MOST:
            shutil.copyfile(file, folder / file.name)


def rooted(body: Body, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The body's tensors as they are called within a class that holds more than the body."""
    roots = body.published.layout.roots
    root = roots[0] if roots else ""
    return {name if name in ABOVE else f"{root}{name}": tensor for name, tensor in tensors.items()}


def labels_of(column: Column, several: bool) -> dict[str, Any]:
    """What config.json says of the classes."""
    assert isinstance(column, Category | Tags)
    problem = "multi_label_classification" if several else "single_label_classification"
    return {
        "id2label": {str(code): name for code, name in enumerate(column.classes)},
        "label2id": {name: code for code, name in enumerate(column.classes)},
        "problem_type": problem,
    }


def unread(published: PublishedModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All other tensors of the body, as they were published."""
    layout = published.layout
    names = [name for name in layout.theirs if name not in tensors and name not in ABOVE]
    return {name: layout.files.read(layout.theirs[name]) for name in names}
