"""What replaying recorded steps is worth: our loop with and without, the same model, batches and bits, in one run.

The table is breast-cancer's, 30 columns of numbers; the others are MNIST's pictures. Steps before the recording are
left out of the time; ``recording_ms`` is what recording and checking add to the steps in which they are done, and
``earned_back`` the number of steps after which that is saved again (none where nothing is saved). Rounds alternate the
two; figures are medians of ratios within a round, and their spread.

    python -m benchmarks.replay [--model table mlp cnn lstm transformer] [--batch 32] [--rounds 9]
"""

from __future__ import annotations

from typing import Any

from zhixing.training import replay
from zhixing.training.replay import CHECKS, OFTEN, Replay

from .step_times import Made, Seconds, command, compare, trained

STEPS = {"table": 2000, "mlp": 2000, "cnn": 200, "lstm": 300, "transformer": 60}
FIRST = OFTEN + CHECKS + 1  # the first step that is certainly replayed


def measure(made: Made, batch: int, steps: int, rounds: int) -> dict[str, Any]:
    def seconds(replays: bool) -> Seconds:
        loop, began = trained(made, batch, FIRST + steps, replay=replays)
        assert not isinstance(loop.replay, Replay) or loop.replay.recorded
        return began[FIRST] - began[OFTEN - 1], began[-1] - began[FIRST]

    found, recording = compare(seconds, "replayed", steps, rounds)
    saved = (found["plain_ms"] - found["replayed_ms"]) / 1000
    earned = round(recording / saved) if saved > 0 else None
    return {**found, "recording_ms": round(1000 * recording, 1), "earned_back": earned}


if __name__ == "__main__":
    replay.SHORT = float("inf")  # else a busy machine makes steps too long to be recorded
    command(__doc__, STEPS, 9, measure)
