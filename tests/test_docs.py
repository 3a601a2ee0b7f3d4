"""Examples in docstrings and in the README do what they say."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import zhixing

ROOT = Path(zhixing.__file__).parent
MODULES = [path for path in sorted(ROOT.rglob("*.py")) if ">>> " in path.read_text("utf-8")]
README = ROOT.parent.parent / "README.md"
BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n?```(?P<kind>python|console)\n(?P<body>.*?)```", re.DOTALL)
SKIPPED = "<!-- not run -->"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_docstrings(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(module_of(path))
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert found.failed == 0
    assert found.attempted > 0


def blocks() -> list[tuple[str, str]]:
    """Kind and text of the README's blocks that are to be run."""
    if not README.is_file():
        return []
    text = README.read_text("utf-8")
    return [(m["kind"], m["body"]) for m in BLOCK.finditer("\n" + text) if m["before"].strip() != SKIPPED]


@pytest.mark.parametrize(("kind", "body"), blocks())
def test_readme(kind: str, body: str, tmp_path: Path) -> None:
    """In the order of the page, each block in a folder of its own: Python as a whole, console line by line."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if kind == "python":
        commands = [[sys.executable, "-W", "error", "-c", body]]
    else:
        lines = [line.removeprefix("$ ") for line in body.splitlines() if line.startswith("$ zhixing ")]
        commands = [shlex.split(line, comments=True) for line in lines]
    for command in commands:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command[:3]}\n{done.stdout}\n{done.stderr}"
