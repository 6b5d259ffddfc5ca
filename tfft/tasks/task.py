"""What a task is: a value, one per file in this folder."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfft.examples import Examples

Facts = dict[str, Any]  # plain data that JSON can hold; what the training rows fix, saved with the run
Answer = dict[str, Any]  # one row's answer in Python values
Scores = dict[str, Any]  # metric name -> number; tables of numbers are allowed


@dataclasses.dataclass(frozen=True)
class Task:
    """Everything that makes one kind of fine-tuning different from the others.

    A new task is one new file that ends with `TASK = Task(...)` and one row in the contract test. Tasks and backbone
    families meet in tensors only.

    Attributes:
        name: as on the command line.
        columns: column a raw row must have -> other names it is known under.
        target: which of them is the answer.
        stratify: whether held-out splits keep the target's distribution.
        check: rows -> (rows with normalised values, {what is wrong: mask of the rows it is wrong in}).
        learn: training rows -> facts; raises DataError when nothing can be learnt from them.
        encode: (rows, tokenizer, facts, *, cleaning, class_weight) -> Examples. Rows may lack the target (prediction).
        head: (backbone, facts, *, pooling, dropout) -> output tensor on the backbone's graph.
        loss: (label_smoothing) -> Keras loss.
        metrics: names of Keras metrics shown while training.
        decode: (outputs, facts) -> one answer a row.
        score: (outputs, rows, facts) -> metrics against the rows' targets.
        serve: (output tensor, facts) -> {name: tensor (batch, ...)}, what the exported graph returns.
    """

    name: str
    columns: Mapping[str, Sequence[str]]
    target: str
    stratify: bool
    check: Callable[[pd.DataFrame], tuple[pd.DataFrame, dict[str, np.ndarray]]]
    learn: Callable[[pd.DataFrame], Facts]
    encode: Callable[..., Examples]
    head: Callable[..., Any]
    loss: Callable[[float], Any]
    metrics: Sequence[str]
    decode: Callable[[np.ndarray, Facts], list[Answer]]
    score: Callable[[np.ndarray, pd.DataFrame, Facts], Scores]
    serve: Callable[[Any, Facts], dict[str, Any]]
