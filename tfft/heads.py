"""Heads used by more than one task: what turns a backbone's hidden states into answers.

Every layer of a head is named `head_...`: `freeze` never touches those.
"""

from typing import Any

import keras
from keras import ops

from tfft import graph
from tfft.errors import InvalidValueError

OUTPUT = "head_output"  # name of the last layer
SECOND = "second_"  # begins the names of the inputs for the second of two texts
POOLINGS = ("mean", "cls", "max", "pooled", "blocks")


def softmax_head(backbone: keras.Model, num_classes: int, *, pooling: str = "blocks", dropout: float = 0.0) -> Any:
    """A softmax `Dense` on the pooled backbone.

    Args:
        backbone: functional model with `sequence_output` (batch, length, width), as KerasHub's backbones are.
        num_classes: number of classes, 2 or more.
        pooling: "mean", "cls" (first token), "max", "pooled" (the backbone's own `pooled_output`) or "blocks" (the
            means of all blocks side by side).
        dropout: rate on the pooled vector while training, 0 for none.

    Returns:
        Probabilities, a Keras tensor (batch, num_classes), to be used as `keras.Model(backbone.input, outputs)`.

    Raises:
        InvalidValueError: a pooling this backbone cannot give.

    Examples:
        >>> import keras, keras_hub, tfft
        >>> backbone = keras_hub.models.BertBackbone(
        ...     vocabulary_size=9, num_layers=2, num_heads=1, hidden_dim=4, intermediate_dim=8)
        >>> outputs = tfft.softmax_head(backbone, 3, pooling="mean")
        >>> keras.Model(backbone.input, outputs).output_shape
        (None, 3)
    """
    return dense_head(backbone, num_classes, "softmax", pooling=pooling, dropout=dropout)


def dense_head(
    backbone: keras.Model,
    units: int,
    activation: str | None,
    *,
    pooling: str = "blocks",
    dropout: float = 0.0,
    first: str = "glorot_uniform",
) -> Any:
    """A `Dense` of any activation, and of any first weights, on the pooled backbone: (batch, units).

    Other arguments as in `softmax_head`.
    """
    x = pool(backbone, pooling)  # (batch, width)
    if dropout:
        x = keras.layers.Dropout(dropout, name="head_dropout")(x)
    # float32 even under a mixed policy: a softmax in half precision loses the small probabilities
    return keras.layers.Dense(units, activation, kernel_initializer=first, dtype="float32", name=OUTPUT)(x)


def token_head(backbone: keras.Model, units: int, *, dropout: float = 0.0) -> Any:
    """A `Dense` on every token's hidden state: logits (batch, length, units), float32."""
    x = sequence_output(backbone)  # (batch, length, width)
    if dropout:
        x = keras.layers.Dropout(dropout, name="head_dropout")(x)
    return keras.layers.Dense(units, dtype="float32", name=OUTPUT)(x)


def pooled(model: keras.Model) -> Any:
    """What the last layer of a model with a `dense_head` reads: a Keras tensor (batch, width); None for other heads."""
    read = model.get_layer(OUTPUT).input
    return read if isinstance(read, keras.KerasTensor) and len(read.shape) == 2 else None


def pool(backbone: keras.Model, pooling: str, suffix: str = "") -> Any:
    """One vector for each text, for a head: (batch, width), or (batch, blocks * width) for "blocks".

    Each pooled vector is normalised to mean 0 and variance 1 without parameters. It makes one learning rate fit every
    backbone and block (hidden states of pre-norm models grow with depth), and does for a Dense layer what the unit
    length of a sentence encoder's output does.

    Args:
        backbone: as `softmax_head` takes it.
        pooling: one of `POOLINGS`.
        suffix: ends the layers' names; tells several poolings of one model apart.
    """
    if pooling == "blocks":
        tensors = graph.block_outputs(backbone)
        if not tensors:
            raise InvalidValueError("pooling 'blocks' needs a backbone of numbered blocks; this model has none")
        mask = padding_mask(backbone)
        parts = [_mean(x, mask, f"_{i}{suffix}") for i, x in enumerate(tensors)]
        every = _normalise(ops.stack(parts, axis=1), suffix)  # (batch, blocks, width)
        return keras.layers.Flatten(name=f"head_flatten{suffix}")(every)
    return _normalise(_pooled(backbone, pooling, suffix), suffix)


def vector(backbone: keras.Model, pooling: str) -> Any:
    """One vector of unit length for each text, to be compared with others by their cosine: (batch, width).

    Args:
        backbone: as `softmax_head` takes it.
        pooling: one of `POOLINGS` but "blocks".
    """
    if pooling == "blocks":
        raise InvalidValueError("vectors are compared in one space; pooling 'blocks' has one for each block")
    return keras.layers.UnitNormalization(dtype="float32", name="head_vector")(_pooled(backbone, pooling))


def _pooled(backbone: keras.Model, pooling: str, suffix: str = "") -> Any:
    if pooling == "pooled":
        if not isinstance(backbone.output, dict) or "pooled_output" not in backbone.output:
            raise InvalidValueError(f"pooling 'pooled' needs a backbone with a pooled_output; {backbone.name} has none")
        return backbone.output["pooled_output"]
    if pooling not in POOLINGS:
        raise InvalidValueError(f"unknown pooling {pooling!r}. Expected one of: {', '.join(POOLINGS)}")
    sequence = sequence_output(backbone)  # (batch, length, width)
    if pooling == "mean":
        return _mean(sequence, padding_mask(backbone), suffix)
    if pooling == "cls":
        return sequence[:, 0, :]
    low = ops.expand_dims(1.0 - ops.cast(padding_mask(backbone), sequence.dtype), -1) * 1e4  # padding never wins
    return ops.max(sequence - low, axis=1)


def sequence_output(backbone: keras.Model) -> Any:
    """The backbone's hidden states, one vector a token: (batch, length, width)."""
    output = backbone.output
    if isinstance(output, dict):
        output = output.get("sequence_output")
    if output is None or len(output.shape) != 3:
        found = list(backbone.output) if isinstance(backbone.output, dict) else backbone.output.shape
        raise InvalidValueError(
            f"this head needs a backbone with one sequence_output (batch, length, width); {backbone.name} gives {found}"
        )
    return output


def padding_mask(backbone: keras.Model) -> Any:
    """Where the backbone's tokens are: (batch, length), 1 at a token."""
    given = backbone.input if isinstance(backbone.input, dict) else {}
    inputs = {name.removeprefix(SECOND): tensor for name, tensor in given.items()}
    if "padding_mask" in inputs:
        return inputs["padding_mask"]
    if "token_ids" in inputs:  # FNet and RoFormer take no mask: every position counts, as in their pretraining
        return ops.ones_like(inputs["token_ids"])
    raise InvalidValueError(f"pooling needs a backbone with a token_ids input; {backbone.name} has: {list(inputs)}")


@keras.saving.register_keras_serializable(package="tfft")
class MeanOfTokens(keras.layers.GlobalAveragePooling1D):
    """Keras's masked mean as a product of mask and tokens: TensorFlow sums a middle axis on one thread, slowly.

    A layer, for what is computed of a mask alone must not count as frozen.
    """

    def call(self, inputs: Any, mask: Any) -> Any:
        """Of (batch, length, width) and a mask (batch, length), 1 at tokens, the mean (batch, width)."""
        counted = ops.expand_dims(ops.cast(mask, inputs.dtype), 1)  # (batch, 1, length)
        total = ops.squeeze(ops.matmul(counted, inputs), 1)
        return total / ops.maximum(ops.sum(counted, axis=2), 1)


@keras.saving.register_keras_serializable(package="tfft")
class WithoutPadding(keras.layers.Layer):
    """Logits of tokens as they are, those of padding so low that no softmax over the length sees them.

    A layer for the same reason.
    """

    supports_masking = True  # and ends it: Keras would have the loss leave out tokens, of which it has none

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """None goes on."""

    def call(self, inputs: Any, mask: Any) -> Any:
        """Of (batch, length, units) and a mask (batch, length), 1 at tokens."""
        return ops.where(ops.expand_dims(mask, -1) > 0, inputs, -1e9)


def span_head(backbone: keras.Model, *, dropout: float = 0.0) -> Any:
    """Logits of beginning and end for every token, past all others at padding: (batch, length, 2)."""
    return WithoutPadding(name="head_span")(token_head(backbone, 2, dropout=dropout), mask=padding_mask(backbone))


def _mean(sequence: Any, mask: Any, suffix: str = "") -> Any:
    return MeanOfTokens(name=f"head_mean{suffix}")(sequence, mask=mask)


def _normalise(x: Any, suffix: str = "") -> Any:
    return keras.layers.LayerNormalization(center=False, scale=False, name=f"head_norm{suffix}")(x)
