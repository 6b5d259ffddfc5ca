"""What the frozen part's outputs look like, found out by running it on a few rows."""

import dataclasses
import functools
from typing import Any

import keras
import numpy as np

from tfft import graph
from tfft.examples import Examples, Ragged, Shared, as_arrays, lengths, take


@dataclasses.dataclass(frozen=True)
class Field:
    """How one output of the prefix is kept.

    kind "row": (rows, ...); "tokens": real tokens only, `axis` is as long as the row; "shared": once for all rows.
    """

    kind: str
    axis: int = 1
    length_axes: tuple[int, ...] = ()


@functools.lru_cache(maxsize=1)  # what is traced or converted of it serves all splits of the data
def computing(prefix: keras.Model) -> keras.Model:
    """The prefix without outputs that are its inputs, and without inputs that nothing is computed of."""
    passed = _passed_through(prefix)
    used = {id(tensor) for node in graph.nodes(prefix) if not node.is_input for tensor in node.input_tensors}
    inputs = {tensor.name: tensor for tensor in prefix.inputs if id(tensor) in used}
    return keras.Model(inputs, {name: t for name, t in prefix.output.items() if name not in passed})


def layout(prefix: keras.Model, suffix: keras.Model, rows: Examples) -> dict[str, Field] | str:
    """How each computed output can be kept, or why one cannot.

    Found by running a few rows padded to two lengths and looking which axes follow; a family's own masks and tables of
    positions need no special case. Then the suffix must answer the same to what would be stored.
    """
    inputs = {id(tensor) for tensor in prefix.inputs}
    computed = [name for name, tensor in prefix.output.items() if id(tensor) not in inputs]
    static = [prefix.output[name].shape for name in computed]
    if all(len(shape) == 2 and shape[1] is not None for shape in static):
        return {name: Field("row") for name in computed}  # one vector a row: nothing to find out
    counts = lengths(rows.x)
    picked = _different_rows(counts)
    longest = int(counts.max(initial=0))
    long = min(max(int(counts[picked].max()), 4) + 3, max(longest, 4)) if longest else 0
    short = max(long - 3, 2) if longest else 0
    rows = _cut(rows, short)
    counts = lengths(rows.x)
    one, other = (run(prefix, rows, picked[:number], length) for number, length in ((3, short), (2, long)))
    distinct = _distinct(prefix, rows, picked, short)
    found = {}
    for name in computed:
        field = _field(one[name], other[name], (short, long), distinct)
        if field is None:
            return f"frozen output {tuple(prefix.output[name].shape)} has no axis of rows, or two as long as the text"
        found[name] = field
    x = {n: _kept(one[n], f, counts[picked], other[n]) for n, f in found.items()} | passed_inputs(prefix, rows, picked)
    padding = paddings(prefix, rows)
    stored = {n: take(v, np.arange(2), long, padding.get(n, 0)) for n, v in x.items()}
    expected, got = (np.asarray(keras.tree.flatten(suffix(v, training=False))[0]) for v in (other, stored))
    weighed = isinstance(as_arrays(rows.weight), Ragged)  # token by token, so what is said of padding counts nowhere
    if weighed and len(expected.shape) > 2 and expected.shape[1] == long:
        inside = np.arange(long) < counts[picked[:2], np.newaxis]
        expected, got = expected[inside], got[inside]
    if not np.allclose(expected, got, rtol=1e-3, atol=1e-4 * max(np.abs(expected).max(), 1e-6)):
        return "this model's answers depend on how far a text was padded, so stored outputs would not be its own"
    return found


def _cut(rows: Examples, length: int) -> Examples:
    """The rows no longer than `length`: a text as long as the table of positions cannot be padded further."""

    def cut(value: Any) -> Any:
        value = as_arrays(value)
        return value._replace(lengths=np.minimum(value.lengths, length)) if isinstance(value, Ragged) else value

    return rows._replace(x={name: cut(value) for name, value in rows.x.items()})


def _different_rows(counts: np.ndarray) -> np.ndarray:
    """Three short rows, of different lengths where there are such: what is equal in all of them is the same for all."""
    _, first = np.unique(counts, return_index=True)
    picked = [*first[:3], *np.flatnonzero(~np.isin(np.arange(len(counts)), first[:3]))[: 3 - len(first[:3])]]
    return np.resize(np.array(picked), 3)


def run(prefix: keras.Model, rows: Examples, picked: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """The prefix's outputs for a few rows, without a graph: nothing is traced, products are float32."""
    x = batch(prefix, rows, picked, length)
    return {name: np.asarray(value) for name, value in prefix(x, training=False).items()}


def batch(prefix: keras.Model, rows: Examples, picked: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """Some rows as the prefix takes them, padded to a length."""
    names = [tensor.name for tensor in prefix.inputs]
    return {name: take(as_arrays(rows.x[name]), picked, length, rows.padding.get(name, 0)) for name in names}


def _distinct(prefix: keras.Model, rows: Examples, picked: np.ndarray, length: int) -> bool:
    """Whether no two of the picked rows are the same: else what is equal for all of them proves nothing."""
    names = [tensor.name for tensor in prefix.inputs]
    whole = [take(as_arrays(rows.x[name]), picked, length, rows.padding.get(name, 0)) for name in names]
    return len({b"".join(np.ascontiguousarray(value[i]).tobytes() for value in whole) for i in range(len(picked))}) == 3


def _field(one: np.ndarray, other: np.ndarray, ends: tuple[int, int], distinct: bool) -> Field | None:
    """Compare an output of three rows padded to `ends[0]` with that of two rows padded to `ends[1]`."""
    if one.ndim == 0 or (one.shape[0], other.shape[0]) != (3, 2):
        return None
    by_length = [a for a in range(1, one.ndim) if ends[0] and (one.shape[a], other.shape[a]) == ends]
    if distinct and np.issubdtype(one.dtype, np.floating) and (one == one[:1]).all():
        return Field("shared", length_axes=tuple(a - 1 for a in by_length))
    if len(by_length) > 1:
        return None
    return Field("tokens", axis=by_length[0]) if by_length else Field("row")


def _kept(value: np.ndarray, field: Field, counts: np.ndarray, longer: np.ndarray) -> Any:
    """A small batch of outputs in the form they would be stored in."""
    if field.kind == "row":
        return value
    if field.kind == "shared":
        return Shared(longer[0], field.length_axes)
    moved = np.moveaxis(value, field.axis, 1)
    inside = np.arange(moved.shape[1]) < counts[: len(moved), np.newaxis]
    counts = counts[: len(moved)]
    return Ragged(moved[inside], np.cumsum(counts) - counts, counts, field.axis)


def _passed_through(prefix: keras.Model) -> dict[str, str]:
    """Outputs of the prefix that are its inputs, such as the padding mask -> the input's name."""
    inputs = {id(tensor): tensor.name for tensor in prefix.inputs}
    return {name: inputs[id(tensor)] for name, tensor in prefix.output.items() if id(tensor) in inputs}


def passed_inputs(prefix: keras.Model, rows: Examples, picked: np.ndarray | None = None) -> dict[str, Any]:
    """The suffix's inputs that are the prefix's own and need no storing, all rows or the picked ones."""
    values = {name: as_arrays(rows.x[source]) for name, source in _passed_through(prefix).items()}
    if picked is None:
        return values
    return {
        name: value._replace(starts=value.starts[picked], lengths=value.lengths[picked])
        if isinstance(value, Ragged)
        else value[picked]
        for name, value in values.items()
    }


def paddings(prefix: keras.Model, rows: Examples) -> dict[str, int]:
    """What fills up shorter rows of those inputs."""
    return {name: rows.padding[source] for name, source in _passed_through(prefix).items() if source in rows.padding}
