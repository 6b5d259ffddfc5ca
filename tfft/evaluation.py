"""A model's outputs for rows, the task's scores of them, and its answers."""

from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfft import activations, caching
from tfft.answers import as_answer
from tfft.batching import INFERENCE_ROWS, INFERENCE_TOKENS, plan
from tfft.caching import Cache
from tfft.examples import Examples, Ragged, as_arrays, lengths, take
from tfft.progress import work
from tfft.rest import predictions
from tfft.tasks.task import Answer, Facts, Scores, Task
from tfft.writing import WRITTEN_ROWS, writes

ANSWERED = 256  # rows whose answers are made together


def predict(
    model: keras.Model,
    rows: Examples,
    *,
    batch_size: int | None = None,
    cache: Cache | None = None,
    description: str = "predicting",
) -> Any:
    """The model's outputs in inference mode, in the order of the rows.

    Rows of like length are computed together, so little is spent on padding.

    Args:
        model: functional model.
        rows: from a task's `encode`; targets are not looked at.
        batch_size: rows a step, at most; long rows come fewer at a time. By default as many as a CPU is busy with.
        cache: where outputs of the frozen layers are looked for and kept.
        description: beside the progress bar.

    Returns:
        Arrays (rows, ...) nested as the model's output; `Ragged` for outputs as long as the rows are.
    """
    batch_size = batch_size or (WRITTEN_ROWS if writes(model) else INFERENCE_ROWS)
    if cache is not None:
        prefix, suffix = activations.split(model)
        stored = prefix and caching.frozen_outputs(prefix, suffix, rows, cache, passes=1, description=description)
        if stored:
            return predict(suffix, stored, batch_size=batch_size, description=description)
    counts = lengths(rows.x)
    chunks = [numbers for numbers, _ in plan(counts, batch_size, INFERENCE_TOKENS)]
    order = np.concatenate(chunks) if chunks else np.zeros(0, int)
    parts = []
    with work(description, len(counts)) as advance:
        for chunk, outputs in zip(chunks, activations.forward_pass(model, rows, batch_size), strict=True):
            parts.append(outputs)
            advance(len(chunk))
    long = keras.tree.map_structure(lambda t: len(t.shape) > 2 and t.shape[1] is None, model.output)
    sizes, inverse = [counts[chunk] for chunk in chunks], np.argsort(order)

    def joined(is_long: bool, *arrays: np.ndarray) -> Any:
        if not is_long:
            return np.concatenate(arrays)[inverse]
        tokens = [part[np.arange(part.shape[1]) < size[:, None]] for part, size in zip(arrays, sizes, strict=True)]
        ends = np.cumsum(counts[order])
        return Ragged(np.concatenate(tokens), (ends - counts[order])[inverse], counts)

    return keras.tree.map_structure(joined, long, *parts)


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
    outputs = predict(model, examples, cache=cache, description="evaluated rows")
    return task.score(outputs, examples, rows, facts)


def served(
    task: Task, outputs: Any, examples: Examples, rows: pd.DataFrame, facts: Facts, tokenizer: Any
) -> dict[str, np.ndarray]:
    """What an export would answer, from outputs of the model: name -> (rows, ...).

    Args:
        task: what was trained.
        outputs: from `predict`.
        examples: what they are of.
        rows: the rows those were made of; their inputs are looked at.
        facts: what the task learnt from the training rows.
        tokenizer: that the rows were encoded with.
    """
    sizes = lengths(examples.x)
    every, longest = np.arange(len(sizes)), int(sizes.max(initial=0))
    x = {name: take(as_arrays(v), every, longest, examples.padding.get(name, 0)) for name, v in examples.x.items()}
    texts = {name: tf.constant(list(rows[name]), tf.string) for name in task.inputs}
    given = take(as_arrays(outputs), every, longest)
    answered = task.serve(tf.constant(given), x, texts, facts, tokenizer)
    return {name: np.asarray(value) for name, value in answered.items()}


def answers(
    task: Task, outputs: Any, examples: Examples, rows: pd.DataFrame, facts: Facts, tokenizer: Any
) -> list[Answer]:
    """The answers to rows, as a client of a server gets them. Arguments as in `served`."""
    found: list[Answer] = []
    for begin in range(0, len(rows), ANSWERED):
        some = rows[begin : begin + ANSWERED]
        part, picked = _part(examples, begin, len(some))
        given = served(task, _picked(outputs, picked), part, some, facts, tokenizer)
        found += [as_answer(row) for row in predictions(given, rows=True)["predictions"]]
    return found


def _part(examples: Examples, begin: int, rows: int) -> tuple[Examples, np.ndarray]:
    """The examples of some neighbouring rows, and their numbers."""
    if "row" in examples.x:
        places = np.asarray(examples.x["row"])
        picked = np.flatnonzero((places >= begin) & (places < begin + rows))
    else:
        picked = np.arange(begin, begin + rows)
    x = {name: _picked(as_arrays(value), picked) for name, value in examples.x.items()}
    if "row" in x:
        x["row"] = x["row"] - begin
    return examples._replace(x=x), picked


def _picked(value: Any, rows: np.ndarray) -> Any:
    if isinstance(value, Ragged):
        return value._replace(starts=value.starts[rows], lengths=value.lengths[rows])
    return value[rows]
