"""Every encoder with a head of classes or numbers through ONNX: other batches and lengths, the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import contract
import numpy as np
import pytest
import soundfile
import torch
from exported import graph_of, variants

import zhixing as zx
from zhixing.columns import COLUMNS
from zhixing.data.batches import Batch
from zhixing.export.graph import Graph
from zhixing.export.onnx import open_onnx, write_onnx
from zhixing.export.torch import open_torch, write_torch
from zhixing.models import ENCODERS, encoders_for

NEAR = 1e-4
KINDS = {"image": "image", "vector": "number", "ids": "category", "tokens": "text", "sequence": "series"}
PAIRS = [
    (kind, encoder, head)
    for spec, kind in KINDS.items()
    for encoder in encoders_for(spec)
    for head in ("category", "number")
]
# Those whose layers no other stands for, each with one head; all others, and the other heads, take minutes.
QUICK = {
    ("text", "transformer", "number"), ("number", "mlp", "number"),
    ("image", "cnn", "category"),
}  # fmt: skip


def test_all_encoders_are_meant() -> None:
    assert {encoder for _, encoder, _ in PAIRS} == set(ENCODERS)


def furthest(graph: Graph, batch: Batch, path: Path) -> float:
    write_onnx(graph, path, batch)
    run, worst = open_onnx(path, graph), 0.0
    for part in variants(batch):
        feed = graph.example(part)
        with torch.no_grad():
            worst = max(worst, *graph.differences(graph(*feed), run(feed)).values())
    return worst


@pytest.mark.parametrize(
    ("kind", "encoder", "head"),
    [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in PAIRS],
)
def test_an_encoder_through_onnx(kind: str, encoder: str, head: str, tmp_path: Path) -> None:
    assert furthest(*graph_of(kind, encoder, head), tmp_path / "model.onnx") < NEAR


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in COLUMNS if kind not in KINDS.values() and kind != "labels"])
def test_a_column_type_through_onnx(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "audio":
        sounds_with_noise(monkeypatch)
    encoder = next(iter(encoders_for(COLUMNS[kind].kind)))
    assert furthest(*graph_of(kind, encoder, "number"), tmp_path / "model.onnx") < NEAR


def sounds_with_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """As recordings have it. In a pure tone, most bands hold no more than the rounding of float32, which the logarithm
    blows up: torch's own Fourier transform is then as far from the exact one as any other."""

    def clip(seconds: float, pitch: float) -> bytes:
        import io

        time, buffer = np.arange(round(seconds * 8000)) / 8000, io.BytesIO()
        noise = np.random.default_rng(round(pitch)).normal(size=len(time))
        soundfile.write(buffer, 0.3 * np.sin(2 * np.pi * pitch * time) + 0.01 * noise, 8000, format="WAV")
        return buffer.getvalue()

    monkeypatch.setattr(contract, "clip", clip)
    contract.ready.cache_clear()


@pytest.mark.slow
def test_any_number_of_rows_goes_through_torch(tmp_path: Path) -> None:
    """Whose quick exporter takes the len() of a tensor, as the vision Transformer asks for it, for a fixed number."""
    graph, batch = graph_of("image", "vit", "category")
    write_torch(graph, tmp_path / "model.pt2", batch, {})
    run = open_torch(tmp_path / "model.pt2", graph)
    for part in variants(batch):
        feed = graph.example(part)
        with torch.no_grad():
            assert max(graph.differences(graph(*feed), run(feed)).values()) < NEAR


@pytest.mark.slow
@pytest.mark.parametrize("features", ["log_mel", "whisper"])
def test_a_sound_through_openvino(features: str, tmp_path: Path) -> None:
    """Which ends the process on the Fourier transform of ONNX."""
    random = np.random.default_rng(0)
    table = {"sound": [random.normal(0, 0.1, 4000 + 400 * row).tolist() for row in range(8)], "y": [0.0, 1.0] * 4}
    raw = {
        "inputs": {
            "sound": {"type": "audio", "rate": 8000, "features": features, "encoder": {"name": "gru", "width": 8}}
        },
        "training": {"epochs": 1, "threads": 1},
    }
    run = zx.train(table, recipe=raw, out=tmp_path / "run", device="cpu")
    assert json.loads((run.export("openvino", out=tmp_path / "out") / "model.json").read_text())["rows_compared"]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["labels", "tags", "series"])
def test_a_head_through_onnx(head: str, tmp_path: Path) -> None:
    assert furthest(*graph_of("text", "transformer", head), tmp_path / "model.onnx") < NEAR


def test_nothing_is_said_of_what_is_between_the_nodes(tmp_path: Path) -> None:
    import onnx

    graph, batch = graph_of("series", "gru", "category")
    write_onnx(graph, tmp_path / "model.onnx", batch, {"note": "kept"})
    model = onnx.load(str(tmp_path / "model.onnx"))
    between = {name for node in model.graph.node for name in node.output}
    assert not between & {info.name for info in model.graph.value_info}
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("note", "kept")]
    shapes = {one.name: [side.dim_param for side in one.type.tensor_type.shape.dim] for one in model.graph.input}
    assert shapes == {"x": ["batch", "x_steps", ""], "x_mask": ["batch", "x_steps"]}
    kernels = [node.op_type for node in model.graph.node if node.op_type == "GRU"]
    assert len(kernels) == 1, "one node, not a node for each step"
