"""The frozen part's outputs on disk: computed once for the same weights, graph and rows, read in every epoch and run.

One entry is a folder named by a hash of all that its numbers depend on. It is written beside and renamed, so it is
whole or absent; every file's checksum is compared before it is read; two processes may write the same entry.
"""

import contextlib
import dataclasses
import logging
import os
import shutil
import time
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfft import onnx_pass
from tfft.activations import compiled, forward_pass
from tfft.batching import INFERENCE_ROWS, INFERENCE_TOKENS, plan
from tfft.errors import InvalidValueError
from tfft.examples import Examples, as_arrays, lengths, take
from tfft.fingerprint import key
from tfft.frontier import Field, computing, layout, paddings, passed_inputs, run
from tfft.machine import processors
from tfft.progress import work
from tfft.store import (
    NotSharedError,
    OverflowsError,
    Writer,
    beside,
    entries,
    make_room,
    megabytes,
    open_entry,
    stored_bytes,
)

log = logging.getLogger(__name__)

MODES = ("auto", "always", "never")
DTYPES = ("float32", "float16", "bfloat16")
FREE_SHARE = 0.5  # of the free disk that the cache may take by default
WRITE_RATE, READ_RATE = 300e6, 1.5e9  # bytes a second, cautious for a laptop's SSD and the page cache

_LAYOUTS: weakref.WeakKeyDictionary[keras.Model, dict[str, Field] | str] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class Cache:
    """Where outputs of frozen layers are kept, and when.

    Attributes:
        folder: made when something is stored.
        mode: "auto" (where it saves time), "always" or "never".
        limit_gb: bytes the whole folder may take, in 10^9; older entries make room. None: half of what is free.
        dtype: of stored sequences. One vector a row is always float32.

    Examples:
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
    fields = _LAYOUTS.get(suffix)
    if fields is None:  # found out once, by the first rows
        fields = _LAYOUTS[suffix] = layout(prefix, suffix, rows)
    if isinstance(fields, str):
        log.info("cache: no, %s", fields)
        return None
    pooled = all(field.kind == "row" for field in fields.values())
    dtype = "float32" if pooled else cache.dtype
    core = computing(prefix)
    folder = Path(cache.folder) / key(core, rows, dtype)
    x = open_entry(folder)
    if x is not None:
        log.info("cache: %s, read from %s", description, folder)
    else:
        x = _compute(core, rows, fields, cache, folder, dtype, passes, description)
        if x is None:
            return None
    return rows._replace(x=x | passed_inputs(prefix, rows), padding=paddings(prefix, rows))


def _compute(
    prefix: keras.Model,
    rows: Examples,
    fields: dict[str, Field],
    cache: Cache,
    folder: Path,
    dtype: str,
    passes: int,
    description: str,
) -> dict[str, Any] | None:
    counts = lengths(rows.x)
    # sequences that are needed once are not stored, so a conversion for their sake would be for nothing
    is_wanted = passes > 1 or cache.mode == "always" or all(field.kind == "row" for field in fields.values())
    network = onnx_pass.network(prefix, rows, convert=is_wanted)
    forward = network or compiled(prefix)
    batches = plan(counts, INFERENCE_ROWS, INFERENCE_TOKENS)
    names = [tensor.name for tensor in prefix.inputs]
    source = {name: as_arrays(rows.x[name]) for name in names}

    def outputs(number: int) -> dict[str, np.ndarray]:
        picked, length = batches[number]
        x = {name: take(v, picked, length, rows.padding.get(name, 0)) for name, v in source.items()}
        computed = forward(x if network else {name: tf.constant(value) for name, value in x.items()})
        return {name: np.asarray(computed[name]) for name in fields}

    first = outputs(0)  # where TensorFlow computes it, it traces
    middle = len(batches) // 2
    started = time.perf_counter()
    if middle:
        outputs(middle)
    units = np.maximum(counts, 1)
    seconds = (time.perf_counter() - started) / units[batches[middle][0]].sum() * units.sum() if middle else 0.0
    seconds /= processors() if network else 1
    size = stored_bytes(first, fields, counts, len(batches[0][0]), dtype)
    if not _pays(cache, folder.parent, size, seconds, passes, len(counts), description):
        return None
    if network is None:
        found = forward_pass(prefix, rows, INFERENCE_ROWS)
    else:
        found = onnx_pass.in_order(outputs, range(len(batches)))
    try:
        with (
            beside(folder) as scratch,
            work(f"frozen part, {description}", len(counts)) as advance,
            contextlib.closing(Writer(scratch, first, fields, counts, dtype)) as writer,
        ):
            for (picked, _), computed in zip(batches, found, strict=True):
                writer.add({name: computed[name] for name in fields}, picked)
                advance(len(picked))
            longest = batches[-1]
            writer.finish(run(prefix, rows, longest[0][-1:], longest[1]), description)
    except OverflowsError:
        log.warning("cache: values of the frozen part do not fit float16; stored as float32")
        return _compute(prefix, rows, fields, cache, folder, "float32", passes, description)
    except NotSharedError:
        log.info("cache: no, an output is the same for some rows only")
        return None
    except OSError as error:
        log.warning("cache: no, %s cannot be written (%s)", cache.folder, error.strerror)
        return None
    return open_entry(folder)


def _pays(cache: Cache, place: Path, size: int, seconds: float, passes: int, rows: int, description: str) -> bool:
    """Whether to store, and why, in one line of the log."""
    existing = place
    while not existing.exists():
        existing = existing.parent
    used = sum(entry.bytes for entry in entries(place))
    limit = (used + shutil.disk_usage(existing).free) * FREE_SHARE if cache.limit_gb is None else cache.limit_gb * 1e9
    what = f"{description}, {rows:,} rows, {megabytes(size)}, about {seconds:.0f} s"
    if size > limit:
        log.warning("cache: no, %s; the limit is %s (cache_limit_gb)", what, megabytes(int(limit)))
        return False
    spent = size / WRITE_RATE + passes * size / READ_RATE
    saved = (passes - 1) * seconds
    small = size <= rows * 2**16  # one pass, but the next run will ask for it again
    if cache.mode == "auto" and saved <= spent and not (passes == 1 and small):
        log.info("cache: no, %s; %d passes would save %.1f s and cost %.1f s", what, passes, saved, spent)
        return False
    log.info("cache: yes, %s; %d passes save %.1f s", what, passes, saved)
    make_room(place, int(limit) - size)
    return True
