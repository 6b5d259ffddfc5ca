"""The model that writes: an encoder and a decoder that was trained on it, from a source to pieces."""

from typing import Any

import keras
import tensorflow as tf

from tfft import decoding, vocabulary
from tfft.decoder import Decoder, NextPiece
from tfft.decoding import Decoding

WRITTEN_ROWS = 64  # rows written together: what is kept of each grows with its length and the beams


@keras.saving.register_keras_serializable(package="tfft")
class Writer(keras.layers.Layer):
    """Writes with a decoder.

    Args:
        decoder: trained, or being trained.
        following: what gives its logits.
        settings: how.
    """

    def __init__(self, decoder: Decoder, following: NextPiece, settings: Decoding, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.decoder, self.following, self.settings = decoder, following, settings
        self.built = True

    def compute_output_spec(self, encoded: Any, source_mask: Any, *copied: Any, **kwargs: Any) -> Any:
        """Known without a trace of the call."""
        return keras.KerasTensor((encoded.shape[0], 1 + self.decoder.longest), "float32")

    def call(self, encoded: Any, source_mask: Any, *copied: Any) -> Any:
        """Of states (batch, length, width) and their mask, (batch, 1 + longest): the score, as `decoding.decode` gives
        it, and the ids of what is written, padded. Where pieces are copied, they are given, too.
        """
        batch = tf.shape(encoded)[0]
        memory = self.decoder.memory(encoded, source_mask)
        more = [self.following.remembered(encoded, *copied)] if copied else []

        def step(ids: Any, position: Any, kept: Any) -> tuple[Any, Any]:
            states, kept = self.decoder.step(ids, position, kept, memory)
            return self.following.logits(states, *more), kept

        ids, scores = decoding.decode(
            step,
            self.decoder.begin(batch, self.settings.beams),
            batch,
            self.settings,
            longest=self.decoder.longest,
            start=vocabulary.START,
            end=vocabulary.END,
            pad=vocabulary.PAD,
        )
        return tf.concat([scores[:, tf.newaxis], tf.cast(ids, tf.float32)], axis=1)


def writes(model: keras.Model) -> bool:
    """Whether a model's outputs are written piece by piece."""
    return any(isinstance(layer, Writer) for layer in model.layers)
