"""One seed for everything that draws random numbers."""

import random

import numpy as np


def set_seed(seed: int) -> None:
    """Seed Python and NumPy, from which Keras 3 draws the seeds of initial weights and of dropout.

    Not `keras.utils.set_random_seed`: it also seeds TensorFlow, which empties TensorFlow's kernel cache, and with it go
    the tables of SentencePiece tokenizers that are loaded ("Resource ... SentencepieceOp does not exist").

    Example:
        >>> from tfft.seeding import set_seed
        >>> set_seed(0)
    """
    random.seed(seed)
    np.random.seed(seed)  # the global state is what libraries read
