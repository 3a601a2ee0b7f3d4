"""Run a benchmark and keep what it prints, with the date, the hardware and the versions.

    python -m benchmarks.keep loop_overhead --rounds 5

Lines of JSON, and tables as they stand, are appended to ``benchmarks/results/DATE-PROCESSOR-CORES.jsonl``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from zhixing.run import git_commit, processor

RESULTS = Path(__file__).parent / "results"


def generation() -> str:
    """Family and model of the processor, which virtual machines tell where they hide its name."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        told = dict(line.replace("\t", "").split(": ", 1) for line in reversed(lines) if ": " in line)
        return f"family {told.get('cpu family')}, model {told.get('model')}"
    return ""


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    name, arguments = sys.argv[1], sys.argv[2:]
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    chip = torch.cuda.get_device_name(0) if torch.cuda.is_available() else processor()
    about = {
        "benchmark": name,
        "arguments": " ".join(arguments),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "hardware": f"{chip}, {os.cpu_count()} cores",
        "generation": generation(),
        "torch": torch.__version__,
        "commit": (git_commit() or "")[:12],
    }
    slug = re.sub(r"[^a-z0-9]+", "-", about["hardware"].lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y-%m-%d')}-{slug}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        table = [line for line in done.stdout.splitlines() if not line.startswith("{")]
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                file.write(json.dumps(about | json.loads(line), ensure_ascii=False) + "\n")
        if table:
            file.write(json.dumps(about | {"table": table}, ensure_ascii=False) + "\n")
    print(done.stdout, end="")
    print(f"kept in {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
