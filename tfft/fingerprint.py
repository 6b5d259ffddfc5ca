"""Hashes: of a weight, and of all that the frozen part's outputs depend on."""

import concurrent.futures
import hashlib
import inspect
import json
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfft import graph
from tfft.arithmetic import product_dtype
from tfft.examples import Examples, Ragged, as_arrays
from tfft.machine import processors
from tfft.seeding import is_seed

FORMAT = 3  # of an entry in the store and of how tfft computes it; part of its key


def key(prefix: keras.Model, rows: Examples, dtype: str) -> str:
    """A hash of the frozen weights, the graph they stand in, the encoded rows and the arithmetic.

    The encoded rows stand for texts, cleaning, tokenizer and longest length alike.
    """
    state = hashlib.sha256()  # twice as fast as BLAKE2 where the CPU has instructions for it
    stack = [f"{name} {version(name)}" for name in ("tensorflow", "keras", "keras-hub")]
    state.update(json.dumps([FORMAT, dtype, product_dtype(), stack, _structure(prefix)], default=str).encode())
    state.update("".join(digests(v for v in prefix.variables if not is_seed(v))).encode())
    for name in sorted(tensor.name for tensor in prefix.inputs):
        state.update(name.encode())
        value = as_arrays(rows.x[name])
        for array in value[:3] if isinstance(value, Ragged) else [value]:
            _update(state, array)
    return state.hexdigest()[:32]


def digest(variable: keras.Variable) -> str:
    """A hash of a variable's value."""
    state = hashlib.sha256()
    _update(state, _value(variable))
    return state.hexdigest()[:32]


def digests(variables: Iterable[keras.Variable]) -> list[str]:
    """The hashes of many, a variable on each processor."""
    with concurrent.futures.ThreadPoolExecutor(processors()) as pool:
        return list(pool.map(digest, variables))


def digest_all(model: keras.Model) -> str:
    """A hash of all weights of a model."""
    each = digests(v for v in model.variables if not is_seed(v))
    return hashlib.sha256("".join(each).encode()).hexdigest()[:32]


def _value(variable: keras.Variable) -> np.ndarray:
    """The variable's value; TensorFlow's own memory where it lends it, as a copy takes longer than the hash."""
    tensor = tf.convert_to_tensor(variable.value)
    try:
        return np.asarray(memoryview(tensor))
    except ValueError:  # no buffer has bfloat16
        return np.asarray(tensor.numpy())


def _update(state: Any, array: np.ndarray) -> None:
    array = np.ascontiguousarray(array)
    state.update(f"{array.dtype} {array.shape}".encode())
    state.update(array.view(np.uint8).data if array.ndim and array.size else array.tobytes())


def _structure(model: keras.Model) -> list[Any]:
    """The graph as plain data: classes, settings and wiring. Names are left out: Keras numbers them by the process."""
    places: dict[int, int] = {}
    described = []
    for node in graph.nodes(model):
        wiring = [places[id(t)] for t in node.input_tensors]
        arguments = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
        plain = [_plain(a) for a in arguments if not _is_tensor(a)]
        policy = getattr(getattr(node.operation, "dtype_policy", None), "name", None)
        described.append([type(node.operation).__name__, policy, _settings(node.operation), wiring, plain])
        for tensor in node.outputs:
            places[id(tensor)] = len(places)
    return [*described, [places[id(t)] for t in keras.tree.flatten(model.output)]]


def _is_tensor(value: Any) -> bool:
    return bool(keras.utils.is_keras_tensor(value))


def _plain(value: Any) -> str:
    """An argument as text; a constant by its hash, since NumPy prints long ones with dots."""
    if hasattr(value, "__array__"):
        state = hashlib.blake2b(digest_size=16)
        _update(state, np.asarray(value))
        return state.hexdigest()
    return str(value)


def _settings(operation: Any) -> Any:
    try:
        config = operation.get_config()
    except (NotImplementedError, AttributeError, TypeError, ValueError):  # some layers of KerasHub cannot say theirs
        config = {
            n: getattr(v, "__name__", v)
            for n, v in vars(operation).items()
            if isinstance(v, str | int | float | bool | tuple) or inspect.isfunction(v)
        }
    return _without_names(config)


def _without_names(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = ("name", "trainable", "shared_object_id")
        return {str(k): _without_names(v) for k, v in value.items() if k not in left_out and not k.startswith("_")}
    if isinstance(value, list | tuple):
        return [_without_names(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else type(value).__name__
