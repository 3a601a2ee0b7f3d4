"""What all tests share: one thread, a cache of their own, and a small model with its batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from zhixing.columns import Column
from zhixing.data.batches import Batches, ColumnBatch, Order
from zhixing.data.prepare import prepare
from zhixing.data.source import open_source
from zhixing.data.split import split
from zhixing.model import Model
from zhixing.recipe import Recipe
from zhixing.run import build_model, make_columns
from zhixing.training.checkpoint import Writer
from zhixing.training.loop import Hooks, Loop, Options
from zhixing.training.optimizers import OPTIMIZERS
from zhixing.training.precision import Precision
from zhixing.training.schedules import SCHEDULES, Schedule

# The default suite tries the same examples each time, so that what passes once passes again; HYPOTHESIS_PROFILE=new
# (make test-slow) tries others.
settings.register_profile("same", derandomize=True)
settings.register_profile("new", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Encoded columns are kept in a folder of this session, which other processes that it starts share."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("ZHIXING_CACHE")
    os.environ["ZHIXING_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["ZHIXING_CACHE"]
    else:
        os.environ["ZHIXING_CACHE"] = before


@pytest.fixture(scope="session")
def digits() -> dict[str, list[Any]]:
    """Pictures of digits, 8 x 8, with their labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return {
        "picture": list((found.images[:200] * 15.9).astype(np.uint8)),
        "label": found.target[:200].astype(str).tolist(),
    }


@dataclass
class Bench:
    """A small model, its rows, and loops over them, all from one recipe."""

    recipe: Recipe
    columns: dict[str, Column]
    tensors: dict[str, ColumnBatch]
    rows: np.ndarray[Any, Any]
    dtype: torch.dtype = torch.float32
    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "adamw"})

    def model(self) -> Model:
        """The model as it starts: the same weights each time."""
        return build_model(self.recipe, self.columns).to(self.dtype)

    def batches(self) -> Batches:
        def cast(x: torch.Tensor) -> torch.Tensor:
            return x.to(self.dtype) if x.is_floating_point() else x

        return Batches({name: column.each(cast) for name, column in self.tensors.items()}, torch.device("cpu"))

    def loop(
        self,
        *,
        batch_size: int = 16,
        schedule: Schedule | None = None,
        precision: str = "fp32",
        seed: int = 0,
        writer: Writer | None = None,
        hooks: Hooks | None = None,
        **options: Any,
    ) -> Loop:
        model = self.model()
        settings = {key: value for key, value in self.optimizer.items() if key != "name"}
        return Loop(
            model,
            OPTIMIZERS[self.optimizer["name"]](model, **settings),
            schedule or SCHEDULES["constant"](),  # type: ignore[call-arg]
            self.batches(),
            Order(self.rows, batch_size, seed=seed),
            Options(**{"total_steps": 12, "validate_every": 10**6, "log_every": 4, **options}),
            Precision(precision, "asked for"),
            seed=seed,
            hooks=hooks,
            writer=writer,
        )


@pytest.fixture(scope="session")
def bench() -> Callable[..., Bench]:
    """Makes a :class:`Bench` from columns of values and their settings."""

    def make(
        data: Mapping[str, Any],
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        *,
        dtype: torch.dtype = torch.float32,
        **optimizer: Any,
    ) -> Bench:
        table = open_source(dict(data))
        plain = {"data": {"source": "memory", "split": {"train": 1.0, "validation": 0.0, "test": 0.0, "by": "random"}}}
        recipe = Recipe({**plain, "inputs": dict(inputs), "outputs": dict(outputs)})
        columns = make_columns(recipe)
        prepared = prepare(table, columns, split(table, recipe.data.split, 0), cache=None, on_error="skip")
        given = {"name": "adamw", **optimizer}
        return Bench(recipe, columns, prepared.columns, prepared.split["train"], dtype, given)

    return make


@pytest.fixture(scope="session")
def pictures(bench: Callable[..., Bench], digits: dict[str, list[Any]]) -> Callable[..., Bench]:
    """A small network with convolutions, batch normalisation and dropout on pictures of digits."""
    encoder = {"name": "cnn", "layers": [6, "pool", 6], "dense": [16], "batch_norm": True, "dropout": 0.25}

    def make(
        *, dtype: torch.dtype = torch.float32, encoder_settings: Mapping[str, Any] = encoder, **optimizer: Any
    ) -> Bench:
        inputs = {"picture": {"type": "image", "encoder": dict(encoder_settings)}}
        return bench(digits, inputs, {"label": {"type": "category"}}, dtype=dtype, **optimizer)

    return make


def same_bits(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are equal to the bit, NaN and signed zeros included."""
    if one.keys() != other.keys():
        return False

    def raw(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().contiguous().reshape(-1).view(torch.uint8)

    return all(
        tensor.dtype == other[name].dtype and torch.equal(raw(tensor), raw(other[name])) for name, tensor in one.items()
    )


@pytest.fixture(scope="session")
def everything() -> Callable[[Loop], dict[str, torch.Tensor]]:
    """Copies of all that a loop changes, by name."""

    def of(loop: Loop) -> dict[str, torch.Tensor]:
        groups = loop.checkpoint().tensors
        return {f"{group}/{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}

    return of
