"""Which columns, which rows, what is held out: nothing lost, nothing invented, nothing in two splits."""

import dataclasses
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfft
from tfft import pipeline
from tfft.data import duplicates, find_columns, hold_out, load_data, load_rows
from tfft.errors import DataError, InvalidValueError, NotFoundError
from tfft.runs import Run
from tfft.tasks.text_classification import label_name, learn

TASK = dataclasses.replace(
    tfft.get_task("text-classification"), columns={"text": ("sentence", "review"), "label": ("category", "class")}
)


def _rows(labels: Mapping[str, int]) -> pd.DataFrame:
    """So many rows of each label, class after class, each with a text of its own."""
    pairs = [(f"{label} {n}", label) for label, count in labels.items() for n in range(count)]
    return pd.DataFrame(pairs, columns=["text", "label"], dtype=object)


def _texts(splits: Mapping[str, pd.DataFrame]) -> dict[str, list[str]]:
    return {name: rows["text"].tolist() for name, rows in splits.items()}


@pytest.mark.parametrize(
    ("have", "given_names", "found"),
    [
        (["text", "label"], {}, {"text": "text", "label": "label"}),
        (["label", "text", "id"], {}, {"text": "text", "label": "label"}),
        (["Review", "CLASS"], {}, {"text": "Review", "label": "CLASS"}),
        (["review", "sentence", "category"], {}, {"text": "sentence", "label": "category"}),  # the alias named first
        (["sentence", "Text", "label"], {}, {"text": "Text", "label": "label"}),  # the name itself before an alias
        (["Text", "text", "label"], {}, {"text": "Text", "label": "label"}),  # the first of two spellings
        (["a", "b"], {"text": "b", "label": "a"}, {"text": "b", "label": "a"}),
        (["text", "b", "label"], {"text": "b"}, {"text": "b", "label": "label"}),
        (["text", "label"], {"text": None, "label": None}, {"text": "text", "label": "label"}),
    ],
)
def test_columns_are_found(have: list[str], given_names: dict[str, str | None], found: dict[str, str]) -> None:
    assert find_columns(pd.DataFrame(columns=have), TASK, given_names) == found


@pytest.mark.parametrize(
    ("have", "given_names", "message"),
    [
        (["text", "label"], {"text": "Text"}, "no column 'Text'. The columns are: text, label"),
        (["text", "label"], {"label": "y"}, "no column 'y'. The columns are: text, label"),
        (
            ["a", "label"],
            {},
            "found no text column; the columns are: a, label. "
            "Name it with --columns text=NAME (is the first line of the file a header?)",
        ),
        (
            ["text", "b"],
            {},
            "found no label column; the columns are: text, b. "
            "Name it with --columns label=NAME (is the first line of the file a header?)",
        ),
        (
            ["sentence", "b"],
            {"label": "sentence"},  # one column cannot be the text and its own label
            "found no text column; the columns are: sentence, b. "
            "Name it with --columns text=NAME (is the first line of the file a header?)",
        ),
    ],
)
def test_columns_not_found_are_named(have: list[str], given_names: dict[str, str | None], message: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        find_columns(pd.DataFrame(columns=have), TASK, given_names)


def test_chosen_columns_are_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tfft"):
        find_columns(pd.DataFrame(columns=["Review", "class", "id"]), TASK, {})
    assert caplog.messages == ["columns: text = 'Review', label = 'class'"]


def test_columns_of_a_dataframe_may_be_numbers() -> None:
    frame = pd.DataFrame(_rows({"a": 10, "b": 10}).to_numpy())
    splits = load_data(frame, columns={"text": "0", "label": "1"})
    assert sum(len(rows) for rows in splits.values()) == 20


def test_only_the_tasks_columns_are_kept() -> None:
    rows = _rows({"a": 10, "b": 10}).rename(columns={"text": "review"}).assign(id=range(20))
    for split in load_data(rows).values():
        assert list(split.columns) == ["text", "label"]
        assert split.index.tolist() == list(range(len(split)))


@pytest.mark.parametrize(
    ("shares", "counts"),
    [
        ({}, (160, 20, 20)),
        ({"validation_share": 0.2, "test_share": 0.3}, (100, 40, 60)),
        ({"validation_share": 0.01, "test_share": 0.01}, (196, 2, 2)),
        ({"validation_share": 0.45, "test_share": 0.45}, (20, 90, 90)),
    ],
)
def test_held_out_shares_are_shares_of_all_rows(shares: dict[str, float], counts: tuple[int, int, int]) -> None:
    splits = load_data(_rows({"a": 100, "b": 100}), **shares)  # type: ignore[arg-type]
    assert tuple(len(splits[name]) for name in ("train", "validation", "test")) == counts


def test_every_split_keeps_the_distribution_of_labels() -> None:
    splits = load_data(_rows({"rare": 20, "often": 180}))
    for name, rare in (("train", 16), ("validation", 2), ("test", 2)):
        assert splits[name]["label"].value_counts().to_dict() == {"often": 9 * rare, "rare": rare}


def test_a_file_ordered_by_class_gives_every_class_in_every_split() -> None:
    for rows in load_data(_rows({"a": 30, "b": 30, "c": 4})).values():
        assert set(rows["label"]) == {"a", "b", "c"}


def test_rows_keep_the_order_of_the_source() -> None:
    rows = _rows({"a": 40, "b": 40})
    place = {text: i for i, text in enumerate(rows["text"])}
    for texts in _texts(load_data(rows)).values():
        assert texts == sorted(texts, key=place.__getitem__)


def test_equal_texts_are_never_in_two_splits() -> None:
    rows = pd.concat([_rows({"a": 20, "b": 20})] * 3)
    splits = _texts(load_data(rows))
    assert {name: len(texts) for name, texts in splits.items()} == {"train": 96, "validation": 12, "test": 12}
    assert not set(splits["train"]) & (set(splits["validation"]) | set(splits["test"]))
    assert not set(splits["validation"]) & set(splits["test"])


def test_one_seed_gives_one_split_and_another_a_different_one() -> None:
    rows = _rows({"a": 50, "b": 50})
    first, again, other = (_texts(load_data(rows, seed=seed)) for seed in (3, 3, 4))
    assert first == again
    assert first["validation"] != other["validation"]
    assert first["test"] != other["test"]


def test_given_validation_and_test_rows_are_taken_as_they_are() -> None:
    train, validation, test = _rows({"a": 2, "b": 1}), _rows({"a": 1}), _rows({"b": 3})
    splits = load_data(train, validation, test)
    for name, rows in (("train", train), ("validation", validation), ("test", test)):
        pd.testing.assert_frame_equal(splits[name], rows, check_dtype=False)


@pytest.mark.parametrize(
    ("shares", "counts"),
    [
        ({"validation_share": 0}, {"train": 18, "test": 2}),
        ({"test_share": 0.0}, {"train": 18, "validation": 2}),
        ({"validation_share": 0, "test_share": 0.5}, {"train": 10, "test": 10}),
        ({"validation_share": 0, "test_share": 0}, {"train": 20}),
    ],
)
def test_a_share_of_0_holds_nothing_out(shares: dict[str, float], counts: dict[str, int]) -> None:
    rows = _rows({"a": 10, "b": 10})
    splits = load_data(rows, **shares)  # type: ignore[arg-type]
    assert {name: len(split) for name, split in splits.items()} == counts
    assert sorted(text for texts in _texts(splits).values() for text in texts) == sorted(rows["text"])


def test_with_a_share_of_0_given_rows_are_still_taken() -> None:
    rows, given_rows = _rows({"a": 1, "b": 1}), _rows({"a": 2})
    splits = load_data(rows, test=given_rows, validation_share=0, test_share=0)
    assert _texts(splits) == {"train": rows["text"].tolist(), "test": given_rows["text"].tolist()}


def test_with_a_share_of_0_a_class_may_be_smaller() -> None:
    assert load_data(_rows({"a": 2, "b": 2}), validation_share=0)["test"]["label"].tolist() == ["a", "b"]
    message = (
        "label 'a' has 1 different row(s); holding out test needs at least 2. "
        "Add rows, remove the class, or give --validation and --test files"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load_data(_rows({"a": 1, "b": 2}), validation_share=0)


@pytest.mark.parametrize("name", ["validation_share", "test_share"])
@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_shares_that_are_none_are_refused(share: float, name: str) -> None:
    message = "^shares must lie between 0 and 1 and leave rows to train on. Received"
    with pytest.raises(InvalidValueError, match=message):
        load_data(_rows({"a": 10, "b": 10}), **{name: share})  # type: ignore[arg-type]


def test_validation_rows_that_never_were_are_told_in_words(tmp_path: Path) -> None:
    _rows({"a": 10, "b": 10}).to_csv(tmp_path / "T.csv", index=False)
    config = {"data": str(tmp_path / "T.csv"), "out": "x"}
    run = Run(None, None, tfft.get_task("text-classification"), {}, config)  # type: ignore[arg-type]
    assert len(pipeline.validation_rows(run)) == 2
    none = dataclasses.replace(run, config=config | {"validation_share": 0})
    message = "the run has no validation rows any more (validation_share was 0); name some with --validation"
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        pipeline.validation_rows(none)
    assert len(pipeline.validation_rows(none, tmp_path / "T.csv")) == 20


@pytest.mark.parametrize("given_split", ["validation", "test"])
def test_only_the_missing_split_is_held_out(given_split: str) -> None:
    rows = _rows({"a": 50, "b": 50})
    splits = load_data(rows, **{given_split: _rows({"a": 1, "b": 1})})  # type: ignore[arg-type]
    held_out = "test" if given_split == "validation" else "validation"
    assert {name: len(split) for name, split in splits.items()} == {"train": 90, given_split: 2, held_out: 10}
    assert list(splits) == ["train", "validation", "test"]


def test_a_folder_of_splits_is_used_and_given_rows_stand_before_its_own(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        _rows({f"{name} a": 2, f"{name} b": 2}).to_csv(tmp_path / f"{name}.csv", index=False)
    assert {name: set(rows["label"]) for name, rows in load_data(tmp_path).items()} == {
        name: {f"{name} a", f"{name} b"} for name in ("train", "validation", "test")
    }
    assert load_data(tmp_path, test=_rows({"given": 1}))["test"]["label"].tolist() == ["given"]


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_a_test_set_without_labels_is_left_out_with_a_warning(missing: Any, caplog: pytest.LogCaptureFixture) -> None:
    test = pd.DataFrame({"text": ["x", "y"], "label": pd.Series([missing] * 2, dtype=object)})
    with caplog.at_level(logging.WARNING, "tfft"):
        splits = load_data(_rows({"a": 10, "b": 10}), test=test)
    assert caplog.messages == ["the test rows have no label at all (as public test sets often do): left out"]
    assert splits["test"]["label"].tolist() == ["a", "b"]
    assert not set(splits["test"]["text"]) & {"x", "y"}


def test_given_rows_must_have_the_columns_of_the_training_rows() -> None:
    test = pd.DataFrame({"review": ["x"], "label": ["a"]})
    message = "the test rows have no column 'text'. The columns are: review, label"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load_data(_rows({"a": 5, "b": 5}), test=test)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"a": 9, "b": 2},
            "label 'b' has 2 different row(s); holding out validation and test needs at least 3. "
            "Add rows, remove the class, or give --validation and --test files",
        ),
        (
            {"a": 1, "b": 9},
            "label 'a' has 1 different row(s); holding out validation and test needs at least 3. "
            "Add rows, remove the class, or give --validation and --test files",
        ),
    ],
)
def test_a_class_too_small_to_be_held_out_is_named(labels: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load_data(_rows(labels))


def test_too_few_rows_without_classes_are_told_in_words() -> None:
    message = (
        "the data has 2 different row(s); holding out validation and test needs at least 3. "
        "Add rows, or give --validation and --test files"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        hold_out(_rows({"a": 2}), {"validation": 0.1, "test": 0.1}, inputs=["text"], by=None, seed=0)


@pytest.mark.parametrize("shares", [{"test": 0.0}, {"test": 1.0}, {"test": -0.1}, {"validation": 0.5, "test": 0.5}])
def test_shares_that_leave_nothing_are_refused(shares: dict[str, float]) -> None:
    message = f"shares must lie between 0 and 1 and leave rows to train on. Received: {shares}"
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        hold_out(_rows({"a": 9, "b": 9}), shares, inputs=["text"], by="label", seed=0)


@pytest.mark.parametrize("by", ["label", None])
@settings(deadline=None, max_examples=300)
@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=1, max_size=80),
    shares=st.sampled_from([(0.1, 0.1), (0.3, 0.3), (0.5, 0.4), (0.9, 0.05), (0.05, 0.9)]),
    seed=st.integers(0, 5),
)
def test_hold_out_loses_and_invents_nothing(
    by: str | None, rows: list[tuple[int, str]], shares: tuple[float, float], seed: int
) -> None:
    frame = pd.DataFrame([(f"text {n}", label) for n, label in rows], columns=["text", "label"], dtype=object)
    frame = frame if by else frame[["text"]]
    try:
        splits = hold_out(
            frame, dict(zip(("validation", "test"), shares, strict=True)), inputs=["text"], by=by, seed=seed
        )
    except DataError as error:
        assert "needs at least 3" in str(error)  # noqa: PT017  a class too small is refused, in words
        return
    assert list(splits) == ["train", "validation", "test"]
    before, after = (sorted(map(tuple, table.to_numpy())) for table in (frame, pd.concat(splits.values())))
    assert before == after
    texts = [set(split["text"]) for split in splits.values()]
    assert sum(map(len, texts)) == frame["text"].nunique()
    assert all(texts)
    if by:
        assert all(set(split[by]) == set(frame[by]) for split in splits.values())


def test_a_class_of_texts_that_all_stand_under_another_label_is_refused() -> None:
    frame = pd.concat([_rows({"a": 20, "b": 20}), pd.DataFrame({"text": ["a 3", "a 4"], "label": ["c", "c"]})])
    with pytest.raises(DataError, match=re.escape("label 'c' has 0 different row(s)")):
        hold_out(frame.reset_index(drop=True), {"validation": 0.1, "test": 0.1}, inputs=["text"], by="label", seed=0)


def test_duplicates_are_counted_in_and_across_splits() -> None:
    def frame(*pairs: tuple[str, str]) -> pd.DataFrame:
        return pd.DataFrame(list(pairs), columns=["text", "label"], dtype=object)

    splits = {
        "train": frame(("x", "a"), ("x", "a"), ("x", "b"), ("y", "b")),
        "validation": frame(("y", "b"), ("z", "a")),
        "test": frame(("x", "a"), ("z", "b"), ("z", "b"), ("new", "a")),
    }
    assert duplicates(splits, ["text"], "label") == {
        "train": 2,
        "test": 1,
        "train/validation": 1,
        "train/test": 1,
        "validation/test": 2,
        "conflicting": 2,
    }


def test_no_duplicates_are_an_empty_table() -> None:
    assert duplicates(load_data(_rows({"a": 10, "b": 10})), ["text"], "label") == {}


BAD = {
    "no text": ([None, "x", float("nan")], ["a", "a", "b"], "have no text (row 1, 3)", 2),
    "empty text": (["x", " \t\n", "y"], ["a", "a", "b"], "have an empty text (row 2)", 1),
    "no label": (["x", "y", "z"], ["", None, float("nan")], "have no label (row 1, 2, 3)", 3),
    "many": ([""] * 5, ["a"] * 5, "have an empty text (row 1, 2, 3, ...)", 5),
}


@pytest.mark.parametrize(("texts", "labels", "fault", "count"), BAD.values(), ids=BAD)
def test_unusable_rows_stop_and_are_named(texts: list[Any], labels: list[Any], fault: str, count: int) -> None:
    rows = pd.DataFrame({"text": texts, "label": labels}, dtype=object)
    message = f"train: {count} of {len(rows)} rows {fault}. Mend them, or leave them out with --bad-rows drop"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load_data(rows)


@pytest.mark.parametrize(("texts", "labels", "fault", "count"), BAD.values(), ids=BAD)
def test_unusable_rows_are_dropped_and_counted(
    texts: list[Any], labels: list[Any], fault: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    bad = pd.DataFrame({"text": texts, "label": labels}, dtype=object)
    good = _rows({"a": 10, "b": 10})
    with caplog.at_level(logging.WARNING, "tfft"):
        splits = load_data(pd.concat([bad, good]), bad_rows="drop")
    assert caplog.messages == [f"train: {count} of {len(bad) + 20} rows {fault}: left out"]
    kept = sorted(text for split in _texts(splits).values() for text in split)
    assert kept == sorted([*good["text"], *([text for text in texts if text in ("x", "y")] if count < 3 else [])])


def test_no_usable_row_left_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^train: no usable row is left$"):
        load_data({"text": ["", None], "label": ["a", "b"]}, bad_rows="drop")


def test_bad_rows_must_be_stop_or_drop() -> None:
    with pytest.raises(InvalidValueError, match=r"^bad_rows must be 'stop' or 'drop'. Received: 'skip'$"):
        load_data(_rows({"a": 5, "b": 5}), bad_rows="skip")


def test_load_rows_holds_nothing_out_and_takes_given_columns() -> None:
    task = tfft.get_task("text-classification")
    rows = load_rows({"a": ["x", "y"], "b": [1, 0]}, task=task, columns={"text": "a", "label": "b"})
    assert rows.to_dict("list") == {"text": ["x", "y"], "label": ["1", "0"]}
    message = "given: 1 of 2 rows have no label (row 2). Mend them, or leave them out with --bad-rows drop"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load_rows({"text": ["x", "y"], "label": ["a", ""]}, task=task)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "1"),
        (1.0, "1"),
        ("1", "1"),
        (" 1 ", "1"),
        (np.int64(1), "1"),
        (np.float32(1.0), "1"),
        (np.uint8(1), "1"),
        (np.str_("pos"), "pos"),
        (0, "0"),
        (-1, "-1"),
        (1.5, "1.5"),
        ("1.0", "1.0"),
        (True, "True"),
        (np.bool_(False), "False"),
        (b"pos", "pos"),
        ("\u4f60\u597d", "\u4f60\u597d"),
        (None, None),
        (float("nan"), None),
        (np.float64("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
        ("", None),
        (" \t", None),
    ],
)
def test_label_names(value: Any, name: str | None) -> None:
    assert label_name(value) == name


def test_bytes_are_text() -> None:
    rows = load_rows({"text": [b"caf\xc3\xa9"], "label": [b"a"]}, task=tfft.get_task("text-classification"))
    assert rows.to_dict("list") == {"text": ["caf\u00e9"], "label": ["a"]}


@pytest.mark.parametrize(
    ("labels", "names", "counts"),
    [
        (["pos", "neg", "pos"], ["neg", "pos"], [1, 2]),
        (["10", "2", "1", "2"], ["1", "2", "10"], [1, 2, 1]),
        (["b", "10", "a", "9"], ["9", "10", "a", "b"], [1, 1, 1, 1]),
        (["B", "a", "\u00e9"], ["B", "a", "\u00e9"], [1, 1, 1]),
        (["1", "-1", "0"], ["-1", "0", "1"], [1, 1, 1]),
    ],
)
def test_labels_are_learnt_in_order(labels: list[str], names: list[str], counts: list[int]) -> None:
    rows = pd.DataFrame({"text": ["x"] * len(labels), "label": labels}, dtype=object)
    assert learn(rows) == {"labels": names, "counts": counts}


def test_one_class_only_is_refused() -> None:
    message = "all 3 training rows have the label 'a'. Classification needs at least two labels"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        learn(_rows({"a": 3}))


def test_a_label_column_that_is_no_label_is_refused() -> None:
    message = (
        "150 different labels in 150 training rows: is the label column a text or a number? "
        "Name the right one with --columns label=NAME"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        learn(_rows({f"label {n}": 1 for n in range(150)}))


def test_unseen_labels_are_named_and_counted(presets: Any) -> None:
    task = tfft.get_task("text-classification")
    _, tokenizer = tfft.load_backbone(presets("bert"))
    rows = _rows({"a": 1, "x": 2, "y": 1})
    message = "labels that the training rows do not have: 'x' (2 rows), 'y' (1 rows). Known labels: 'a', 'b'"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        task.encode(rows, tokenizer, {"labels": ["a", "b"], "counts": [1, 1]})


def test_only_the_first_of_many_unseen_and_known_labels_are_listed(presets: Any) -> None:
    task = tfft.get_task("text-classification")
    _, tokenizer = tfft.load_backbone(presets("bert"))
    known = [str(n) for n in range(12)]
    rows = _rows({f"x{n}": 9 - n for n in range(7)})
    listed = ", ".join(f"'x{n}' ({9 - n} rows)" for n in range(5))
    message = (
        f"labels that the training rows do not have: {listed}. "
        f"Known labels: {', '.join(repr(name) for name in known[:10])}, ..."
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        task.encode(rows, tokenizer, {"labels": known, "counts": [1] * 12})
