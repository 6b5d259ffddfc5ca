"""What the doctor looks for: statements are followed in order, with what is known of each name."""

import ast
import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from tfft.code_reading import (
    Edit,
    Finding,
    Names,
    argument,
    calls_of,
    is_block,
    is_flag,
    last_part,
    name_of,
    span,
    value_of,
)

HEADS = ("softmax", "sigmoid")
CATEGORICAL = ("categorical_crossentropy", "CategoricalCrossentropy")
SPARSE = ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy")
BINARY = ("binary_crossentropy", "BinaryCrossentropy")
RATE = 5e-4  # above it a thawed transformer forgets what it knew


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


class Reader:
    """Follows the statements of one scope in order."""

    def __init__(self, names: Names, source: str) -> None:
        self.names, self.source, self.found = names, source, []  # type: ignore[var-annotated]
        self.lines = source.splitlines()

    def say(
        self, node: Any, rule: str, says: str, instead: str, edits: Sequence[Edit] = (), needs_import: bool = False
    ) -> None:
        """Note a fault at a piece of code."""
        self.found.append(Finding(node.lineno, rule, says, instead, tuple(edits), needs_import))

    def block(self, body: Sequence[ast.stmt], things: dict[str, Thing]) -> None:
        """Read statements; what is known of names is kept in `things`."""
        for statement in body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            self._imports(statement)
            for call in calls_of(statement):
                self._call(call, statement, things)
            if isinstance(statement, ast.Assign):
                self._assign(statement, things)
            elif isinstance(statement, (ast.For, ast.While, ast.If, ast.With, ast.Try)):
                if isinstance(statement, ast.For):
                    self._loop(statement, things)
                for part in ("body", "orelse", "finalbody"):
                    self.block(getattr(statement, part, []), things)

    # --- what stands for itself

    def _imports(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Import):
            for name in statement.names:
                if name.name.split(".")[0] == "keras_nlp":
                    self._keras_nlp(statement, name)
        if isinstance(statement, ast.ImportFrom) and statement.module:
            if statement.module.split(".")[0] == "keras_nlp":
                self._keras_nlp(statement, None)
            if statement.module.split(".")[0] == "transformers":
                gone = [name.name for name in statement.names if re.match(r"TF[A-Z]", name.name)]
                if gone:
                    self.say(
                        statement,
                        "removed-class",
                        f"Transformers 5 has no {', '.join(gone)}: it dropped TensorFlow",
                        "tfft.load_backbone('hf://owner/name'): KerasHub converts the weights",
                    )

    def _keras_nlp(self, statement: Any, name: ast.alias | None) -> None:
        line = self.lines[statement.lineno - 1]
        new = re.sub(r"\bkeras_nlp\b", "keras_hub", line)
        if name is not None and name.asname is None:
            new = line.replace("keras_nlp", "keras_hub as keras_nlp", 1) if "," not in line else line
        edit = Edit((statement.lineno, 0), (statement.lineno, len(line.encode())), new)
        self.say(statement, "renamed-package", "keras_nlp is now called keras_hub", "import keras_hub", [edit])

    def _loop(self, loop: ast.For, things: dict[str, Thing]) -> None:
        """`for layer in model.layers: layer.trainable = ...`."""
        target, over = name_of(loop.target), loop.iter
        over = over.value if isinstance(over, ast.Subscript) else over
        if not (isinstance(over, ast.Attribute) and over.attr == "layers") or target is None:
            return
        for node in ast.walk(loop):
            if isinstance(node, ast.Assign) and is_flag(node.targets[0], target):
                self._flag(node, name_of(over.value), value_of(node.value), things, whole=over is loop.iter)

    # --- assignments

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

    # --- calls

    def _call(self, call: ast.Call, statement: ast.stmt, things: dict[str, Thing]) -> None:
        full = self.names.full(call.func)
        if full:
            self._function(call, full)
        if isinstance(call.func, ast.Attribute):
            self._method(call, call.func, statement, things)

    def _function(self, call: ast.Call, full: str) -> None:
        last = last_part(full)
        if last == "load_model" and full.startswith("keras."):
            path = value_of(argument(call, "filepath", 0))
            if isinstance(path, str) and path.endswith((".h5", ".hdf5")):
                more = " Its custom objects are passed on." if argument(call, "custom_objects") else ""
                self.say(
                    call,
                    "old-file",
                    "Keras 3 refuses most .h5 files that Keras 1 and 2 wrote: their settings have other names." + more,
                    "tfft.load_model(path): the same model, native and flat",
                    [Edit(*span(call.func), "tfft.load_model")],
                    True,
                )
        if full.startswith("keras.optimizers."):
            for keyword in call.keywords:
                if keyword.arg == "lr":
                    begin = (keyword.lineno, keyword.col_offset)
                    edit = Edit(begin, (begin[0], begin[1] + 2), "learning_rate")
                    self.say(call, "old-argument", "optimizers have no lr any more", "learning_rate=", [edit])
                if keyword.arg == "decay":
                    self.say(
                        call,
                        "old-argument",
                        "optimizers have no decay any more",
                        "a schedule, such as keras.optimizers.schedules.InverseTimeDecay, as learning_rate",
                    )
        if ".experimental.preprocessing." in full and full.startswith("keras.layers."):
            written = ast.get_source_segment(self.source, call.func) or ""
            edit = Edit(*span(call.func), written.replace("experimental.preprocessing.", ""))
            self.say(
                call,
                "moved-layer",
                "keras.layers.experimental.preprocessing is gone",
                f"keras.layers.{last}",
                [edit] if "experimental.preprocessing." in written else [],
            )
        if last in ("pad_sequences",) and (value_of(argument(call, "maxlen", 1)) or 0) >= 512:
            self._padding(call)
        if (value_of(argument(call, "sequence_length")) or 0) == 512 and full.startswith(("keras_hub.", "keras_nlp.")):
            self._padding(call)

    def _padding(self, call: ast.Call) -> None:
        self.say(
            call,
            "padded-to-512",
            "every text is padded to 512 tokens and computed as if it had them: up to ten times the work",
            "pad each batch to its longest text; tfft does, and says how much is padding",
        )

    def _method(self, call: ast.Call, method: ast.Attribute, statement: ast.stmt, things: dict[str, Thing]) -> None:
        name, owner = method.attr, name_of(method.value)
        thing = things.get(owner or "")
        end = (method.end_lineno or method.lineno, method.end_col_offset or 0)
        if name in ("fit_generator", "evaluate_generator", "predict_generator"):
            new = name.removesuffix("_generator")
            edit = Edit((end[0], end[1] - len(name)), end, new)
            self.say(
                call, "old-method", f"models have no {name} any more; {new} takes generators", f"model.{new}", [edit]
            )
        if name == "predict_classes" and (thing is None or thing.kind == "model"):
            after = (call.end_lineno or call.lineno, call.end_col_offset or 0)
            edits = [Edit((end[0], end[1] - len(name)), end, "predict"), Edit(after, after, ".argmax(axis=-1)")]
            self.say(call, "old-method", f"models have no {name}", "model.predict(x).argmax(axis=-1)", edits)
        if name == "predict_proba" and thing is not None and thing.kind == "model":
            edits = [Edit((end[0], end[1] - len(name)), end, "predict")]
            self.say(call, "old-method", f"models have no {name}", "model.predict(x)", edits)
        if value_of(argument(call, "padding")) == "max_length" and value_of(argument(call, "max_length")) == 512:
            self._padding(call)
        if name in ("fit", "fit_transform") and thing is not None and thing.kind == "label encoder" and call.args:
            self._fitted_on_test(call, call.args[0])
        if thing is None or thing.kind != "model":
            return
        if name == "add" and call.args:
            self._added(thing, call.args[0], things)
        if name == "compile":
            self._compile(call, statement, thing, owner or "", things)
        if name in ("fit", "evaluate"):
            self._data(call, name, thing, things)
        if name == "enable_lora":
            thing.frozen = False

    def _fitted_on_test(self, call: ast.Call, data: ast.expr) -> None:
        shown = ast.get_source_segment(self.source, data) or ""
        if re.search(r"(^|_)test(_|$)", name_of(data) or shown.split("[")[0]):
            self.say(
                call,
                "encoder-on-test",
                f"labels are numbered anew from {shown}: the same label may get another number than in training",
                "fit the encoder on the training labels; transform() the test labels",
            )

    def _compile(self, call: ast.Call, statement: Any, thing: Thing, owner: str, things: dict[str, Thing]) -> None:
        thing.compiled, thing.thawed_at = call, None
        loss = argument(call, "loss", 1)
        kind, logits = self._loss(loss)
        if kind and logits and thing.activation in HEADS:
            self.say(
                loss or call,
                "softmax-as-logits",
                f"from_logits=True takes a second {thing.activation} of what is one already: the loss is flat",
                "from_logits=False, or a last layer without an activation",
                self._without_logits(loss),
            )
        if kind and not logits and thing.activation == "linear" and kind in (*CATEGORICAL, *SPARSE, *BINARY):
            self.say(
                loss or call,
                "logits-as-probabilities",
                "the last layer has no activation, and the loss takes its outputs for probabilities",
                "from_logits=True in the loss, or activation='softmax' in the layer",
            )
        if kind in (*CATEGORICAL, *SPARSE) and thing.activation == "sigmoid" and (thing.units or 0) >= 3:
            self.say(
                loss or call,
                "sigmoid-of-classes",
                f"{thing.units} classes that exclude each other have probabilities that sum to 1; sigmoids do not",
                "activation='softmax'",
            )
        self._rate(call, thing, things)
        if thing.base is not None and thing.base.frozen:
            indent = " " * statement.col_offset
            edit = Edit(
                (statement.lineno, statement.col_offset),
                (statement.lineno, statement.col_offset),
                f"{owner} = tfft.join(*tfft.split({owner}))  # frozen layers in inference mode\n{indent}",
            )
            self.say(
                call,
                "frozen-in-training-mode",
                "trainable=False keeps weights from learning; dropout below still drops in fit, every epoch",
                "call the frozen part with training=False, or train what tfft.split leaves above it",
                [edit],
                True,
            )

    def _without_logits(self, loss: ast.expr | None) -> list[Edit]:
        if isinstance(loss, ast.Call):
            for keyword in loss.keywords:
                if keyword.arg == "from_logits":
                    return [Edit(*span(keyword.value), "False")]
        return []

    def _loss(self, loss: ast.expr | None) -> tuple[str | None, bool]:
        """The loss's name, and whether it takes logits."""
        if isinstance(loss, ast.Constant) and isinstance(loss.value, str):
            return loss.value, False
        if isinstance(loss, ast.Call):
            full = self.names.full(loss.func)
            if full.startswith("keras.losses."):
                return last_part(full), value_of(argument(loss, "from_logits", 0)) is True
        return None, False

    def _rate(self, call: ast.Call, thing: Thing, things: dict[str, Thing]) -> None:
        if not thing.transformer or thing.frozen or (thing.base is not None and thing.base.frozen):
            return
        given = argument(call, "optimizer", 0)
        rate = None
        if isinstance(given, ast.Constant) and str(given.value).lower() in ("adam", "adamw", "nadam", "rmsprop"):
            rate = 1e-3
        elif isinstance(given, ast.Call):
            rate = self._thing(given, things, ast.Pass(), "").rate
        elif isinstance(given, ast.Name) and given.id in things:
            rate = things[given.id].rate
        if rate is not None and rate > RATE:
            self.say(
                call,
                "rate-too-high",
                f"a learning rate of {rate:g} on a thawed transformer destroys what it was pretrained to know",
                "1e-4 for small ones such as MiniLM, 2e-5 to 5e-5 for 100 M parameters; or freeze it",
            )

    def _data(self, call: ast.Call, name: str, thing: Thing, things: dict[str, Thing]) -> None:
        given = [name_of(argument) for argument in call.args[:2]]
        if name == "fit" and thing.thawed_at is not None:
            self.say(
                call,
                "flag-after-compile",
                f"trainable was changed in line {thing.thawed_at}, after compile(): Keras ignores it without a word",
                "compile() again after every change of a flag",
            )
        unknown = [n for n in given if n and self.names.unknown(n)]
        if unknown and name == "fit":
            self.say(
                call,
                "no-text-pipeline",
                f"nothing makes {', '.join(unknown)}: a model reads numbers, made as in its pretraining",
                "the model's own tokenizer, for training and serving alike; tfft.train(data=...) does all of it",
            )
        if name == "evaluate":
            if given and given[0] and given[0] in thing.fitted and "test" not in given[0]:
                self.say(
                    call,
                    "judged-on-training-rows",
                    f"{given[0]} is what the model was trained on: this says how well it remembers",
                    "evaluate() on rows that fit() has not seen",
                )
            return
        thing.fitted = tuple(n for n in given if n)
        labels = things.get(given[1] or "") if len(given) > 1 else None
        kind, _ = self._loss(argument(thing.compiled, "loss", 1)) if thing.compiled is not None else (None, False)
        if labels is not None and labels.labels == "integers" and kind in CATEGORICAL:
            self.say(
                call,
                "labels-do-not-fit-loss",
                f"{given[1]} holds class numbers, and categorical_crossentropy wants one column a class",
                "sparse_categorical_crossentropy",
            )
        if labels is not None and labels.labels == "one-hot" and kind in SPARSE:
            self.say(
                call,
                "labels-do-not-fit-loss",
                f"{given[1]} has one column a class, and sparse_categorical_crossentropy wants class numbers",
                "categorical_crossentropy",
            )
        if labels is not None and labels.ordered and argument(call, "validation_split") is not None:
            self.say(
                call,
                "ordered-split",
                f"validation_split takes the last rows, unshuffled, and {given[1]} is ordered: it holds one class",
                "shuffle rows before, or hold rows out stratified: tfft.load_data does",
            )
