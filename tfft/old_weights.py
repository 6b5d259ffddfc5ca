"""Weights in HDF5 files of Keras: read without following what leads out of the file, fitted to layers of today."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import h5py  # what Keras itself reads such files with
import keras
import numpy as np

from tfft.errors import InvalidValueError

Arrays = list[tuple[str, np.ndarray]]  # names in the file and values, in the file's order
LARGEST = 2**31  # numbers in one array: 8 GB


def opened(path: Path | IO[bytes]) -> h5py.File:
    """An HDF5 file.

    Raises:
        InvalidValueError: it is none, or was cut short.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = " ".join(str(error).split())[:120]
        raise InvalidValueError(f"{path} is no HDF5 file, or not a whole one: {reason}") from None


def attribute(group: Any, name: str) -> Any:
    """An attribute, joined where Keras cut a long one in pieces (`layer_names0`, ...); None where there is none."""
    try:
        if name in group.attrs:
            return group.attrs[name]
        parts: list[Any] = []
        while f"{name}{len(parts)}" in group.attrs:
            parts.append(group.attrs[f"{name}{len(parts)}"])
    except (OSError, TypeError) as error:
        raise InvalidValueError(f"{group.file.filename} is damaged at {name}: {error}") from None
    return np.concatenate(parts) if parts else None


def text(value: Any) -> str:
    """Bytes or text as text."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def layers(group: Any) -> dict[str, Arrays]:
    """The weights of a model's group, by layer.

    Raises:
        InvalidValueError: it has no layers, or something in it is damaged, lies in another file or is too large.
    """
    names = attribute(group, "layer_names")
    if names is None:
        raise InvalidValueError(f"{group.file.filename} is HDF5, but not what Keras writes: it has no layer_names")
    return {text(name): list(_arrays(_member(group, text(name)))) for name in names}


def _arrays(group: Any) -> Iterator[tuple[str, np.ndarray]]:
    names = attribute(group, "weight_names")
    for name in () if names is None else names:
        yield text(name), _array(group, text(name))


def _array(group: Any, name: str) -> np.ndarray:
    dataset = _member(group, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise InvalidValueError(f"{group.file.filename}: {name} is not kept in this file")
    if dataset.size is None or dataset.size > LARGEST or dataset.dtype.kind not in "fiub":
        raise InvalidValueError(f"{group.file.filename}: {name} is no array of numbers of a possible size")
    try:
        return np.asarray(dataset)
    except (OSError, MemoryError) as error:
        raise InvalidValueError(f"{group.file.filename} is damaged at {name}: {error}") from None


def _member(group: Any, name: str) -> Any:
    """What lies under a name, each step of it in this file."""
    for part in [part for part in name.split("/") if part]:
        link = group.get(part, getlink=True) if part != ".." else None
        if not isinstance(link, h5py.HardLink):
            raise InvalidValueError(f"{group.file.filename}: {name!r} is missing, or leads out of the file")
        try:
            group = group[part]
        except (KeyError, OSError) as error:
            raise InvalidValueError(f"{group.file.filename} is damaged at {name!r}: {error}") from None
    return group


PARTS = ("forward_layer", "backward_layer", "layer", "cell", "cells", "_query_dense", "_key_dense", "_value_dense")


def gathered(group: Any) -> Arrays:
    """The weights of a layer in a `.keras` file of Keras 2: its own, and those of the layers it is made of."""
    found: Arrays = []
    if "vars" in group:
        variables = _member(group, "vars")
        found += [(name, _array(variables, name)) for name in sorted(variables, key=int)]
    inner = [name for name in group if name != "vars"]
    for name in sorted(inner, key=lambda n: (PARTS.index(n) if n in PARTS else len(PARTS), n)):
        found += gathered(_member(group, name))
    return found


def assign(layer: Any, kind: str, arrays: Arrays, version: int) -> None:
    """Give a layer its weights.

    Args:
        layer: built.
        kind: its class's name in the file.
        arrays: the layer's, from `layers`.
        version: of the Keras that wrote them: 1, 2 or 3.

    Raises:
        InvalidValueError: not as many, or of other shapes.
    """
    variables = ordered(layer)
    values = converted(layer, kind, [value for _, value in arrays], version)
    if [v.shape for v in variables] != [value.shape for value in values]:
        by_name = _matched(variables, arrays) if len(variables) == len(values) else None
        if by_name is None:
            raise InvalidValueError(
                f"layer {layer.name!r} has weights of shapes {[tuple(v.shape) for v in variables]}; the file has "
                f"{[value.shape for value in values]}"
            )
        values = by_name
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def ordered(layer: Any) -> list[Any]:
    """A layer's weights in the order Keras 1 and 2 write them: of a model, what learns first."""
    if not isinstance(layer, keras.Model):
        return list(layer.trainable_weights) + list(layer.non_trainable_weights)
    parts = [inner for inner in layer.layers if inner.weights]
    learn = [v for inner in parts for v in ordered(inner) if v.trainable]
    return learn + [v for inner in parts for v in ordered(inner) if not v.trainable]


def _matched(variables: Sequence[Any], arrays: Arrays) -> list[np.ndarray] | None:
    """Values by their shapes where each is another, or by the last two parts of their names, where order does not
    tell; None where they do not either.
    """
    by_shape = {value.shape: value for _, value in arrays}
    if len(by_shape) == len(arrays) and {tuple(v.shape) for v in variables} == set(by_shape):
        return [by_shape[tuple(v.shape)] for v in variables]

    def key(name: str) -> str:
        return "/".join(name.removesuffix(":0").split("/")[-2:])

    values = {key(name): value for name, value in arrays}
    found = [values.get(key(variable.path)) for variable in variables]
    if any(value is None or value.shape != v.shape for v, value in zip(variables, found, strict=True)):
        return None
    return [value for value in found if value is not None]


def converted(layer: Any, kind: str, values: list[np.ndarray], version: int) -> list[np.ndarray]:
    """Weights of layers that once had others, as today's have them."""
    if kind == "Bidirectional" or type(layer).__name__ == "Bidirectional":
        half = len(values) // 2
        inner = type(layer.forward_layer).__name__
        return [
            *converted(layer.forward_layer, inner, values[:half], version),
            *converted(layer.backward_layer, inner, values[half:], version),
        ]
    if type(layer).__name__ == "TimeDistributed":
        return converted(layer.layer, type(layer.layer).__name__, values, version)
    if kind.startswith("CuDNN") and len(values) == 3:
        return _from_cudnn(kind, values)
    name = type(layer).__name__
    if (
        name == "LSTM" and len(values) == 12
    ):  # Keras 1: input, cell, forget, output; kernel, recurrent kernel, bias each
        gates = (0, 2, 1, 3)
        return [np.concatenate([values[3 * gate + part] for gate in gates], axis=-1) for part in range(3)]
    if name == "GRU" and len(values) == 9:
        return [np.concatenate([values[3 * gate + part] for gate in range(3)], axis=-1) for part in range(3)]
    if name == "GRU" and len(values) == 3 and getattr(layer, "reset_after", False) and values[2].ndim == 1:
        values = [*values[:2], values[2].reshape(2, -1)]
    if version == 1 and name == "Conv1D" and values[0].ndim == 4:
        kernel = values[0]
        wide = layer.kernel.shape
        return [kernel[:, 0] if kernel[:, 0].shape == wide else kernel[:, :, 0].transpose(2, 1, 0)[::-1], *values[1:]]
    if version == 1 and name in ("Conv2D", "Conv3D") and values[0].shape != layer.kernel.shape:
        turned = values[0].transpose(*range(2, values[0].ndim), 1, 0)  # Theano's: filters first, and mirrored
        return [np.flip(turned, axis=tuple(range(turned.ndim - 2))), *values[1:]]
    return values


def _from_cudnn(kind: str, values: list[np.ndarray]) -> list[np.ndarray]:
    """cuDNN's kernels lie transposed, and it has a bias for both products."""
    gates = 4 if kind == "CuDNNLSTM" else 3

    def turned(kernel: np.ndarray, reshaped: bool) -> np.ndarray:
        parts = np.split(kernel, gates, axis=1)
        shape = parts[0].shape
        return np.concatenate([p.T.reshape(shape) if reshaped else p.T for p in parts], axis=1)

    kernel, recurrent, bias = values
    both = bias.reshape(2, -1)
    return [turned(kernel, True), turned(recurrent, False), both.sum(axis=0) if gates == 4 else both]


def stored(arrays: Mapping[str, Arrays]) -> int:
    """Numbers in all of them."""
    return sum(value.size for rows in arrays.values() for _, value in rows)
