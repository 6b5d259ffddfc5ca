"""What an export answers, for tokenizers of every kind, and what lies beside it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

import tfft
from tests.test_proving import FACTS, make_run
from tfft import handover, proving
from tfft.runs import Run
from tfft.signatures import signatures

# WordPiece, SentencePiece, byte-level BPE; the last takes long to trace, and the contract exports one as well
TOKENIZERS = ("bert", "albert", pytest.param("roberta", marks=pytest.mark.slow))

TEXTS: list[Any] = [
    "the movie was good",
    "",
    "\U0001f600 caf\u00e9",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    b"caf\xe9 \xff",
    "very " * 80,
]


@pytest.fixture(scope="module", params=TOKENIZERS)
def served(
    request: pytest.FixtureRequest, presets: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Path, Any]:
    run = make_run(presets(request.param))
    folder = tfft.export_saved_model(run, tmp_path_factory.mktemp("exports") / "reviews")
    loaded = tf.saved_model.load(str(folder))
    return run, folder, loaded


def ask(loaded: Any, signature: str = "serving_default", **inputs: Any) -> dict[str, np.ndarray]:
    answers = loaded.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in answers.items()}


def test_every_text_gets_an_answer(served: Any) -> None:
    answers = ask(served[2], text=TEXTS)
    assert answers["label"].shape == answers["score"].shape == (len(TEXTS),)
    assert answers["labels"].tolist() == [[b"neg", b"pos"]] * len(TEXTS)
    np.testing.assert_allclose(answers["probabilities"].sum(axis=1), 1, atol=1e-6)
    assert [FACTS["labels"][i].encode() for i in answers["probabilities"].argmax(axis=1)] == answers["label"].tolist()


def test_no_texts_get_no_answers(served: Any) -> None:
    for signature in ("serving_default", "embed"):
        answers = served[2].signatures[signature](text=tf.zeros([0], tf.string))
        assert {len(value) for value in answers.values()} == {0}


def test_a_text_of_100_000_characters_is_cut(served: Any) -> None:
    long = ["good " * 20_000, "x" * 100_000]
    ids = ask(served[2], "tokenize", text=long)["token_ids"]
    assert ids.shape[1] <= 16
    assert np.isfinite(ask(served[2], text=long)["probabilities"]).all()


def test_token_ids_give_the_answers_of_their_texts(served: Any) -> None:
    ids = ask(served[2], "tokenize", text=TEXTS)["token_ids"]
    assert ids.dtype == np.int32
    wanted, got = ask(served[2], text=TEXTS), ask(served[2], "tokens", token_ids=ids)
    np.testing.assert_allclose(got["probabilities"], wanted["probabilities"], atol=1e-6)
    assert got["label"].tolist() == wanted["label"].tolist()


def test_the_embedding_is_what_the_last_layer_reads(served: Any) -> None:
    run, _, loaded = served
    embedding = ask(loaded, "embed", text=TEXTS)["embedding"]
    assert embedding.shape == (len(TEXTS), 8)
    layer = run.model.get_layer("head_output")
    np.testing.assert_allclose(layer(embedding), ask(loaded, text=TEXTS)["probabilities"], atol=1e-6)


def test_the_classic_interfaces_take_examples(served: Any) -> None:
    def example(text: bytes) -> bytes:
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
        return tf.train.Example(features=tf.train.Features(feature={"text": feature})).SerializeToString()

    texts = [b"good film", b"bad film"]
    wanted = ask(served[2], text=texts)["probabilities"]
    examples = [example(text) for text in texts]
    classified = ask(served[2], "classify", inputs=examples)
    np.testing.assert_allclose(classified["scores"], wanted, atol=1e-6)
    assert classified["classes"].tolist() == [[b"neg", b"pos"]] * 2
    np.testing.assert_allclose(ask(served[2], "regress", inputs=examples)["outputs"], wanted[:, 1], atol=1e-6)
    empty = tf.train.Example().SerializeToString()  # no feature: an empty text
    nothing = ask(served[2], text=[b""])["probabilities"]
    np.testing.assert_allclose(ask(served[2], "classify", inputs=[empty])["scores"], nothing, atol=1e-6)


def test_three_labels_are_no_regression(presets: Any) -> None:
    facts = {"labels": ["a", "b", "c"], "counts": [1, 1, 1]}
    assert "regress" not in signatures(make_run(presets("bert"), facts=facts))


def test_what_lies_beside_an_export(served: Any) -> None:
    run, folder, _ = served
    extra = folder / proving.EXTRA
    assert json.loads((extra / "labels.json").read_text("utf-8")) == run.facts["labels"]
    golden = json.loads((folder / proving.GOLDEN).read_text("utf-8"))
    assert len(golden["texts"]["text"]) == len(golden["token_ids"]) == len(golden["outputs"]["probabilities"])
    card = (extra / "README.md").read_text("utf-8")
    assert "| task | text-classification |" in card
    assert "| neg | 4 |" in card
    records = list(tf.data.TFRecordDataset(str(folder / proving.WARMUP)).as_numpy_iterator())
    requests = [prediction_log_pb2.PredictionLog.FromString(r).predict_log.request for r in records]
    assert [len(request.inputs["text"].string_val) for request in requests] == [1, 1, handover.BATCH]


def test_what_lies_beside_the_versions(served: Any) -> None:
    root = served[1].parent
    text = (root / "models.config").read_text("utf-8")
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("reviews", "/models/reviews")
    assert f"max_batch_size {{ value: {handover.BATCH} }}" in (root / "batching_parameters.txt").read_text("utf-8")
    assert "/v1/models/reviews:predict" in (root / "README.md").read_text("utf-8")
    started = (root / "docker-compose.yml").read_text("utf-8")
    assert "/models/reviews:ro" in started
    assert "      - --tensorflow_intra_op_parallelism=1\n" in started


def test_files_for_the_server_are_written_once(served: Any) -> None:
    run, folder, _ = served
    (folder.parent / "models.config").write_text("mine")
    (folder.parent / "README.md").unlink()
    assert tfft.export_saved_model(run, folder.parent).name == "2"
    assert (folder.parent / "models.config").read_text() == "mine"
    assert (folder.parent / "README.md").exists()
