"""Imports go one way, nothing is run by a name from a file, and the command line starts light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import zhixing

ROOT = Path(zhixing.__file__).parent
ORDER = (
    "errors", "settings", "randomness", "columns", "data", "layers", "models", "heads", "pretraining", "fusion",
    "model", "training", "recipe_file", "recipe_errors", "recipe", "run", "report", "console", "calibration",
    "pretrained", "verbs", "explain", "doctor", "tune", "export", "compress", "serve", "api", "commands", "cli",
)  # fmt: skip
MODULES = sorted(ROOT.rglob("*.py"))


def layer(parts: tuple[str, ...]) -> str:
    return parts[0] if parts else "zhixing"


def imported(path: Path) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """(line, what the statement names, parts of the module below zhixing) of each import of our own."""
    here = path.relative_to(ROOT).with_suffix("").parts
    package = here[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                inner = tuple((node.module or "").split(".")) if node.module else ()
                for alias in node.names:
                    yield node.lineno, alias.name, (*base, *inner) or (alias.name,)
            elif (node.module or "").split(".")[0] == "zhixing":
                yield node.lineno, "", tuple((node.module or "").split("."))[1:]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "zhixing":
                    yield node.lineno, "", tuple(alias.name.split("."))[1:]


def test_imports_go_one_way() -> None:
    wrong = []
    for path in MODULES:
        here = path.relative_to(ROOT).with_suffix("").parts
        if here[0] in ("__init__", "__main__"):
            continue
        own = ORDER.index(layer(here))
        for line, _, there in imported(path):
            if there[0] in ("__version__",):
                continue
            if ORDER.index(layer(there)) > own:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {'.'.join(there)}")
    assert wrong == []


def test_every_module_is_in_the_order() -> None:
    assert {layer(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES} <= {
        *ORDER, "__init__", "__main__"
    }  # fmt: skip


def test_models_know_of_columns_only_what_they_give() -> None:
    told = {
        (there, name)
        for path in MODULES
        if layer(path.relative_to(ROOT).parts) in ("models", "layers")
        for _, name, there in imported(path)
        if there[0] in ("columns", "data")
    }
    assert told == {(("columns", "column"), "Spec")}


def calls(tree: ast.AST) -> Iterator[tuple[int, str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_run_by_a_name_from_a_file(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    dangerous = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        assert not {name.split(".")[0] for name in names} & dangerous
    for line, name, call in calls(tree):
        assert name not in ("eval", "exec", "compile", "__import__", "yaml.unsafe_load"), line
        if name == "torch.load":  # where a user asks for it, and tensors alone
            assert any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords), line
        if name == "yaml.load":
            assert ast.unparse(call.args[1]) == "Loader", line  # a SafeLoader
        if name in ("np.load", "numpy.load"):
            assert any(word.arg == "allow_pickle" and ast.unparse(word.value) == "False" for word in call.keywords)
        if name.endswith("import_module"):  # only what stands in a table of the code
            assert path.name in ("cli.py", "__init__.py"), line


LIGHT = """
import sys
{}
heavy = {{"torch", "numpy", "pyarrow", "pydantic", "yaml", "PIL", "rich"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "code",
    [
        "import zhixing; zhixing.__version__; dir(zhixing)",
        *(
            f"from zhixing.cli import main\ntry: main([{word!r}])\nexcept SystemExit as end: assert end.code in {codes}"
            for word, codes in (("--help", (0, None)), ("--version", (0, None)), ("trian", (2,)))
        ),
    ],
)
def test_the_package_and_its_help_import_nothing_heavy(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT.format(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_of_a_command_does_not_import_torch() -> None:
    code = "from zhixing.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass\n"
    code += "import sys; assert not {'torch', 'numpy', 'pyarrow'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--resume" in done.stdout


def test_public_names_are_there() -> None:
    assert all(getattr(zhixing, name) is not None for name in zhixing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        zhixing.nothing  # noqa: B018
