"""Fewer bits, if they cost little: the scores before and after, and the refusal where they are too far apart."""

import dataclasses
import logging
import warnings
from typing import Any

import pandas as pd

from tfft import lora
from tfft.errors import ExportError, InvalidValueError
from tfft.evaluation import predict
from tfft.examples import Examples
from tfft.runs import Run, run_examples

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Judged:
    """Two scores on the same rows.

    Attributes:
        metric: its name.
        before: in float32.
        after: in fewer bits.
        rows: how many.
    """

    metric: str
    before: float
    after: float
    rows: int

    def __str__(self) -> str:
        return f"{self.metric} {self.after:.4f}, in float32 {self.before:.4f}, on {self.rows:,} rows"


def quantize(run: Run, precision: str, rows: pd.DataFrame | None, bound: float) -> Judged:
    """Have Keras quantize a run's model, in place, if its score on rows stays near.

    Args:
        run: from `load_run`.
        precision: "int8".
        rows: with answers.
        bound: as `judge`.

    Raises:
        InvalidValueError: another precision, or no rows.
        ExportError: it costs too much, or Keras cannot.
    """
    if precision != "int8":
        raise InvalidValueError(f"precision of a SavedModel is one of: float32, int8. Received: {precision!r}")
    if run.task.answering:
        raise InvalidValueError(f"{precision} is for tasks whose answers are numbers; {run.task.name} writes texts")
    if lora.adapters(run.model):
        raise InvalidValueError(f"{precision} is for whole weights; a run on --backbone RUN has its adapters merged")
    if rows is None:
        raise InvalidValueError(f"{precision} is judged by rows with answers; none were given")
    examples = run_examples(run, rows)
    before = predict(run.model, examples)
    try:
        with warnings.catch_warnings():  # one for each layer that has nothing to quantize
            warnings.filterwarnings("ignore", message="Layer .* does not have a `quantize` method")
            run.model.quantize(precision)
    except (NotImplementedError, ValueError, TypeError) as error:
        raise ExportError(f"Keras does not quantize this model to {precision}: {error}") from error
    judged = judge(run, rows, examples, before, predict(run.model, examples), precision, bound)
    log.info("%s: %s", precision, judged)
    return judged


def judge(
    run: Run, rows: pd.DataFrame, examples: Examples, before: Any, after: Any, precision: str, bound: float
) -> Judged:
    """Compare a model's outputs in float32 and in fewer bits.

    Args:
        run: its task scores.
        rows: with answers.
        examples: the same rows, encoded.
        before: outputs in float32.
        after: in fewer bits.
        precision: their name.
        bound: how far the score may move, as a share.

    Raises:
        ExportError: it moves further, up or down; both numbers are in it.
    """
    metric = run.task.headline[0]
    scores = [float(run.task.score(outputs, examples, rows, run.facts)[metric]) for outputs in (before, after)]
    judged = Judged(metric, scores[0], scores[1], len(rows))
    if abs(scores[0] - scores[1]) > bound:
        raise ExportError(f"{precision} moves the score by more than {100 * bound:g} points and was not kept: {judged}")
    return judged
