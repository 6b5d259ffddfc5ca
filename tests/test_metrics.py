"""Metrics against hand-worked numbers."""

import math

import numpy as np
import pytest

from tfft.metrics import classification

# true a a b b c; predicted a b b b a
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1], [0.2, 0.6, 0.2], [0.5, 0.25, 0.25]])
TRUTH = ["a", "a", "b", "b", "c"]


def test_by_hand() -> None:
    scores = classification(TRUTH, PROBABILITIES, ["a", "b", "c"])
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["per_class"]["a"] == pytest.approx({"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "rows": 2})
    assert scores["per_class"]["b"] == pytest.approx({"precision": 2 / 3, "recall": 1, "f1": 4 / 5, "rows": 2})
    assert scores["per_class"]["c"] == {"precision": 0, "recall": 0, "f1": 0, "rows": 1}
    assert scores["f1_macro"] == pytest.approx((1 / 2 + 4 / 5) / 3)
    assert scores["f1_weighted"] == pytest.approx((2 / 2 + 2 * 4 / 5) / 5)
    assert scores["precision_macro"] == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert scores["recall_macro"] == pytest.approx((1 / 2 + 1) / 3)
    assert scores["confusion_matrix"] == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert scores["log_loss"] == pytest.approx(-sum(map(math.log, (0.7, 0.4, 0.8, 0.6, 0.25))) / 5)
    # Gorodkin's R_K: (c s - sum p t) / sqrt((s^2 - sum p^2)(s^2 - sum t^2)) with c = 3 right of s = 5
    expected = (3 * 5 - (2 * 2 + 3 * 2)) / math.sqrt((25 - (4 + 9)) * (25 - (4 + 4 + 1)))
    assert scores["mcc"] == pytest.approx(expected)


def test_order_of_the_labels_does_not_matter() -> None:
    scores = classification(TRUTH, PROBABILITIES, ["a", "b", "c"])
    turned = classification(TRUTH, PROBABILITIES[:, [2, 0, 1]], ["c", "a", "b"])
    for name in ("accuracy", "f1_macro", "mcc", "log_loss"):
        assert turned[name] == pytest.approx(scores[name])
    assert turned["confusion_matrix"] == [[0, 1, 0], [0, 1, 1], [0, 0, 2]]


def test_a_certain_and_wrong_answer_is_finite() -> None:
    assert classification(["a"], np.array([[0.0, 1.0]]), ["a", "b"])["log_loss"] == pytest.approx(-math.log(1e-15))
