"""A decoder that may copy: what stands next is written, or taken from the source (See et al. 2017, arXiv 1704.04368).

The source is read a second time, in the pieces that the decoder writes in; each knows the encoder's token it stands in.
Names and numbers that no training row has are then spelled as they stand there.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfft import offsets, packing, tokenizing, vocabulary
from tfft.cleaning import clean
from tfft.decoder import NEVER, Decoder, NextPiece
from tfft.examples import Ragged

IDS, PLACES = "copied_ids", "copied_at"  # inputs of the model: pieces of the source, and the tokens they stand in
WIDTH = 128  # of what pieces of the source are found by


def sources(texts: tf.Tensor, tokenizer: Any, model: str, cleaning: Sequence[str]) -> dict[str, tf.RaggedTensor]:
    """The inputs of a backbone for texts (batch,), whole, and `IDS` and `PLACES`, which have lengths of their own.

    In graph operations. The arguments are the backbone's tokenizer, the vocabulary and the cleaning steps.
    """
    text = offsets.valid(clean(texts, cleaning))
    read, own = offsets.pieces(tokenizer, text), offsets.pieces(vocabulary.tokenizer(model), text)
    far = tf.cast(tf.reduce_max(tf.strings.length(text), axis=0) + 1, tf.int64)

    def keys(pieces: offsets.Pieces) -> tf.Tensor:  # rows one after another
        return pieces.starts.value_rowids() * far + tf.cast(pieces.starts.flat_values, tf.int64)

    last = tf.searchsorted(keys(read), keys(own), side="right", out_type=tf.int64) - 1
    in_row = tf.maximum(last - tf.gather(read.ids.row_starts(), own.ids.value_rowids()), 0)
    start = int(tokenizing.special_ids(tokenizer)[0] is not None)
    places = own.ids.with_flat_values(tf.cast(in_row, tf.int32) + start)
    return packing.packed(tokenizer, [read.ids]) | {IDS: own.ids, PLACES: places}


def cut(x: Mapping[str, tf.RaggedTensor], tokenizer: Any, max_length: int) -> dict[str, tf.RaggedTensor]:
    """The inputs cut to `max_length` tokens, and to the pieces that stand in them."""
    end, kept = tokenizing.special_ids(tokenizer)[1], x[PLACES] < _room(tokenizer, max_length)
    return {
        name: tf.ragged.boolean_mask(value, kept)
        if name in (IDS, PLACES)
        else tokenizing.truncate(value, max_length, end if name == "token_ids" else None)
        for name, value in x.items()
    }


def _room(tokenizer: Any, max_length: int) -> int:
    """Tokens before the end."""
    return max_length - int(tokenizing.special_ids(tokenizer)[1] is not None)


def within(x: Mapping[str, Any], tokenizer: Any, max_length: int) -> dict[str, Ragged]:
    """The same of `IDS` and `PLACES` of encoded rows."""
    places, most = x[PLACES], _room(tokenizer, max_length)
    rows = np.repeat(np.arange(len(places.lengths)), places.lengths)
    lengths = np.bincount(rows[places.values < most], minlength=len(places.lengths))  # places rise, so the end goes
    return {name: x[name]._replace(lengths=lengths) for name in (IDS, PLACES)}


@functools.lru_cache(maxsize=4)
def graph(tokenizer: Any, model: str, cleaning: tuple[str, ...]) -> Any:
    """`sources` as a function of texts."""
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda t: sources(t, tokenizer, model, cleaning), input_signature=signature, autograph=False)


@keras.saving.register_keras_serializable(package="tfft")
class NextOrCopied(NextPiece):
    """`NextPiece`, with a share of the probability given to pieces of the source.

    A piece is found by what the encoder says of its token, by itself, and by the piece before it: so a name, once
    begun, is spelled to its end.

    Args:
        decoder: whose embeddings they are.
    """

    def __init__(self, decoder: Decoder, **kwargs: Any) -> None:
        super().__init__(decoder, **kwargs)
        self.query = keras.layers.Dense(WIDTH, name="query")
        self.near = keras.layers.Dense(WIDTH, name="near")
        self.own = keras.layers.Dense(WIDTH, use_bias=False, name="own")
        self.before = keras.layers.Dense(WIDTH, use_bias=False, name="before")
        self.gate = keras.layers.Dense(1, name="gate")

    def build(  # type: ignore[override]
        self,
        states_shape: Any,
        target_ids_shape: Any,
        encoded_shape: Any,
        copied_ids_shape: Any,
        copied_at_shape: Any,
    ) -> None:
        """Make the variables."""
        super().build(states_shape, target_ids_shape)
        self.query.build(states_shape)
        self.gate.build(states_shape)
        self.near.build((None, None, encoded_shape[-1]))
        for layer in (self.own, self.before):
            layer.build((None, self.decoder.width))

    def compute_output_spec(self, states: Any, target_ids: Any, *more: Any, **kwargs: Any) -> Any:
        """Known without a trace of the call."""
        return super().compute_output_spec(states, target_ids)

    def remembered(self, encoded: Any, copied_ids: Any, copied_at: Any) -> tuple[Any, Any]:
        """What pieces of the source are found by, (batch, copied, `WIDTH`), and which they are, (batch, copied)."""
        before = ops.pad(copied_ids, [[0, 0], [1, 0]], constant_values=vocabulary.START)[:, :-1]
        table = self.decoder.embeddings * self.decoder.width**0.5
        # Projected before they are gathered: a source has more pieces than the vocabulary, and rows are then narrow.
        keys = tf.gather(self.near(encoded), copied_at, batch_dims=1)
        keys += ops.take(self.own(table), copied_ids, axis=0) + ops.take(self.before(table), before, axis=0)
        return keys, copied_ids

    def _pointed(self, states: Any, memory: tuple[Any, Any]) -> tuple[Any, Any, Any]:
        """Logarithms of the shares of writing and of copying, (batch, positions, 1), and of the copied pieces' within
        that, (batch, positions, copied).
        """
        keys, ids = memory
        scores = tf.matmul(self.query(states) * WIDTH**-0.5, keys, transpose_b=True)  # see `DecoderBlock`
        scores += ops.cast(ids == vocabulary.PAD, "float32")[:, None, :] * NEVER
        gate = self.gate(states)
        none = ops.cast(ops.all(ids == vocabulary.PAD, axis=1), "float32")[:, None, None]  # nothing to copy
        copied = ops.log_sigmoid(gate) + none * NEVER
        written = ops.log_sigmoid(-gate) * (1 - none)
        return written, copied, tf.nn.log_softmax(scores)

    def logits(self, states: Any, memory: Any = None) -> Any:
        """Logarithms of probabilities (batch, positions, pieces) after states (batch, positions, width)."""
        written, copied, among = self._pointed(states, memory)
        own = written + tf.nn.log_softmax(self._written(states))
        shape = tf.shape(own)
        ids = tf.broadcast_to(memory[1][:, tf.newaxis], tf.shape(among))
        rows, positions = (
            tf.broadcast_to(tf.reshape(tf.range(shape[axis]), place), tf.shape(among))
            for axis, place in ((0, (-1, 1, 1)), (1, (1, -1, 1)))
        )
        taken = tf.scatter_nd(tf.stack([rows, positions, ids], axis=-1), tf.exp(copied + among), shape)
        return ops.logaddexp(own, ops.log(taken + 1e-30))

    def call(  # type: ignore[override]
        self, states: Any, target_ids: Any, encoded: Any, copied_ids: Any, copied_at: Any
    ) -> Any:
        """As `NextPiece` gives it, of the source's states and pieces, too."""
        found = super().call(states, target_ids)
        memory = self.remembered(encoded, copied_ids, copied_at)
        written, copied, among = self._pointed(states, memory)
        same = ops.cast(target_ids[:, :, None] == copied_ids[:, None, :], "float32")
        share = ops.sum(ops.exp(among) * same, axis=-1)
        own = ops.logaddexp(written[..., 0] + found[..., 0], copied[..., 0] + ops.log(share + 1e-30))
        return ops.stack([own, found[..., 1]], axis=-1)
