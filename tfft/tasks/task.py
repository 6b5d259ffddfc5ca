"""What a task is: a value, one per file in this folder."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from tfft import tokenizing
from tfft.batching import Redraw
from tfft.errors import InvalidValueError
from tfft.examples import Examples

Facts = dict[str, Any]  # plain data that JSON can hold; what the training rows fix, saved with the run
Answer = dict[str, Any]  # one row's answer in Python values
Scores = dict[str, Any]  # metric name -> number; tables of numbers are allowed


@dataclasses.dataclass(frozen=True)
class Task:
    """Everything that makes one kind of fine-tuning different from the others.

    A new task is one new file that ends with `TASK = Task(...)` and one row in the contract test. Tasks and backbone
    families meet in tensors only. `outputs` below are the model's for all examples: an array (examples, ...), or
    `tfft.examples.Ragged` where they are as long as the examples are.

    Attributes:
        name: as on the command line.
        columns: column of a source -> other names it is known under.
        inputs: columns of checked rows that a model is asked with: strings. A served request has the same names.
        target: column of checked rows that holds the answer.
        headline: names of scores one looks at first; by the first one epochs are chosen and exports judged.
        check: rows -> (rows with the columns `inputs` and `target`, {what is wrong: mask of the rows it is wrong in}).
            Rows may lack the target (prediction).
        learn: (training rows, **options) -> facts; raises DataError when nothing can be learnt from them.
        encode: (rows, tokenizer, facts, *, cleaning, class_weight) -> Examples, whole.
        head: (backbone, facts, *, pooling, dropout) -> the flat model, a head on the backbone's own graph.
        loss: (facts, label_smoothing) -> Keras loss.
        score: (outputs, examples, rows, facts) -> metrics against the rows' targets.
        serve: (outputs, x, texts, facts, tokenizer) -> {name: tensor (rows, ...)}: answers, from dense outputs and
            inputs of the model and the texts, {input: (rows,)}; in graph operations, for the export runs them, too.
        optional: columns a source may lack; `check` says which of them must be there together.
        options: settings of a recipe that only some tasks have -> their defaults; `learn` is told them by name.
        defaults: settings that are other than `tfft.defaults` has them.
        answering: (model, facts) -> the model that answers, where it is another than the one that learns: one that
            writes. Its outputs are what `score` and `serve` get.
        by_likelihood: whether it is judged by how likely it finds the rows' targets: `score` then gets outputs of the
            model that learns, not of the one that answers. A pretrained model is judged so before it learns, too.
        samples: (answers, rows, facts) -> a table of rows to read, with what is written for them; where `score` has
            none. `answers` gives those of a list of texts.
        on: (backbone, tokenizer) -> the same task as it is on that backbone, where it is not the same on all.
        stratify: whether held-out splits keep the target's distribution.
        metrics: Keras metrics shown while training, by name or made.
        cut: (examples, tokenizer, max_length) -> (examples of at most so many tokens, how many rows lost some). It may
            make several of a row, and then says in `x["row"]` whose each is, in order.
        feed: (texts, tokenizer, facts, cleaning, max_length) -> dense inputs of the model, as `encode` and `cut` give
            them; in graph operations.
        tables: facts -> further tokenizers whose tables an export must hold.
        redraw: (tokenizer) -> ((x, y, weight, generator) -> (x, y, weight)): what is drawn anew for every batch of
            training, such as the words that are hidden; of dense arrays, `x` with all that `cut` left in it.
        warm: (backbone, examples, *, pooling, seed) -> None: trains the backbone itself, before it is frozen and the
            head learns.
        targets: (rows, facts) -> what `encode` has rows learn, (rows, outputs); given where a head on one vector of a
            text learns it, so that it may be one of several targets.
        tune: (outputs, examples, rows, facts) -> facts, with what the validation rows fix after training, if anything.
        windowed: whether `cut` makes several examples of a long row, instead of losing tokens.
        freeze: what a run freezes unless it says otherwise: "all" where a head on fixed features does well.
        pooled: whether the head reads one vector a text, and so has a pooling.
        apart: columns of which equal ones never stand in two held-out splits; `inputs` together by default.
    """

    name: str
    columns: Mapping[str, Sequence[str]]
    inputs: Sequence[str]
    target: str
    headline: Sequence[str]
    check: Callable[[pd.DataFrame], tuple[pd.DataFrame, dict[str, np.ndarray]]]
    learn: Callable[..., Facts]
    encode: Callable[..., Examples]
    head: Callable[..., keras.Model]
    loss: Callable[[Facts, float], Any]
    score: Callable[[Any, Examples, pd.DataFrame, Facts], Scores]
    serve: Callable[[Any, Mapping[str, Any], Mapping[str, Any], Facts, Any], dict[str, Any]]
    optional: Sequence[str] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    answering: Callable[[keras.Model, Facts], keras.Model] | None = None
    by_likelihood: bool = False
    samples: Callable[[Callable[[list[str]], list[Answer]], pd.DataFrame, Facts], list[dict[str, Any]]] | None = None
    on: Callable[[keras.Model, Any], "Task"] | None = None
    stratify: bool = False
    metrics: Sequence[Any] = ()
    cut: Callable[[Examples, Any, int], tuple[Examples, int]] = tokenizing.truncate_examples
    feed: Callable[[Mapping[str, Any], Any, Facts, Sequence[str], int], dict[str, Any]] = tokenizing.padded_text
    targets: Callable[[pd.DataFrame, Facts], np.ndarray] | None = None
    tune: Callable[[Any, Examples, pd.DataFrame, Facts], Facts] | None = None
    tables: Callable[[Facts], Sequence[Any]] | None = None
    redraw: Callable[[Any], Redraw] | None = None
    warm: Callable[..., None] | None = None
    windowed: bool = False
    freeze: str = "all"
    pooled: bool = True
    apart: Sequence[str] = ()


def on_backbone(task: Task, backbone: keras.Model, tokenizer: Any) -> Task:
    """The task as it is on a backbone."""
    return task if task.on is None else task.on(backbone, tokenizer)


def answering_model(task: Task, model: keras.Model, facts: Facts) -> keras.Model:
    """The model whose outputs `task.score` and `task.serve` get."""
    return model if task.answering is None else task.answering(model, facts)


def refuse_cleaning(cleaning: Sequence[str]) -> None:
    """Raise where a text would be changed: its answers are places in it."""
    if cleaning:
        raise InvalidValueError(
            f"cleaning moves the places that are learnt here. Leave --clean {','.join(cleaning)} out"
        )


def refuse_class_weight(class_weight: Any) -> None:
    """Raise where rows have no one label to weigh them by."""
    if class_weight is not None:
        raise InvalidValueError("class_weight weighs rows by their one label; this task's have none. Leave it out")


def refuse_smoothing(label_smoothing: float) -> None:
    """Raise where targets are no shares of labels."""
    if label_smoothing:
        raise InvalidValueError(
            f"label_smoothing is for tasks of labels a text. Received: {label_smoothing}; leave it out"
        )
