"""How long ``zhixing --help`` takes: the median of 20 processes, as one JSON line.

python benchmarks/help_time.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

RUNS = 20


def measure(command: list[str]) -> list[float]:
    """Seconds that each run takes, after one that warms the disk's cache."""
    seconds = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main() -> None:
    help_ = measure([sys.executable, "-m", "zhixing", "--help"])
    bare = measure([sys.executable, "-c", "pass"])
    found = {
        "zhixing --help, seconds": round(statistics.median(help_), 4),
        "slowest": round(max(help_), 4),
        "python alone": round(statistics.median(bare), 4),
        "runs": RUNS,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
