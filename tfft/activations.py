"""Split a model at its frozen boundary. What is frozen gives the same output in every epoch."""

import functools
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfft import arithmetic, fusing, graph
from tfft.batching import INFERENCE_TOKENS, batches
from tfft.examples import Examples, lengths
from tfft.machine import processors

# Batches for each processor from which on it pays to set up that each computes its own.
MANY = 8


class InferenceMode(keras.layers.Layer):
    """Calls a layer with `training=False` whatever the outer call says.

    `trainable=False` alone does not silence dropout in Keras.

    Args:
        layer: what is called.
        arguments: its arguments that are no tensors; Keras cannot record them beside tensors in `**kwargs`.
    """

    def __init__(self, layer: Any, arguments: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = layer
        self.arguments = arguments or {}
        self.built = True

    def call(self, *args: Any, **tensors: Any) -> Any:
        """The layer's own output, in inference mode."""
        return self.layer(*args, **tensors, **self.arguments, training=False)


def split(model: keras.Model) -> tuple[keras.Model | None, keras.Model]:
    """Cut a functional model into its frozen prefix and its trainable suffix.

    The cut comes from the `trainable` flags alone. An operation is cold when all its inputs are cold and it neither
    learns nor draws random numbers; the prefix is the cold part, the suffix a replay of the rest on new inputs. Both
    share their layers with `model`: training the suffix trains the model. Frozen layers that stand above a trainable
    one are called in inference mode in the suffix.

    Returns:
        (prefix, suffix). The prefix maps the model's inputs to {"frozen_0": tensor, ...}, the suffix those to the
        model's outputs: `suffix(prefix(x)) == model(x)` in inference mode. The prefix is None when nothing is frozen.

    Examples:
        >>> import keras, tfft
        >>> inputs = keras.Input((3,))
        >>> hidden = keras.layers.Dense(4, trainable=False)(inputs)
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        >>> prefix, suffix = tfft.split(model)
        >>> {name: tensor.shape for name, tensor in prefix.output.items()}
        {'frozen_0': (None, 4)}
    """
    return _split(model, tuple(bool(v.trainable) for v in model.variables))


@functools.lru_cache(maxsize=1)  # fit and the evaluations after it share one suffix, and what was traced of it
def _split(model: keras.Model, flags: tuple[bool, ...]) -> tuple[keras.Model | None, keras.Model]:
    nodes = graph.nodes(model)
    cold: set[int] = set()  # tensors that are the same in every epoch
    for node in nodes:
        if node.is_input or (not _is_hot(node.operation) and all(id(t) in cold for t in node.input_tensors)):
            cold |= {id(t) for t in node.outputs}
    hot = [node for node in nodes if not all(id(t) in cold for t in node.outputs)]
    computed = {id(t) for node in nodes if not node.is_input for t in node.outputs} & cold
    frontier = {id(t): t for node in hot for t in node.input_tensors if id(t) in cold}
    # What is computed comes first, whatever else the rest takes: two models on one frozen part share what is stored.
    frontier = {place: frontier[place] for place in sorted(frontier, key=lambda place: place not in computed)}
    if not computed & frontier.keys():
        return None, _suffix(model, {id(t): t for t in keras.tree.flatten(model.input)}, cold, inputs=model.input)
    outputs = {f"frozen_{i}": t for i, t in enumerate(frontier.values())}
    inputs = {name: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=name) for name, t in outputs.items()}
    start = {id(t): inputs[name] for name, t in outputs.items()}
    return keras.Model(model.input, outputs, name="frozen_prefix"), _suffix(model, start, cold, inputs)


def _is_hot(operation: Any) -> bool:
    """Whether an operation's output changes from epoch to epoch even if its inputs do not."""
    if getattr(operation, "trainable_variables", None):
        return True
    return bool(getattr(operation, "trainable", False)) and hasattr(operation, "seed_generator")


def _suffix(model: keras.Model, start: dict[int, Any], cold: set[int], inputs: Any) -> keras.Model:
    numbers = itertools.count()

    def call(node: Any) -> Any:
        operation = node.operation
        if getattr(operation, "trainable", True) or "training" not in inspect.signature(operation.call).parameters:
            return operation

        def in_inference_mode(*args: Any, **kwargs: Any) -> Any:
            plain = {name: value for name, value in kwargs.items() if not keras.utils.is_keras_tensor(value)}
            tensors = {name: value for name, value in kwargs.items() if name not in plain}
            return InferenceMode(operation, plain, name=f"inference_{next(numbers)}")(*args, **tensors)

        return in_inference_mode

    tensors = graph.replay(model, start, skip=lambda node: all(id(t) in cold for t in node.outputs), call=call)
    outputs = keras.tree.map_structure(lambda t: tensors[id(t)], graph.output_structure(model))
    return keras.Model(inputs, outputs, name="trainable_suffix")


def join(prefix: keras.Model | None, suffix: keras.Model) -> keras.Model:
    """The whole model again, its frozen part in inference mode: what is trained where nothing is stored."""
    if prefix is None:
        return suffix
    frozen = InferenceMode(fusing.fused(prefix, product_dtype=arithmetic.product_dtype()), name="frozen")
    return keras.Model(prefix.input, suffix(frozen(prefix.input)), name="training_model")


def is_pooled(prefix: keras.Model) -> bool:
    """Whether the frontier is one vector of fixed width per row, small enough to be kept for all rows."""
    return all(len(t.shape) == 2 and t.shape[1] is not None for t in prefix.outputs)


def compiled(model: keras.Model) -> Any:
    """The model in inference mode as one `tf.function` of dense inputs by name, whatever their shapes."""
    return _compiled(model, arithmetic.product_dtype())


@functools.lru_cache(maxsize=3)  # tracing a model takes seconds; all splits of the data share one trace
def _compiled(model: keras.Model, product_dtype: str) -> Any:
    signature = {tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name) for tensor in model.inputs}
    sooner = fusing.fused(model, product_dtype=product_dtype)
    return tf.function(lambda x: sooner(x, training=False), input_signature=[signature], autograph=False)


def forward_pass(model: keras.Model, rows: Examples, batch_size: int) -> Iterator[Any]:
    """The model's outputs in inference mode, as arrays, for each batch that `plan` makes of the rows, in its order.

    Of many batches each processor computes one by itself, on a CPU: all on one would wait for each other after every
    operation.

    Args:
        model: functional model.
        rows: from a task's `encode`; targets are not looked at.
        batch_size: rows a batch, at most.
    """
    nothing = np.zeros(len(lengths(rows.x)))
    names = [tensor.name for tensor in model.inputs]
    data = batches(rows._replace(y=nothing, weight=nothing), names, batch_size, max_tokens=INFERENCE_TOKENS)
    data = data.map(tf.autograph.experimental.do_not_convert(lambda x, y, weight: x))
    forward = compiled(model)
    if len(data) < MANY * processors() or tf.config.list_physical_devices("GPU"):
        for x in data:
            yield keras.tree.map_structure(lambda t: t.numpy(), forward(x))
        return
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    # in a tuple, for tf.data would make one tensor of a list
    flat = tf.autograph.experimental.do_not_convert(lambda x: tuple(keras.tree.flatten(forward(x))))
    for found in data.map(flat, num_parallel_calls=processors()).with_options(options).as_numpy_iterator():
        yield keras.tree.pack_sequence_as(graph.output_structure(model), found)
