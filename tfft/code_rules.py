"""What the doctor looks for in calls: statements are followed in order, with what is known of each name."""

import ast
import re
from collections.abc import Sequence
from typing import Any

from tfft.code_reading import Edit, argument, calls_of, last_part, name_of, span, value_of
from tfft.code_things import HEADS, Follower, Thing

CATEGORICAL = ("categorical_crossentropy", "CategoricalCrossentropy")
SPARSE = ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy")
BINARY = ("binary_crossentropy", "BinaryCrossentropy")
RATE = 5e-4  # above it a thawed transformer forgets what it knew


class Reader(Follower):
    """Follows the statements of one scope in order."""

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
                f"trainable was changed in line {thing.thawed_at}, after compile(): once fit() has run, Keras ignores "
                "that without a word",
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
