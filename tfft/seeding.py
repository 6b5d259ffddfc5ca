"""One seed for everything that draws random numbers."""

import random
from typing import Any

import keras
import numpy as np


def set_seed(seed: int) -> None:
    """Seed Python and NumPy, from which Keras 3 draws the seeds of initial weights and of dropout.

    Not `keras.utils.set_random_seed`: it also seeds TensorFlow, which empties TensorFlow's kernel cache, and with it go
    the tables of SentencePiece tokenizers that are loaded ("Resource ... SentencepieceOp does not exist").

    Examples:
        >>> from tfft.seeding import set_seed
        >>> set_seed(0)
    """
    random.seed(seed)
    np.random.seed(seed)  # the global state is what libraries read


def seed_layers(model: keras.Model, seed: int) -> None:
    """Seed the layers that draw random numbers, dropout above all, whenever they were made.

    Without it a backbone loaded earlier would drop out by a seed drawn at loading.
    """
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if is_seed(variable):
            variable.assign(generator.integers(0, 2**31, variable.shape).astype(variable.dtype))


def is_seed(variable: Any) -> bool:
    """Whether a variable is the state of a random layer and no weight."""
    return bool(variable.path.endswith("seed_generator_state"))
