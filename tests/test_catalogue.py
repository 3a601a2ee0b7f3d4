"""The catalogue: known data sets are what they say, and come the same way from every place."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import struct
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import zhixing.data.catalogue as catalogue
from zhixing.data.source import open_source
from zhixing.data.table import Table
from zhixing.errors import DataError, MissingExtraError

ROOT = Path(__file__).parents[1]
ASSET = Path(catalogue.__file__).with_name("assets") / "mnist.npz"
# as published with the data set
TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
# SHA-256 of the pictures and the labels in the original files, headers apart
PIXELS = {
    "train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
}


@pytest.fixture(scope="module")
def mnist() -> Table:
    return open_source("mnist")


def test_mnist_rows_splits_and_labels(mnist: Table) -> None:
    assert (mnist.name, mnist.rows, mnist.columns, mnist.split_column) == ("mnist", 70_000, ["image", "label"], "split")
    assert mnist.data["image"].type == pa.fixed_shape_tensor(pa.uint8(), [28, 28])
    counts = Counter(zip(mnist["split"].to_pylist(), mnist["label"].to_pylist(), strict=True))
    assert counts == {
        (split, str(digit)): count
        for split, expected in (("train", TRAIN), ("test", TEST))
        for digit, count in enumerate(expected)
    }
    assert mnist["label"].slice(0, 5).to_pylist() == ["5", "0", "4", "1", "9"]
    assert mnist.where(69_999) == "mnist, row 69999"


def test_mnist_pixels_are_those_of_the_original_files(mnist: Table) -> None:
    image = mnist["image"].combine_chunks().to_numpy_ndarray()
    train = np.array(mnist["split"].to_pylist()) == "train"
    assert hashlib.sha256(image[train].tobytes()).hexdigest() == PIXELS["train"]
    assert hashlib.sha256(image[~train].tobytes()).hexdigest() == PIXELS["test"]


def test_the_file_in_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    content = ASSET.read_bytes()
    assert len(content) <= 12_000_000
    assert hashlib.sha256(content).hexdigest() == catalogue.MNIST_SHA256
    licence = (ASSET.parent / "MNIST-LICENCE.md").read_text("utf-8")
    for words in (
        "CC BY-SA 3.0",
        "Yann LeCun, Corinna Cortes and Christopher J.C. Burges",
        "yann.lecun.com/exdb/mnist",
    ):
        assert words in licence
    damaged = content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
    monkeypatch.setattr(Path, "read_bytes", lambda path: damaged)
    with pytest.raises(DataError, match="not the one that was shipped"):
        open_source("catalogue:mnist")


@pytest.mark.parametrize(
    ("name", "rows", "columns", "target", "counts"),
    [
        ("digits", 1797, 2, "label", {"0": 178, "3": 183}),
        ("breast-cancer", 569, 31, "diagnosis", {"benign": 357, "malignant": 212}),
        ("wine", 178, 14, "grower", {"class_0": 59, "class_1": 71, "class_2": 48}),
        ("iris", 150, 5, "species", {"setosa": 50, "versicolor": 50, "virginica": 50}),
        ("diabetes", 442, 11, "progression", {}),
    ],
)
def test_samples(name: str, rows: int, columns: int, target: str, counts: dict[str, int]) -> None:
    table = open_source(name)
    assert (table.name, table.rows, len(table.columns)) == (name, rows, columns)
    found = Counter(table[target].to_pylist())
    assert {word: found[word] for word in counts} == counts
    assert all(column.null_count == 0 for column in table.data.columns)
    assert table.problems == []


def test_the_values_of_samples() -> None:
    iris = open_source("iris").data.slice(0, 1).to_pylist()[0]
    assert iris == {
        "sepal length (cm)": 5.1, "sepal width (cm)": 3.5, "petal length (cm)": 1.4, "petal width (cm)": 0.2,
        "species": "setosa",
    }  # fmt: skip
    digits = open_source("digits")["image"].combine_chunks().to_numpy_ndarray()
    assert (digits.shape, digits.dtype, digits.min(), digits.max()) == ((1797, 8, 8), np.uint8, 0, 255)
    assert len(np.unique(digits)) == 17
    assert set(open_source("diabetes")["age"].to_pylist()) <= set(map(float, range(19, 80)))


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZHIXING_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"zhixing\[samples\]"):
        open_source("iris")
    with pytest.raises(MissingExtraError, match=r"zhixing\[hub\]"):
        open_source("cifar10")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, train: list[int], test: list[int]) -> np.ndarray:
    folder.mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (len(train) + len(test), 28, 28), dtype=np.uint8)
    for part, pixels, labels in (("train", image[: len(train)], train), ("t10k", image[len(train) :], test)):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.array(labels)))
    return image


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZHIXING_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def test_fashion_from_a_local_folder(home: Path) -> None:
    image = write_idx(home / "fashion-mnist", [0, 9, 3], [5, 1])
    table = open_source("fashion-mnist")
    assert table["label"].to_pylist() == ["T-shirt/top", "Ankle boot", "Dress", "Sandal", "Trouser"]
    assert table["split"].to_pylist() == ["train"] * 3 + ["test"] * 2
    assert np.array_equal(np.concatenate([chunk.to_numpy_ndarray() for chunk in table["image"].chunks]), image)
    assert table.name == "fashion-mnist"


def test_labels_beyond_the_classes(home: Path) -> None:
    write_idx(home / "fashion-mnist", [0, 10], [1])
    with pytest.raises(DataError, match="labels run from 0 to 10, and there are 10 classes"):
        open_source("fashion-mnist")


def test_cifar_from_parquet_as_the_hub_lays_it_out(home: Path) -> None:
    folder = home / "cifar10" / "plain_text"
    folder.mkdir(parents=True)
    for part, labels in (("train", [3, 9]), ("test", [0])):
        picture = pa.array([{"bytes": bytes([label]), "path": None} for label in labels])
        data = pa.table({"img": picture, "label": pa.array(labels, pa.int64())})
        pa.parquet.write_table(data, folder / f"{part}-00000-of-00001.parquet")
    table = open_source("cifar10")
    assert table.columns == ["image", "label"]
    rows = dict(zip(table["split"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert rows == {"train": "truck", "test": "airplane"}
    assert sorted(table["label"].to_pylist()) == ["airplane", "cat", "truck"]
    (home / "fashion-mnist").mkdir()
    with pytest.raises(DataError, match="no idx or Parquet file of fashion-mnist"):
        open_source("fashion-mnist")


def test_class_names_of_the_hub_are_spelled_one_way() -> None:
    table = Table(pa.table({"image": [b"", b"", b""], "label": ["T - shirt / top", "Ankle boot", None]}))
    assert catalogue.name_classes(table, catalogue.FASHION)["label"].to_pylist() == ["T-shirt/top", "Ankle boot", None]


def test_known_tells_of_every_name() -> None:
    names = [name for name, _, _ in catalogue.known()]
    assert len(names) == len(set(names))
    assert {"mnist", "fashion-mnist", "cifar10", "digits", "breast-cancer", "wine", "iris", "diabetes"} == set(names)
    assert all(description and licence for _, description, licence in catalogue.known())
    with pytest.raises(DataError, match="Did you mean 'mnist'"):
        catalogue.load("mnits")


def test_make_mnist_is_deterministic_and_true(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_mnist", ROOT / "scripts" / "make_mnist.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    image = write_idx(tmp_path / "raw", [7, 2, 1], [0, 4])
    digests = {script.write(script.arrays_of(tmp_path / "raw"), tmp_path / f"{i}.npz") for i in range(2)}
    assert len(digests) == 1
    assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "1.npz").read_bytes()
    with np.load(tmp_path / "0.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["image"], image)
        assert arrays["label"].tolist() == [7, 2, 1, 0, 4]
        assert arrays["split"].tolist() == [0, 0, 0, 1, 1]
