"""One source of rows -> one pandas DataFrame; nothing is guessed, every fault names its line."""

import csv
import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tfft.errors import DataError, NotFoundError

log = logging.getLogger(__name__)

Source = Any  # path | "tfds:name" | DataFrame | {column: values} | [row, ...] | (texts, labels) | tf.data.Dataset

SPLITS = ("train", "validation", "test")


def read_splits(source: Source, encoding: str = "utf-8") -> dict[str, pd.DataFrame]:
    """Read a source that may hold several splits.

    A folder with `train.*`, `validation.*`, `test.*` files and a `tfds:name[/config]` give the splits they have;
    anything else gives `{"train": rows}`.
    """
    if isinstance(source, str) and source.startswith("tfds:"):
        return _read_tfds(source)
    if isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
        return _read_folder(Path(source), encoding)
    return {"train": read(source, encoding)}


def read(source: Source, encoding: str = "utf-8") -> pd.DataFrame:
    """Read one table.

    Args:
        source: path of a .csv, .tsv, .jsonl, .ndjson, .json, .conll or .parquet file; a DataFrame; a dict of columns; a
            list of dicts; a `(texts, labels)` pair of sequences; or a `tf.data.Dataset` of dicts or of (text, label).
        encoding: of text files.

    Returns:
        A DataFrame with at least one row. Values of text files are strings, whatever they look like.

    Raises:
        NotFoundError: no such file.
        DataError: empty, not in this encoding, ragged, or of an unknown kind.

    Examples:
        >>> from tfft.reading import read
        >>> read({"text": ["good", "bad"], "label": [1, 0]}).shape
        (2, 2)
    """
    if isinstance(source, (str, os.PathLike)):
        frame, name = _read_file(Path(source), encoding), str(source)
    elif isinstance(source, pd.DataFrame):
        frame, name = source.reset_index(drop=True), "the DataFrame"
    elif hasattr(source, "element_spec"):
        frame, name = _read_dataset(source), "the Dataset"
    elif isinstance(source, Mapping):
        frame, name = _from_columns(source), "the columns"
    elif isinstance(source, Sequence) and all(isinstance(row, Mapping) for row in source):
        frame, name = _from_rows(source), "the list"
    elif isinstance(source, tuple) and len(source) == 2:
        frame, name = _from_columns({"text": source[0], "label": source[1]}), "the (texts, labels) pair"
    else:
        raise DataError(
            "expected a file, 'tfds:name', DataFrame, dict of columns, list of dicts, (texts, labels) or Dataset. "
            f"Received: {type(source).__name__}"
        )
    repeated = sorted({str(c) for c in frame.columns[frame.columns.duplicated()]})
    if repeated:
        raise DataError(f"{name} has more than one column named {', '.join(repeated)}. Rename or remove the others")
    if frame.empty:
        raise DataError(f"{name} is empty: expected at least one row")
    return frame


def _read_file(path: Path, encoding: str) -> pd.DataFrame:
    if path.is_dir():
        raise DataError(f"{path} is a folder. Expected a file, or for --data a folder that holds train.csv")
    if not path.exists():
        raise NotFoundError(f"no such file: {path}")
    if path.suffix.lower() not in _READERS:
        raise DataError(f"{path}: unknown kind of file {path.suffix!r}. Expected one of: {', '.join(_READERS)}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty: expected at least one row")
    return _READERS[path.suffix.lower()](path, encoding)


def _text_of(path: Path, encoding: str) -> str:
    content = path.read_bytes()
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not {encoding} (byte 0x{content[error.start]:02x} in line {line}). "
            "Save it as UTF-8, or name its encoding: --encoding cp1252"
        ) from None
    except LookupError:
        raise DataError(
            f"unknown encoding {encoding!r}. Expected a name Python knows, such as utf-8 or cp1252"
        ) from None


def _read_delimited(path: Path, encoding: str, delimiter: str) -> pd.DataFrame:
    # Not pandas.read_csv: it fills short rows with NaN and renames repeated columns without a word.
    reader = csv.reader(io.StringIO(_text_of(path, encoding), newline=""), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(2**31 - 1)
    try:
        header: list[str] = next((row for row in reader if row), [])
        rows, begins = [], reader.line_num + 1
        for row in reader:
            begins = reader.line_num + 1
            if not row:
                continue  # a blank line
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: expected {len(header)} fields as in the header, got {len(row)}. "
                    "Put fields that hold the delimiter or a quote in double quotes"
                )
            rows.append(row)
    except csv.Error as error:
        if "end of data" in str(error):
            raise DataError(f"{path}, line {begins}: a quoted field begins here and is never closed") from None
        raise DataError(
            f"{path}, line {reader.line_num}: {error}. Quotes inside a quoted field must be doubled"
        ) from None
    finally:
        csv.field_size_limit(limit)
    return pd.DataFrame(rows, columns=pd.Index([name.strip() for name in header]), dtype=object)


def _read_jsonl(path: Path, encoding: str) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(_text_of(path, encoding).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_no_repeats)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: expected one JSON object a line. {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}")
        rows.append(row)
    return _from_rows(rows)


def _read_json(path: Path, encoding: str) -> pd.DataFrame:
    """A list of objects, or SQuAD's own nesting: articles of paragraphs of questions."""
    try:
        found = json.loads(_text_of(path, encoding), object_pairs_hook=_no_repeats)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}. One object a line is .jsonl") from None
    if isinstance(found, dict) and isinstance(found.get("data"), list):
        found = found["data"]
        if all(isinstance(article, dict) and "paragraphs" in article for article in found):
            found = list(_squad(path, found))
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DataError(f"{path}: expected a list of objects, or SQuAD's {{data: [{{paragraphs: [...]}}]}}")
    return _from_rows(found)


def _squad(path: Path, articles: list[Any]) -> Iterator[dict[str, Any]]:
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    answers = [] if asked.get("is_impossible") else asked.get("answers")
                    yield {
                        "id": asked.get("id"),
                        "title": article.get("title"),
                        "context": paragraph["context"],
                        "question": asked["question"],
                        "answers": answers,
                    }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: SQuAD's nesting breaks off at {error}") from None


def _read_conll(path: Path, encoding: str) -> pd.DataFrame:
    """A token a line, its tag in the last column, an empty line between sentences."""
    rows: list[dict[str, list[str]]] = [{"tokens": [], "tags": []}]
    for number, line in enumerate(_text_of(path, encoding).split("\n"), 1):
        fields = line.split()
        if not fields or fields[0] == "-DOCSTART-":
            rows.append({"tokens": [], "tags": []})
        elif len(fields) == 1:
            raise DataError(
                f"{path}, line {number}: expected a token and, in the last column, its tag. Found: {line!r}"
            )
        else:
            rows[-1]["tokens"].append(fields[0])
            rows[-1]["tags"].append(fields[-1])
    return _from_rows([row for row in rows if row["tokens"]])


def _from_rows(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    # Column by column, as objects: pandas would turn 1 and a missing value into 1.0 and NaN.
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("A key stands twice in it")
    return row


def _read_parquet(path: Path, encoding: str) -> pd.DataFrame:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:  # read_table stumbles over repeated names
            table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file: {' '.join(str(error).split())}") from None
    # Through Python objects: an integer column with a null must not become floats.
    columns = [pd.Series(column.to_pylist(), dtype=object) for column in table.columns]
    return pd.concat(columns, axis=1, keys=table.column_names)


_READERS: dict[str, Callable[[Path, str], pd.DataFrame]] = {
    ".csv": lambda path, encoding: _read_delimited(path, encoding, ","),
    ".tsv": lambda path, encoding: _read_delimited(path, encoding, "\t"),
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".conll": _read_conll,
    ".parquet": _read_parquet,
}


def _read_folder(folder: Path, encoding: str) -> dict[str, pd.DataFrame]:
    found: dict[str, pd.DataFrame] = {}
    for split in SPLITS:
        files = [folder / f"{split}{suffix}" for suffix in _READERS if (folder / f"{split}{suffix}").exists()]
        if len(files) > 1:
            raise DataError(f"{folder} has several files for {split}: {', '.join(f.name for f in files)}. Name one")
        if files:
            found[split] = read(files[0], encoding)
    if "train" not in found:
        raise NotFoundError(f"{folder} has no train file. Expected one of: {', '.join('train' + s for s in _READERS)}")
    return found


def _from_columns(columns: Mapping[str, Any]) -> pd.DataFrame:
    for name, values in columns.items():
        if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
            raise DataError(f"column {name!r}: expected a sequence of values. Received: {type(values).__name__}")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"columns of different lengths: {lengths}. Expected as many values in each")
    return pd.DataFrame({name: pd.Series(list(values), dtype=object) for name, values in columns.items()})


def _read_dataset(dataset: Any) -> pd.DataFrame:
    if int(dataset.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise DataError("the Dataset never ends: remove its repeat()")
    rows = [row for element in dataset.as_numpy_iterator() for row in _rows_of(element)]
    return pd.DataFrame(rows, dtype=object)


def _rows_of(element: Any) -> Iterator[dict[str, Any]]:
    """The rows of one dataset element: a dict or a (text, label) pair, of scalars or of a batch."""
    if isinstance(element, tuple) and len(element) >= 2:
        ranks = [getattr(value, "ndim", 0) for value in element[:2]]
        if ranks not in ([0, 0], [1, 1]):
            raise DataError(
                "expected a Dataset of (text, label) with one label a row. Received labels of shape "
                f"{element[1].shape}. One-hot labels become numbers with tf.argmax(label, axis=-1)"
            )
        element = {"text": element[0], "label": element[1]}
    if not isinstance(element, Mapping):
        raise DataError(f"expected a Dataset of dicts or of (text, label). Received elements: {type(element).__name__}")
    if all(getattr(value, "ndim", 0) == 1 for value in element.values()):  # a batch
        for values in zip(*element.values(), strict=True):
            yield {name: _plain(value) for name, value in zip(element, values, strict=True)}
    else:
        yield {name: _plain(value) for name, value in element.items()}


def _plain(value: Any) -> Any:
    value = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _read_tfds(source: str) -> dict[str, pd.DataFrame]:
    import tensorflow_datasets as tfds

    name = source.removeprefix("tfds:")
    try:
        datasets, info = tfds.load(name, with_info=True)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:  # the last: unknown version
        raise NotFoundError(f"TensorFlow Datasets has no data set {name!r}: {str(error).splitlines()[0]}") from None
    except OSError as error:  # requests' and urllib's connection errors are OSErrors
        raise DataError(
            f"TensorFlow Datasets could not prepare {name!r}: {type(error).__name__}. Without a network, prepare it "
            "elsewhere and copy its folder to ~/tensorflow_datasets"
        ) from None
    found = {}
    for split in SPLITS:
        if split in datasets:
            frame = read(datasets[split])
            for column, feature in info.features.items():
                if isinstance(feature, tfds.features.ClassLabel):  # -1 is TFDS's "no label"
                    names = feature.names
                    frame[column] = [names[value] if value >= 0 else None for value in frame[column]]
            found[split] = frame
    if "train" not in found:
        raise DataError(f"tfds data set {name!r} has no train split; it has: {', '.join(datasets)}")
    return found
