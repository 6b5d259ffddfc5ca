"""Ragged, shared and dense values: one way to take rows of them, wherever they lie."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfft.examples import Ragged, Shared, as_arrays, lengths, release, take

IDS = tf.ragged.constant([[5, 6, 7], [8], [9, 9]], dtype=tf.int32)


def test_ragged_tensors_become_arrays() -> None:
    ragged = as_arrays(IDS)
    assert ragged.values.tolist() == [5, 6, 7, 8, 9, 9]
    assert ragged.starts.tolist() == [0, 3, 4]
    assert ragged.lengths.tolist() == [3, 1, 2]
    assert as_arrays(ragged) is ragged
    shared = Shared(np.eye(2), (0,))
    assert as_arrays(shared) is shared
    assert as_arrays(tf.constant([1, 2])).tolist() == [1, 2]


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_rows_taken_of_ragged_values_are_padded(rows: list[list[int]], data: st.DataObject) -> None:
    picked = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)), int)
    length = data.draw(st.integers(6, 8))
    taken = take(as_arrays(tf.ragged.constant(rows, dtype=tf.int32)), picked, length, -1)
    assert taken.shape == (len(picked), length)
    assert taken.tolist() == [rows[i] + [-1] * (length - len(rows[i])) for i in picked]


def test_rows_may_stand_in_any_order_in_the_values() -> None:
    ragged = Ragged(np.array([8, 9, 9, 5, 6, 7]), np.array([3, 0, 1]), np.array([3, 1, 2]))
    assert take(ragged, np.arange(3), 3).tolist() == [[5, 6, 7], [8, 0, 0], [9, 9, 0]]


def test_a_longer_row_is_cut_to_the_length() -> None:
    assert take(as_arrays(IDS), np.array([0]), 2).tolist() == [[5, 6]]


def test_the_axis_of_tokens_may_be_another() -> None:
    values = np.arange(12.0).reshape(3, 4)  # tokens of two rows, 4 heads
    taken = take(Ragged(values, np.array([0, 2]), np.array([2, 1]), axis=2), np.array([1, 0]), 3)
    assert taken.shape == (2, 4, 3)
    np.testing.assert_array_equal(taken[0], np.pad(values[2:].T, ((0, 0), (0, 2))))
    np.testing.assert_array_equal(taken[1], np.pad(values[:2].T, ((0, 0), (0, 1))))


def test_shared_values_are_cut_and_repeated() -> None:
    table = np.arange(16).reshape(4, 4)
    assert take(Shared(table, (0, 1)), np.arange(5), 2).tolist() == [[[0, 1], [4, 5]]] * 5
    assert take(Shared(table, (1,)), np.arange(2), 3).shape == (2, 4, 3)
    assert take(Shared(table, ()), np.arange(2), 3).shape == (2, 4, 4)


def test_dense_values_are_taken_by_row() -> None:
    assert take(np.array([1.0, 2.0, 3.0]), np.array([2, 0]), 99).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ({"ids": IDS, "vector": np.zeros((3, 2))}, [3, 1, 2]),
        ({"ids": IDS, "other": tf.ragged.constant([[1], [1, 2], []], dtype=tf.int32)}, [3, 2, 2]),
        ({"table": Shared(np.eye(4), (0,)), "vector": np.zeros((3, 2))}, [0, 0, 0]),
    ],
)
def test_a_row_is_as_long_as_its_longest_input(x: dict[str, Any], expected: list[int]) -> None:
    assert lengths(x).tolist() == expected


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_values_of_a_file_are_the_same_after_their_pages_were_given_back(dtype: str, tmp_path: Path) -> None:
    values = np.arange(4096, dtype=dtype)
    values.tofile(tmp_path / "values.bin")
    mapped = np.memmap(tmp_path / "values.bin", dtype, "r", shape=(1024, 4))
    ragged = Ragged(mapped, np.array([0, 1000]), np.array([1000, 24]))
    before = take(ragged, np.array([1, 0]), 1000)
    for value in (ragged, mapped, mapped[5:], Shared(values, ()), values):
        release(value)
    assert type(before) is np.ndarray  # a copy, which no release can touch
    np.testing.assert_array_equal(take(ragged, np.array([1, 0]), 1000), before)
    np.testing.assert_array_equal(np.asarray(mapped).ravel(), values)
