"""Few-shot classification: one label for a text, learnt from 4 to 64 rows a label.

The backbone is trained on pairs of the rows (`tfft.contrast`); then it is frozen, and the head of text classification
learns on what it has become.
"""

import dataclasses
from typing import Any

import keras

from tfft.contrast import contrast
from tfft.examples import Examples
from tfft.tasks import text_classification as single


def warm(backbone: keras.Model, examples: Examples, **settings: Any) -> None:
    """Draw the texts of one label together."""
    contrast(backbone, examples.y.argmax(axis=1), examples, **settings)


TASK = dataclasses.replace(single.TASK, name="few-shot", warm=warm, freeze="none", targets=None)
