"""A model's outputs for rows, and the task's scores of them."""

import functools
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfft.batching import batches, plan
from tfft.examples import Examples, lengths
from tfft.progress import work
from tfft.tasks.task import Facts, Scores, Task


def predict(model: keras.Model, rows: Examples, *, batch_size: int = 64, description: str = "predicting") -> Any:
    """The model's outputs in inference mode, in the order of the rows.

    Rows of like length are computed together, so little is spent on padding.

    Args:
        model: functional model.
        rows: from a task's `encode`; targets are not looked at.
        batch_size: rows a step.
        description: beside the progress bar.

    Returns:
        Arrays (rows, ...) nested as the model's output.
    """
    counts = lengths(rows.x)
    order = np.concatenate([numbers for numbers, _ in plan(counts, batch_size)]) if len(counts) else np.zeros(0, int)
    names = [tensor.name for tensor in model.inputs]
    forward, parts = _forward(model), []
    with work(description, len(counts)) as advance:
        for x, y, _ in batches(rows, names, batch_size):
            parts.append(keras.tree.map_structure(lambda t: t.numpy(), forward(x)))
            advance(len(y))
    inverse = np.argsort(order)
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays)[inverse], *parts)


@functools.lru_cache(maxsize=2)  # tracing a model takes seconds; validation and test rows share one trace
def _forward(model: keras.Model) -> Any:
    signature = {tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name) for tensor in model.inputs}
    return tf.function(lambda x: model(x, training=False), input_signature=[signature])


def evaluate(model: keras.Model, rows: pd.DataFrame, examples: Examples, task: Task, facts: Facts) -> Scores:
    """The task's scores for rows with targets.

    Args:
        model: the flat model.
        rows: the raw rows, for their targets.
        examples: the same rows encoded.
        task: what was trained.
        facts: what it learnt from the training rows.

    Returns:
        Metric -> value; `tfft.metrics` has their definitions.
    """
    return task.score(predict(model, examples, description="evaluating"), rows, facts)
