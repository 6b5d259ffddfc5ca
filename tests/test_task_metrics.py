"""Metrics of the tasks beside classification: by hand, against seqeval, and against all other thresholds."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import seqeval.metrics
from hypothesis import example, given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from tfft import metrics

LABELS = ("PER", "LOC", "x-y")
SCHEMES = {"IOB1": "BI", "IOB2": "BI", "IOBES": "BIES", "any": "BIES"}


@pytest.mark.parametrize(
    ("right", "predicted", "f1", "exact"),
    [
        (["the Normans"], "The Normans!", 1.0, 1.0),
        (["U.S.A."], "usa", 1.0, 1.0),
        (["a  well-known man"], "An wellknown man", 1.0, 1.0),
        (["theatre"], "a theatre", 1.0, 1.0),  # an article is a word, not the beginning of one
        (["theatre"], "atre", 0.0, 0.0),
        (["in the 10th and 11th centuries"], "10th and 11th centuries", 2 * 4 / (5 + 4), 0.0),
        (["Paris"], "the city of Paris", 2 * 1 / (1 + 3), 0.0),
        (["Paris", "city of Paris"], "the city of Paris", 1.0, 1.0),  # the best of the right answers
        (["France", "north of France"], "the north", 2 * 1 / (3 + 1), 0.0),
        (["very very good"], "very good good", 2 * 2 / (3 + 3), 0.0),  # a word is shared as often as both have it
        (["good"], "bad", 0.0, 0.0),
        (["good"], "", 0.0, 0.0),
        (["caf\u00e9"], "CAF\u00c9", 1.0, 1.0),
        ([], "", 1.0, 1.0),
        ([], "good", 0.0, 0.0),
        (["..."], "", 1.0, 1.0),  # a right answer of no words
        (["..."], "good", 0.0, 0.0),
    ],
)
def test_answers_by_hand(right: list[str], predicted: str, f1: float, exact: float) -> None:
    assert metrics.answers([right], [predicted]) == pytest.approx({"f1": f1, "exact": exact})


def test_answers_are_means_over_rows_of_both_kinds() -> None:
    truth = [["Paris"], ["the city of Paris"], [], []]
    scores = metrics.answers(truth, ["Paris", "Paris", "", "Paris"])
    f1 = 2 * 1 / (3 + 1)
    assert scores == pytest.approx(
        {"f1": (1 + f1 + 1 + 0) / 4, "exact": 2 / 4, "f1_answerable": (1 + f1) / 2, "f1_unanswerable": 1 / 2}
    )


@pytest.mark.parametrize("truth", [[["a b"], ["c"]], [[], []]])
def test_answers_of_one_kind_have_no_scores_by_kind(truth: list[list[str]]) -> None:
    assert set(metrics.answers(truth, ["b", ""])) == {"f1", "exact"}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-LOC I-LOC O B-LOC", [("LOC", 0, 2), ("LOC", 3, 4)]),
        ("I-LOC I-LOC B-LOC I-PER", [("LOC", 0, 2), ("LOC", 2, 3), ("PER", 3, 4)]),  # IOB1: B- parts neighbours
        ("S-LOC B-LOC I-LOC E-LOC S-PER", [("LOC", 0, 1), ("LOC", 1, 4), ("PER", 4, 5)]),
        ("B-LOC E-LOC E-LOC", [("LOC", 0, 2), ("LOC", 2, 3)]),
        ("B-x-y I-x-y I-x", [("x-y", 0, 2), ("x", 2, 3)]),
        ("O O", []),
        ("", []),
    ],
)
def test_entities_by_hand(tags: str, expected: list[metrics.Entity]) -> None:
    assert metrics.entities(tags.split()) == expected


@st.composite
def entity_rows(draw: Any) -> tuple[int, list[metrics.Entity]]:
    """How many words a row has, and entities in it that do not overlap."""
    pieces = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(LABELS)), max_size=5))
    place, found = 0, []
    for gap, size, label in pieces:
        found.append((label, place + gap, place + gap + size))
        place += gap + size
    return place + draw(st.integers(0, 2)), found


def tagged(words: int, entities: list[metrics.Entity], scheme: str) -> list[str]:
    """Entities as tags of a scheme."""
    tags = ["O"] * words
    ends: dict[int, str] = {}
    for label, begin, end in entities:
        names = ["B", *"I" * (end - begin - 1)]
        if scheme == "IOB1" and ends.get(begin) != label:
            names[0] = "I"
        if scheme == "IOBES":
            names = ["S"] if end - begin == 1 else [*names[:-1], "E"]
        tags[begin:end] = [f"{name}-{label}" for name in names]
        ends[end] = label
    return tags


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOBES"])
@settings(deadline=None)
@given(row=entity_rows())
def test_entities_of_a_scheme_are_those_it_was_written_from(scheme: str, row: tuple[int, list[metrics.Entity]]) -> None:
    assert metrics.entities(tagged(*row, scheme)) == row[1]


def loose_tags(prefixes: str) -> st.SearchStrategy[list[str]]:
    """Tags in any order, as a model may give them."""
    names = ["O", *(f"{prefix}-{label}" for prefix in prefixes for label in LABELS)]
    return st.lists(st.sampled_from(names), max_size=12)


@pytest.mark.parametrize("prefixes", ["BI", "I", "BIES"])
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_entities_are_seqevals_whatever_the_order_of_tags(prefixes: str, data: st.DataObject) -> None:
    tags = data.draw(loose_tags(prefixes))
    assert metrics.entities(tags) == [(label, begin, end + 1) for label, begin, end in get_entities(tags)]


@pytest.mark.parametrize("prefixes", ["BI", "I", "BIES"])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_tagging_is_seqevals_micro_average(prefixes: str, data: st.DataObject) -> None:
    names = st.sampled_from(["O", "O", *(f"{prefix}-{label}" for prefix in prefixes for label in LABELS)])
    both = data.draw(st.lists(st.lists(st.tuples(names, names), min_size=1, max_size=8), min_size=1, max_size=4))
    truth, predicted = ([[pair[side] for pair in row] for row in both] for side in (0, 1))
    found = metrics.tagging(*([metrics.entities(row) for row in side] for side in (truth, predicted)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says so where there is nothing to divide by
        expected = {
            "f1": seqeval.metrics.f1_score(truth, predicted),
            "precision": seqeval.metrics.precision_score(truth, predicted),
            "recall": seqeval.metrics.recall_score(truth, predicted),
        }
        report = seqeval.metrics.classification_report(truth, predicted, output_dict=True)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    for label, scores in found["per_class"].items():
        named = {"precision": "precision", "recall": "recall", "f1": "f1-score", "entities": "support"}
        assert scores == pytest.approx({name: report[label][other] for name, other in named.items()})


def test_tagging_by_hand() -> None:
    truth: list[list[metrics.Entity]] = [[("a", 0, 2), ("b", 3, 4)], [("a", 0, 1)], []]
    predicted: list[list[metrics.Entity]] = [[("a", 0, 2), ("b", 3, 5)], [("b", 0, 1)], [("c", 1, 2)]]
    scores = metrics.tagging(truth, predicted)  # one of three is found, and one of four is right
    assert scores["recall"] == pytest.approx(1 / 3)
    assert scores["precision"] == pytest.approx(1 / 4)
    assert scores["f1"] == pytest.approx(2 / 7)
    assert scores["per_class"] == {
        "a": pytest.approx({"precision": 1.0, "recall": 1 / 2, "f1": 2 / 3, "entities": 2}),
        "b": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "entities": 1},
        "c": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "entities": 0},
    }
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 0) / 2)  # the labels that occur


def test_an_entity_of_another_row_is_not_found() -> None:
    assert metrics.tagging([[("a", 0, 1)], []], [[], [("a", 0, 1)]])["f1"] == 0.0


def test_nothing_to_find_and_nothing_found_is_finite() -> None:
    scores = metrics.tagging([[], []], [[], []])
    assert scores == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "f1_macro": 0.0, "per_class": {}}


def test_multi_label_by_hand() -> None:
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
    probabilities = np.array([[0.9, 0.2, 0.1], [0.4, 0.7, 0.6], [0.6, 0.3, 0.2], [0.1, 0.3, 0.1]])
    scores = metrics.multi_label(truth, probabilities, ["a", "b", "c"], [0.5, 0.3, 0.5])
    # chosen: a | b, c | a, b | b; right are three of six, of four to find
    assert scores["precision_micro"] == pytest.approx(3 / 6)
    assert scores["recall_micro"] == pytest.approx(3 / 4)
    assert scores["f1_micro"] == pytest.approx(2 * 3 / (6 + 4))
    assert scores["exact"] == pytest.approx(1 / 4)
    # a by probability: right, wrong, right, wrong; b: right, then one right of two that are equal
    average = {"a": 1 / 2 * 1 + 1 / 2 * 2 / 3, "b": 1 / 2 * 1 + 1 / 2 * 2 / 3}
    assert scores["per_class"] == {
        "a": pytest.approx(
            {
                "precision": 1 / 2,
                "recall": 1 / 2,
                "f1": 1 / 2,
                "average_precision": average["a"],
                "threshold": 0.5,
                "rows": 2,
            }
        ),
        "b": pytest.approx(
            {
                "precision": 2 / 3,
                "recall": 1,
                "f1": 4 / 5,
                "average_precision": average["b"],
                "threshold": 0.3,
                "rows": 2,
            }
        ),
        "c": pytest.approx({"precision": 0, "recall": 0, "f1": 0, "average_precision": 0, "threshold": 0.5, "rows": 0}),
    }
    assert scores["f1_macro"] == pytest.approx((1 / 2 + 4 / 5 + 0) / 3)
    assert scores["average_precision"] == pytest.approx((average["a"] + average["b"]) / 2)  # of labels that occur


def test_a_probability_at_its_threshold_is_chosen_as_an_export_chooses_it() -> None:
    probabilities = np.array([[0.7, 0.1]], "float32")  # of which the first is a little less than 0.7
    assert metrics.multi_label(np.array([[1, 0]]), probabilities, ["a", "b"], [0.7, 0.5])["exact"] == 1.0


def test_rows_without_any_label_are_scored() -> None:
    scores = metrics.multi_label(np.zeros((2, 2)), np.array([[0.1, 0.1], [0.9, 0.1]]), ["a", "b"], [0.5, 0.5])
    assert scores["exact"] == 0.5
    assert scores["f1_micro"] == scores["average_precision"] == 0.0


def test_one_label_is_scored_as_one_of_several() -> None:
    truth, probabilities = np.array([[1.0], [0.0], [1.0], [0.0]]), np.array([[0.9], [0.6], [0.2], [0.1]])
    scores = metrics.multi_label(truth, probabilities, ["a"], [0.5])
    assert scores["precision_micro"] == scores["recall_micro"] == scores["f1_micro"] == scores["exact"] == 0.5
    assert scores["f1_macro"] == 0.5
    average = 1 / 2 * 1 + 1 / 2 * 2 / 3
    assert scores["average_precision"] == pytest.approx(average)
    assert scores["per_class"]["a"] == pytest.approx(
        {"precision": 0.5, "recall": 0.5, "f1": 0.5, "average_precision": average, "threshold": 0.5, "rows": 2}
    )


def f1_at(truth: np.ndarray, probabilities: np.ndarray, threshold: float) -> float:
    chosen = probabilities >= np.asarray(threshold, probabilities.dtype)
    return float(2 * (truth * chosen).sum() / (truth.sum() + chosen.sum()))


@settings(deadline=None, max_examples=300)
@given(
    rows=st.lists(
        st.tuples(st.booleans(), st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
        min_size=1,
        max_size=12,
    ),
    dtype=st.sampled_from(["float32", "float64"]),
)
@example(rows=[(True, 0.5 + 2**-24), (False, 0.5)], dtype="float32")  # nothing stands between them
@example(rows=[(True, 1.0), (False, 1 - 2**-24)], dtype="float32")
def test_no_threshold_is_better_than_the_best(rows: list[tuple[bool, float]], dtype: str) -> None:
    truth, probabilities = np.array([right for right, _ in rows], float), np.array([p for _, p in rows], dtype)
    best = metrics.best_threshold(truth, probabilities)
    assert 0 <= best <= 1
    if not truth.any():
        assert best == 0.5
        return
    reached = f1_at(truth, probabilities, best)
    for threshold in {0.5, *map(float, probabilities)}:
        assert reached >= f1_at(truth, probabilities, threshold) - 1e-12


def test_best_threshold_by_hand() -> None:
    truth, probabilities = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.2, 0.8])
    assert metrics.best_threshold(truth, probabilities) == pytest.approx(0.3)
    assert metrics.best_threshold(np.array([1, 1]), np.array([0.3, 0.2])) == pytest.approx(0.1)
    assert metrics.best_threshold(np.array([0, 0]), np.array([0.3, 0.2]), default=0.7) == 0.7


def test_regression_by_hand() -> None:
    scores = metrics.regression(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    assert scores == pytest.approx(
        {
            "r2": 1 - 1 / 2,
            "spearman": 1.0,
            "pearson": 3 / math.sqrt(2 * 42 / 9),
            "mae": 1 / 3,
            "rmse": math.sqrt(1 / 3),
        }
    )


def test_equal_values_share_a_rank() -> None:
    scores = metrics.regression(np.array([1.0, 1.0, 2.0]), np.array([10.0, 20.0, 90.0]))
    # ranks 1.5, 1.5, 3 and 1, 2, 3: from their means -0.5, -0.5, 1 and -1, 0, 1
    assert scores["spearman"] == pytest.approx(1.5 / math.sqrt(1.5 * 2))


def test_turned_values_are_correlated_the_other_way() -> None:
    scores = metrics.regression(np.array([1.0, 2.0, 4.0]), np.array([-1.0, -2.0, -4.0]))
    assert scores["spearman"] == scores["pearson"] == pytest.approx(-1)


@pytest.mark.parametrize(
    ("truth", "values", "expected"),
    [
        ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], {"r2": 0.0, "mae": 2 / 3, "rmse": math.sqrt(2 / 3)}),
        ([1.0, 2.0, 3.0], [3.0, 3.0, 3.0], {"r2": 1 - 5 / 2, "mae": 1.0, "rmse": math.sqrt(5 / 3)}),
        ([2.0, 2.0], [1.0, 3.0], {"r2": 0.0, "mae": 1.0, "rmse": 1.0}),
        ([2.0], [5.0], {"r2": 0.0, "mae": 3.0, "rmse": 3.0}),
    ],
)
def test_a_constant_side_has_no_correlation(
    truth: list[float], values: list[float], expected: dict[str, float]
) -> None:
    scores = metrics.regression(np.array(truth), np.array(values))
    assert scores == pytest.approx(expected | {"spearman": 0.0, "pearson": 0.0})


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 2), min_size=1, max_size=8))
def test_scores_of_any_numbers_are_numbers(rows: list[tuple[float, float]]) -> None:
    truth, values = np.array(rows).T
    scores = metrics.regression(truth, values.astype("float32"))
    assert all(math.isfinite(value) for value in scores.values())
    assert all(abs(scores[name]) <= 1 + 1e-9 for name in ("spearman", "pearson"))
