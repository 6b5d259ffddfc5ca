"""The frozen part by ONNX Runtime: on a CPU the same numbers in less time."""

import collections
import concurrent.futures
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfft import onnx_graph
from tfft.arithmetic import product_dtype
from tfft.examples import Examples, lengths
from tfft.fingerprint import digest_all
from tfft.frontier import batch, run
from tfft.machine import processors

WORTH_TOKENS = 50_000  # fewer token positions are computed sooner than the network is converted
GROUP_TOKENS = 512  # positions computed together; what is between two products then stays in the caches
PROVEN_ROWS = 8  # compared with Keras's
TOLERANCE = 1e-4  # of the largest number

log = logging.getLogger(__name__)

Network = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class _Made(NamedTuple):
    """What was made of a model: a hash of the weights it was made of, and the network, None for one that is unfit."""

    weights: str
    network: Network | None


_MADE: weakref.WeakKeyDictionary[keras.Model, _Made] = weakref.WeakKeyDictionary()


def network(model: keras.Model, rows: Examples, convert: bool = True) -> Network | None:
    """What computes the model's outputs for a batch, by one thread; None where TensorFlow is to compute them.

    That is without the extra `tfft[onnx]`, on a GPU, with bfloat16 products, for so few tokens that a conversion does
    not pay, and for what cannot be converted. Once made it serves all rows of the same model.

    Args:
        model: functional model with a dictionary of outputs.
        rows: from a task's `encode`; for a few the outputs are compared with Keras's.
        convert: make it, if it pays and there is none.
    """
    if not onnx_graph.is_installed() or product_dtype() != "float32" or tf.config.list_physical_devices("GPU"):
        return None
    made, weights = _MADE.get(model), digest_all(model)
    if made is None or made.weights != weights:
        if not convert or lengths(rows.x).sum() < WORTH_TOKENS:
            return None
        made = _MADE[model] = _Made(weights, _proven(model, rows))
    return made.network


def _proven(model: keras.Model, rows: Examples) -> Network | None:
    counts = lengths(rows.x)
    order = np.argsort(counts, kind="stable")
    picked = np.append(order[len(order) // 2 :][: PROVEN_ROWS - 1], order[-1])  # of the usual length, and the longest
    length = int(counts[picked].max())
    try:
        found = _network(onnx_graph.converted(model))
        outputs = found(batch(model, rows, picked, length))
    except Exception as error:  # noqa: BLE001 - whatever ails two libraries one need not have, TensorFlow computes it
        log.info("frozen part: not by ONNX Runtime, %s", error)
        return None
    for name, exact in run(model, rows, picked, length).items():
        if not np.allclose(outputs[name], exact, rtol=0, atol=TOLERANCE * np.abs(exact).max()):
            log.info("frozen part: not by ONNX Runtime, its numbers are others")
            return None
    return found


def _network(graph: bytes) -> Network:
    session = onnx_graph.session(graph, threads=1)
    taken = [one.name for one in session.get_inputs()]
    names = [one.name for one in session.get_outputs()]

    def outputs(x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        width = max([1, *(value.shape[1] for value in x.values() if value.ndim > 1)])
        step, parts = max(GROUP_TOKENS // width, 1), []
        for begin in range(0, len(next(iter(x.values()))), step):
            parts.append(session.run(names, {name: x[name][begin : begin + step] for name in taken}))
        return {name: np.concatenate(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)}

    return outputs


def in_order(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """The function's values, computed one on each processor, a few ahead of whoever takes them."""
    with concurrent.futures.ThreadPoolExecutor(processors()) as pool:
        ahead: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 2 * processors():
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
