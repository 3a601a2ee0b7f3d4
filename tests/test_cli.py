"""The command line: one clear message and the right exit status, results on standard output alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image as Pillow

from zhixing.cli import COMMANDS, main

ZHIXING = [sys.executable, "-m", "zhixing"]


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def last(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


Zhixing = Callable[..., Done]


@pytest.fixture
def zhixing(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zhixing:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        status = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as leave:
            status = leave.code if isinstance(leave.code, int) else 0 if leave.code is None else 1
        found = capsys.readouterr()
        assert "Traceback" not in found.err
        return Done(status, found.out, found.err)

    return call


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "people.csv"
    rng = np.random.default_rng(0)
    lines = [f"{20 + 30 * (i % 2) + rng.integers(9)},{'ab'[i % 2]},{('no', 'yes')[i % 2]}" for i in range(80)]
    path.write_text("\n".join(["age,店 铺,label", *lines]) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def run(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "people"
    main(["train", str(csv), "--epochs", "8", "--lr", "0.02", "--batch-size", "16", "--out", str(out), "--json"])
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(40):
        name = ("dark", "bright")[i % 2]
        (folder / name).mkdir(exist_ok=True)
        Pillow.new("L", (6, 6), 20 + 200 * (i % 2) + i % 7).save(folder / name / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def seeing(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "photos"
    main(["train", str(pictures), "--encoder", "mlp", "--epochs", "15", "--batch-size", "8", "--out", str(out),
          "--json", "--set", "inputs.image.encoder.widths=[8]", "training.optimizer.lr=0.02"])  # fmt: skip
    return out


# Training, evaluating ------------------------------------------------------------------------------------------------


def test_train_prints_figures_and_puts_the_rest_on_standard_error(zhixing: Zhixing, csv: Path) -> None:
    done = zhixing("train", csv, "--epochs", 2, "--out", "one", "--set", "seed=4", "inputs.age.scale=log")
    assert done.status == 0
    assert all(line.startswith("label.") for line in done.out.splitlines())
    assert "label: category (predicted)" in done.err
    assert "one/report.html" in done.err
    recipe = Path("one/recipe.yaml").read_text("utf-8")
    assert "seed: 4" in recipe
    assert "scale: log" in recipe
    assert "店 铺" in recipe


def test_train_with_json_prints_one_object(zhixing: Zhixing, csv: Path) -> None:
    done = zhixing("train", csv, "--epochs", 1, "--json")
    assert len(done.out.splitlines()) == 1
    assert done.last["run"] == "runs/people-1"
    assert 0 <= done.last["metrics"]["label"]["accuracy"] <= 1
    assert zhixing("train", csv, "--epochs", 1, "--json").last["run"] == "runs/people-2"
    again = zhixing("train", "--resume", "runs/people-1", "--json")  # finished: it says so, and what was measured
    assert again.status == 0
    assert again.last == done.last
    assert "nothing to resume" in zhixing("train", "--resume", "runs/people-1").err


def test_evaluate(zhixing: Zhixing, run: Path, csv: Path) -> None:
    own = zhixing("evaluate", run, "--json")
    assert own.last["label"]["accuracy"] == 1.0
    written = json.loads((run / "evaluation.json").read_text("utf-8"))
    assert own.last == {"label": written["outputs"]["label"]["metrics"]}
    for arguments, rows in ((("--split", "train"), 64), ((csv,), 80), ((csv, "--split", "validation"), 8)):
        done = zhixing("evaluate", run, *arguments)
        assert f"{rows} rows" in done.err
        assert "label.accuracy" in done.out
    wrong = zhixing("evaluate", run, "--split", "tset")
    assert (wrong.status, wrong.out) == (2, "")
    assert "'tset' is not a split. Known: train, validation, test, all." in wrong.err


def test_evaluate_warns_of_data_that_changed(zhixing: Zhixing, csv: Path) -> None:
    text = csv.read_text("utf-8")
    mine = Path("mine.csv")
    mine.write_text(text, "utf-8")
    assert zhixing("train", mine, "--epochs", 1, "--json", "--out", "r").status == 0
    assert zhixing("evaluate", "r", "--json").err == ""
    first, *lines = text.splitlines()
    mine.write_text("\n".join([first, *lines[::-1]]) + "\n", "utf-8")
    done = zhixing("evaluate", "r", "--json")
    assert "the data have changed since training" in done.err
    assert zhixing("evaluate", "r", "mine.csv", "--json").err == ""  # all rows of a source of its own


def test_evaluate_warns_of_broken_rows(zhixing: Zhixing, run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("age,店 铺,label\n20,a,no\nold,a,no\n50,b,yes\n1,2\n50,b,maybe\n", "utf-8")
    done = zhixing("evaluate", run, "new.csv", "--json")
    assert done.last["label"]["accuracy"] == 1.0
    assert "warning: 3 rows cannot be used" in done.err


# Predicting ----------------------------------------------------------------------------------------------------------


def stdin(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_predict_from_standard_input(zhixing: Zhixing, run: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    rows = [{"age": 25, "店 铺": "a"}, {"age": 52, "店 铺": "b"}, {"age": "x", "店 铺": "b"}]
    content = {
        "csv": "age,店 铺\n25,a\n52,b\nx,b\n",
        "jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "json": json.dumps(rows),
    }[form]
    stdin(monkeypatch, content)
    done = zhixing("predict", run, "-", "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert lines[-1] == {"rows": 3, "broken": 1, "out": None}
    assert [line["label"] for line in lines[:-1]] == ["no", "yes", None]
    assert "standard input" in done.err
    assert "not a number" in done.err
    assert "/tmp" not in done.err


def test_a_row_of_standard_input_that_is_none_is_told_by_its_line(
    zhixing: Zhixing, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, "age,店 铺\n25,a\n1\n52,b\n")
    done = zhixing("predict", run, "--format", "csv")
    assert done.status == 0
    assert [line.split(",")[2] for line in done.out.splitlines()[1:]] == ['"no"', '"yes"']
    assert "standard input, line 3" in done.err
    assert "1 rows could not be read as rows at all" in done.err
    stdin(monkeypatch, "")
    empty = zhixing("predict", run)
    assert empty.status == 3
    assert "standard input" in empty.err


def test_predict_lacking_a_column(zhixing: Zhixing, run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("age,shop\n20,a\n", "utf-8")
    done = zhixing("predict", run, "new.csv")
    assert (done.status, done.out) == (3, "")
    assert done.err == "error: new: the model reads '店 铺', which this table lacks. It has: age, shop.\n"


def test_predict_pictures_with_a_broken_one_among_them(zhixing: Zhixing, seeing: Path, pictures: Path) -> None:
    bad = Path("bad.png")
    bad.write_bytes(b"no picture")
    files = [pictures / "dark" / "00.png", bad, pictures / "bright" / "01.png", pictures / "dark" / "02.png"]
    done = zhixing("predict", seeing, *files, "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["label"] for line in lines[:-1]] == ["dark", None, "bright", "dark"]
    assert [line["image"] for line in lines[:-1]] == [str(file) for file in files]
    assert lines[1]["label_probability"] is None
    assert lines[-1]["broken"] == 1
    assert "bad.png" in done.err
    one = zhixing("predict", seeing, bad)
    assert one.status == 3
    assert json.loads(one.out)["label"] is None
    assert one.err.endswith("error: no row can be read. The reasons are above.\n")
    folder = zhixing("predict", seeing, pictures, "--json")
    assert folder.last["rows"] == 40
    mixed = zhixing("predict", seeing, files[0], "people.csv")
    assert mixed.status == 2
    assert "'people.csv' is no picture or sound" in mixed.err


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_predict_to_a_file(zhixing: Zhixing, run: Path, csv: Path, suffix: str) -> None:
    from zhixing.data.source import open_source

    done = zhixing("predict", run, csv, "--out", f"answers.{suffix}", "--probabilities", "--json")
    assert done.last == {"rows": 80, "broken": 0, "out": f"answers.{suffix}"}
    table = open_source(f"answers.{suffix}")
    assert table.columns == [
        "age", "店 铺", "label_given", "label", "label_probability", "label_probability_no", "label_probability_yes",
    ]  # fmt: skip
    assert table["label"].to_pylist() == table["label_given"].to_pylist()
    assert not list(Path().glob(".*part"))


def test_answers_are_not_written_where_they_cannot_be(zhixing: Zhixing, run: Path, csv: Path) -> None:
    assert "Use .csv, .parquet" in zhixing("predict", run, csv, "--out", "answers.xls").err
    done = zhixing("predict", run, csv, "--out", "nowhere/answers.csv")
    assert done.status == 2
    assert "there is no such folder" in done.err
    assert zhixing("predict", run, csv, "--json", "--format", "table").status == 2


def test_a_table_for_people_takes_names_as_they_are(zhixing: Zhixing, run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("age,店 铺,[/b] x\n20,a,[red]\n" + "50,b,c\n" * 60, "utf-8")
    done = zhixing("predict", run, "new.csv", "--format", "table")
    assert "[/b] x" in done.out
    assert "[red]" in done.out
    assert "and 11 more rows" in done.out


# Other commands ------------------------------------------------------------------------------------------------------


def test_describe_init_schema_report(zhixing: Zhixing, run: Path, csv: Path) -> None:
    data = zhixing("describe", csv, "--json")
    assert data.last["data"]["rows"] == 80
    assert zhixing("describe", run, "--json").last["finished"] is True
    assert "店 铺" in zhixing("describe", csv).out
    done = zhixing("init", csv, "--out", "r.yaml", "--epochs", 1)
    assert (done.status, done.out) == (0, "")
    assert "zhixing train --recipe r.yaml" in done.err
    assert "exists" in zhixing("init", csv, "--out", "r.yaml").err
    assert zhixing("init", csv).out.startswith("# A recipe")
    assert zhixing("init", csv, "--json").last["recipe"].startswith("# A recipe")
    recipe = zhixing("describe", "r.yaml", "--json", "--batch-size", "7")
    assert "activations of 7 rows (estimate)" in recipe.last["training_memory_bytes"]
    assert recipe.last["parameters"] == data.last["parameters"]
    assert zhixing("train", "--recipe", "r.yaml", "--json").status == 0
    assert json.loads(zhixing("schema").out) == zhixing("schema", "--json").last
    assert zhixing("report", run, "--json").last["report"].endswith("report.html")


@pytest.mark.parametrize("name", ["mnist-cnn", "photos-small"])
def test_recipes_that_come_with_the_package(zhixing: Zhixing, pictures: Path, name: str) -> None:
    smaller = ["inputs.image.size=24", "training.epochs=1"]
    done = zhixing("train", pictures, "--recipe", name, "--json", "--set", *smaller)
    assert done.status == 0, done.err
    assert done.last["metrics"]["label"]


WRONG: list[tuple[int, list[str], str]] = [
    (2, ["trian"], "there is no command 'trian'. Did you mean 'train'?"),
    (2, ["train"], "there is nothing to train on"),
    (2, ["train", "CSV", "--epochz", "3"], "--epochs"),
    (2, ["train", "CSV", "--epochs", "many"], "many"),
    (2, ["train", "CSV", "--epochs", "0"], "training.epochs: input should be greater than 0"),
    (2, ["train", "CSV", "--set", "training.epoch=3", "sead=1"], "2 problems in the recipe"),
    (2, ["train", "CSV", "--set", "training.optimizer=adm"], "Did you mean 'adam'?"),
    (2, ["train", "CSV", "--target", "labl"], "Did you mean 'label'?"),
    (2, ["train", "CSV", "--encoder", "resnet18"], "which input is the encoder for?"),
    (2, ["train", "CSV", "--recipe", "none.yaml"], "there is no such file"),
    (2, ["train", "CSV", "--recipe", "mnist-cnnn"], "Did you mean 'mnist-cnn'?"),
    (2, ["train", "CSV", "--device", "tpu9"], "device"),
    (2, ["train", "CSV", "--set", "fusion={name: attention, heads: 7}"], "not a multiple"),
    (2, ["train", "--resume", "RUN", "--epochs", "3"], "no other setting"),
    (2, ["train", "--resume", "RUN", "--seed", "0"], "no other setting"),
    (2, ["train", "CSV", "--resume", "RUN"], "no other setting"),
    (2, ["train", "CSV", "--out", "RUN"], "is not empty"),
    (3, ["train", "nowhere.csv"], "nowhere.csv"),
    (3, ["train", "minst"], "Did you mean 'mnist'?"),
    (3, ["train", "broken.csv"], "cannot be used"),
    (1, ["train", "--resume", "."], "this is not a run"),
    (1, ["evaluate", "."], "this is not a run"),
    (1, ["evaluate", "nowhere"], "there is no such run"),
    (1, ["predict", "nowhere", "CSV"], "there is no such run"),
    (1, ["report", "nowhere"], "there is no such run"),
    (3, ["describe", "nowhere"], "nowhere"),
    (2, ["describe", "nowhere.yaml"], "there is no such file"),
    (2, ["init", "CSV", "--set", "a"], "--set wants"),
    (2, ["init", "CSV", "--set"], "requires an argument"),
    (2, ["completion", "tcsh"], "bash"),
    (2, ["evaluate"], "RUN"),
]


@pytest.mark.parametrize(("status", "arguments", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_calls_end_with_one_message_and_their_status(
    zhixing: Zhixing, csv: Path, run: Path, status: int, arguments: list[str], message: str
) -> None:
    lines = [f"{i}.5,{'ab'[i % 2]}\n" for i in range(40)]
    Path("broken.csv").write_text("".join(["age,label\n", *lines, "x,a\n"]), "utf-8")
    done = zhixing(*({"CSV": csv, "RUN": run}.get(argument, argument) for argument in arguments))
    assert done.status == status, done
    assert done.out == ""
    assert message in done.err
    assert done.err.lower().count("error: ") == 1
    assert not Path("runs").exists()


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    from zhixing.errors import DataError

    for arguments in (["--debug", "train", "nowhere.csv"], ["train", "nowhere.csv", "--debug"]):
        with pytest.raises(DataError):
            main(arguments)


def test_a_defect_is_called_one(zhixing: Zhixing, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(*arguments: object) -> None:
        raise KeyError("inner")

    monkeypatch.setattr("zhixing.recipe.json_schema", fall)
    done = zhixing("schema")
    assert done.status == 1
    assert "This is a defect; --debug shows where." in done.err


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(zhixing: Zhixing, name: str) -> None:
    done = zhixing(name, "--help")
    assert done.status == 0
    assert done.out.startswith("Usage: zhixing")


# As another process --------------------------------------------------------------------------------------------------


def spawn(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(
        [*ZHIXING, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env=environment,
        **options,
    )


def test_names_of_any_script_under_any_locale(csv: Path) -> None:
    done = spawn("describe", str(csv), env={"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert done.returncode == 0, done.stderr
    assert "\\u5e97" in done.stdout  # what ASCII cannot write is spelled out


def test_a_prediction_does_not_load_pandas_and_leaves_it_to_others(csv: Path, run: Path) -> None:
    code = (
        "import sys, zhixing.cli; zhixing.cli.main(); print('pandas' in sys.modules);"
        "import pandas; print(pandas.Series([1, 2]).sum())"
    )
    command = [sys.executable, "-c", code, "predict", str(run), str(csv), "--format", "jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["False", "3"]


def test_a_reader_that_leaves_early_is_no_error(csv: Path, run: Path) -> None:
    line = f"{shutil.which('bash')} -c \"'{sys.executable}' -m zhixing schema | head -n 1\""
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout == "{\n"
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(zhixing: Zhixing, shell: str) -> None:
    done = zhixing("completion", shell)
    assert done.status == 0
    assert "_ZHIXING_COMPLETE" in done.out
    if shutil.which(shell):
        check = subprocess.run([shell, "-n"], input=done.out, capture_output=True, text=True, check=False)
        assert check.returncode == 0, check.stderr


def test_completion_in_bash_offers_commands_and_flags(zhixing: Zhixing, tmp_path: Path) -> None:
    script = zhixing("completion", "bash").out
    (tmp_path / "zhixing").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m zhixing "$@"\n', "utf-8")
    (tmp_path / "zhixing").chmod(0o755)
    for words, offered in ((["zhixing", "ev"], "evaluate"), (["zhixing", "train", "--enc"], "--encoder")):
        line = " ".join(words)
        code = f"""{script}
COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE="{line}"; COMP_POINT={len(line)}
_zhixing_completion zhixing; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=environment, check=False)
        assert done.stdout.split() == [offered], done.stderr


def test_all_that_is_wrong_with_a_recipe_is_told_at_once(zhixing: Zhixing, csv: Path) -> None:
    wrong = ("training.epochs=-1", "inputs.age.encoder=mpl", "outputs.label.los=focal", "inputs.zz.size=3")
    done = zhixing("train", csv, "--set", *wrong)
    assert done.status == 2
    for words in ("4 problems", "training.epochs", "Did you mean 'mlp'?", "Did you mean 'loss'?", "'zz'"):
        assert words in done.err


@pytest.mark.parametrize(("name", "target"), [("iris", "species"), ("diabetes", "progression")])
def test_a_known_data_set_knows_what_it_is_there_to_predict(zhixing: Zhixing, name: str, target: str) -> None:
    assert list(zhixing("train", name, "--epochs", 1, "--json").last["metrics"]) == [target]
