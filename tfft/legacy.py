"""Models that other people saved, as native Keras 3 models: flat, functional, ready to be cut and frozen.

Files of Keras 3 and SavedModel folders are read as Keras and TensorFlow do. Those of Keras 1 and 2 are rebuilt from
their configuration, layer by layer; no code in a file is run.
"""

import collections
import io
import json
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfft import graph, old_weights
from tfft.errors import InvalidValueError, NotFoundError
from tfft.rebuilding import Builder, layer_name

log = logging.getLogger(__name__)


def load_model(
    path: str | os.PathLike[str],
    *,
    model: keras.Model | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    safe_mode: bool = True,
) -> keras.Model:
    """Load a model that was saved by any Keras, as a Keras 3 model.

    Args:
        path: `.keras`, `.h5` or `.hdf5` of Keras 1.2 to 3, or a SavedModel folder. The last becomes one layer, which
            answers but cannot be cut, frozen or trained.
        model: the architecture, for a file that holds weights alone; it is given them.
        custom_objects: class or function by its name in the file, for what is not Keras's own.
        safe_mode: False runs the code of Lambda layers that the file carries. Do so only with files you trust.

    Returns:
        The model, functional and flat: nested models are taken apart into their layers.

    Raises:
        NotFoundError: there is no such file.
        InvalidValueError: it is damaged, no model, of layers that cannot be translated, or carries code; the message
            names the layer and what to pass.

    Examples:
        model = tfft.load_model("pretrained_model.h5")
        model.trainable = False
    """
    path = Path(path)
    if not path.exists():
        raise NotFoundError(f"no such file: {path}")
    if path.is_dir():
        return _saved_model(path)
    if path.suffix == ".keras":
        version = _archive_version(path)
        if _major(version) < 3:
            return _of_archive(path, dict(custom_objects or {}), safe_mode)
        return _native(path, custom_objects, safe_mode)
    with old_weights.opened(path) as file:
        config = old_weights.attribute(file, "model_config")
        group = file.get("model_weights", file)
        if config is None:
            return _weights_alone(path, group, model)
        version = old_weights.text(old_weights.attribute(file, "keras_version") or _unknown_version(group))
        arrays = old_weights.layers(group)
        return _rebuilt(_json(config, path), arrays, version, dict(custom_objects or {}), safe_mode, str(path))


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], **loading: Any) -> keras.Model:
    """Load a model as `load_model` does and write it as a `.keras` file, whole or not at all.

    Raises:
        InvalidValueError: the target exists, or is not called `.keras`; and what `load_model` raises.
    """
    path = Path(target)
    if path.suffix != ".keras":
        raise InvalidValueError(f"a model of Keras 3 is a .keras file. Received: {path}")
    if os.path.lexists(path):
        raise InvalidValueError(f"{path} exists already. Choose another name, or remove it")
    model = load_model(source, **loading)
    scratch = path.with_name(f".{path.stem}.part.keras")
    try:
        model.save(scratch)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return model


def _unknown_version(group: Any) -> Any:
    return old_weights.attribute(group, "keras_version") or "1.0"


def _json(config: Any, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(old_weights.text(config))
    except ValueError as error:
        raise InvalidValueError(f"{path}: its model_config is not JSON: {error}") from None
    if not isinstance(found, dict) or "class_name" not in found or "config" not in found:
        raise InvalidValueError(f"{path}: its model_config describes no model")
    return found


def _archive_version(path: Path) -> str:
    """The Keras that wrote a `.keras` file; "3" where that cannot be read, for Keras itself to say why."""
    try:
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (zipfile.BadZipFile, KeyError, ValueError, OSError):
        return "3"


def _of_archive(path: Path, custom_objects: dict[str, Any], safe_mode: bool) -> keras.Model:
    """A `.keras` file of Keras 2.12 to 2.15, or of tf_keras."""
    try:
        with zipfile.ZipFile(path) as archive:
            config, weights = _json(archive.read("config.json"), path), io.BytesIO(archive.read("model.weights.h5"))
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise InvalidValueError(f"{path} is damaged: {error}") from None
    with old_weights.opened(weights) as file:
        numbers = sum(value.size for _, value in old_weights.gathered(file))
        builder = Builder(custom_objects, safe_mode, numbers)
        model = builder.model(config)
        _assign_archive(file, config, builder.made, builder)
    return model


def _assign_archive(
    group: Any, config: Mapping[str, Any], made: Mapping[str, tuple[Any, str]], builder: Builder
) -> None:
    """Weights by the names such files give layers: `dense`, `dense_1`, ..., in the order of the model."""
    group, counts = group.get("layers", group.get("_layer_checkpoint_dependencies", {})), collections.Counter[str]()
    for layer_config in config["config"]["layers"]:
        kind, name = layer_config["class_name"], layer_name(layer_config)
        if kind == "InputLayer" and config["class_name"] == "Sequential":
            continue
        plain = _snake(kind)
        key = f"{plain}_{counts[plain]}" if counts[plain] else plain
        counts[plain] += 1
        layer = made[name][0] if name in made else None
        if layer is None or not layer.weights:
            continue
        if key not in group:
            raise InvalidValueError(f"{group.file.filename} has no weights of layer {name!r}")
        if isinstance(layer, keras.Model):
            _assign_archive(group[key], layer_config, builder.inside[id(layer)], builder)
        else:
            old_weights.assign(layer, kind, old_weights.gathered(group[key]), 2)


def _snake(kind: str) -> str:
    """Keras's own way: `Conv2DTranspose` -> `conv2d_transpose`."""
    name = re.sub(r"\W+", "", kind)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _native(path: Path, custom_objects: Mapping[str, Any] | None, safe_mode: bool) -> keras.Model:
    try:
        model = keras.saving.load_model(path, custom_objects=custom_objects, compile=False, safe_mode=safe_mode)
    except Exception as error:  # Keras raises what it meets: ValueError, TypeError, KeyError, OSError, BadZipFile
        reason = " ".join(str(error).split())[:300]
        raise InvalidValueError(f"{path} does not load: {reason}") from error
    return graph.flat(model)


class Signature(keras.layers.Layer):
    """A signature of a SavedModel as a layer, which answers and no more.

    Args:
        function: of tensors by name.
    """

    def __init__(self, function: Any, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.function = function
        self.built = True

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> Any:
        """What the signature says."""
        outputs = self.function.structured_outputs
        return {name: keras.KerasTensor(tuple(t.shape), t.dtype.name) for name, t in outputs.items()}

    def call(self, inputs: Any) -> Any:
        """Outputs by name, of inputs by name."""
        return self.function(**inputs)


def _saved_model(path: Path) -> keras.Model:
    if not (path / "saved_model.pb").is_file():
        raise InvalidValueError(f"{path} is a folder, but no SavedModel: it has no saved_model.pb")
    loaded = tf.saved_model.load(str(path))
    signatures = loaded.signatures
    name = "serving_default" if "serving_default" in signatures else next(iter(signatures), None)
    if name is None:
        raise InvalidValueError(f"{path} has no signature to call")
    taken = signatures[name].structured_input_signature[1]
    inputs = {n: keras.Input(batch_shape=t.shape, dtype=t.dtype.name, name=n) for n, t in taken.items()}
    log.warning("%s becomes one layer, which answers by %r; it cannot be cut, frozen in part or trained", path, name)
    layer = Signature(signatures[name], name=name)
    layer.loaded = loaded  # its variables live as long as this does
    return keras.Model(inputs, layer(inputs))


def _weights_alone(path: Path, group: Any, model: keras.Model | None) -> keras.Model:
    arrays = old_weights.layers(group)
    if model is None:
        named = ", ".join(list(arrays)[:8])
        raise InvalidValueError(
            f"{path} holds weights and no architecture (layers {named}). Build the model and pass model=..."
        )
    version = _major(old_weights.text(old_weights.attribute(group, "keras_version") or "2"))
    weighted = [name for name, rows in arrays.items() if rows]
    layers = [layer for layer in model.layers if layer.weights]
    by_name = {layer.name: layer for layer in layers}
    if all(name in by_name for name in weighted):
        pairs = [(by_name[name], arrays[name]) for name in weighted]
    elif len(weighted) == len(layers):
        pairs = [(layer, arrays[name]) for layer, name in zip(layers, weighted, strict=True)]
    else:
        raise InvalidValueError(
            f"{path} has weights of {len(weighted)} layers ({', '.join(weighted[:6])}), the model {len(layers)} layers "
            f"with weights ({', '.join(list(by_name)[:6])})"
        )
    for layer, rows in pairs:
        old_weights.assign(layer, type(layer).__name__, rows, version)
    return model


def _major(version: str) -> int:
    found = re.match(r"(\d+)", version)
    return min(max(int(found.group(1)), 1), 3) if found else 2


def _rebuilt(
    config: dict[str, Any],
    arrays: dict[str, old_weights.Arrays],
    version: str,
    custom_objects: dict[str, Any],
    safe_mode: bool,
    path: str,
) -> keras.Model:
    if _major(version) == 3:
        return _native(Path(path), custom_objects, safe_mode)
    builder = Builder(custom_objects, safe_mode, old_weights.stored(arrays))
    model = builder.model(config)
    found = {name: rows for name, rows in arrays.items() if rows}
    for name, rows in found.items():
        if name not in builder.made:
            raise InvalidValueError(f"{path} has weights of a layer {name!r} that its model does not have")
        layer, kind = builder.made[name]
        old_weights.assign(layer, kind, rows, _major(version))
    missing = [name for name, (layer, _) in builder.made.items() if layer.weights and name not in found]
    if missing:
        raise InvalidValueError(f"{path} has no weights of {', '.join(missing[:5])}")
    return model
