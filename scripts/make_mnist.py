"""Make ``mnist.npz`` of the package from the four original idx files.

The same files give the same bytes: members stand in a fixed order with a fixed date. (Another release of zlib may
compress otherwise; the arrays are the same then, the SHA-256 in the catalogue is not.)

    python scripts/make_mnist.py FOLDER [OUTPUT]
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from zhixing.data.source_idx import read_idx_folder
from zhixing.errors import ZhixingError

OUTPUT = Path(__file__).parents[1] / "src" / "zhixing" / "data" / "assets" / "mnist.npz"
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    """``image``, ``label`` and ``split`` (0 train, 1 test), training rows first."""
    table = read_idx_folder(folder)
    if table is None or table.split_column is None or "label" not in table.columns:
        raise SystemExit(f"{folder}: no idx files of pictures and labels for train and test")
    image = np.concatenate([chunk.to_numpy_ndarray() for chunk in table["image"].chunks])
    split = np.array(table[table.split_column].to_pylist()) == "test"
    return {"image": image, "label": table["label"].to_numpy().astype(np.uint8), "split": split.astype(np.uint8)}


def write(arrays: dict[str, np.ndarray], output: Path) -> str:
    """Write the archive; its SHA-256."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            content = BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # as on Unix, wherever it is made
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content.getvalue(), compresslevel=9)
    output.write_bytes(packed.getvalue())
    return hashlib.sha256(packed.getvalue()).hexdigest()


def main() -> None:
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    output = Path(sys.argv[2]) if len(sys.argv) == 3 else OUTPUT
    try:
        digest = write(arrays_of(Path(sys.argv[1])), output)
    except ZhixingError as error:
        raise SystemExit(str(error)) from error
    print(f"{output}: {output.stat().st_size} bytes, SHA-256 {digest}")


if __name__ == "__main__":
    main()
