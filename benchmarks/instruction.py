"""Instructions and preferences taught to SmolLM2-135M-Instruct by LoRA on one core: what held-out answers gain.

300 words of a dictionary of 1913 with their definitions ("Define the word X."), 60 others held out. Loss is that of the
answer's tokens alone, in nats a token, before and after one epoch. For preferences, 150 of them with the definition of
another word as what is rejected; margins are of the held-out pairs, in nats. The base's file is hashed before and
after, and the merged run is held beside base and adapter: the largest difference of scores and of (log-)probabilities.

    OMP_NUM_THREADS=1 python -m benchmarks.instruction [--pairs 300] [--preferences 150] [--parts instruction]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zhixing as zx
from zhixing.data.batches import Batches
from zhixing.data.prepare import encode_all
from zhixing.data.source import open_source
from zhixing.model import Model
from zhixing.pretrained import open_adapter, put_weights
from zhixing.recipe import Recipe, reshaped
from zhixing.run import build_model
from zhixing.verbs.collect import EXACT, collect, metrics_of
from zhixing.verbs.generate import Plan, Writer

from .data import english_dictionary, smollm2

CPU = torch.device("cpu")
ENTRY = re.compile(
    r"^([A-Z][a-z]{3,11}) \\[^\\\n]+\\, (?:n|a|v\. t|v\. i|adv)\.\n   ([A-Z][A-Za-z ,;'\n-]{30,120}\.)\n   \[1913", re.M
)


def definitions(count: int, held_out: int = 60) -> list[dict[str, str]]:
    """Words and what they mean, each once, drawn at random; the last ``held_out`` are for testing."""
    page = english_dictionary().read_text("utf-8", "replace")
    found = {word: " ".join(text.split()) for word, text in ENTRY.findall(page)}
    words = sorted(found)
    chosen = np.random.default_rng(0).choice(len(words), count + held_out, replace=False)
    return [
        {
            "instruction": f"Define the word {words[place].lower()}.",
            "answer": found[words[place]],
            "split": "train" if number < count else "test",
        }
        for number, place in enumerate(chosen.tolist())
    ]


def preferences(rows: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    """Pairs: each definition, and that of the next word of the same split."""
    out = []
    for split, most in (("train", count), ("test", len(rows))):
        some = [row for row in rows if row["split"] == split][:most]
        for row, other in zip(some, some[1:] + some[:1], strict=True):
            pair = {"prompt": row["instruction"], "chosen": row["answer"], "rejected": other["answer"]}
            out.append(pair | {"split": split})
    return out


def write(rows: list[dict[str, str]], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def held_out(recipe: Recipe, columns: Any, model: Model, source: Path) -> dict[str, float]:
    """Figures of the answers in the test rows, without writing any."""
    table = reshaped(open_source(source), recipe.plain())
    split = table.data["split"].to_pylist()
    encoded, _ = encode_all(table, columns)
    rows = np.array([row for row, part in enumerate(split) if part == "test"], np.int64)
    seen = collect(model, Batches({name: one.batch for name, one in encoded.items()}, CPU), rows, EXACT)
    return metrics_of(model, columns, seen)["answer"]


def largest_differences(run: zx.Run, source: Path) -> dict[str, float]:
    """Of the merged run's scores and those of its base with the adapter on it, over some test rows."""
    adapted = open_adapter(run.path)
    table = reshaped(open_source(source), run.settings.plain())
    encoded, _ = encode_all(table, run.fitted)
    batches = Batches({name: one.batch for name, one in encoded.items()}, CPU)
    batch = batches.gather(np.arange(table.rows - 8, table.rows, dtype=np.int64))
    with torch.inference_mode():
        encoding = run.model.encode(batch)
        target = batch.columns["answer"].values.clamp(min=0)
        merged, unmerged = (model.head("answer").decoder(encoding, target) for model in (run.model, adapted.model))  # type: ignore[operator]
    said = target.clamp(min=1).unsqueeze(-1)
    own, other = (scores.log_softmax(-1).gather(-1, said)[target > 0] for scores in (merged, unmerged))
    return {
        "scores": float((merged - unmerged).abs().max()),
        "scores_reach": round(float(merged[merged > -1e3].abs().max()), 1),
        "log_probabilities_of_the_answers": float((own - other).abs().max()),
        "probabilities": float((merged.softmax(-1) - unmerged.softmax(-1)).abs().max()),
    }


def taught(source: Path, out: Path, more: dict[str, Any]) -> dict[str, Any]:
    """Held-out figures before and after one training."""
    base = smollm2()
    before_hash = hashlib.sha256(base.read_bytes()).hexdigest()
    raw = {
        "outputs": {"answer": {"decoder": str(base), "search": {"most": 4}, **more.pop("output", {})}},
        "training": {"epochs": 1, "batch_size": 8, "threads": 1, "keep": "last", "fine_tuning": "lora"},
        **more,
    }
    started = time.perf_counter()
    run = zx.train(str(source), recipe=raw, out=out, device="cpu")
    seconds = time.perf_counter() - started
    start = build_model(run.settings, run.fitted)
    put_weights(run.settings, run.fitted, start)
    print(f"{out.name}: trained in {seconds:.0f} s", file=sys.stderr, flush=True)
    before = held_out(run.settings, run.fitted, start.eval(), source)
    after = held_out(run.settings, run.fitted, run.model, source)
    writer = Writer(run.settings, run.fitted, run.model, CPU)
    tuned = json.loads((run.path / "environment.json").read_text("utf-8"))["fine_tuning"]
    return {
        "before": before,
        "after": after,
        "learns": tuned["learns"],
        "largest_differences_of_merged": largest_differences(run, source),
        "base_is_untouched": hashlib.sha256(base.read_bytes()).hexdigest() == before_hash,
        "base_sha256": before_hash,
        "seconds": round(seconds),
        "sample": "".join(piece.text for piece in writer.stream(["Define the word lantern."], Plan({"most": 40}))),
    }


def instruction(rows: list[dict[str, str]], count: int, folder: Path) -> dict[str, Any]:
    told = taught(write(rows, folder / "pairs.jsonl"), folder / "instructed", {})
    losses = {f"loss_{when}": round(math.log(told.pop(when)["perplexity"]), 4) for when in ("before", "after")}
    return {"train_rows": sum(row["split"] == "train" for row in rows), **losses, **told}


def preference(rows: list[dict[str, str]], count: int, folder: Path) -> dict[str, Any]:
    pairs = preferences(rows, count)
    more = {"data": {"reshape": "preference"}, "output": {"loss": {"name": "dpo", "beta": 0.1}}}
    told = taught(write(pairs, folder / "preferences.jsonl"), folder / "preferred", more)
    figures = dict[str, Any]()
    for when in ("before", "after"):
        found = told.pop(when)
        figures |= {f"{name}_{when}": round(found[name], 4) for name in ("margin", "preferred")}
    return {"train_pairs": sum(pair["split"] == "train" for pair in pairs), "beta": 0.1, **figures, **told}


PARTS = {"instruction": instruction, "preference": preference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--preferences", type=int, default=150)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = definitions(given.pairs)
    with tempfile.TemporaryDirectory() as folder:
        for part in given.parts:
            told = PARTS[part](rows, given.preferences, Path(folder))
            held = sum(row["split"] == "test" for row in rows)
            print(json.dumps({"part": part, "held_out": held, **told}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
