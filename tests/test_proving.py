"""Every fault that keeps an export from serving is found, and called by its name."""

import shutil
from pathlib import Path
from typing import Any

import keras
import keras_hub
import pytest
import tensorflow as tf

import tfft
from tfft import handover, proving
from tfft.proving import Finding
from tfft.runs import Run
from tfft.seeding import set_seed
from tfft.signatures import signatures, texts_of

FACTS = {"labels": ["neg", "pos"], "counts": [4, 4]}
CONFIG = {"task": "text-classification", "pooling": "mean", "dropout": 0.0, "max_length": 16, "clean": ["whitespace"]}


def make_run(folder: Path, seed: int = 1, facts: dict[str, Any] = FACTS) -> Run:
    """A run whose head is as it was born."""
    backbone, tokenizer = tfft.load_backbone(folder)
    set_seed(seed)
    task = tfft.get_task("text-classification")
    model = task.head(backbone, facts, pooling="mean", dropout=0.0)
    return Run(model, tokenizer, task, facts, CONFIG)


@pytest.fixture(scope="module")
def run(presets: Any) -> Run:
    return make_run(presets("bert"))


@pytest.fixture(scope="module")
def good(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tfft.export_saved_model(run, tmp_path_factory.mktemp("good") / "model")


def faults(folder: Path, serving: str = proving.OLDEST) -> dict[str, Finding]:
    return {found.check: found for found in proving.prove(folder, serving) if found.cure}


def planted(run: Run, good: Path, folder: Path, *endpoints: Any) -> Path:
    """A version whose endpoints are these, and whose golden answers are those of the good export."""
    archive = keras.export.ExportArchive()
    archive.track(run.model)
    run.tokenizer([""])
    archive.track(run.tokenizer)
    for name, function, taken, *tracked in endpoints:
        for resource in tracked:
            archive.track(resource)
        archive.add_endpoint(name, function, input_signature=taken)
    archive.write_out(str(folder), verbose=False)
    shutil.copytree(good / proving.EXTRA, folder / proving.EXTRA, dirs_exist_ok=True)
    return folder


def test_a_good_export_passes(good: Path) -> None:
    found = proving.prove(good)
    assert [f for f in found if f.cure] == []
    checks = [f.check for f in found]
    assert checks == [
        "version folder", "operations", "signatures", "load", "vocabulary", "weights", "rows", "empty batch", "warm-up",
    ]  # fmt: skip
    assert "all in TensorFlow Serving's list, 2.13 on" in found[1].found
    assert "classify, embed, regress, serving_default, tokenize, tokens" in found[2].found


def test_the_stock_packer_is_named(run: Run, good: Path, tmp_path: Path) -> None:
    packer = keras_hub.layers.MultiSegmentPacker(
        start_value=run.tokenizer.cls_token_id,
        end_value=run.tokenizer.sep_token_id,
        pad_value=0,
        sequence_length=16,
        truncate="round_robin",
    )

    def answer(text: tf.Tensor) -> Any:
        ids, segments = packer(run.tokenizer(text))
        mask = tf.cast(ids != 0, tf.int32)
        x = {"token_ids": ids, "segment_ids": segments, "padding_mask": mask}
        return run.task.serve(run.model(x, training=False), x, {}, run.facts, run.tokenizer)

    ends = ("serving_default", answer, texts_of(run)), ("tokenize", *signatures(run)["tokenize"])
    folder = planted(run, good, tmp_path / "1", *ends)
    found = faults(folder)
    assert "TFText>RoundRobinTrim: TensorFlow Serving has them from 2.20" in found["operations"].found
    assert "KerasHub's packer" in str(found["operations"].cure)
    assert "RoundRobinTrim" in found["load"].found  # the old server's operations are all that the process has
    assert "operations" not in faults(folder, "2.20")


def test_xla_is_named(run: Run, good: Path, tmp_path: Path) -> None:
    network = tf.function(lambda x: run.model(x, training=False), jit_compile=True, autograph=False)

    def answer(token_ids: tf.Tensor) -> Any:
        zeros = tf.zeros_like(token_ids)
        x = {"token_ids": token_ids, "segment_ids": zeros, "padding_mask": zeros + 1}
        return run.task.serve(network(x), x, {}, run.facts, run.tokenizer)

    taken = [tf.TensorSpec([None, 16], tf.int32, name="token_ids")]
    found = faults(planted(run, good, tmp_path / "1", ("serving_default", answer, taken)))
    assert "jit_compile=True" in found["XLA"].found
    assert "jit_compile=False" in str(found["XLA"].cure)


def test_a_python_function_is_named(run: Run, good: Path, tmp_path: Path) -> None:
    endpoint = signatures(run)["serving_default"][0]

    def answer(text: tf.Tensor) -> Any:
        lowered = tf.py_function(lambda t: tf.strings.lower(t), [text], tf.string)
        return endpoint(tf.ensure_shape(lowered, [None]))

    found = faults(planted(run, good, tmp_path / "1", ("serving_default", answer, texts_of(run))))
    assert "EagerPyFunc" in found["Python function"].found


def test_outputs_that_are_not_batch_first_are_named(run: Run, good: Path, tmp_path: Path) -> None:
    endpoint = signatures(run)["serving_default"][0]
    answer = lambda text: endpoint(text) | {"labels": tf.constant(run.facts["labels"])}  # noqa: E731
    found = faults(planted(run, good, tmp_path / "1", ("serving_default", answer, texts_of(run))))
    assert found["batch first"].found == "output 'labels' of serving_default has the shape [2]"


def test_missing_labels_are_named(run: Run, good: Path, tmp_path: Path) -> None:
    endpoint = signatures(run)["serving_default"][0]
    answer = lambda text: {"probabilities": endpoint(text)["probabilities"]}  # noqa: E731
    found = faults(planted(run, good, tmp_path / "1", ("serving_default", answer, texts_of(run))))
    assert "a client cannot know which class is which" in found["labels"].found


def test_labels_in_another_order_are_named(run: Run, good: Path, tmp_path: Path) -> None:
    other = Run(run.model, run.tokenizer, run.task, {**FACTS, "labels": ["pos", "neg"]}, CONFIG)
    endpoints = [(name, *signature) for name, signature in signatures(other).items()]
    assert "another order" in faults(planted(other, good, tmp_path / "1", *endpoints))["labels"].found


def test_a_changed_weight_is_named(good: Path, presets: Any, tmp_path: Path) -> None:
    other = make_run(presets("bert"), seed=2)  # another head
    endpoints = [(name, *signature) for name, signature in signatures(other).items()]
    found = faults(planted(other, good, tmp_path / "1", *endpoints))
    assert list(found) == ["weights"]
    assert "from those of Keras" in found["weights"].found


def test_another_vocabulary_is_named(run: Run, good: Path, tmp_path: Path) -> None:
    words = list(run.tokenizer.vocabulary)
    first, second = words.index("movie"), words.index("great")
    words[first], words[second] = words[second], words[first]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=words, lowercase=True)
    other = Run(run.model, tokenizer, run.task, FACTS, CONFIG)
    endpoints = [(name, *signature) for name, signature in signatures(other).items()]
    found = faults(planted(other, good, tmp_path / "1", *endpoints))
    assert list(found) == ["vocabulary"]


def copied(good: Path, folder: Path) -> Path:
    shutil.copytree(good, folder)
    return folder


def test_truncated_variables_are_named(good: Path, tmp_path: Path) -> None:
    folder = copied(good, tmp_path / "1")
    (data,) = (folder / "variables").glob("variables.data-*")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    assert list(faults(folder)) == ["variables"]


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_missing_files_are_named(good: Path, tmp_path: Path, name: str) -> None:
    folder = copied(good, tmp_path / "1")
    (folder / name).unlink()
    (found,) = faults(folder).values()
    assert found.check in ("saved_model.pb", "variables")


def test_a_damaged_graph_is_named(good: Path, tmp_path: Path) -> None:
    folder = copied(good, tmp_path / "1")
    (folder / "saved_model.pb").write_bytes(b"\xff" * 100)
    assert list(faults(folder)) == ["saved_model.pb"]


def test_a_folder_that_is_no_version_is_named(good: Path, tmp_path: Path) -> None:
    found = faults(copied(good, tmp_path / "newest"))
    assert list(found) == ["version folder"]
    assert "saved_models/name/1" in str(found["version folder"].cure)


def test_a_damaged_warm_up_is_named(good: Path, tmp_path: Path) -> None:
    folder = copied(good, tmp_path / "1")
    path = folder / proving.WARMUP
    path.write_bytes(path.read_bytes()[:-20])
    assert list(faults(folder)) == ["warm-up"]
    path.unlink()
    assert faults(folder) == {}  # it is not asked for


def test_an_export_without_golden_answers_is_not_proven(good: Path, tmp_path: Path) -> None:
    folder = copied(good, tmp_path / "1")
    (folder / proving.GOLDEN).unlink()
    assert list(faults(folder)) == ["golden answers"]


def test_a_runtime_that_dies_is_a_fault(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving.sys, "executable", shutil.which("false"))
    (found,) = proving.prove(good)
    assert found.check == "load"
    assert "exit code 1" in found.found


def test_an_export_that_fails_its_proof_is_not_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "golden", lambda run: {"texts": {"text": ["a"]}, "token_ids": [[1]], "outputs": {}})
    with pytest.raises(tfft.errors.ExportError, match="would not serve, and was not kept. vocabulary: "):
        tfft.export_saved_model(run, tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []
