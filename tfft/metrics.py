"""Metrics on plain values. scikit-learn computes them; this file chooses them and names them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sk


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

    Example:
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
    return scores
