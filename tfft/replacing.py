"""A head for other classes in place of a model's own."""

import logging
from typing import Any

import keras

from tfft import graph
from tfft.errors import InvalidValueError
from tfft.heads import OUTPUT

log = logging.getLogger(__name__)


def replace_head(model: keras.Model, num_classes: int, *, dropout: float = 0.0) -> keras.Model:
    """Take off the layers that serve the old classes alone, and put a softmax over new ones in their place.

    The old head are the layers from the output down to the last one with weights: a `Dense`, or a convolution with what
    pools it. The log names them. All other layers are shared with `model`, with their weights and flags.

    Args:
        model: functional, of one output, as `tfft.load_model` gives it.
        num_classes: 2 or more.
        dropout: rate before the new layer, while training.

    Returns:
        A model with outputs (batch, num_classes), or (batch, steps, num_classes) where the old one tagged steps. Its
        new layers are named `head_...`, so `tfft.freeze` leaves them alone.

    Raises:
        InvalidValueError: several outputs, fewer than 2 classes, or no layer with weights.

    Examples:
        >>> import keras, tfft
        >>> old = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="kept"), keras.layers.Dense(3),
        ...     keras.layers.Softmax()])
        >>> new = tfft.replace_head(old, 5)
        >>> [layer.name for layer in new.layers][1:], new.output_shape
        (['kept', 'head_output'], (None, 5))
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise InvalidValueError(f"num_classes must be a whole number of at least 2. Received: {num_classes!r}")
    model = graph.flat(model)
    outputs = keras.tree.flatten(model.output)
    if len(outputs) != 1:
        raise InvalidValueError(f"{model.name} has {len(outputs)} outputs; replace_head is for models of one")
    below, removed = _below_head(model, outputs[0])
    if below is None:
        raise InvalidValueError(f"{model.name} has no layer with weights to take off before it branches")
    log.info("old head: %s", ", ".join(removed))
    x = below
    if len(x.shape) > 2 and len(outputs[0].shape) == 2:
        x = getattr(keras.layers, f"GlobalAveragePooling{len(x.shape) - 2}D")(name="head_pooling")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="head_dropout")(x)
    x = keras.layers.Dense(num_classes, activation="softmax", name=OUTPUT)(x)
    return keras.Model(model.input, x)


def _below_head(model: keras.Model, output: Any) -> tuple[Any, list[str]]:
    """The tensor that the last layer with weights takes, and the names of what stands above it, from below."""
    makers = {id(t): node for node in graph.nodes(model) for t in node.outputs}
    removed: list[str] = []
    while True:
        node = makers.get(id(output))
        if node is None or node.is_input or len(node.input_tensors) != 1:
            return None, removed
        removed.insert(0, node.operation.name)
        output = node.input_tensors[0]
        if getattr(node.operation, "weights", None):
            return output, removed
