"""Text classification: one label for a text. Softmax over the labels, categorical cross-entropy."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfft import metrics, tokenizing
from tfft.errors import DataError, InvalidValueError
from tfft.examples import Examples
from tfft.heads import softmax_head
from tfft.tasks.task import Facts, Scores, Task

TEXT = ("sentence", "review", "content", "comment", "message", "document", "body", "utterance", "query", "question")
LABEL = ("category", "class", "target", "intent", "sentiment", "topic", "tag", "labels", "y")


def check(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Texts as strings, labels as names; which rows have no text or no label."""
    text = pd.Series([None if pd.isna(value) else _string(value) for value in rows["text"]], dtype=object)
    faults = {
        "have no text": text.isna().to_numpy(),
        "have an empty text": np.array([value is not None and not value.strip() for value in text], bool),
    }
    rows = rows.assign(text=text)
    if "label" in rows:
        rows = rows.assign(label=pd.Series([label_name(value) for value in rows["label"]], dtype=object))
        faults["have no label"] = rows["label"].isna().to_numpy()
    return rows, faults


def label_name(value: Any) -> str | None:
    """The name of a label of any kind: 1, 1.0, "1" and numpy's 1 are all "1"; None, NaN and "" are no label."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return _string(value).strip() or None


def _string(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _rank(name: str) -> tuple[bool, int, str]:
    """Whole numbers first, by their value."""
    number = name.removeprefix("-").isdecimal()
    return not number, int(name) if number else 0, name


def learn(rows: pd.DataFrame) -> Facts:
    """The label names in order, and how many rows each has."""
    counts = rows["label"].value_counts()
    names = sorted(counts.index, key=_rank)
    if len(names) < 2:
        raise DataError(
            f"all {len(rows)} training rows have the label {names[0]!r}. Classification needs at least two labels"
        )
    if len(names) > max(100, len(rows) // 2):
        raise DataError(
            f"{len(names)} different labels in {len(rows)} training rows: is the label column a text or a number? "
            "Name the right one with --columns label=NAME"
        )
    return {"labels": names, "counts": [int(counts[name]) for name in names]}


def encode(
    rows: pd.DataFrame,
    tokenizer: Any,
    facts: Facts,
    *,
    cleaning: Sequence[str] = (),
    class_weight: str | Mapping[str, float] | None = None,
) -> Examples:
    """Texts to token ids, labels to one-hot rows.

    Raises:
        DataError: a label that the training rows do not have, named and counted.
    """
    x, padding = tokenizing.encode(tokenizer, rows["text"].tolist(), cleaning)
    y = targets(rows, facts)
    return Examples(x, y, row_weights(y, facts, class_weight), padding)


def targets(rows: pd.DataFrame, facts: Facts) -> np.ndarray:
    """One-hot rows of the column `label`, (rows, labels); zeros where there is none."""
    y = np.zeros((len(rows), len(facts["labels"])), "float32")
    if "label" in rows:
        index = {name: i for i, name in enumerate(facts["labels"])}
        unseen = rows["label"][~rows["label"].isin(index)].value_counts()
        if len(unseen):
            listed = ", ".join(f"{name!r} ({count} rows)" for name, count in unseen.head(5).items())
            raise DataError(
                f"labels that the training rows do not have: {listed}. "
                f"Known labels: {', '.join(map(repr, facts['labels'][:10]))}{', ...' if len(index) > 10 else ''}"
            )
        y[np.arange(len(rows)), rows["label"].map(index).to_numpy(int)] = 1.0
    return y


def row_weights(y: np.ndarray, facts: Facts, class_weight: str | Mapping[str, float] | None) -> np.ndarray:
    """Weights (rows,) of one-hot rows by their labels; ones where a row has none."""
    weights = label_weights(facts, class_weight)
    return np.where(y.any(axis=1), weights[y.argmax(axis=1)], np.float32(1))


def label_weights(facts: Facts, class_weight: str | Mapping[str, float] | None) -> np.ndarray:
    """Weight of a row for each label; "balanced" gives every label the same total (scikit-learn's formula)."""
    counts = np.array(facts["counts"], "float64")
    if class_weight is None:
        return np.ones(len(counts), "float32")
    if class_weight == "balanced":
        return (counts.sum() / (len(counts) * counts)).astype("float32")
    known = facts["labels"]
    unknown = set(class_weight) - set(known) if isinstance(class_weight, Mapping) else {class_weight}
    if unknown:
        raise InvalidValueError(
            f"class_weight must be 'balanced' or weights of known labels. Received: {', '.join(map(str, unknown))}"
        )
    return np.array([dict(class_weight).get(name, 1.0) for name in facts["labels"]], "float32")  # type: ignore[arg-type]


def head(backbone: keras.Model, facts: Facts, *, pooling: str, dropout: float) -> keras.Model:
    """Probabilities of the labels: (batch, labels)."""
    return keras.Model(backbone.input, softmax_head(backbone, len(facts["labels"]), pooling=pooling, dropout=dropout))


def loss(facts: Facts, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """Categorical cross-entropy on probabilities."""
    return keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)


def score(outputs: np.ndarray, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Scores:
    """Accuracy, F1 and the rest, against the rows' labels."""
    return metrics.classification(rows["label"].tolist(), outputs, facts["labels"])


def serve(outputs: Any, x: Mapping[str, Any], texts: Mapping[str, Any], facts: Facts, tokenizer: Any) -> dict[str, Any]:
    """`label`, `score` (batch,) and, side by side, `labels` and `probabilities` (batch, labels).

    The names are repeated for every row because TensorFlow Serving wants each output batch first.
    """
    names = tf.constant(facts["labels"])
    return {
        "label": tf.gather(names, tf.argmax(outputs, axis=-1)),
        "score": tf.reduce_max(outputs, axis=-1),
        "labels": tf.tile(names[tf.newaxis], [tf.shape(outputs)[0], 1]),
        "probabilities": outputs,
    }


TASK = Task(
    name="text-classification",
    columns={"text": TEXT, "label": LABEL},
    inputs=("text",),
    target="label",
    headline=("accuracy", "f1_macro"),
    stratify=True,
    check=check,
    learn=learn,
    encode=encode,
    head=head,
    loss=loss,
    metrics=("accuracy",),
    score=score,
    serve=serve,
    targets=targets,
)
