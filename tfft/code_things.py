"""What the doctor knows of names: models, their last layers, labels, rates, as assignments and flags tell."""

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any

from tfft.code_reading import Edit, Finding, Names, argument, is_block, is_flag, last_part, name_of, span, value_of

HEADS = ("softmax", "sigmoid")


@dataclasses.dataclass
class Thing:
    """What is known of what a name stands for."""

    kind: str = ""  # "model", "layer", "labels", "rate"
    loaded: bool = False  # a whole model with its old head
    transformer: bool = False
    frozen: bool = False
    activation: str | None = None  # of the last layer; "linear" where it has none; None where it is not known
    units: int | None = None
    labels: str | None = None  # "one-hot", "integers"
    ordered: bool = False  # blocks of equal labels, one after another
    base: "Thing | None" = None  # the model it stands on, called as for training
    base_name: str | None = None
    compiled: ast.Call | None = None
    thawed_at: int | None = None  # line of a flag that changed since compile
    fitted: tuple[str, ...] = ()
    rate: float | None = None


class Follower:
    """Follows the assignments of one scope, and notes what is wrong with a model from how it is put together."""

    def __init__(self, names: Names, source: str) -> None:
        self.names, self.source, self.found = names, source, []  # type: ignore[var-annotated]
        self.lines = source.splitlines()

    def say(
        self, node: Any, rule: str, says: str, instead: str, edits: Sequence[Edit] = (), needs_import: bool = False
    ) -> None:
        """Note a fault at a piece of code."""
        self.found.append(Finding(node.lineno, rule, says, instead, tuple(edits), needs_import))

    def _loop(self, loop: ast.For, things: dict[str, Thing]) -> None:
        """`for layer in model.layers: layer.trainable = ...`."""
        target, over = name_of(loop.target), loop.iter
        over = over.value if isinstance(over, ast.Subscript) else over
        if not (isinstance(over, ast.Attribute) and over.attr == "layers") or target is None:
            return
        for node in ast.walk(loop):
            if isinstance(node, ast.Assign) and is_flag(node.targets[0], target):
                self._flag(node, name_of(over.value), value_of(node.value), things, whole=over is loop.iter)

    def _assign(self, statement: ast.Assign, things: dict[str, Thing]) -> None:
        target, value = statement.targets[0], statement.value
        if isinstance(target, ast.Attribute) and target.attr == "trainable":
            self._flag(statement, name_of(target.value), value_of(value), things, whole=True)
            return
        name = name_of(target)
        if name is None:
            if isinstance(target, ast.Tuple):
                for part in target.elts:
                    things.pop(name_of(part) or "", None)
            return
        things[name] = self._thing(value, things, statement, name)

    def _flag(self, node: Any, name: str | None, value: Any, things: dict[str, Thing], whole: bool) -> None:
        thing = things.get(name or "")
        if thing is None:
            return
        if thing.compiled is not None:
            thing.thawed_at = node.lineno
        if whole:
            thing.frozen = value is False

    def _thing(self, value: ast.expr, things: dict[str, Thing], statement: ast.stmt, name: str) -> Thing:
        if isinstance(value, ast.Name):
            return things.get(value.id, Thing())
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add) and is_block(value.left):
            return Thing("labels", labels="integers", ordered=True)
        if not isinstance(value, ast.Call):
            return Thing()
        full = self.names.full(value.func)
        last = last_part(full) if full else ""
        if last == "load_model" and full.startswith("keras."):
            return Thing("model", loaded=True)
        if full.startswith("keras.applications.") and last[:1].isupper():
            top = value_of(argument(value, "include_top", None)) is not False and not value.args
            return Thing("model", loaded=top, activation="softmax" if top else None)
        if full.startswith(("keras_hub.", "keras_nlp.")) and last == "from_preset":
            return Thing("model", transformer=True)
        if full.startswith("transformers.") and last == "from_pretrained" and ".TF" in full:
            return Thing("model", transformer=True)
        if full == "keras.Sequential" or full == "keras.models.Sequential":
            return self._sequential(value, things)
        if full in ("keras.Model", "keras.models.Model", "keras.Functional"):
            return self._model(value, things, statement, name)
        if full.startswith("keras.optimizers."):
            rate = value_of(argument(value, "learning_rate", 0)) or value_of(argument(value, "lr"))
            return Thing("rate", rate=rate if isinstance(rate, float) else (1e-3 if last.startswith("Adam") else None))
        if last in ("to_categorical", "get_dummies", "one_hot"):
            return Thing("labels", labels="one-hot")
        if isinstance(value.func, ast.Attribute) and value.func.attr in ("fit_transform", "transform"):
            owner = things.get(name_of(value.func.value) or "")
            return Thing("labels", labels="integers") if owner and owner.kind == "label encoder" else Thing()
        if last == "LabelEncoder":
            return Thing("label encoder")
        if last in ("concatenate", "hstack") and full.startswith("numpy.") and value.args:
            parts = value.args[0].elts if isinstance(value.args[0], (ast.List, ast.Tuple)) else []
            made = [last_part(self.names.full(part.func)) for part in parts if isinstance(part, ast.Call)]
            if len(made) > 1 and len(made) == len(parts) and set(made) <= {"zeros", "ones", "full"}:
                return Thing("labels", ordered=True)
        if isinstance(value.func, ast.Call):  # a layer called on something
            return self._layer_call(value, things)
        if isinstance(value.func, ast.Name) and value.func.id in things and things[value.func.id].kind == "model":
            base = things[value.func.id]
            quiet = value_of(argument(value, "training")) is False
            below = (None, None) if quiet else (base, value.func.id)
            return Thing("layer", transformer=base.transformer, base=below[0], base_name=below[1])
        return Thing()

    def _layer_call(self, call: ast.Call, things: dict[str, Thing]) -> Thing:
        made = call.func
        known = Thing("layer")
        if isinstance(made, ast.Call):
            full = self.names.full(made.func)
            if full.startswith("keras.layers."):
                known.activation, known.units = self._layer(made)
        if call.args:
            below = call.args[0]
            source = things.get(name_of(below) or "")
            if source is not None:
                known.base, known.base_name, known.transformer = source.base, source.base_name, source.transformer
            if isinstance(below, ast.Attribute) and below.attr in ("output", "outputs"):
                base = things.get(name_of(below.value) or "")
                if base is not None:
                    known.base, known.base_name, known.transformer = base, name_of(below.value), base.transformer
        return known

    def _layer(self, call: ast.Call) -> tuple[str | None, int | None]:
        """The activation and the units of a layer; None where they are not known."""
        last = last_part(self.names.full(call.func))
        if last == "Dense":
            given = argument(call, "activation", 1)
            shown = "linear" if given is None else value_of(given)
            units = value_of(argument(call, "units", 0))
            return (shown if isinstance(shown, str) else None), (units if isinstance(units, int) else None)
        if last in ("Softmax",):
            return "softmax", None
        if last == "Activation":
            shown = value_of(argument(call, "activation", 0))
            return (shown if isinstance(shown, str) else None), None
        return None, None

    def _sequential(self, call: ast.Call, things: dict[str, Thing]) -> Thing:
        thing = Thing("model")
        layers = call.args[0] if call.args else argument(call, "layers")
        if not isinstance(layers, (ast.List, ast.Tuple)):
            return thing
        for layer in layers.elts:
            self._added(thing, layer, things)
        return thing

    def _added(self, thing: Thing, layer: ast.AST, things: dict[str, Thing]) -> None:
        """One layer more on a Sequential."""
        below = things.get(name_of(layer) or "")
        if below is not None and below.kind == "model":
            thing.transformer |= below.transformer
            thing.base = below if below.frozen else thing.base
            thing.loaded, thing.activation = below.loaded, below.activation or ("softmax" if below.loaded else None)
            return
        if not isinstance(layer, ast.Call):
            thing.activation = None
            return
        full = self.names.full(layer.func)
        if full == "tensorflow_hub.KerasLayer":
            self.say(
                layer,
                "hub-layer",
                "hub.KerasLayer is a Keras 2 layer: Keras 3 refuses it in a Sequential since TensorFlow 2.16",
                "tfft.load_backbone(...), or keras.layers.TFSMLayer on the module's folder",
            )
        activation, units = self._layer(layer)
        if activation in HEADS and (thing.activation == "softmax" or thing.loaded) and last_part(full) == "Dense":
            self._double(layer)
        if last_part(full) not in ("Dropout", "Flatten", "ActivityRegularization"):
            thing.activation, thing.units, thing.loaded = activation, units or thing.units, False

    def _double(self, node: Any, edits: Sequence[Edit] = ()) -> None:
        self.say(
            node,
            "double-softmax",
            "a new softmax on the old one's output learns from probabilities of the old classes, nearly nothing",
            "tfft.replace_head(model, num_classes): the old head goes first",
            edits,
            bool(edits),
        )

    def _model(self, call: ast.Call, things: dict[str, Thing], statement: ast.stmt, name: str) -> Thing:
        outputs = argument(call, "outputs", 1)
        named = things.get(name_of(outputs) or "")
        known = self._layer_call(outputs, things) if isinstance(outputs, ast.Call) else named
        if known is None:
            return Thing("model")
        thing = dataclasses.replace(known, kind="model", compiled=None)
        base = known.base
        if base is not None and base.loaded and known.activation in HEADS:
            self._double_output(outputs, statement, name, known)
        thing.base = base if base is not None and base.frozen else None
        return thing

    def _double_output(self, outputs: Any, statement: Any, name: str, known: Thing) -> None:
        head: Any = outputs if isinstance(outputs, ast.Call) else self._assigned.get(name_of(outputs) or "")
        if head is None:
            self._double(statement)
            return
        dense: Any = getattr(head, "value", head).func
        units = argument(dense, "units", 0)
        if units is None:
            self._double(head)
            return
        shown = ast.get_source_segment(self.source, units) or "num_classes"
        edits = [Edit(*span(statement), f"{name} = tfft.replace_head({known.base_name}, {shown})")]
        if isinstance(head, ast.Assign):
            width = len(self.lines[head.lineno - 1].encode())
            note = "# the old head goes with replace_head below"
            edits.append(Edit((head.lineno, head.col_offset), (head.end_lineno or head.lineno, width), note))
        self._double(head, edits)

    @property
    def _assigned(self) -> dict[str, ast.Assign]:
        """Name -> its only assignment to a layer's call, in the whole file."""
        found: dict[str, list[ast.Assign]] = {}
        for node in ast.walk(ast.parse(self.source)):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found.setdefault(node.targets[0].id, []).append(node)
        return {
            name: nodes[0]
            for name, nodes in found.items()
            if len(nodes) == 1 and isinstance(nodes[0].value, ast.Call) and isinstance(nodes[0].value.func, ast.Call)
        }
