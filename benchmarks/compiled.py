"""What ``training.compile`` is worth: our loop with and without torch's compiler, the same model and batches.

``cnn``, ``lstm`` and ``transformer`` read MNIST's pictures, ``texts`` is the Transformer over words of real e-mails,
up to 128 of them. ``compile_s`` is what the first step takes longer, with an empty cache; ``earned_back`` is the number
of seconds of plain training after which that is saved again (none where nothing is saved). Rounds alternate the two;
figures are medians, ``ratio`` is of the steps' times within a round with its least and most, above 1 where compiled
steps are faster.

    python -m benchmarks.compiled [--model cnn lstm transformer texts] [--batch 32] [--rounds 3]
"""

from __future__ import annotations

from typing import Any

from torch._inductor.utils import fresh_cache

from .step_times import Made, Seconds, command, compare, trained

WARM = 10  # steps that are not timed
STEPS = {"cnn": 200, "lstm": 200, "transformer": 100, "texts": 60}


def measure(made: Made, batch: int, steps: int, rounds: int) -> dict[str, Any]:
    def seconds(compiles: bool) -> Seconds:
        with fresh_cache():
            _, began = trained(made, batch, WARM + steps, compile=compiles)
        return began[1] - began[0], began[-1] - began[WARM]

    found, longer = compare(seconds, "compiled", steps, rounds)
    saved = 1 - found["compiled_ms"] / found["plain_ms"]
    return {**found, "compile_s": round(longer, 1), "earned_back": round(longer / saved) if saved > 0 else None}


if __name__ == "__main__":
    command(__doc__, STEPS, 3, measure)
