"""Rows to batches: rows of like length together, padded to their bucket, a bounded number of shapes."""

import itertools
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfft.examples import Examples, dense_inputs, lengths

# The lengths batches are padded to: at most so many different ones, closer together where rows are long and few.
QUANTILES = (0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99, 1.0)
BUCKETS = len(QUANTILES)


def bucket_lengths(row_lengths: np.ndarray) -> np.ndarray:
    """The length each row is padded to: one of at most `BUCKETS`, multiples of 8, from the data's own quantiles."""
    if not row_lengths.any():
        return row_lengths
    edges = np.quantile(row_lengths, QUANTILES, method="higher")
    edges = np.unique(np.minimum(-(-edges // 8) * 8, max(row_lengths.max(), 1)))
    return edges[np.searchsorted(edges, row_lengths)]


def plan(
    row_lengths: np.ndarray, batch_size: int, generator: np.random.Generator | None = None
) -> list[tuple[np.ndarray, int]]:
    """The batches of one epoch: (row numbers, length to pad to).

    With a generator rows are shuffled within and across buckets and padded to their bucket. Without one they come in
    order of length and each batch is padded to its longest row.
    """
    if generator is None:
        order = np.argsort(row_lengths, kind="stable")
        chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        return [(rows, int(row_lengths[rows[-1]])) for rows in chunks]
    padded = bucket_lengths(row_lengths)
    batches = []
    for length in np.unique(padded):
        rows = generator.permutation(np.flatnonzero(padded == length))
        batches += [(rows[i : i + batch_size], int(length)) for i in range(0, len(rows), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def batches(
    examples: Examples,
    inputs: Collection[str],
    batch_size: int,
    *,
    seed: int | None = None,
) -> tf.data.Dataset:
    """A dataset of padded batches (x, y, weight), as `keras.Model.fit` takes it.

    Args:
        examples: rows from a task's `encode`.
        inputs: names of the inputs the model takes: `list(model.input)`.
        batch_size: rows a batch, the last one of a bucket may be smaller.
        seed: shuffles, anew in every epoch; None keeps rows in order of length.

    Example:
        >>> import numpy as np, tensorflow as tf, tfft
        >>> from tfft.examples import Examples
        >>> ids = tf.ragged.constant([[5, 6, 7], [5]], dtype=tf.int32)
        >>> rows = Examples({"token_ids": ids}, np.eye(2), np.ones(2), {"token_ids": 0})
        >>> [x["token_ids"].shape for x, y, weight in tfft.batches(rows, ["token_ids"], 2)]
        [TensorShape([2, 3])]
    """
    counts = lengths(examples.x)
    epochs = itertools.count()

    def epoch() -> Iterator[tuple[np.ndarray, int]]:
        yield from plan(counts, batch_size, None if seed is None else np.random.default_rng((seed, next(epochs))))

    # Tensors are captured by reference; arrays would become constants of the pipeline's graph, copied for every batch.
    x = {
        n: v if isinstance(v, tf.RaggedTensor) else tf.convert_to_tensor(v)
        for n, v in examples.x.items()
        if n in inputs
    }
    y, weight = tf.constant(examples.y), tf.constant(examples.weight)

    def gather(rows: tf.Tensor, length: tf.Tensor) -> tuple[Any, tf.Tensor, tf.Tensor]:
        picked = {name: tf.gather(value, rows) for name, value in x.items()}
        return dense_inputs(picked, examples.padding, inputs, length), tf.gather(y, rows), tf.gather(weight, rows)

    signature = (tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64))
    dataset = tf.data.Dataset.from_generator(epoch, output_signature=signature)
    number = len(plan(counts, batch_size, None if seed is None else np.random.default_rng(0)))
    return (
        dataset.map(tf.autograph.experimental.do_not_convert(gather))
        .apply(tf.data.experimental.assert_cardinality(number))
        .prefetch(2)
    )
