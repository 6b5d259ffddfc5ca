"""What every task must do on every backbone family: learn eight rows by heart, and keep the answers for ever after."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import tfft
from tests.conftest import FAMILIES
from tfft import runs, tokenizing
from tfft.runs import Run
from tfft.seeding import set_seed
from tfft.training import as_columns

# Answers of an export, from a process that knows nothing of tfft, Keras or KerasHub.
READER = """
import json, sys
import tensorflow as tf, tensorflow_text
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answers = serve(text=tf.constant(json.loads(sys.argv[2])))
plain = lambda value: value.decode() if isinstance(value, bytes) else value
print(json.dumps({k: v.numpy().tolist() for k, v in answers.items()}, default=plain))
assert not {"tfft", "keras_hub"} & set(sys.modules)
"""

TEXTS = ["the movie was good", "awful", "", "A GREAT film, caf\u00e9 \U0001f600 " + "very " * 80]


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, presets: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A text-classification run of the family, trained on eight rows until it knows them, and its folder."""
    good = ("the movie was good", "great film !", "a lovely story", "i was fine and it is great")
    bad = ("the movie was bad", "awful film !", "a dull story", "it is not good , awful ending")
    rows = pd.DataFrame({"text": good + bad, "label": ["pos"] * 4 + ["neg"] * 4}, dtype=object)
    task = tfft.get_task("text-classification")
    facts = task.learn(rows)
    backbone, tokenizer = tfft.load_backbone(presets(request.param))
    tfft.freeze(backbone, "none")
    set_seed(1)
    model = keras.Model(backbone.input, task.head(backbone, facts, pooling="mean", dropout=0.0))
    examples, _ = tokenizing.truncate_examples(task.encode(rows, tokenizer, facts), tokenizer, 16)
    history = tfft.fit(model, examples, epochs=60, batch_size=8, learning_rate=2e-2, decay="constant")
    assert tfft.evaluate(model, rows, examples, task, facts)["accuracy"] == 1.0, history.history["loss"][-5:]
    config = {"task": task.name, "pooling": "mean", "dropout": 0.0, "max_length": 16, "clean": ["whitespace"]}
    run = Run(model, tokenizer, task, facts, config)
    with runs.new_folder(tmp_path_factory.mktemp("runs") / request.param) as folder:
        runs.save_run(folder, run, backbone, as_columns(history))
    return run, tmp_path_factory.getbasetemp() / folder.parent.name / request.param


def test_run_read_back_gives_the_same_answers(trained: tuple[Run, Path]) -> None:
    run, folder = trained
    before, after = tfft.predict_texts(run, TEXTS), tfft.predict_texts(tfft.load_run(folder), TEXTS)
    for one, other in zip(before, after, strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)


def test_batched_answers_are_the_single_ones(trained: tuple[Run, Path]) -> None:
    run, _ = trained
    for text, answer in zip(TEXTS, tfft.predict_texts(run, TEXTS), strict=True):
        assert tfft.predict_texts(run, [text])[0]["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)


@pytest.fixture(scope="module")
def exported(trained: tuple[Run, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    version = tfft.export_saved_model(trained[0], tmp_path_factory.mktemp("exports") / "model")
    assert version.name == "1"
    return version


def test_export_answers_the_same_without_tfft(trained: tuple[Run, Path], exported: Path) -> None:
    run, _ = trained
    command = [sys.executable, "-c", READER, str(exported), json.dumps(TEXTS)]
    served = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for i, answer in enumerate(tfft.predict_texts(run, TEXTS)):
        assert served["label"][i] == answer["label"]
        assert served["labels"][i] == run.facts["labels"]
        assert served["score"][i] == pytest.approx(answer["score"], abs=1e-5)
        assert served["probabilities"][i] == pytest.approx(list(answer["probabilities"].values()), abs=1e-5)


def test_export_holds_each_weight_once(trained: tuple[Run, Path], exported: Path) -> None:
    import tensorflow as tf

    stored = tf.train.list_variables(str(exported / "variables" / "variables"))
    # ALBERT's one block is called twice, and each call joins query, key and value for itself
    assert sum(int(np.prod(shape)) for _, shape in stored) < 1.3 * trained[0].model.count_params()


def test_export_has_no_op_that_serving_lacks(exported: Path) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    graph = SavedModel.FromString((exported / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    ops = {node.op for node in graph.node} | {node.op for f in graph.library.function for node in f.node_def}
    assert not ops & {"TFText>RoundRobinTrim", "TFText>Utf8Binarize", "PyFunc", "EagerPyFunc", "PyFuncStateless"}
    assert not any(f.attr["_XlaMustCompile"].b for f in graph.library.function)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", ["all", "none", "embeddings", 1])
def test_split_gives_the_models_own_outputs(family: str, policy: str | int, presets: Any) -> None:
    backbone, _ = tfft.load_backbone(presets(family))
    model = keras.Model(backbone.input, tfft.softmax_head(backbone, 3, pooling="blocks", dropout=0.5))
    tfft.freeze(model, policy)
    prefix, suffix = tfft.split(model)
    ids = np.array([[2, 5, 6, 3], [2, 7, 3, 0]], "int32")
    x = {"token_ids": ids, "padding_mask": (ids != 0).astype("int32"), "segment_ids": np.zeros_like(ids)}
    x = {name: x[name] for name in model.input}
    cut = x if prefix is None else prefix(x, training=False)
    assert (prefix is None) == (policy == "none")
    np.testing.assert_allclose(suffix(cut, training=False), model(x, training=False), atol=1e-6)
