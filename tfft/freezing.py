"""Which variables learn: a policy sets the layers' `trainable` flags, and a check proves that they were kept."""

import fnmatch
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from tfft import graph
from tfft.errors import FreezeError, InvalidValueError
from tfft.fingerprint import digests

log = logging.getLogger(__name__)

Policy = str | int | Sequence[str]


def freeze(model: keras.Model, policy: Policy = "all") -> keras.Model:
    """Set the `trainable` flag of every layer below the head.

    The policy is the whole truth: what it does not freeze is thawed. Layers named `head_...` are left alone. Compile
    after freezing: Keras ignores a flag changed later without a word (`tfft.fit` compiles for you).

    Args:
        model: a backbone, or a flat model that stands on one.
        policy: "all", "none", "embeddings", a number k (the embeddings and the lowest k blocks), or names and globs of
            layers, a sequence or a string with commas: `"token_embedding,transformer_layer_[0-2]"`.

    Returns:
        The same model.

    Raises:
        InvalidValueError: more blocks than there are (the message has the number), or a name no layer has.

    Examples:
        >>> import keras_hub, tfft
        >>> backbone = keras_hub.models.BertBackbone(
        ...     vocabulary_size=9, num_layers=2, num_heads=1, hidden_dim=4, intermediate_dim=8)
        >>> _ = tfft.freeze(backbone, 1)
        >>> [layer.trainable for layer in backbone.transformer_layers]
        [False, True]
    """
    frozen = {id(layer) for layer in _chosen(model, parse_policy(policy))}
    for layer in model.layers:
        if not is_head(layer):
            layer.trainable = id(layer) not in frozen
    return model


def parse_policy(policy: Policy) -> str | int | list[str]:
    """The policy as a keyword, a number of blocks, or a list of patterns: "3" -> 3, "a,b*" -> ["a", "b*"]."""
    if isinstance(policy, bool) or not isinstance(policy, (str, int, Sequence)):
        raise InvalidValueError(
            f"freeze must be 'all', 'none', 'embeddings', a number of blocks, or names of layers. Received: {policy!r}"
        )
    if isinstance(policy, int):
        return policy
    if isinstance(policy, str):
        policy = policy.strip()
        if policy in ("all", "none", "embeddings"):
            return policy
        if policy.lstrip("-").isdecimal():
            return int(policy)
        policy = policy.split(",")
    patterns = [pattern.strip() for pattern in policy if pattern.strip()]
    if not patterns:
        raise InvalidValueError("freeze names no layer. Use 'none' to freeze nothing")
    return patterns


def is_head(layer: Any) -> bool:
    """Whether the layer belongs to a head."""
    return bool(layer.name.startswith("head_"))


def _chosen(model: keras.Model, policy: str | int | list[str]) -> Iterable[Any]:
    layers = [layer for layer in model.layers if not is_head(layer)]
    if policy == "all":
        return layers
    if policy == "none":
        return []
    if isinstance(policy, list):
        return [layer for pattern in policy for layer in _matching(layers, pattern)]
    blocks = graph.blocks(model)
    if not blocks:
        raise InvalidValueError(
            f"freeze={policy!r} needs a model of numbered blocks; {model.name} has none. Name layers instead: "
            f"{', '.join(graph.names(layers)[:12])}"
        )
    count = 0 if policy == "embeddings" else int(policy)
    if not 0 <= count <= len(blocks):
        raise InvalidValueError(
            f"freeze={count}: {model.name} has {len(blocks)} blocks, so 0 to {len(blocks)} can be frozen"
        )
    return [*(layer for layer in graph.below_blocks(model) if not is_head(layer)), *blocks[:count]]


def _matching(layers: Sequence[Any], pattern: str) -> list[Any]:
    found = [layer for layer in layers if fnmatch.fnmatchcase(layer.name, pattern)]
    if not found:
        raise InvalidValueError(
            f"freeze: no layer is called {pattern!r}. The layers are: {', '.join(graph.names(layers))}"
        )
    return found


def learning(model: keras.Model) -> str:
    """What learns, in a line: "head_output learn: 2,310 of 22,715,526 parameters"."""
    layers = [layer.name for layer in model.layers if layer.trainable_variables]
    learn = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    total = learn + sum(int(np.prod(v.shape)) for v in model.non_trainable_variables)
    listed = ", ".join(layers) if len(layers) <= 8 else f"{', '.join(layers[:4])}, ... {', '.join(layers[-3:])}"
    return f"learning: {listed or 'nothing'}; {learn:,} of {total:,} parameters"


def fingerprints(variables: Iterable[Any]) -> dict[str, str]:
    """Path of each variable -> a hash of its value."""
    variables = list(variables)
    names = [f"{i} {v.path}" for i, v in enumerate(variables)]
    return dict(zip(names, digests(variables), strict=True))


def check_kept(before: tuple[dict[str, str], dict[str, str]], after: tuple[dict[str, str], dict[str, str]]) -> None:
    """Compare the fingerprints (frozen, trainable) from before and after training.

    Raises:
        FreezeError: a frozen variable moved, or no trainable one did.
    """
    moved = [name.split(" ", 1)[1] for name in before[0] if before[0][name] != after[0].get(name)]
    if moved:
        raise FreezeError(f"{len(moved)} frozen variable(s) moved while training: {', '.join(moved[:5])}")
    still = [name.split(" ", 1)[1] for name in before[1] if before[1][name] == after[1].get(name)]
    if len(still) == len(before[1]):
        raise FreezeError("no trainable variable moved: the learning rate may be 0, or the loss not depend on them")
    if still:
        log.warning("%d trainable variable(s) did not move: %s", len(still), ", ".join(still[:5]))
