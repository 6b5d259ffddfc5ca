"""One or two texts as one row of tokens, and long rows cut into overlapping windows. Graph operations, as tokenizing's.

A packed row is `start, text, end`, or `start, first, end, second, end` as the backbone was pretrained on pairs.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tfft import tokenizing

OVERLAP = 128  # tokens that neighbouring windows share, by default


class Windows(NamedTuple):
    """Rows cut into windows.

    Attributes:
        x: input -> ragged (windows, None).
        row: (windows,) int32, whose each is, in order.
        begin: (windows,) int32, how many tokens of the row's last text stand before it.
    """

    x: dict[str, tf.RaggedTensor]
    row: tf.Tensor
    begin: tf.Tensor


def packed(
    tokenizer: Any, parts: list[tf.RaggedTensor], values: Mapping[str, tuple[tf.RaggedTensor, int]] | None = None
) -> dict[str, tf.RaggedTensor]:
    """The inputs of a backbone for one or two texts a row, whole: each ragged (batch, None) int32.

    Args:
        tokenizer: KerasHub's.
        parts: token ids of the first texts and, perhaps, of the second ones.
        values: name -> (one value for each token of the last text, what the other tokens have); laid out as the ids.
    """
    start, end, _ = tokenizing.special_ids(tokenizer)
    column = tf.ones([parts[0].nrows(), 1], tf.int32)
    opening = [] if start is None else [column * start]
    closing = [] if end is None else [column * end]
    head = [*opening, parts[0], *(closing * tokenizing.separators(tokenizer))] if len(parts) > 1 else opening
    ids = tf.concat([*head, parts[-1], *closing], axis=1)
    before = tf.cast(sum(_size(part) for part in head), tf.int32)
    place = tf.ragged.range(tf.cast(ids.row_lengths(), tf.int32)).flat_values
    second = place >= tf.gather(before, ids.value_rowids()) if len(parts) > 1 and head else tf.zeros_like(place, bool)
    x = {"token_ids": ids, "padding_mask": tf.ones_like(ids)}
    x["segment_ids"] = ids.with_flat_values(tf.cast(second, tf.int32))
    for name, (value, fill) in (values or {}).items():
        around = [_filled(part, fill) for part in head], [_filled(part, fill) for part in closing]
        x[name] = tf.concat([*around[0], tf.cast(value, tf.int32), *around[1]], axis=1)
    return x


def _size(part: Any) -> Any:
    return part.row_lengths() if isinstance(part, tf.RaggedTensor) else tf.cast(part[:, 0] * 0 + 1, tf.int64)


def _filled(part: Any, fill: int) -> Any:
    if isinstance(part, tf.RaggedTensor):
        return part.with_flat_values(tf.fill(tf.shape(part.flat_values), fill))
    return tf.fill(tf.shape(part), fill)


def windows(
    x: Mapping[str, tf.RaggedTensor], prefix: tf.Tensor, tokenizer: Any, max_length: int, overlap: int = OVERLAP
) -> Windows:
    """Cut packed rows into windows of at most `max_length` tokens, each with the row's beginning and its end token.

    Args:
        x: from `packed`; all of the same lengths.
        prefix: (batch,) int32, tokens before the last text: they stand in every window. Longer than half of
            `max_length`, they lose tokens before their separators.
        tokenizer: whose end token is not cut off.
        max_length: tokens of a window.
        overlap: tokens that neighbouring windows share, at most; a third of their room where that is less.
    """
    ends = int(tokenizing.special_ids(tokenizer)[1] is not None)
    separators = ends * tokenizing.separators(tokenizer)
    total = tf.cast(x["token_ids"].row_lengths(), tf.int32)
    kept = tf.minimum(prefix, max_length // 2)
    body, room = total - prefix - ends, tf.maximum(max_length - kept - ends, 1)
    step = room - tf.minimum(overlap, room // 3)
    count = 1 + tf.maximum(body - room + step - 1, 0) // step
    row = tf.repeat(tf.range(tf.size(count)), count)
    begin = (tf.range(tf.size(row)) - tf.gather(tf.cumsum(count, exclusive=True), row)) * tf.gather(step, row)
    taken = tf.minimum(tf.gather(room, row), tf.gather(body, row) - begin)
    size = tf.gather(kept, row) + taken + ends
    places = tf.ragged.range(size)
    place, of = places.flat_values, places.value_rowids()

    def each(value: tf.Tensor) -> tf.Tensor:
        return tf.gather(value, of)

    kept_of, lost = each(tf.gather(kept, row)), each(tf.gather(prefix - kept, row))
    index = place + lost + each(begin)  # in the last text
    index = tf.where(place >= each(size) - ends, each(tf.gather(total, row)) - each(size) + place, index)
    index = tf.where(place < kept_of, place + lost, index)
    index = tf.where(place < kept_of - separators, place, index)
    first = tf.cast(x["token_ids"].row_starts(), tf.int32)
    flat = each(tf.gather(first, row)) + index
    cut = {name: places.with_flat_values(tf.gather(value.flat_values, flat)) for name, value in x.items()}
    return Windows(cut, row, begin)


def longest_first(
    x: Mapping[str, tf.RaggedTensor], first: tf.Tensor, tokenizer: Any, max_length: int
) -> dict[str, tf.RaggedTensor]:
    """Cut packed pairs to `max_length` tokens; the longer text loses tokens until both are equal.

    Args:
        x: from `packed`, of two texts.
        first: (batch,) int32, tokens of the first text.
        tokenizer: whose special tokens are not cut off.
        max_length: tokens of a row.
    """
    start, end, _ = tokenizing.special_ids(tokenizer)
    before, ends = int(start is not None), int(end is not None)
    separators = ends * tokenizing.separators(tokenizer)
    total = tf.cast(x["token_ids"].row_lengths(), tf.int32)
    second = total - first - before - separators - ends
    room = tf.maximum(max_length - before - separators - ends, 2)
    half = room // 2
    kept = tf.where(first + second <= room, first, tf.minimum(first, tf.maximum(half, room - second)))
    other = tf.minimum(second, room - kept)
    size = before + kept + separators + other + ends
    places = tf.ragged.range(size)
    place, of = places.flat_values, places.value_rowids()
    past_first = place >= tf.gather(before + kept, of)
    past_second = place >= tf.gather(before + kept + separators + other, of)
    index = place + tf.where(past_first, tf.gather(first - kept, of), 0)
    index += tf.where(past_second, tf.gather(second - other, of), 0)
    flat = tf.gather(tf.cast(x["token_ids"].row_starts(), tf.int32), of) + index
    return {name: places.with_flat_values(tf.gather(value.flat_values, flat)) for name, value in x.items()}


def dense(x: Mapping[str, Any], padding: Mapping[str, int]) -> dict[str, tf.Tensor]:
    """Ragged inputs padded to the longest row: (batch, length); others as they are."""
    return {n: v.to_tensor(padding.get(n, 0)) if isinstance(v, tf.RaggedTensor) else v for n, v in x.items()}
