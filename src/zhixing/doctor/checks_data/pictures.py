"""Pictures with nothing on them, and pictures far smaller or of another shape than the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...columns.image import Image
from ...columns.picture import open_picture
from ...data.batches import ColumnBatch
from ..case import SHOWN, Case
from ..finding import Finding, Mend, escaped, some_rows

__all__ = ["blank_pictures", "odd_sizes"]

LEVELS = 2.0  # of 255: pictures that vary less hold nothing


def blank_pictures(case: Case) -> Iterator[Finding]:
    """Pictures whose pixels are all about equal."""
    for name, column in case.inputs.items():
        stored = case.stored(name)
        if column.kind != "image" or not isinstance(stored, ColumnBatch):
            continue
        values, rows = stored.values.numpy(), case.usable
        spread = np.concatenate([
            values[part].reshape(len(part), -1).astype(np.float32).std(1)
            for part in np.array_split(rows, -(-len(rows) // 2048))
        ])  # fmt: skip
        blank = rows[spread < LEVELS]
        yield from some_rows(
            "blank_pictures", (f"pictures in {name!r}", "are blank"), len(blank), len(rows), (0.02, 0.002),
            sure=0.97,
            rows=[case.row(int(row), "blank", show=name) for row in blank[:SHOWN]],
            advice="Leave them out, or find out what failed when they were taken.",
        )  # fmt: skip


def odd_sizes(case: Case) -> Iterator[Finding]:
    """Pictures far smaller than most, or far longer than wide, by their own sizes (a sample of them).

    A picture a quarter as large as the size that the model reads is mostly made up when it is enlarged.
    """
    for name, column in case.inputs.items():
        if not isinstance(column, Image) or isinstance(case.table[name].type, pa.FixedShapeTensorType):
            continue
        rows = case.some(case.usable, 1500)
        sizes = np.array([size_of(case, column, name, int(row)) for row in rows], np.float64)
        known = sizes[:, 0] > 0
        if known.sum() < 10:
            continue
        yield from tiny(case, column, name, rows[known], sizes[known])
        yield from long(case, column, name, rows[known], sizes[known])


def size_of(case: Case, column: Image, name: str, row: int) -> tuple[int, int]:
    """Height and width; zeros where they cannot be read."""
    try:
        with open_picture(case.table[name][row].as_py(), case.table.locate, column.max_pixels) as picture:
            return picture.height, picture.width
    except Exception:  # decoders raise nearly anything
        return 0, 0


def tiny(
    case: Case, column: Image, name: str, rows: NDArray[np.int64], sizes: NDArray[np.float64]
) -> Iterator[Finding]:
    assert column.size is not None
    least, wanted = sizes.min(1), min(column.size)
    small = np.flatnonzero(least <= min(wanted, float(np.median(least))) / 3)
    share = len(small) / len(rows)
    if len(small):
        yield Finding(
            "odd_sizes", "fault" if share > 0.02 else "warning" if share > 0.005 and len(small) > 2 else "note",
            f"{len(small):,} of {len(rows):,} pictures in {name!r} ({share:.1%}) are tiny: a third or less of the "
            f"{wanted} pixels that the model reads, down to {least.min():.0f}",
            sure=0.93,
            evidence={"rows": len(small), "share": share, "smallest": float(least.min()), "read_at": wanted},
            rows=[
                case.row(int(rows[i]), f"{sizes[i][0]:.0f} x {sizes[i][1]:.0f} pixels", show=name)
                for i in small[:SHOWN]
            ],
            advice="Thumbnails in place of pictures? Leave them out, or get the originals.",
        )  # fmt: skip


def long(
    case: Case, column: Image, name: str, rows: NDArray[np.int64], sizes: NDArray[np.float64]
) -> Iterator[Finding]:
    shape = np.log(sizes[:, 1] / sizes[:, 0])
    odd = np.flatnonzero(np.abs(shape - np.median(shape)) > np.log(2.5))
    share = len(odd) / len(rows)
    if len(odd):
        crop = column.resize == "crop"
        yield Finding(
            "odd_sizes", "fault" if share > 0.05 else "warning" if share > 0.01 and len(odd) > 2 else "note",
            f"{len(odd):,} of {len(rows):,} pictures in {name!r} ({share:.1%}) have quite another shape than the others"
            + (": cropping loses most of them" if crop else ""),
            sure=0.9,
            evidence={"rows": len(odd), "share": share},
            rows=[
                case.row(int(rows[i]), f"{sizes[i][0]:.0f} x {sizes[i][1]:.0f} pixels", show=name) for i in odd[:SHOWN]
            ],
            mend=Mend((f"inputs.{escaped(name)}.fit=pad",)) if crop else Mend(),
            advice="Padding keeps all of a picture.",
        )  # fmt: skip
