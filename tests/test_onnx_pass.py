"""Frozen layers by ONNX Runtime: the same numbers, and TensorFlow where it does not fit."""

import logging
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfft
from tests.test_caching import bert, entry_in, rows_for, shared_model, store, stored
from tfft import onnx_graph, onnx_pass
from tfft.errors import ExportError
from tfft.examples import Examples, Ragged, as_arrays
from tfft.machine import processors

pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

COUNTS = [3, 9, 5, 7, 2, 12, 4, 6, 3, 8] * 40


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few tokens would not be worth it."""
    monkeypatch.setattr(onnx_pass, "WORTH_TOKENS", 1)


def values(rows: Examples) -> dict[str, np.ndarray]:
    """The floats that were stored."""
    found = {}
    for name, value in rows.x.items():
        plain = as_arrays(value)
        array = np.asarray(plain.values if isinstance(plain, Ragged) else getattr(plain, "value", plain))
        if array.dtype.kind == "f":
            found[name] = array
    return found


@pytest.mark.parametrize(
    ("family", "policy"),
    [("bert", 1), ("bert", "all"), ("roberta", 1), ("albert-2-groups", 1), ("deberta-v3", 1), ("gpt2", 1), ("bart", 1)],
)
def test_it_is_what_tensorflow_computes(
    family: str, policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tfft.freeze(shared_model(family), policy)
    rows = rows_for(model, COUNTS)
    by_it = values(stored(model, rows, tmp_path / "one"))
    monkeypatch.setattr(onnx_graph, "is_installed", lambda: False)
    plain = values(stored(model, rows, tmp_path / "other"))
    assert entry_in(tmp_path / "one").name == entry_in(tmp_path / "other").name
    assert by_it.keys() == plain.keys()
    for name, value in plain.items():
        np.testing.assert_allclose(by_it[name], value, atol=1e-5)
    assert any((by_it[name] != value).any() for name, value in plain.items())  # else it was TensorFlow


def spied(monkeypatch: pytest.MonkeyPatch) -> list[keras.Model]:
    """What is converted from here on."""
    asked: list[keras.Model] = []

    def converted(model: keras.Model) -> bytes:
        asked.append(model)
        return CONVERTED(model)

    monkeypatch.setattr(onnx_graph, "converted", converted)
    return asked


def test_it_is_converted_once_for_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bert()
    asked = spied(monkeypatch)
    rows = rows_for(model, COUNTS)
    stored(model, rows, tmp_path)
    monkeypatch.setattr(onnx_pass, "WORTH_TOKENS", sum(COUNTS))
    stored(model, rows_for(model, COUNTS[:30], seed=1), tmp_path)  # few, but there is one
    assert len(asked) == 1
    frozen = next(v for v in model.variables if not v.trainable and len(v.shape) == 2)
    frozen.assign(keras.ops.convert_to_numpy(frozen)[::-1])
    found = values(stored(model, rows, tmp_path))
    assert len(asked) == 2
    monkeypatch.setattr(onnx_graph, "is_installed", lambda: False)
    for name, value in values(stored(model, rows, tmp_path / "other")).items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)


@pytest.mark.parametrize("why", ["few tokens", "a GPU", "bfloat16", "not installed", "needed once"])
def test_where_tensorflow_is_as_fast_nothing_is_converted(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bert()
    rows, asked = rows_for(model, COUNTS), spied(monkeypatch)
    if why == "few tokens":
        monkeypatch.setattr(onnx_pass, "WORTH_TOKENS", sum(COUNTS) + 1)
    elif why == "a GPU":
        monkeypatch.setattr(onnx_pass.tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    elif why == "bfloat16":
        monkeypatch.setattr(onnx_pass, "product_dtype", lambda: "bfloat16")
    else:
        monkeypatch.setattr(onnx_graph, "is_installed", lambda: False)
    if why == "needed once":
        _, found = store(model, rows, tmp_path, passes=1, mode="auto")
        assert found is not None  # so little is stored for the next run, by TensorFlow
    else:
        stored(model, rows, tmp_path)
    assert not asked


def broken(model: keras.Model) -> bytes:
    raise ExportError("no such operation")


def out_of_step(model: keras.Model) -> bytes:
    raise AttributeError("module 'numpy' has no attribute 'cast'")  # as an old converter says when it is imported


def other(model: keras.Model) -> bytes:
    first = next(v for v in model.variables if len(v.shape) == 2)
    kept = keras.ops.convert_to_numpy(first)
    first.assign(kept[::-1])
    graph = CONVERTED(model)
    first.assign(kept)
    return graph


CONVERTED = onnx_graph.converted


@pytest.mark.parametrize(
    ("convert", "said"),
    [(broken, "no such operation"), (out_of_step, "has no attribute"), (other, "its numbers are others")],
    ids=["broken", "out of step", "other"],
)
def test_what_does_not_fit_is_computed_by_tensorflow(
    convert: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = bert()
    rows = rows_for(model, COUNTS)
    monkeypatch.setattr(onnx_graph, "is_installed", lambda: False)
    exact = values(stored(model, rows, tmp_path / "one"))
    monkeypatch.setattr(onnx_graph, "is_installed", lambda: True)
    monkeypatch.setattr(onnx_graph, "converted", convert)
    with caplog.at_level(logging.INFO):
        found = values(stored(model, rows, tmp_path / "other"))
    assert "frozen part: not by ONNX Runtime, " in caplog.text
    assert said in caplog.text
    for name, value in exact.items():
        np.testing.assert_array_equal(found[name], value)
    monkeypatch.setattr(onnx_graph, "converted", None)  # it is not tried again
    stored(model, rows_for(model, COUNTS, seed=1), tmp_path / "other")


def test_values_come_in_order_and_few_are_computed_ahead() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def slow(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02 if item % 3 else 0.05)
        with lock:
            running -= 1
        return item * item

    taken = []

    def items() -> Any:
        for item in range(30):
            taken.append(item)
            yield item

    found = onnx_pass.in_order(slow, items())
    assert next(found) == 0
    assert len(taken) <= 2 * processors() + 1
    assert list(found) == [item * item for item in range(1, 30)]
    assert most == processors()
