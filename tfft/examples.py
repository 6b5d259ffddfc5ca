"""Encoded rows: what a task's `encode` gives and what batches are made of."""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class Examples(NamedTuple):
    """Rows as a model takes them, tokenised once and not yet padded; row order is the DataFrame's.

    Attributes:
        x: input name -> `tf.RaggedTensor` (rows, None) or array (rows, ...). May hold inputs a model does not take.
        y: targets, array (rows, ...).
        weight: sample weights, float32 array (rows,).
        padding: input name -> value that fills a shorter row of a batch.
    """

    x: dict[str, Any]
    y: np.ndarray
    weight: np.ndarray
    padding: dict[str, int]


def lengths(x: dict[str, Any]) -> np.ndarray:
    """Tokens in each row: the longest of its ragged inputs, (rows,); zeros where nothing is ragged."""
    ragged = [value.row_lengths().numpy() for value in x.values() if isinstance(value, tf.RaggedTensor)]
    return np.max(ragged, axis=0) if ragged else np.zeros(len(next(iter(x.values()))), int)


def dense_inputs(
    x: dict[str, Any], padding: dict[str, int], names: Collection[str], length: Any = None
) -> dict[str, Any]:
    """Pad a batch: the inputs called `names`, dense (batch, length); to the longest row when `length` is None."""
    shape = None if length is None else tf.stack([-1, tf.cast(length, tf.int64)])
    return {
        name: x[name].to_tensor(padding[name], shape=shape) if isinstance(x[name], tf.RaggedTensor) else x[name]
        for name in x
        if name in names
    }
