"""The doctor on set-ups whose true cause is known: is it the first that is named, and do healthy ones give no alarm?

    python -m benchmarks.doctor [--only WORD ...] [--cost mnist emails]

``--cost`` measures instead how long each check takes on all of MNIST and on the e-mails.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

import zhixing as zx
from zhixing.doctor import CHECKS, Diagnosis, examine
from zhixing.doctor.case import case_of_data
from zhixing.doctor.examine import diagnose

from .data import spam
from .doctor_setups import BROKEN, HEALTHY, Setup

__all__ = ["judge"]


def judge(setup: Setup, folder: Path) -> tuple[bool, Diagnosis]:
    """Whether the doctor is right about a set-up, and all that it says."""
    subject = setup.make(folder / "data")
    if subject.run:
        run = zx.train(subject.source, recipe=subject.recipe, encoder=subject.encoder, out=folder / "run")
        if subject.spoil is not None:
            subject.spoil(run.path)
        found = examine(run.path, data=subject.source)
    else:
        found = examine(subject.source, recipe=subject.recipe, encoder=subject.encoder)
    alarms = found.alarms
    return (not alarms if setup.healthy else bool(alarms) and alarms[0].check in setup.causes), found


def suite(words: list[str]) -> None:
    counts = {"broken": [0, 0], "healthy": [0, 0]}
    started, work = time.perf_counter(), time.process_time()
    for setup in [*BROKEN, *HEALTHY]:
        kind = "healthy" if setup.healthy else "broken"
        if words and not any(word in f"{kind} {setup.name}" for word in words):
            continue
        since = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            right, found = judge(setup, Path(scratch))
        counts[kind][0] += right
        counts[kind][1] += 1
        named = ", ".join(f"{one.check} ({one.severity[0]}{'*' if one.because else ''})" for one in found.alarms)
        wanted = " or ".join(setup.causes) or "nothing"
        seconds = time.perf_counter() - since
        verdict = "right" if right else "WRONG"
        print(f"{verdict}  {seconds:5.1f} s  {kind}, {setup.name}: {wanted} <- {named or 'nothing'}", flush=True)
        if not right:
            for one in found.alarms[:3]:
                print(f"         {one.found}", flush=True)
    print(json.dumps({
        "broken_named_first": counts["broken"][0], "broken": counts["broken"][1],
        "healthy_without_alarm": counts["healthy"][0], "healthy": counts["healthy"][1],
        "seconds": round(time.perf_counter() - started), "processor_seconds": round(time.process_time() - work),
    }))  # fmt: skip


def cost(names: list[str]) -> None:
    """Seconds of each check, by the clock and of the processor; what several checks share is paid by the first."""
    sources = {"mnist": lambda: "mnist", "emails": lambda: str(spam())}
    for name in names:
        case = case_of_data(sources[name](), {"outputs": {"label": None}})
        clock, work, alarms = {}, {}, []
        for check in CHECKS:
            before = time.perf_counter(), time.process_time()
            found = diagnose(case, only=[check.name])
            clock[check.name] = round(time.perf_counter() - before[0], 2)
            work[check.name] = round(time.process_time() - before[1], 2)
            alarms += [f"{one.check} ({one.severity}): {one.found}" for one in found.alarms]
            print(f"{name} {check.name}: {clock[check.name]} s, processor {work[check.name]} s", flush=True)
        slowest = max(clock, key=lambda key: clock[key])
        print(json.dumps({
            "data": name, "rows": case.table.rows, "checks": len(clock), "slowest": slowest,
            "slowest_seconds": clock[slowest], "slowest_processor_seconds": max(work.values()),
            "seconds": round(sum(clock.values()), 1), "processor_seconds": round(sum(work.values()), 1),
            "alarms": alarms,
        }), flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--cost", nargs="*", choices=["mnist", "emails"], default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.cost:
        cost(given.cost)
    else:
        suite(given.only)


if __name__ == "__main__":
    main()
