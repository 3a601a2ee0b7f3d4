"""Settings stand in signatures: their validation, defaults and descriptions are derived from there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, create_model

from zhixing.columns import COLUMNS
from zhixing.columns.augment import AUGMENTS
from zhixing.fusion import FUSIONS
from zhixing.heads import HEADS
from zhixing.models import ENCODERS
from zhixing.settings import Settings, choice, parameters_of, settings_of
from zhixing.training.optimizers import OPTIMIZERS
from zhixing.training.schedules import SCHEDULES


class Dense:
    """Fully connected. More is said here.

    And here.
    """

    def __init__(
        self,
        spec: int,
        *,
        units: Annotated[int, Field(ge=1, description="how many")] = 64,
        kind: Literal["wide", "deep"] = "wide",
    ) -> None: ...


def tiny(*, rate: Annotated[float, Field(gt=0)]) -> None:
    """Hardly anything."""


def test_only_keywords_are_settings_and_they_keep_defaults_bounds_and_words() -> None:
    model: Any = settings_of(Dense, name="dense")
    assert list(model.model_fields) == ["name", "units", "kind"]
    assert model.__doc__ == "Fully connected. More is said here."
    assert model().keywords() == {"units": 64, "kind": "wide"}
    assert model.model_fields["units"].description == "how many"
    for wrong in ({"units": 0}, {"kind": "tall"}, {"unit": 3}, {"name": "other"}):
        with pytest.raises(ValidationError):
            model(**wrong)
    with pytest.raises(ValidationError, match="frozen"):
        model().units = 3


def test_a_setting_without_default_has_to_be_given() -> None:
    model: Any = settings_of(tiny, name="tiny")
    assert model(rate="3e-4").rate == 3e-4
    for wrong in ({}, {"rate": 0}, {"rate": float("inf")}, {"rate": float("nan")}):
        with pytest.raises(ValidationError):
            model(**wrong)


@pytest.fixture(params=[None, {"name": "dense"}])
def holder(request: pytest.FixtureRequest) -> type[BaseModel]:
    models = {"dense": settings_of(Dense, name="dense"), "tiny": settings_of(tiny, name="tiny")}
    made: type[BaseModel] = create_model("Holder", __base__=Settings, part=(choice(models, default=request.param), ...))
    made.model_config["title"] = "dense" if request.param else "none"
    return made


def test_a_choice_by_name_alone_by_mapping_and_by_default(holder: Any) -> None:
    assert holder(part="dense").part.units == 64
    assert holder(part={"name": "dense", "units": "3"}).part.units == 3
    assert holder(part={"name": "tiny", "rate": 1}).part.rate == 1.0
    assert holder.model_validate(holder(part="dense").model_dump()) == holder(part="dense")
    for wrong in ("tiny", "dens", {"name": "tiny", "units": 3}, 7, None, {"name": 3}):
        with pytest.raises(ValidationError):
            holder(part=wrong)
    if holder.model_config["title"] == "dense":
        assert holder(part={"units": 5}).part.units == 5
    else:
        with pytest.raises(ValidationError):
            holder(part={"units": 5})


def test_a_choice_of_one_is_told_by_its_name_too() -> None:
    one: Any = create_model("One", __base__=Settings, part=(choice({"dense": settings_of(Dense, name="dense")}), ...))
    assert one(part="dense").part.name == "dense"
    with pytest.raises(ValidationError):
        one(part="tiny")


PARTS = {**COLUMNS, **HEADS, **FUSIONS, **ENCODERS, **OPTIMIZERS, **SCHEDULES, **AUGMENTS["image"]}


@pytest.mark.parametrize("name", list(PARTS))
def test_every_registered_part_has_sound_defaults_and_a_line_of_its_own(name: str) -> None:
    model: Any = settings_of(PARTS[name], name=name)
    assert len(model.__doc__) > 8
    assert model(name=name).model_dump(mode="json")["name"] == name
    assert set(parameters_of(PARTS[name])) == set(model.model_fields) - {"name"}
