"""A model's outputs for rows, and the task's scores of them."""

from typing import Any

import keras
import numpy as np
import pandas as pd

from tfft import activations, caching
from tfft.batching import INFERENCE_ROWS, INFERENCE_TOKENS, batches, plan
from tfft.caching import Cache
from tfft.examples import Examples, lengths
from tfft.progress import work
from tfft.tasks.task import Facts, Scores, Task


def predict(
    model: keras.Model,
    rows: Examples,
    *,
    batch_size: int = INFERENCE_ROWS,
    cache: Cache | None = None,
    description: str = "predicting",
) -> Any:
    """The model's outputs in inference mode, in the order of the rows.

    Rows of like length are computed together, so little is spent on padding.

    Args:
        model: functional model.
        rows: from a task's `encode`; targets are not looked at.
        batch_size: rows a step, at most; long rows come fewer at a time.
        cache: where outputs of the frozen layers are looked for and kept.
        description: beside the progress bar.

    Returns:
        Arrays (rows, ...) nested as the model's output.
    """
    if cache is not None:
        prefix, suffix = activations.split(model)
        stored = prefix and caching.frozen_outputs(prefix, suffix, rows, cache, passes=1, description=description)
        if stored:
            return predict(suffix, stored, batch_size=batch_size, description=description)
    counts = lengths(rows.x)
    chunks = [numbers for numbers, _ in plan(counts, batch_size, INFERENCE_TOKENS)]
    order = np.concatenate(chunks) if chunks else np.zeros(0, int)
    names = [tensor.name for tensor in model.inputs]
    forward, parts = activations.compiled(model), []
    with work(description, len(counts)) as advance:
        for x, y, _ in batches(rows, names, batch_size, max_tokens=INFERENCE_TOKENS):
            parts.append(keras.tree.map_structure(lambda t: t.numpy(), forward(x)))
            advance(len(y))
    inverse = np.argsort(order)
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays)[inverse], *parts)


def evaluate(
    model: keras.Model,
    rows: pd.DataFrame,
    examples: Examples,
    task: Task,
    facts: Facts,
    cache: Cache | None = None,
) -> Scores:
    """The task's scores for rows with targets.

    Args:
        model: the flat model.
        rows: the raw rows, for their targets.
        examples: the same rows encoded.
        task: what was trained.
        facts: what it learnt from the training rows.
        cache: where outputs of the frozen layers are looked for and kept.

    Returns:
        Metric -> value; `tfft.metrics` has their definitions.
    """
    return task.score(predict(model, examples, cache=cache, description="evaluated rows"), rows, facts)
