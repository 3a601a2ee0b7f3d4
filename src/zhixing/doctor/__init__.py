"""The doctor: a battery of checks of data and of learning, and the mends of what they find."""

from __future__ import annotations

from .examine import CHECKS, Diagnosis, examine
from .finding import Check, Finding, Mend
from .fix import Fixed, fix

__all__ = ["CHECKS", "Check", "Diagnosis", "Finding", "Fixed", "Mend", "examine", "fix"]
