"""Few-shot classification: one label for a text, learnt from 4 to 64 rows a label.

The backbone is trained on pairs of the rows (`tfft.contrast`); then it is frozen, and the head of text classification
learns on what it has become.
"""

import dataclasses
from typing import Any

import keras

from tfft.contrast import contrast
from tfft.examples import Examples
from tfft.heads import dense_head
from tfft.tasks import text_classification as single
from tfft.tasks.task import Facts


def warm(backbone: keras.Model, examples: Examples, **settings: Any) -> None:
    """Draw the texts of one label together."""
    contrast(backbone, examples.y.argmax(axis=1), examples, **settings)


def head(backbone: keras.Model, facts: Facts, *, pooling: str, dropout: float) -> keras.Model:
    """Probabilities of the labels, (batch, labels), by a layer that begins at zero.

    Steps on so few rows are few, and would leave much of random first weights.
    """
    outputs = dense_head(backbone, len(facts["labels"]), "softmax", pooling=pooling, dropout=dropout, first="zeros")
    return keras.Model(backbone.input, outputs)


TASK = dataclasses.replace(single.TASK, name="few-shot", head=head, warm=warm, freeze="none", targets=None)
