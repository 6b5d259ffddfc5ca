"""What to freeze and how to pool, guessed before any training: one forward pass, and a linear probe on what it gives.

How far to trust the guess is for `benchmarks/advice.py` to say, which ranks it against what training really gives.
"""

import dataclasses
import logging
import warnings

import keras
import numpy as np
import tensorflow as tf
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from tfft import graph, heads
from tfft.errors import InvalidValueError
from tfft.evaluation import predict
from tfft.examples import Examples
from tfft.progress import track

log = logging.getLogger(__name__)

PROBE_ROWS = 2000  # training rows a probe sees: enough to rank, few enough for seconds


@dataclasses.dataclass(frozen=True)
class Advice:
    """One choice and what its probe says.

    Attributes:
        choice: a pooling, or the number of lowest blocks that are frozen.
        accuracy: of a linear probe on the validation rows.
        cost: of an epoch of training, as a share of training all blocks; a stored frozen part costs nothing.
    """

    choice: str | int
    accuracy: float
    cost: float


def advise(
    backbone: keras.Model, train: Examples, validation: Examples, *, rows: int = PROBE_ROWS, seed: int = 0
) -> tuple[list[Advice], list[Advice]]:
    """Probe every pooling and the output of every block.

    Args:
        backbone: from `load_backbone`; its flags are not looked at.
        train: encoded rows whose `y` is one-hot, (rows, classes).
        validation: likewise.
        rows: training rows to look at, at most.
        seed: of their choice.

    Returns:
        (poolings, best first; depths: for k from 1 the accuracy a probe reaches on block k's mean).

    Raises:
        InvalidValueError: targets that are no classes.
    """
    if train.y.ndim != 2 or not train.y.shape[1] > 1:
        raise InvalidValueError(f"a probe needs one-hot targets (rows, classes). Received: {train.y.shape}")
    picked = np.sort(np.random.default_rng(seed).permutation(len(train.y))[:rows])
    names = [name for name in heads.POOLINGS if name != "blocks" and _can(backbone, name)]
    vectors = {name: heads.pool(backbone, name, f"_{name}") for name in names}
    vectors["blocks"] = heads.pool(backbone, "blocks", "_blocks")
    model = keras.Model(backbone.input, vectors)
    learnt, judged = (
        predict(model, subset, description="every block's output") for subset in (_rows(train, picked), validation)
    )
    answers, expected = train.y[picked].argmax(-1), validation.y.argmax(-1)
    number = len(graph.block_outputs(backbone))
    width = learnt["blocks"].shape[1] // number
    features = {name: (learnt[name], judged[name]) for name in vectors}
    for k in range(number):
        part = slice(k * width, (k + 1) * width)
        features[f"block {k + 1}"] = (learnt["blocks"][:, part], judged["blocks"][:, part])
    found = {name: _probe(*pair, answers, expected) for name, pair in track(features.items(), "probing", len(features))}
    poolings = [Advice(name, found[name], 0.0) for name in vectors]
    depths = [Advice(k, found[f"block {k}"], _cost(k, number)) for k in range(1, number + 1)]
    return sorted(poolings, key=lambda one: -one.accuracy), depths


def _can(backbone: keras.Model, pooling: str) -> bool:
    return pooling != "pooled" or (isinstance(backbone.output, dict) and "pooled_output" in backbone.output)


def _rows(examples: Examples, picked: np.ndarray) -> Examples:
    x = {name: tf.gather(value, picked) for name, value in examples.x.items()}
    return examples._replace(x=x, y=examples.y[picked], weight=examples.weight[picked])


def _probe(x: np.ndarray, judged: np.ndarray, answers: np.ndarray, expected: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe ranks; it need not converge
        model = LogisticRegression(C=0.01, max_iter=100).fit(x, answers)
    return float((model.predict(judged) == expected).mean())


def _cost(frozen: int, blocks: int) -> float:
    return (blocks - frozen) / blocks  # what is stored is not computed again
