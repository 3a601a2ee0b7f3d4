"""Gradient × input."""

from __future__ import annotations

from ..subject import Subject
from .maps import Maps

__all__ = ["gradient_x_input"]


def gradient_x_input(subject: Subject, *, seed: int = 0) -> Maps:
    """The slope of the score along each value, times the value (Shrikumar et al. 2016, arXiv:1605.01713).

    Values are standardised, so that this is the change that a linear model would lose if they were at their mean.
    """
    _, slopes = subject.gradient(subject.points)
    return Maps([entry.cells(slope * entry.point) for entry, slope in zip(subject.entries, slopes, strict=True)])
