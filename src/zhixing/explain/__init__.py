"""Why an answer: what each part of a row adds to it, which training rows are like it, what would change it."""

from __future__ import annotations

from .explain import Explained, Plan, explain
from .methods import METHODS

__all__ = ["METHODS", "Explained", "Plan", "explain"]
