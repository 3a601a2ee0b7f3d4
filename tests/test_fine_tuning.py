"""Fine-tuning: what learns, what it costs, what is kept; and that all of it is resumed to the same bits."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import same_bits
from published_reader import reader
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import zhixing as zx
from zhixing.cli import main
from zhixing.errors import RecipeError, RunError, UsageError
from zhixing.layers.lora import LoRALinear, adapt, merge
from zhixing.layers.transformer import Transformer, TransformerSettings
from zhixing.models import ENCODERS
from zhixing.models.encoding import Spec
from zhixing.pretrained import open_adapter
from zhixing.recipe import load as load_recipe
from zhixing.training.optimizers import OPTIMIZERS
from zhixing.training.tuning import Frozen, Full, Gradual, LoRA, Tuned, layers_of
from zhixing.verbs.predict import predict
from zhixing.verbs.train import Stopped, resume, train

CPU = torch.device("cpu")
TRAINING = {"epochs": 2, "batch_size": 8, "threads": 1, "precision": "fp32", "log_every": 1}
EVERYWHERE = {"name": "lora", "targets": "all", "rank": 2, "dropout": 0.2}
METHODS: dict[str, Any] = {
    "frozen": "frozen",
    "gradual": {"name": "gradual", "by": 0.7, "decay": 0.8},
    "lora": {"name": "lora", "rank": 2},
    "lora everywhere": EVERYWHERE,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small published BERT that drops units in training."""
    folder = reader(tmp_path_factory.mktemp("base") / "reader")
    config = json.loads((folder / "config.json").read_text("utf-8")) | {"hidden_dropout_prob": 0.1}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "films.jsonl"
    rows = [
        {
            "text": f"a {'very ' * (n % 3)}{label} film so the {label}",
            "label": label,
            "length": "long" if n % 3 else "short",
        }
        for n in range(30)
        for label in ("good", "bad")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def recipe(base: Path, method: Any, target: str = "label", **training: Any) -> dict[str, Any]:
    chosen = {**TRAINING, **training} | ({} if method is None else {"fine_tuning": method})
    return {
        "data": {"others": "unused"},
        "inputs": {"text": {"encoder": str(base)}},
        "outputs": {target: "category"},
        "training": chosen,
        "seed": 4,
    }


@pytest.fixture(scope="module")
def runs(base: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Runs by their method, each made once."""
    made: dict[str, Path] = {}

    def run(method: Any, target: str = "label", **training: Any) -> Path:
        key = json.dumps([method, target, training])
        if key not in made:
            out = tmp_path_factory.mktemp("run") / "run"
            made[key] = train(films, recipe(base, method, target, **training), out=out, device="cpu").path
        return made[key]

    return run


def content(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


# Thin matrices ------------------------------------------------------------------------------------------------------


def stack() -> Transformer:
    torch.manual_seed(1)
    return Transformer(16, 2, TransformerSettings(heads=2, dropout=0.0))


def test_lora_is_its_equation_starts_as_the_base_and_merges() -> None:
    net, x = stack().eval(), torch.randn(3, 5, 16)
    before, weights = net(x), {name: t.clone() for name, t in net.state_dict().items()}
    names = [name for name, module in net.named_modules() if type(module) is nn.Linear]
    adapt(net, names, rank=3, alpha=6.0)
    assert torch.equal(net(x), before)
    for name, one in net.named_modules():
        if isinstance(one, LoRALinear):
            nn.init.normal_(one.lora_b, std=0.2)
            z = torch.randn(4, one.in_features)
            expected = z @ one.weight.T + one.bias + 2.0 * (z @ one.lora_a.T) @ one.lora_b.T
            torch.testing.assert_close(one(z), expected, msg=name)
    changed = net(x)
    assert float((changed - before).detach().abs().max()) > 0.1
    changed.sum().backward()
    assert {name for name, p in net.named_parameters() if p.grad is not None and "branch" in name} == {
        f"{name}.{part}" for name in names for part in ("lora_a", "lora_b")
    }
    # What the base was is still there; merged, the names are those of before.
    assert all(torch.equal(net.state_dict()[name], t) for name, t in weights.items())
    assert merge(net) == len(names)
    assert net.state_dict().keys() == weights.keys()
    assert float((net(x) - changed).detach().abs().max()) < 1e-4


@pytest.mark.parametrize("name", ["conformer", "transformer", "vit"])
def test_targets_are_found_by_name_in_blocks(name: str) -> None:
    specs = {"vit": Spec("image", (1, 8, 8)), "conformer": Spec("audio", (40, 8))}
    settings: dict[str, Any] = {"patch": 4} if name == "vit" else {}

    def paths(**asked: Any) -> list[str]:
        net = ENCODERS[name](specs.get(name, Spec("sequence", (6, 4))), width=8, depth=2, heads=2, **settings)
        Tuned(nn.Sequential(net), {"0": True}, LoRA(**asked))
        return [path for path, module in net.named_modules() if isinstance(module, LoRALinear)]

    assert len(paths()) == 4
    assert {path.rpartition(".")[2] for path in paths()} == {"query", "value"}
    everywhere = paths(targets="all")
    assert {"query", "key", "value", "out"} <= {path.rpartition(".")[2] for path in everywhere}
    assert all("blocks" in path for path in everywhere)
    with pytest.raises(UsageError, match=r"no linear layers called quary. Did you mean 'query'"):
        paths(targets=("quary",))


def test_a_base_without_linear_layers_is_told_of() -> None:
    net = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    with pytest.raises(UsageError, match="Take full, gradual or frozen"):
        Tuned(net, {"0": True}, LoRA(targets="all"))


# Layers, rates, opening ---------------------------------------------------------------------------------------------

SPECS = {"image": Spec("image", (1, 32, 32)), "tokens": Spec("tokens", (8,), 20), "vector": Spec("vector", (4,)),
         "sequence": Spec("sequence", (20, 6)), "audio": Spec("audio", (40, 8)), "ids": Spec("ids", (), 9)}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(ENCODERS) - {"vgg11", "vgg13", "vgg16", "vgg19", "alexnet"}))
def test_each_parameter_of_each_encoder_is_in_one_layer(name: str) -> None:
    spec = next((SPECS[kind] for kind in SPECS if kind in ENCODERS[name].accepts), None)
    if spec is None:
        spec = Spec("history", (6,), 12)
    with torch.device("meta"):
        net = ENCODERS[name](spec)
    layers = layers_of(net)
    placed = [id(p) for layer in layers for p in layer.parameters]
    assert len(placed) == len(set(placed))
    assert set(placed) == {id(p) for p in net.parameters()}


def test_layers_of_a_transformer_are_what_enters_and_its_blocks() -> None:
    net = ENCODERS["transformer"](SPECS["tokens"], width=8, depth=3, heads=2, pooling="cls", positions="learned")
    first, *blocks = layers_of(net)
    named = {id(p): name for name, p in net.named_parameters()}
    assert {named[id(p)] for p in first.parameters} == {
        "cls",
        "steps.embedding.weight",
        "blocks.positions.table.weight",
    }
    for number, layer in enumerate(blocks):
        names = {named[id(p)] for p in layer.parameters}
        own = {name for name in names if name.startswith(f"blocks.blocks.{number}.")}
        assert own
        assert all(name.startswith("blocks.norm.") for name in names - own)
    assert len(blocks) == 3


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_lower_layers_learn_more_slowly(name: str) -> None:
    net = nn.ModuleDict({"base": nn.Sequential(*(nn.Linear(3, 3) for _ in range(3))), "head": nn.Linear(3, 1)})
    tuned = Tuned(net, {"base": True}, Full(decay=0.5))
    optimizers = OPTIMIZERS[name](net, lr=0.1, weight_decay=0.01)
    plain = {
        id(p): g
        for one in OPTIMIZERS[name](net, lr=0.1, weight_decay=0.01)
        for g in one.param_groups
        for p in g["params"]
    }
    tuned.spread(optimizers)
    seen = 0
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        for parameter in group["params"]:
            usual = plain[id(parameter)]
            path = next(path for path, p in net.named_parameters() if p is parameter)
            factor = {"base.0": 0.125, "base.1": 0.25, "base.2": 0.5}.get(path.rpartition(".")[0], 1.0)
            assert group["lr"] == pytest.approx(usual["lr"] * factor)
            assert group["weight_decay"] == usual["weight_decay"]
            seen += 1
    assert seen == 8
    assert optimizers[-1].param_groups[0]["lr"] == max(group["lr"] for group in optimizers[-1].param_groups)


def test_layers_open_from_the_top_and_closed_ones_work_as_in_use() -> None:
    blocks = [nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)) for _ in range(3)]
    base = nn.ModuleList([nn.ModuleDict({"x": block}) for block in blocks])
    head = nn.Linear(3, 1)
    net = nn.ModuleDict({"base": base, "head": head})

    def state(tuned: Tuned, step: int) -> list[bool]:
        net.train()
        tuned.before_step(step, 12, 4.0)
        for block in blocks:
            learns = [p.requires_grad for p in block.parameters()]
            assert len(set(learns)) == 1
            assert all(module.training == learns[0] for module in block)
        assert head.training
        assert head.weight.requires_grad
        return [next(block.parameters()).requires_grad for block in blocks]

    tuned = Tuned(net, {"base": True}, Gradual(by=0.5))
    assert len(tuned.layers[0]) >= 3
    seen = [sum(state(tuned, step)) for step in range(12)]
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert seen[6:] == [3] * 6
    assert state(Tuned(net, {"base": True}, Gradual(epochs=1.0)), 4) in ([False, False, True], [False] * 3)
    tuned.before_step(11, 12, 4.0)
    assert state(Tuned(net, {"base": True}, Frozen()), 11) == [False] * 3


def test_what_somebody_has_frozen_stays_so() -> None:
    low = nn.Linear(2, 2)
    net = nn.Sequential(nn.Sequential(low, nn.Linear(2, 2)), nn.Linear(2, 1))
    low.weight.requires_grad_(False)
    tuned = Tuned(net, {"0": False}, Gradual(by=0.5))
    for step in range(4):
        tuned.before_step(step, 4, 1.0)
        assert not low.weight.requires_grad
    assert low.bias.requires_grad
    assert tuned.constant == frozenset()


# Whole runs ---------------------------------------------------------------------------------------------------------


def test_full_is_what_there_was_before(runs: Callable[..., Path]) -> None:
    assert same_bits(load_file(runs(None) / "model.safetensors"), load_file(runs("full") / "model.safetensors"))


def published(base: Path) -> dict[str, Tensor]:
    return {name.removeprefix("bert."): tensor for name, tensor in load_file(base / "model.safetensors").items()}


@pytest.mark.parametrize("name", METHODS)
def test_a_run_is_whole_and_its_base_untouched(
    name: str, base: Path, runs: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(base)
    path = runs(METHODS[name])
    assert content(base) == before
    found, was = load_file(path / "model.safetensors"), published(base)
    assert not any("lora" in key for key in found)
    query = found["encoders.0.blocks.blocks.0.attention.branch.query.weight"]
    up = found["encoders.0.blocks.blocks.0.feed_forward.branch.up.weight"]
    moved = [
        not torch.equal(query, was["encoder.layer.0.attention.self.query.weight"]),
        not torch.equal(up, was["encoder.layer.0.intermediate.dense.weight"]),
    ]
    assert moved == [name != "frozen", name in ("gradual", "lora everywhere")]
    told = json.loads((path / "environment.json").read_text("utf-8"))["fine_tuning"]
    assert (told["learns"] == told["of"]) == (name == "gradual")
    assert told["share"] == told["learns"] / told["of"]
    for part in ("gradients", "optimizer"):
        ratio = told["bytes"][part]["now"] / told["bytes"][part]["all_learns"]
        assert ratio == pytest.approx(told["share"], rel=0.02)
    assert (path / "adapter.safetensors").is_file() == (name != "gradual")
    answers = zx.load(path, device="cpu").predict(["a good film", "so bad"], probabilities=True)
    assert len(answers) == 2


@pytest.mark.parametrize("name", ["frozen", "gradual", "lora everywhere"])
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(
    name: str, base: Path, films: Path, runs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zhixing.verbs.assemble as assemble

    settings: dict[str, Any] = {"average": 0.9, "checkpoint_every": 2, "keep": "best"}
    alone, out = runs(METHODS[name], **settings), tmp_path / "run"
    asked = [0]

    def stop_after_seven(session: Any, stop: Any) -> Any:
        def look() -> bool:
            asked[0] += 1
            stop.signum = 15 if asked[0] == 7 else 0
            return bool(stop.signum)

        return look

    usual = assemble.make_hooks

    def hooks(session: Any, model: Any, batches: Any, precision: Any, options: Any, stop: Any) -> Any:
        made = usual(session, model, batches, precision, options, stop)
        made.stop = stop_after_seven(session, stop)
        return made

    monkeypatch.setattr(assemble, "make_hooks", hooks)
    with pytest.raises(Stopped):
        train(films, recipe(base, METHODS[name], **settings), out=out, device="cpu")
    asked[0] = 100
    checkpoint = sorted((out / "checkpoints").iterdir())[-1]
    assert checkpoint.name == "step-00000007"
    kept, state = load_file(checkpoint / "model.safetensors"), load_file(checkpoint / "optimizer.safetensors")
    base_kept = [key for key in kept if key.startswith("encoders.") and "lora" not in key]
    if name == "gradual":
        assert base_kept
    else:  # what the base's own files hold is in no checkpoint; the optimizer knows nothing of it
        assert base_kept == []
        learned = [key for key in kept if not key.startswith("stems.")]
        assert len(state) == 3 * len(learned)
    resume(out, device="cpu")
    for file in ("model.safetensors", "metrics.jsonl", "evaluation.json"):
        assert (out / file).read_bytes() == (alone / file).read_bytes(), file
    if name != "gradual":
        mine, theirs = (load_file(path / "adapter.safetensors") for path in (out, alone))
        assert same_bits(mine, theirs)


# Adapters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frozen", "lora", "lora everywhere"])
def test_an_adapter_and_its_base_are_the_merged_run(
    name: str, base: Path, runs: Callable[..., Path], tmp_path: Path
) -> None:
    run = runs(METHODS[name])
    alone = tmp_path / "moved.safetensors"
    shutil.copy(run / "adapter.safetensors", alone)
    assert all("lora" in key or not key.startswith("encoders.") for key in load_file(alone))
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(base, elsewhere)
    adapted = open_adapter(alone, elsewhere)
    merged = zx.load(run, device="cpu")
    batch = batch_of(merged.fitted, ["a good film", "so very bad", "the film"])
    with torch.inference_mode():
        ours, theirs = adapted.model(batch)["label"], merged.model(batch)["label"]
    assert float((ours - theirs).abs().max()) < 1e-4
    answers = predict(adapted.recipe, adapted.columns, adapted.model, ["a good film", "so bad"], device=CPU)
    assert answers["label"].to_pylist() == merged.predict(["a good film", "so bad"])["label"].to_pylist()


def batch_of(columns: Any, texts: list[str]) -> Any:
    import pyarrow as pa

    from zhixing.data.batches import Batch, ColumnBatch

    done = columns["text"].tensorize(pa.array(texts), Path)
    rows = [part.long() for part in torch.split(torch.from_numpy(done.values), done.lengths.tolist())]
    values = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Batch({"text": ColumnBatch(values, values > 0)}, torch.arange(len(texts)))


def test_several_adapters_share_one_base(base: Path, runs: Callable[..., Path]) -> None:
    lora = METHODS["lora"]
    first = open_adapter(runs(lora), base)
    second = open_adapter(runs(lora, "length"), beside=first)
    alone = open_adapter(runs(lora, "length"), base)
    batch = batch_of(alone.columns, ["a good film", "so very very bad"])
    with torch.inference_mode():
        assert torch.equal(second.model(batch)["length"], alone.model(batch)["length"])
    assert first.model.outputs == ["label"]
    mine = {p.data_ptr() for p in first.model.encoders.parameters()}
    shared = [p for p in second.model.encoders.parameters() if p.data_ptr() in mine]
    assert len(shared) == sum("lora" not in name for name, _ in second.model.encoders.named_parameters())
    own = sum(p.nbytes for p in second.model.parameters() if p.data_ptr() not in mine)
    assert own < 0.2 * sum(p.nbytes for p in second.model.parameters())


def test_an_adapter_is_refused_on_another_base(base: Path, runs: Callable[..., Path], tmp_path: Path) -> None:
    path = runs(METHODS["lora"]) / "adapter.safetensors"
    other = tmp_path / "other"
    shutil.copytree(base, other)
    weights = load_file(other / "model.safetensors")
    weights["bert.encoder.layer.0.output.dense.bias"][0] += 1e-3
    save_file(weights, other / "model.safetensors")
    with pytest.raises(RunError, match="is not what this adapter was trained on"):
        open_adapter(path, other)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RunError, match="cannot be read"):
        open_adapter(cut, base)
    with pytest.raises(RunError, match="no adapter"):
        open_adapter(other / "model.safetensors", base)
    with pytest.raises(RunError, match="cannot be read"):
        open_adapter(tmp_path / "nothing.safetensors")


# What is asked wrongly ----------------------------------------------------------------------------------------------


def test_without_a_base_there_is_nothing_to_tune(films: Path, tmp_path: Path) -> None:
    raw = {**recipe(Path("x"), "lora"), "inputs": {"text": {"type": "text", "encoder": "transformer", "length": 8}}}
    with pytest.raises(RecipeError, match="nothing here was trained before"):
        train(films, raw, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_the_command_takes_it_as_a_setting(
    base: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(films), "--target", "label", "--device", "cpu", "--epochs", "1"]
    command += ["--set", f"inputs.text.encoder={base}", "data.unused=[length]", "training.threads=1"]
    main([*command, "training.fine_tuning=lora", "--out", str(tmp_path / "run")])
    told = capsys.readouterr()
    assert "parameters learn (" in told.out + told.err
    plain = load_recipe(tmp_path / "run" / "recipe.yaml")["training"]
    assert plain["fine_tuning"] == {
        "name": "lora",
        "rank": 8,
        "alpha": 16.0,
        "targets": ["query", "value"],
        "dropout": 0.0,
    }
    assert plain["optimizer"]["lr"] == LoRA.rate
    with pytest.raises(SystemExit) as ended:
        main([*command, "training.fine_tuning.name=lora", "training.fine_tuning.rank=0",
              "training.fine_tuning.targts=all", "--out", str(tmp_path / "other")])  # fmt: skip
    assert ended.value.code == 2
    wrong = capsys.readouterr().err
    assert "training.fine_tuning.rank" in wrong
    assert "Did you mean 'targets'" in wrong
