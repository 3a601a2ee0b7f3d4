"""What this machine has and does: memory, time, arithmetic, power."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "Power",
    "Times",
    "clock",
    "device_free",
    "host_free",
    "peak_bytes",
    "power_of",
    "process_age",
    "product_rate",
    "resident_bytes",
    "unread_bytes",
    "watch_peak",
    "watched_peak",
]  # fmt: skip

Times = NDArray[np.float64]  # [2]: of the clock, of the processor
CPU_IDLE, CPU_CORE = 20.0, 8.0  # watts of a computer at rest, and more for each core at work
GPU_SHARE = 0.8  # of a GPU's power limit, drawn while training
SAMPLE = 0.25  # seconds of matrix products


# Memory ---------------------------------------------------------------------------------------------------------------


def status(key: str) -> int | None:
    """A figure of this process in bytes, from Linux; None elsewhere."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return None


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def watch_peak() -> None:
    """Begin to look for a new peak, which :func:`watched_peak` gives."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def watched_peak() -> int:
    """The most memory since :func:`watch_peak`; where the system cannot begin anew, since the process began."""
    return status("VmHWM") or peak_bytes()


def resident_bytes() -> int:
    """The memory that this process holds now; where the system does not tell, the most it has held."""
    return status("VmRSS") or peak_bytes()


def unread_bytes(folder: Path) -> int:
    """Bytes of files below ``folder`` that this process has mapped and not read yet; 0 where the system does not tell.

    They count as its memory as soon as they are read, though the system takes them back when it needs room.
    """
    total, inside = 0, False
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/smaps").read_text("utf-8", "replace").splitlines():
            if not line[:1].isupper():
                inside = str(folder) in line
            elif inside and line.startswith("Size:"):
                total += int(line.split()[1]) * 1024
            elif inside and line.startswith("Rss:"):
                total -= int(line.split()[1]) * 1024
    return max(0, total)


def host_free() -> int | None:
    """Main memory that this process may still take: what the machine has to give, and what its group may hold."""
    rooms = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        rooms.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            rooms.append(int(Path(limit).read_text("ascii")) - int(Path(used).read_text("ascii")))
    return max(0, min(rooms)) if rooms else None


def device_free(device: torch.device) -> int | None:
    """Memory for tensors that is free on the device."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else host_free()


# Time -----------------------------------------------------------------------------------------------------------------


def process_age() -> float | None:
    """Seconds since this process began, from Linux; None elsewhere."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        began = int(Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text("ascii").split()[0])
        return up - began / os.sysconf("SC_CLK_TCK")
    return None


def clock() -> Times:
    """Seconds of the clock, and of the processor in all threads of this process: the second hardly depends on what else
    the machine does."""
    return np.array([time.perf_counter(), time.process_time()])


def product_rate(device: torch.device, dtype: torch.dtype, seconds: float = SAMPLE) -> float:
    """Floating-point operations a second in products of large matrices of this type."""
    size = 4096 if device.type == "cuda" else 768
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    torch.mm(a, b)
    wait()
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds or not count:
        torch.mm(a, b)
        wait()
        count += 1
    spent = time.perf_counter() - start
    return 2.0 * size**3 * count / spent


# Power ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Power:
    """Watts drawn while training, and how they were found."""

    watts: float
    reason: str


def power_of(device: torch.device, threads: int, watts: float | None = None) -> Power:
    """What was given; else, on a GPU that tells it, a share of its limit; else the stated model of a computer."""
    if watts is not None:
        return Power(watts, "given")
    host = CPU_IDLE + CPU_CORE * threads
    model = f"a model, not a measurement: {CPU_IDLE:g} W and {CPU_CORE:g} W for each of {threads} threads"
    if device.type != "cuda":
        return Power(host, model)
    with contextlib.suppress(Exception):  # the library is optional, and drivers differ
        most = nvml_limit(device)
        return Power(host + GPU_SHARE * most, f"{GPU_SHARE:.0%} of the GPU's limit of {most:g} W (NVML); {model}")
    return Power(host, f"the GPU does not tell its limit and is left out (give --watts); {model}")


def nvml_limit(device: torch.device) -> float:
    import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(device.index or 0)
    return float(pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)) / 1000
