"""Known data sets: a literal table of names.

MNIST is part of the package. Those of scikit-learn need the extra ``samples``. Fashion-MNIST and CIFAR-10 come from the
folder ``$ZHIXING_DATA/<name>`` (idx or Parquet files) if there is one, else from the hub (extra ``hub``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..errors import DataError, MissingExtraError, did_you_mean
from .source_arrow import read_arrow_folder
from .source_cells import SPLIT, from_mapping
from .source_hub import read_hub
from .source_idx import read_idx_folder
from .table import Table

__all__ = ["known", "load"]

MNIST_SHA256 = "9afe1743c08af552581ffd01d75bde65bf8571329a4dfa9b178de08080e4d63f"
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_mnist() -> Table:
    """70,000 pictures [28, 28] of digits and their names "0" to "9".

    Raises:
        DataError: the file in the package is not the one that was shipped.
    """
    content = (resources.files("zhixing.data") / "assets" / "mnist.npz").read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != MNIST_SHA256:
        raise DataError(
            f"the file is not the one that was shipped: its SHA-256 is {found}",
            place="zhixing/data/assets/mnist.npz",
            mend="Install zhixing again.",
        )
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        columns = {
            "image": arrays["image"],
            "label": named(arrays["label"], "0123456789"),
            SPLIT: named(arrays["split"], ("train", "test")),
        }
    return Table(from_mapping(columns, place="mnist"), split_column=SPLIT)


def named(numbers: np.ndarray[Any, Any], names: Sequence[str]) -> pa.Array:
    """Class numbers as the names of the classes."""
    return pa.array(list(names), pa.string()).take(pa.array(numbers.astype(np.int64)))


def samples() -> Any:
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "sklearn":
            raise
        raise MissingExtraError("scikit-learn", "samples", purpose="this data set") from error
    return datasets


def load_digits() -> Table:
    """1,797 pictures [8, 8]; their 17 levels of grey are spread over 0 to 255."""
    found = samples().load_digits()
    image = np.rint(found.images * (255 / 16)).astype(np.uint8)
    return Table(from_mapping({"image": image, "label": named(found.target, "0123456789")}, place="digits"))


def load_classes(name: str, target: str) -> Table:
    """A classification of plain numbers."""
    found = getattr(samples(), f"load_{name}")()
    columns = {str(feature): found.data[:, index] for index, feature in enumerate(found.feature_names)}
    classes = named(found.target, [str(x) for x in found.target_names])
    return Table(from_mapping({**columns, target: classes}, place=name), target=target)


def load_diabetes() -> Table:
    """442 patients in the units in which they were measured, and how the disease went on a year later."""
    found = samples().load_diabetes(scaled=False)
    columns = {str(feature): found.data[:, index] for index, feature in enumerate(found.feature_names)}
    return Table(from_mapping({**columns, "progression": found.target}, place="diabetes"), target="progression")


def load_pictures(name: str, hub: str, classes: Sequence[str]) -> Table:
    """Pictures and the names of their classes, from a local folder or the hub, with columns ``image`` and ``label``."""
    home = os.environ.get("ZHIXING_DATA")
    folder = Path(home) / name if home else None
    if folder is not None and folder.is_dir():
        table = read_idx_folder(folder) or read_arrow_folder(folder)
        if table is None:
            raise DataError(f"no idx or Parquet file of {name} is there", place=folder)
    else:
        table = read_hub(hub)
    return name_classes(table, classes)


def name_classes(table: Table, classes: Sequence[str]) -> Table:
    """The same names of columns and classes, whichever way the data set came."""
    names = {"img": "image", "fine_label": "label"}
    table.data = table.data.rename_columns([names.get(column, column) for column in table.data.column_names])
    if missing := {"image", "label"} - set(table.columns):
        raise DataError(f"no column {' or '.join(map(repr, sorted(missing)))}", place=table.base or table.name)
    label = table["label"]
    if pa.types.is_integer(label.type):
        numbers = label.to_numpy()
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < len(classes)):
            raise DataError(
                f"labels run from {numbers.min()} to {numbers.max()}, and there are {len(classes)} classes",
                place=table.base or table.name,
            )
        column = named(numbers, classes)
    else:
        spelled = {squeeze(word): word for word in classes}
        column = pa.array(
            [spelled.get(squeeze(word), word) if word else word for word in label.to_pylist()], pa.string()
        )
    table.data = table.data.set_column(table.data.column_names.index("label"), "label", column)
    return table


def squeeze(word: str) -> str:
    """The hub writes ``T - shirt / top``."""
    return word.replace(" ", "").lower()


class Entry(NamedTuple):
    description: str
    licence: str
    load: Callable[[], Table]


CATALOGUE = {
    "mnist": Entry("70,000 handwritten digits, 28 x 28 grey; 60,000 train, 10,000 test", "CC BY-SA 3.0", load_mnist),
    "fashion-mnist": Entry(
        "70,000 pieces of clothing, 28 x 28 grey, 10 classes; 60,000 train, 10,000 test",
        "MIT",
        lambda: load_pictures("fashion-mnist", "zalando-datasets/fashion_mnist", FASHION),
    ),
    "cifar10": Entry(
        "60,000 photographs, 32 x 32 colour, 10 classes; 50,000 train, 10,000 test",
        "none stated",
        lambda: load_pictures("cifar10", "uoft-cs/cifar10", CIFAR10),
    ),
    "digits": Entry("1,797 handwritten digits, 8 x 8 grey", "CC BY 4.0", load_digits),
    "breast-cancer": Entry(
        "569 tumours by 30 measures of their cells: malignant or benign",
        "CC BY 4.0",
        lambda: load_classes("breast_cancer", "diagnosis"),
    ),
    "wine": Entry(
        "178 wines by 13 chemical measures: which of 3 growers", "CC BY 4.0", lambda: load_classes("wine", "grower")
    ),
    "iris": Entry("150 flowers by 4 lengths: which of 3 species", "CC BY 4.0", lambda: load_classes("iris", "species")),
    "diabetes": Entry("442 patients by 10 measures: progression in a year", "none stated", load_diabetes),
}


def known() -> list[tuple[str, str, str]]:
    """(name, description, licence) of each data set.

    >>> known()[0][0]
    'mnist'
    """
    return [(name, entry.description, entry.licence) for name, entry in CATALOGUE.items()]


def load(name: str) -> Table:
    """The data set of this name.

    Raises:
        DataError: no such name, or a damaged file.
        MissingExtraError: a library is needed that is not installed.
    """
    if name not in CATALOGUE:
        raise DataError(f"no data set is called {name!r}", place="catalogue", mend=did_you_mean(name, CATALOGUE))
    table = CATALOGUE[name].load()
    table.name = name
    table.place = lambda row: f"{name}, row {row}"
    return table
