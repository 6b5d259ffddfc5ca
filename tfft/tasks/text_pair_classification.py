"""Text-pair classification: one label for two texts that the backbone reads together, as it was pretrained to."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from tfft import packing, tokenizing
from tfft.examples import Examples
from tfft.tasks import text_classification as single
from tfft.tasks.task import Facts, Task

FIRST = ("sentence1", "premise", "question1", "text1", "question", "text_a", "anchor")
SECOND = ("sentence2", "hypothesis", "question2", "text2", "answer", "text_b", "passage")


def check(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Texts as strings, labels as names; which rows lack one of them."""
    faults: dict[str, np.ndarray] = {}
    for name in ("first", "second"):
        asked = rows.rename(columns={name: "text"}).drop(columns="label", errors="ignore")
        checked, found = single.check(asked)
        rows = rows.assign(**{name: checked["text"]})
        faults |= {fault.replace("text", f"{name} text"): where for fault, where in found.items()}
    if "label" in rows:
        labelled, found = single.check(rows.rename(columns={"first": "text"}))
        rows = rows.assign(label=labelled["label"])
        faults["have no label"] = found["have no label"]
    return rows, faults


def encode(
    rows: pd.DataFrame,
    tokenizer: Any,
    facts: Facts,
    *,
    cleaning: Sequence[str] = (),
    class_weight: str | Mapping[str, float] | None = None,
) -> Examples:
    """Pairs to token ids, labels to one-hot rows."""
    graph = _graph(tokenizer, tuple(cleaning))
    x = tokenizing.in_chunks(graph, rows["first"].tolist(), rows["second"].tolist())
    y = single.targets(rows, facts)
    return Examples(x, y, single.row_weights(y, facts, class_weight), tokenizing.paddings(tokenizer))


def _packed(first: tf.Tensor, second: tf.Tensor, tokenizer: Any, cleaning: Sequence[str]) -> dict[str, Any]:
    ids = [tokenizing.bare_ids(tokenizer, text, cleaning) for text in (first, second)]
    sizes = tf.cast(ids[0].row_lengths(), tf.int32)
    return packing.packed(tokenizer, ids) | {"first": sizes}


@functools.lru_cache(maxsize=4)
def _graph(tokenizer: Any, cleaning: tuple[str, ...]) -> Any:
    signature = 2 * [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda a, b: _packed(a, b, tokenizer, cleaning), input_signature=signature, autograph=False)


def cut(examples: Examples, tokenizer: Any, max_length: int) -> tuple[Examples, int]:
    """Pairs of at most so many tokens; the longer text is cut first."""
    x = dict(examples.x)
    longer = int(tf.reduce_sum(tf.cast(x["token_ids"].row_lengths() > max_length, tf.int32)))
    return examples._replace(x=packing.longest_first(x, x.pop("first"), tokenizer, max_length)), longer


def feed(
    texts: Mapping[str, Any], tokenizer: Any, facts: Facts, cleaning: Sequence[str], max_length: int
) -> dict[str, Any]:
    """The same, dense, in graph operations."""
    x = _packed(texts["first"], texts["second"], tokenizer, cleaning)
    x = packing.longest_first(x, x.pop("first"), tokenizer, max_length)
    return packing.dense(x, tokenizing.paddings(tokenizer))


TASK = Task(
    name="text-pair-classification",
    columns={"first": FIRST, "second": SECOND, "label": single.LABEL},
    inputs=("first", "second"),
    target="label",
    headline=("accuracy", "f1_macro"),
    stratify=True,
    check=check,
    learn=single.learn,
    encode=encode,
    cut=cut,
    feed=feed,
    head=single.head,
    loss=single.loss,
    metrics=("accuracy",),
    score=single.score,
    serve=single.serve,
)
