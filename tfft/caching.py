"""The frozen part's outputs on disk: computed once for the same weights, graph and rows, read in every epoch and run.

One entry is a folder named by a hash of all that its numbers depend on. It is written beside and renamed, so it is
whole or absent; every file's checksum is compared before it is read; two processes may write the same entry.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
import zlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf

from tfft import graph
from tfft.activations import compiled
from tfft.batching import INFERENCE_ROWS, INFERENCE_TOKENS, plan
from tfft.errors import InvalidValueError
from tfft.examples import Examples, Ragged, Shared, as_arrays, lengths, take
from tfft.progress import work

log = logging.getLogger(__name__)

MODES = ("auto", "always", "never")
DTYPES = ("float32", "float16", "bfloat16")
FORMAT = 1  # of an entry; part of its key
FREE_SHARE = 0.5  # of the free disk that the cache may take by default
WRITE_RATE, READ_RATE = 300e6, 1.5e9  # bytes a second, cautious for a laptop's SSD and the page cache


@dataclasses.dataclass(frozen=True)
class Cache:
    """Where outputs of frozen layers are kept, and when.

    Attributes:
        folder: made when something is stored.
        mode: "auto" (where it saves time), "always" or "never".
        limit_gb: bytes the whole folder may take, in 10^9; older entries make room. None: half of what is free.
        dtype: of stored sequences. One vector a row is always float32.

    Example:
        >>> from tfft.caching import Cache
        >>> Cache("cache", limit_gb=2).mode
        'auto'
    """

    folder: str | os.PathLike[str]
    mode: str = "auto"
    limit_gb: float | None = None
    dtype: str = "float16"

    def __post_init__(self) -> None:
        for name, known in (("mode", MODES), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise InvalidValueError(
                    f"cache {name} must be one of: {', '.join(known)}. Received: {getattr(self, name)!r}"
                )


def default_folder() -> Path:
    """`$TFFT_ACTIVATIONS`, else `tfft/activations` in the user's cache folder."""
    if "TFFT_ACTIVATIONS" in os.environ:
        return Path(os.environ["TFFT_ACTIVATIONS"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfft" / "activations"


def frozen_outputs(
    prefix: keras.Model, suffix: keras.Model, rows: Examples, cache: Cache, *, passes: int, description: str
) -> Examples | None:
    """The rows as the suffix takes them: read from the cache, or computed and stored; None where storing does not pay.

    Args:
        prefix: frozen part, from `tfft.split`.
        suffix: the rest; proves on a few rows that stored and computed outputs mean the same to it.
        rows: from a task's `encode`.
        cache: where, and when.
        passes: how often the outputs will be needed.
        description: beside the progress bar and in `tfft cache list`.

    Returns:
        Examples whose `x` holds the suffix's inputs.
    """
    if cache.mode == "never":
        return None
    fields = _layout(prefix, suffix, rows)
    if isinstance(fields, str):
        log.info("cache: no, %s", fields)
        return None
    pooled = all(field.kind == "row" for field in fields.values())
    dtype = "float32" if pooled else cache.dtype
    folder = Path(cache.folder) / key(prefix, rows, dtype)
    x = _open(folder)
    if x is not None:
        log.info("cache: %s, read from %s", description, folder)
    else:
        x = _compute(prefix, rows, fields, cache, folder, dtype, passes, description)
        if x is None:
            return None
    return rows._replace(x=x | _inputs(prefix, rows), padding=_paddings(prefix, rows))


# -- what an entry's numbers depend on --------------------------------------------------------------------------------


def key(prefix: keras.Model, rows: Examples, dtype: str) -> str:
    """A hash of the frozen weights, the graph they stand in, the encoded rows and the arithmetic.

    The encoded rows stand for texts, cleaning, tokenizer and longest length alike.
    """
    state = hashlib.blake2b(digest_size=16)
    options = tf.config.optimizer.get_experimental_options()
    arithmetic = bool(options.get("auto_mixed_precision_onednn_bfloat16", False))
    stack = [f"{name} {version(name)}" for name in ("tensorflow", "keras", "keras-hub")]
    state.update(json.dumps([FORMAT, dtype, arithmetic, stack, _structure(prefix)], default=str).encode())
    for variable in prefix.variables:
        _update(state, variable.value.numpy())
    for name in sorted(tensor.name for tensor in prefix.inputs):
        state.update(name.encode())
        value = as_arrays(rows.x[name])
        for array in value[:3] if isinstance(value, Ragged) else [value]:
            _update(state, array)
    return state.hexdigest()


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
        plain = [str(a) for a in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)) if not _is_tensor(a)]
        described.append([type(node.operation).__name__, _settings(node.operation), wiring, plain])
        for tensor in node.outputs:
            places[id(tensor)] = len(places)
    return [*described, [places[id(t)] for t in keras.tree.flatten(model.output)]]


def _is_tensor(value: Any) -> bool:
    return bool(keras.utils.is_keras_tensor(value))


def _settings(operation: Any) -> Any:
    try:
        config = operation.get_config()
    except (NotImplementedError, AttributeError, TypeError, ValueError):  # some layers of KerasHub cannot say theirs
        config = {n: v for n, v in vars(operation).items() if isinstance(v, str | int | float | bool | tuple)}
    return _without_names(config)


def _without_names(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = ("name", "trainable", "shared_object_id")
        return {str(k): _without_names(v) for k, v in value.items() if k not in left_out and not k.startswith("_")}
    if isinstance(value, list | tuple):
        return [_without_names(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else type(value).__name__


# -- what each output looks like --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Field:
    """How one output of the prefix is kept.

    kind "row": (rows, ...); "tokens": real tokens only, `axis` is as long as the row; "shared": once for all rows.
    """

    kind: str
    axis: int = 1
    length_axes: tuple[int, ...] = ()


def _layout(prefix: keras.Model, suffix: keras.Model, rows: Examples) -> dict[str, _Field] | str:
    """How each computed output can be kept, or why one cannot.

    Found by running a few rows padded to two lengths and looking which axes follow; a family's own masks and tables of
    positions need no special case. Then the suffix must answer the same to what would be stored.
    """
    inputs = {id(tensor) for tensor in prefix.inputs}
    computed = [name for name, tensor in prefix.output.items() if id(tensor) not in inputs]
    static = [prefix.output[name].shape for name in computed]
    if all(len(shape) == 2 and shape[1] is not None for shape in static):
        return {name: _Field("row") for name in computed}  # one vector a row: nothing to find out
    counts = lengths(rows.x)
    picked = _different_rows(counts)
    short = max(int(counts[picked].max()), 4) if counts.any() else 0
    long = short + 3 if short else 0
    one, other = (_run(prefix, rows, picked[:number], length) for number, length in ((3, short), (2, long)))
    distinct = _distinct(prefix, rows, picked, short)
    found = {}
    for name in computed:
        field = _field(one[name], other[name], (short, long), distinct)
        if field is None:
            return f"frozen output {tuple(prefix.output[name].shape)} has no axis of rows, or two as long as the text"
        found[name] = field
    x = {n: _kept(one[n], f, counts[picked], other[n]) for n, f in found.items()} | _inputs(prefix, rows, picked)
    padding = _paddings(prefix, rows)
    stored = {n: take(v, np.arange(2), long, padding.get(n, 0)) for n, v in x.items()}
    expected, got = (np.asarray(keras.tree.flatten(suffix(v, training=False))[0]) for v in (other, stored))
    if not np.allclose(expected, got, rtol=1e-3, atol=1e-4 * max(np.abs(expected).max(), 1e-6)):
        return "this model's answers depend on how far a text was padded, so stored outputs would not be its own"
    return found


def _different_rows(counts: np.ndarray) -> np.ndarray:
    """Three short rows, of different lengths where there are such: what is equal in all of them is the same for all."""
    _, first = np.unique(counts, return_index=True)
    picked = [*first[:3], *np.flatnonzero(~np.isin(np.arange(len(counts)), first[:3]))[: 3 - len(first[:3])]]
    return np.resize(np.array(picked), 3)


def _run(prefix: keras.Model, rows: Examples, picked: np.ndarray, length: int) -> dict[str, np.ndarray]:
    names = [tensor.name for tensor in prefix.inputs]
    x = {name: take(as_arrays(rows.x[name]), picked, length, rows.padding.get(name, 0)) for name in names}
    return {name: np.asarray(value) for name, value in prefix(x, training=False).items()}


def _distinct(prefix: keras.Model, rows: Examples, picked: np.ndarray, length: int) -> bool:
    """Whether no two of the picked rows are the same: else what is equal for all of them proves nothing."""
    names = [tensor.name for tensor in prefix.inputs]
    whole = [take(as_arrays(rows.x[name]), picked, length, rows.padding.get(name, 0)) for name in names]
    return len({b"".join(np.ascontiguousarray(value[i]).tobytes() for value in whole) for i in range(len(picked))}) == 3


def _field(one: np.ndarray, other: np.ndarray, ends: tuple[int, int], distinct: bool) -> _Field | None:
    """Compare an output of three rows padded to `ends[0]` with that of two rows padded to `ends[1]`."""
    if one.ndim == 0 or (one.shape[0], other.shape[0]) != (3, 2):
        return None
    by_length = [a for a in range(1, one.ndim) if ends[0] and (one.shape[a], other.shape[a]) == ends]
    if distinct and np.issubdtype(one.dtype, np.floating) and (one == one[:1]).all():
        return _Field("shared", length_axes=tuple(a - 1 for a in by_length))
    if len(by_length) > 1:
        return None
    return _Field("tokens", axis=by_length[0]) if by_length else _Field("row")


def _kept(value: np.ndarray, field: _Field, counts: np.ndarray, longer: np.ndarray) -> Any:
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


def _inputs(prefix: keras.Model, rows: Examples, picked: np.ndarray | None = None) -> dict[str, Any]:
    values = {name: as_arrays(rows.x[source]) for name, source in _passed_through(prefix).items()}
    if picked is None:
        return values
    return {
        name: value._replace(starts=value.starts[picked], lengths=value.lengths[picked])
        if isinstance(value, Ragged)
        else value[picked]
        for name, value in values.items()
    }


def _paddings(prefix: keras.Model, rows: Examples) -> dict[str, int]:
    return {name: rows.padding[source] for name, source in _passed_through(prefix).items() if source in rows.padding}


# -- computing and writing --------------------------------------------------------------------------------------------


class _OverflowError(Exception):
    """A value does not fit the stored dtype."""


def _compute(
    prefix: keras.Model,
    rows: Examples,
    fields: dict[str, _Field],
    cache: Cache,
    folder: Path,
    dtype: str,
    passes: int,
    description: str,
) -> dict[str, Any] | None:
    counts = lengths(rows.x)
    forward = compiled(prefix)
    batches = plan(counts, INFERENCE_ROWS, INFERENCE_TOKENS)
    names = [tensor.name for tensor in prefix.inputs]
    source = {name: as_arrays(rows.x[name]) for name in names}

    def run(number: int) -> dict[str, np.ndarray]:
        picked, length = batches[number]
        x = {name: tf.constant(take(v, picked, length, rows.padding.get(name, 0))) for name, v in source.items()}
        outputs = forward(x)
        return {name: outputs[name].numpy() for name in fields}

    known = {0: run(0)}  # traces
    middle = len(batches) // 2
    started = time.perf_counter()
    if middle:
        known[middle] = run(middle)
    units = np.maximum(counts, 1)
    seconds = (time.perf_counter() - started) / units[batches[middle][0]].sum() * units.sum() if middle else 0.0
    size = _bytes(known[0], fields, counts, len(batches[0][0]), dtype)
    if not _pays(cache, folder.parent, size, seconds, passes, len(counts), description):
        return None
    try:
        with _beside(folder) as scratch, work(f"frozen part, {description}", len(counts)) as advance:
            writer = _Writer(scratch, known[0], fields, counts, dtype)
            for number, (picked, _) in enumerate(batches):
                writer.add(known.pop(number) if number in known else run(number), picked)
                advance(len(picked))
            longest = batches[-1]
            writer.finish(_run(prefix, rows, longest[0][-1:], longest[1]), description)
    except _OverflowError:
        log.warning("cache: values of the frozen part do not fit float16; stored as float32")
        return _compute(prefix, rows, fields, cache, folder, "float32", passes, description)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM):
            raise
        log.warning("cache: no, %s cannot be written (%s)", cache.folder, error.strerror)
        return None
    return _open(folder)


def _bytes(batch: dict[str, np.ndarray], fields: dict[str, _Field], counts: np.ndarray, rows: int, dtype: str) -> int:
    total = 0
    for name, field in fields.items():
        if field.kind == "shared":
            continue
        value = batch[name]
        one = value.size // rows if field.kind == "row" else value.size // (rows * value.shape[field.axis])
        width = np.dtype(_stored_dtype(value.dtype, dtype, field)).itemsize
        total += one * width * int(len(counts) if field.kind == "row" else counts.sum())
    return total


def _pays(cache: Cache, place: Path, size: int, seconds: float, passes: int, rows: int, description: str) -> bool:
    """Whether to store, and why, in one line of the log."""
    existing = place
    while not existing.exists():
        existing = existing.parent
    used = sum(entry.bytes for entry in entries(place))
    limit = (used + shutil.disk_usage(existing).free) * FREE_SHARE if cache.limit_gb is None else cache.limit_gb * 1e9
    what = f"{description}, {rows:,} rows, {_megabytes(size)}, about {seconds:.0f} s"
    if size > limit:
        log.warning("cache: no, %s; the limit is %s (cache_limit_gb)", what, _megabytes(int(limit)))
        return False
    spent = size / WRITE_RATE + passes * size / READ_RATE
    saved = (passes - 1) * seconds
    small = size <= rows * 2**16  # one pass, but the next run will ask for it again
    if cache.mode == "auto" and saved <= spent and not (passes == 1 and small):
        log.info("cache: no, %s; %d passes would save %.1f s and cost %.1f s", what, passes, saved, spent)
        return False
    log.info("cache: yes, %s; %d passes save %.1f s", what, passes, saved)
    _make_room(place, int(limit) - size)
    return True


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def _stored_dtype(dtype: np.dtype, wanted: str, field: _Field) -> Any:
    if field.kind != "tokens" or not np.issubdtype(dtype, np.floating):
        return dtype
    return ml_dtypes.bfloat16 if wanted == "bfloat16" else np.dtype(wanted)


class _Writer:
    """Writes batches to one file a field. Sequences stand in the order they were computed, vectors in that of rows."""

    def __init__(self, folder: Path, batch: dict[str, np.ndarray], fields: dict[str, _Field], counts: Any, dtype: str):
        self.folder, self.fields, self.counts = folder, fields, counts
        self.files = {n: (folder / f"{n}.bin").open("wb") for n, f in fields.items() if f.kind != "shared"}
        self.dtypes = {name: np.dtype(_stored_dtype(batch[name].dtype, dtype, f)) for name, f in fields.items()}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.order: list[np.ndarray] = []

    def add(self, outputs: dict[str, np.ndarray], rows: np.ndarray) -> None:
        self.order.append(rows)
        for name, file in self.files.items():
            value, field = outputs[name], self.fields[name]
            if field.kind == "tokens":
                value = np.moveaxis(value, field.axis, 1)
                value = value[np.arange(value.shape[1]) < self.counts[rows, np.newaxis]]
            with np.errstate(over="ignore"):
                stored = np.ascontiguousarray(value.astype(self.dtypes[name]))
            if self.dtypes[name] == np.float16 and not np.isfinite(stored).all() and np.isfinite(value).all():
                raise _OverflowError
            self.shapes[name] = stored.shape[1:]
            if field.kind == "tokens":
                file.write(stored.tobytes())
                continue
            for row, one in zip(rows, stored, strict=True):
                file.seek(int(row) * one.nbytes)
                file.write(one.tobytes())

    def finish(self, longest: dict[str, np.ndarray], description: str) -> None:
        for file in self.files.values():
            file.close()
        order = np.concatenate(self.order)
        starts = np.empty(len(order), np.int64)
        starts[order] = np.cumsum(self.counts[order]) - self.counts[order]
        arrays = {"starts": starts, "lengths": self.counts.astype(np.int64)}
        arrays |= {f"shared_{name}": longest[name][0] for name, field in self.fields.items() if field.kind == "shared"}
        np.savez(self.folder / "index.npz", **arrays)
        described = {
            name: {**dataclasses.asdict(field), "dtype": self.dtypes[name].name, "shape": self.shapes.get(name)}
            for name, field in self.fields.items()
        }
        checksums = {path.name: _checksum(path) for path in self.folder.iterdir()}
        manifest = {"description": description, "rows": len(order), "fields": described, "checksums": checksums}
        (self.folder / "manifest.json").write_text(json.dumps(manifest, indent=2), "utf-8")


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder to write into, renamed to `target` at the end; who comes second to the same target leaves the first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    prefix = f".{target.name}-{socket.gethostname()}-{os.getpid()}-"
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield scratch
        with contextlib.suppress(FileExistsError):
            try:
                scratch.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Remove what writers that no longer live on this machine left behind."""
    for left in place.glob(f".*-{socket.gethostname()}-*-*"):
        pid = left.name.rsplit("-", 2)[1]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (ValueError, PermissionError):
            continue


# -- reading ----------------------------------------------------------------------------------------------------------


def _open(folder: Path) -> dict[str, Any] | None:
    """An entry's values, mapped from its files; None if there is no whole one. A damaged one is removed."""
    if not folder.is_dir():
        return None
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        for name, expected in manifest["checksums"].items():
            if _checksum(folder / name) != expected:
                raise ValueError(f"{name} has changed")
        with np.load(folder / "index.npz", allow_pickle=False) as index:
            x = {name: _value(folder, name, field, index) for name, field in manifest["fields"].items()}
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError) as error:
        log.warning("cache: %s is damaged (%s); computed again", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / "manifest.json")  # when it was last used
    return x


def _value(folder: Path, name: str, field: dict[str, Any], index: Any) -> Any:
    if field["kind"] == "shared":
        return Shared(index[f"shared_{name}"], tuple(field["length_axes"]))
    counts = index["lengths"]
    dtype = np.dtype(ml_dtypes.bfloat16 if field["dtype"] == "bfloat16" else field["dtype"])
    shape = (len(counts) if field["kind"] == "row" else int(counts.sum()), *field["shape"])
    values = np.memmap(folder / f"{name}.bin", dtype, "r", shape=shape)
    return values if field["kind"] == "row" else Ragged(values, index["starts"], counts, field["axis"])


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            total = zlib.crc32(chunk, total)
    return total


# -- the folder -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Entry:
    """One stored set of rows: where, how large, what, and when it was last used (seconds since the epoch)."""

    path: Path
    bytes: int
    description: str
    rows: int
    used: float


def entries(folder: str | os.PathLike[str]) -> list[Entry]:
    """What is stored, the longest unused first.

    Example:
        >>> from tfft.caching import entries
        >>> entries("no/such/folder")
        []
    """
    found = []
    for manifest in Path(folder).glob("*/manifest.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            content = json.loads(manifest.read_text("utf-8"))
            size = sum(file.stat().st_size for file in manifest.parent.iterdir())
            used = manifest.stat().st_mtime
            found.append(Entry(manifest.parent, size, content["description"], content["rows"], used))
    return sorted(found, key=lambda entry: entry.used)


def clear(folder: str | os.PathLike[str]) -> int:
    """Remove all entries and what dead writers left; returns the bytes freed."""
    freed = 0
    for entry in entries(folder):
        shutil.rmtree(entry.path, ignore_errors=True)
        freed += entry.bytes
    if Path(folder).is_dir():
        _sweep(Path(folder))
    return freed


def _make_room(place: Path, size: int) -> None:
    """Remove the longest unused entries until the rest takes no more than `size` bytes."""
    kept = entries(place)
    while kept and sum(entry.bytes for entry in kept) > size:
        oldest = kept.pop(0)
        log.info("cache: %s (%s) makes room", oldest.path.name, _megabytes(oldest.bytes))
        shutil.rmtree(oldest.path, ignore_errors=True)
