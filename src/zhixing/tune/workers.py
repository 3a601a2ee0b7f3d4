"""Several processes at one study: on this machine, or by Ray on a cluster whose machines share the study's folder.

There is no master. Each process reads the journal, does what is due, and writes it down; one that dies is made up for
by the others.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..console import Console
from ..errors import MissingExtraError

__all__ = ["helpers", "ray_library", "ray_workers"]


def command(study: Path, device: str, seconds: float | None) -> list[str]:
    words = [sys.executable, "-m", "zhixing", "tune", "--resume", str(study), "--worker", "--device", device]
    return words if seconds is None else [*words, "--time", f"{seconds:g}s"]


@contextlib.contextmanager
def helpers(study: Path, count: int, *, device: str, seconds: float | None, console: Console) -> Iterator[None]:
    """``count`` further processes that work on the study beside this one; at the end they are waited for, and after an
    error ended."""
    words = [*command(study, device, seconds), "--json"]
    started = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(count)]  # noqa: S603
    try:
        yield
        for one in started:
            if one.wait():
                console.warn(f"a worker ended with status {one.returncode}")
    finally:
        for one in started:
            if one.poll() is None:
                one.terminate()
                one.wait()


def ray_library() -> Any:
    """Ray.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import ray  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError as error:
        raise MissingExtraError("ray", "cluster", purpose="tuning on a cluster") from error
    return ray


def ray_workers(study: Path, count: int, *, device: str, seconds: float | None, address: str | None = None) -> None:
    """``count`` workers on the nodes of a Ray cluster, and wait for them.

    Ray places the processes; the trials and their budgets are decided as on one machine, from the journal. The study's
    folder and the data have to lie where all nodes see them, on a file system with locks.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to its makers that nobody asked for
    ray = ray_library()
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=True)
    gpus = 0 if device == "cpu" or "GPU" not in ray.cluster_resources() else 1

    @ray.remote(num_cpus=1, num_gpus=gpus, max_retries=3)  # type: ignore[untyped-decorator, unused-ignore]
    def work() -> int:
        words = ["-m", "zhixing", *command(study.resolve(), device, seconds)[3:]]
        return subprocess.run([sys.executable, *words], check=False).returncode  # noqa: S603

    ray.get([work.remote() for _ in range(count)])
