"""Text similarity: how alike two texts are, a number. Each is read for itself, so vectors of many can be kept.

The cosine of their vectors, stretched over the values of the training rows; squared error.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from tfft import graph, tokenizing
from tfft.errors import DataError
from tfft.examples import Examples
from tfft.heads import OUTPUT, SECOND, pool
from tfft.tasks import text_pair_classification as pair
from tfft.tasks import text_regression as number
from tfft.tasks.task import Facts, Task, refuse_class_weight, refuse_smoothing

VALUE = ("similarity", "similarity_score", "relatedness", *number.VALUE)


def check(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Texts as strings, values as numbers; which rows lack one of them."""
    valued, faults = number.check(rows.rename(columns={"first": "text"}).drop(columns="second"))
    texts, of_texts = pair.check(rows[["first", "second"]])
    return texts.assign(**valued[["value"] if "value" in valued else []]), of_texts | {
        fault: where for fault, where in faults.items() if "value" in fault
    }


def learn(rows: pd.DataFrame) -> Facts:
    """The values of a cosine of 0 and of 1: the least and the largest; `mean` and `scale`, as regression has them."""
    values = rows["value"].to_numpy(float)
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise DataError(f"all {len(rows)} training rows have the value {low:g}. Expected values that differ")
    return {"mean": low, "scale": high - low}


def encode(
    rows: pd.DataFrame,
    tokenizer: Any,
    facts: Facts,
    *,
    cleaning: Sequence[str] = (),
    class_weight: str | Mapping[str, float] | None = None,
) -> Examples:
    """Both texts to token ids, the second's named `second_...`; values to shares of the way: (rows, 1)."""
    refuse_class_weight(class_weight)
    x, padding = tokenizing.encode(tokenizer, rows["first"].tolist(), cleaning)
    other, _ = tokenizing.encode(tokenizer, rows["second"].tolist(), cleaning)
    y = number.targets(rows, facts)
    return Examples(_both(x, other), y, np.ones(len(rows), "float32"), _both(padding, padding))


def _both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    return {**first, **{SECOND + name: value for name, value in second.items()}}


def feed(
    texts: Mapping[str, Any], tokenizer: Any, facts: Facts, cleaning: Sequence[str], max_length: int
) -> dict[str, Any]:
    """The same, dense, in graph operations."""
    each = [
        tokenizing.padded_text({name: texts[name]}, tokenizer, facts, cleaning, max_length)
        for name in ("first", "second")
    ]
    return _both(*each)


def head(backbone: keras.Model, facts: Facts, *, pooling: str, dropout: float) -> keras.Model:
    """The cosine of the two texts' vectors: (batch, 1). Takes the backbone's inputs twice, named `second_...` again.

    Both vectors go through one `Dense` that begins as the identity, so that there is something to learn while the
    backbone is frozen.
    """
    second = graph.again(backbone, SECOND)
    vectors = [pool(backbone, pooling), pool(second, pooling, "_second")]
    if dropout:
        vectors = [keras.layers.Dropout(dropout, name=f"head_dropout_{i}")(v) for i, v in enumerate(vectors)]
    project = keras.layers.Dense(
        vectors[0].shape[-1], use_bias=False, kernel_initializer="identity", dtype="float32", name="head_projection"
    )
    outputs = keras.layers.Dot(axes=1, normalize=True, dtype="float32", name=OUTPUT)([project(v) for v in vectors])
    return keras.Model(backbone.input | second.input, outputs)


def loss(facts: Facts, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """Squared error of the cosine."""
    refuse_smoothing(label_smoothing)
    return keras.losses.MeanSquaredError()


TASK = Task(
    name="text-similarity",
    columns={"first": pair.FIRST, "second": pair.SECOND, "value": VALUE},
    inputs=("first", "second"),
    target="value",
    headline=("spearman", "pearson"),
    check=check,
    learn=learn,
    encode=encode,
    feed=feed,
    freeze="none",
    head=head,
    loss=loss,
    score=number.score,
    serve=number.serve,
)
