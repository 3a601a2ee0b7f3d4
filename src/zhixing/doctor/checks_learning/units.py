"""Units that always say the same, and units driven to their limits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...model import Model
from ...models.encoding import Encoding
from ..case import Case
from ..finding import Finding, Mend
from ..trial import evaluated
from .gradients import LAYERS

__all__ = ["dead_units", "saturated_units"]

BOUNDED: dict[type[nn.Module], tuple[float, float]] = {
    nn.Sigmoid: (0.0, 1.0), nn.Tanh: (-1.0, 1.0), nn.Hardtanh: (-1.0, 1.0), nn.Hardsigmoid: (0.0, 1.0),
    nn.Softsign: (-1.0, 1.0),
}  # fmt: skip
QUIET = (nn.Dropout, nn.Identity, nn.Flatten, nn.Embedding)
ROWS = 384


class Lights:
    """The least and largest value of each unit of each module over many rows, and how often it is near a bound."""

    def __init__(self, model: Model, looked_up: set[str]) -> None:
        self.low: dict[str, Tensor] = {}
        self.high: dict[str, Tensor] = {}
        self.near: dict[str, list[float]] = {}
        self.kinds: dict[str, nn.Module] = {}
        self.handles = [
            module.register_forward_hook(partial(self.see, name))
            for name, module in model.named_modules()
            if name.startswith(("encoders.", "fusion."))
            and ".".join(name.split(".")[:2]) not in looked_up
            and not isinstance(module, QUIET)
        ]

    def see(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        out = output.pooled if isinstance(output, Encoding) else output
        if not isinstance(out, Tensor) or not out.is_floating_point() or out.ndim < 2:
            return
        units = out.detach().movedim(1, -1) if out.ndim == 4 else out.detach()  # channels of pictures stand second
        units = units.reshape(-1, units.shape[-1])
        low, high = units.amin(0), units.amax(0)
        self.low[name] = torch.minimum(self.low.get(name, low), low) if self.fits(name, low) else low
        self.high[name] = torch.maximum(self.high.get(name, high), high) if self.fits(name, high) else high
        self.kinds[name] = module
        for kind, (floor, roof) in BOUNDED.items():
            if isinstance(module, kind):
                edge = 0.01 * (roof - floor)
                share = ((units < floor + edge) | (units > roof - edge)).float().mean()
                self.near.setdefault(name, []).append(float(share))

    def fits(self, name: str, values: Tensor) -> bool:
        return name not in self.low or self.low[name].shape == values.shape

    def still(self) -> dict[str, float]:
        """The share of units of each module that say the same of every row."""
        out = {}
        for name, low in self.low.items():
            span = self.high[name] - low
            scale = float(torch.maximum(self.high[name].abs(), low.abs()).max())
            out[name] = float((span <= 1e-6 * max(scale, 1e-12)).float().mean())
        return out


def lights(case: Case, model: Model) -> Lights | None:
    # What is looked up in a table by one id has no units that could die.
    looked_up = {
        f"encoders.{place}" for place, name in enumerate(model.inputs) if case.columns[name].spec().kind == "ids"
    }
    seen = Lights(model, looked_up)
    try:
        for _ in evaluated(case, model, case.learned("train", ROWS)):
            pass
    except (RuntimeError, ValueError, IndexError, TypeError):  # told of as a crash
        return None
    finally:
        for handle in seen.handles:
            handle.remove()
    return seen


def dead_units(case: Case) -> Iterator[Finding]:
    """Layers many of whose units give one value whatever the row is, after a short run (and before it)."""
    after, before = lights(case, case.trial.model), lights(case, case.fresh())
    if after is None or before is None or case.trial.skipped > len(case.trial.losses) // 2:
        return
    still, first = after.still(), before.still()
    worst = max(still, key=lambda name: still[name], default=None)
    if worst is None or still[worst] < 0.3:
        return
    constant = next((name for name, value in still.items() if value == 1.0), None)
    if constant is not None and isinstance(after.kinds[constant], LAYERS):
        return  # such a layer says one thing because it is given one: no fault of its units
    share = still[worst]
    early = first.get(worst, 0.0)
    rate = case.found_rate.steepest_rate
    yield Finding(
        "dead_units", "fault" if share > 0.9 else "warning" if share > 0.6 else "note",
        f"{share:.0%} of the units of {worst} ({type(after.kinds[worst]).__name__}) say the same of every row "
        f"({early:.0%} at the start)",
        sure=0.88,
        evidence={"module": worst, "share": share, "at_the_start": early,
                  "modules": {name: round(value, 3) for name, value in still.items() if value > 0.3}},
        mend=Mend((f"training.optimizer.lr={rate:.2g}",)) if early < 0.5 * share and np.isfinite(rate) else Mend(),
        advice="Dead from the start: first biases or weights that drive units to one side. Dead later: too high a "
        "rate.",
    )  # fmt: skip


def saturated_units(case: Case) -> Iterator[Finding]:
    """Sigmoids and hyperbolic tangents that are nearly always within 1 % of their bounds."""
    seen = lights(case, case.trial.model)
    if seen is None or not seen.near:
        return
    shares = {name: float(np.mean(values)) for name, values in seen.near.items()}
    worst = max(shares, key=lambda name: shares[name])
    if shares[worst] < 0.3:
        return
    yield Finding(
        "saturated_units", "fault" if shares[worst] > 0.9 else "warning" if shares[worst] > 0.6 else "note",
        f"{shares[worst]:.0%} of what {worst} ({type(seen.kinds[worst]).__name__}) gives lies at its bounds, where "
        "it has "
        "no slope",
        sure=0.9,
        evidence={"module": worst, "share": shares[worst], "modules": shares},
        mend=Mend(("training.initialisation=xavier",)) if case.recipe.training.initialisation != "xavier" else Mend(),
        advice="Smaller first weights, or standardised inputs.",
    )  # fmt: skip
