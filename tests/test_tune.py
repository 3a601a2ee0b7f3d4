"""Studies from end to end: what is trained, what survives, what is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from zhixing.commands.tune import tune as command
from zhixing.errors import DataError, MissingExtraError, RecipeError, RunError, UsageError
from zhixing.recipe import load
from zhixing.run import RunFolder
from zhixing.training.checkpoint import latest
from zhixing.training.surroundings import StopRequest
from zhixing.tune import study as studies
from zhixing.tune.journal import Journal, held
from zhixing.tune.page import importances, render
from zhixing.tune.search import Ask, Crew, go_on, tune
from zhixing.tune.study import Study, best_of
from zhixing.tune.trial import Workshop, train_to
from zhixing.verbs.train import train

RECIPE: dict[str, Any] = {
    "inputs": {"a": {"type": "number"}, "b": {"type": "number"}},
    "outputs": {"y": {"type": "category"}},
    "fusion": {"name": "concat", "widths": [8], "dropout": 0.1},
    "training": {"epochs": 4, "batch_size": 32, "threads": 1, "checkpoint_every": 2},
}
SMALL = Ask(trials=6, halving=2, confirm=0)  # rungs at 1, 2 and 4 epochs


def rows(flip_test: bool = False) -> dict[str, Any]:
    """160 points of two kinds; which are for testing, the table says itself."""
    chance = np.random.default_rng(0)
    label = np.arange(160) % 2
    a, b = (chance.normal(size=(160, 2)) + 0.8 * label[:, None]).round(3).T.tolist()
    part = np.repeat(["train", "validation", "test"], [100, 40, 20])
    if flip_test:
        label = np.where(part == "test", 1 - label, label)
    return {"a": a, "b": b, "y": [("no", "yes")[one] for one in label], "part": part.tolist()}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("table") / "rows.jsonl", rows())


def write(path: Path, columns: dict[str, Any]) -> Path:
    lines = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def raw(**training: Any) -> dict[str, Any]:
    split = {"by": "column", "column": "part"}
    return {"data": {"split": split}, **RECIPE, "training": {**RECIPE["training"], **training}}


@pytest.fixture(scope="module")
def done(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study at its end."""
    out = tmp_path_factory.mktemp("done") / "study"
    tune(str(table), raw(), Ask(trials=6, halving=2, confirm=2), out=out, device="cpu")
    return out


def told(path: Path) -> list[Any]:
    """All that a study ends with."""
    study = Study(path)
    return [[one.number, one.state, one.settings, one.rung, one.seen] for one in study.journal.records()]


# What is trained ----------------------------------------------------------------------------------------------------


def test_a_study_has_its_trials_and_trains_no_step_twice(done: Path) -> None:
    study = Study(done)
    records = study.journal.records()
    assert [one.number for one in records] == list(range(6))
    assert {one.state for one in records} == {"complete", "pruned"}
    for one in records:
        steps = [
            line["step"]
            for line in map(json.loads, (study.folder(one.number) / "metrics.jsonl").read_text().splitlines())
            if line["kind"] == "validation"
        ]
        assert steps == sorted(set(steps))
        epochs = one.seen[max(one.seen)]["epoch"]
        assert steps[-1] == epochs * -(-100 // study.recipe_of(one).training.batch_size)
        assert epochs == max(1, round(4 * study.plan.shares[max(one.seen)]))


def test_the_default_recipe_is_the_first_trial(done: Path) -> None:
    assert Study(done).journal.records()[0].settings == {}


def test_a_trial_that_was_cut_is_bit_for_bit_one_that_was_not(done: Path, table: Path, tmp_path: Path) -> None:
    study = Study(done)
    records = study.journal.records()
    cut = next(one for one in records if one.state == "complete" and len(one.seen) == 3)
    alone = train(str(table), load(study.folder(cut.number) / "recipe.yaml"), out=tmp_path / "alone", device="cpu")
    ours, theirs = (latest(RunFolder(path).checkpoints)[0] for path in (study.folder(cut.number), alone.path))
    assert ours is not None
    assert theirs is not None
    assert ours.step == theirs.step
    for group, tensors in theirs.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(ours.tensors[group][name], tensor), (group, name)
    assert (study.folder(cut.number) / "metrics.jsonl").read_bytes() == (alone.path / "metrics.jsonl").read_bytes()


def test_the_best_is_the_best_of_those_trained_whole(done: Path) -> None:
    study = Study(done)
    records = study.journal.records()
    values = {one.number: one.seen[2]["values"][0] for one in records if one.state == "complete"}
    assert values[best_of(study, records)[0].number] == max(values.values())
    assert load(done / "best.yaml") == json.loads(json.dumps(study.recipe_of(best_of(study, records)[0]).plain()))


def test_same_seed_same_study(done: Path, table: Path, tmp_path: Path) -> None:
    tune(str(table), raw(), SMALL, out=tmp_path / "again", device="cpu")
    assert told(tmp_path / "again") == told(done)
    tune(str(table), raw() | {"seed": 1}, SMALL, out=tmp_path / "other", device="cpu")
    assert told(tmp_path / "other") != told(done)


def test_test_rows_have_no_part_in_the_search(done: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "rows.jsonl", rows(flip_test=True))
    found = tune(str(other), raw(), Ask(trials=6, halving=2, confirm=2), out=tmp_path / "study", device="cpu")
    assert told(tmp_path / "study") == told(done)
    before = json.loads((done / "confirm.json").read_text())
    assert found["confirm"]["seeds"] == before["seeds"]
    flipped = [1 - value for value in before["best"]["y.accuracy"]["values"]]
    assert found["confirm"]["best"]["y.accuracy"]["values"] == pytest.approx(flipped)


def test_epochs_are_kept_to(table: Path, tmp_path: Path) -> None:
    found = tune(str(table), raw(), Ask(total_epochs=13, halving=2, confirm=0), out=tmp_path / "s", device="cpu")
    assert 8 <= found["epochs"] <= 13
    with pytest.raises(UsageError, match="less than one training"):
        tune(str(table), raw(), Ask(total_epochs=3), out=tmp_path / "none", device="cpu")
    assert not (tmp_path / "none").exists()


def test_settings_that_cannot_be_trained_fail_alone(table: Path, tmp_path: Path) -> None:
    ask = Ask(trials=4, halving=1, confirm=0, ranges={"training.optimizer.lr": [1e30, 0.01]})
    found = tune(str(table), raw(), ask, out=tmp_path / "s", device="cpu")
    records = Study(tmp_path / "s").journal.records()
    assert found["trials"] == 4
    assert {one.state for one in records} == {"complete", "failed"}
    failed = next(one for one in records if one.state == "failed")
    assert failed.error
    assert failed.error.split(":")[0] in render(Study(tmp_path / "s"))


# What survives ------------------------------------------------------------------------------------------------------

WRITES = ("begin", "promote", "report", "finish", "stop")


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


@pytest.mark.parametrize("after", [False, True])
def test_a_process_may_die_at_any_write_of_the_journal(
    done: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Each process of this study dies at its third write, before or after it, until there is nothing left to do."""
    count = [0]

    def dying(write: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*arguments: Any) -> None:
            count[0] += 1
            if after:
                write(*arguments)
            if count[0] % 3 == 0:
                raise Killed
            if not after:
                write(*arguments)

        return wrapped

    for name in WRITES:
        monkeypatch.setattr(Journal, name, dying(getattr(Journal, name)))
    deaths = 0
    for _ in range(40):
        try:
            if (tmp_path / "s/study.json").is_file():
                go_on(tmp_path / "s", device="cpu")
            else:
                tune(str(table), raw(), SMALL, out=tmp_path / "s", device="cpu")
            break
        except Killed:
            deaths += 1
    assert deaths > 3
    assert told(tmp_path / "s") == told(done)


def test_a_trial_is_taken_up_from_its_checkpoint(done: Path, table: Path, tmp_path: Path) -> None:
    """Stopped by the clock in the middle of trials, again and again, the study comes to the same."""
    study = tmp_path / "s"
    tune(str(table), raw(), SMALL, crew=Crew(seconds=0.3), out=study, device="cpu")
    for _ in range(60):
        if len(told(study)) == 6 and all(one[1] != "running" for one in told(study)):
            break
        go_on(study, crew=Crew(seconds=0.3), device="cpu")
    assert told(study) == told(done)


def test_half_a_line_is_cut_off(done: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(done, tmp_path / "s"))
    with (copy / "journal.log").open("ab") as file:
        file.write(b'{"op_code": 8, "worker_id": "x", "tri')
    assert told(copy) == told(done)
    found = go_on(copy, trials=7, device="cpu")
    assert found["trials"] == 7
    for line in (copy / "journal.log").read_text().splitlines():
        json.loads(line)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "l"
    code = "import os\nfrom pathlib import Path\nfrom zhixing.tune.journal import held\n"
    code += f"with held(Path({str(lock)!r})): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    began = time.monotonic()
    with held(lock):
        assert time.monotonic() - began < 20  # Optuna's own would wait for half a minute


def test_a_claimed_trial_is_left_to_its_owner(done: Path, table: Path, tmp_path: Path) -> None:
    """Beside a process that is at a trial, another takes the next one."""
    from contextlib import ExitStack

    path = tmp_path / "s"
    tune(str(table), raw(), SMALL, crew=Crew(seconds=1e-9), out=path, device="cpu")
    with ExitStack() as one, ExitStack() as other:
        first, second = studies.due(Study(path), one), studies.due(Study(path), other)
        assert isinstance(first, studies.Task)
        assert isinstance(second, studies.Task)
        assert (first.record.number, second.record.number) == (0, 1)
    with ExitStack() as again:  # both have let go
        task = studies.due(Study(path), again)
        assert isinstance(task, studies.Task)
        assert task.record.number == 0


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [None, "ray"])
def test_several_processes_share_a_study(cluster: str | None, table: Path, tmp_path: Path) -> None:
    words = ["tune", str(table), "--workers", "3", "--trials", "9", "--halving", "2", "--confirm", "0", "--json"]
    if cluster is not None:
        pytest.importorskip(cluster, reason=f"needs {cluster}")
        words += ["--cluster", cluster]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(raw()))
    done = subprocess.run(
        [sys.executable, "-m", "zhixing", *words, "--recipe", str(recipe), "--out", str(tmp_path / "s")],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = Study(tmp_path / "s").journal.records()
    assert len(records) == 9
    assert all(one.state in ("complete", "pruned") for one in records)
    for one in records:
        log = (tmp_path / f"s/trials/{one.number:03}/metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in log if '"validation"' in line]
        assert steps == sorted(set(steps))
    workers = {
        json.loads(line)["worker_id"].rsplit("-", 1)[0]
        for line in (tmp_path / "s/journal.log").read_text().splitlines()
    }
    assert len(workers) >= 3


def test_more_trials_may_be_asked_for(done: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(done, tmp_path / "s"))
    assert go_on(copy, trials=8, device="cpu")["trials"] == 8
    assert told(copy)[:6] == told(done) or told(copy)[0][2] == {}
    with pytest.raises(UsageError, match="fewer"):
        go_on(copy, trials=3, device="cpu")


def test_other_data_are_refused(done: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "rows.jsonl", rows(flip_test=True))
    with pytest.raises(RunError, match="data are not"):
        go_on(done, source=str(other), device="cpu")


# What is searched for -----------------------------------------------------------------------------------------------


def test_several_objectives(table: Path, tmp_path: Path) -> None:
    ask = Ask(trials=6, halving=2, confirm=0, objectives=["accuracy", "parameters", "latency"])
    found = tune(str(table), raw(), ask, out=tmp_path / "s", device="cpu")
    study = Study(tmp_path / "s")
    assert [one.higher for one in study.plan.objectives] == [True, False, False]
    for one in study.journal.records():
        for seen in one.seen.values():
            assert seen["values"][1] > 10
            assert seen["values"][2] > 0
    assert found["best"]["values"].keys() == {"y.accuracy", "parameters", "latency"}
    assert "Front" in render(study)


@pytest.mark.parametrize(
    ("asked", "label", "higher"),
    [("", "y.accuracy", True), ("log_loss", "y.log_loss", False), ("y.macro_f1", "y.macro_f1", True),
     ("loss", "loss", False), ("ece:max", "y.ece", True)],
)  # fmt: skip
def test_the_better_side_of_a_metric_is_known(
    table: Path, tmp_path: Path, asked: str, label: str, higher: bool
) -> None:
    ask = Ask(trials=1, confirm=0, objectives=[asked] if asked else [])
    tune(str(table), raw(), ask, crew=Crew(seconds=1e-9), out=tmp_path / "s", device="cpu")
    (objective,) = Study(tmp_path / "s").plan.objectives
    assert (objective.label, objective.higher) == (label, higher)


def test_an_earlier_study_is_a_start(done: Path, table: Path, tmp_path: Path) -> None:
    tune(str(table), raw(), Ask(trials=3, halving=1, confirm=0, warm=[done]), out=tmp_path / "s", device="cpu")
    earlier = Study(done)
    best = [one.settings for one in best_of(earlier, earlier.journal.records()) if one.settings]
    assert [one.settings for one in Study(tmp_path / "s").journal.records()[1:]] == best[:2]


def test_ranges_that_are_given_are_the_space(table: Path, tmp_path: Path) -> None:
    given = raw() | {"tune": {"training.clip": "0.1:1"}}
    tune(str(table), given, Ask(trials=3, halving=1, confirm=0), out=tmp_path / "s", device="cpu")
    settings = [one.settings for one in Study(tmp_path / "s").journal.records()]
    assert [set(one) for one in settings] == [set(), {"training.clip"}, {"training.clip"}]
    assert all(0.1 <= value <= 1 for one in settings for value in one.values())
    more = Ask(trials=2, halving=1, confirm=0, defaults=True)
    tune(str(table), given, more, out=tmp_path / "t", device="cpu")
    assert {"training.clip", "training.optimizer.lr"} <= Study(tmp_path / "t").journal.records()[1].settings.keys()


# What is told -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"objectives": ["acuracy"]}, UsageError, "Did you mean 'accuracy'"),
        ({"objectives": ["accuracy:up"]}, UsageError, "NAME:max"),
        ({"objectives": ["accuracy", "y.accuracy"]}, UsageError, "twice"),
        ({"ranges": {"training.lr": "0:1"}}, RecipeError, "no such setting"),
        ({"total_epochs": 90.0}, UsageError, "one of them"),
        ({"warm": [Path("nowhere")]}, RunError, "not a study"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_written(
    table: Path, tmp_path: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        tune(str(table), raw(), Ask(**{"trials": 2, **change}), out=tmp_path / "s", device="cpu")
    assert not (tmp_path / "s").exists()


def test_rows_to_compare_on_are_needed(tmp_path: Path) -> None:
    columns = {name: values[:100] for name, values in rows().items() if name != "part"}
    recipe = {**RECIPE, "data": {"split": {"train": 0.9, "validation": 0.0, "test": 0.1}}}
    with pytest.raises(DataError, match="no validation rows"):
        tune(columns, recipe, Ask(trials=2), out=tmp_path / "s", device="cpu")


def test_data_in_memory_have_one_worker(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="in memory"):
        tune(rows(), raw(), Ask(trials=2), crew=Crew(workers=2), out=tmp_path / "s", device="cpu")


def test_a_folder_that_is_in_use_is_left_alone(done: Path, table: Path) -> None:
    with pytest.raises(UsageError, match="--resume"):
        tune(str(table), raw(), SMALL, out=done, device="cpu")


def test_what_is_no_study_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a study"):
        go_on(tmp_path, device="cpu")
    (tmp_path / "study.json").write_text('{"format": 1}')
    with pytest.raises(RunError, match="cannot be read"):
        go_on(tmp_path, device="cpu")


def test_without_ray_its_extra_is_named(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"zhixing\[cluster\]"):
        tune(str(table), raw(), SMALL, crew=Crew(cluster="ray"), out=tmp_path / "s", device="cpu")
    assert not (tmp_path / "s").exists()


class Page(HTMLParser):
    """The page's elements and the addresses that it asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]


def test_the_page_stands_alone(done: Path) -> None:
    text = (done / "report.html").read_text("utf-8")
    page = Page(text)
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert all(link.startswith("#") for link in page.links)
    assert "svg" in page.tags
    for word in ("History", "PED-ANOVA", "Confirmation", "fresh seeds", "fusion.dropout", "best.yaml"):
        assert word in text
    assert text == str(render(Study(done)))  # of the study's files alone


def test_names_cannot_be_markup(tmp_path: Path) -> None:
    columns = {"<b>x": np.random.default_rng(0).normal(size=60).tolist(), "<script>": ["a", "b"] * 30}
    recipe = {"outputs": {"<script>": {"type": "category"}}, "training": {"epochs": 1, "threads": 1}}
    tune(columns, recipe, Ask(trials=3, confirm=1), out=tmp_path / "s", device="cpu")
    assert not Page((tmp_path / "s/report.html").read_text("utf-8")).tags & {"script", "b"} - {"b"}


def test_a_setting_that_decides_all_is_found(tmp_path: Path) -> None:
    """Of results that are a function of one setting, that setting has nearly all the weight."""
    columns = {name: values for name, values in rows().items() if name != "part"}
    tune(columns, RECIPE, Ask(trials=1, confirm=0), crew=Crew(seconds=1e-9), out=tmp_path / "s", device="cpu")
    study = Study(tmp_path / "s")
    chance = np.random.default_rng(0)
    from optuna.distributions import FloatDistribution

    wide = FloatDistribution(0.0, 1.0)
    for _ in range(40):
        a, b = chance.uniform(size=2).tolist()
        study.journal.begin({}, 0, {"a": a, "b": b}, {"a": wide, "b": wide})
        record = study.journal.records()[-1]
        study.journal.report(record, 0, {"values": [-((a - 0.5) ** 2)], "loss": 0.0, "epoch": 1})
    found = importances(study, study.journal.records())
    assert list(found) == ["a", "b"]
    assert found["a"] > 0.8


def test_a_trial_that_is_asked_to_stop_has_no_figures(done: Path, table: Path, tmp_path: Path) -> None:
    from zhixing.data.source import open_source

    copy = Path(shutil.copytree(done, tmp_path / "s"))
    study, stop = Study(copy), StopRequest()
    stop.signum = 15
    folder = study.folder(0)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    shop = Workshop(open_source(str(table)), torch.device("cpu"), split_seed=0)
    assert train_to(shop, folder, 1.0, stop=stop, costs=[]).figures is None


# The command --------------------------------------------------------------------------------------------------------


def invoke(*words: str) -> Any:
    return CliRunner().invoke(command, list(words))


def test_the_command_ends_with_json(table: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(raw()))
    words = [
        "--recipe",
        str(recipe),
        "--out",
        str(tmp_path / "s"),
        "--trials",
        "3",
        "--confirm",
        "1",
        "--device",
        "cpu",
    ]
    search = ["--search", "training.optimizer.lr=log:1e-3:1e-1", "--search", "training.batch_size=[16, 32]"]
    done = invoke(str(table), *words, *search, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output.splitlines()[-1])
    assert found["trials"] == 3
    assert found["best"]["settings"].keys() <= {"training.optimizer.lr", "training.batch_size"}
    assert found["confirm"]["default"]["y.accuracy"]["values"]
    shown = invoke("--resume", str(tmp_path / "s"))
    assert shown.exit_code == 0, shown.output
    assert "flattered" in shown.output
    assert "test rows, best: y.accuracy" in shown.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--resume", "s", "--lr", "0.1"], "the study's own settings"),
        (["--time", "soon"], "is not a time"),
        (["d.csv", "--search", "lr"], "name.of.setting=range"),
        (["d.csv", "--trials", "0"], "trials"),
        (["d.csv", "--cluster", "slurm"], "ray"),
    ],
)
def test_wrong_words_are_refused(words: list[str], told: str) -> None:
    done = invoke(*words)
    assert done.exit_code == 2
    assert re.search(told, done.output)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("1.5m", 90.0), ("2h", 7200.0)])
def test_times_are_read(text: str, seconds: float) -> None:
    from zhixing.commands.tune import seconds_of

    assert seconds_of(None, None, text) == seconds  # type: ignore[arg-type]


def test_help_is_light() -> None:
    code = "from zhixing.cli import main\ntry: main(['tune', '--help'])\nexcept SystemExit: pass\n"
    code += "import sys; assert not {'torch', 'numpy', 'optuna', 'pydantic'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--objective" in done.stdout
