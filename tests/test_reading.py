"""Every kind of source gives the same rows, and every fault is one line that names its place."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfft.errors import DataError, NotFoundError
from tfft.reading import read, read_splits

ROWS = [
    ("a fine film", "pos"),
    ("dull, long", "neg"),
    ('he said "no"\nand left', "neg"),
    ("\u00e9\u4f60\U0001f600", "pos"),
]
KINDS = ".csv, .tsv, .jsonl, .ndjson, .json, .conll, .parquet"


def _columns() -> dict[str, list[str]]:
    return {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}


def _dicts() -> list[dict[str, str]]:
    return [{"text": text, "label": label} for text, label in ROWS]


def _file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def _delimited(folder: Path, name: str, delimiter: str) -> Path:
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *ROWS])
    return folder / name


def _json_lines(folder: Path, name: str) -> Path:
    return _file(folder, name, "\n".join(json.dumps(row) for row in _dicts()))


def _parquet(folder: Path, name: str = "a.parquet", table: pa.Table | None = None) -> Path:
    pq.write_table(pa.table(_columns()) if table is None else table, folder / name)
    return folder / name


def _dataset(kind: str) -> Any:
    import tensorflow as tf

    columns = _columns()
    slices = tf.data.Dataset.from_tensor_slices
    pairs = slices((columns["text"], columns["label"]))
    return {
        "dicts": lambda: slices(columns),
        "pairs": lambda: pairs,
        "weighted": lambda: slices((columns["text"], columns["label"], [1.0] * len(ROWS))),
        "batched dicts": lambda: slices(columns).batch(3),
        "batched pairs": lambda: pairs.batch(3),
    }[kind]()


SOURCES: dict[str, Callable[[Path], Any]] = {
    "csv": lambda folder: _delimited(folder, "a.csv", ","),
    "csv as str": lambda folder: str(_delimited(folder, "a.csv", ",")),
    "upper case suffix": lambda folder: _delimited(folder, "a.CSV", ","),
    "tsv": lambda folder: _delimited(folder, "a.tsv", "\t"),
    "jsonl": lambda folder: _json_lines(folder, "a.jsonl"),
    "ndjson": lambda folder: _json_lines(folder, "a.ndjson"),
    "parquet": _parquet,
    "DataFrame": lambda folder: pd.DataFrame(_columns(), index=[7, 7, 3, 0]),
    "columns": lambda folder: _columns(),
    "columns of arrays": lambda folder: {name: np.array(values) for name, values in _columns().items()},
    "list of dicts": lambda folder: _dicts(),
    "tuple of dicts": lambda folder: tuple(_dicts()),
    "pair": lambda folder: (_columns()["text"], _columns()["label"]),
    "pair of Series": lambda folder: tuple(pd.Series(values, index=[5, 6, 7, 8]) for values in _columns().values()),
    "Dataset of dicts": lambda folder: _dataset("dicts"),
    "Dataset of pairs": lambda folder: _dataset("pairs"),
    "Dataset of weighted pairs": lambda folder: _dataset("weighted"),
    "Dataset of batched dicts": lambda folder: _dataset("batched dicts"),
    "Dataset of batched pairs": lambda folder: _dataset("batched pairs"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    frame = read(SOURCES[kind](tmp_path))
    assert list(frame.columns) == ["text", "label"]
    assert list(frame.index) == [0, 1, 2, 3]
    assert list(zip(frame["text"], frame["label"], strict=True)) == ROWS


@pytest.mark.parametrize("kind", SOURCES)
def test_one_table_is_the_train_split(kind: str, tmp_path: Path) -> None:
    source = SOURCES[kind](tmp_path)
    splits = read_splits(source)
    assert list(splits) == ["train"]
    pd.testing.assert_frame_equal(splits["train"], read(source))


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_values_of_text_files_stay_strings(delimiter: str, tmp_path: Path) -> None:
    values = ["1", "1.0", "007", "NA", "null", "None", "true", "", " x ", "1e5", "2020-01-01"]
    lines = [delimiter.join(("text", "label")), *(delimiter.join((value, value)) for value in values)]
    frame = read(_file(tmp_path, "a.csv" if delimiter == "," else "a.tsv", "\n".join(lines)))
    assert frame["text"].tolist() == values
    assert frame["label"].tolist() == values


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_takes_every_line_end_and_blank_lines(end: str, tmp_path: Path) -> None:
    frame = read(_file(tmp_path, "a.csv", end.join(["text,label", "a,b", "", 'c,"d, e"', "", ""])))
    assert frame.to_dict("list") == {"text": ["a", "c"], "label": ["b", "d, e"]}


def test_csv_may_begin_with_a_blank_line(tmp_path: Path) -> None:
    assert read(_file(tmp_path, "a.csv", "\ntext,label\na,b\n")).to_dict("list") == {"text": ["a"], "label": ["b"]}


@pytest.mark.parametrize(
    "field", ["two\nlines", "two\r\nlines", 'a "quote"', "a, comma", "tab\tbed", "nul\x00byte", "\u2028"]
)
@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t")])
def test_quoted_fields_are_kept_to_the_letter(field: str, name: str, delimiter: str, tmp_path: Path) -> None:
    quoted = '"' + field.replace('"', '""') + '"'
    frame = read(_file(tmp_path, name, f"text{delimiter}label\r\n{quoted}{delimiter}x\r\n"))
    assert frame.to_dict("list") == {"text": [field], "label": ["x"]}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_byte_order_mark_is_no_part_of_the_first_column(name: str, tmp_path: Path) -> None:
    content = {"a.csv": "text,label\na,b", "a.tsv": "text\tlabel\na\tb", "a.jsonl": '{"text": "a", "label": "b"}'}[name]
    frame = read(_file(tmp_path, name, b"\xef\xbb\xbf" + content.encode()))
    assert frame.to_dict("list") == {"text": ["a"], "label": ["b"]}


def test_spaces_around_header_names_are_stripped(tmp_path: Path) -> None:
    assert list(read(_file(tmp_path, "a.csv", "text, label \na,b")).columns) == ["text", "label"]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig", "latin-1"])
def test_text_files_are_read_in_the_encoding_named(encoding: str, tmp_path: Path) -> None:
    path = _file(tmp_path, "a.csv", "text,label\ncaf\u00e9,\u00fc".encode(encoding))
    assert read(path, encoding).to_dict("list") == {"text": ["caf\u00e9"], "label": ["\u00fc"]}
    assert read_splits(path, encoding)["train"].to_dict("list") == {"text": ["caf\u00e9"], "label": ["\u00fc"]}


def test_fields_of_200000_characters_are_read_and_the_csv_limit_is_restored(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "word " * 40_000
    assert before < len(long)
    assert read(_file(tmp_path, "a.csv", f'text,label\n"{long}",x\n'))["text"].tolist() == [long]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("content", ["text,label\na\n", 'text,label\n"a"b,c\n'])
def test_csv_limit_is_restored_after_an_error(content: str, tmp_path: Path) -> None:
    before = csv.field_size_limit()
    with pytest.raises(DataError):
        read(_file(tmp_path, "a.csv", content))
    assert csv.field_size_limit() == before


def test_json_lines_keep_values_and_fill_missing_keys_with_none(tmp_path: Path) -> None:
    lines = ['{"text": "a", "label": 1}', "", '{"text": null, "other": [1, 2]}\r', '{"text": "c", "label": true}', ""]
    frame = read(_file(tmp_path, "a.jsonl", "\n".join(lines)))
    assert frame["text"].tolist() == ["a", None, "c"]
    assert frame["label"].tolist() == [1, None, True]
    assert [type(value) for value in frame["label"]] == [int, type(None), bool]
    assert frame["other"].tolist() == [None, [1, 2], None]


def test_json_lines_may_hold_line_separators_of_unicode(tmp_path: Path) -> None:
    frame = read(_file(tmp_path, "a.jsonl", '{"text": "a\u2028b\u0085c"}\n{"text": "d"}\n'))
    assert frame["text"].tolist() == ["a\u2028b\u0085c", "d"]


def test_parquet_integers_beside_a_null_stay_integers(tmp_path: Path) -> None:
    frame = read(_parquet(tmp_path, table=pa.table({"text": ["a", None], "label": [1, None]})))
    assert frame["text"].tolist() == ["a", None]
    assert frame["label"].tolist() == [1, None]
    assert type(frame["label"][0]) is int


def test_parquet_dictionary_columns_are_their_values(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "label": pa.array(["x", "y"]).dictionary_encode()})
    assert read(_parquet(tmp_path, table=table))["label"].tolist() == ["x", "y"]


def test_a_list_of_dicts_keeps_values_as_json_lines_do() -> None:
    frame = read([{"text": "a", "label": 9007199254740993}, {"text": "b"}])
    assert frame["label"].tolist() == [9007199254740993, None]


def test_two_dicts_in_a_tuple_are_rows_not_columns() -> None:
    frame = read(({"text": "a", "label": "x"}, {"text": "b", "label": "y"}))
    assert frame.to_dict("list") == {"text": ["a", "b"], "label": ["x", "y"]}


def test_reading_a_dataframe_leaves_it_alone() -> None:
    source = pd.DataFrame({"text": ["a", "b"]}, index=[5, 9])
    frame = read(source)
    frame.loc[0, "text"] = "changed"
    assert source["text"].tolist() == ["a", "b"]
    assert source.index.tolist() == [5, 9]


def test_dataset_bytes_become_text_and_numbers_plain_python() -> None:
    import tensorflow as tf

    frame = read(tf.data.Dataset.from_tensor_slices(([b"caf\xc3\xa9", b"bad \xff byte"], [3, -1])))
    assert frame["text"].tolist() == ["caf\u00e9", "bad \ufffd byte"]
    assert frame["label"].tolist() == [3, -1]
    assert {type(value) for value in frame["label"]} == {int}


@pytest.mark.parametrize("batched", [False, True])
def test_dataset_of_anything_but_dicts_and_pairs_is_refused(batched: bool) -> None:
    import tensorflow as tf

    texts = tf.data.Dataset.from_tensor_slices(["a", "b"])
    received = "ndarray" if batched else "bytes"
    message = f"expected a Dataset of dicts or of (text, label). Received elements: {received}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read(texts.batch(2) if batched else texts)


@pytest.mark.parametrize("batched", [False, True])
def test_dataset_of_one_hot_labels_is_refused(batched: bool) -> None:
    import tensorflow as tf

    rows = tf.data.Dataset.from_tensor_slices((["a", "b"], [[1.0, 0.0], [0.0, 1.0]]))
    with pytest.raises(DataError, match="label"):
        read(rows.batch(2) if batched else rows)


def test_endless_dataset_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def read_on(dataset: Any) -> None:
        pytest.fail("it would have been read for ever")

    monkeypatch.setattr(tf.data.Dataset, "as_numpy_iterator", read_on)
    with pytest.raises(DataError, match=r"^the Dataset never ends: remove its repeat\(\)$"):
        read(tf.data.Dataset.from_tensors(("a", "b")).repeat())


def test_empty_dataset_is_refused() -> None:
    import tensorflow as tf

    with pytest.raises(DataError, match=r"^the Dataset is empty: expected at least one row$"):
        read(tf.data.Dataset.from_tensor_slices((["a"], ["b"])).take(0))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "the list is empty: expected at least one row"),
        ({}, "the columns is empty: expected at least one row"),
        ({"text": [], "label": []}, "the columns is empty: expected at least one row"),
        (([], []), "the (texts, labels) pair is empty: expected at least one row"),
        (pd.DataFrame({"text": []}), "the DataFrame is empty: expected at least one row"),
        (
            pd.DataFrame([["a", "b", "c"]], columns=["text", "label", "text"]),
            "the DataFrame has more than one column named text. Rename or remove the others",
        ),
        (
            {"text": ["a"], "label": [1, 2]},
            "columns of different lengths: {'text': 1, 'label': 2}. Expected as many values in each",
        ),
        (
            (["a"], [1, 2]),
            "columns of different lengths: {'text': 1, 'label': 2}. Expected as many values in each",
        ),
    ],
)
def test_unusable_values_are_refused(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read(source)


@pytest.mark.parametrize(
    ("source", "received"), [(None, "NoneType"), (3, "int"), (["a", "b"], "list"), (("a", "b", "c"), "tuple")]
)
def test_unknown_kinds_are_refused(source: Any, received: str) -> None:
    message = (
        "expected a file, 'tfds:name', DataFrame, dict of columns, list of dicts, (texts, labels) or Dataset. "
        f"Received: {received}"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read(source)


@pytest.mark.parametrize("source", [{"text": "a fine film", "label": 1}, {"text": "good", "label": "poor"}, ("a", "b")])
def test_single_values_in_place_of_columns_are_refused(source: Any) -> None:
    with pytest.raises(DataError, match="text"):
        read(source)


CONTENTS = {
    "empty": ("a.csv", b"", "{path} is empty: expected at least one row"),
    "byte order mark only": ("a.csv", b"\xef\xbb\xbf", "{path} is empty: expected at least one row"),
    "header only": ("a.csv", b"text,label\n", "{path} is empty: expected at least one row"),
    "blank jsonl": ("a.jsonl", b"\n \n", "{path} is empty: expected at least one row"),
    "unknown suffix": ("a.xlsx", b"x", f"{{path}}: unknown kind of file '.xlsx'. Expected one of: {KINDS}"),
    "no suffix": ("data", b"x", f"{{path}}: unknown kind of file ''. Expected one of: {KINDS}"),
    "short row": (
        "a.csv",
        b'text,label\n"a\nb",c\nd\n',
        "{path}, line 4: expected 2 fields as in the header, got 1. "
        "Put fields that hold the delimiter or a quote in double quotes",
    ),
    "long row": (
        "a.tsv",
        b"text\tlabel\na\tb\tc\n",
        "{path}, line 2: expected 2 fields as in the header, got 3. "
        "Put fields that hold the delimiter or a quote in double quotes",
    ),
    "bare quote": (
        "a.csv",
        b'text,label\na,b\n"c" d,e\n',
        "{path}, line 3: ',' expected after '\"'. Quotes inside a quoted field must be doubled",
    ),
    "repeated column": (
        "a.csv",
        b"text,label,text,label\na,b,c,d\n",
        "{path} has more than one column named label, text. Rename or remove the others",
    ),
    "wrong encoding": (
        "a.csv",
        b"text,label\na,b\ncaf\xe9,c\n",
        "{path} is not utf-8 (byte 0xe9 in line 3). Save it as UTF-8, or name its encoding: --encoding cp1252",
    ),
    "wrong encoding of jsonl": (
        "a.jsonl",
        b'{"text": "caf\xe9"}\n',
        "{path} is not utf-8 (byte 0xe9 in line 1). Save it as UTF-8, or name its encoding: --encoding cp1252",
    ),
    "cut jsonl": (
        "a.jsonl",
        b'{"text": "a"}\n{"text": \n',
        "{path}, line 2: expected one JSON object a line. Expecting value: line 1 column 10 (char 9)",
    ),
    "jsonl of lists": (
        "a.jsonl",
        b'{"text": "a"}\n\n["a", "b"]\n',
        "{path}, line 3: expected a JSON object, found list",
    ),
    "repeated key": (
        "a.ndjson",
        b'{"text": "a", "text": "b"}\n',
        "{path}, line 1: expected one JSON object a line. A key stands twice in it",
    ),
}


@pytest.mark.parametrize(("name", "content", "message"), CONTENTS.values(), ids=CONTENTS)
def test_unusable_files_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = _file(tmp_path, name, content)
    with pytest.raises(DataError, match=f"^{re.escape(message.format(path=path))}$"):
        read(path)


def test_a_quote_never_closed_is_named_by_the_line_it_opens_in(tmp_path: Path) -> None:
    path = _file(tmp_path, "a.csv", 'text,label\na,b\n"c,d\n' + "e,f\n" * 50)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}, line 3: "):
        read(path)


def test_unknown_encoding_is_refused(tmp_path: Path) -> None:
    message = "unknown encoding 'utf-99'. Expected a name Python knows, such as utf-8 or cp1252"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read(_file(tmp_path, "a.csv", "text,label\na,b"), "utf-99")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=f"^{re.escape(f'no such file: {tmp_path}/no.csv')}$"):
        read(tmp_path / "no.csv")


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    message = f"{tmp_path} is a folder. Expected a file, or for --data a folder that holds train.csv"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read(tmp_path)


def test_text_named_parquet_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, "a.parquet", "text,label\na,b\n" * 9)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))} is not a Parquet file: "):
        read(path)


def test_parquet_damaged_inside_is_refused(tmp_path: Path) -> None:
    path = _parquet(tmp_path, table=pa.table({"text": [f"row number {i}" for i in range(99)]}))
    content = path.read_bytes()
    path.write_bytes(content[:10] + bytes(100) + content[110:])
    with pytest.raises(DataError, match=re.escape(str(path))):
        read(path)


def test_parquet_with_a_repeated_column_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    path = _parquet(tmp_path, table=table)
    message = f"{path} has more than one column named text. Rename or remove the others"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read(path)


def test_empty_parquet_is_refused(tmp_path: Path) -> None:
    path = _parquet(tmp_path, table=pa.table({"text": pa.array([], pa.string())}))
    with pytest.raises(DataError, match=f"^{re.escape(f'{path} is empty: expected at least one row')}$"):
        read(path)


def test_a_folder_gives_the_splits_it_has(tmp_path: Path) -> None:
    _delimited(tmp_path, "train.csv", ",")
    _json_lines(tmp_path, "test.jsonl")
    _file(tmp_path, "notes.csv", "not,read\n")
    for source in (tmp_path, str(tmp_path)):
        splits = read_splits(source)
        assert list(splits) == ["train", "test"]
        assert all(list(zip(rows["text"], rows["label"], strict=True)) == ROWS for rows in splits.values())


def test_a_folder_without_a_train_file_is_refused(tmp_path: Path) -> None:
    _json_lines(tmp_path, "test.jsonl")
    files = "train.csv, train.tsv, train.jsonl, train.ndjson, train.json, train.conll, train.parquet"
    message = f"{tmp_path} has no train file. Expected one of: {files}"
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        read_splits(tmp_path)


def test_a_folder_with_two_files_for_a_split_is_refused(tmp_path: Path) -> None:
    _delimited(tmp_path, "train.csv", ",")
    _parquet(tmp_path, "train.parquet")
    message = f"{tmp_path} has several files for train: train.csv, train.parquet. Name one"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_splits(tmp_path)


@pytest.fixture(scope="module")
def builder() -> str:
    """Name of a small data set that TensorFlow Datasets prepares without a network: two labels, a test set without."""
    import tensorflow_datasets as tfds

    class TfftTinyReviews(tfds.core.GeneratorBasedBuilder):
        """Six rows."""

        VERSION = tfds.core.Version("1.0.0")
        SPLITS = ("train", "test")

        def _info(self) -> Any:
            label = tfds.features.ClassLabel(names=["neg", "pos"])
            features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples([0, 1, 1, 0]), "test": self._generate_examples([-1, -1])}

        def _generate_examples(self, labels: list[int]) -> Any:
            for number, label in enumerate(labels):
                yield number, {"text": f"row {number} \u00e9", "label": label}

    return "tfft_tiny_reviews"


@pytest.fixture
def tfds_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TensorFlow Datasets keeps what it prepares here and says nothing."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path / "tfds"))
    tfds.disable_progress_bar()
    return tmp_path / "tfds"


def test_tfds_gives_its_splits_with_label_names(builder: str, tfds_folder: Path) -> None:
    splits = read_splits(f"tfds:{builder}")
    assert list(splits) == ["train", "test"]
    names = dict(zip(splits["train"]["text"], splits["train"]["label"], strict=True))
    assert names == {"row 0 \u00e9": "neg", "row 1 \u00e9": "pos", "row 2 \u00e9": "pos", "row 3 \u00e9": "neg"}
    assert splits["test"]["label"].tolist() == [None, None]  # TFDS writes -1 for "not told"
    assert (tfds_folder / builder).is_dir()


def test_unknown_tfds_name_is_refused(tfds_folder: Path) -> None:
    message = "TensorFlow Datasets has no data set 'no_such_thing': Dataset no_such_thing not found."
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        read_splits("tfds:no_such_thing")


@pytest.mark.parametrize("suffix", ["/no_such_config", ":9.9.9"])
def test_unknown_tfds_config_or_version_is_refused_in_one_line(suffix: str, builder: str, tfds_folder: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        read_splits(f"tfds:{builder}{suffix}")
    assert str(caught.value).startswith(f"TensorFlow Datasets has no data set {builder + suffix!r}: ")
    assert "\n" not in str(caught.value)


def _fake_load(monkeypatch: pytest.MonkeyPatch, load: Callable[..., Any]) -> None:
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "load", load)


def test_tfds_without_a_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, **_: Any) -> None:
        raise ConnectionError("no route to host\nat all")

    _fake_load(monkeypatch, load)
    message = (
        "TensorFlow Datasets could not prepare 'imdb_reviews': ConnectionError. Without a network, prepare it "
        "elsewhere and copy its folder to ~/tensorflow_datasets"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_splits("tfds:imdb_reviews")


def test_tfds_without_a_train_split_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow_datasets as tfds

    class Info:
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})

    _fake_load(monkeypatch, lambda name, **_: ({"test": _dataset("dicts"), "extra": _dataset("dicts")}, Info()))
    message = "tfds data set 'a/b' has no train split; it has: test, extra"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_splits("tfds:a/b")


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "Ada moved to Rome.",
                    "qas": [
                        {"id": "1", "question": "Where?", "answers": [{"text": "Rome", "answer_start": 13}]},
                        {"id": "2", "question": "Who is Bo?", "is_impossible": True, "answers": [{"text": "Ada"}]},
                    ],
                }
            ],
        }
    ],
}


def test_squads_nesting_is_read_as_rows(tmp_path: Path) -> None:
    frame = read(_file(tmp_path, "a.json", json.dumps(SQUAD)))
    assert frame["context"].tolist() == ["Ada moved to Rome."] * 2
    assert frame["question"].tolist() == ["Where?", "Who is Bo?"]
    assert frame["answers"].tolist() == [[{"text": "Rome", "answer_start": 13}], []]


def test_json_is_a_list_of_objects(tmp_path: Path) -> None:
    assert read(_file(tmp_path, "a.json", '[{"text": "a", "label": 1}]'))["label"].tolist() == [1]
    assert read(_file(tmp_path, "b.json", '{"data": [{"text": "a"}]}'))["text"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}', "expected a list of objects, or SQuAD's {data: [{paragraphs: [...]}]}"),
        ("[1]", "expected a list of objects, or SQuAD's {data: [{paragraphs: [...]}]}"),
        (
            '{"text": "a"}\n{"text": "b"}',
            "is not JSON: Extra data: line 2 column 1 (char 14). One object a line is .jsonl",
        ),
        ('{"data": [{"paragraphs": [{"qas": [{"question": "a"}]}]}]}', "SQuAD's nesting breaks off at 'context'"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read(_file(tmp_path, "a.json", content))


def test_conll_columns_are_tokens_and_tags(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- O O\n\nAda NNP I-NP B-PER\nlives VBZ I-VP O\n\n\nRome NNP I-NP B-LOC\n"
    frame = read(_file(tmp_path, "a.conll", text))
    assert frame["tokens"].tolist() == [["Ada", "lives"], ["Rome"]]
    assert frame["tags"].tolist() == [["B-PER", "O"], ["B-LOC"]]
    with pytest.raises(DataError, match=re.escape("line 1: expected a token and, in the last column, its tag")):
        read(_file(tmp_path, "b.conll", "Ada\n"))
