"""Loss and metric of models that give logarithms of probabilities of the right pieces, not of all pieces."""

from typing import Any

import keras


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
