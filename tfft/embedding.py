"""Texts to vectors, and the texts nearest to another: what a frozen encoder gives for nothing.

A file of vectors is Parquet: the source's own columns, `vector` (float32, of unit length), and in its metadata what
made them, so that a text is later compared by the same encoder.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from tfft import arithmetic, backbones, caching, data, heads, tokenizing
from tfft.errors import DataError, InvalidValueError, NotFoundError
from tfft.evaluation import predict
from tfft.examples import Examples, lengths
from tfft.fingerprint import digest_all
from tfft.reading import Source, read
from tfft.tasks import get_task

log = logging.getLogger(__name__)

VECTOR = "vector"
ABOUT = b"tfft"  # where the file's metadata says what made it


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Rows and their vectors.

    Attributes:
        rows: the source's columns.
        vectors: float32 (rows, width), of unit length: a dot product is the cosine of an angle.
        about: what made them: `backbone`, `weights` (their hash), `pooling`, `max_length`, `text` (the column).
    """

    rows: pd.DataFrame
    vectors: np.ndarray
    about: dict[str, Any]


def embed(
    source: Source,
    backbone: str | os.PathLike[str] = "minilm-l6",
    *,
    pooling: str | None = None,
    max_length: int | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    bad_rows: str = "stop",
    cache: caching.Cache | None = None,
) -> Vectors:
    """A vector for each text.

    Args:
        source: rows, as `tfft.load_data` takes them; labels are not needed.
        backbone: as `load_backbone` takes it.
        pooling: "mean", "cls", "max" or "pooled"; by default what the backbone was trained with, else "mean".
        max_length: longest text in tokens; by default as long as the longest, or as the backbone can read.
        columns: `{"text": name}`, where it is not found by its name.
        encoding: of text files.
        bad_rows: rows without a text: "stop", or "drop".
        cache: where vectors are kept for the next time.

    Returns:
        See `Vectors`. Its rows are those of the source, unusable ones left out.

    Examples:
        found = tfft.embed("T.csv")
        found.vectors @ found.vectors[0]  # cosines with the first
    """
    frame, task = read(source, encoding), get_task("text-classification")
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    task = dataclasses.replace(task, columns={"text": task.columns["text"]})
    column = data.find_columns(frame, task, columns or {})["text"]
    checked, faults = task.check(pd.DataFrame({"text": frame[column].astype(object)}))
    kept = data.usable(faults, len(frame), "given", bad_rows)
    folder = backbones.resolve(backbone)
    model, tokenizer = backbones.load_backbone(folder)
    about = {
        "backbone": str(Path(backbone).absolute()) if Path(backbone).is_dir() else os.fspath(backbone),
        "weights": digest_all(model),
        "pooling": pooling or backbones.trained_pooling(folder) or "mean",
        "max_length": max_length,
        "text": column,
    }
    vectors = _vectors(model, tokenizer, checked["text"][kept].tolist(), about, cache)
    return Vectors(frame[kept].reset_index(drop=True), vectors, about)


def _vectors(
    model: keras.Model, tokenizer: Any, texts: Sequence[str], about: dict[str, Any], cache: caching.Cache | None
) -> np.ndarray:
    x, padding = tokenizing.encode(tokenizer, texts)
    counts = lengths(x)
    limit = getattr(model, "max_sequence_length", None)
    longest = tokenizing.choose_length(counts, limit, about["max_length"], quantile=1.0)
    examples = Examples(x, np.zeros(len(counts)), np.ones(len(counts), "float32"), padding)
    examples, longer = tokenizing.truncate_examples(examples, tokenizer, longest)
    if longer:
        log.warning("%d of %d texts are longer than %d tokens and were cut", longer, len(counts), longest)
    encoder = keras.Model(model.input, {VECTOR: heads.vector(model, about["pooling"])})
    with arithmetic.arithmetic(arithmetic.choose()):
        if cache is not None:
            given = keras.Input(batch_shape=encoder.output[VECTOR].shape, name=VECTOR)
            stored = caching.frozen_outputs(
                encoder, keras.Model({VECTOR: given}, given), examples, cache, passes=1, description="vectors"
            )
            if stored is not None:
                return _of_unit_length(stored.x[VECTOR])
        return _of_unit_length(predict(encoder, examples, description="vectors")[VECTOR])


def _of_unit_length(vectors: np.ndarray) -> np.ndarray:
    """Again, in float32: where products are rounded to bfloat16 so are lengths, by a quarter of a percent."""
    scaled: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled


def write(vectors: Vectors, path: str | os.PathLike[str]) -> None:
    """Write a Parquet file, beside and renamed.

    Raises:
        InvalidValueError: another kind of file, or a column of the source is called "vector".
    """
    refuse_other_kinds(path)
    target = Path(path)
    if VECTOR in vectors.rows:
        raise InvalidValueError(f"the source has a column {VECTOR!r} of its own. Rename it")
    table = pyarrow.Table.from_pandas(vectors.rows, preserve_index=False)
    flat = pyarrow.array(np.ascontiguousarray(vectors.vectors, "float32").ravel())
    column = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.vectors.shape[1])
    table = table.append_column(VECTOR, column)
    table = table.replace_schema_metadata((table.schema.metadata or {}) | {ABOUT: json.dumps(vectors.about)})
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        pyarrow.parquet.write_table(table, scratch)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def refuse_other_kinds(path: str | os.PathLike[str]) -> None:
    """Raise if vectors cannot be written to the path for its kind: better before the work than after it."""
    if Path(path).suffix != ".parquet":
        raise InvalidValueError(f"vectors are written as .parquet. Received: {os.fspath(path)}")


def read_vectors(path: str | os.PathLike[str]) -> Vectors:
    """Read what `write` wrote.

    Raises:
        NotFoundError: no such file.
        DataError: it is no file of vectors.
    """
    if not Path(path).is_file():
        raise NotFoundError(f"no such file: {os.fspath(path)}. `tfft embed FILE --out {os.fspath(path)}` makes one")
    try:
        table = pyarrow.parquet.read_table(path)
        about = json.loads(table.schema.metadata[ABOUT])
        flat = table[VECTOR].combine_chunks()
    except (pyarrow.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{os.fspath(path)} is no file of vectors, as `tfft embed` writes it: {error}") from None
    vectors = np.asarray(flat.flatten()).reshape(len(table), -1)
    rows = table.drop_columns([VECTOR]).to_pandas()
    return Vectors(rows.astype(object).where(rows.notna(), None), vectors, about)


def nearest(vectors: Vectors | str | os.PathLike[str], texts: Sequence[str], top: int = 5) -> list[pd.DataFrame]:
    """The rows whose texts are nearest to each of some others.

    Args:
        vectors: from `embed`, or the path of a file.
        texts: what is compared.
        top: rows for each, at most.

    Returns:
        For each text its nearest rows, best first: the source's columns, and `cosine` before them; a column of the
        source with this name is called `cosine (source)`.

    Raises:
        InvalidValueError: the backbone that is found today under the name has other weights; top is below 1.

    Examples:
        tfft.nearest("vectors.parquet", ["Where is my parcel?"])[0]
    """
    if top < 1:
        raise InvalidValueError(f"top must be 1 or more. Received: {top}")
    if not texts:
        return []
    known = vectors if isinstance(vectors, Vectors) else read_vectors(vectors)
    model, tokenizer = backbones.load_backbone(known.about["backbone"])
    if digest_all(model) != known.about["weights"]:
        raise InvalidValueError(
            f"the backbone {known.about['backbone']!r} has other weights than those that made the vectors. "
            "Embed the texts again"
        )
    asked = _vectors(model, tokenizer, list(texts), known.about, None)
    cosines = asked @ known.vectors.T  # (texts, rows)
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :top]
    found = []
    for row, numbers in zip(cosines, best, strict=True):
        rows = known.rows.iloc[numbers].reset_index(drop=True).rename(columns={"cosine": "cosine (source)"})
        rows.insert(0, "cosine", row[numbers])
        found.append(rows)
    return found
