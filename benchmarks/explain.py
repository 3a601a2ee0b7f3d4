"""Whether explanations can be believed, by method and data.

Trains small runs and prints a line for each method and data set:

- ``sanity``: Spearman's correlation between maps before and after the weights are shuffled (0: nothing in common), of
  the same answers, as the mean over rows (Adebayo et al. 2018).
- ``deletion``, ``insertion``: areas under the probability of the answer as cells are taken away or put in, most
  important first, beside the same in random order; ``better``: the share of rows in which both beat random order.
- ``gap``: of integrated gradients, the largest share by which a row's attributions miss what they are to add up to.
- ``localised``: on made-up data in which one region, word or column alone matters, the share of rows where it has more
  than half of all attribution.
- ``captum``: the largest difference to captum's own result, as a share of its largest value.

    python -m benchmarks.explain [--only mnist emails …] [--rows 48]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import zhixing as zx
from zhixing.console import Console
from zhixing.explain.checks import areas, places_of, randomised, rank_correlation
from zhixing.explain.methods import METHODS, Maps
from zhixing.explain.rows import Rows, split_rows
from zhixing.explain.subject import NotApplicableError, Subject
from zhixing.models.encoding import Encoding

from .data import series, spam
from .registry import DOWNLOADS

CPU = torch.device("cpu")
Made = tuple[zx.Run, Rows]
PLACE = (slice(3, 12), slice(9, 18))  # of what matters in made-up pictures


def quick(source: Any, out: str, encoder: Any, **more: Any) -> zx.Run:
    return zx.train(source, target=more.pop("target", "label"), encoder=encoder, out=out, **more)


def of_split(run: zx.Run) -> Rows:
    return split_rows(run.settings, run.fitted, run.model, "test", Console(quiet=True), run.source)


def digits(name: str, folder: str) -> Made:
    import os

    os.environ["ZHIXING_DATA"] = str(DOWNLOADS)
    run = quick(name, folder, "cnn", epochs=1, batch_size=64, lr=0.003)
    return run, of_split(run)


def emails(folder: str) -> Made:
    raw = {"inputs": {"text": {"type": "text", "tokenizer": "word", "length": 256, "vocabulary": 8000}}}
    encoder = {"name": "text_cnn", "embedding": 64, "channels": 32}
    run = quick(str(spam()), folder, encoder, recipe=raw, epochs=3, batch_size=64, lr=0.003)
    return run, of_split(run)


def vowels(folder: str) -> Made:
    run = quick(
        str(series("JapaneseVowels")), folder, {"name": "gru", "bidirectional": True, "dropout": 0.3}, epochs=40,
        batch_size=16, lr=0.003, settings=["data.split={train: 0.9, validation: 0, test: 0.1}"],
    )  # fmt: skip
    return run, of_split(run)


# Made-up data, of which it is known what matters ---------------------------------------------------------------------


def picture(folder: str, encoder: Any) -> Made:
    """Noise of 21 x 21 with a bright square anywhere below, in both classes alike; a cross or a ring at one place."""
    rng = np.random.default_rng(0)
    marks = np.zeros((2, 9, 9))
    marks[0, 3:6], marks[0, :, 3:6] = 1, 1
    marks[1, [0, 1, -2, -1]], marks[1, :, [0, 1, -2, -1]] = 1, 1
    label = rng.integers(0, 2, 3000)
    pixels = rng.integers(80, 120, (3000, 21, 21)).astype(float)
    for one, kind in zip(pixels, label, strict=True):
        top, left = rng.integers(12, 17), rng.integers(0, 17)
        one[top : top + 4, left : left + 4] = 230
        one[PLACE] += 110 * marks[kind]
    data = {"picture": list(pixels.clip(0, 255).astype(np.uint8)), "label": label.astype(str).tolist()}
    run = quick(data, folder, encoder, epochs=5, batch_size=64, lr=0.003)
    return run, of_split(run)


class MeanOfMap(nn.Module):
    """The mean of a feature map: the kind of network that Grad-CAM was made for."""

    width = 32

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 32, 3), nn.ReLU())

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        maps = self.layers(values)
        return Encoding(maps.mean((2, 3)), maps.flatten(2).transpose(1, 2), grid=(maps.shape[2], maps.shape[3]))


def words(folder: str, encoder: dict[str, Any]) -> Made:
    """Texts of common words, with one that says the class."""
    rng = np.random.default_rng(0)
    common = np.array("the a of and to in that it was for on with as his they at be this had not are but from".split())  # noqa: SIM905
    texts, labels = [], []
    for _ in range(3000):
        some = list(rng.choice(common, rng.integers(6, 40)))
        kind = int(rng.integers(2))
        some[rng.integers(len(some))] = ("excellent", "dreadful")[kind]
        texts.append(" ".join(some))
        labels.append(("good", "bad")[kind])
    raw = {"inputs": {"text": {"type": "text", "tokenizer": "word"}}}
    run = quick({"text": texts, "label": labels}, folder, encoder, recipe=raw, epochs=3, batch_size=64, lr=0.003)
    return run, of_split(run)


def table(folder: str) -> Made:
    """Twelve columns of numbers, classes and dates, of which one number alone says the class."""
    rng = np.random.default_rng(0)
    data: dict[str, Any] = {f"n{i}": rng.normal(10 * i, 1 + i, 3000).tolist() for i in range(8)}
    data["shop"] = rng.choice(["a", "b", "c"], 3000).tolist()
    data["kind"] = rng.choice(["x", "y"], 3000).tolist()
    data["when"] = [
        f"2026-{m:02}-{d:02}" for m, d in zip(rng.integers(1, 13, 3000), rng.integers(1, 28, 3000), strict=True)
    ]
    up = rng.integers(0, 2, 3000)
    data["n3"] = (rng.normal(30, 1, 3000) + np.where(up, 8, -8)).tolist()
    data["label"] = ["up" if flag else "down" for flag in up]
    run = zx.train(data, target="label", epochs=4, batch_size=64, lr=0.003, out=folder)
    return run, of_split(run)


def region(name: str, subject: Subject) -> Callable[[Maps], Tensor] | None:
    """The share of attribution where it belongs, [B]."""

    def share(maps: Maps) -> Tensor:
        size = [None if cells is None else cells.abs().flatten(1).sum(1) for cells in maps.cells]
        whole = torch.stack([one for one in size if one is not None]).sum(0).clamp(min=1e-12)
        if name == "table":
            place = [entry.name for entry in subject.entries].index("n3")
            part = size[place] if size[place] is not None else torch.zeros_like(whole)
            assert part is not None
            return part / whole
        cells = maps.cells[0]
        assert cells is not None
        if name.startswith("picture"):
            return cells[(..., *PLACE)].abs().flatten(1).sum(1) / whole
        column: Any = subject.entries[0].column
        ids = [i for i in range(4, column.vocabulary_size) if column.tokens_of([i])[0] in ("excellent", "dreadful")]
        return (cells.abs() * torch.isin(subject.entries[0].values, torch.tensor(ids))).sum(1) / whole

    return share if name in ("picture", "picture-mean", "words", "words-attention", "table") else None


# Figures -------------------------------------------------------------------------------------------------------------


def measure(name: str, run: zx.Run, rows: Rows, most: int) -> None:
    other = randomised(run.model)
    figures: dict[str, dict[str, list[Tensor]]] = {method: {} for method in METHODS}
    seconds = dict.fromkeys(METHODS, 0.0)
    for batch, _ in rows.take(most).batches(CPU):
        subject = Subject(run.model, run.fitted, batch, "label")
        shuffled = Subject(other, run.fitted, batch, "label")
        shuffled.goal = replace(shuffled.goal, target=subject.goal.target)  # the same answers
        for method, work in METHODS.items():
            started = time.perf_counter()
            try:
                maps = work(subject)
            except NotApplicableError:
                continue
            seconds[method] += time.perf_counter() - started
            for key, value in figures_of(name, subject, maps, work(shuffled)).items():
                figures[method].setdefault(key, []).append(value)
    for method, found in figures.items():
        if found:
            print(
                json.dumps({"data": name, "method": method, **told(found), "seconds": round(seconds[method], 1)}),
                flush=True,
            )


def figures_of(name: str, subject: Subject, maps: Maps, after: Maps) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    if maps.gap is not None:
        out["gap"] = maps.gap
    share = region(name, subject)
    if share is not None:
        out["share"] = share(maps)
    if len(subject.entries) > 1:
        return out
    cells, shuffled = maps.cells[0], after.cells[0]
    assert cells is not None
    assert shuffled is not None
    (one, real), (two, _) = (places_of(subject, 0, part) for part in (cells, shuffled))
    out["sanity"] = rank_correlation(one, two, real)
    out["sanity_abs"] = rank_correlation(one.abs(), two.abs(), real)
    found = areas(subject, 0, cells)
    return out | dict(zip(found._fields, found, strict=True))


def told(found: dict[str, list[Tensor]]) -> dict[str, Any]:
    parts = {key: torch.cat(values) for key, values in found.items()}
    out: dict[str, Any] = {"rows": len(next(iter(parts.values())))}
    for key in ("sanity", "sanity_abs", "deletion", "random_deletion", "insertion", "random_insertion"):
        if key in parts:
            out[key] = round(float(parts[key].mean()), 3)
    if "deletion" in parts:
        better = (parts["deletion"] < parts["random_deletion"]) & (parts["insertion"] > parts["random_insertion"])
        out["better"] = round(float(better.float().mean()), 3)
    if "gap" in parts:
        out["gap"] = round(float(parts["gap"].max()), 4)
    if "share" in parts:
        out["localised"] = round(float((parts["share"] > 0.5).float().mean()), 3)
    return out


def beside_captum(run: zx.Run, rows: Rows) -> dict[str, float]:
    """The largest difference to captum, as a share of its largest value, on pictures."""
    from captum import attr as captum

    from zhixing.explain.methods.integrated import pieces_of_way
    from zhixing.explain.methods.occlusion import covers, occlusion_of, windows_of

    batch, _ = next(rows.take(16).batches(CPU))
    subject = Subject(run.model, run.fitted, batch, "label")
    entry, count = subject.entries[0], subject.size

    def function(points: Tensor) -> Tensor:
        return subject.score([points], torch.arange(count).repeat(len(points) // count))

    point = entry.point.clone().requires_grad_()
    zero, one = torch.zeros(count), torch.ones(count)
    sides, strides = windows_of(entry)
    pairs = {
        "integrated_gradients": (
            pieces_of_way(subject, torch.arange(count), zero, one)[0][0],
            captum.IntegratedGradients(function).attribute(point, entry.baseline, n_steps=32, method="gausslegendre"),
        ),
        "gradient_x_input": (
            METHODS["gradient_x_input"](subject).cells[0],
            captum.InputXGradient(function).attribute(point),
        ),
        "occlusion": (
            occlusion_of(subject, 0, covers(entry.shape, sides, strides, CPU)),
            captum.Occlusion(function).attribute(entry.point, sides, strides=strides, baselines=entry.baseline),
        ),
        "grad_cam": (
            METHODS["grad_cam"](subject).cells[0],
            captum.LayerAttribution.interpolate(
                captum.LayerGradientXActivation(function, entry.encoder.features[3])
                .attribute(point)
                .sum(1, keepdim=True)
                .relu(),
                tuple(entry.shape[1:]), "bilinear",
            ),
        ),
    }  # fmt: skip
    return {
        name: float(f"{float((ours - theirs).detach().abs().max() / theirs.detach().abs().max()):.1e}")
        for name, (ours, theirs) in pairs.items()
    }


DATA: dict[str, Callable[[str], Made]] = {
    "mnist": lambda folder: digits("mnist", folder),
    "fashion-mnist": lambda folder: digits("fashion-mnist", folder),
    "emails": emails,
    "vowels": vowels,
    "picture": lambda folder: picture(folder, {"name": "cnn", "layers": [16, "pool", 32], "dense": [32]}),
    "picture-mean": lambda folder: picture(folder, MeanOfMap()),
    "words": lambda folder: words(folder, {"name": "text_cnn", "embedding": 32, "channels": 16}),
    "words-attention": lambda folder: words(folder, {"name": "transformer", "width": 32, "depth": 2}),
    "table": table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--rows", type=int, default=48)
    given = parser.parse_args()
    for name in given.only:
        with tempfile.TemporaryDirectory() as scratch:
            started = time.perf_counter()
            run, rows = DATA[name](f"{scratch}/run")
            accuracy = run.evaluate()["label"]["accuracy"]
            line = {"data": name, "accuracy": round(accuracy, 4), "trained_in": round(time.perf_counter() - started, 1)}
            if name in ("mnist", "fashion-mnist"):
                line["captum"] = beside_captum(run, rows)
            print(json.dumps(line), flush=True)
            measure(name, run, rows, given.rows)


if __name__ == "__main__":
    main()
