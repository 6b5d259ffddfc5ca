"""Metrics on plain values. scikit-learn computes them; this file chooses them and names them."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as sk

CLASSIFICATION = ("accuracy", "f1_macro", "mcc", "log_loss")  # what one looks at first comes first


def classification(truth: Sequence[str], probabilities: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Scores of a classifier over a whole set of rows (never a mean over batches).

    Args:
        truth: the right label of each row.
        probabilities: (rows, labels), each row sums to 1.
        labels: names of the columns.

    Returns:
        accuracy; precision, recall and F1 as macro mean (each label counts the same) and weighted mean (each row counts
        the same), over the labels that occur in `truth` or were predicted; mcc (Matthews correlation); log_loss (mean
        of -ln p of the right label, nats); per_class: label -> precision, recall, f1, rows; confusion_matrix: rows of
        counts [true label][predicted label], in the order of `labels`.

    Examples:
        >>> import numpy as np
        >>> from tfft.metrics import classification
        >>> classification(["a", "b"], np.array([[0.9, 0.1], [0.6, 0.4]]), ["a", "b"])["accuracy"]
        0.5
    """
    names, true = np.array(labels), np.array(truth)
    predicted = names[probabilities.argmax(axis=1)]
    scores: dict[str, Any] = {"accuracy": float(sk.accuracy_score(true, predicted))}
    for average in ("macro", "weighted"):
        values = sk.precision_recall_fscore_support(true, predicted, average=average, zero_division=0.0)
        scores |= {
            f"{name}_{average}": float(v) for name, v in zip(("precision", "recall", "f1"), values, strict=False)
        }
    scores["mcc"] = float(sk.matthews_corrcoef(true, predicted))
    columns = {name: i for i, name in enumerate(labels)}
    right = probabilities[np.arange(len(true)), [columns[name] for name in true]]
    scores["log_loss"] = float(-np.log(np.clip(right.astype("float64"), 1e-15, None)).mean())
    each = sk.precision_recall_fscore_support(true, predicted, labels=names, zero_division=0.0)
    scores["per_class"] = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "rows": int(n)}
        for name, p, r, f, n in zip(labels, *each, strict=True)
    }
    scores["confusion_matrix"] = sk.confusion_matrix(true, predicted, labels=names).tolist()
    return {name: scores[name] for name in (*CLASSIFICATION, *scores)}


def multi_label(
    truth: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], thresholds: Sequence[float]
) -> dict[str, Any]:
    """Scores of a classifier that gives a row any number of labels.

    Args:
        truth: (rows, labels) of 0 and 1.
        probabilities: (rows, labels).
        labels: names of the columns.
        thresholds: a label is chosen at or above its own.

    Returns:
        f1_micro (over all decisions), f1_macro (mean over labels), average_precision (mean over the labels that occur;
        needs no threshold), exact (share of rows with all labels right); precision_micro, recall_micro; per_class:
        label -> precision, recall, f1, average_precision, threshold, rows.

    Examples:
        >>> import numpy as np
        >>> from tfft.metrics import multi_label
        >>> multi_label(np.array([[1, 0], [1, 1]]), np.array([[0.9, 0.2], [0.4, 0.7]]), "ab", [0.5, 0.5])["f1_micro"]
        0.8
    """
    chosen = probabilities >= np.asarray(thresholds, probabilities.dtype)
    # Decision by decision, and label by label: of one column scikit-learn would make two classes.
    micro = sk.precision_recall_fscore_support(truth.ravel(), chosen.ravel(), average="binary", zero_division=0.0)
    columns = [
        sk.precision_recall_fscore_support(truth[:, i], chosen[:, i], average="binary", zero_division=0.0)[:3]
        for i in range(len(labels))
    ]
    each = np.array(columns).T
    occurs = truth.any(axis=0)
    average = np.zeros(len(labels))
    average[occurs] = [sk.average_precision_score(truth[:, i], probabilities[:, i]) for i in np.flatnonzero(occurs)]
    table = zip(labels, *each, average, thresholds, truth.sum(axis=0), strict=True)
    return {
        "f1_micro": float(micro[2]),
        "f1_macro": float(each[2].mean()),
        "average_precision": float(average[occurs].mean()) if occurs.any() else 0.0,
        "exact": float((truth.astype(bool) == chosen).all(axis=1).mean()),
        "precision_micro": float(micro[0]),
        "recall_micro": float(micro[1]),
        "per_class": {
            name: {
                "precision": float(p),
                "recall": float(r),
                "f1": float(f),
                "average_precision": float(a),
                "threshold": float(t),
                "rows": int(n),
            }
            for name, p, r, f, a, t, n in table
        },
    }


def best_threshold(truth: np.ndarray, probabilities: np.ndarray, default: float = 0.5) -> float:
    """The threshold at or above which choosing gives the best F1: halfway to the next lower probability.

    Args:
        truth: (rows,) of 0 and 1.
        probabilities: (rows,).
        default: where there is nothing to choose by.
    """
    if not truth.any():
        return default
    order = np.argsort(-probabilities, kind="stable")
    values, right = probabilities[order], np.cumsum(truth[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + truth.sum())
    f1[:-1][values[:-1] == values[1:]] = 0.0  # equal probabilities are chosen together
    best = int(f1.argmax())
    below = float(values[best + 1]) if best + 1 < len(values) else 0.0
    half = (float(values[best]) + below) / 2
    return half if probabilities.dtype.type(half) > below else float(values[best])  # they may be neighbours


def regression(truth: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Scores of predicted numbers.

    Args:
        truth: (rows,).
        values: (rows,).

    Returns:
        r2 (share of the variance explained); spearman and pearson correlation, 0 where one side is constant; mae (mean
        absolute error) and rmse (root of the mean squared error), both in the unit of the values.

    Examples:
        >>> import numpy as np
        >>> from tfft.metrics import regression
        >>> regression(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))["mae"]
        0.3333333333333333
    """
    constant = len(truth) < 2 or np.ptp(truth) == 0 or np.ptp(values) == 0
    return {
        "r2": float(sk.r2_score(truth, values)) if len(truth) > 1 else 0.0,
        "spearman": 0.0 if constant else _correlation(*(pd.Series(side).rank().to_numpy() for side in (truth, values))),
        "pearson": 0.0 if constant else _correlation(truth, values),
        "mae": float(sk.mean_absolute_error(truth, values)),
        "rmse": float(sk.root_mean_squared_error(truth, values)),
    }


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def answers(truth: Sequence[Sequence[str]], predicted: Sequence[str]) -> dict[str, Any]:
    """SQuAD's exact match and F1 (Rajpurkar 2016, 2018): words shared with the best of the right answers.

    Both sides are lower-cased, rid of punctuation and of a, an, the. No right answer, or one of no words, means: there
    is none; it is matched by "" alone.

    Args:
        truth: the right answers of each row, any of which will do; none where the question has no answer.
        predicted: one answer a row, "" for none.

    Returns:
        f1 and exact, means over rows; where there are both kinds, f1_answerable and f1_unanswerable, too.

    Examples:
        >>> from tfft.metrics import answers
        >>> answers([["the Normans", "Normans"]], ["The Normans!"])["exact"]
        1.0
    """
    f1 = np.array(
        [max((_overlap(t, p) for t in right or [""]), default=0.0) for right, p in zip(truth, predicted, strict=True)]
    )
    exact = [
        max(float(_words(t) == _words(p)) for t in right or [""]) for right, p in zip(truth, predicted, strict=True)
    ]
    scores = {"f1": float(f1.mean()), "exact": float(np.mean(exact))}
    has = np.array([bool(right) for right in truth])
    if not has.all() and has.any():
        scores |= {"f1_answerable": float(f1[has].mean()), "f1_unanswerable": float(f1[~has].mean())}
    return scores


_MARKS = str.maketrans("", "", string.punctuation)


def _words(text: str) -> list[str]:
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_MARKS)).split()


def _overlap(truth: str, predicted: str) -> float:
    right, found = _words(truth), _words(predicted)
    if not right or not found:
        return float(right == found)
    shared = sum((Counter(right) & Counter(found)).values())
    return 2 * shared / (len(right) + len(found))


Entity = tuple[str, int, int]  # label, first unit, unit after the last


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a row of tags in IOB1, IOB2 or IOBES, read as conlleval and seqeval read them.

    One begins with B- or S-, or where I- or E- follows nothing of its label; it ends before the next, before O, and
    after E- or S-.

    Examples:
        >>> from tfft.metrics import entities
        >>> entities(["O", "B-place", "I-place", "I-name"])
        [('place', 1, 3), ('name', 3, 4)]
    """
    found: list[Entity] = []
    open_label, begin = None, 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, label = tag.partition("-")
        goes_on = open_label is not None and prefix in ("I", "E") and label == open_label
        if open_label is not None and not goes_on:
            found.append((open_label, begin, place))
            open_label = None
        if tag != "O" and not goes_on:
            open_label, begin = label, place
        if prefix in ("E", "S") and open_label is not None:
            found.append((open_label, begin, place + 1))
            open_label = None
    return found


def tagging(truth: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> dict[str, Any]:
    """Scores of entities: one is right if its label, its beginning and its end are. As seqeval's micro average.

    Args:
        truth: the entities of each row.
        predicted: likewise.

    Returns:
        f1, precision, recall over all entities; f1_macro, the mean over the labels that occur in `truth`; per_class:
        label -> precision, recall, f1, entities.

    Examples:
        >>> from tfft.metrics import tagging
        >>> tagging([[("place", 1, 3)]], [[("place", 1, 2)]])["f1"]
        0.0
    """
    right, said, hit = Counter[str](), Counter[str](), Counter[str]()
    for true, found in zip(truth, predicted, strict=True):
        right.update(label for label, _, _ in true)
        said.update(label for label, _, _ in found)
        hit.update(label for label, _, _ in set(true) & set(found))
    total = _f1(hit.total(), said.total(), right.total())
    labels = sorted({*right, *said})
    each = {label: _f1(hit[label], said[label], right[label]) | {"entities": right[label]} for label in labels}
    of_truth = [each[label]["f1"] for label in labels if right[label]]
    macro = float(np.mean(of_truth)) if of_truth else 0.0
    return {**{name: total[name] for name in ("f1", "precision", "recall")}, "f1_macro": macro, "per_class": each}


def _f1(hit: int, said: int, right: int) -> dict[str, Any]:
    precision, recall = hit / said if said else 0.0, hit / right if right else 0.0
    return {"precision": precision, "recall": recall, "f1": 2 * hit / (said + right) if said + right else 0.0}
