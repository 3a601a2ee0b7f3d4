"""Compress: smaller and faster forms of a trained model, each tried and measured on this machine.

A *form* is how a model is written and run (:mod:`.forms`): ONNX Runtime, OpenVINO, bf16, int8. A *smaller model* is
another one that does the same (:mod:`.smaller`): fewer channels, units and heads, thin factors, a small student. What
is kept is a folder that :class:`zhixing.compress.compressed.Compressed` reads.

Nothing is imported here: the processes in which forms are timed load no more than what they time.
"""

from __future__ import annotations

__all__: list[str] = []
