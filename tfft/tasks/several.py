"""Several targets of one text, learnt over one backbone in one run.

Written as `topic=text-classification,stars=text-regression*0.5`: columns of the data, what is learnt of each, and what
its loss weighs. All targets share the vector of a text and one last layer; their losses, each times its weight, are
added.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import ops

from tfft import tokenizing
from tfft.errors import InvalidValueError
from tfft.examples import Examples
from tfft.heads import OUTPUT, dense_head
from tfft.tasks import text_classification as single
from tfft.tasks.task import Facts, Scores, Task, refuse_class_weight

TOGETHER = "targets"  # column with the values of all targets of a row


@dataclasses.dataclass(frozen=True)
class Part:
    """One target.

    Attributes:
        name: of the target and its column.
        task: what is learnt of it.
        weight: of its loss.
    """

    name: str
    task: Task
    weight: float

    def rows(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows as its task has them."""
        return rows[["text", *([self.name] if self.name in rows else [])]].rename(columns={self.name: self.task.target})


def parse(targets: str) -> list[tuple[str, str, float]]:
    """The targets as (name, task, weight): "topic=text-classification,stars=text-regression*0.5".

    Raises:
        InvalidValueError: not of this form, one target alone, or a name that occurs twice.
    """
    found = []
    for part in targets.split(","):
        match = re.fullmatch(r"\s*([A-Za-z]\w*)=([\w-]+)(?:\*([0-9.]+))?\s*", part)
        if match is None or match[1] in ("text", TOGETHER):
            raise InvalidValueError(
                f"several targets are written topic=text-classification,stars=text-regression*0.5. Received: {part!r}"
            )
        try:
            found.append((match[1], match[2], float(match[3] or 1)))
        except ValueError:
            raise InvalidValueError(f"the weight of a target is a number. Received: {match[3]!r}") from None
    names = [name for name, _, _ in found]
    if len(found) < 2 or len(set(names)) < len(names):
        raise InvalidValueError(f"expected two targets or more, of different names. Received: {targets}")
    return found


def several(targets: str, parts: Sequence[Part]) -> Task:
    """The task of learning all parts at once.

    Args:
        targets: as `parse` takes it; the task's name.
        parts: what they are.

    Raises:
        InvalidValueError: a task that reads more than one vector of one text.
    """
    for part in parts:
        if part.task.targets is None:
            raise InvalidValueError(
                f"{part.task.name} cannot be one of several targets, for it is not learnt from one vector of a text"
            )
    return Task(
        name=targets,
        columns={"text": single.TEXT, **{part.name: () for part in parts}},
        inputs=("text",),
        target=TOGETHER,
        headline=headline(parts),
        check=functools.partial(check, parts),
        learn=functools.partial(learn, parts),
        encode=functools.partial(encode, parts),
        head=functools.partial(head, parts),
        loss=functools.partial(loss, parts),
        score=functools.partial(score, parts),
        serve=functools.partial(serve, parts),
        tune=functools.partial(tune, parts),
    )


def headline(parts: Sequence[Part]) -> list[str]:
    """The first score of each target."""
    return [f"{part.name}_{part.task.headline[0]}" for part in parts]


def check(parts: Sequence[Part], rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Texts as strings, targets as their tasks have them; what is wrong, with the target it is wrong in.

    In `targets` stand all of a row; None where it has none at all.
    """
    checked, faults = single.check(rows[["text"]])
    for part in parts:
        own, found = part.task.check(part.rows(rows))
        if part.task.target in own:
            checked[part.name] = own[part.task.target]
        faults |= {f"{fault} ({part.name})": where for fault, where in found.items() if " text" not in fault}
    if all(part.name in checked for part in parts):
        together = zip(*(checked[part.name] for part in parts), strict=True)
        none = np.all([checked[part.name].isna() for part in parts], axis=0)
        checked[TOGETHER] = pd.Series(list(together), dtype=object).where(~none, None)
    return checked, faults


def learn(parts: Sequence[Part], rows: pd.DataFrame) -> Facts:
    """What the rows fix of each target, by its name."""
    return {"targets": {part.name: part.task.learn(part.rows(rows)) for part in parts}}


def places(parts: Sequence[Part], facts: Facts) -> Iterator[tuple[Part, Facts, slice]]:
    """Each part, what was learnt of it, and which of the outputs are its own."""
    begin = 0
    for part in parts:
        own = facts["targets"][part.name]
        size = len(own.get("labels", own.get("tags", (0,))))
        yield part, own, slice(begin, begin + size)
        begin += size


def encode(
    parts: Sequence[Part],
    rows: pd.DataFrame,
    tokenizer: Any,
    facts: Facts,
    *,
    cleaning: Sequence[str] = (),
    class_weight: str | Mapping[str, float] | None = None,
) -> Examples:
    """Texts to token ids; targets side by side: (rows, outputs)."""
    refuse_class_weight(class_weight)
    x, padding = tokenizing.encode(tokenizer, rows["text"].tolist(), cleaning)
    y = [part.task.targets(part.rows(rows), facts["targets"][part.name]) for part in parts if part.task.targets]
    return Examples(x, np.concatenate(y, axis=1), np.ones(len(rows), "float32"), padding)


def head(parts: Sequence[Part], backbone: keras.Model, facts: Facts, *, pooling: str, dropout: float) -> keras.Model:
    """What each target's own head would give, side by side, (batch, outputs): one layer, then each one's activation."""
    own = [
        (place, part.task.head(backbone, f, pooling=pooling, dropout=0.0)) for part, f, place in places(parts, facts)
    ]
    logits = dense_head(backbone, own[-1][0].stop, None, pooling=pooling, dropout=dropout)
    shares = [
        keras.layers.Activation(model.get_layer(OUTPUT).activation, dtype="float32", name=f"head_share_{number}")(
            logits[:, place]
        )
        for number, (place, model) in enumerate(own)
    ]
    return keras.Model(backbone.input, ops.concatenate(shares, axis=1))


def loss(parts: Sequence[Part], facts: Facts, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """See `Sum`."""
    each = [
        (part.task.loss(f, label_smoothing if "labels" in f or "tags" in f else 0.0), place, part.weight)
        for part, f, place in places(parts, facts)
    ]
    return Sum(each)


def score(parts: Sequence[Part], outputs: np.ndarray, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Scores:
    """The scores of each target, with its name before them; the first of each come first."""
    found: Scores = {}
    for part, own, place in places(parts, facts):
        scores = part.task.score(outputs[:, place], examples, part.rows(rows), own)
        found |= {f"{part.name}_{name}": value for name, value in scores.items()}
    first = {name: found[name] for name in headline(parts)}
    return first | found


def tune(parts: Sequence[Part], outputs: np.ndarray, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Facts:
    """What the validation rows fix of each target."""
    tuned = {
        part.name: part.task.tune(outputs[:, place], examples, part.rows(rows), own) if part.task.tune else own
        for part, own, place in places(parts, facts)
    }
    return {"targets": tuned}


def serve(
    parts: Sequence[Part], outputs: Any, x: Mapping[str, Any], texts: Mapping[str, Any], facts: Facts, tokenizer: Any
) -> dict[str, tf.Tensor]:
    """What each target's task serves, with its name before it."""
    return {
        f"{part.name}_{name}": value
        for part, own, place in places(parts, facts)
        for name, value in part.task.serve(outputs[:, place], x, texts, own, tokenizer).items()
    }


class Sum(keras.losses.Loss):
    """Losses of parts of the outputs, each times its weight, added."""

    def __init__(self, parts: Sequence[tuple[keras.losses.Loss, slice, float]]) -> None:
        super().__init__(name="sum")
        self.parts = list(parts)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Of (batch, outputs), the (batch,)."""
        return sum(weight * loss.call(y_true[:, place], y_pred[:, place]) for loss, place, weight in self.parts)
