"""What a hidden token may be: the head of masked language models.

Of the vocabulary, too wide to be kept for every token, only what is asked for is computed and given.
"""

from typing import Any

import keras
import tensorflow as tf

from tfft.errors import InvalidValueError
from tfft.heads import OUTPUT, sequence_output

BEST = 5  # pieces named for a hidden one
GIVEN = -1  # in `hidden`: a token that is not to be guessed
UNKNOWN = -2  # one that is, and nobody knows what it was


@keras.saving.register_keras_serializable(package="tfft")
class HiddenTokens(keras.layers.Layer):
    """What the hidden tokens may be: a transform of their states, compared with the backbone's own embeddings.

    Nothing is computed for the other tokens, and of the vocabulary, too wide to be kept for every token, only what is
    asked for is given.

    Args:
        embedding: the backbone's, KerasHub's `ReversibleEmbedding` (pieces, width).
    """

    def __init__(self, embedding: Any, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.embedding = embedding
        self.transform = keras.layers.Dense(embedding.output_dim, activation="gelu", name="transform")
        self.norm = keras.layers.LayerNormalization(epsilon=1e-12, name="norm")

    def build(self, sequence_shape: Any, hidden_shape: Any) -> None:
        """Make the variables: those of BERT's own head."""
        self.transform.build((None, sequence_shape[-1]))
        self.norm.build((None, self.embedding.output_dim))
        self.bias = self.add_weight(name="bias", shape=(self.embedding.input_dim,), initializer="zeros")

    def compute_output_spec(self, sequence: Any, hidden: Any) -> Any:
        """Known without a trace of the call."""
        return keras.KerasTensor((*sequence.shape[:2], 1 + 2 * BEST), "float32")

    def call(self, sequence: Any, hidden: Any, training: bool | None = None) -> Any:
        """Of (batch, length, width) and (batch, length), the piece that is hidden, `UNKNOWN`, or `GIVEN`.

        Returns:
            (batch, length, 1 + 2 * BEST), zeros at tokens that are given: the logarithm of the probability of the
            hidden piece; then, not in training, the likeliest pieces, and the logarithms of theirs.
        """
        flat, asked = tf.reshape(sequence, (-1, sequence.shape[-1])), tf.reshape(hidden, (-1,))
        at = tf.where(asked != GIVEN)  # (hidden, 1)
        states = self.norm(self.transform(tf.gather_nd(flat, at)))
        logits = self.embedding(states, reverse=True) + self.bias  # (hidden, pieces)
        total = tf.reduce_logsumexp(logits, axis=1, keepdims=True)
        own = tf.gather(logits, tf.maximum(tf.gather_nd(asked, at), 0), batch_dims=1)[:, tf.newaxis] - total
        if training:
            found = tf.pad(own, [[0, 0], [0, 2 * BEST]])
        else:
            most = min(BEST, self.embedding.input_dim)
            best, pieces = tf.math.top_k(logits, most)
            more = [[0, 0], [0, BEST - most]]
            found = tf.concat([own, tf.pad(tf.cast(pieces, tf.float32), more), tf.pad(best - total, more)], axis=1)
        outputs = tf.scatter_nd(at, found, (tf.size(asked, tf.int64), 1 + 2 * BEST))
        return tf.reshape(outputs, (tf.shape(hidden)[0], -1, 1 + 2 * BEST))


def hidden_head(backbone: keras.Model, hidden: Any) -> Any:
    """What hidden tokens may be, as `HiddenTokens` gives it: (batch, length, 1 + 2 * BEST).

    Args:
        backbone: with tied embeddings, as KerasHub's encoders are.
        hidden: Keras tensor (batch, length), as `HiddenTokens` takes it.
    """
    embedding = getattr(backbone, "token_embedding", None)
    if embedding is None:
        raise InvalidValueError(f"hidden words are guessed by a backbone's token_embedding; {backbone.name} has none")
    return HiddenTokens(embedding, name=OUTPUT)(sequence_output(backbone), hidden)
