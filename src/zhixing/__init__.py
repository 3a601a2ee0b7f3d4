"""Zhixing (知行, "knowing and doing"): from a table of typed columns to a trained, examined and served model.

>>> import zhixing as zx
>>> run = zx.train("mnist", encoder="cnn", epochs=5)        # doctest: +SKIP
>>> run.evaluate(), run.predict(["photo.png"])              # doctest: +SKIP

Importing this package imports nothing heavy; what is named here is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["Encoder", "Encoding", "Run", "Spec", "ZhixingError", "__version__", "load", "open_source", "train"]

if TYPE_CHECKING:
    from .api import Run, load, train
    from .data.source import open_source
    from .errors import ZhixingError
    from .models.encoding import Encoder, Encoding, Spec

HOMES = {
    "Encoder": "models.encoding",
    "Encoding": "models.encoding",
    "Run": "api",
    "Spec": "models.encoding",
    "ZhixingError": "errors",
    "load": "api",
    "open_source": "data.source",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'zhixing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
