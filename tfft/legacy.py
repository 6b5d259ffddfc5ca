"""Models that other people saved, as native Keras 3 models: flat, functional, ready to be cut and frozen.

`.keras` files and SavedModel folders are Keras's own to read. HDF5 files of Keras 1 and 2 are rebuilt here from their
configuration, layer by layer; no code in a file is run.
"""

import collections
import io
import json
import logging
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfft import graph, old_layers, old_weights
from tfft.errors import InvalidValueError, NotFoundError

log = logging.getLogger(__name__)

MODELS = ("Model", "Functional", "Sequential")
CONSTANT = "_CONSTANT_VALUE"  # in place of a tensor's name in the files of TensorFlow 2.4 and later
# What a layer's size is told by: none is larger than all the weights of the file.
SIZES = ("units", "filters", "input_dim", "output_dim", "depth_multiplier", "num_heads", "key_dim")


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

    Example:
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


def _assign_archive(group: Any, config: Mapping[str, Any], made: Mapping[str, tuple[Any, str]], builder: Any) -> None:
    """Weights by the names such files give layers: `dense`, `dense_1`, ..., in the order of the model."""
    group, counts = group.get("layers", group.get("_layer_checkpoint_dependencies", {})), collections.Counter[str]()
    for layer_config in config["config"]["layers"]:
        kind, name = layer_config["class_name"], _name(layer_config)
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


class Builder:
    """Makes a model of an old configuration.

    Args:
        custom_objects: classes and functions by name.
        safe_mode: whether code in the file stays unread.
        numbers: in all weights of the file; no layer may be larger.

    Attributes:
        made: name -> (layer, its class's name in the file), of the outermost model.
        inside: the same of each model in it, by its id.
    """

    def __init__(self, custom_objects: dict[str, Any], safe_mode: bool, numbers: int) -> None:
        self.custom_objects, self.safe_mode, self.numbers = custom_objects, safe_mode, numbers
        self.made: dict[str, tuple[Any, str]] = {}
        self.inside: dict[int, dict[str, tuple[Any, str]]] = {}

    def model(self, config: Mapping[str, Any], outermost: bool = True) -> keras.Model:
        """A model of the configuration of one."""
        kind, settings = config["class_name"], config["config"]
        if kind not in MODELS:
            raise InvalidValueError(f"the file holds a {kind}; only Sequential and functional models can be read")
        made: dict[str, tuple[Any, str]] = {}
        build = self._sequential if kind == "Sequential" else self._functional
        model = build(settings, made)
        self.inside[id(model)] = made
        if outermost:
            self.made = made
        return model

    def _sequential(self, settings: Any, made: dict[str, tuple[Any, str]]) -> keras.Model:
        configs = settings if isinstance(settings, list) else settings["layers"]
        name = None if isinstance(settings, list) else settings.get("name")
        first = configs[0]
        if first["class_name"] == "Merge":
            return self._merged_branches(configs, made)
        if first["class_name"] in MODELS:
            inner = self._made(first, made)
            inputs: Any = [keras.Input(batch_shape=t.shape, dtype=t.dtype) for t in inner.inputs]
            inputs = inputs if len(inputs) > 1 else inputs[0]
            return self._stacked(inputs, configs, made, name)
        shape = _input_shape(first, settings)
        if shape is None:
            raise InvalidValueError(
                f"layer {_name(first)!r} comes first and says no shape of the input; it cannot be built"
            )
        dtype = first["config"].get("dtype")
        inputs = keras.Input(batch_shape=shape, dtype=dtype if isinstance(dtype, str) else None)
        return self._stacked(inputs, configs[1:] if first["class_name"] == "InputLayer" else configs, made, name)

    def _stacked(self, inputs: Any, configs: Sequence[Any], made: dict[str, tuple[Any, str]], name: Any) -> keras.Model:
        x = inputs
        for config in configs:
            layer = made[_name(config)][0] if _name(config) in made else self._made(config, made)
            x = self._called(layer, _listed(x), {}, config)
        return keras.Model(inputs, x, name=_plain(name))

    def _merged_branches(self, configs: Sequence[Any], made: dict[str, tuple[Any, str]]) -> keras.Model:
        """Keras 1: a Sequential whose first layer merges others."""
        merge = dict(configs[0]["config"])
        branches = []
        for config in merge.pop("layers"):
            own: dict[str, tuple[Any, str]] = {}
            branch = self._sequential(config["config"], own)
            made |= own
            branches.append(branch)
        inputs = [t for branch in branches for t in branch.inputs]
        x = self._called(
            self._made({"class_name": "Merge", "config": merge}, made),
            [branch.output for branch in branches],
            {},
            configs[0],
        )
        for config in configs[1:]:
            x = self._called(self._made(config, made), [x], {}, config)
        return keras.Model(inputs, x)

    def _functional(self, settings: Mapping[str, Any], made: dict[str, tuple[Any, str]]) -> keras.Model:
        tensors: dict[tuple[str, int], Any] = {}  # what each call of a layer gave
        first, todo = _first_calls(settings), []
        for config in settings["layers"]:
            name = _name(config)
            if config["class_name"] == "InputLayer":
                own = config["config"]
                shape = own.get("batch_input_shape") or own.get("batch_shape")
                dtype = own.get("dtype")
                tensors[name, 0] = keras.Input(
                    batch_shape=shape, dtype=dtype if isinstance(dtype, str) else None, name=_plain(name)
                )
                continue
            layer = self._made(config, made)
            begin = first.get(name, 0) if config["class_name"] in MODELS else 0
            todo += [(name, layer, i, node, config) for i, node in enumerate(config.get("inbound_nodes", []), begin)]
        while todo:
            later = []
            for name, layer, number, node, config in todo:
                given = _arguments(node, tensors)
                if given is None:
                    later.append((name, layer, number, node, config))
                    continue
                tensors[name, number] = self._called(layer, *given, config)
            if len(later) == len(todo):
                raise InvalidValueError(f"layer {todo[0][0]!r} takes what no layer of the file gives")
            todo = later
        inputs, outputs = (_structure(settings[part], tensors) for part in ("input_layers", "output_layers"))
        return keras.Model(inputs, outputs, name=_plain(settings.get("name")))

    def _made(self, config: Mapping[str, Any], made: dict[str, tuple[Any, str]]) -> Any:
        layer = self.layer(config)
        made[_name(config)] = layer, config["class_name"]
        return layer

    def layer(self, config: Mapping[str, Any]) -> Any:
        """A layer of its configuration; of a model, the model."""
        kind, settings = config["class_name"], config["config"]
        if kind in MODELS:
            named = settings if isinstance(settings, list) else {"name": _name(config), **settings}
            return self.model({"class_name": kind, "config": named}, outermost=False)
        if kind == "Lambda":
            return self._lambda(config)
        kind, settings = old_layers.translated(kind, settings)
        name = settings.get("name") or _name(config)
        for size in SIZES:
            if isinstance(settings.get(size), (int, float)) and settings[size] > max(self.numbers, 1):
                raise InvalidValueError(
                    f"layer {name!r} says {size}={settings[size]}, more than the file has numbers ({self.numbers})"
                )
        settings["name"], trainable = _plain(name), settings.pop("trainable", True)
        made = old_layers.layer_class(kind, name, self.custom_objects)
        for part in ("layer", "backward_layer", "cell"):
            if isinstance(settings.get(part), Mapping):
                settings[part] = self._part(settings[part])
        if isinstance(settings.get("cells"), list):
            settings["cells"] = [self._part(cell) for cell in settings["cells"]]
        for part in ("activation", "recurrent_activation"):
            settings |= {part: self._activation(settings[part], name)} if part in settings else {}
        old_layers.refuse_unknown(kind, made, settings)
        try:
            layer = made(**settings) if made.__module__.startswith(("keras", "tfft")) else made.from_config(settings)
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InvalidValueError(f"layer {name!r}, a {kind}, cannot be made: {reason}") from error
        layer.trainable = bool(trainable)
        return layer

    def _part(self, config: Mapping[str, Any]) -> Any:
        return self.layer({"class_name": config["class_name"], "config": config["config"]})

    def _activation(self, value: Any, name: str) -> Any:
        if isinstance(value, str) and value in self.custom_objects:
            return self.custom_objects[value]
        if isinstance(value, Mapping) and "class_name" in value and isinstance(value.get("config"), Mapping):
            return self.layer(value)
        if (
            value is not None
            and not callable(value)
            and (not isinstance(value, str) or not hasattr(keras.activations, value))
        ):
            raise InvalidValueError(
                f"layer {name!r} has the activation {value!r}, which Keras 3 does not have. Pass "
                f"custom_objects={{{value!r}: ...}} with a function"
            )
        return value

    def _lambda(self, config: Mapping[str, Any]) -> Any:
        name, function = _name(config), config["config"].get("function")
        known = function if isinstance(function, str) else None
        if isinstance(function, Mapping):
            known = function.get("config") if isinstance(function.get("config"), str) else function.get("class_name")
        if known in self.custom_objects or name in self.custom_objects:
            wanted = self.custom_objects.get(str(known)) or self.custom_objects[name]
            return keras.layers.Lambda(wanted, name=_plain(name), arguments=config["config"].get("arguments") or {})
        if self.safe_mode:
            raise InvalidValueError(
                f"layer {name!r} is a Lambda: its function is code in the file, which is not run. Pass "
                f"custom_objects={{{name!r}: function}}, or safe_mode=False where you trust the file"
            )
        settings = {
            n: v for n, v in config["config"].items() if n in ("name", "function", "arguments", "function_type")
        }
        try:
            return keras.layers.Lambda.from_config(settings, safe_mode=False)
        except Exception as error:  # bytecode of another Python ends in anything
            raise InvalidValueError(
                f"the code of layer {name!r} does not run on this Python. Pass custom_objects={{{name!r}: function}}"
            ) from error

    def _called(self, layer: Any, inputs: list[Any], kwargs: dict[str, Any], config: Mapping[str, Any]) -> Any:
        for t in inputs:
            self._refuse_large(layer, t)
        if isinstance(layer, keras.Model):  # taken apart: its layers are the model's
            return graph.apply(layer, inputs)
        kwargs = {n: v for n, v in kwargs.items() if v is not None or n == "perm"}
        kwargs.pop("name", None)
        if isinstance(layer, old_layers.Operation):
            if not isinstance(inputs[0], (keras.KerasTensor, list)):
                layer.first, inputs = inputs[0], [kwargs.pop("y")]
            return layer(inputs[0] if len(inputs) == 1 else inputs, **kwargs)
        try:
            if len(inputs) > 1 and type(layer).__name__ in old_layers.RECURRENT:
                states = inputs[1:]
                return layer(inputs[0], initial_state=states if len(states) > 1 else states[0], **kwargs)
            return layer(inputs[0] if len(inputs) == 1 else inputs, **kwargs)
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InvalidValueError(f"layer {_name(config)!r} cannot be called as the file says: {reason}") from error

    def _refuse_large(self, layer: Any, t: Any) -> None:
        """Before it is built: a layer with weights has at least as many as its input is wide."""
        if not isinstance(t, keras.KerasTensor) or not hasattr(layer, "kernel_initializer") or len(t.shape) < 2:
            return
        width = t.shape[1] if getattr(layer, "data_format", None) == "channels_first" else t.shape[-1]
        if width is not None and width * int(getattr(layer, "units", 1) or 1) > max(self.numbers, 1):
            raise InvalidValueError(
                f"layer {layer.name!r} would have more weights than the file has numbers ({self.numbers})"
            )


def _name(config: Mapping[str, Any]) -> str:
    own = config["config"]
    return str(config.get("name") or (own.get("name") if isinstance(own, Mapping) else "") or config["class_name"])


def _plain(name: Any) -> str | None:
    """A name that Keras 3 takes: it has no slash."""
    return None if name is None else re.sub(r"[/\\]", "_", str(name))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _input_shape(first: Mapping[str, Any], settings: Any) -> tuple[int | None, ...] | None:
    own = first["config"]
    given = own.get("batch_input_shape") or own.get("batch_shape")
    if given is None and isinstance(settings, Mapping):
        given = settings.get("build_input_shape")
    if given is None and first["class_name"] == "Embedding":
        given = (None, own.get("input_length"))
    if given is None and isinstance(own.get("input_dim"), int):
        given = (None, own["input_dim"])
    return None if given is None else tuple(given)


def _is_tensor(value: Any) -> bool:
    return (
        not _is_constant(value)
        and isinstance(value, (list, tuple))
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and isinstance(value[2], int)
        and not isinstance(value[1], bool)
    )


def _is_constant(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) >= 3 and value[0] == CONSTANT


def _arguments(node: Any, tensors: Mapping[tuple[str, int], Any]) -> tuple[list[Any], dict[str, Any]] | None:
    """What one call of a layer took: its inputs and its named arguments; None where a tensor is not there yet."""
    missing = False

    def one(value: Any) -> Any:
        nonlocal missing
        if _is_constant(value):
            return value[2]
        if _is_tensor(value):
            found = tensors.get((value[0], value[1]))
            missing |= found is None
            return None if found is None else _listed(keras.tree.flatten(found))[value[2]]
        if isinstance(value, (list, tuple)) and any(_is_tensor(part) for part in value):
            return [one(part) for part in value]
        return value

    rows = [node] if _is_tensor(node) or _is_constant(node) else node
    if isinstance(rows, Mapping):
        rows = list(rows.values())
    inputs: list[Any] = []
    kwargs: dict[str, Any] = {}
    for row in rows:
        inputs.append(one(row))
        if (_is_tensor(row) or _is_constant(row)) and len(row) == 4:
            kwargs |= {name: one(value) for name, value in row[3].items()}
    return None if missing else (inputs, kwargs)


def _first_calls(settings: Mapping[str, Any]) -> dict[str, int]:
    """Name -> the number of a layer's first call: a nested model's is 1, for it was called once when it was made."""
    first: dict[str, int] = {}

    def look(value: Any) -> None:
        if _is_tensor(value):
            first[value[0]] = min(value[1], first.get(value[0], value[1]))
        for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
            look(part)

    look([config.get("inbound_nodes", []) for config in settings["layers"]])
    look([settings["input_layers"], settings["output_layers"]])
    return first


def _structure(places: Any, tensors: Mapping[tuple[str, int], Any]) -> Any:
    if _is_tensor(places):
        return _listed(keras.tree.flatten(tensors[places[0], places[1]]))[places[2]]
    if isinstance(places, Mapping):
        return {name: _structure(place, tensors) for name, place in places.items()}
    found = [_structure(place, tensors) for place in places]
    return found[0] if len(found) == 1 else found
