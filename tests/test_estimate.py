"""Estimates: the dry step beside real ones, whatever encoder and head; memory, time and what a run writes of itself."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract import CPU, PAIRS, fits, ready, recipe_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zhixing as zx
from zhixing.cli import main
from zhixing.columns.column import Ragged
from zhixing.console import Console
from zhixing.data.batches import Batches, Order
from zhixing.layers.recurrent import KERNELS
from zhixing.recipe import Recipe
from zhixing.run import build_model
from zhixing.training.precision import Precision
from zhixing.verbs.estimate import machine
from zhixing.verbs.estimate.chosen import Chosen, corput, representative
from zhixing.verbs.estimate.dry import Dry, blank_batch, through
from zhixing.verbs.estimate.estimate import estimate
from zhixing.verbs.estimate.plan import EFFICIENCY, activations_of, energy, memory_parts
from zhixing.verbs.estimate.table import show
from zhixing.verbs.estimate.tally import Tally

QUIET = Console(quiet=True)
LIGHT = [
    ("image", "cnn"), ("image", "vit"), ("image", "mlp"), ("text", "lstm"), ("text", "gru"), ("text", "transformer"),
    ("text", "text_cnn"), ("series", "tcn"), ("series", "rnn"), ("history", "sasrec"), ("audio", "conformer"),
    ("category", "embedding"), ("number", "mlp"), ("date", "mlp"), ("tags", "mlp"), ("labels", "lstm"),
]  # fmt: skip


def parts_of(kind: str, encoder: str, head: str, **training: Any) -> tuple[Recipe, dict[str, Any]]:
    columns, _ = ready(kind, 32) if kind == "image" else ready(kind)
    plain = recipe_of(kind, encoder, (head,)).plain()
    plain["training"] |= training
    if head == "text ctc":  # it has nothing to search
        del plain["outputs"]["text_out"]["search"]
    recipe = Recipe(plain)
    return recipe, {name: columns[name] for name in (*recipe.inputs, *recipe.outputs)}


# The dry step --------------------------------------------------------------------------------------------------------


def test_every_type_of_column_is_among_those_looked_at() -> None:
    assert {kind for kind, _ in LIGHT} == {kind for kind, _ in PAIRS}


@pytest.mark.parametrize(("kind", "encoder"), LIGHT)
def test_a_dry_step_counts_what_a_real_one_takes(kind: str, encoder: str) -> None:
    """Parameters to the one, operations and bytes of the same model on real tensors."""
    recipe, columns = parts_of(kind, encoder, "category", precision="fp32")
    rows = 64 if encoder in ("gru", "lstm", "rnn") else 6
    dry = Dry(recipe, columns, CPU).step(rows)
    model = build_model(recipe, columns)
    assert dry.parameters == sum(p.numel() for p in model.parameters())
    assert dry.weights == sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    assert dry.gradients == sum(p.nbytes for p in model.parameters())
    tally = Tally()
    with tally:
        for tensor in (*model.parameters(), *model.buffers()):
            tally.see(tensor)
        batch = model.weigh(blank_batch(columns, rows))
        before = tally.now
        tally.forget()
        passed = through(model, batch, [(0, rows)], Precision("fp32", ""), tally)
        most = tally.forget() - before - dry.gradients
    assert dry.forward_flops == passed.by_layer[""]
    if encoder in ("gru", "lstm", "rnn"):  # all steps at once stand for one by one
        assert dry.step_flops == pytest.approx(passed.step, rel=0.05)
        assert dry.saved == pytest.approx(passed.saved, rel=0.3)
        return
    assert dry.step_flops == passed.step
    assert dry.saved == pytest.approx(passed.saved, rel=0.01)
    assert dry.activations == pytest.approx(max(most, 0), rel=0.02)


@pytest.mark.parametrize("encoder", ["gru", "lstm", "rnn"])
def test_precision_is_chosen_as_training_does(encoder: str) -> None:
    """Which takes a way forward without a way back."""
    recipe, columns = parts_of("series", encoder, "category", precision="auto")
    assert Dry(recipe, columns, CPU).step(4).precision.reason != "asked for"


@pytest.mark.parametrize("head", ["labels", "number", "series", "tags", "text transformer", "text gru", "text ctc"])
def test_any_head(head: str) -> None:
    recipe, columns = parts_of("text", "gru", head)
    assert fits("gru", head)
    dry = Dry(recipe, columns, CPU).step(4)
    assert dry.forward_flops > 0
    assert dry.activations > 0
    assert dry.whole == (head != "text ctc")  # whose loss torch cannot follow without computing it


def test_layers_add_up_to_the_whole() -> None:
    recipe, columns = parts_of("image", "cnn", "category")
    dry = Dry(recipe, columns, CPU).step(4)
    assert sum(layer.forward_flops for layer in dry.layers) == dry.forward_flops
    linear = dry.layers[-1]
    assert linear.kind == "Linear"
    assert linear.forward_flops == 2 * 4 * build_model(recipe, columns).head("category_out").linear.weight.numel()


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw", "adagrad", "rmsprop", "muon", "gradient_descent"])
def test_the_optimizers_state(name: str) -> None:
    recipe, columns = parts_of("image", "mlp", "category", optimizer={"name": name})
    dry = Dry(recipe, columns, CPU).step(4)
    expected = {"sgd": 0, "gradient_descent": 0, "momentum": 1, "adagrad": 1, "rmsprop": 1, "adam": 2, "adamw": 2}
    if name in expected:
        assert dry.optimizer == pytest.approx(expected[name] * dry.gradients, abs=100)
    else:  # momentum of hidden matrices, twice of all else
        assert dry.gradients <= dry.optimizer < 2 * dry.gradients


@pytest.mark.parametrize(("encoder", "size"), [("lstm", 4), ("gru", 3), ("rnn", 1)])
def test_operations_of_recurrent_layers(encoder: Any, size: int) -> None:
    with torch._subclasses.fake_tensor.FakeTensorMode(), Tally() as tally:
        KERNELS[encoder](8, 16, batch_first=True)(torch.zeros(4, 50, 8))
    assert tally.flops == 2 * 4 * 50 * (8 + 16) * size * 16


def test_operations_of_attention_are_seen() -> None:
    query = torch.randn(2, 3, 7, 8)
    with Tally() as tally:
        nn.functional.scaled_dot_product_attention(query, query, query)
    assert tally.flops == 2 * 2 * (2 * 3 * 7 * 7 * 8)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_bytes_that_live(sizes: list[int]) -> None:
    """Kept tensors add up, dropped ones go, views count nothing."""
    kept = []
    with Tally() as tally:
        for size in sizes:
            kept.append(torch.zeros(size))
            kept.append(kept[-1].view(1, -1))
            torch.zeros(1000)
        assert tally.now == 4 * sum(sizes)
        assert tally.peak == 4 * sum(sizes) + 4000
        kept.clear()
        assert tally.now == 0


def test_in_parts_and_recomputed_less_is_kept_at_a_time() -> None:
    plain = recipe_of("text", "gru", ("text transformer",)).plain()
    plain["outputs"]["text_out"]["decoder"] |= {"width": 32, "depth": 3, "heads": 2}
    plain["training"]["precision"] = "fp32"
    columns, _ = ready("text")
    recipe = Recipe(plain)
    dry = Dry(recipe, {name: columns[name] for name in ("x", "text_out")}, CPU)
    whole, parts, again = dry.step(64), dry.step(64, micro=16), dry.step(64, recompute=True)
    assert parts.activations < 0.6 * whole.activations
    assert parts.step_flops == pytest.approx(whole.step_flops, rel=0.01)
    assert again.activations < 0.8 * whole.activations
    assert again.step_flops > 1.1 * whole.step_flops
    assert dry.step(64) == whole  # nothing of a change stays
    wide = dry.step(64, precision="bf16")
    assert wide.precision.name == "bf16"
    assert wide.saved < whole.saved
    line = activations_of(whole, dry.step(32))
    assert line(128) == pytest.approx(dry.step(128).activations, rel=0.05)


def test_billions_of_parameters_take_no_memory() -> None:
    """Only one of the many blocks' weights would be a hundred times what is allowed here."""
    columns, _ = ready("text")
    plain = recipe_of("text", "gru", ("text transformer",)).plain()
    plain["outputs"]["text_out"]["decoder"] |= {"width": 8192, "depth": 3, "heads": 8}
    before = machine.peak_bytes()
    dry = Dry(Recipe(plain), {name: columns[name] for name in ("x", "text_out")}, CPU).step(2)
    assert dry.parameters > 2e9
    assert machine.peak_bytes() - before < 200 << 20


# Parts of it ---------------------------------------------------------------------------------------------------------


def test_memory_of_this_process_is_seen() -> None:
    machine.watch_peak()
    before = machine.resident_bytes()
    held = mmap.mmap(-1, 40 << 20)  # fresh pages: an array may be given some that the process holds already
    held.write(b"1" * (40 << 20))
    assert machine.resident_bytes() - before > 30 << 20
    assert machine.watched_peak() >= before + (30 << 20)
    held.close()
    assert machine.peak_bytes() >= machine.resident_bytes()
    free = machine.host_free()
    assert free is None or 0 < free < 1 << 50
    assert machine.product_rate(CPU, torch.float32, 0.02) > 1e8


def test_energy_and_cost() -> None:
    told = energy(7200, machine.power_of(CPU, 2, watts=100), price=3, carbon=400)
    assert told == {"watts": 100, "model": "given", "kilowatt_hours": 0.2, "cost": 6, "carbon_grams": 80}
    model = machine.power_of(CPU, 4)
    assert model.watts == machine.CPU_IDLE + 4 * machine.CPU_CORE
    assert "not a measurement" in model.reason


def test_steps_that_stand_for_all() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 2000)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    batches = Batches({"x": Ragged(torch.zeros(int(offsets[-1]), dtype=torch.int32), offsets)}, CPU)
    rows = np.arange(2000)
    order = Order(rows, 10, lengths=batches.lengths(rows))
    chosen = representative(order, batches)
    widths = [int(lengths[order.at(step)].max()) for step in chosen]
    assert widths[0] == lengths.max()
    of_all = np.mean([lengths[order.at(step)].max() for step in range(200)])
    for count in (7, 15, 31):  # every beginning does
        assert np.mean(widths[3 : 3 + count]) == pytest.approx(of_all, rel=0.06)
    taken = Chosen(order, chosen)
    for place, step in enumerate(chosen):
        assert taken.at(place).tolist() == order.at(step).tolist()
    assert [corput(place) for place in (1, 2, 3)] == [0.5, 0.25, 0.75]


# The whole -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "people.csv"
    rows = [f"{draw.normal():.3f},{draw.normal():.3f},{draw.choice(['a', 'b'])}" for _ in range(400)]
    path.write_text("\n".join(["age,size,label", *rows]) + "\n", "utf-8")
    return path


def test_an_estimate_tells_all_and_leaves_nothing(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(
        [
            "estimate",
            str(table),
            "--epochs",
            "3",
            "--price",
            "2",
            "--carbon",
            "400",
            "--set",
            "training.threads=1",
            "--json",
        ]
    )
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(tmp_path.iterdir()) == []
    assert told["steps"] == 9
    assert told["batch_rows"] == 107
    assert sum(layer["parameters"] for layer in told["layers"]) == told["parameters"]
    memory, times = told["memory"], told["time"]
    assert memory["fits"] is True
    assert memory["peak_bytes"] <= sum(memory["parts_bytes"].values()) + 1
    assert memory["parts_bytes"]["optimizer"] == pytest.approx(2 * memory["parts_bytes"]["gradients"], abs=100)
    parts = ("start", "training", "validation", "checkpoints", "final")
    assert times["seconds"] == pytest.approx(sum(times[name] for name in parts), abs=0.01)
    assert times["training"] == pytest.approx(9 * times["step"], rel=1e-3)
    assert told["largest_batch"] > 1000
    assert {one["change"] for one in told["changes"]} >= {"batch of 53 rows", "accumulate over 4 parts"}
    assert told["energy"]["cost"] == pytest.approx(2 * times["seconds"] / 3600, abs=1e-5)
    show(told)
    assert "peak memory" in capsys.readouterr().out


def test_without_a_trial_the_time_is_told_from_operations(table: Path) -> None:
    told = estimate(str(table), {}, device=CPU, trial=False, console=QUIET)
    assert "GFLOP/s" in told["time"]["from"]
    least = told["time"]["at_least"] - told["time"]["start"]
    assert told["time"]["training"] * EFFICIENCY == pytest.approx(least, abs=2e-3)
    assert "no step was tried out" in told["notes"]
    assert told["memory"]["from"] == "the sum of the parts"


def test_a_model_that_does_not_fit_is_told_of_and_not_built(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "host_free", lambda: 1000)
    monkeypatch.setattr("zhixing.verbs.estimate.estimate.host_free", lambda: 1000)
    monkeypatch.setattr("zhixing.verbs.estimate.estimate.device_free", lambda device: 1000)
    monkeypatch.setattr("zhixing.verbs.estimate.scene.build", None)  # it must not be called
    told = estimate(str(table), {}, device=CPU, console=QUIET)
    assert told["memory"]["fits"] is False
    assert told["largest_batch"] < told["batch_rows"]


def test_a_run_writes_what_was_estimated_and_what_came(table: Path, tmp_path: Path, capsys: Any) -> None:
    run = zx.train(str(table), epochs=60, batch_size=64, out=tmp_path / "r", settings=["training.threads=1"])
    told = json.loads((run.path / "estimate.json").read_text("utf-8"))
    assert told["memory"]["parts_bytes"]["weights"] == memory_parts_of(run)["weights"]
    assert told["came"]["seconds"] > 0
    assert 0.5 < told["memory"]["peak_bytes"] / told["came"]["peak_bytes"] < 2
    assert told["time"]["seconds"] > 0
    assert "what came" in (run.path / "report.html").read_text("utf-8")
    main(["estimate", str(run.path), "--no-trial", "--json"])  # of a run its recipe is taken
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["steps"] == json.loads((run.path / "metrics.jsonl").read_text("utf-8").splitlines()[-1])["step"]
    assert again["parameters"] == sum(p.numel() for p in run.model.parameters())


def memory_parts_of(run: zx.Run) -> dict[str, int]:
    return memory_parts(Dry(run.settings, run.fitted, CPU).step(64), run.settings)


def test_an_encoder_of_ones_own_is_counted(digits: dict[str, Any], tmp_path: Path) -> None:
    from own_encoder import Mean

    run = zx.train(digits, encoder=Mean(), epochs=1, out=tmp_path / "r")
    told = json.loads((run.path / "estimate.json").read_text("utf-8"))
    assert told["memory"]["parts_bytes"]["weights"] == sum(
        t.nbytes for t in (*run.model.parameters(), *run.model.buffers())
    )


def test_an_encoder_that_asks_for_values_is_counted(digits: dict[str, Any], tmp_path: Path) -> None:
    from own_encoder import Mean

    class Peeking(Mean):
        def forward(self, values: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
            assert float(values.sum()) is not None
            return super().forward(values, mask)

    run = zx.train(digits, encoder=Peeking(), epochs=1, out=tmp_path / "r")
    told = json.loads((run.path / "estimate.json").read_text("utf-8"))
    assert told["memory"]["parts_bytes"]["activations"] > 0


def test_a_run_whose_memory_cannot_be_estimated_trains_all_the_same(digits: dict[str, Any], tmp_path: Path) -> None:
    from own_encoder import Mean

    class Shy(Mean):
        asked = False

        def forward(self, values: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
            if self.training and not self.asked:
                self.asked = True
                raise ValueError("not yet")
            return super().forward(values, mask)

    run = zx.train(digits, encoder=Shy(), epochs=1, out=tmp_path / "r")
    told = json.loads((run.path / "estimate.json").read_text("utf-8"))
    assert told["memory"] == {"note": "ValueError: not yet"}
    assert "could not be estimated" in (run.path / "report.html").read_text("utf-8")


def test_training_is_not_touched_by_the_step_that_is_tried(
    digits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running statistics, dropout, and an optimizer that a step is undone of by copies."""
    settings = [
        "inputs.picture.encoder.batch_norm=true",
        "inputs.picture.encoder.dropout=0.2",
        "training.average=0.9",
        "training.optimizer.name=rmsprop",
    ]

    def weights(name: str) -> dict[str, torch.Tensor]:
        run = zx.train(digits, encoder="cnn", epochs=2, settings=settings, seed=3, out=tmp_path / name)
        return dict(run.model.state_dict())

    tried = weights("tried")
    monkeypatch.setattr("zhixing.verbs.estimate.foretell.memory_ahead", lambda session, loop: {})
    plain = weights("plain")
    assert tried.keys() == plain.keys()
    assert all(torch.equal(tried[name], plain[name]) for name in tried)


def test_the_longest_rows_are_tried(tmp_path: Path) -> None:
    """As a dry step of the longest row tells, but for the copies of a batch's values."""
    texts = ["a" * int(count) for count in np.random.default_rng(0).integers(1, 200, 320)]
    recipe = {
        "inputs": {"text": {"type": "text", "tokenizer": "byte", "encoder": {"name": "lstm"}}},
        "outputs": {"label": {"type": "category"}},
        "training": {"epochs": 1, "batch_size": 16, "precision": "fp32"},
    }
    data = {"text": texts, "label": ["long" if len(text) > 100 else "short" for text in texts]}
    run = zx.train(data, recipe=recipe, out=tmp_path / "r")
    parts = json.loads((run.path / "estimate.json").read_text("utf-8"))["memory"]["parts_bytes"]
    dry = Dry(run.settings, run.fitted, CPU).step(16, {"text": max(map(len, texts))})
    assert parts["activations"] == pytest.approx(dry.activations, rel=0.15)


def test_training_does_not_load_the_compiler(digits: dict[str, Any], tmp_path: Path) -> None:
    """It takes longer than a short training."""
    data = {name: np.asarray(column)[:100] for name, column in digits.items()}
    np.savez(tmp_path / "digits.npz", **data)
    where = f"{str(tmp_path / 'digits.npz')!r}, encoder='cnn', epochs=1, out={str(tmp_path / 'r')!r}, quiet=True"
    loaded = "sorted({'torch._dynamo', 'torch._inductor', 'sympy'} & sys.modules.keys())"
    program = f"import sys, zhixing; zhixing.train({where}); print({loaded})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_recipe_and_a_recipe_file_are_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("data: mnist\noutputs: {label: category}\n", "utf-8")
    with pytest.raises(SystemExit) as leave:
        main(["estimate", str(tmp_path / "r.yaml"), "--recipe", "mnist-mlp"])
    assert leave.value.code == 2
