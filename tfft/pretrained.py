"""Decoders that come with their backbone: what they expect next, and the model that writes with them.

Every layer is KerasHub's own, called through its language models, so keys and values are kept as it keeps them.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfft import backbones, decoding, graph
from tfft.decoding import NONE, Decoding
from tfft.errors import InvalidValueError
from tfft.heads import OUTPUT

NEXT = "next_ids"  # the model's input that holds, for every position, the token that comes next
FILL = -1  # behind what is written; no token


@keras.saving.register_keras_serializable(package="tfft")
class NextToken(keras.layers.Layer):
    """Of the logits of what comes next only what a loss and its metrics ask for: see `tfft.decoder.NextPiece`.

    Args:
        backbone: whose they are.
    """

    def __init__(self, backbone: keras.Model, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.backbone = backbone
        self.built = True

    def compute_output_spec(self, logits: Any, next_ids: Any) -> Any:
        """Known without a trace of the call."""
        return keras.KerasTensor((*logits.shape[:2], 2), "float32")

    def call(self, logits: Any, next_ids: Any) -> Any:
        """Of logits (batch, length, tokens) and ids (batch, length), (batch, length, 2): the logarithm of the
        probability of the token that comes next, and the mean of those of all tokens.
        """
        own = -tf.nn.sparse_softmax_cross_entropy_with_logits(next_ids, logits)
        mean = tf.reduce_mean(logits, axis=-1) - tf.reduce_logsumexp(logits, axis=-1)
        return tf.stack([own, mean], axis=-1)


def next_token_head(backbone: keras.Model, dropout: float) -> keras.Model:
    """The backbone with its language model's own output on top, and one input more, `NEXT`."""
    language_model = _language_model(backbone)

    def call(node: Any) -> Any:  # the language model's graph is the backbone as one layer, and what stands on it
        return (lambda *args, **kwargs: whole) if node.operation is backbone else node.operation

    whole = backbone.output
    if dropout:
        drop = keras.layers.Dropout(dropout, name="head_dropout")
        name = "decoder_sequence_output"
        whole = whole | {name: drop(whole[name])} if isinstance(whole, dict) else drop(whole)
    start = {id(t): backbone.input[name] for name, t in language_model.input.items()}
    tensors = graph.replay(language_model, start, skip=lambda node: False, call=call)
    logits = tensors[id(language_model.output)]
    following = keras.Input((None,), dtype="int32", name=NEXT)
    return keras.Model(backbone.input | {NEXT: following}, NextToken(backbone, name=OUTPUT)(logits, following))


def _language_model(backbone: keras.Model) -> Any:
    model = backbones.language_model(backbone)
    if model is None:
        raise InvalidValueError(f"{backbone.name} has no language model in KerasHub")
    return model


class _Writer(keras.layers.Layer):
    """What both kinds of writers hold.

    Args:
        backbone: whose language model writes.
        facts: how: the settings "decoding", "longest", tokens of an answer at most, the end among them, and "start" and
            "end", as `tfft.backbones.framing` gives them.
    """

    def __init__(self, backbone: keras.Model, facts: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.language_model = _language_model(backbone)
        self.settings, self.longest = Decoding(**facts["decoding"]), int(facts["longest"])
        self.start, self.end = tuple(facts["start"]), int(facts["end"])
        self.built = True

    def compute_output_spec(self, first: Any, *more: Any, **kwargs: Any) -> Any:
        """Known without a trace of the call."""
        return keras.KerasTensor((first.shape[0], 1 + self.longest), "float32")

    @property
    def new(self) -> int:
        """Tokens that are written at most."""
        return min(self.settings.max_length or self.longest, self.longest)

    def _each_beam(self, t: Any) -> Any:
        """(batch, ...) -> (batch, beams, ...)."""
        return tf.repeat(t[:, tf.newaxis], self.settings.beams, axis=1)

    def _decoded(self, step: decoding.Step, state: Any, batch: Any, **more: Any) -> Any:
        with graph.plain_slice_update():
            ids, scores = decoding.decode(
                step, state, batch, self.settings, longest=self.longest, end=self.end, pad=FILL, **more
            )
        return tf.concat([scores[:, tf.newaxis], tf.cast(ids, tf.float32)], axis=1)


def _flat(t: Any) -> Any:
    """(batch, beams, ...) -> (batch * beams, ...)."""
    return tf.reshape(t, tf.concat([[-1], tf.shape(t)[2:]], 0))


def _by_beam(t: Any, beams: int, like: Any) -> Any:
    """(batch * beams, ...) -> (batch, beams, ...), with the sizes that are known of `like`."""
    return tf.ensure_shape(tf.reshape(t, tf.concat([[-1, beams], tf.shape(t)[1:]], 0)), like.shape)


@keras.saving.register_keras_serializable(package="tfft")
class Continuer(_Writer):
    """Goes on from texts with a decoder alone, such as GPT-2 and Llama."""

    def __init__(self, backbone: keras.Model, facts: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(backbone, facts, **kwargs)
        self.limit = getattr(backbone, "max_sequence_length", None)
        self.kept = backbones.cache_shape(self.language_model)
        if self.limit is not None and self.new >= self.limit:
            raise InvalidValueError(f"{self.new} new tokens do not fit into the backbone's {self.limit}: write fewer")

    def call(self, token_ids: Any, padding_mask: Any) -> Any:
        """Of texts (batch, length), each with the start and padded at its end, (batch, 1 + longest): the score, as
        `decoding.decode` gives it, and the ids of what comes next, `FILL` behind them.

        Where a text and what is written exceed the backbone's positions, the text loses tokens behind the start.
        """
        batch, beams = tf.shape(token_ids)[0], self.settings.beams
        lengths = tf.reduce_sum(padding_mask, axis=1)
        if self.limit is not None:
            room = self.limit - self.new
            places = tf.range(tf.minimum(tf.shape(token_ids)[1], room))
            lost = tf.maximum(lengths - room, 0)[:, tf.newaxis]
            token_ids = tf.gather(token_ids, tf.where(places == 0, 0, places + lost), batch_dims=1)
            lengths = tf.minimum(lengths, room)
        # The shortest text is read at once, and what others have more is gone on from one by one.
        shortest = tf.maximum(tf.reduce_min(lengths), 1)
        given = tf.where(tf.sequence_mask(lengths, tf.shape(token_ids)[1]), token_ids, NONE)[:, shortest:]
        longest = tf.shape(token_ids)[1] + self.new
        kept = tf.zeros((batch, *self.kept[:2], longest, *self.kept[3:]), self.language_model.compute_dtype)
        with graph.plain_slice_update():
            _, _, kept = self.language_model.call_with_cache(token_ids[:, :shortest], kept, 0)
        state = self._each_beam(tf.ensure_shape(kept, (None, *self.kept[:2], None, *self.kept[3:])))

        def step(ids: Any, position: Any, state: Any) -> tuple[Any, Any]:
            logits, _, new = self.language_model.call_with_cache(
                _flat(ids)[:, tf.newaxis], _flat(state), shortest - 1 + position
            )
            return tf.reshape(logits, (batch, beams, -1)), _by_beam(new, beams, state)

        last = token_ids[:, shortest - 1]
        return self._decoded(step, state, batch, start=last, given=given, place=shortest)


@keras.saving.register_keras_serializable(package="tfft")
class Rewriter(_Writer):
    """Writes another text for a text with an encoder and its decoder, such as BART and T5."""

    def call(self, encoded: Any, source_mask: Any) -> Any:
        """Of the encoder's states (batch, length, width) and their mask, as `Continuer` gives it."""
        batch, beams, model = tf.shape(encoded)[0], self.settings.beams, self.language_model
        begun = tf.tile(tf.constant([self.start], tf.int32), (batch, 1))
        room = tf.zeros((batch, len(self.start) + self.new), tf.int32)
        own, across = backbones.empty_caches(model, source_mask, room)
        with graph.plain_slice_update():
            _, _, own, across = model.call_decoder_with_cache(
                encoder_hidden_states=encoded,
                encoder_padding_mask=source_mask,
                decoder_token_ids=begun,
                self_attention_cache=own,
                self_attention_cache_update_index=0,
                cross_attention_cache=across,
                cross_attention_cache_update_index=0,
            )
        encoded, source_mask, across = (_flat(self._each_beam(t)) for t in (encoded, source_mask, across))

        def step(ids: Any, position: Any, state: Any) -> tuple[Any, Any]:
            logits, _, new, _ = model.call_decoder_with_cache(
                encoder_hidden_states=encoded,
                encoder_padding_mask=source_mask,
                decoder_token_ids=_flat(ids)[:, tf.newaxis],
                self_attention_cache=_flat(state),
                self_attention_cache_update_index=len(self.start) - 1 + position,
                cross_attention_cache=across,
                cross_attention_cache_update_index=None,
            )
            return tf.reshape(logits, (batch, beams, -1)), _by_beam(new, beams, state)

        return self._decoded(step, self._each_beam(own), batch, start=self.start[-1])
