"""Batches: every row once, rows of like length together, few shapes, the same order for the same seed."""

import itertools
from pathlib import Path
from typing import Any
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import tfft
from tfft import batching, examples
from tfft.examples import Examples, Ragged, Shared


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


@pytest.mark.parametrize("buckets", [1, 2, 3])
@given(st.lists(st.integers(1, 40), min_size=1, max_size=14))
def test_no_other_buckets_pad_less(buckets: int, lengths: list[int]) -> None:
    with mock.patch.object(batching, "BUCKETS", buckets):
        padded = batching.bucket_lengths(np.array(lengths))
    longest, known = max(lengths), set(lengths)
    choices = [{*choice, longest} for choice in itertools.combinations(known - {longest}, min(buckets, len(known)) - 1)]
    best = min(sum(min(end for end in ends if end >= n) for n in lengths) for ends in choices)
    assert int(padded.sum()) == best


def test_lengths_in_thousands_are_still_grouped_well() -> None:
    counts = np.random.default_rng(0).integers(1, 5000, 3000)
    padded = batching.bucket_lengths(counts)
    assert (padded >= counts).all()
    assert len(np.unique(padded)) <= batching.BUCKETS
    assert padded.sum() < 1.08 * counts.sum()


def test_rows_without_tokens_need_no_bucket() -> None:
    assert batching.bucket_lengths(np.zeros(3, int)).tolist() == [0, 0, 0]
    assert batching.bucket_lengths(np.zeros(0, int)).tolist() == []
    assert (batching.bucket_lengths(np.array([0, 5, 0])) >= [0, 5, 0]).all()


@pytest.mark.parametrize("seed", [None, 0])
def test_long_rows_come_in_smaller_batches(seed: int | None) -> None:
    lengths = [3, 90, 4, 150, 6, 30, 17, 60, 30, 30]
    dataset = tfft.batches(rows_of(lengths), ["token_ids"], 4, seed=seed, max_tokens=100)
    shapes = [tuple(x["token_ids"].shape) for x, _, _ in dataset]
    assert all(rows == 1 or rows * length <= 100 for rows, length in shapes)
    assert (1, 150) in shapes
    assert max(rows for rows, _ in shapes) == 4
    assert sum(rows for rows, _ in shapes) == len(lengths)


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


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("count", [1, 7, 1024, 2500, 3073])
def test_vectors_come_once_an_epoch_in_full_batches(count: int, seed: int | None) -> None:
    """Cut in the graph from groups of `GROUP_ROWS` rows, of which the last is smaller and may come first."""
    x = np.arange(count, dtype="float32")[:, np.newaxis] * [1.0, 2.0]
    rows = Examples({"vector": x.astype("float32")}, np.arange(count), np.arange(count, dtype="float32"), {})
    dataset = tfft.batches(rows, ["vector"], 4, seed=seed)
    orders = []
    for _ in range(2):
        found = list(dataset)
        sizes = [len(y) for _, y, _ in found]
        assert sizes == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
        assert len(dataset) == len(sizes)
        orders.append(np.concatenate([y for _, y, _ in found]))
        np.testing.assert_array_equal(np.concatenate([x["vector"] for x, _, _ in found])[:, 1], 2 * orders[-1])
        np.testing.assert_array_equal(np.concatenate([weight for _, _, weight in found]), orders[-1])
        assert sorted(orders[-1]) == list(range(count))
    assert seed is not None or (orders[0] == np.arange(count)).all()
    assert count == 1 or (orders[0] == orders[1]).all() == (seed is None)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_comes_out_as_float32(dtype: Any) -> None:
    values = np.arange(12).reshape(6, 2).astype(dtype)
    x = {
        "tokens": Ragged(values, np.array([0, 4]), np.array([4, 2])),
        "table": Shared(values[:4], (0,)),
        "vector": values[:2],
        "token_ids": Ragged(np.arange(6, dtype="int32"), np.array([0, 4]), np.array([4, 2])),
    }
    rows = Examples(x, np.arange(2), np.ones(2, "float32"), {})
    ((found, y, _),) = tfft.batches(rows, list(x), 2)
    assert {name: value.dtype.name for name, value in found.items()} == dict.fromkeys(x, "float32") | {
        "token_ids": "int32"
    }
    assert y.numpy().tolist() == [1, 0]
    assert found["tokens"].numpy().tolist() == [[[8, 9], [10, 11], [0, 0], [0, 0]], values[:4].astype(int).tolist()]
    assert found["table"].numpy().tolist() == [values[:4].astype(int).tolist()] * 2
    assert found["vector"].numpy().tolist() == [[2, 3], [0, 1]]


@pytest.mark.parametrize("ragged", [True, False])
def test_pages_of_a_file_are_given_back(ragged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.arange(4000, dtype="float32").tofile(tmp_path / "values.bin")
    mapped = np.memmap(tmp_path / "values.bin", "float32", "r", shape=(1000, 4))
    value = Ragged(mapped, np.arange(0, 1000, 10), np.full(100, 10)) if ragged else mapped[:100]
    rows = Examples({"values": value}, np.arange(100), np.ones(100, "float32"), {})
    expected = [x["values"].numpy() for x, _, _ in tfft.batches(rows, ["values"], 3, seed=0)]
    released: list[Any] = []

    def noted(value: Any) -> None:
        released.append(value)
        examples.release(value)

    monkeypatch.setattr(batching, "RELEASE_BYTES", 64)
    monkeypatch.setattr(batching, "release", noted)
    found = [x["values"].numpy() for x, _, _ in tfft.batches(rows, ["values"], 3, seed=0)]
    assert len(released) >= (30 if ragged else 1)
    np.testing.assert_equal(found, expected)


def test_nothing_is_tuned_behind_the_batches() -> None:
    """The end of an iterator waits for tf.data's tuner, which sleeps up to a minute."""
    rows = Examples({"token_ids": tf.ragged.constant([[5, 6], [7]], dtype=tf.int32)}, np.eye(2), np.ones(2), {})
    assert tfft.batches(rows, ["token_ids"], 2).options().autotune.enabled is False
