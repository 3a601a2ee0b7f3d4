"""Runs as files that other runtimes read, without this package."""

from __future__ import annotations

from .export import export
from .graph import Graph

__all__ = ["Graph", "export"]
