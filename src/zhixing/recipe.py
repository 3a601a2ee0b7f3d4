"""The recipe: every setting, typed and validated, in one YAML file.

The types are derived from the signatures of what the settings configure (:mod:`zhixing.settings`); this module joins
them and says all that is wrong at once. Files are read and written by :mod:`zhixing.recipe_file`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model

from .columns import COLUMNS
from .columns.augment import AUGMENTS
from .data.reshape import RESHAPES
from .data.split import SplitSettings
from .data.table import Table
from .errors import RecipeError
from .fusion import FUSIONS
from .heads.decoders import DECODERS
from .heads.objective import OBJECTIVES
from .layers.initialise import Scheme
from .models import encoders_for
from .models.prompt import Prompt
from .pretraining import ALL_HEADS, PRETEXTS, column_class
from .recipe_errors import lines_of
from .recipe_file import built_in, dump, load, override, parse
from .settings import Settings, choice, parameters_of, settings_of, table_choice
from .training.optimizers import OPTIMIZERS
from .training.schedules import SCHEDULES
from .training.tuning import TUNINGS

__all__ = [
    "EVERY",
    "DataSettings",
    "Recipe",
    "TrainingSettings",
    "built_in",
    "check",
    "dump",
    "json_schema",
    "load",
    "override",
    "parse",
    "recipe_of",
    "reshaped",
]

EVERY = "*"  # in place of a column's name: settings for all columns that the type of these settings fits

DEFAULT_ENCODERS: dict[str, Any] = {
    "image": {"name": "cnn"},
    "vector": {"name": "mlp", "widths": []},  # a few numbers go to the fusion as they are
    "ids": {"name": "embedding"},
    "tokens": {"name": "transformer"},
    "sequence": {"name": "gru"},
    "audio": {"name": "conformer"},
    "history": {"name": "sasrec"},
}


class Custom:
    """An encoder that was passed in from Python; to use the run again, the same has to be passed in again."""

    def __init__(self, *, module: Annotated[str, Field(description="its class, for people")] = "") -> None: ...


class DataSettings(Settings):
    """Where the table comes from and how its rows are used."""

    source: Annotated[str, Field(description="a path, a name of the catalogue, or hub:NAME")]
    reshape: Any = None  # gets its type, from the table of what there is, in data_model
    split: SplitSettings = SplitSettings()
    on_error: Annotated[
        Literal["auto", "stop", "skip"],
        Field(description="what broken rows do; auto: stop where more than 1 % are broken, else leave them out"),
    ] = "auto"
    unused: Annotated[tuple[str, ...], Field(description="columns that are left out")] = ()
    others: Annotated[
        Literal["auto", "read", "unused"],
        Field(description="columns that are not named; auto: read where no inputs are named, else unused"),
    ] = "auto"


def named(table: Mapping[str, Any], default: str) -> Any:
    return table_choice(tuple(table), tuple(table.values()), default)


@cache
def data_model() -> type[DataSettings]:
    told = "how the table becomes the one that is learned from: a log, rows of histories; a long series, windows"
    return create_model(
        "DataSettings",
        __base__=DataSettings,
        __doc__=DataSettings.__doc__,
        reshape=(reshape_choice() | None, Field(default=None, description=told)),
    )


def reshape_choice() -> Any:
    return table_choice(tuple(RESHAPES), tuple(RESHAPES.values()))


def reshaped(table: Table, raw: Mapping[str, Any], *, ask: bool = False) -> Table:
    """The table as the recipe's plain data want it; ``ask``: with what is read to predict what comes after its rows.

    Raises:
        RecipeError: the settings of the reshape are wrong.
        DataError: the table has not what it needs.
    """
    data = raw.get("data")
    chosen = data.get("reshape") if isinstance(data, Mapping) else None
    if chosen is None:
        return with_pretexts(table, raw)
    problems = [line for line in check(raw) if line.startswith("data.reshape")]
    if problems:
        raise RecipeError(problems)
    settings = TypeAdapter(reshape_choice()).validate_python(chosen)
    reshape = RESHAPES[settings.name](**settings.keywords())
    return reshape.ask(table) if ask else with_pretexts(reshape.apply(table), raw)


def with_pretexts(table: Table, raw: Mapping[str, Any]) -> Table:
    """The table with a column of nulls for each output whose truth is made of the input, and that it thus lacks."""
    outputs = raw.get("outputs")
    for name, settings in outputs.items() if isinstance(outputs, Mapping) else ():
        kind = settings.get("type") if isinstance(settings, Mapping) else settings
        if kind in PRETEXTS and PRETEXTS[kind].invents and name not in table.data.column_names:
            table = replace(table, data=table.data.append_column(name, pa.nulls(table.rows)))
    return table


class Pretrained(Settings):
    """The published model, or the run, whose weights a column's encoder or decoder starts from. Written by
    `encoder: ./FOLDER`."""

    source: Annotated[str, Field(description="its folder or file, or its name on the hub")]
    sha256: Annotated[str, Field(description="of its files")]
    allow_pickle: Annotated[bool, Field(description="read a pickle too, with weights_only")] = False
    language: Annotated[str | None, Field(description="that it writes, as en or zh, where it knows several")] = None
    column: Annotated[str | None, Field(description="of a run: the column whose encoder it is")] = None


PRETRAINED = Field(default=None, description="the weights that it starts from; open: none")


class EarlyStopping(Settings):
    """Stop when the validation score no longer improves."""

    patience: Annotated[int, Field(ge=1, description="validations without a better score")] = 5
    min_delta: Annotated[float, Field(ge=0, description="a smaller improvement does not count")] = 0.0


class TrainingSettings(Settings):
    """How the model learns."""

    epochs: Annotated[float, Field(gt=0, description="times that each training row is seen")] = 5
    tokens: Annotated[
        int | None, Field(ge=1, description="tokens of texts to be learned from, in place of epochs; open: by epochs")
    ] = None
    batch_size: Annotated[int, Field(ge=1, description="rows in a step")] = 128
    micro_batch: Annotated[
        int | None, Field(ge=1, description="rows worked through at a time; open: all of a batch")
    ] = None
    optimizer: Any = None  # these three get their types, from the tables of what there is, in training_model
    schedule: Any = None
    fine_tuning: Any = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], Field(description="auto: what the hardware does fast")
    ] = "auto"
    clip: Annotated[float | None, Field(gt=0, description="largest norm of the gradient")] = None
    l1: Annotated[float, Field(ge=0, description="strength of the L1 penalty on weights")] = 0.0
    average: Annotated[
        float | None, Field(gt=0, lt=1, description="decay of a moving average of the weights, such as 0.999")
    ] = None
    oversample: Annotated[bool, Field(description="draw the rows of each class equally often")] = False
    early_stopping: Annotated[
        EarlyStopping | None, Field(description="when to stop before all epochs are over; open: never")
    ] = None
    keep: Annotated[
        Literal["best", "last"], Field(description="which weights: of the best validation, or the last")
    ] = "best"
    initialisation: Annotated[Scheme, Field(description="how weights start")] = "default"
    compile: Annotated[bool, Field(description="torch.compile: slow to start, then faster Transformers")] = False
    threads: Annotated[
        int | None, Field(ge=1, description="CPU threads; results differ with their number; open: all cores")
    ] = None
    log_every: Annotated[int, Field(ge=1, description="steps between two lines of the log")] = 50
    validate_every: Annotated[int | None, Field(ge=1, description="steps; open: after each epoch")] = None
    checkpoint_every: Annotated[int | None, Field(ge=1, description="steps; open: every 30 seconds")] = None
    keep_checkpoints: Annotated[int, Field(ge=1, description="how many good ones stay")] = 2


@cache
def training_model() -> type[TrainingSettings]:
    return create_model(
        "TrainingSettings",
        __base__=TrainingSettings,
        __doc__=TrainingSettings.__doc__,
        optimizer=(
            named(OPTIMIZERS, "adamw"),
            Field(default="adamw", description="what turns gradients into steps"),
        ),
        schedule=(
            named(SCHEDULES, "one_cycle"),
            Field(default="one_cycle", description="the learning rate over time"),
        ),
        fine_tuning=(
            named(TUNINGS, "full") | None,
            Field(default=None, description="what learns of parts that start from published weights; open: all"),
        ),
    )


def input_settings(kind: str) -> type[Settings]:
    """Settings of an input column: those of its type, its encoder, and for pictures its augmentation."""
    column = COLUMNS[kind]
    default = DEFAULT_ENCODERS.get(kind) or DEFAULT_ENCODERS[column.kind]
    encoders = {
        **{name: settings_of(encoder, name=name) for name, encoder in encoders_for(column.kind).items()},
        "custom": settings_of(Custom, name="custom"),
    }
    if kind == "text":
        encoders["prompt"] = settings_of(Prompt, name="prompt")
    extra: dict[str, Any] = {
        "encoder": (
            choice(encoders, default=default),
            Field(default=default, description="what reads the column"),
        )
    }
    extra["pretrained"] = (Pretrained | None, PRETRAINED)
    if kind in AUGMENTS:
        extra["augment"] = (
            named(AUGMENTS[kind], "custom"),
            Field(default={"name": "none"}, description="random changes while training"),
        )
    return settings_of(column, name=kind, tag="type", extra=extra)


def output_settings(kind: str) -> type[Settings]:
    """Settings of an output column: those of its type and of its head."""
    extra = parameters_of(ALL_HEADS[kind])
    if kind == "text":
        extra["decoder"] = (
            named(DECODERS, "transformer"),
            Field(
                default="transformer", description="what writes the text; ctc: one token or none a step of the input"
            ),
        )
        extra["loss"] = (
            named(OBJECTIVES, "likelihood") | None,
            Field(default=None, description="what texts are trained for; open: dpo for pairs, else likelihood"),
        )
        extra["pretrained"] = (Pretrained | None, PRETRAINED)
    extra["importance"] = (Annotated[float, Field(gt=0, description="how much its loss counts beside others")], 1.0)
    return settings_of(column_class(kind), name=kind, tag="type", extra=extra)


@cache
def recipe_model() -> type[BaseModel]:
    """The whole recipe as one pydantic model."""
    inputs = {kind: input_settings(kind) for kind in COLUMNS}
    outputs = {kind: output_settings(kind) for kind in ALL_HEADS}
    input_type, output_type = choice(inputs, tag="type"), choice(outputs, tag="type")
    fields: dict[str, Any] = {
        "data": (data_model(), Field(description="where the table comes from and how its rows are used")),
        "inputs": (dict[str, input_type], Field(default={}, description="columns that the model reads")),  # type: ignore[valid-type]
        "outputs": (dict[str, output_type], Field(min_length=1, description="columns to predict")),  # type: ignore[valid-type]
        "fusion": (
            named(FUSIONS, "concat"),
            Field(default="concat", description="how several inputs become one"),
        ),
        "training": (training_model(), Field(default={}, description="how the model learns")),
        "seed": (int, Field(default=0, ge=0, lt=2**63, description="all randomness follows from it")),
        # Of no effect on a run, so no run's recipe has it.
        "tune": (
            dict[str, str | tuple[Any, ...]],
            Field(default={}, exclude=True, description="settings that `zhixing tune` varies; open: those that matter"),
        ),
    }
    return create_model("Recipe", __base__=Settings, __doc__="Every setting of a run.", **fields)


class Recipe:
    """A complete, valid recipe. Attributes: ``data``, ``inputs``, ``outputs``, ``fusion``, ``training``, ``seed``,
    ``tune``."""

    data: DataSettings
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    fusion: Any
    training: TrainingSettings
    seed: int
    tune: dict[str, Any]

    def __init__(self, raw: Mapping[str, Any], *, place: object = None) -> None:
        problems = check(raw, complete=True)
        if problems:
            raise RecipeError(problems, place=place)
        model = recipe_model().model_validate(raw)
        for name in type(model).model_fields:
            setattr(self, name, getattr(model, name))
        self.model = model

    def plain(self) -> dict[str, Any]:
        """The recipe as plain data, with every default written out."""
        return self.model.model_dump(mode="json")


def recipe_of(raw: Mapping[str, Any], *, place: object = None) -> Recipe:
    """A recipe from plain data. Raises :class:`RecipeError` with all that is wrong."""
    return Recipe(raw, place=place)


def check(raw: Mapping[str, Any], *, complete: bool = False) -> list[str]:
    """All that is wrong with a recipe, a line each. Unless ``complete``, columns may still lack their type."""
    subject = dict(raw)
    if not complete:
        for part in ("inputs", "outputs"):
            columns = subject.get(part)
            if isinstance(columns, Mapping):
                subject[part] = {
                    name: value
                    for name, value in columns.items()
                    if isinstance(value, str) or (isinstance(value, Mapping) and "type" in value)
                }
        subject.setdefault("data", {"source": "?"})
        if isinstance(subject["data"], Mapping):
            subject["data"] = {"source": "?"} | dict(subject["data"])
        if not subject.get("outputs"):
            subject["outputs"] = {"?": {"type": "number"}}
    problems = [f"inputs.{name}: this column is to be predicted, so it cannot be read" for name in both(subject)]
    try:
        recipe_model().model_validate(subject)
    except ValidationError as error:
        problems += lines_of(error, subject, recipe_model())
    return problems


def both(raw: Mapping[str, Any]) -> list[str]:
    """Columns that are named as inputs and as outputs."""
    inputs, outputs = raw.get("inputs"), raw.get("outputs")
    if not (isinstance(inputs, Mapping) and isinstance(outputs, Mapping)):
        return []
    return [name for name in inputs if name in outputs and name != EVERY]


def json_schema() -> str:
    """The JSON schema of a recipe as a person writes it, for editors: what the table decides may be left out."""
    schema = recipe_model().model_json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    schema.pop("required", None)  # data and outputs may come from the command line
    schema["$defs"]["DataSettings"].pop("required", None)
    for part in ("inputs", "outputs"):
        schema["properties"][part]["additionalProperties"]["anyOf"].append({"type": "null"})  # a name alone
    return json.dumps(schema, indent=1, ensure_ascii=False)
