"""Texts as old models take them, from before subword tokenizers: a fixed number of ids, or a bag of words.

What `keras.preprocessing.text` and `pad_sequences` did in the script that trained the model, in graph operations, so
that it goes into the export. Source of the rules: keras-preprocessing 1.1.2.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfft import tokenizing
from tfft.cleaning import clean
from tfft.errors import ExportError, InvalidValueError, NotFoundError
from tfft.examples import Examples
from tfft.tasks import get_task
from tfft.tasks.task import Facts, Task

KINDS = ("words", "characters", "farmhash", "md5")
BAGS = ("binary", "count", "freq")
FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'  # what `Tokenizer` takes out of texts

Index = Mapping[str, int] | str | os.PathLike[str]


class FixedText(tf.Module):
    """Strings (batch,) -> ids (batch, length), or a bag of words (batch, size).

    Args:
        kind: "words" or "characters", numbered by `index`, as `Tokenizer` does; "farmhash", words hashed as
            `keras.layers.Hashing` does; "md5", as `hashing_trick(..., hash_function="md5")`, which TensorFlow has no
            operation for, so it can be trained with and not exported. What `one_hot` gave came from Python's own hash,
            which is another in every process: such a model cannot be asked any more.
        length: ids a text has; longer ones are cut, shorter ones filled with 0. None for a bag of words.
        index: word or character -> id; or a JSON file of it, or of what `Tokenizer.to_json()` gave.
        size: ids there are: `num_words` of a `Tokenizer`, bins of a hash. Words beyond it are unknown.
        bag: None, or "binary", "count", "freq": how often each id is there, as `texts_to_matrix`.
        unknown: the id of what the index lacks; None leaves it out.
        start: an id that stands before every text, if any.
        offset: what is added to the index; of `keras.datasets.imdb` it is 3, with `start=1, unknown=2`.
        padding: "pre" or "post", where 0 stands.
        truncating: "pre" or "post", where a long text is cut.
        lower: whether texts are lower-cased.
        filters: characters that become spaces between words.

    Raises:
        InvalidValueError: a setting that is not one of these, an index that is none.
        NotFoundError: there is no file of the index.

    Examples:
        >>> import tfft
        >>> text = tfft.FixedText("words", length=4, index={"where": 1, "is": 2, "parcel": 3})
        >>> text(["Where is my parcel?"]).numpy().tolist()
        [[0, 1, 2, 3]]
    """

    def __init__(
        self,
        kind: str,
        *,
        length: int | None = None,
        index: Index | None = None,
        size: int | None = None,
        bag: str | None = None,
        unknown: int | None = None,
        start: int | None = None,
        offset: int = 0,
        padding: str = "pre",
        truncating: str = "pre",
        lower: bool = True,
        filters: str = FILTERS,
    ) -> None:
        super().__init__(name="fixed_text")
        _one_of("kind", kind, *KINDS)
        _one_of("padding", padding, "pre", "post")
        _one_of("truncating", truncating, "pre", "post")
        _one_of("bag", bag, None, *BAGS)
        if (length is None) == (bag is None):
            raise InvalidValueError("a text becomes `length` ids, or a bag of words: give one of `length` and `bag`")
        if length is not None and not (_is_id(length) and length > 0):
            raise InvalidValueError(f"length must be a whole number from 1. Received: {length!r}")
        if size is not None and not (_is_id(size) and size > 1):
            raise InvalidValueError(f"size must be a whole number from 2. Received: {size!r}")
        if (index is None) == (kind in ("words", "characters")):
            raise InvalidValueError(
                f"index must {'be given' if index is None else 'be left out'} for kind={kind!r}. "
                "A Tokenizer's is what its to_json() wrote, or its word_index"
            )
        self.kind, self.length, self.bag = kind, length, bag
        self.unknown, self.start, self.offset = unknown, start, offset
        self.padding, self.truncating, self.lower, self.filters = padding, truncating, lower, filters
        ids = {} if index is None else {word: offset + number for word, number in read_index(index).items()}
        if size is None and not ids:
            raise InvalidValueError(f"size must be the number of bins for kind={kind!r}")
        self.size = max(*ids.values(), unknown or 0, start or 0) + 1 if size is None else size
        beyond = [number for number in (unknown, start) if number is not None and not 0 <= number < self.size]
        if beyond:
            raise InvalidValueError(f"unknown and start are ids from 0 to {self.size - 1}. Received: {beyond[0]}")
        if ids:
            known = {word: number for word, number in ids.items() if number < self.size}
            self._table = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer([*known], [*known.values()], tf.string, tf.int64),
                -1 if unknown is None else unknown,
            )

    def __call__(self, texts: Any) -> Any:
        """Strings (batch,) -> int32 (batch, length) or float32 (batch, size)."""
        texts = tf.convert_to_tensor(texts, tf.string)
        if self.kind == "md5":
            if not tf.executing_eagerly():
                raise ExportError(
                    "TensorFlow has no operation for md5, so an export cannot hash texts with it. "
                    "Train the model anew with kind='farmhash'"
                )
            ids = self._md5(texts)
        else:
            ids = self._ids(self._pieces(texts))
        if self.start is not None:
            ids = tf.concat([tf.fill([ids.nrows(), 1], tf.constant(self.start, tf.int64)), ids], axis=1)
        return self._padded(ids) if self.bag is None else self._bagged(ids)

    def _pieces(self, texts: tf.Tensor) -> tf.RaggedTensor:
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
        if self.lower:
            texts = tf.strings.lower(texts, encoding="utf-8")
        if self.kind == "characters":
            return tf.strings.unicode_split(texts, "UTF-8")
        if self.filters:
            texts = tf.strings.regex_replace(texts, f"[{''.join(map(_escaped, self.filters))}]", " ")
        words = tf.strings.split(texts, sep=" ")  # at spaces alone, as Tokenizer does
        return tf.ragged.boolean_mask(words, words.with_flat_values(words.flat_values != ""))

    def _ids(self, pieces: tf.RaggedTensor) -> tf.RaggedTensor:
        if self.kind == "farmhash":
            return pieces.with_flat_values(tf.strings.to_hash_bucket_fast(pieces.flat_values, self.size))
        ids = pieces.with_flat_values(self._table.lookup(pieces.flat_values))
        return ids if self.unknown is not None else tf.ragged.boolean_mask(ids, ids >= 0)

    def _md5(self, texts: tf.Tensor) -> tf.RaggedTensor:
        pieces = self._pieces(texts)
        hashed = [int(hashlib.md5(word).hexdigest(), 16) % (self.size - 1) + 1 for word in pieces.flat_values.numpy()]
        return pieces.with_flat_values(tf.constant(hashed, tf.int64))

    def _padded(self, ids: tf.RaggedTensor) -> tf.Tensor:
        length = self.length
        kept = ids[:, -length:] if self.truncating == "pre" else ids[:, :length]  # type: ignore[operator]
        if self.padding == "post":
            return tf.cast(kept.to_tensor(0, shape=[None, length]), tf.int32)
        missing = length - kept.row_lengths()
        zeros = tf.RaggedTensor.from_row_lengths(tf.zeros([tf.reduce_sum(missing)], ids.dtype), missing)
        return tf.cast(tf.concat([zeros, kept], axis=1).to_tensor(0, shape=[None, length]), tf.int32)

    def _bagged(self, ids: tf.RaggedTensor) -> tf.Tensor:
        where = tf.stack([ids.value_rowids(), ids.flat_values], axis=1)
        counts = tf.zeros([ids.nrows(), self.size])  # (batch, size)
        counts = tf.tensor_scatter_nd_add(counts, where, tf.ones_like(ids.flat_values, tf.float32))
        if self.bag == "binary":
            return tf.minimum(counts, 1.0)
        total = tf.cast(ids.row_lengths(), tf.float32)[:, tf.newaxis]
        return counts if self.bag == "count" else tf.math.divide_no_nan(counts, total)


def _one_of(name: str, given: Any, *known: Any) -> None:
    if given not in known:
        raise InvalidValueError(f"{name} must be one of {', '.join(map(repr, known))}. Received: {given!r}")


def _escaped(character: str) -> str:
    """As it stands within the brackets of a regular expression of RE2."""
    return {"\t": r"\t", "\n": r"\n"}.get(character, re.escape(character))


def read_index(index: Index) -> dict[str, int]:
    """Word -> id, from a mapping, a JSON file of one, or of what `Tokenizer.to_json()` gave."""
    read: Any = index
    if not isinstance(index, Mapping):
        try:
            with open(index, encoding="utf-8") as file:
                read = json.load(file)
            read = json.loads(read) if isinstance(read, str) else read
            read = read.get("config", {}).get("word_index", read)
            read = json.loads(read) if isinstance(read, str) else read
        except FileNotFoundError:
            raise NotFoundError(f"no such file: {os.fspath(index)}") from None
        except (ValueError, AttributeError) as error:
            raise InvalidValueError(
                f"{os.fspath(index)}: an index is JSON, {{word: id}} or what Tokenizer.to_json() wrote. {error}"
            ) from None
    if not isinstance(read, Mapping) or not read or not all(_is_id(number) for number in read.values()):
        raise InvalidValueError("an index maps words to whole numbers from 0, at least one")
    return {str(word): int(number) for word, number in read.items()}


def _is_id(number: Any) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool) and int(number) >= 0


def on_text(
    model: keras.Model, text: FixedText | Mapping[str, FixedText], task: str = "text-classification"
) -> tuple[keras.Model, Task]:
    """A model that takes ids, and the task as it is for it: encoded, trained, scored and exported as others are.

    Args:
        model: functional, with inputs (batch, length); from `load_model` and `replace_head`.
        text: what texts become; of a model with several inputs, for each of them by its name, of the same text.
        task: the name of a task of one text.

    Returns:
        The same graph with its inputs by name, and the task.

    Raises:
        InvalidValueError: inputs without a text, or of another length.

    Examples:
        model = tfft.replace_head(tfft.load_model("old.h5"), 4)
        text = tfft.FixedText("words", length=100, index="tokenizer.json")
        model, task = tfft.on_text(model, text)
    """
    inputs = {tensor.name: tensor for tensor in model.inputs}
    texts = dict(text) if isinstance(text, Mapping) else dict.fromkeys(inputs, text)
    if set(texts) != set(inputs) or (not isinstance(text, Mapping) and len(inputs) > 1):
        raise InvalidValueError(
            f"the model's inputs are {', '.join(inputs)}: each needs a FixedText, by its name. "
            f"Received: {', '.join(map(str, texts)) if isinstance(text, Mapping) else 'one for all'}"
        )
    for name, tensor in inputs.items():
        made, wanted = texts[name].length or texts[name].size, tensor.shape[1:]
        if len(wanted) != 1 or wanted[0] not in (None, made):
            raise InvalidValueError(
                f"input {name} takes (batch, {', '.join(map(str, wanted))}). Received: {made} numbers a text"
            )
    base = get_task(task)
    if len(base.inputs) != 1 or base.targets is None:
        raise InvalidValueError(f"task must read one text and answer from one vector of it. Received: {task}")

    def numbers(strings: Any) -> dict[str, Any]:
        return {name: tf.cast(texts[name](strings), inputs[name].dtype) for name in inputs}

    def encode(
        rows: pd.DataFrame, tokenizer: Any, facts: Facts, *, cleaning: Sequence[str] = (), class_weight: Any = None
    ) -> Examples:
        # targets and weights are the task's; its ids are none
        examples = base.encode(rows, _no_ids, facts, cleaning=cleaning, class_weight=class_weight)
        strings, chunk = rows[base.inputs[0]].tolist(), tokenizing.CHUNK
        some = [numbers(clean(tf.constant(strings[i : i + chunk]), cleaning)) for i in range(0, len(rows), chunk)]
        return examples._replace(x={name: np.concatenate([part[name] for part in some]) for name in inputs}, padding={})

    def feed(given: Mapping[str, Any], tokenizer: Any, facts: Facts, cleaning: Sequence[str], max_length: int) -> Any:
        (strings,) = given.values()
        return numbers(clean(strings, cleaning))

    return keras.Model(inputs, model.output), dataclasses.replace(
        base, encode=encode, feed=feed, cut=lambda examples, tokenizer, max_length: (examples, 0)
    )


def _no_ids(texts: tf.Tensor) -> tf.RaggedTensor:
    empty = tf.zeros([tf.shape(texts)[0]], tf.int64)
    return tf.RaggedTensor.from_row_lengths(tf.zeros([0], tf.int32), empty)
