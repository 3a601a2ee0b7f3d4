"""What surrounds training in a process: device, threads, deterministic kernels, kept memory, signals to stop."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ..errors import UsageError

__all__ = ["StopRequest", "asked_to_stop", "memory_kept", "reproducible", "torch_device"]

# malloc.h of the GNU C library: from how many bytes on memory is fetched apart, and how many may lie free at the heap's
# end. The usual ones are how far the library goes by itself.
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
APART, FREE, USUALLY_FREE = 32 << 20, (1 << 31) - 1, 64 << 20


def torch_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"the device {name!r} cannot be used: {str(error).splitlines()[0]}", mend="Use --device cpu."
        ) from None
    return device


@contextlib.contextmanager
def reproducible(threads: int | None) -> Iterator[None]:
    """One number of threads, deterministic kernels, and memory that is kept from step to step while training; the
    user's own settings, and torch's random stream, come back after."""
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    deterministic: Any = torch.utils.deterministic
    benchmark, filling = torch.backends.cudnn.benchmark, deterministic.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if threads is not None and threads != before[0]:
        torch.set_num_threads(threads)
    set_deterministic(1)
    torch.backends.cudnn.benchmark = False
    # Fresh memory is written before it is read; to fill it with NaN first costs up to a quarter of a step.
    deterministic.fill_uninitialized_memory = False
    try:
        with torch.random.fork_rng(devices=[]), memory_kept():
            yield
    finally:
        torch.set_num_threads(before[0])
        set_deterministic(before[1])
        torch.backends.cudnn.benchmark = benchmark
        deterministic.fill_uninitialized_memory = filling


def set_deterministic(mode: int) -> None:
    """0: whatever kernels there are; 1: deterministic ones, with a warning where there are none; 2: with an error."""
    if "torch._inductor" in sys.modules:  # torch's compiler is told as well
        torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)
    else:  # the above would load it
        torch.set_deterministic_debug_mode(mode)


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """What a step frees stays with the process for the next, as it does on a GPU, and goes back to the system after.

    Else the C library may give it back at the end of each step, and fetch it anew, a page at a time: of a step of two
    LSTMs that was half of the time, in those processes where it happened (benchmarks/memory_kept.py). Tensors above
    32 MB are left alone: they are not slowed down much, and kept ones leave gaps. Where there is no GNU C library,
    nothing changes.
    """
    library: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return

    library.mallopt(MMAP_THRESHOLD, APART)
    library.mallopt(TRIM_THRESHOLD, FREE)
    try:
        yield
    finally:
        library.mallopt(TRIM_THRESHOLD, USUALLY_FREE)
        library.malloc_trim(0)


class StopRequest:
    """Set by the first signal; a second one takes its usual course."""

    def __init__(self) -> None:
        self.signum = 0


@contextlib.contextmanager
def asked_to_stop(signals: Iterable[signal.Signals] = (signal.SIGINT, signal.SIGTERM)) -> Iterator[StopRequest]:
    """Notice Ctrl-C and SIGTERM, so that the run can save and end between two steps."""
    request = StopRequest()
    before: dict[signal.Signals, Any] = {}

    def handle(signum: int, frame: object) -> None:
        request.signum = signum
        for one, handler in before.items():
            signal.signal(one, handler)

    with contextlib.suppress(ValueError):  # only the main thread hears signals
        for one in signals:
            before[one] = signal.signal(one, handle)
    try:
        yield request
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
