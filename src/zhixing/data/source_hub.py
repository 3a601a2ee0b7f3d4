"""Data sets from the Hugging Face hub, through its ``datasets`` library (the extra ``hub``)."""

from __future__ import annotations

import inspect
import re
from typing import Any

from ..errors import DataError, MissingExtraError
from .source_arrow import join, with_class_names
from .source_cells import SPLIT_ORDER, mark_split, split_of, tidy
from .table import Problem, Table

__all__ = ["read_hub"]

NAME = re.compile(r"(?P<name>\w[\w.-]*(/\w[\w.-]*)?)(:(?P<config>[\w.+-]+))?")


def read_hub(source: str) -> Table:
    """A table from ``owner/name``, or ``owner/name:configuration``, of the hub.

    Splits called train, validation (or the like) and test make a split column. Other splits beside them
    (``unsupervised``) are left out; each is told of in ``problems``. Code that comes with a data set is never run.

    Raises:
        MissingExtraError: the library is not installed.
        DataError: a malformed name, a data set that the hub does not give (no network, no such name, needs code).
    """
    match = NAME.fullmatch(source)
    if match is None:
        raise DataError(
            f"{source!r} is no name on the hub", mend="Write hub:owner/name or hub:owner/name:configuration."
        )
    try:
        import datasets
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise MissingExtraError("datasets", "hub", purpose=f"hub:{source}") from error
    # versions before 4 would run code where an environment variable says so; later ones cannot, and lack the argument
    options = {"trust_remote_code": False} if "trust_remote_code" in parameters(datasets.load_dataset) else {}
    try:
        found = datasets.load_dataset(match["name"], match["config"], **options)
    except Exception as error:  # of several libraries: network, hub, parsing
        raise DataError(
            f"the hub did not give it: {type(error).__name__}: {error}",
            place=f"hub:{source}",
            mend="Check the name and the network, or fetch its Parquet files and give their folder.",
        ) from error
    name = match["name"].rpartition("/")[2]
    if not isinstance(found, dict):
        return part(found, f"hub:{source}", name)
    splits = {key: known for key in found if (known := split_of(str(key)))}
    if len(found) == 1:
        ((key, only),) = found.items()
        return part(only, f"hub:{source}, {key}", name)
    if not splits:
        told = ", ".join(map(repr, found))
        raise DataError(f"its parts are {told}, none of them train, validation or test", place=f"hub:{source}")
    order = sorted(splits, key=lambda key: SPLIT_ORDER.index(splits[key]))
    parts = [(splits[key], part(found[key], f"hub:{source}, {key}", name)) for key in order]
    table = join(parts, name=name, base=None)
    for key in sorted(found.keys() - splits.keys()):
        reason = f"{found[key].num_rows} rows of a part that is not train, validation or test are left out"
        table.problems.append(Problem(table.rows, "", f"hub:{source}, {key}", reason))
    return table


def parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def part(found: Any, place: str, name: str) -> Table:
    data = tidy(with_class_names(found.with_format("arrow")[:], found.features.to_dict()), place=place)
    data, split = mark_split(data)
    return Table(data, name=name, split_column=split, place=lambda row: f"{place}, row {row}")
