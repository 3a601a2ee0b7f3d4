"""How far an exported model's answers are from the run's own, and how large its files are, by format and recipe.

Each recipe is trained for a moment (what is learned does not matter here), exported and compared on held-out rows.
Probabilities are compared as they are, numbers in deviations of the column.

    python -m benchmarks.export [--formats onnx torch openvino] [--recipes mnist_cnn spam_text_cnn …]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import zhixing as zx
from zhixing.console import Console
from zhixing.errors import ZhixingError
from zhixing.export.command import export_command

from .data import fashion_mnist, spam

TEXT: dict[str, Any] = {"type": "text", "length": 128}


def recipes() -> dict[str, Any]:
    """Name: source and recipe, each made only when it is asked for."""
    return {
        "mnist_cnn": lambda: ("mnist", {}),
        "fashion_resnet18": lambda: (str(fashion_mnist()), {"inputs": {"image": {"encoder": "resnet18"}}}),
        "mnist_lstm": lambda: ("mnist", {"inputs": {"image": {"encoder": "lstm"}}}),
        "mnist_vit": lambda: ("mnist", {"inputs": {"image": {"encoder": "vit"}}}),
        "spam_text_cnn": lambda: (
            str(spam()), {"inputs": {"text": TEXT | {"encoder": "text_cnn"}}, "outputs": {"label": "category"}}
        ),
        "spam_transformer": lambda: (
            str(spam()), {"inputs": {"text": TEXT | {"encoder": "transformer"}}, "outputs": {"label": "category"}}
        ),
    }  # fmt: skip


def measure(name: str, source: str, recipe: dict[str, Any], forms: list[str], folder: Path) -> None:
    raw = recipe | {"training": {"epochs": 0.02, "threads": 1, "batch_size": 32}}
    run = zx.train(source, recipe=raw, out=folder / name, device="cpu")
    weights = sum(tensor.nbytes for tensor in run.model.state_dict().values())
    for form in forms:
        line: dict[str, Any] = {"recipe": name, "format": form, "weights_bytes": weights}
        start = time.perf_counter()
        try:
            told = export_command(
                run.settings, run.fitted, run.model, form=form, out=folder / name / form,
                calibrations=run.calibrations, console=Console(quiet=True),
            )  # fmt: skip
        except ZhixingError as error:
            line["error"] = str(error)
        else:
            line |= {"bytes": told["bytes"], "rows": told["rows"], "differences": told["differences"]}
        print(json.dumps(line | {"seconds": round(time.perf_counter() - start, 1)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", default=["onnx", "torch", "openvino"])
    known = recipes()
    parser.add_argument("--recipes", nargs="+", default=list(known), choices=list(known))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.recipes:
            source, recipe = known[name]()
            measure(name, source, recipe, arguments.formats, Path(folder))


if __name__ == "__main__":
    main()
