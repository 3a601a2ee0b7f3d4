"""Checks of learning, by short instrumented runs: each a function of a case that yields what it finds."""

from __future__ import annotations

from ..finding import Check
from .curves import fitting, more_data
from .gradients import flow, no_gradient, updates
from .ignored import ignored
from .loading import loading
from .mode import evaluation_mode
from .normalising import batch_norm
from .one_batch import one_batch
from .rate import rate
from .repeatable import repeatable
from .start import initial_loss, normalisation
from .steps import crash, nonfinite, overflow
from .units import dead_units, saturated_units

__all__ = ["LEARNING_CHECKS"]

STUCK = frozenset({"one_batch", "rate", "updates", "fitting", "dead_units", "ignored"})

# In the order of causes: what comes earlier may explain what comes later.
LEARNING_CHECKS = (
    Check(
        "batch_norm", "batch normalisation over few rows", batch_norm,
        frozenset({"crash", "evaluation_mode", "one_batch", "rate"}),
    ),
    Check(
        "normalisation", "inputs far from mean 0 and deviation 1", normalisation,
        STUCK | {"initial_loss", "flow", "nonfinite", "overflow", "saturated_units"},
    ),
    Check("crash", "the model cannot take a step", crash, STUCK | {"nonfinite", "overflow"}),
    Check(
        "nonfinite", "values that are not finite", nonfinite,
        STUCK | {"overflow", "initial_loss", "flow", "saturated_units", "repeatable", "no_gradient"},
    ),
    Check("evaluation_mode", "evaluation in training mode", evaluation_mode, frozenset({"ignored"})),
    Check("repeatable", "equal runs that differ", repeatable),
    Check("no_gradient", "parts that get no gradient", no_gradient, frozenset({"one_batch", "updates", "fitting"})),
    Check("ignored", "inputs without effect", ignored, frozenset({"one_batch", "no_gradient"})),
    Check("initial_loss", "the loss at the start beside theory", initial_loss, STUCK | {"flow", "saturated_units"}),
    Check("flow", "gradients by layer", flow, STUCK),
    Check("saturated_units", "units at their bounds", saturated_units, STUCK | {"flow"}),
    Check("rate", "a learning-rate range test", rate, frozenset({"overflow", "updates", "dead_units", "fitting"})),
    Check("overflow", "values that do not stay finite", overflow, frozenset({"dead_units", "one_batch", "fitting"})),
    Check("updates", "the size of steps beside weights", updates),
    Check(
        "dead_units", "units that say the same of every row", dead_units,
        frozenset({"one_batch", "fitting", "ignored", "no_gradient"}),
    ),
    Check("one_batch", "learning one batch by heart", one_batch),
    Check("loading", "waiting for data", loading),
    Check("fitting", "over- and under-fitting of a run", fitting),
    Check("more_data", "what more data would bring", more_data),
)  # fmt: skip
