"""Rows to batches: rows of like length together, padded to their bucket, a bounded number of shapes."""

import itertools
import logging
from collections.abc import Callable, Collection, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import tensorflow as tf

from tfft import memory
from tfft.examples import Examples, Ragged, as_arrays, lengths, own_lengths, release, take

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]
Arrange = Callable[[np.ndarray, np.random.Generator | None], list[tuple[np.ndarray, int]]]
Redraw = Callable[[Arrays, Any, Any, np.random.Generator], tuple[Arrays, Any, Any]]

# At most so many different lengths in training. On four real data sets 8 add 7 to 12 % of padding, 32 add 1 to 3.
BUCKETS = 32
# Token positions in one batch, at most. What is between two products then stays in a CPU's caches.
INFERENCE_TOKENS = 1024
INFERENCE_ROWS = 512
TRAINING_TOKENS = 16384  # where rows are long a batch has fewer of them, or memory grows with the longest text
SPREAD = 3  # targets of so many different lengths are mixed within a batch
GROUP_ROWS = 1024  # vectors made by one call of Python, which costs more than a training step on a batch of them
RELEASE_BYTES = 2**26  # bytes read from a file before its pages are given back


def bucket_lengths(row_lengths: np.ndarray) -> np.ndarray:
    """The length each row is padded to: of all choices of at most `BUCKETS` lengths the one that pads least."""
    longest = int(row_lengths.max(initial=0))
    if longest == 0:
        return row_lengths
    step = -(-longest // 256)  # keeps the search below small where there are thousands of lengths
    rounded = np.minimum(-(-np.maximum(row_lengths, 1) // step) * step, longest)
    edges, counts = np.unique(rounded, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    # best[j]: fewest token positions for the rows below edge j with the buckets used so far
    best = np.concatenate([[0.0], np.full(len(edges), np.inf)])
    cuts = []
    for _ in range(min(BUCKETS, len(edges))):
        cost = best[:, np.newaxis] + edges * (below[np.newaxis, 1:] - below[:, np.newaxis])  # (begin, end)
        cost[np.tri(len(edges) + 1, len(edges), -1, dtype=bool)] = np.inf  # a bucket ends at or after its beginning
        begin = cost.argmin(axis=0)
        cuts.append(begin)
        best = np.concatenate([[0.0], cost[begin, np.arange(len(edges))]])
    end, ends = len(edges), []
    for begin in reversed(cuts):
        if end == 0:
            break
        ends.append(edges[end - 1])
        end = int(begin[end - 1])
    chosen = np.array(ends[::-1])
    return chosen[np.searchsorted(chosen, rounded)]


def plan(
    padded: np.ndarray,
    batch_size: int,
    max_tokens: int,
    generator: np.random.Generator | None = None,
    own: np.ndarray | None = None,
) -> list[tuple[np.ndarray, int]]:
    """The batches of one epoch: (row numbers, length to pad to).

    Args:
        padded: length each row is padded to at least, (rows,).
        batch_size: rows in a batch, at most.
        max_tokens: rows times length of a batch, at most; one row is always allowed.
        generator: shuffles rows of one length and the batches; without it batches come in order of length.
        own: other lengths of the rows, such as their targets', (rows,); rows of one length are shuffled among those of
            about the same of these.
    """
    order = np.argsort(padded, kind="stable")
    if generator is not None:
        drawn = generator.random(len(padded))
        order = np.lexsort((drawn if own is None else own + SPREAD * drawn, padded))
    batches, begin, ordered = [], 0, padded[order]
    while begin < len(order):
        ends = ordered[begin : begin + batch_size] * np.arange(1, len(ordered[begin : begin + batch_size]) + 1)
        end = begin + max(int(np.searchsorted(ends, max_tokens, side="right")), 1)
        batches.append((order[begin:end], int(ordered[end - 1])))
        begin = end
    return batches if generator is None else [batches[i] for i in generator.permutation(len(batches))]


def batches(
    examples: Examples,
    inputs: Collection[str],
    batch_size: int,
    *,
    seed: int | None = None,
    max_tokens: int = TRAINING_TOKENS,
    arrange: Arrange | None = None,
    redraw: Redraw | None = None,
) -> tf.data.Dataset:
    """A dataset of padded batches (x, y, weight), as `keras.Model.fit` takes it.

    Args:
        examples: rows from a task's `encode`.
        inputs: names of the inputs the model takes: `list(model.input)`.
        batch_size: rows a batch, at most; those of one epoch differ by the last one and by `max_tokens`.
        seed: shuffles, anew in every epoch, and pads rows to at most `BUCKETS` lengths; None keeps rows in order of
            length and pads each batch to its longest.
        max_tokens: rows times length of a batch, at most.
        arrange: (length each row is padded to, generator) -> the batches of an epoch, always as many, as `plan` gives
            them; `plan` by default.
        redraw: (x, y, weight, generator) -> (x, y, weight) of one batch, when it is shuffled: what is drawn anew in
            every epoch. Its `x` has all that the examples have, and gives the model's inputs.

    Examples:
        >>> import numpy as np, tensorflow as tf, tfft
        >>> from tfft.examples import Examples
        >>> ids = tf.ragged.constant([[5, 6, 7], [5]], dtype=tf.int32)
        >>> rows = Examples({"token_ids": ids}, np.eye(2), np.ones(2), {"token_ids": 0})
        >>> [x["token_ids"].shape for x, y, weight in tfft.batches(rows, ["token_ids"], 2)]
        [TensorShape([2, 3])]
    """
    counts, own = lengths(examples.x), own_lengths(examples.x)
    padded = counts if seed is None else bucket_lengths(counts)
    x = {name: as_arrays(value) for name, value in examples.x.items() if name in inputs or redraw is not None}
    y, weight = as_arrays(examples.y), as_arrays(examples.weight)
    epochs, taken = itertools.count(), [name for name in x if name in inputs]
    # rows without a length are cut into batches in the graph
    group = 1 if counts.any() or arrange is not None else max(GROUP_ROWS // batch_size, 1)

    def planned(generator: np.random.Generator | None, rows: int) -> list[tuple[np.ndarray, int]]:
        return plan(padded, rows, max_tokens, generator, own) if arrange is None else arrange(padded, generator)

    def epoch() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
        memory.keep_freed()  # here, for TensorFlow undoes it when it makes such a dataset
        generator = None if seed is None else np.random.default_rng((seed, next(epochs)))
        read = 0
        for rows, length in planned(generator, group * batch_size):
            batch = {name: take(value, rows, length, examples.padding.get(name, 0)) for name, value in x.items()}
            target, of_row = take(y, rows, length), take(weight, rows, length)
            read += sum(value.nbytes for value in batch.values())
            if redraw is not None and generator is not None:
                batch, target, of_row = redraw(batch, target, of_row, generator)
            yield {name: batch[name] for name in taken}, target, of_row
            if read > RELEASE_BYTES:
                read = 0
                for value in x.values():
                    release(value)

    signature = (
        {name: tf.TensorSpec(_shape(x[name]), _dtype(x[name])) for name in taken},
        tf.TensorSpec(_shape(y), _dtype(y)),
        tf.TensorSpec(_shape(weight), _dtype(weight)),
    )
    every = planned(None, batch_size)
    if seed is not None and counts.any():
        total = sum(len(rows) * length for rows, length in every)
        shapes = len({length for _, length in every})
        share = 1 - sum(counts[rows].sum() for rows, _ in every) / total
        log.info("batches: %d an epoch, %d lengths, %.1f %% padding", len(every), shapes, 100 * share)
    dataset = tf.data.Dataset.from_generator(epoch, output_signature=signature)
    if group > 1:
        dataset = dataset.prefetch(1).rebatch(batch_size)  # the next group is made while this one is learned from
    if any(_dtype(value) in (tf.float16, tf.bfloat16) for value in x.values()):
        dataset = dataset.map(tf.autograph.experimental.do_not_convert(_as_float32))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(every))).prefetch(2)
    # There is nothing to tune, and an iterator's end waits for the tuner, which sleeps for up to a minute.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _shape(value: Any) -> list[int | None]:
    if isinstance(value, Ragged):
        shape: list[int | None] = [None, *value.values.shape[1:]]
        return [*shape[: value.axis], None, *shape[value.axis :]]
    if isinstance(value, np.ndarray):
        return [None, *value.shape[1:]]
    return [None, *(None if axis in value.length_axes else size for axis, size in enumerate(value.value.shape))]


def _dtype(value: Any) -> tf.DType:
    dtype = value.dtype if isinstance(value, np.ndarray) else value[0].dtype
    return tf.bfloat16 if dtype == ml_dtypes.bfloat16 else tf.as_dtype(dtype)


def _as_float32(x: dict[str, tf.Tensor], y: tf.Tensor, weight: tf.Tensor) -> tuple[Any, tf.Tensor, tf.Tensor]:
    """What was stored in half precision is computed with in full."""
    return {n: tf.cast(v, tf.float32) if v.dtype.size == 2 else v for n, v in x.items()}, y, weight
