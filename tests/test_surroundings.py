"""What surrounds training: memory that stays from step to step, and settings that come back."""

from __future__ import annotations

import contextlib
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import zhixing as zx
from zhixing.training import surroundings
from zhixing.training.surroundings import memory_kept, reproducible

BLOCKS, SIZE = 12, 16 << 20  # together more than the C library keeps by itself


def pages_of_a_step() -> int:
    """How many pages the system hands out for what steps before have taken and freed as well."""
    before = 0
    for _ in range(6):  # the first ones find out where there is room
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [torch.ones(SIZE, dtype=torch.uint8) for _ in range(BLOCKS)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_memory_that_a_step_frees_is_there_for_the_next() -> None:
    whole = BLOCKS * SIZE // resource.getpagesize()
    for _ in range(2):  # and again, after it was given back
        with memory_kept():
            assert pages_of_a_step() < whole / 100
        taken = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        with memory_kept():
            pages_of_a_step()
            held = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        assert held - taken > whole / 2


@pytest.mark.parametrize("system", ["nt", "posix"])
def test_without_such_a_library_nothing_changes(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings.os, "name", system)
    monkeypatch.setattr(surroundings.ctypes, "CDLL", lambda name: object())
    with memory_kept():
        assert torch.ones(3).sum() == 3


def test_settings_come_back_after_an_error() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    with contextlib.suppress(RuntimeError), reproducible(1):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        torch.rand(5)
        raise RuntimeError
    threads, deterministic, state = before
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, deterministic)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_compiler_that_is_loaded_is_told_and_left_as_it_was() -> None:
    program = (
        "import torch, torch._inductor.config as compiler\n"
        "from zhixing.training.surroundings import reproducible\n"
        "with reproducible(1):\n"
        "    print(compiler.deterministic, torch.is_deterministic_algorithms_warn_only_enabled())\n"
        "print(compiler.deterministic, torch.are_deterministic_algorithms_enabled())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True True", "False False"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses parts of torch that are to go
def test_a_compiled_training_gives_the_same_bits_and_leaves_the_compiler_as_it_was(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    """Torch's compiler takes the deterministic mode for its own while it compiles, and would keep it."""
    import torch._inductor.config as compiler

    found = []
    for name in ("one", "other"):
        run = zx.train(
            digits,
            encoder="mlp",
            epochs=2,
            batch_size=64,
            seed=1,
            out=tmp_path / name,
            settings=["training.compile=true"],
        )
        found.append(run.model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert compiler.deterministic is False
