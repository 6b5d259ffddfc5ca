"""A transformer decoder that stands on any encoder: what a head is where the answer is a text.

It learns with the whole target before it, each position seeing those to its left (`call`), and writes one piece at a
time, keeping keys and values of what is written (`memory`, `step`); both give the same numbers.
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from tfft import vocabulary

NEVER = -1e9  # added to what must not be attended to

Kept = tuple[Any, Any]  # keys and values, each (batch, beams, heads, written, size)


class Memory(NamedTuple):
    """What a decoder reads in every step, the same for all beams.

    Attributes:
        blocks: for each block keys and values of the source, each (batch, heads, length, size).
        hidden: added to the scores of source positions, (batch, 1, 1, length): 0 at tokens, `NEVER` at padding.
    """

    blocks: list[Kept]
    hidden: Any


def _dense(units: int, name: str, activation: str | None = None) -> keras.layers.Dense:
    return keras.layers.Dense(units, activation=activation, name=name)


@keras.saving.register_keras_serializable(package="tfft")
class DecoderBlock(keras.layers.Layer):
    """Causal self-attention, attention to the source, feed-forward; each normalised before and added after.

    Args:
        width: of the states.
        heads: of both attentions.
        dropout: rate, of what each part adds.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.heads, self.rate = width, heads, dropout
        self.norms = [keras.layers.LayerNormalization(name=f"norm_{i}") for i in range(3)]
        self.own, self.own_out = _dense(3 * width, "own"), _dense(width, "own_out")
        self.query, self.source = _dense(width, "query"), _dense(2 * width, "source")
        self.source_out = _dense(width, "source_out")
        self.inner, self.outer = _dense(4 * width, "inner", "relu"), _dense(width, "outer")
        self.dropouts = [keras.layers.Dropout(dropout, name=f"dropout_{i}") for i in range(3)]

    def build(self, states_shape: Any, encoded_shape: Any) -> None:
        """Make the variables."""
        states = (None, None, self.width)
        for layer in (*self.norms, self.own, self.own_out, self.query, self.source_out, self.inner):
            layer.build(states)
        self.source.build((None, None, encoded_shape[-1]))
        self.outer.build((None, None, 4 * self.width))

    def _by_head(self, x: Any, parts: int) -> list[Any]:
        """(batch, positions, parts * width) -> parts of (batch, heads, positions, size)."""
        shape = ops.shape(x)
        x = ops.reshape(x, (shape[0], shape[1], parts, self.heads, self.width // self.heads))
        return list(ops.unstack(ops.transpose(x, (2, 0, 3, 1, 4)), parts))

    def _together(self, x: Any) -> Any:
        """(batch, heads, positions, size) -> (batch, positions, width)."""
        shape = ops.shape(x)
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (shape[0], shape[2], self.width))

    def _attend(self, query: Any, key: Any, value: Any, hidden: Any) -> Any:
        # Transposed by the product itself: a transpose before it, a scale and a sum are fused by TensorFlow's graph
        # optimizer into a product that in a loop gives nothing at all (2.21, an output of shape (0,)).
        scores = tf.matmul(query * (self.width // self.heads) ** -0.5, key, transpose_b=True) + hidden
        # Keras's own softmax warns of the first position, which has one choice.
        return tf.matmul(tf.nn.softmax(scores), value)

    def remembered(self, encoded: Any) -> Kept:
        """Keys and values of the source: each (batch, heads, length, size)."""
        key, value = self._by_head(self.source(encoded), 2)
        return key, value

    def _above(self, x: Any, source: Kept, hidden: Any, training: bool | None) -> Any:
        """What comes after self-attention: (batch, positions, width)."""
        (query,) = self._by_head(self.query(self.norms[1](x)), 1)
        found = self.source_out(self._together(self._attend(query, *source, hidden)))
        x = x + self.dropouts[1](found, training=training)
        inner = self.outer(self.inner(self.norms[2](x)))
        return x + self.dropouts[2](inner, training=training)

    def call(self, states: Any, encoded: Any, *, causal: Any, hidden: Any, training: bool | None = None) -> Any:
        """Of all positions of the target, (batch, written, width), at once.

        Args:
            states: (batch, written, width).
            encoded: the source, (batch, length, its width).
            causal: added to scores of the target's own positions, (written, written).
            hidden: as in `Memory`.
            training: whether to drop out.
        """
        query, key, value = self._by_head(self.own(self.norms[0](states)), 3)
        found = self.own_out(self._together(self._attend(query, key, value, causal)))
        x = states + self.dropouts[0](found, training=training)
        return self._above(x, self.remembered(encoded), hidden, training)

    def step(self, states: Any, kept: Kept, source: Kept, hidden: Any) -> tuple[Any, Kept]:
        """Of the next position of every beam, (batch, beams, width), and what is kept with it."""
        shape = ops.shape(states)
        size = self.width // self.heads
        new = ops.reshape(self.own(self.norms[0](states)), (shape[0], shape[1], 3, self.heads, 1, size))
        query, key, value = ops.unstack(new, 3, axis=2)  # each (batch, beams, heads, 1, size)
        key, value = (ops.concatenate([old, one], axis=3) for old, one in zip(kept, (key, value), strict=True))
        found = ops.reshape(self._attend(query, key, value, 0.0), shape)
        return self._above(states + self.own_out(found), source, hidden, False), (key, value)


@keras.saving.register_keras_serializable(package="tfft")
class Decoder(keras.layers.Layer):
    """States of a target's positions, from the target to their left and the source.

    Args:
        pieces: of the vocabulary it writes in.
        layers: blocks.
        width: of the states.
        heads: of each block.
        longest: positions at most, the end among them.
        dropout: rate.
    """

    def __init__(
        self, pieces: int, layers: int, width: int, heads: int, longest: int, dropout: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if width % heads:
            raise ValueError(f"width {width} is no multiple of {heads} heads")
        self.pieces, self.width, self.heads, self.longest = pieces, width, heads, longest
        self.blocks = [DecoderBlock(width, heads, dropout, name=f"block_{i}") for i in range(layers)]
        self.norm = keras.layers.LayerNormalization(name="norm")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, target_ids_shape: Any, encoded_shape: Any, source_mask_shape: Any) -> None:
        """Make the variables."""
        normal = keras.initializers.RandomNormal(stddev=self.width**-0.5)
        self.embeddings = self.add_weight(name="embeddings", shape=(self.pieces, self.width), initializer=normal)
        normal = keras.initializers.RandomNormal(stddev=0.02)
        self.positions = self.add_weight(name="positions", shape=(self.longest, self.width), initializer=normal)
        for block in self.blocks:
            block.build((None, None, self.width), encoded_shape)
        self.norm.build((None, None, self.width))

    def compute_output_spec(self, target_ids: Any, encoded: Any, source_mask: Any, **kwargs: Any) -> Any:
        """Known without a trace of the call."""
        return keras.KerasTensor((*target_ids.shape, self.width), self.compute_dtype)

    def _embedded(self, ids: Any, positions: Any) -> Any:
        return ops.take(self.embeddings, ids, axis=0) * self.width**0.5 + positions

    def call(self, target_ids: Any, encoded: Any, source_mask: Any, training: bool | None = None) -> Any:
        """States (batch, written, width): that of a position is made of the pieces before it, and knows not its own.

        Args:
            target_ids: (batch, written), the pieces to be written and the end.
            encoded: the source's states, (batch, length, width).
            source_mask: (batch, length), 1 at its tokens.
            training: whether to drop out.
        """
        written = ops.shape(target_ids)[1]
        before = ops.pad(target_ids[:, :-1], [[0, 0], [1, 0]], constant_values=vocabulary.START)
        places = ops.arange(written)
        causal = ops.where(places[:, None] >= places[None, :], 0.0, NEVER)
        x = self.dropout(self._embedded(before, self.positions[:written]), training=training)
        for block in self.blocks:
            x = block(x, encoded, causal=causal, hidden=_hidden(source_mask), training=training)
        return self.norm(x)

    def memory(self, encoded: Any, source_mask: Any) -> Memory:
        """What every step reads."""
        return Memory([block.remembered(encoded) for block in self.blocks], _hidden(source_mask))

    def begin(self, batch: Any, beams: int) -> list[Kept]:
        """What is kept before anything is written."""
        nothing = tf.zeros((batch, beams, self.heads, 0, self.width // self.heads), self.compute_dtype)
        return [(nothing, nothing) for _ in self.blocks]

    def step(self, ids: Any, position: Any, kept: list[Kept], memory: Memory) -> tuple[Any, list[Kept]]:
        """States of the next position, (batch, beams, width), and what is kept for those after it.

        Args:
            ids: the pieces written last, (batch, beams); `vocabulary.START` at first.
            position: how many were written before, a scalar.
            kept: from `begin`, or the step before.
            memory: from `memory`.
        """
        x = self._embedded(ids, ops.take(self.positions, position, axis=0))
        after = []
        for block, own, source in zip(self.blocks, kept, memory.blocks, strict=True):
            x, own = block.step(x, own, source, memory.hidden)
            after.append(own)
        return self.norm(x), after


def _hidden(source_mask: Any) -> Any:
    return (1.0 - ops.cast(source_mask, "float32"))[:, None, None, :] * NEVER


@keras.saving.register_keras_serializable(package="tfft")
class NextPiece(keras.layers.Layer):
    """What stands next: states compared with the decoder's own embeddings.

    Of the vocabulary, too wide to be kept for every position, only what a loss and its metrics ask for is given.

    Args:
        decoder: whose embeddings they are.
    """

    def __init__(self, decoder: Decoder, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.decoder = decoder

    def build(self, states_shape: Any, target_ids_shape: Any) -> None:
        """Make the variables."""
        self.bias = self.add_weight(name="bias", shape=(self.decoder.pieces,), initializer="zeros")

    def compute_output_spec(self, states: Any, target_ids: Any, **kwargs: Any) -> Any:
        """Known without a trace of the call."""
        return keras.KerasTensor((*target_ids.shape, 2), "float32")

    def logits(self, states: Any) -> Any:
        """Of states (batch, positions, width), (batch, positions, pieces)."""
        return self._written(states)

    def _written(self, states: Any) -> Any:
        return ops.matmul(states, ops.transpose(self.decoder.embeddings)) + self.bias

    def call(self, states: Any, target_ids: Any) -> Any:
        """Of states and targets (batch, written), (batch, written, 2): the logarithm of the probability of the target,
        and the mean of those of all pieces.
        """
        logits = self._written(states)
        own = -tf.nn.sparse_softmax_cross_entropy_with_logits(target_ids, logits)
        table, bias = self.decoder.embeddings, self.bias
        # The mean of all logits is the logit of the mean embedding: no pass over the vocabulary.
        mean = ops.matmul(states, ops.mean(table, axis=0)[:, None])[..., 0] + ops.mean(bias)
        target = ops.sum(states * ops.take(table, target_ids, axis=0), axis=-1) + ops.take(bias, target_ids)
        return ops.stack([own, own - target + mean], axis=-1)


def attention_heads(width: int) -> int:
    """As many as give each 64 numbers, or the most that divide the width."""
    return next(heads for heads in range(max(width // 64, 1), 0, -1) if width % heads == 0)
