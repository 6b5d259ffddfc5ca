"""Contrastive training of an encoder: texts of one label are drawn together, those of others apart.

What few rows can teach a backbone (Tunstall et al. 2022, arXiv 2209.11055), with the loss over all pairs of a batch
(Khosla et al. 2020, arXiv 2004.11362): a batch of n texts is n passes through the encoder and n * (n - 1) pairs. No
list of pairs is ever made.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from tfft import heads
from tfft.batching import Arrange
from tfft.errors import FreezeError
from tfft.examples import Examples
from tfft.training import fit

ROWS = 64  # texts in a batch: of half as many labels, where there are so many
STEPS = 150  # of training, about; each row is seen at least `PASSES` times
PASSES = 8
RATE = 1e-4
TEMPERATURE = 0.07  # by which similarities are divided before the softmax


def contrast(backbone: keras.Model, labels: np.ndarray, examples: Examples, *, pooling: str, seed: int) -> None:
    """Train what is trainable of a backbone, in place.

    Args:
        backbone: its `trainable` flags are set.
        labels: (rows,), whole numbers.
        examples: the rows, encoded and cut; their targets are not looked at.
        pooling: what makes one vector of a text, as `tfft.heads.pool` takes it.
        seed: of the batches.

    Raises:
        FreezeError: all of the backbone is frozen.
    """
    if not backbone.trainable_variables:
        raise FreezeError("few-shot trains the backbone on pairs before its head, and all of it is frozen. Freeze less")
    vectors = keras.layers.UnitNormalization(dtype="float32", name=heads.OUTPUT)(heads.pool(backbone, pooling))
    arrange = by_label(labels, seed)
    steps = len(arrange(np.ones(len(labels), int), None))
    fit(
        keras.Model(backbone.input, vectors),
        examples._replace(y=labels.astype("int32")[:, np.newaxis], weight=np.ones(len(labels), "float32")),
        epochs=max(math.ceil(STEPS / steps), PASSES),
        learning_rate=RATE,
        loss=PairLoss(),
        metrics=(),
        arrange=arrange,
        seed=seed,
    )


def by_label(labels: np.ndarray, seed: int) -> Arrange:
    """Batches in which texts come two by two of a label, so that each meets another of its own: each row once an epoch.

    Of a label with an odd number of rows one is left over, and comes alone.

    Args:
        labels: (rows,).
        seed: of the batches that are counted beforehand.
    """

    def arrange(padded: np.ndarray, generator: np.random.Generator | None) -> list[tuple[np.ndarray, int]]:
        generator = generator or np.random.default_rng(seed)
        shuffled = generator.permutation(len(labels))
        of_label = [shuffled[labels[shuffled] == label] for label in np.unique(labels)]
        pairs = [rows[i : i + 2] for rows in of_label for i in range(0, len(rows), 2)]
        order = generator.permutation(len(pairs))
        size = ROWS // 2
        batches = [np.concatenate([pairs[k] for k in order[i : i + size]]) for i in range(0, len(order), size)]
        return [(rows, int(padded[rows].max(initial=0))) for rows in batches]

    return arrange


@keras.saving.register_keras_serializable(package="tfft")
class PairLoss(keras.losses.Loss):
    """Of each text, minus the mean logarithm of the share that its similarity to one of its own label has of all."""

    def __init__(self, temperature: float = TEMPERATURE, name: str = "pairs", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.temperature = temperature

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Of labels (batch, 1) and vectors of unit length (batch, width), the (batch,); 0 where a text has no mate."""
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        others = 1.0 - ops.eye(ops.shape(labels)[0])
        logits = ops.matmul(y_pred, ops.transpose(y_pred)) / self.temperature - 1e9 * (1.0 - others)
        shares = logits - ops.logsumexp(logits, axis=1, keepdims=True)
        mates = ops.cast(ops.equal(labels[:, None], labels[None, :]), "float32") * others
        return -ops.sum(mates * shares, axis=1) / ops.maximum(ops.sum(mates, axis=1), 1.0)
