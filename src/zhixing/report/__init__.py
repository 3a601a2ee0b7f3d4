"""What a run learned, on one page for people (``report.html``) and as a model card (``README.md``)."""

from __future__ import annotations

from .card import write_card
from .page import write_report

__all__ = ["write_card", "write_report"]
