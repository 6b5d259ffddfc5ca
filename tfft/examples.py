"""Encoded rows: what a task's `encode` gives and what batches are made of."""

import mmap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class Ragged(NamedTuple):
    """Rows of different lengths in one array, in memory or mapped from a file.

    Attributes:
        values: (total, ...), the rows one after another, in any order.
        starts: (rows,), where each begins.
        lengths: (rows,).
        axis: which axis of a batch is as long as its rows.
        own: whether its lengths are its own, as a translation's are, and not those of the rows' tokens; a batch is then
            padded to the longest of its own.
    """

    values: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    axis: int = 1
    own: bool = False


class Shared(NamedTuple):
    """One value for all rows, such as a table of relative positions.

    Attributes:
        value: (...), for the longest row.
        length_axes: its axes as long as a row is; cut to the length of each batch.
    """

    value: np.ndarray
    length_axes: tuple[int, ...]


class Examples(NamedTuple):
    """Rows as a model takes them, tokenised once and not yet padded; row order is the DataFrame's.

    Attributes:
        x: input name -> `tf.RaggedTensor` (rows, None), `Ragged`, `Shared`, or array (rows, ...). May hold inputs a
            model does not take.
        y: targets, array (rows, ...), or as long as the rows are: `tf.RaggedTensor` (rows, None).
        weight: sample weights, float32 array (rows,), or `tf.RaggedTensor` (rows, None).
        padding: input name -> value that fills a shorter row of a batch.
    """

    x: dict[str, Any]
    y: Any
    weight: Any
    padding: dict[str, int]


def as_arrays(value: Any) -> Any:
    """A `tf.RaggedTensor` as `Ragged`; anything else as it is, tensors as arrays."""
    if isinstance(value, tf.RaggedTensor):
        splits = value.row_splits.numpy()
        return Ragged(value.flat_values.numpy(), splits[:-1], np.diff(splits))
    return value if isinstance(value, (Ragged, Shared)) else np.asanyarray(value)


def each(value: Any) -> list[np.ndarray]:
    """The rows of a `tf.RaggedTensor`, `Ragged` or array, each for itself."""
    rows = as_arrays(value)
    if isinstance(rows, np.ndarray):
        return list(rows)
    return [rows.values[begin : begin + size] for begin, size in zip(rows.starts, rows.lengths, strict=True)]


def from_each(rows: Sequence[np.ndarray], dtype: str = "int32", own: bool = False) -> Ragged:
    """`each` undone."""
    counts = np.array([len(row) for row in rows], int)
    values = np.concatenate(rows).astype(dtype) if rows else np.zeros(0, dtype)
    return Ragged(values, np.cumsum(counts) - counts, counts, own=own)


def lengths(x: dict[str, Any]) -> np.ndarray:
    """Tokens in each row: the longest of its ragged inputs, (rows,); zeros where nothing is ragged."""
    values = [as_arrays(value) for value in x.values()]
    ragged = [value.lengths for value in values if isinstance(value, Ragged) and not value.own]
    if ragged:
        return np.max(ragged, axis=0)
    return np.zeros(next(len(value) for value in values if isinstance(value, np.ndarray)), int)


def own_lengths(x: dict[str, Any]) -> np.ndarray | None:
    """The lengths of inputs that have their own, the longest in each row, (rows,); None where none has."""
    own = [value.lengths for value in x.values() if isinstance(value, Ragged) and value.own]
    return np.max(own, axis=0) if own else None


def count(examples: Examples) -> int:
    """How many examples there are."""
    y = as_arrays(examples.y)
    return len(y.lengths) if isinstance(y, Ragged) else len(y)


def take(value: Any, rows: np.ndarray, length: int, padding: float = 0) -> np.ndarray:
    """Some rows of one input as a dense array: (batch, length, ...) if it is ragged, else (batch, ...).

    Where its lengths are its own, it is as long as the longest of the rows.
    """
    if isinstance(value, Shared):
        cut = value.value
        for axis in value.length_axes:
            cut = cut.take(range(length), axis)
        return np.broadcast_to(cut, (len(rows), *cut.shape))
    if isinstance(value, Ragged):
        length = int(value.lengths[rows].max(initial=0)) if value.own else length
        offsets = np.arange(length)
        inside = offsets < value.lengths[rows, np.newaxis]  # (batch, length)
        out = np.full((len(rows), length, *value.values.shape[1:]), padding, value.values.dtype)
        out[inside] = value.values[(value.starts[rows, np.newaxis] + offsets)[inside]]
        return out if value.axis == 1 else np.moveaxis(out, 1, value.axis)
    return np.asarray(value[rows])


def release(value: Any) -> None:
    """Give the memory of pages read from a file back; they are read again when they are asked for again."""
    array = value.values if isinstance(value, Ragged) else value
    mapped: Any = array.base if isinstance(array, np.memmap) else None
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)
