"""The local server's own description, OpenAPI 3.1."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tfft import __version__
from tfft.rest import FLOAT_MAX

BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
OF_TEXTS = ("serving_default", "embed", "tokenize")  # signatures that take the model's texts


def description(rows: int, characters: int, models: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, Any]:
    """The description of a server.

    Args:
        rows: one request may have.
        characters: bytes one text may have.
        models: those it serves: name -> signature -> names of its inputs.
    """
    alike: dict[tuple[str, ...], list[str]] = {}  # texts a model takes -> those models
    for name, signatures in models.items():
        alike.setdefault(tuple(signatures.get("serving_default", ("text",))), []).append(name)
    answers = {
        "predict": {"anyOf": [_named("predictions"), _named("outputs")]},
        "classify": _named("results"),
        "regress": _named("results"),
    }
    paths: dict[str, Any] = {
        "/v1/models": {"get": _operation("The models, with the versions that answer", _named("models"))},
        "/v1/models/{model}": {
            "parameters": [_parameter(models)],
            "get": _operation("Versions and their states", _named("model_version_status")),
        },
        "/v1/models/{model}/metadata": {
            "parameters": [_parameter(models)],
            "get": _operation("Signatures", _named("model_spec", "metadata")),
        },
        "/monitoring/prometheus/metrics": {
            "get": {
                "summary": "Counters for Prometheus",
                "responses": {"200": _content({"type": "string"}, "text/plain")},
            }
        },
    }
    for texts, names in alike.items():
        for verb, body in _bodies(texts, rows, characters).items():
            able = [name for name in names if verb == "predict" or verb in models[name]]
            if not able:
                continue
            posted = _operation(f"Answers of a model: {verb}", answers[verb])
            posted["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
            if texts == ("text",):
                paths[f"/v1/models/{{model}}:{verb}"] = {"parameters": [_parameter(able)], "post": posted}
            else:  # what a row must have differs, so each has a path of its own
                paths |= {f"/v1/models/{name}:{verb}": {"post": posted} for name in able}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tfft serve",
            "version": __version__,
            "description": "TensorFlow Serving's REST dialect, for development.",
        },
        "paths": paths,
    }


def _bodies(texts: Sequence[str], rows: int, characters: int) -> dict[str, Any]:
    """The bodies of requests to models that take these texts, by verb."""
    text = {"type": "string", "description": f"UTF-8, at most {characters} bytes"}
    raw = _object({"b64": {"type": "string", "pattern": BASE64}}, "b64")
    value = {"anyOf": [text, raw]}
    several = {"type": "array", "minItems": 1, "maxItems": rows}
    named = _object(dict.fromkeys(texts, value), *texts)
    row = {"anyOf": [text, raw, named]} if len(texts) == 1 else named
    signature = {"type": "string", "enum": ["", *OF_TEXTS], "default": OF_TEXTS[0]}
    by_row = {
        "type": "object",
        "required": ["instances"],
        "not": {"required": ["inputs"]},
        "properties": {"signature_name": signature, "instances": {**several, "items": row}},
    }
    column = {**several, "items": value, "minItems": 0}
    columns = _object(dict.fromkeys(texts, column), *texts)
    by_column = {
        "type": "object",
        "required": ["inputs"],
        "not": {"required": ["instances"]},
        "properties": {
            "signature_name": signature,
            "inputs": {"anyOf": [column, columns]} if len(texts) == 1 else columns,
        },
    }
    example = {
        "type": "object",  # without a text it is an empty one; what the model does not know it does not read
        "properties": {name: {"anyOf": [text, raw, {**several, "items": value, "maxItems": 1}]} for name in texts},
        "additionalProperties": {"type": ["string", "number"], "minimum": -FLOAT_MAX, "maximum": FLOAT_MAX},
    }
    examples = {**several, "items": example}
    bodies: dict[str, Any] = {"predict": {"oneOf": [by_row, by_column]}}
    bodies |= {
        verb: {
            "type": "object",
            "required": ["signature_name", "examples"],
            "properties": {"signature_name": {"const": verb}, "examples": examples},
        }
        for verb in ("classify", "regress")
    }
    return bodies


def _parameter(models: Collection[str]) -> dict[str, Any]:
    return {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": list(models)}}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _named(*names: str) -> dict[str, Any]:
    return {"type": "object", "required": list(names)}


def _content(schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"description": "the answer", "content": {kind: {"schema": schema}}}


def _operation(summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    problem = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    return {
        "summary": summary,
        "responses": {"200": _content(schema), "4XX": _content(problem), "5XX": _content(problem)},
    }
