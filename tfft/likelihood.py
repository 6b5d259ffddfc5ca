"""Loss and metric of models that give logarithms of probabilities of the right pieces, not of all pieces."""

from typing import Any

import keras
import numpy as np

from tfft.errors import DataError
from tfft.examples import Ragged, as_arrays


@keras.saving.register_keras_serializable(package="tfft")
class Unlikelihood(keras.losses.Loss):
    """Minus the logarithm of the probability of the right piece, a mean over those that count.

    Args:
        smoothing: share of the target given to all pieces alike (Szegedy et al. 2016, arXiv 1512.00567).
    """

    def __init__(
        self,
        smoothing: float = 0.0,
        name: str = "unlikelihood",
        reduction: str = "mean_with_sample_weight",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Of (batch, length, numbers), the (batch, length).

        The first number is the right piece's logarithm; where the target is smoothed, the second is the mean of all.
        """
        right = -y_pred[..., 0]
        return right if not self.smoothing else (1 - self.smoothing) * right - self.smoothing * y_pred[..., 1]


@keras.saving.register_keras_serializable(package="tfft")
class Perplexity(keras.metrics.Mean):
    """e to the mean of minus the logarithms of the right pieces' probabilities."""

    def __init__(self, name: str = "perplexity", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Of (batch, length, numbers), the first of which is the logarithm."""
        super().update_state(-y_pred[..., 0], sample_weight=sample_weight)

    def result(self) -> Any:
        """Over all that was seen."""
        return keras.ops.exp(super().result())


def counted(outputs: Ragged, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and values of as many rows of the same lengths, one after another: (tokens, numbers), (tokens,)."""
    values = as_arrays(values)
    mine, theirs = (
        [np.arange(begin, begin + size) for begin, size in zip(rows.starts, rows.lengths, strict=True)]
        for rows in (outputs, values)
    )
    return outputs.values[np.concatenate(mine)], values.values[np.concatenate(theirs)]


def perplexity(outputs: Ragged, weight: Any) -> dict[str, float]:
    """e to the mean of minus the logarithms of the tokens that count, and how many do.

    Raises:
        DataError: none does.
    """
    found, counts = counted(outputs, weight)
    found = found[counts > 0]
    if not len(found):
        raise DataError("no token of these rows counts. Expected rows with targets")
    return {"perplexity": float(np.exp(-found[:, 0].mean(dtype=float))), "tokens": len(found)}
