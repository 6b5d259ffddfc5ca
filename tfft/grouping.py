"""A batch of an export, computed some rows at a time: rows of about one length together.

A whole batch is padded to its longest row, and its tensors are larger than a processor's caches: a good part of its
time went into padding, and into memory that was cleared page by page. Groups of some hundred tokens need neither.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

# Positions of a group, padding among them; a row of more is a group of its own. Rows of two texts go by both together.
TOKENS = 1024

# Rows and lengths are multiples of it where there are more: oneDNN keeps what it made for every shape it meets, and a
# server that meets all would grow for hours.
ROUND = 8

MASK, SEQUENCES = "padding_mask", ("token_ids", "segment_ids", "padding_mask")


def masks_of(model: keras.Model) -> dict[str, str] | None:
    """Each input and the input that is 0 where it is padding; None for a model whose rows cannot be grouped.

    They can where every output is one vector a row, and every input a sequence with a mask.
    """
    found = {}
    for tensor in model.inputs:
        kind = next((name for name in SEQUENCES if tensor.name.endswith(name)), None)
        if kind is None:
            return None
        found[tensor.name] = tensor.name.removesuffix(kind) + MASK
    vectors = all(len(t.shape) == 2 and t.shape[1] is not None for t in model.outputs)
    return found if vectors and set(found.values()) <= set(found) else None


def in_groups(model: keras.Model, x: Mapping[str, tf.Tensor], masks: Mapping[str, str]) -> Any:
    """What a model gives for a batch, `model(x, training=False)`, in the order of the rows.

    Args:
        model: its outputs, nested as they may be, are vectors: (rows, width). A row's do not depend on those beside it.
        x: its inputs by name, (rows, length), padded at their ends.
        masks: of `masks_of`.

    Returns:
        The outputs, (rows, width).
    """
    rows = tf.shape(next(iter(x.values())))[0]

    def length(mask: tf.Tensor) -> tf.Tensor:
        """What each row is computed with: (rows,)."""
        tokens = tf.maximum(tf.math.count_nonzero(mask, axis=1, dtype=tf.int32), 1)
        return tokens + tf.where(rows > 1, tf.math.floormod(-tokens, ROUND), 0)

    lengths = {mask: length(x[mask]) for mask in sorted(set(masks.values()))}
    order = tf.argsort(tf.add_n(list(lengths.values())), stable=True)
    x, lengths = ({name: tf.gather(t, order) for name, t in some.items()} for some in (x, lengths))
    total = tf.add_n(list(lengths.values()))

    def group(begin: tf.Tensor, *found: tf.Tensor) -> tuple[tf.Tensor, ...]:
        left = total[begin:]
        count = tf.maximum(tf.math.count_nonzero(left * tf.range(1, tf.size(left) + 1) <= TOKENS, dtype=tf.int32), 1)
        count -= tf.where(count > ROUND, tf.math.floormod(count, ROUND), 0)
        some = {}
        for name, mask in masks.items():
            longest = tf.reduce_max(lengths[mask][begin : begin + count])
            some[name] = x[name][begin : begin + count, :longest]
        parts = keras.tree.flatten(model(some, training=False))
        return begin + count, *(tf.concat(pair, 0) for pair in zip(found, parts, strict=True))

    start = [tf.zeros([0, output.shape[-1]], output.dtype) for output in keras.tree.flatten(model.output)]
    shapes = (tf.TensorShape([]), *(tf.TensorShape([None, t.shape[-1]]) for t in start))
    found = tf.while_loop(lambda begin, *_: begin < rows, group, (0, *start), shape_invariants=shapes)[1:]
    back = tf.argsort(order)
    return keras.tree.pack_sequence_as(model.output, [tf.gather(t, back) for t in found])
