"""Fit a finished model's calibrations on validation rows, and put them to use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..calibration import Calibration, calibration_for
from ..data.batches import Batches
from ..model import Model
from .collect import EXACT, Collected, collect

__all__ = ["calibrated", "fit_calibrations"]


def fit_calibrations(model: Model, batches: Batches, rows: NDArray[np.int64]) -> dict[str, Calibration]:
    """What can be learned of each output from these rows; nothing where there are none."""
    kinds = {name: calibration_for(model.head(name)) for name in model.outputs}
    if not len(rows) or not any(kinds.values()):
        return {}
    seen = collect(model, batches, rows, EXACT)
    out: dict[str, Calibration] = {}
    for name, kind in kinds.items():
        if kind is not None and (fitted := kind.fit(model.head(name), *seen.usable(name))) is not None:
            out[name] = fitted
    return out


def calibrated(seen: Collected, calibrations: Mapping[str, Calibration]) -> Collected:
    """The same rows with the predictions that are to be decoded and measured."""

    def each(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: calibrations[name].apply(one) if name in calibrations else one for name, one in parts.items()}

    return replace(seen, predictions=each(seen.predictions), answers=each(seen.answers))
