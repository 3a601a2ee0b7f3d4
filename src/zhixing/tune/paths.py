"""Settings of a recipe's plain data by their paths, as ``--set`` takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..recipe import override

__all__ = ["settings_at", "with_settings"]

MISSING = object()


def with_settings(base: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain data with settings changed; those that others hang on go first."""
    raw = json.loads(json.dumps(base))
    ordered = sorted(settings, key=lambda path: not path.endswith((".name", ".type")))
    return override(raw, [f"{path}={json.dumps(settings[path])}" for path in ordered])


def settings_at(base: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """What a recipe's plain data say at these paths; paths that are not there are left out."""
    out = {}
    for path in paths:
        here: Any = base
        for key in split_path(path):
            here = here.get(key, MISSING) if isinstance(here, Mapping) else MISSING
        if here is not MISSING:
            out[path] = here
    return out


def split_path(path: str) -> Sequence[str]:
    return [re.sub(r"\\([.=])", r"\1", key) for key in re.split(r"(?<!\\)\.", path)]
