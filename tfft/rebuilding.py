"""A model of the configuration that Keras 1 or 2 wrote into its file: layer by layer, nested models taken apart."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfft import graph, old_layers
from tfft.errors import InvalidValueError

MODELS = ("Model", "Functional", "Sequential")
CONSTANT = "_CONSTANT_VALUE"  # in place of a tensor's name in the files of TensorFlow 2.4 and later
# What a layer's size is told by: none is larger than all the weights of the file.
SIZES = ("units", "filters", "input_dim", "output_dim", "depth_multiplier", "num_heads", "key_dim")


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
                f"layer {layer_name(first)!r} comes first and says no shape of the input; it cannot be built"
            )
        dtype = first["config"].get("dtype")
        inputs = keras.Input(batch_shape=shape, dtype=dtype if isinstance(dtype, str) else None)
        return self._stacked(inputs, configs[1:] if first["class_name"] == "InputLayer" else configs, made, name)

    def _stacked(self, inputs: Any, configs: Sequence[Any], made: dict[str, tuple[Any, str]], name: Any) -> keras.Model:
        x = inputs
        for config in configs:
            layer = made[layer_name(config)][0] if layer_name(config) in made else self._made(config, made)
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
            name = layer_name(config)
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
        made[layer_name(config)] = layer, config["class_name"]
        return layer

    def layer(self, config: Mapping[str, Any]) -> Any:
        """A layer of its configuration; of a model, the model."""
        kind, settings = config["class_name"], config["config"]
        if kind in MODELS:
            named = settings if isinstance(settings, list) else {"name": layer_name(config), **settings}
            return self.model({"class_name": kind, "config": named}, outermost=False)
        if kind == "Lambda":
            return self._lambda(config)
        kind, settings = old_layers.translated(kind, settings)
        name = settings.get("name") or layer_name(config)
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
        name, function = layer_name(config), config["config"].get("function")
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
            raise InvalidValueError(
                f"layer {layer_name(config)!r} cannot be called as the file says: {reason}"
            ) from error

    def _refuse_large(self, layer: Any, t: Any) -> None:
        """Before it is built: a layer with weights has at least as many as its input is wide."""
        if not isinstance(t, keras.KerasTensor) or not hasattr(layer, "kernel_initializer") or len(t.shape) < 2:
            return
        width = t.shape[1] if getattr(layer, "data_format", None) == "channels_first" else t.shape[-1]
        if width is not None and width * int(getattr(layer, "units", 1) or 1) > max(self.numbers, 1):
            raise InvalidValueError(
                f"layer {layer.name!r} would have more weights than the file has numbers ({self.numbers})"
            )


def layer_name(config: Mapping[str, Any]) -> str:
    """What a layer is called in its file."""
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
