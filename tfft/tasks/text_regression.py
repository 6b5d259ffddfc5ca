"""Text regression: a number for a text. A linear head on standardised targets, Huber loss."""

import math
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
from tfft.tasks.task import Facts, Scores, Task, refuse_class_weight, refuse_smoothing

VALUE = ("score", "rating", "target", "label", "stars", "price", "grade", "y")


def check(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Texts as strings, values as numbers; which rows have none, or none that is finite."""
    faulty = single.check(rows[["text"]])
    rows, faults = rows.assign(text=faulty[0]["text"]), dict(faulty[1])
    if "value" in rows:
        given = rows["value"]
        missing = np.array([single.label_name(value) is None for value in given], bool)
        numbers = pd.Series([_number(value) for value in given], dtype=float)
        faults["have no value"] = missing
        faults["have a value that is no finite number"] = numbers.isna().to_numpy() & ~missing
        rows = rows.assign(value=numbers)
    return rows, faults


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def learn(rows: pd.DataFrame) -> Facts:
    """Mean and standard deviation of the values: the model learns how far a row is from the mean, in deviations."""
    values = rows["value"].to_numpy(float)
    if values.std() == 0:
        raise DataError(f"all {len(rows)} training rows have the value {values[0]:g}. Expected values that differ")
    return {"mean": float(values.mean()), "scale": float(values.std())}


def encode(
    rows: pd.DataFrame,
    tokenizer: Any,
    facts: Facts,
    *,
    cleaning: Sequence[str] = (),
    class_weight: str | Mapping[str, float] | None = None,
) -> Examples:
    """Texts to token ids, values to standardised ones: (rows, 1)."""
    refuse_class_weight(class_weight)
    x, padding = tokenizing.encode(tokenizer, rows["text"].tolist(), cleaning)
    return Examples(x, targets(rows, facts), np.ones(len(rows), "float32"), padding)


def targets(rows: pd.DataFrame, facts: Facts) -> np.ndarray:
    """Values as the model learns them: (rows, 1); zeros where there are none."""
    given = rows["value"].to_numpy(float) if "value" in rows else np.full(len(rows), facts["mean"])
    return ((given - facts["mean"]) / facts["scale"]).astype("float32")[:, np.newaxis]


def head(backbone: keras.Model, facts: Facts, *, pooling: str, dropout: float) -> keras.Model:
    """The standardised value: (batch, 1)."""
    return keras.Model(backbone.input, dense_head(backbone, 1, None, pooling=pooling, dropout=dropout))


def loss(facts: Facts, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """Huber's: squared near the target, absolute beyond a standard deviation, so outliers do not rule."""
    refuse_smoothing(label_smoothing)
    return keras.losses.Huber(delta=1.0)


def values(outputs: Any, facts: Facts) -> Any:
    """Values of the model's outputs: (rows,)."""
    return outputs[:, 0] * facts["scale"] + facts["mean"]


def score(outputs: np.ndarray, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Scores:
    """Correlations and errors, against the rows' values."""
    return metrics.regression(rows["value"].to_numpy(float), values(outputs, facts))


def serve(outputs: Any, x: Mapping[str, Any], texts: Mapping[str, Any], facts: Facts, tokenizer: Any) -> dict[str, Any]:
    """`value` (batch,)."""
    return {"value": tf.cast(values(outputs, facts), tf.float32)}


TASK = Task(
    name="text-regression",
    columns={"text": single.TEXT, "value": VALUE},
    inputs=("text",),
    target="value",
    headline=("r2", "spearman"),
    check=check,
    learn=learn,
    encode=encode,
    head=head,
    loss=loss,
    score=score,
    serve=serve,
    targets=targets,
)
