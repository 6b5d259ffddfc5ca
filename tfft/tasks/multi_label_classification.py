"""Multi-label classification: any number of labels for a text. A sigmoid for each, binary cross-entropy."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfft import metrics, tokenizing
from tfft.errors import DataError
from tfft.examples import Examples
from tfft.heads import dense_head
from tfft.tasks import text_classification as single
from tfft.tasks.task import Facts, Scores, Task, refuse_class_weight

LABELS = ("label", "tags", "categories", "topics", "classes")
SEPARATORS = "|;,"  # between labels in one string; the first that occurs in the row


def check(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Texts as strings, labels as lists of names: from a list, a JSON list, or names between |, ; or commas."""
    faulty = single.check(rows[["text"]])
    rows, faults = rows.assign(text=faulty[0]["text"]), dict(faulty[1])
    if "labels" in rows:
        names = [label_names(value) for value in rows["labels"]]
        rows = rows.assign(labels=pd.Series(names, dtype=object))
        faults["have no list of labels (an empty list says: none fits)"] = rows["labels"].isna().to_numpy()
    return rows, faults


def label_names(value: Any) -> list[str] | None:
    """The names of labels of any kind, each once, in order; None where there is no list."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                value = json.loads(text)
            except ValueError:
                return None
        else:
            separator = next((s for s in SEPARATORS if s in text), None)
            value = text.split(separator) if text else []
    if not isinstance(value, (list, tuple, set, np.ndarray)):
        return None
    names = [single.label_name(one) for one in value]
    return sorted({name for name in names if name is not None})


def learn(rows: pd.DataFrame) -> Facts:
    """The label names in order, how many rows have each, and thresholds to begin with."""
    counts = rows["labels"].explode().value_counts()
    if not len(counts):
        raise DataError(f"none of {len(rows)} training rows has a label. Expected at least one label")
    names = sorted(counts.index)
    if len(names) > max(100, len(rows) // 2):
        raise DataError(
            f"{len(names)} different labels in {len(rows)} training rows: are they separated by | or ; or as a JSON "
            "list? Name the right column with --columns labels=NAME"
        )
    return {"tags": names, "counts": [int(counts[name]) for name in names], "thresholds": [0.5] * len(names)}


def encode(
    rows: pd.DataFrame,
    tokenizer: Any,
    facts: Facts,
    *,
    cleaning: Sequence[str] = (),
    class_weight: str | Mapping[str, float] | None = None,
) -> Examples:
    """Texts to token ids, labels to rows of 0 and 1.

    Raises:
        DataError: a label that the training rows do not have, named and counted.
    """
    refuse_class_weight(class_weight)
    x, padding = tokenizing.encode(tokenizer, rows["text"].tolist(), cleaning)
    return Examples(x, targets(rows, facts), np.ones(len(rows), "float32"), padding)


def targets(rows: pd.DataFrame, facts: Facts) -> np.ndarray:
    """Rows of 0 and 1: (rows, labels)."""
    y = np.zeros((len(rows), len(facts["tags"])), "float32")
    if "labels" in rows:
        index = {name: i for i, name in enumerate(facts["tags"])}
        found = rows["labels"].explode().dropna()
        unseen = found[~found.isin(index)].value_counts()
        if len(unseen):
            listed = ", ".join(f"{name!r} ({count} rows)" for name, count in unseen.head(5).items())
            raise DataError(f"labels that the training rows do not have: {listed}")
        for i, names in enumerate(rows["labels"]):
            y[i, [index[name] for name in names]] = 1.0
    return y


def head(backbone: keras.Model, facts: Facts, *, pooling: str, dropout: float) -> keras.Model:
    """Probabilities of the labels, each for itself: (batch, labels)."""
    outputs = dense_head(backbone, len(facts["tags"]), "sigmoid", pooling=pooling, dropout=dropout)
    return keras.Model(backbone.input, outputs)


def loss(facts: Facts, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """Binary cross-entropy on probabilities."""
    return keras.losses.BinaryCrossentropy(label_smoothing=label_smoothing)


def tune(outputs: np.ndarray, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Facts:
    """For each label the threshold that gives the best F1 on the rows; labels they lack keep 0.5."""
    truth = targets(rows, facts)
    return facts | {"thresholds": [metrics.best_threshold(truth[:, i], outputs[:, i]) for i in range(truth.shape[1])]}


def score(outputs: np.ndarray, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Scores:
    """F1, average precision and the rest, against the rows' labels."""
    return metrics.multi_label(targets(rows, facts), outputs, facts["tags"], facts["thresholds"])


def serve(outputs: Any, x: Mapping[str, Any], texts: Mapping[str, Any], facts: Facts, tokenizer: Any) -> dict[str, Any]:
    """Side by side `labels`, `probabilities` and `chosen`, those at or above their thresholds: (batch, labels)."""
    names = tf.constant(facts["tags"])
    return {
        "labels": tf.tile(names[tf.newaxis], [tf.shape(outputs)[0], 1]),
        "probabilities": outputs,
        "chosen": outputs >= tf.constant(facts["thresholds"], outputs.dtype),
    }


TASK = Task(
    name="multi-label-classification",
    columns={"text": single.TEXT, "labels": LABELS},
    inputs=("text",),
    target="labels",
    headline=("f1_micro", "f1_macro"),
    check=check,
    learn=learn,
    encode=encode,
    head=head,
    loss=loss,
    score=score,
    serve=serve,
    targets=targets,
    tune=tune,
)
