"""Calibration: probabilities that mean what they say, and sets and intervals that hold the truth as often as asked.

Both are fitted on the validation rows, once training is over. Those rows have chosen the checkpoint that is kept, so
they are not quite as new to the model as rows to come: of a few candidates that matters little, and the report shows
what was reached on test rows. What was fitted is ``calibration.json`` of a run; outputs that it does not name are left
as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RunError
from ..heads import Head
from .outputs import ASKED, CALIBRATIONS, Calibration, Classes, Ranges, Sets

__all__ = ["ASKED", "CALIBRATIONS", "Calibration", "Classes", "Ranges", "Sets", "calibration_for", "dump", "parse"]

KINDS: dict[str, type[Calibration]] = {"classes": Classes, "ranges": Ranges}


def calibration_for(head: Head) -> type[Calibration] | None:
    """What learns from a head's predictions; None where nothing does."""
    return next((kind for base, kind in CALIBRATIONS.items() if isinstance(head, base)), None)


def dump(calibrations: Mapping[str, Calibration]) -> dict[str, Any]:
    """The content of ``calibration.json``."""
    return {"format": 1, "outputs": {name: one.state() for name, one in calibrations.items()}}


def parse(content: Any, *, place: object = None) -> dict[str, Calibration]:
    """What :func:`dump` gave, by output.

    Raises:
        RunError: it is something else.
    """
    try:
        if content["format"] != 1:
            raise ValueError(f"format {content['format']!r} is not known")
        return {name: KINDS[state["kind"]].load(state) for name, state in content["outputs"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"calibration.json cannot be read: {error!r}", place=place) from error
