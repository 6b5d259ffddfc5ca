"""Reading a functional Keras model as a graph. The only file that touches Keras's private node attributes.

Guarded by `tests/test_graph.py` for every backbone family; `setup.cfg` bounds the Keras version for its sake.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfft.errors import InvalidValueError


def nodes(model: keras.Model) -> list[Any]:
    """The model's nodes (one call of one operation each), inputs of a node always before it."""
    if not hasattr(model, "_nodes_by_depth"):
        raise InvalidValueError(
            f"expected a functional keras.Model, made by keras.Model(inputs, outputs). Received: {type(model).__name__}"
        )
    todo = [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
    ordered: list[Any] = []
    known: set[int] = set()
    while todo:  # Keras sorts by depth, which leaves an input that is used late behind its user
        ready = [node for node in todo if node.is_input or all(id(t) in known for t in node.input_tensors)]
        ordered += ready
        known |= {id(t) for node in ready for t in node.outputs}
        done = {id(node) for node in ready}
        todo = [node for node in todo if id(node) not in done]
    return ordered


def operations(model: keras.Model) -> list[Any]:
    """The operations of the model, each once, in graph order; inputs left out."""
    return list({id(n.operation): n.operation for n in nodes(model) if not n.is_input}.values())


def is_block(operation: Any) -> bool:
    """Whether this is one of the numbered blocks of a backbone, such as `transformer_layer_3`.

    KerasHub numbers the blocks of every backbone and builds each of other layers; nothing else in its backbones is
    both. Found from the graph, so it holds for a backbone, a flat model on top of it, and a model read back from disk.
    """
    return bool(getattr(operation, "_layers", None)) and re.search(r"_\d+$", operation.name) is not None


def blocks(model: keras.Model) -> list[keras.layers.Layer]:
    """The blocks of the model from the input up; a block that is used several times stands once."""
    return [operation for operation in operations(model) if is_block(operation)]


def block_outputs(model: keras.Model) -> list[Any]:
    """The output tensor of every call of a block, from the input up: each (batch, length, width)."""
    return [node.outputs[0] for node in nodes(model) if not node.is_input and is_block(node.operation)]


def below_blocks(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that no block feeds: the embeddings and what belongs to them."""
    fed: set[int] = set()
    result: dict[int, Any] = {}
    for node in nodes(model):
        if node.is_input:
            continue
        if is_block(node.operation) or any(id(t) in fed for t in node.input_tensors):
            fed |= {id(t) for t in node.outputs}
            result.pop(id(node.operation), None)
        else:
            result[id(node.operation)] = node.operation
    return list(result.values())


def replay(
    model: keras.Model, start: dict[int, Any], skip: Callable[[Any], bool], call: Callable[[Any], Any]
) -> dict[int, Any]:
    """Call the model's operations again on other tensors: shares every layer, copies nothing.

    Args:
        model: a functional model.
        start: id of a tensor of the model -> the tensor to use in its place.
        skip: nodes that are not to be called.
        call: node -> what to call in place of its operation.

    Returns:
        id of each tensor of the model that was reached -> its replacement.
    """
    tensors = dict(start)
    for node in nodes(model):
        if node.is_input or skip(node):
            continue
        args, kwargs = node.arguments.fill_in(tensors)
        outputs = call(node)(*args, **kwargs)
        for old, new in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
            tensors[id(old)] = new
    return tensors


def again(model: keras.Model, begin: str) -> keras.Model:
    """The model's layers on further inputs: every weight is shared.

    Args:
        model: with inputs by name.
        begin: what the names of the further inputs begin with, before the model's own.
    """
    inputs = {
        begin + n: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=begin + n) for n, t in model.input.items()
    }
    start = {id(tensor): inputs[begin + name] for name, tensor in model.input.items()}
    tensors = replay(model, start, skip=lambda node: False, call=lambda node: node.operation)
    return keras.Model(inputs, keras.tree.map_structure(lambda t: tensors[id(t)], output_structure(model)))


def flat(model: keras.Model) -> keras.Model:
    """The same model functional and without models in it: their layers are its own."""
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs[0], name=model.name)
    if not any(isinstance(node.operation, keras.Model) for node in nodes(model)):
        return model

    def call(node: Any) -> Any:
        inner = node.operation
        return (lambda *args, **kwargs: apply(inner, args[0])) if isinstance(inner, keras.Model) else inner

    start = {id(t): t for t in keras.tree.flatten(model.input)}
    tensors = replay(model, start, skip=lambda node: False, call=call)
    outputs = keras.tree.map_structure(lambda t: tensors[id(t)], output_structure(model))
    return flat(keras.Model(model.input, outputs, name=model.name))


def apply(model: keras.Model, inputs: Any) -> Any:
    """A model's layers called on Keras tensors, one for each of its inputs."""
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs[0])
    start = {id(old): new for old, new in zip(model.inputs, keras.tree.flatten(inputs), strict=True)}
    tensors = replay(model, start, skip=lambda node: False, call=lambda node: node.operation)
    return keras.tree.map_structure(lambda t: tensors[id(t)], output_structure(model))


def only_first_read(model: keras.Model) -> set[int]:
    """The ids of tensors (batch, length, width) of which nothing but the first position is read: `x[:, 0, :]`."""
    read: dict[int, bool] = {id(tensor): False for tensor in keras.tree.flatten(model.output)}
    for node in nodes(model):
        if not node.is_input:
            first = _takes_first(node)
            read |= {id(t): first and read.get(id(t), True) for t in node.input_tensors}
    return {tensor for tensor, first in read.items() if first}


def _takes_first(node: Any) -> bool:
    if type(node.operation).__name__ != "GetItem":
        return False
    whole, keys = slice(None), node.arguments.args[1:]
    return len(keys) == 1 and isinstance(keys[0], tuple) and keys[0] in ((whole, 0), (whole, 0, whole))


@contextlib.contextmanager
def plain_slice_update() -> Iterator[None]:
    """Within, `keras.ops.slice_update` is made of ordinary operations.

    Keras 3.15 makes it of `XlaDynamicUpdateSlice`, which TensorFlow Serving refuses ("XLA compilation disabled") and
    TensorFlow compiles anew for every shape; KerasHub's language models keep keys and values by it.
    """
    from keras.src.backend.tensorflow import core

    kept = core.slice_update
    core.slice_update = _slice_update
    try:
        yield
    finally:
        core.slice_update = kept


def _slice_update(inputs: Any, start_indices: Any, updates: Any) -> Any:
    before = tf.cast(tf.stack(list(start_indices)), tf.int32)
    around = tf.stack([before, tf.shape(inputs) - before - tf.shape(updates)], axis=1)
    there = tf.pad(tf.ones_like(updates, tf.bool), around)
    return tf.where(there, tf.pad(updates, around), inputs)


def output_structure(model: keras.Model) -> Any:
    """The model's outputs, nested as the model returns them."""
    return model._outputs_struct


def flattened(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layer and all it is built of."""
    return list(layer._flatten_layers())


def names(layers: Iterable[Any]) -> list[str]:
    """The layers' names."""
    return [layer.name for layer in layers]
