"""Old code: every fault with a script that has it and one that has not, what is written instead, and no false alarm."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tfft import doctor
from tfft.errors import InvalidValueError, NotFoundError

ROOT = Path(__file__).parents[1]
ENCODER = "from sklearn.preprocessing import LabelEncoder\ne = LabelEncoder()\ny = e.fit_transform(words)\n"
LOGITS = "model.compile('adam', keras.losses.SparseCategoricalCrossentropy(from_logits=True))"
TF = "import tensorflow as tf\n"
KERAS = "import keras\nfrom keras import layers\n"
DENSE = "model = keras.Sequential([keras.Input((4,)), layers.Dense({0})])\n"

SNIPPET = (
    TF
    + """
model = tf.keras.models.load_model('pretrained_model.h5')
model.trainable = False
outputs = tf.keras.layers.Dense(num_classes, activation='softmax')(model.output)
model = tf.keras.Model(inputs=model.input, outputs=outputs)
model.compile(optimizer='adam', loss='categorical_crossentropy', metrics=['accuracy'])
model.fit(x_train, y_train, epochs=10)
model.evaluate(x_test, y_test)
"""
)

# rule -> (code that has the fault, code that has not)
CASES = {
    "old-file": (
        TF + "m = tf.keras.models.load_model('a.h5')",
        TF + "m = tf.keras.models.load_model('a.keras')",
    ),
    "double-softmax": (
        TF + "old = tf.keras.models.load_model('a.keras')\n"
        "new = tf.keras.Model(old.input, tf.keras.layers.Dense(3, activation='softmax')(old.output))",
        TF + "old = tf.keras.applications.MobileNetV2(include_top=False, pooling='avg')\n"
        "new = tf.keras.Model(old.input, tf.keras.layers.Dense(3, activation='softmax')(old.output))",
    ),
    "frozen-in-training-mode": (
        TF + "old = tf.keras.models.load_model('a.keras')\nold.trainable = False\n"
        "m = tf.keras.Sequential([old, tf.keras.layers.Dense(3)])\n"
        "m.compile('adam', 'mse')",
        TF + "old = tf.keras.models.load_model('a.keras')\nold.trainable = False\ni = tf.keras.Input((4,))\n"
        "m = tf.keras.Model(i, tf.keras.layers.Dense(3)(old(i, training=False)))\nm.compile('adam', 'mse')",
    ),
    "no-text-pipeline": (
        KERAS + DENSE.format(3) + "model.fit(x_train, y_train)",
        KERAS + DENSE.format(3) + "x, y = load()\nmodel.fit(x, y)",
    ),
    "flag-after-compile": (
        KERAS + DENSE.format(3) + "model.compile('adam', 'mse')\nmodel.trainable = False\nmodel.fit([[1]], [[1]])",
        KERAS + DENSE.format(3) + "model.trainable = False\nmodel.compile('adam', 'mse')\nmodel.fit([[1]], [[1]])",
    ),
    "softmax-as-logits": (
        KERAS + DENSE.format("3, activation='softmax'") + LOGITS,
        KERAS + DENSE.format("3") + LOGITS,
    ),
    "logits-as-probabilities": (
        KERAS + DENSE.format("3") + "model.compile('adam', loss='categorical_crossentropy')",
        KERAS + DENSE.format("3, 'softmax'") + "model.compile('adam', loss='categorical_crossentropy')",
    ),
    "sigmoid-of-classes": (
        KERAS + DENSE.format("5, activation='sigmoid'") + "model.compile('adam', 'categorical_crossentropy')",
        KERAS + DENSE.format("5, activation='sigmoid'") + "model.compile('adam', 'binary_crossentropy')",
    ),
    "labels-do-not-fit-loss": (
        KERAS
        + ENCODER
        + DENSE.format("3, 'softmax'")
        + "model.compile('adam', 'categorical_crossentropy')\nmodel.fit(x, y)",
        KERAS
        + ENCODER
        + DENSE.format("3, 'softmax'")
        + "model.compile('adam', 'sparse_categorical_crossentropy')\nmodel.fit(x, y)",
    ),
    "rate-too-high": (
        "import keras_hub\nmodel = keras_hub.models.TextClassifier.from_preset('bert_base_en', num_classes=2)\n"
        "model.compile(optimizer='adam', loss='mse')",
        "import keras, keras_hub\nmodel = keras_hub.models.TextClassifier.from_preset('bert_base_en', num_classes=2)\n"
        "model.compile(optimizer=keras.optimizers.Adam(2e-5), loss='mse')",
    ),
    "padded-to-512": (
        "tokens = tokenizer(texts, padding='max_length', max_length=512)\n"
        "other = tokenizer.encode(texts, padding='max_length', max_length=512)",
        "tokens = tokenizer.encode(texts, padding='longest', max_length=512)",
    ),
    "renamed-package": ("import keras_nlp\nkeras_nlp.models", "import keras_hub"),
    "hub-layer": (
        TF + "import tensorflow_hub as hub\nm = tf.keras.Sequential([hub.KerasLayer('x'), tf.keras.layers.Dense(2)])",
        TF + "import tensorflow_hub as hub\nlayer = hub.load('x')",
    ),
    "removed-class": (
        "from transformers import AutoTokenizer, TFAutoModel",
        "from transformers import AutoTokenizer, AutoModel",
    ),
    "old-argument": (
        TF + "o = tf.keras.optimizers.Adam(lr=0.01)",
        TF + "o = tf.keras.optimizers.Adam(learning_rate=0.01)",
    ),
    "old-method": (
        KERAS + DENSE.format(3) + "model.fit_generator(rows)\nlabels = model.predict_classes(rows)",
        KERAS + DENSE.format(3) + "labels = model.predict(rows).argmax(axis=-1)",
    ),
    "moved-layer": (
        TF + "v = tf.keras.layers.experimental.preprocessing.TextVectorization()",
        TF + "v = tf.keras.layers.TextVectorization()",
    ),
    "encoder-on-test": (
        ENCODER + "t = e.fit_transform(y_test)",
        ENCODER + "t = e.transform(y_test)",
    ),
    "judged-on-training-rows": (
        KERAS + DENSE.format(3) + "x, y = load()\nmodel.fit(x, y)\nmodel.evaluate(x, y)",
        KERAS + DENSE.format(3) + "x, y = load()\nmodel.fit(x, y)\nmodel.evaluate(x_new, y_new)",
    ),
    "ordered-split": (
        KERAS + "x = load()\ny = [0] * 50 + [1] * 50\n" + DENSE.format(2) + "model.fit(x, y, validation_split=0.2)",
        KERAS + "x = load()\ny = [0] * 50 + [1] * 50\n" + DENSE.format(2) + "model.fit(x, y, validation_data=held)",
    ),
}


def rules(source: str) -> list[str]:
    return [finding.rule for finding in doctor.examine(source)]


@pytest.mark.parametrize("rule", CASES)
def test_a_fault_is_found_where_it_is_and_nowhere_else(rule: str) -> None:
    bad, good = CASES[rule]
    assert rule in rules(bad)
    assert rule not in rules(good)
    for finding in doctor.examine(bad):
        assert finding.says
        assert finding.instead


CHANGED = {
    "old-argument": "learning_rate=0.01",
    "old-method": "model.fit(rows)\nlabels = model.predict(rows).argmax(axis=-1)",
    "moved-layer": "tf.keras.layers.TextVectorization()",
    "renamed-package": "import keras_hub as keras_nlp",
    "softmax-as-logits": "from_logits=False",
    "old-file": "import tfft\nm = tfft.load_model('a.h5')",
    "double-softmax": "new = tfft.replace_head(old, 3)",
    "frozen-in-training-mode": "m = tfft.join(*tfft.split(m))  # frozen layers in inference mode\nm.compile(",
}


@pytest.mark.parametrize("rule", CHANGED)
def test_what_can_be_changed_is(rule: str) -> None:
    code = doctor.fixed(CASES[rule][0])
    assert CHANGED[rule] in code
    assert rule not in rules(code)
    compile(code, "fixed", "exec")


def test_a_change_leaves_all_else_as_it_was() -> None:
    code = "import tensorflow as tf  # \u5305\n\n# caf\u00e9\no = tf.keras.optimizers.Adam( lr = 0.1 )  # \U0001f600\n"
    assert doctor.fixed(code) == code.replace("lr =", "learning_rate =")
    assert doctor.fixed("x = 1\n") == "x = 1\n"


def test_the_documents_snippet_has_four_faults() -> None:
    assert rules(SNIPPET) == ["old-file", "double-softmax", "frozen-in-training-mode", "no-text-pipeline"]


def test_the_corrected_snippet_runs_and_learns(tmp_path: Path) -> None:
    make = """
import sys, tf_keras
tf_keras.utils.set_random_seed(0)
L = tf_keras.layers
first = L.Dense(16, activation="relu", input_shape=(6,))
model = tf_keras.Sequential([first, L.Dropout(0.4), L.Dense(5, activation="softmax")])
model.compile("adam", "categorical_crossentropy")
model.save(sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", make, str(tmp_path / "pretrained_model.h5")], check=True, capture_output=True)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 6)).astype("float32")
    y = np.eye(3, dtype="float32")[(x[:, 0] > 0).astype(int)]
    code = doctor.fixed(SNIPPET).replace("epochs=10", "epochs=60, verbose=0")
    scope = {"x_train": x, "y_train": y, "x_test": x, "y_test": y, "num_classes": 3}
    before = os.getcwd()
    os.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    try:
        exec(compile(code, "snippet", "exec"), scope)
    finally:
        os.chdir(before)
    model: object = scope["model"]
    assert model.output_shape == (None, 3)  # type: ignore[attr-defined]
    assert model.evaluate(x, y, verbose=0)[1] > 0.7  # type: ignore[attr-defined]


IDIOMS = """
import keras
from keras import layers, ops

inputs = keras.Input((None,), dtype="int32")
x = layers.Embedding(100, 8)(inputs)
x = layers.GlobalAveragePooling1D()(x)
outputs = layers.Dense(3, activation="softmax")(x)
model = keras.Model(inputs, outputs)
model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(dataset, epochs=3, validation_data=held_out) if False else None
base = keras.applications.MobileNetV2(include_top=False, weights=None)
base.trainable = False
image = keras.Input((32, 32, 3))
features = base(image, training=False)
classifier = keras.Model(image, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(features)))
classifier.compile("adam", "categorical_crossentropy")
base.trainable = True
classifier.compile(keras.optimizers.Adam(1e-5), "categorical_crossentropy")
binary = keras.Sequential([layers.Dense(1, activation="sigmoid")])
binary.compile("adam", "binary_crossentropy")
logits = keras.Sequential([layers.Dense(3)])
logits.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
regression = keras.Sequential([layers.Dense(1)])
regression.compile("adam", "mse")

class Block(layers.Layer):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

    def call(self, x, training=False):
        return ops.relu(self.dense(x))

def train(model, x, y):
    model.compile("adam", "mse")
    model.fit(x, y, validation_split=0.1)
    return model.evaluate(x, y)
"""


def test_todays_idioms_have_no_fault() -> None:
    assert [finding for finding in rules(IDIOMS) if finding != "no-text-pipeline"] == []


@pytest.mark.parametrize("folder", ["tfft", "notebooks", "benchmarks", "tests"])
def test_this_repository_has_no_fault(folder: str) -> None:
    paths = [p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in (".py", ".ipynb")]
    assert paths
    found = {path.name: doctor.examine_file(path) for path in paths if ".ipynb_checkpoints" not in str(path)}
    assert {name: findings for name, findings in found.items() if findings} == {}


def test_a_line_may_name_what_it_breaks_on_purpose() -> None:
    code = "import keras_nlp{}\nimport keras_nlp.layers\n"
    assert [f.line for f in doctor.examine(code.format(""))] == [1, 2]
    assert [f.line for f in doctor.examine(code.format("  # doctor: renamed-package"))] == [2]
    assert [f.line for f in doctor.examine(code.format("  # doctor: old-argument, renamed-package"))] == [2]
    assert [f.line for f in doctor.examine(code.format("  # doctor: old-argument"))] == [1, 2]


def test_a_notebook_is_read_by_cells(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# lr"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "import tensorflow as tf"], "outputs": []},
        {"cell_type": "code", "source": "x = 1\no = tf.keras.optimizers.Adam(lr=0.1)", "outputs": []},
    ]
    path = tmp_path / "old.ipynb"
    path.write_text(json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}), "utf-8")
    (finding,) = doctor.examine_file(path)
    assert (finding.cell, finding.line, finding.rule) == (3, 2, "old-argument")
    doctor.fix_file(path, tmp_path / "new.ipynb")
    new = json.loads((tmp_path / "new.ipynb").read_text("utf-8"))
    assert "".join(new["cells"][2]["source"]) == "x = 1\no = tf.keras.optimizers.Adam(learning_rate=0.1)"
    assert "".join(new["cells"][1]["source"]).startswith("%matplotlib inline")
    with pytest.raises(InvalidValueError, match="exists already"):
        doctor.fix_file(path, tmp_path / "new.ipynb")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        doctor.examine_file(tmp_path / "x.py")
    (tmp_path / "x.py").write_text("print 'old'", "utf-8")
    with pytest.raises(InvalidValueError, match="line 1 is not Python"):
        doctor.examine_file(tmp_path / "x.py")
    (tmp_path / "x.ipynb").write_text("{}", "utf-8")
    with pytest.raises(InvalidValueError, match="no Jupyter notebook"):
        doctor.examine_file(tmp_path / "x.ipynb")


def test_the_command_line_says_what_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tfft.cli import main

    (tmp_path / "old.py").write_text(SNIPPET, "utf-8")
    assert main(["doctor", str(tmp_path / "old.py"), "--fix", str(tmp_path / "new.py")]) == 1
    shown = capsys.readouterr().out
    assert "double-softmax" in shown
    assert "tfft.replace_head" in (tmp_path / "new.py").read_text("utf-8")
    (tmp_path / "good.py").write_text("x = 1\n", "utf-8")
    assert main(["doctor", str(tmp_path / "good.py")]) == 0
    assert "torch" not in sys.modules
