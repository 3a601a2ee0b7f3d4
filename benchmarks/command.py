"""`zhixing train` as a person types it, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .registry import DOWNLOADS

__all__ = ["trained"]


def trained(arguments: str, out: Path, more: Sequence[str] = (), *, source: Path | None = None) -> tuple[Any, float]:
    """Test metrics by output, and the seconds of the whole process. ``more`` are further ``--set`` assignments;
    ``source`` stands where ``arguments`` begins with a file's name alone."""
    words = arguments.split()
    if source is not None:
        words[0] = str(source)
    command = [sys.executable, "-m", "zhixing", "train", *words, "--out", str(out), "--json"]
    command += ["--set", *more] if more else []
    environment = {**os.environ, "ZHIXING_DATA": str(DOWNLOADS)}
    started = time.perf_counter()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, cwd=DOWNLOADS.parent, env=environment
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return json.loads(done.stdout.splitlines()[-1])["metrics"], time.perf_counter() - started
