"""Batches: every row once, rows of like length together, few shapes, the same order for the same seed."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import tfft
from tfft import batching
from tfft.examples import Examples


def rows_of(lengths: list[int]) -> Examples:
    ids = tf.ragged.constant([[row + 1] * length for row, length in enumerate(lengths)], dtype=tf.int32, ragged_rank=1)
    count = len(lengths)
    return Examples({"token_ids": ids}, np.arange(count), np.ones(count, "float32"), {"token_ids": -1})


@given(st.lists(st.integers(1, 600), min_size=1, max_size=200), st.integers(1, 16), st.booleans())
def test_every_row_is_in_one_batch_that_is_long_enough(lengths: list[int], size: int, shuffled: bool) -> None:
    counts = np.array(lengths)
    padded = batching.bucket_lengths(counts) if shuffled else counts
    plan = batching.plan(padded, size, 2000, np.random.default_rng(0) if shuffled else None)
    assert sorted(row for rows, _ in plan for row in rows) == list(range(len(lengths)))
    for rows, length in plan:
        assert 1 <= len(rows) <= size
        assert counts[rows].max() <= length
        assert len(rows) == 1 or len(rows) * length <= 2000
    if shuffled:
        assert len({length for _, length in plan}) <= batching.BUCKETS
        assert len(plan) == len(batching.plan(padded, size, 2000, np.random.default_rng(9)))


@given(st.lists(st.integers(1, 600), min_size=1, max_size=200))
def test_buckets_waste_little(lengths: list[int]) -> None:
    counts = np.array(lengths)
    padded = batching.bucket_lengths(counts)
    assert (padded >= counts).all()
    assert padded.max() == counts.max()
    assert len(np.unique(padded)) <= batching.BUCKETS


def texts_of(dataset: Any) -> list[list[int]]:
    return [y.numpy().tolist() for _, y, _ in dataset]


def test_shuffled_anew_in_every_epoch_and_alike_for_a_seed() -> None:
    rows = rows_of([3, 9, 4, 20, 6, 2, 17, 5] * 4)
    one, same = (tfft.batches(rows, ["token_ids"], 4, seed=1) for _ in range(2))
    first, second = texts_of(one), texts_of(one)
    assert first != second
    assert [first, second] == [texts_of(same), texts_of(same)]
    assert first != texts_of(tfft.batches(rows, ["token_ids"], 4, seed=2))


def test_padded_with_the_padding_value_to_the_longest() -> None:
    (x, y, weight), *rest = tfft.batches(rows_of([3, 1]), ["token_ids"], 4)
    assert not rest
    assert x["token_ids"].numpy().tolist() == [[2, -1, -1], [1, 1, 1]]
    assert y.numpy().tolist() == [1, 0]
    assert weight.numpy().tolist() == [1, 1]


def test_dense_rows_are_batched_as_they_are() -> None:
    rows = Examples({"vector": np.eye(5, dtype="float32")}, np.arange(5), np.ones(5), {})
    sizes = [len(y) for _, y, _ in tfft.batches(rows, ["vector"], 2, seed=0)]
    assert sorted(sizes) == [1, 2, 2]


@pytest.mark.parametrize("seed", [None, 0])
def test_the_number_of_batches_is_known(seed: int | None) -> None:
    dataset = tfft.batches(rows_of([3, 9, 4, 20, 6, 2, 17, 5]), ["token_ids"], 2, seed=seed)
    assert len(dataset) == len(list(dataset))
