"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): a small correction of attention's query and value learns.

The weights beneath stay as they are, to the bit. Adapters are kept in a file of their own and merged for an export.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tfft import freezing, graph
from tfft.errors import FreezeError, InvalidValueError

log = logging.getLogger(__name__)

FILE = "adapter.safetensors"  # in a run, beside the preset
LEARNING_RATE = 1e-3  # adapters begin at nothing and want about ten times the rate of the weights beneath
# What KerasHub calls them; its T5 names them otherwise.
TARGETS = ("query", "value", "query_dense", "value_dense", "query_projector", "value_projector")


def adapt(backbone: keras.Model, rank: int) -> keras.Model:
    """Put adapters on the attention of every block that learns, and have nothing else of the backbone learn.

    Freeze before: the policy says in which blocks. Setting a `trainable` flag afterwards would thaw what is beneath.

    Args:
        backbone: of numbered blocks.
        rank: of the correction; 4 to 16 are usual.

    Returns:
        The same backbone.

    Raises:
        FreezeError: no block that learns has an attention layer.

    Examples:
        >>> import keras_hub, tfft
        >>> from tfft import lora
        >>> backbone = keras_hub.models.BertBackbone(
        ...     vocabulary_size=9, num_layers=2, num_heads=1, hidden_dim=4, intermediate_dim=8)
        >>> len(lora.adapt(tfft.freeze(backbone, 1), rank=2).trainable_variables)
        4
    """
    layers = [layer for block in graph.blocks(backbone) if block.trainable for layer in _attention(block)]
    if not layers:
        raise FreezeError("no block learns that has attention to adapt. Freeze fewer blocks, or leave lora out")
    _enable(backbone, layers, rank)
    size, whole = sum(v.numpy().size for v in adapters(backbone).values()), backbone.count_params()
    log.info("adapters of rank %d on %d layers: %d parameters, %.1f %%", rank, len(layers), size, 100 * size / whole)
    return backbone


def _enable(backbone: keras.Model, layers: list[Any], rank: int) -> None:
    for layer in layers:
        layer.enable_lora(rank)
    learning = {id(variable) for variable in adapters(backbone).values()}
    for layer in backbone.layers:
        if not any(id(variable) in learning for variable in layer.variables):
            layer.trainable = False
        for variable in layer.variables:
            variable.trainable = id(variable) in learning


def _attention(block: Any) -> list[Any]:
    return [layer for layer in graph.flattened(block) if layer.name in TARGETS and hasattr(layer, "enable_lora")]


def _named(model: keras.Model) -> dict[str, Any]:
    """The layers that adapters may be put on, by the block's name and their number in it."""
    return {
        f"{block.name}.{number}.{layer.name}": layer
        for block in graph.blocks(model)
        for number, layer in enumerate(_attention(block))
    }


def _adapted(model: keras.Model) -> dict[str, Any]:
    return {name: layer for name, layer in _named(model).items() if layer.lora_enabled}


def adapters(model: keras.Model) -> dict[str, Any]:
    """The adapters' variables by name; none where there are no adapters."""
    found: dict[str, Any] = {}
    for name, layer in _adapted(model).items():
        found |= {f"{name}.a": layer.lora_kernel_a, f"{name}.b": layer.lora_kernel_b}
    return found


def beneath(model: keras.Model) -> list[Any]:
    """The variables that adapters have kept from learning, though their layers learn."""
    blocks = {id(layer): layer for layer in graph.blocks(model) if any(a.lora_enabled for a in _attention(layer))}
    return [v for block in blocks.values() for v in block.variables if not v.trainable]


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    """The adapters as arrays."""
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in adapters(model).items()}


def read(path: Path) -> dict[str, np.ndarray]:
    """The adapters in a file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InvalidValueError(f"{path} is damaged: {error}") from None


def _places(backbone: keras.Model, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The layers that adapters are of, by their names in `weights`."""
    names, places = {name.rpartition(".")[0] for name in arrays}, _named(backbone)
    if not names or not names <= set(places):
        raise InvalidValueError(f"the adapters are not this backbone's: {', '.join(sorted(names - set(places))[:3])}")
    return {name: places[name] for name in sorted(names)}


def restore(backbone: keras.Model, arrays: Mapping[str, np.ndarray]) -> keras.Model:
    """Put adapters back from `weights`.

    Raises:
        InvalidValueError: they are those of another backbone.
    """
    layers = list(_places(backbone, arrays).values())
    _enable(backbone, layers, next(iter(arrays.values())).shape[-1])
    for name, variable in adapters(backbone).items():
        variable.assign(arrays[name])
    return backbone


def merge(backbone: keras.Model, arrays: Mapping[str, np.ndarray]) -> keras.Model:
    """Make adapters from `weights` part of the weights they correct, for good; arguments as in `restore`."""
    for name, layer in _places(backbone, arrays).items():
        _kernel(layer).assign(_kernel(layer) + np.matmul(arrays[f"{name}.a"], arrays[f"{name}.b"]))
    return backbone


def _kernel(layer: Any) -> Any:
    """What is beneath: with adapters on, `layer.kernel` is their sum."""
    return next(variable for variable in layer.variables if variable.name == "kernel")


@contextlib.contextmanager
def apart(model: keras.Model) -> Iterator[None]:
    """Within, the model is what is beneath its adapters: what is saved of it then is that."""
    layers = list(_adapted(model).values())
    for layer in layers:
        layer.lora_enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.lora_enabled = True


@contextlib.contextmanager
def merged(model: keras.Model) -> Iterator[None]:
    """Within, adapters are part of the weights they correct, and cost nothing; afterwards all is as it was."""
    layers = list(_adapted(model).values())
    kernels = [_kernel(layer) for layer in layers]
    before = [keras.ops.convert_to_numpy(kernel) for kernel in kernels]
    for kernel, layer in zip(kernels, layers, strict=True):
        kernel.assign(layer.kernel)
    try:
        with apart(model):
            yield
    finally:
        for kernel, value in zip(kernels, before, strict=True):
            kernel.assign(value)


def check_policy(policy: freezing.Policy, rank: int | None) -> None:
    """Raise where adapters are asked for and nothing is to be adapted."""
    if rank is not None and policy == "all":
        raise InvalidValueError("freeze=all leaves no block for adapters. Use freeze=none, or a number of blocks")
