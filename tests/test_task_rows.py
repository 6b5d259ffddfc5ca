"""What each task takes for a row: every known way of writing one is read alike, and what is unusable is named."""

import json
import logging
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tfft
from tfft.data import load_rows
from tfft.errors import DataError

Row = dict[str, Any]

NO_ANSWERS = "have no answers (an empty list says: there is none)"
ELSEWHERE = "have an answer that stands elsewhere in the context than answer_start says"
SEVERAL = "have an answer without answer_start that stands in the context more than once"
NO_LABELS = "have no list of labels (an empty list says: none fits)"
NO_NUMBER = "have a value that is no finite number"
SCHEME = "have a tag of an unknown scheme (known: O, and B-, I-, E-, S- before a label)"
NO_SPANS = "have no list of spans ({start, end, label})"
PAST = "have a span past the end of the text, or an empty one"

TARGETS = "mood=text-classification,stars=text-regression*0.5,kinds=multi-label-classification"
GOOD: dict[str, Row] = {
    "text-pair-classification": {"first": "the movie", "second": "a film", "label": "same"},
    "multi-label-classification": {"text": "the movie", "labels": ["a"]},
    "text-regression": {"text": "the movie", "value": 1.5},
    "token-classification": {"tokens": ["in", "Paris"], "tags": ["O", "B-place"]},
    "question-answering": {
        "context": "good good bad",
        "question": "how",
        "answers": {"text": ["bad"], "answer_start": [10]},
    },
    "text-similarity": {"first": "the movie", "second": "a film", "value": 4},
    "few-shot": {"text": "the movie", "label": "good"},
    "masked-lm": {"text": "the movie"},
    TARGETS: {"text": "the movie", "mood": "good", "stars": "4", "kinds": "a|b"},
}
SPANS: Row = {"text": "in New York, now", "spans": [{"start": 3, "end": 11, "label": "place"}]}


def answers_of(*answers: Any) -> Row:
    return GOOD["question-answering"] | {"answers": list(answers)}


def spans_of(*spans: tuple[Any, Any, Any]) -> Row:
    return SPANS | {"spans": [dict(zip(("start", "end", "label"), span, strict=True)) for span in spans]}


BAD: list[tuple[str, Row, str]] = [
    ("text-pair-classification", {"second": ""}, "have an empty second text"),
    ("text-pair-classification", {"first": " \t"}, "have an empty first text"),
    ("text-pair-classification", {"first": None}, "have no first text"),
    ("text-pair-classification", {"second": float("nan")}, "have no second text"),
    ("text-pair-classification", {"label": None}, "have no label"),
    ("multi-label-classification", {"labels": 5}, NO_LABELS),
    ("multi-label-classification", {"labels": None}, NO_LABELS),
    ("multi-label-classification", {"labels": float("nan")}, NO_LABELS),
    ("multi-label-classification", {"labels": "[broken"}, NO_LABELS),
    ("multi-label-classification", {"labels": {"a": 1}}, NO_LABELS),
    ("multi-label-classification", {"text": ""}, "have an empty text"),
    ("text-regression", {"value": float("nan")}, "have no value"),
    ("text-regression", {"value": None}, "have no value"),
    ("text-regression", {"value": " "}, "have no value"),
    ("text-regression", {"value": "much"}, NO_NUMBER),
    ("text-regression", {"value": float("inf")}, NO_NUMBER),
    ("text-regression", {"value": [1.0]}, NO_NUMBER),
    ("text-regression", {"value": np.array([1.0, 2.0])}, NO_NUMBER),
    ("text-regression", {"text": None}, "have no text"),
    ("token-classification", {"tags": ["O"]}, "have tags and tokens of different number"),
    ("token-classification", {"tags": []}, "have tags and tokens of different number"),
    ("token-classification", {"tokens": []}, "have no list of tokens"),
    ("token-classification", {"tokens": "in Paris"}, "have no list of tokens"),
    ("token-classification", {"tokens": None}, "have no list of tokens"),
    ("token-classification", {"tags": None}, "have no list of tags"),
    ("token-classification", {"tags": "O B-place"}, "have no list of tags"),
    *(
        (
            "token-classification",
            {"tags": ["O", tag]},
            SCHEME,
        )
        for tag in ("place", "B-", "L-place", "Bplace", "", "o", 1, None)
    ),
    ("question-answering", {"context": ""}, "have an empty context"),
    ("question-answering", {"context": None}, "have no context"),
    ("question-answering", {"question": " "}, "have an empty question"),
    ("question-answering", answers_of("worst"), "have an answer that is not in the context"),
    ("question-answering", answers_of({"text": "", "answer_start": 0}), "have an answer that is not in the context"),
    (
        "question-answering",
        answers_of({"text": "bad", "answer_start": 9}),
        ELSEWHERE,
    ),
    (
        "question-answering",
        answers_of({"text": "bad", "answer_start": 99}),
        ELSEWHERE,
    ),
    (
        "question-answering",
        answers_of({"text": "bad", "answer_start": -3}),  # what Python would take for the place from the end
        ELSEWHERE,
    ),
    (
        "question-answering",
        {"answers": {"text": ["bad", "good"], "answer_start": [10, 6]}, "context": "good, good bad"},
        ELSEWHERE,
    ),
    ("question-answering", answers_of("good"), SEVERAL),
    ("question-answering", answers_of(5), NO_ANSWERS),
    ("question-answering", answers_of({"text": "bad", "answer_start": "x"}), NO_ANSWERS),
    ("question-answering", answers_of({"text": "bad", "answer_start": [10]}), NO_ANSWERS),
    ("question-answering", {"answers": {"text": 5, "answer_start": 5}}, NO_ANSWERS),
    ("question-answering", {"answers": {"text": ["bad"], "answer_start": 10}}, NO_ANSWERS),
    ("question-answering", {"answers": None}, NO_ANSWERS),
    ("question-answering", {"answers": float("nan")}, NO_ANSWERS),
    ("question-answering", {"answers": '{"text": ['}, NO_ANSWERS),
    (
        "question-answering",
        {"answers": {"text": ["bad"], "answer_start": []}},
        NO_ANSWERS,
    ),
]
BAD += [
    ("text-similarity", {"second": " "}, "have an empty second text"),
    ("text-similarity", {"first": ""}, "have an empty first text"),
    ("text-similarity", {"first": float("nan")}, "have no first text"),
    ("text-similarity", {"second": None}, "have no second text"),
    *(("text-similarity", {"value": value}, "have no value") for value in (float("nan"), None, "")),
    *(("text-similarity", {"value": value}, NO_NUMBER) for value in ("much", float("-inf"), [1.0])),
    ("few-shot", {"text": "\n"}, "have an empty text"),
    ("few-shot", {"text": None}, "have no text"),
    *(("few-shot", {"label": label}, "have no label") for label in (None, float("nan"), " ")),
    *(("masked-lm", {"text": text}, "have an empty text") for text in ("", " \t")),
    *(("masked-lm", {"text": text}, "have no text") for text in (None, float("nan"))),
    (TARGETS, {"text": " "}, "have an empty text"),
    (TARGETS, {"text": float("nan")}, "have no text"),
    (TARGETS, {"mood": None}, "have no label (mood)"),
    (TARGETS, {"stars": float("nan")}, "have no value (stars)"),
    (TARGETS, {"stars": "four"}, f"{NO_NUMBER} (stars)"),
    (TARGETS, {"kinds": None}, f"{NO_LABELS} (kinds)"),
    (TARGETS, {"kinds": 5}, f"{NO_LABELS} (kinds)"),
]
BAD_SPANS: list[tuple[Row, str]] = [
    (spans_of((3, 9, "place")), "have a span that begins or ends inside a word"),
    (spans_of((4, 11, "place")), "have a span that begins or ends inside a word"),
    (spans_of((2, 11, "place")), "have a span that begins or ends inside a word"),  # at the space
    (spans_of((3, 6, "place"), (3, 11, "place")), "have spans that overlap"),
    (spans_of((7, 11, "place"), (3, 11, "name")), "have spans that overlap"),
    (spans_of((13, 17, "time")), PAST),
    (spans_of((-3, 16, "time")), PAST),
    (spans_of((3, 3, "place")), PAST),
    (spans_of((11, 3, "place")), PAST),
    (spans_of((3, "x", "place")), NO_SPANS),
    (spans_of((3, 11, "")), NO_SPANS),
    (SPANS | {"spans": [{"start": 3, "end": 11}]}, NO_SPANS),
    (SPANS | {"spans": "place"}, NO_SPANS),
    (SPANS | {"spans": None}, NO_SPANS),
    ({"text": "", "spans": []}, "have an empty text"),
    ({"text": None, "spans": []}, "have no text"),
]
CASES = [(task, GOOD[task], GOOD[task] | row, fault) for task, row, fault in BAD]
CASES += [("token-classification", SPANS, row, fault) for row, fault in BAD_SPANS]
IDS = [f"{task.partition('=')[0]}-{number}" for number, (task, *_) in enumerate(CASES)]


def numbered(row: Row, times: int) -> list[Row]:
    """Copies of a row that differ in a text behind all places, for none to be equal."""
    name = next(name for name in ("first", "text", "context", "tokens") if name in row)
    more = [[f"n{i}"] if name == "tokens" else f" n{i}" for i in range(times)]
    tags = {"tags": [*row["tags"], "O"]} if name == "tokens" else {}
    return [row | {name: row[name] + one} | tags for one in more]


@pytest.mark.parametrize("task", [*GOOD, "spans"])
def test_good_rows_are_all_kept(task: str) -> None:
    row = SPANS if task == "spans" else GOOD[task]
    splits = tfft.load_data(numbered(row, 10), task="token-classification" if task == "spans" else task)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 8, "validation": 1, "test": 1}


@pytest.mark.parametrize(("task", "good", "bad", "fault"), CASES, ids=IDS)
def test_bad_rows_stop_and_are_named(task: str, good: Row, bad: Row, fault: str) -> None:
    rows = [*numbered(good, 5), bad, *numbered(good, 5)[1:], bad]
    message = f"train: 2 of 11 rows {fault} (row 6, 11). Mend them, or leave them out with --bad-rows drop"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        tfft.load_data(pd.DataFrame(rows), task=task)


@pytest.mark.parametrize(("task", "good", "bad", "fault"), CASES, ids=IDS)
def test_bad_rows_are_counted_and_dropped(
    task: str, good: Row, bad: Row, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [bad, *numbered(good, 5), bad, *numbered(good, 10)[5:]]
    with caplog.at_level(logging.WARNING, "tfft"):
        splits = tfft.load_data(pd.DataFrame(rows), task=task, bad_rows="drop")
    assert f"train: 2 of 12 rows {fault} (row 1, 7): left out" in caplog.messages
    kept = pd.concat(splits.values())
    expected = load_rows(pd.DataFrame(numbered(good, 10)), task=tfft.get_task(task))
    by = "first" if "first" in kept else "context" if "context" in kept else "text"
    pd.testing.assert_frame_equal(*(side.sort_values(by, ignore_index=True) for side in (kept, expected)))


@pytest.mark.parametrize(("task", "good", "bad", "fault"), CASES, ids=IDS)
def test_one_bad_row_has_one_fault(task: str, good: Row, bad: Row, fault: str) -> None:
    _, faults = tfft.get_task(task).check(pd.DataFrame([good, bad]).astype(object))
    found = [name for name, where in faults.items() if where.any()]
    if task == "question-answering" and "context" in fault and "answer" not in fault:
        assert fault in found  # its answers stand nowhere, either
    else:
        assert found == [fault]


def checked(task: str, row: Row) -> dict[str, Any]:
    """The one row as the task has it."""
    return load_rows([row], task=tfft.get_task(task)).to_dict("records")[0]


PLACED = [{"text": "bad", "answer_start": 10}, {"text": "good bad", "answer_start": 5}]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PLACED, [(10, "bad"), (5, "good bad")]),
        (PLACED[0], [(10, "bad")]),
        ({"text": ["bad", "good bad"], "answer_start": [10, 5]}, [(10, "bad"), (5, "good bad")]),
        ({"text": np.array(["bad", "bad"], object), "answer_start": np.array([10, 10])}, [(10, "bad")] * 2),
        (np.array(PLACED, object), [(10, "bad"), (5, "good bad")]),
        (json.dumps(PLACED), [(10, "bad"), (5, "good bad")]),
        (json.dumps({"text": ["bad", "good bad"], "answer_start": [10, 5]}), [(10, "bad"), (5, "good bad")]),
        ("bad", [(10, "bad")]),
        ("good bad", [(5, "good bad")]),
        (["bad", "good bad"], [(10, "bad"), (5, "good bad")]),
        ([{"text": "bad"}], [(10, "bad")]),
        ([{"text": "good", "answer_start": 5}], [(5, "good")]),
        ([{"text": "good", "answer_start": 0}], [(0, "good")]),
        ([], []),
        ("", []),
        ("[]", []),
        ({"text": [], "answer_start": []}, []),
        ([(10, "bad")], [(10, "bad")]),
    ],
)
def test_answers_are_read_alike(given: Any, expected: list[tuple[int, str]]) -> None:
    assert checked("question-answering", GOOD["question-answering"] | {"answers": given})["answers"] == expected


def test_places_of_answers_are_characters() -> None:
    context = "caf\u00e9 \U0001f600 \u5305\u88f9 good"
    row = {"context": context, "question": "x", "answers": [{"text": "good", "answer_start": context.index("good")}]}
    assert checked("question-answering", row)["answers"] == [(10, "good")]


TOKENS = ["in", "New", "York", "City", "Paris", "Lyon", "now"]
IOB2 = ["O", "B-place", "I-place", "I-place", "B-place", "B-name", "O"]


@pytest.mark.parametrize(
    "tags",
    [
        "O B-place I-place I-place B-place B-name O",
        "O I-place I-place I-place B-place I-name O",  # IOB1
        "O B-place I-place E-place S-place S-name O",  # IOBES
    ],
)
def test_tags_of_every_scheme_are_read_alike(tags: str) -> None:
    row = checked("token-classification", {"tokens": TOKENS, "tags": tags.split()})
    assert row["tags"] == IOB2
    assert row["text"] == "in New York City Paris Lyon now"
    assert [row["text"][start:end] for start, end in row["words"]] == TOKENS


@pytest.mark.parametrize("turned", [json.dumps, tuple, np.array])
def test_lists_of_tokens_may_be_json_or_arrays(turned: Any) -> None:
    plain = checked("token-classification", {"tokens": TOKENS, "tags": IOB2})
    assert checked("token-classification", {"tokens": turned(TOKENS), "tags": turned(IOB2)}) == plain


SPANNED = [
    {"start": 17, "end": 22, "label": "place"},  # their order does not matter
    {"start": 3, "end": 16, "label": "place"},
    {"start": 23, "end": 27, "label": "name"},
]


@pytest.mark.parametrize(
    "spans", [SPANNED, json.dumps(SPANNED), np.array(SPANNED, object)], ids=["list", "json", "array"]
)
def test_spans_are_read_as_tokens_are(spans: Any) -> None:
    row = checked("token-classification", {"text": " ".join(TOKENS), "spans": spans})
    assert row == checked("token-classification", {"tokens": TOKENS, "tags": IOB2})


def test_words_of_spans_have_no_marks_at_their_ends() -> None:
    text = "caf\u00e9 \U0001f600 (Lyon), \u5305\u88f9"
    spans = [{"start": text.index("Lyon"), "end": text.index(")"), "label": "place"}]
    row = checked("token-classification", {"text": text, "spans": spans})
    assert [text[start:end] for start, end in row["words"]] == [
        "caf\u00e9",
        "\U0001f600",
        "(",
        "Lyon",
        ")",
        ",",
        "\u5305",
        "\u88f9",
    ]
    assert row["tags"] == ["O", "O", "O", "B-place", "O", "O", "O", "O"]


def test_a_text_without_spans_has_no_entities() -> None:
    assert checked("token-classification", SPANS | {"spans": []})["tags"] == ["O"] * 5


@pytest.mark.parametrize("task", [*GOOD, "spans"])
def test_checked_rows_are_checked_again_to_the_same(task: str) -> None:
    rows = numbered(SPANS if task == "spans" else GOOD[task], 3)
    chosen = tfft.get_task("token-classification" if task == "spans" else task)
    once, _ = chosen.check(pd.DataFrame(rows).astype(object))
    twice, faults = chosen.check(once)
    pd.testing.assert_frame_equal(once, twice)
    assert not any(where.any() for where in faults.values())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["b", "a"], ["a", "b"]),
        (("b", "a", "b"), ["a", "b"]),
        (np.array(["b", "a"]), ["a", "b"]),
        ('["b", "a"]', ["a", "b"]),
        ("b|a", ["a", "b"]),
        ("b; a", ["a", "b"]),
        ("b, a", ["a", "b"]),
        ("b, c|a", ["a", "b, c"]),
        ("a", ["a"]),
        (["b, c"], ["b, c"]),
        ("a||", ["a"]),
        ([2, 10.0, "2"], ["10", "2"]),
        ([None, "a", ""], ["a"]),
        ([], []),
        ("", []),
        ("[]", []),
    ],
)
def test_lists_of_labels_are_read_alike(given: Any, expected: list[str]) -> None:
    assert checked("multi-label-classification", {"text": "x", "labels": given})["labels"] == expected


@pytest.mark.parametrize(
    ("given", "expected"), [(3, 3.0), ("3.5", 3.5), (" -1e3 ", -1000.0), (np.float32(0.5), 0.5), (True, 1.0)]
)
def test_values_are_numbers(given: Any, expected: float) -> None:
    assert checked("text-regression", {"text": "x", "value": given})["value"] == expected
    pair = {"first": "x", "second": b"y", "value": given}
    assert checked("text-similarity", pair) == {"first": "x", "second": "y", "value": expected}
    several = {"text": "x", "mood": 1.0, "stars": given, "kinds": "b|a"}
    assert checked(TARGETS, several)["targets"] == ("1", expected, ["a", "b"])


@pytest.mark.parametrize("name", ["similarity", "relatedness", "score", "label"])
def test_pairs_of_known_columns_are_found(name: str) -> None:
    rows = load_rows([{"sentence2": "b", "sentence1": "a", name: 2}], task=tfft.get_task("text-similarity"))
    assert rows.to_dict("records") == [{"first": "a", "second": "b", "value": 2.0}]


def test_what_is_hidden_in_is_the_text() -> None:
    assert checked("masked-lm", {"review": "the movie", "label": "x"}) == {"text": "the movie", "whole": "the movie"}


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        (
            "text-similarity",
            [GOOD["text-similarity"]] * 3,
            "all 3 training rows have the value 4. Expected values that",
        ),
        ("masked-lm", [GOOD["masked-lm"]], "expected at least 2 training rows. Received: 1"),
        ("few-shot", [GOOD["few-shot"]] * 3, "all 3 training rows have the label 'good'. Classification needs at"),
        (TARGETS, [GOOD[TARGETS]] * 3, "all 3 training rows have the label 'good'. Classification needs at"),
    ],
    ids=["similarity", "masked-lm", "few-shot", "several"],
)
def test_rows_that_teach_nothing_are_refused(task: str, rows: list[Row], message: str) -> None:
    chosen = tfft.get_task(task)
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        chosen.learn(load_rows(rows, task=chosen))


def test_similarity_is_learnt_as_the_way_from_least_to_largest(presets: Any) -> None:
    task = tfft.get_task("text-similarity")
    rows = load_rows([GOOD["text-similarity"] | {"value": value} for value in (1, 5, 2)], task=task)
    facts = task.learn(rows)
    assert facts == {"mean": 1.0, "scale": 4.0}
    examples = task.encode(rows, tfft.load_backbone(presets("bert"))[1], facts)
    assert examples.y.tolist() == [[0.0], [1.0], [0.25]]
    assert examples.x["second_token_ids"].to_list() != examples.x["token_ids"].to_list()


@pytest.mark.parametrize("label", [1, 1.0, "1", " 1 "])
def test_labels_of_pairs_are_names(label: Any) -> None:
    row = checked("text-pair-classification", {"first": "x", "second": b"y", "label": label})
    assert row == {"first": "x", "second": "y", "label": "1"}


def test_tokens_without_tags_are_refused() -> None:
    with pytest.raises(DataError, match="^expected the columns tokens and tags, or text and spans"):
        tfft.load_data([{"tokens": ["a"]}] * 10, task="token-classification")


def test_texts_alone_are_nothing_to_learn_from() -> None:
    with pytest.raises(DataError, match="^found no tags: token-classification learns from"):
        tfft.load_data([{"text": f"a {n}"} for n in range(10)], task="token-classification")
