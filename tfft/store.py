"""The store on disk: entries written beside and renamed, checked before they are read, the oldest removed first."""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tfft.examples import Ragged, Shared
from tfft.frontier import Field

log = logging.getLogger(__name__)


class OverflowsError(Exception):
    """A value does not fit the stored dtype."""


class NotSharedError(Exception):
    """A value differs between rows."""


class Writer:
    """Writes batches to one file a field. Sequences stand in the order they were computed, vectors in that of rows."""

    def __init__(self, folder: Path, batch: dict[str, np.ndarray], fields: dict[str, Field], counts: Any, dtype: str):
        self.folder, self.fields, self.counts = folder, fields, counts
        self.files = {n: (folder / f"{n}.bin").open("wb") for n, f in fields.items() if f.kind != "shared"}
        self.dtypes = {name: np.dtype(_stored_dtype(batch[name].dtype, dtype, f)) for name, f in fields.items()}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.order: list[np.ndarray] = []
        self.first: dict[str, np.ndarray] = {}

    def close(self) -> None:
        """Close the files, also of an entry that was given up."""
        for file in self.files.values():
            file.close()

    def add(self, outputs: dict[str, np.ndarray], rows: np.ndarray) -> None:
        """Append one batch's outputs.

        Raises:
            OverflowsError: a value does not fit the stored dtype.
            NotSharedError: a value that was to be kept once differs between rows.
        """
        self.order.append(rows)
        # what was equal in three rows may differ in others
        for name in (n for n, f in self.fields.items() if f.kind == "shared"):
            value = outputs[name]
            first = self.first.setdefault(name, value[:1])
            both = (slice(None), *(slice(min(a, b)) for a, b in zip(first.shape[1:], value.shape[1:], strict=True)))
            if not np.allclose(value[both], first[both], rtol=1e-3, atol=1e-5):
                raise NotSharedError
        for name, file in self.files.items():
            value, field = outputs[name], self.fields[name]
            if field.kind == "tokens":
                value = np.moveaxis(value, field.axis, 1)
                value = value[np.arange(value.shape[1]) < self.counts[rows, np.newaxis]]
            with np.errstate(over="ignore"):
                stored = np.ascontiguousarray(value.astype(self.dtypes[name]))
            if self.dtypes[name] == np.float16 and not np.isfinite(stored).all() and np.isfinite(value).all():
                raise OverflowsError
            self.shapes[name] = stored.shape[1:]
            if field.kind == "tokens":
                file.write(stored.tobytes())
                continue
            for row, one in zip(rows, stored, strict=True):
                file.seek(int(row) * one.nbytes)
                file.write(one.tobytes())

    def finish(self, longest: dict[str, np.ndarray], description: str) -> None:
        """Write index and manifest; `longest` are the outputs for one of the longest rows."""
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
        manifest["checksum"] = zlib.crc32(json.dumps(manifest, indent=2).encode())
        (self.folder / "manifest.json").write_text(json.dumps(manifest, indent=2), "utf-8")


def _stored_dtype(dtype: np.dtype, wanted: str, field: Field) -> Any:
    if field.kind != "tokens" or not np.issubdtype(dtype, np.floating):
        return dtype
    return ml_dtypes.bfloat16 if wanted == "bfloat16" else np.dtype(wanted)


def stored_bytes(
    batch: dict[str, np.ndarray], fields: dict[str, Field], counts: np.ndarray, rows: int, dtype: str
) -> int:
    """Bytes the fields will take, from the outputs of a first batch of `rows` rows."""
    total = 0
    for name, field in fields.items():
        if field.kind == "shared":
            continue
        value = batch[name]
        one = value.size // rows if field.kind == "row" else value.size // (rows * value.shape[field.axis])
        width = np.dtype(_stored_dtype(value.dtype, dtype, field)).itemsize
        total += one * width * int(len(counts) if field.kind == "row" else counts.sum())
    return total


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
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


def open_entry(folder: Path) -> dict[str, Any] | None:
    """An entry's values, mapped from its files; None if there is no whole one. A damaged one is removed."""
    if not folder.is_dir():
        return None
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        checksum = manifest.pop("checksum")
        if zlib.crc32(json.dumps(manifest, indent=2).encode()) != checksum:
            raise ValueError("manifest.json has changed")
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

    Examples:
        >>> from tfft.caching import entries
        >>> entries("no/such/folder")
        []
    """
    found = []
    for manifest in Path(folder).glob("[!.]*/manifest.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
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
        for left in Path(folder).iterdir():  # entries too damaged to be listed
            if re.fullmatch("[0-9a-f]{32}", left.name) and left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        _sweep(Path(folder))
    return freed


def make_room(place: Path, size: int) -> None:
    """Remove the longest unused entries until the rest takes no more than `size` bytes."""
    kept = entries(place)
    while kept and sum(entry.bytes for entry in kept) > size:
        oldest = kept.pop(0)
        log.info("cache: %s (%s) makes room", oldest.path.name, megabytes(oldest.bytes))
        shutil.rmtree(oldest.path, ignore_errors=True)


def megabytes(size: int) -> str:
    """Bytes in words: "133.8 MB"."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"
