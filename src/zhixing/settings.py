"""Settings stand in signatures; everything else about them is derived here.

A setting is a keyword-only parameter of the class or function that it configures::

    class MLP(Encoder):
        def __init__(self, spec: Spec, *, width: Annotated[int, Field(description="units", ge=1)] = 64)

A class that shares a whole set of settings with others takes them together, as ``**block: Annotated[Any, Blocks]`` with
a :class:`Settings` class; each of its fields is a setting like the others.

From that signature come its validation, its line in a commented recipe, its place in the JSON schema and its default.
Nothing is written down twice.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Tag, create_model
from pydantic import Discriminator as PydanticDiscriminator

__all__ = ["Settings", "choice", "parameters_of", "settings_of", "table_choice"]


class Settings(BaseModel):
    """Base of every settings object: unknown names are errors, numbers are finite, nothing changes afterwards."""

    model_config = ConfigDict(
        extra="forbid",
        validate_default=True,
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        coerce_numbers_to_str=True,  # YAML takes a column called 2019 for a number
    )

    def keywords(self) -> dict[str, Any]:
        """The settings as keyword arguments, without the name or type that chose them."""
        return {key: getattr(self, key) for key in type(self).model_fields if key not in ("name", "type")}


def parameters_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Keyword-only parameters of a class or function as pydantic field definitions, those taken together included."""
    function = target.__init__ if inspect.isclass(target) else target
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (hints[name], default)
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            for shared in getattr(hints.get(name), "__metadata__", ()):
                types = get_type_hints(shared, include_extras=True)
                fields |= {key: (types[key], field.default) for key, field in shared.model_fields.items()}
    return fields


def first_paragraph(target: Callable[..., Any]) -> str:
    return (inspect.getdoc(target) or "").split("\n\n")[0].replace("\n", " ")


def settings_of(
    target: Callable[..., Any], *, name: str, tag: str = "name", extra: Mapping[str, Any] | None = None
) -> type[Settings]:
    """The settings model of one class or function, with a literal ``tag`` field that names it.

    ``extra`` adds fields that belong to the same mapping in a recipe but configure something else (the encoder of an
    input column, the loss of an output column).
    """
    return made(target, name, tag) if extra is None else make(target, name, tag, extra)


def make(target: Callable[..., Any], name: str, tag: str, extra: Mapping[str, Any]) -> type[Settings]:
    fields: dict[str, Any] = {tag: (Literal[name], name), **parameters_of(target), **extra}
    model: type[Settings] = create_model(
        f"{name}_settings", __base__=Settings, __doc__=first_paragraph(target), **fields
    )
    return model


@cache
def made(target: Callable[..., Any], name: str, tag: str) -> type[Settings]:
    """Made once for all columns that have this choice, since making one takes some milliseconds."""
    return make(target, name, tag, {})


class Spelled:
    """Marks a choice whose JSON schema is to allow what is spelled out here: a bare name, or settings without one."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        schema = handler(core)
        options = schema.get("oneOf") or [schema]
        return {"anyOf": [{"enum": self.names}, *options]}


def choice(models: Mapping[str, type[Settings]], *, tag: str = "name", default: Mapping[str, Any] | None = None) -> Any:
    """The type "one of these, told apart by ``tag``"; a bare name stands for a mapping with that name alone.

    A mapping without a name changes settings of ``default``.
    """

    def spell_out(value: Any) -> Any:
        if isinstance(value, str):
            return {tag: value}
        if default is not None and isinstance(value, Mapping) and tag not in value:
            return {**default, **value}
        return value

    def tag_of(value: Any) -> str | None:
        found = value.get(tag) if isinstance(value, Mapping) else getattr(value, tag, None)
        return found if isinstance(found, str) else None

    marks = (BeforeValidator(spell_out), Spelled(models))
    if len(models) == 1:
        return Annotated[(next(iter(models.values())), *marks)]
    options: Any = Union[tuple(Annotated[model, Tag(name)] for name, model in models.items())]  # noqa: UP007
    return Annotated[(options, Field(discriminator=PydanticDiscriminator(tag_of)), *marks)]


@cache
def table_choice(names: tuple[str, ...], targets: tuple[Callable[..., Any], ...], default: str | None = None) -> Any:
    """:func:`choice` over a literal table of classes, made once."""
    models = {name: settings_of(target, name=name) for name, target in zip(names, targets, strict=True)}
    return choice(models, default=None if default is None else {"name": default})
