"""TensorFlow Serving's REST dialect as functions: what goes in, what comes out, what is refused and how."""

import base64
import contextlib
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfft import rest
from tfft.rest import RestError


def info(dtype: int, *sizes: int) -> Any:
    shape = SimpleNamespace(unknown_rank=False, dim=[SimpleNamespace(size=size) for size in sizes])
    return SimpleNamespace(dtype=dtype, tensor_shape=shape)


TEXT = SimpleNamespace(inputs={"text": info(7, -1)})
IDS = SimpleNamespace(inputs={"token_ids": info(3, -1, -1)})
BOTH = SimpleNamespace(inputs={"text": info(7, -1), "weight": info(1, -1)})


def inputs(body: dict[str, Any], signature: Any = TEXT) -> dict[str, Any]:
    return {name: value.tolist() for name, value in rest.predict_inputs(body, signature)[0].items()}


@pytest.mark.parametrize(
    "body",
    [
        {"instances": ["caf\u00e9", ""]},
        {"instances": [{"text": "caf\u00e9"}, {"text": ""}]},
        {"instances": [{"b64": base64.b64encode("caf\u00e9".encode()).decode()}, ""]},
        {"inputs": ["caf\u00e9", ""]},
        {"inputs": {"text": ["caf\u00e9", {"b64": ""}]}},
    ],
)
def test_texts_in_every_form(body: dict[str, Any]) -> None:
    assert inputs(body) == {"text": ["caf\u00e9".encode(), b""]}


def test_numbers_and_several_inputs() -> None:
    assert inputs({"instances": [[1, 2], [3, 4]]}, IDS) == {"token_ids": [[1, 2], [3, 4]]}
    rows = {"instances": [{"text": "a", "weight": 1}, {"text": "b", "weight": 0.5}]}
    assert inputs(rows, BOTH) == {"text": [b"a", b"b"], "weight": [1.0, 0.5]}
    assert inputs({"inputs": {"text": ["a", "b"], "weight": [1, 0.5]}}, BOTH) == inputs(rows, BOTH)


@pytest.mark.parametrize(
    ("body", "signature", "said"),
    [
        ({}, TEXT, "Missing 'inputs' or 'instances' key"),
        ({"instances": ["a"], "inputs": ["a"]}, TEXT, "Request has both 'inputs' and 'instances' key"),
        ({"instances": "a"}, TEXT, "Excepting 'instances' to be an list/array"),
        ({"instances": []}, TEXT, "No values in 'instances' array"),
        ({"instances": [1]}, TEXT, "not of expected type: string"),
        ({"instances": [None]}, TEXT, "not of expected type: string"),
        ({"instances": [["a"]]}, TEXT, r"has the shape \[1, 1\]; expected \['\?'\]"),
        (
            {"instances": [{"words": "a"}]},
            TEXT,
            r"found in request: \['words'\]; expected by the signature: \['text'\]",
        ),
        ({"instances": [{"b64": "?"}]}, TEXT, "unable to base64 decode"),
        ({"instances": ["\ud800"]}, TEXT, "half of a surrogate pair"),
        ({"inputs": "a"}, TEXT, r"has the shape \[\]"),
        ({"instances": [[1, 2], [3]]}, IDS, "differ in their length"),
        ({"instances": [[1.5]]}, IDS, "takes int32"),
        ({"instances": [[True]]}, IDS, "takes int32"),
        ({"instances": [[2**40]]}, IDS, "takes int32"),
        ({"instances": ["a"]}, BOTH, "expecting object as multiple input tensors"),
        ({"inputs": {"text": ["a"], "weight": [1, 2]}}, BOTH, "differ in their number of rows"),
        ({"instances": [json.loads("[" * 20 + "]" * 20)]}, IDS, "nested more than 8 deep"),
    ],
)
def test_what_is_refused(body: dict[str, Any], signature: Any, said: str) -> None:
    with pytest.raises(RestError, match=said) as caught:
        rest.predict_inputs(body, signature)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"1", b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000, b'{"a": "\x01"}', b"9" * 5000]
)
def test_no_json_object(body: bytes) -> None:
    with pytest.raises(RestError, match="JSON") as caught:
        rest.read_body(body)
    assert caught.value.status == 400


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary().map(repr),
                    lambda one: st.lists(one) | st.dictionaries(st.text(), one), max_leaves=12))  # fmt: skip
def test_any_json_is_answered_or_refused(value: Any) -> None:
    for body in ({"instances": value}, {"inputs": value}, {"instances": [value]}):
        for signature in (TEXT, IDS, BOTH):
            with contextlib.suppress(RestError):
                arrays, _ = rest.predict_inputs(body, signature)
                assert all(len(array.shape) >= 1 for array in arrays.values())


OUTPUTS = {
    "label": np.array([b"neg", b"pos"], object),
    "probabilities": np.array([[0.75, 0.25], [0.5, 0.5]], "float32"),
    "raw_bytes": np.array([b"\xff", b"a"], object),
}


def test_answers_by_row_and_by_column() -> None:
    assert rest.predictions(OUTPUTS, rows=True) == {
        "predictions": [
            {"label": "neg", "probabilities": [0.75, 0.25], "raw_bytes": {"b64": "/w=="}},
            {"label": "pos", "probabilities": [0.5, 0.5], "raw_bytes": {"b64": "YQ=="}},
        ]
    }
    assert rest.predictions(OUTPUTS, rows=False)["outputs"]["label"] == ["neg", "pos"]
    alone = {"embedding": np.array([[1.0, 2.0]], "float32")}
    assert rest.predictions(alone, rows=True) == {"predictions": [[1.0, 2.0]]}
    assert rest.predictions(alone, rows=False) == {"outputs": [[1.0, 2.0]]}


def test_classify_and_regress() -> None:
    outputs = {
        "classes": np.array([[b"neg", b"pos"]] * 2, object),
        "scores": np.array([[0.75, 0.25], [0.5, 0.5]], "float32"),
    }
    assert rest.classifications(outputs) == {"results": [[["neg", 0.75], ["pos", 0.25]], [["neg", 0.5], ["pos", 0.5]]]}
    assert rest.regressions({"outputs": np.array([0.5, 1.0], "float32")}) == {"results": [0.5, 1.0]}
    with pytest.raises(RestError, match="'classes'"):
        rest.classifications({"outputs": np.zeros(1, "float32")})
