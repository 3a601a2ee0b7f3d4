"""Write a recipe with the mends of what was found."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import recipe as recipes
from ..errors import UsageError
from ..recipe import check, override
from ..run import write_whole
from .finding import Finding

__all__ = ["Fixed", "fix", "write_fixed"]


@dataclass(frozen=True)
class Fixed:
    """A mended recipe's plain data, what was changed in it, and alarms that no recipe can mend."""

    recipe: dict[str, Any]
    done: list[str]
    left: list[Finding]


def fix(recipe: Mapping[str, Any], findings: Sequence[Finding]) -> Fixed:
    """Apply the mends of all alarms, the first-named first; a later one does not undo what an earlier one has set.

    Consequences of another finding are not treated: their cause is. An assignment that the recipe would not allow is
    left out.
    """
    plain, done, left, taken = copy.deepcopy(dict(recipe)), list[str](), list[Finding](), set[str]()
    for one in findings:
        if one.severity == "note" or one.because:
            continue
        if not one.mend:
            left.append(one)
            continue
        for name in one.mend.drop:
            if name in plain["inputs"] and len(plain["inputs"]) > 1:
                del plain["inputs"][name]
                plain["data"]["unused"] = [*plain["data"].get("unused", ()), name]
                done.append(f"{one.check}: {name!r} is no longer read")
        for assignment in one.mend.settings:
            path = assignment.partition("=")[0]
            tried = override(copy.deepcopy(plain), [assignment])
            if path not in taken and tried != plain and not check(tried, complete=True):
                plain = tried
                taken.add(path)
                done.append(f"{one.check}: {assignment}")
    return Fixed(plain, done, left)


def write_fixed(fixed: Fixed, path: Path) -> Path:
    """Write the mended recipe; an existing file is not overwritten.

    Raises:
        UsageError: the file is there, or its folder is not.
    """
    if path.exists():
        raise UsageError(f"{path} is there already", mend="Name another file: --fix-to FILE.")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}")
    write_whole(path, recipes.dump(fixed.recipe).encode())
    return path
