"""The OpenAPI document of a server, from its runs' own columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import __version__
from .predict import WORDS
from .served import Served
from .settings import Limits, Settings

__all__ = ["document"]

Schema = dict[str, Any]
ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "place": {"type": "string"},
                "mend": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
            },
            "required": ["message"],
        }
    },
    "required": ["error"],
}
ROW_ERROR: Schema = {
    "type": "object",
    "properties": {"message": {"type": "string"}, "column": {"type": ["string", "null"]}},
    "required": ["message", "column"],
}
ANSWER: Schema = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "milliseconds": {"type": "number", "minimum": 0},
        "rows": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "answer": {"type": "object"},
                    "probabilities": {"type": "object"},
                    "details": {"type": "object"},
                    "explanation": {"type": "object"},
                    "error": ROW_ERROR,
                },
                "oneOf": [{"required": ["answer"]}, {"required": ["error"]}],
            },
        },
    },
    "required": ["model", "rows", "milliseconds"],
}
REFUSALS = {
    400: "The request is malformed.",
    401: "A token is needed.",
    403: "The Host or Origin is none of this server's.",
    404: "There is no such model.",
    413: "The request is too large.",
    415: "The type or encoding of the body is not taken.",
    422: "The request is not what the schema says, or no row can be used.",
    429: "Too much is waiting; Retry-After says when to come again.",
    503: "The server is leaving, or has no memory left for the body.",
}
NUMBER, FLAG = {"type": "number"}, {"type": "boolean"}


def document(runs: Iterable[Served], settings: Settings) -> Schema:
    """OpenAPI 3.1, with the type, range and an example of every field."""
    runs = list(runs)
    paths: Schema = {
        "/v1/predict": {"post": predict(runs, settings)},
        "/v1/models": {"get": plain("The models that are served.", {"type": "object", "required": ["models"]})},
        "/health": {"get": plain("Whether the process lives.", status())},
        "/ready": {"get": plain("Whether requests should be sent here.", status())},
        "/metrics": {
            "get": {
                "summary": "Counters, as Prometheus reads them.",
                "responses": {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}
                | refusals(401, 403),
            }
        },
    }
    if any(one.generates for one in runs):
        paths["/v1/completions"] = {"post": completions(runs, settings)}
    if any(one.chats for one in runs):
        paths["/v1/chat/completions"] = {"post": chat(runs, settings)}
    out: Schema = {"openapi": "3.1.0", "info": {"title": "Zhixing", "version": __version__}, "paths": paths}
    if settings.tokens:
        out["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        for path, operations in paths.items():
            if path.startswith(("/v1/", "/metrics")):
                next(iter(operations.values()))["security"] = [{"token": []}]
    return out


def refusals(*statuses: int) -> Schema:
    content = {"application/json": {"schema": ERROR}}
    return {str(status): {"description": REFUSALS[status], "content": content} for status in statuses}


def plain(summary: str, schema: Schema) -> Schema:
    answer = {"description": "OK", "content": {"application/json": {"schema": schema}}}
    return {"summary": summary, "responses": {"200": answer} | refusals(401, 403, 503)}


def status() -> Schema:
    return {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}


def named(runs: list[Served]) -> Schema:
    """The name of one of these runs, which may be left out where there is one."""
    return {"type": "string", "enum": [one.name for one in runs], "examples": [runs[0].name]}


def needed(several: bool, *names: str) -> list[str]:
    return [*(["model"] if several else []), *names]


def predict(runs: list[Served], settings: Settings) -> Schema:
    several = len(runs) > 1
    json = [schema for one in runs for schema in bodies(one, several, settings.limits)]
    forms = [form(one, several) for one in runs]
    answer = {"description": "An answer for each row.", "content": {"application/json": {"schema": ANSWER}}}
    bad = {"application/json": {"schema": {"anyOf": [ERROR, ANSWER]}}}
    responses = {"200": answer} | refusals(400, 401, 403, 404, 413, 415, 422, 429, 503)
    responses["422"] = {"description": REFUSALS[422], "content": bad}
    return {
        "summary": "Answers for rows.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"anyOf": json}},
                "multipart/form-data": {"schema": {"anyOf": forms} if several else forms[0]},
            },
        },
        "responses": responses,
    }


def bodies(one: Served, several: bool, limits: Limits) -> list[Schema]:
    """Requests without explanations, and those with, which may have fewer rows."""
    plain = body(one, several, limits.rows, {"enum": [False, None]})
    if not one.methods:
        return [plain]
    methods = {"anyOf": [FLAG, {"type": "string", "enum": one.methods}]}
    return [plain, body(one, several, min(limits.rows, limits.explained), methods)]


def body(one: Served, several: bool, rows: int, explain: Schema) -> Schema:
    properties = {
        "model": named([one]),
        "rows": {"type": "array", "minItems": 1, "maxItems": rows, "items": one.fields.schema()},
        "probabilities": FLAG | {"default": False},
        "explain": explain,
    }
    return {
        "type": "object",
        "properties": properties,
        "required": needed(several, "rows"),
        "additionalProperties": False,
        "examples": [{"rows": [one.fields.example()]} | ({"model": one.name} if several else {})],
    }


def form(one: Served, several: bool) -> Schema:
    """A form is one row: each part is a file, or the text or JSON of a cell."""
    row = one.fields.schema()["properties"]
    said = [word for word, yes in WORDS.items() if one.methods or not yes]
    flags = {
        "model": named([one]),
        "probabilities": {"type": "string", "enum": list(WORDS)},
        "explain": {"type": "string", "enum": [*said, *one.methods]},
    }
    return {
        "type": "object",
        "properties": flags | {name: part(schema) for name, schema in row.items()},
        "required": needed(several, *row),
        "additionalProperties": False,
    }


def part(schema: Schema) -> Schema:
    base64 = schema.get("properties", {}).get("base64")
    if base64 is None:  # a field that is left empty is a cell that is missing
        return schema if "anyOf" not in schema else schema | {"anyOf": [*schema["anyOf"], {"const": ""}]}
    return {"type": "string", "format": "binary", "contentMediaType": base64["contentMediaType"]}


def search() -> Schema:
    stop = {"type": "string", "minLength": 1, "maxLength": 100}
    return {
        "max_tokens": {"type": ["integer", "null"], "minimum": 1},  # more than are written is no fault
        "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
        "top_p": {"type": ["number", "null"], "minimum": 1e-6, "maximum": 1},
        "seed": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**53},
        "stop": {"anyOf": [stop, {"type": "array", "items": stop, "maxItems": 4}, {"type": "null"}]},
        "stream": {"type": ["boolean", "null"]},
        "n": {"enum": [1, None]},
    }


def written(summary: str, runs: list[Served], settings: Settings, asked: Schema) -> Schema:
    """An operation of the OpenAI forms."""
    properties = {"model": named(runs)} | search() | asked
    text = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}}
    return {
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"type": "object", "properties": properties, "required": ["model", *asked]}
                }
            },
        },
        "responses": {"200": {"description": "OK", "content": text}}
        | refusals(400, 401, 403, 404, 413, 415, 422, 429, 503),
    }


def completions(runs: list[Served], settings: Settings) -> Schema:
    text = {"type": "string", "maxLength": settings.limits.field, "examples": ["Once upon a time"]}
    prompt = {"anyOf": [text, {"type": "array", "items": text, "minItems": 1, "maxItems": 16}]}
    return written("A text that goes on.", [one for one in runs if one.generates], settings, {"prompt": prompt})


def chat(runs: list[Served], settings: Settings) -> Schema:
    text = {"type": "string", "maxLength": settings.limits.field}
    part = {
        "type": "object", "properties": {"type": {"const": "text"}, "text": text}, "required": ["type", "text"],
    }  # fmt: skip
    message = {
        "type": "object",
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant"]},
            "content": {"anyOf": [text, {"type": "array", "items": part}]},
        },
        "required": ["role", "content"],
    }
    messages = {"type": "array", "items": message, "minItems": 1, "maxItems": 256}
    return written("What a model says next.", [one for one in runs if one.chats], settings, {"messages": messages})
