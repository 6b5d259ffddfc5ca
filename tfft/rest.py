"""TensorFlow Serving's REST dialect: JSON to the arrays a signature takes, answers to JSON, errors in its words.

Functions of plain values; https://www.tensorflow.org/tfx/serving/api_rest describes the dialect.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import json_format

from tfft.capi import DTYPES, STRING

INVALID, DEADLINE, NOT_FOUND, EXHAUSTED, FAILED, UNAVAILABLE = 3, 4, 5, 8, 9, 14  # TensorFlow's codes
# TensorFlow's code -> HTTP status, as the server's http_rest_api_util.cc has it
STATUS = {1: 499, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 14: 503, 16: 401}
FLOAT_MAX = 3.4028234663852886e38  # float32's
DEEPEST = 8  # axes of an array in a request; TensorFlow's own limit is 254


class RestError(Exception):
    """An answer that is an error: its HTTP status and the words of its body."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def read_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a request."""
    try:
        found = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RestError(400, f"JSON Parse error: {error}") from None
    if not isinstance(found, dict):
        raise RestError(400, "JSON Value: the request is no object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"Invalid value. {name} is no JSON")


def signature_name(body: Mapping[str, Any]) -> str:
    """The signature a request asks for."""
    name = body.get("signature_name", "")
    if not isinstance(name, str):
        raise RestError(400, "'signature_name' key must be a string value.")
    return name or "serving_default"


def signature_of(signatures: Mapping[str, Any], name: str) -> Any:
    """The `SignatureDef` of that name."""
    if name not in signatures:
        raise RestError(400, f'Serving signature key "{name}" not found.')
    return signatures[name]


def predict_inputs(body: Mapping[str, Any], signature: Any) -> tuple[dict[str, np.ndarray], bool]:
    """The arrays of a predict request, and whether it is in the row format ("instances") or the column one ("inputs").

    Args:
        body: from `read_body`.
        signature: `SignatureDef`.
    """
    rows, columns = "instances" in body, "inputs" in body
    if rows == columns:
        problem = "Request has both" if rows else "Missing"
        raise RestError(400, f"{problem} 'inputs' {'and' if rows else 'or'} 'instances' key")
    names = sorted(signature.inputs)
    if columns:
        given = body["inputs"]
        if not (isinstance(given, dict) and not _is_bytes(given)):
            given = {_only(names, "inputs"): given}
        _same_names(given, names)
    else:
        instances = body["instances"]
        if not isinstance(instances, list):
            raise RestError(400, "Excepting 'instances' to be an list/array")
        if not instances:
            raise RestError(400, "No values in 'instances' array")
        given = {name: [] for name in names}
        for instance in instances:
            if not (isinstance(instance, dict) and not _is_bytes(instance)):
                instance = {_only(names, "instances"): instance}
            _same_names(instance, names)
            for name in names:
                given[name].append(instance[name])
    arrays = {name: _array(given[name], name, signature.inputs[name]) for name in names}
    if len({len(array) for array in arrays.values()}) > 1:
        raise RestError(400, "the inputs differ in their number of rows")
    return arrays, rows


def example_inputs(body: Mapping[str, Any], signature: Any, messages: Any) -> dict[str, np.ndarray]:
    """The serialized `tf.Example`s of a classify or regress request, as the input `inputs`.

    Args:
        body: from `read_body`.
        signature: `SignatureDef`.
        messages: from `tfft.capi.messages`.
    """
    if set(signature.inputs) != {"inputs"}:
        raise RestError(400, "No classification or regression inputs found in SignatureDef: it takes no tf.Example")
    context, examples = body.get("context", {}), body.get("examples")
    if not isinstance(context, dict):
        raise RestError(400, "context must be an object")
    if not isinstance(examples, list) or not examples:
        raise RestError(400, "When method is classify, key 'examples' is expected and must be a non-empty list")
    found = np.empty(len(examples), object)
    for place, example in enumerate(examples):
        if not isinstance(example, dict):
            raise RestError(400, "Example must be JSON object")
        found[place] = _example({**context, **example}, messages)
    return {"inputs": found}


def _example(features: Mapping[str, Any], messages: Any) -> bytes:
    example = messages.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature = example.features.feature[_text(name)]
        if all(isinstance(v, str) or _is_bytes(v) for v in values):
            feature.bytes_list.value.extend(_bytes(v, name) for v in values)
        elif any(isinstance(v, bool) for v in values):
            raise RestError(400, f"Example feature {name!r} holds true or false; tf.Example has strings and numbers")
        elif all(isinstance(v, int) and -(2**63) <= v < 2**63 for v in values):
            feature.int64_list.value.extend(values)
        elif all(isinstance(v, (int, float)) and abs(v) <= FLOAT_MAX for v in values):
            feature.float_list.value.extend(values)
        else:
            raise RestError(400, f"Example feature {name!r} holds values that are not all strings or all numbers")
    return bytes(example.SerializeToString())


def predictions(outputs: Mapping[str, np.ndarray], rows: bool) -> dict[str, Any]:
    """The body of a predict answer."""
    plain = {name: _plain(name, value) for name, value in outputs.items()}
    if not rows:
        return {"outputs": next(iter(plain.values())) if len(plain) == 1 else plain}
    if len(plain) == 1:
        return {"predictions": next(iter(plain.values()))}
    return {"predictions": [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]}


def classifications(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The body of a classify answer: for each example its classes with their scores."""
    names, scores = _needed(outputs, "classes"), _needed(outputs, "scores")
    return {"results": [[list(pair) for pair in zip(*row, strict=True)] for row in zip(names, scores, strict=True)]}


def regressions(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The body of a regress answer: one number an example."""
    return {"results": _needed(outputs, "outputs")}


def statuses(versions: Sequence[tuple[int, str, str]]) -> dict[str, Any]:
    """The body of a status answer: of (number, state, why it could not be loaded) each."""
    return {
        "model_version_status": [
            {
                "version": str(number),
                "state": state,
                "status": {"error_code": "UNKNOWN" if error else "OK", "error_message": error},
            }
            for number, state, error in versions
        ]
    }


def metadata(name: str, version: int, signatures: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a metadata answer: every `SignatureDef` of a version."""
    plain = {
        key: json_format.MessageToDict(
            signature, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for key, signature in sorted(signatures.items())
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": plain}},
    }


def _needed(outputs: Mapping[str, np.ndarray], name: str) -> Any:
    if name not in outputs:
        raise RestError(400, f"Expected an output named {name!r} of the signature")
    return _plain(name, outputs[name])


def _plain(name: str, value: np.ndarray) -> Any:
    if value.dtype != object:
        return value.tolist()
    if name.endswith("_bytes"):
        decoded = [{"b64": base64.b64encode(text).decode()} for text in value.ravel()]
    else:
        decoded = [text.decode("utf-8", "replace") for text in value.ravel()]
    nested = np.empty(value.shape, object)
    nested.ravel()[:] = decoded
    return nested.tolist()


def _only(names: list[str], key: str) -> str:
    if len(names) != 1:
        raise RestError(
            400, f"'{key}' is a plain value/list, but expecting object as multiple input tensors required: {names}"
        )
    return names[0]


def _same_names(given: Mapping[str, Any], names: list[str]) -> None:
    if set(given) != set(names):
        raise RestError(400, f"input keys found in request: {sorted(given)}; expected by the signature: {names}")


def _array(value: Any, name: str, info: Any) -> np.ndarray:
    """Nested lists as the array an input takes."""
    leaves: list[Any] = []
    shape = _shape(value, leaves, 0, name)
    wanted = [dim.size for dim in info.tensor_shape.dim]
    if not info.tensor_shape.unknown_rank and (
        len(shape) != len(wanted) or any(w not in (-1, s) for w, s in zip(wanted, shape, strict=True))
    ):
        raise RestError(400, f"input {name!r} has the shape {shape}; expected {['?' if w < 0 else w for w in wanted]}")
    if not shape:
        raise RestError(400, f"input {name!r} is a single value; expected a list, one value a row")
    if info.dtype == STRING:
        texts = np.empty(len(leaves), object)
        texts[:] = [_bytes(leaf, name) for leaf in leaves]
        return texts.reshape(shape)
    dtype = np.dtype(DTYPES.get(info.dtype, "float32"))
    kinds: Any = bool if dtype.kind == "b" else int if dtype.kind in "iu" else (int, float)
    if not all(isinstance(leaf, kinds) and (dtype.kind == "b") == isinstance(leaf, bool) for leaf in leaves):
        raise RestError(400, f"input {name!r} takes {dtype.name}; a value in the request is something else")
    try:
        return np.array(leaves, dtype).reshape(shape)
    except (OverflowError, ValueError) as error:
        raise RestError(400, f"input {name!r} takes {dtype.name}: {error}") from None


def _shape(value: Any, leaves: list[Any], depth: int, name: str) -> list[int]:
    if not isinstance(value, list):
        leaves.append(value)
        return []
    if depth == DEEPEST:
        raise RestError(400, f"input {name!r} is nested more than {DEEPEST} deep")
    below = [_shape(one, leaves, depth + 1, name) for one in value]
    if any(shape != below[0] for shape in below):
        raise RestError(400, f"input {name!r}: lists of one level differ in their length")
    return [len(value), *(below[0] if below else [])]


def _is_bytes(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _bytes(value: Any, name: str) -> bytes:
    if _is_bytes(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise RestError(400, f"input {name!r}: unable to base64 decode") from None
    if not isinstance(value, str):
        raise RestError(400, f"JSON Value of input {name!r} is not of expected type: string")
    return _text(value).encode()


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RestError(400, "a string of the request holds half of a surrogate pair") from None
    return value
