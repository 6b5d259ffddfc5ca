"""Several targets over one backbone."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import tfft
from tfft import onnx_export
from tfft.answers import as_answer
from tfft.errors import DataError, InvalidValueError
from tfft.tasks.several import parse

SPEC = "Topic=text-classification,stars=text-regression*0.5,kinds=multi-label-classification*2"
ROWS = [
    {"text": text, "Topic": topic, "stars": stars, "kinds": kinds}
    for text, topic, stars, kinds in (
        ("the movie was good", "a", 3, ["x"]),
        ("awful film !", "b", 1, []),
        ("a lovely story", "c", 5, ["x", "y"]),
        ("it is not good", "a", 2, ["y"]),
    )
]


def test_targets_are_named_with_their_tasks_and_weights() -> None:
    assert parse(SPEC) == [
        ("Topic", "text-classification", 1.0),
        ("stars", "text-regression", 0.5),
        ("kinds", "multi-label-classification", 2.0),
    ]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("a=text-classification", "expected two targets or more"),
        ("a=text-regression,a=text-regression", "of different names"),
        ("a=text-regression,text=text-regression", "Received: 'text=text-regression'"),
        ("a=text-regression,b", "Received: 'b'"),
        ("a=text-regression,2b=text-regression", "Received: '2b=text-regression'"),
        ("a=text-regression,b=text-regression*1.2.3", "the weight of a target is a number. Received: '1.2.3'"),
        ("a=text-regression,b=text-regression*.", "the weight of a target is a number. Received: '.'"),
        ("a=text-regression,targets=text-regression", "Received: 'targets=text-regression'"),
        ("a=text-regression,", "Received: ''"),
        ("a=,b=text-regression", "Received: 'a='"),
        ("a=text-regression*-1,b=text-regression", "Received: 'a=text-regression*-1'"),
        ("a=text-regression;b=text-regression", "Received: 'a=text-regression;b=text-regression'"),
        ("a=text-regression,b=masked-lm", "masked-lm cannot be one of several targets"),
        ("a=text-regression,b=text-similarity", "text-similarity cannot be one of several targets"),
        ("a=text-regression,b=translating", "no task 'translating'"),
        ("a=text-regression,b=question-answering", "question-answering cannot be one of several targets"),
        ("a=text-regression,b=few-shot", "few-shot cannot be one of several targets"),
    ],
)
def test_other_targets_are_refused_in_a_line(targets: str, message: str) -> None:
    with pytest.raises(InvalidValueError) as error:
        tfft.get_task(targets)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_loss_is_the_weighted_sum_of_the_parts() -> None:
    task = tfft.get_task(SPEC)
    rows, faults = task.check(pd.DataFrame(ROWS))
    assert not any(where.any() for where in faults.values())
    facts = task.learn(rows)
    generator = np.random.default_rng(0)
    y, outputs = generator.random((5, 6)).astype("float32"), generator.random((5, 6)).astype("float32")
    found = task.loss(facts, 0.0)(y, outputs)
    parts = [tfft.get_task(name) for _, name, _ in parse(SPEC)]
    own = [
        part.loss(f, 0.0)(y[:, place], outputs[:, place])
        for part, f, place in zip(parts, facts["targets"].values(), (slice(3), slice(3, 4), slice(4, 6)), strict=True)
    ]
    assert float(found) == pytest.approx(float(own[0] + 0.5 * own[1] + 2 * own[2]), rel=1e-5)


PLACES = {"Topic": slice(3), "stars": slice(3, 4), "kinds": slice(4, 6)}


def judged() -> tuple[Any, pd.DataFrame, dict[str, Any], np.ndarray]:
    """The task, checked rows, facts, and outputs for them."""
    task = tfft.get_task(SPEC)
    rows = task.check(pd.DataFrame(ROWS))[0]
    outputs = np.random.default_rng(1).dirichlet(np.ones(6), len(ROWS)).astype("float32")
    return task, rows, task.learn(rows), outputs


def test_scores_and_thresholds_are_the_parts_own() -> None:
    task, rows, facts, outputs = judged()
    tuned = task.tune(outputs, None, rows, facts)
    assert json.loads(json.dumps(tuned)) == tuned
    scores = task.score(outputs, None, rows, tuned)
    assert list(scores)[:3] == list(task.headline) == ["Topic_accuracy", "stars_r2", "kinds_f1_micro"]
    for name, kind, _ in parse(SPEC):
        part: Any = tfft.get_task(kind)
        own = rows[["text", name]].rename(columns={name: part.target})
        fixed = facts["targets"][name]
        assert fixed == part.learn(own)
        if part.tune:
            fixed = part.tune(outputs[:, PLACES[name]], None, own, fixed)
        assert tuned["targets"][name] == fixed
        alone = part.score(outputs[:, PLACES[name]], None, own, fixed)
        found = {key: value for key, value in scores.items() if key.startswith(f"{name}_")}
        assert found == {f"{name}_{key}": value for key, value in alone.items()}


def test_what_is_learnt_stands_side_by_side(presets: Any) -> None:
    task, rows, facts, _ = judged()
    backbone, tokenizer = tfft.load_backbone(presets("bert"))
    examples = task.encode(rows, tokenizer, facts)
    topics, kinds = np.eye(3)[[0, 1, 2, 0]], [[1, 0], [0, 0], [1, 1], [0, 1]]
    stars = (rows["stars"].to_numpy(float) - 2.75) / np.std([3, 1, 5, 2])
    np.testing.assert_allclose(examples.y, np.column_stack([topics, stars, kinds]), atol=1e-6)
    model = task.head(backbone, facts, pooling="mean", dropout=0.0)
    outputs = tfft.predict(model, examples)
    logits = tfft.predict(keras.Model(model.input, model.get_layer("head_output").output), examples)
    shares = np.exp(logits[:, PLACES["Topic"]])
    np.testing.assert_allclose(outputs[:, PLACES["Topic"]], shares / shares.sum(axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(outputs[:, PLACES["stars"]], logits[:, PLACES["stars"]], atol=1e-5)
    np.testing.assert_allclose(outputs[:, PLACES["kinds"]], 1 / (1 + np.exp(-logits[:, PLACES["kinds"]])), atol=1e-5)
    with pytest.raises(InvalidValueError, match="^class_weight weighs rows by their one label"):
        task.encode(rows, tokenizer, facts, class_weight="balanced")


def test_a_test_set_without_any_targets_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    test = [{"text": "x", "Topic": None, "stars": None, "kinds": None}]
    splits = tfft.load_data(pd.DataFrame(ROWS * 5), test=test, task=SPEC, validation_share=0, test_share=0)
    assert list(splits) == ["train"]
    assert any("(as public test sets often do): left out" in message for message in caplog.messages)


def test_rows_are_named_with_their_target() -> None:
    rows = pd.DataFrame([dict(row) for row in ROWS], dtype=object)
    rows.loc[0, "Topic"], rows.loc[1, "stars"], rows.loc[2, "text"] = None, "many", ""
    faults = tfft.get_task(SPEC).check(rows)[1]
    named = {fault: np.flatnonzero(where).tolist() for fault, where in faults.items() if where.any()}
    assert named == {
        "have no label (Topic)": [0],
        "have a value that is no finite number (stars)": [1],
        "have an empty text": [2],
    }


def test_a_target_that_the_data_lack() -> None:
    with pytest.raises(DataError, match="found no kinds column"):
        tfft.load_data(pd.DataFrame(ROWS).drop(columns="kinds"), task=SPEC)


def test_answers_are_nested_by_target() -> None:
    row = {
        "a_b_labels": ["x", "y"],
        "a_b_probabilities": [0.9, 0.1],
        "a_b_label": "x",
        "a_b_score": 0.9,
        "c_value": 2.0,
    }
    probabilities = {"x": 0.9, "y": 0.1}
    assert as_answer(row) == {
        "a_b": {"label": "x", "score": 0.9, "probabilities": probabilities},
        "c": {"value": 2.0},
    }


def test_trained_read_back_asked_and_exported(presets: Any, tmp_path: Path) -> None:
    data = tmp_path / "T.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS * 6), "utf-8")
    settings = {"validation": data, "test": data, "backbone": presets("bert"), "epochs": 2}
    folder = tfft.train(task=SPEC, data=data, out=tmp_path / "run", **settings)
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert list(metrics["test"])[:3] == ["Topic_accuracy", "stars_r2", "kinds_f1_micro"]
    run = tfft.load_run(folder)
    (answer,) = tfft.predict_texts(run, ["a great film"])
    assert set(answer) == {"Topic", "stars", "kinds"}
    assert set(answer["Topic"]["probabilities"]) == {"a", "b", "c"}
    assert isinstance(answer["stars"]["value"], float)
    scores = tfft.evaluate_run(run, data)
    assert [scores[name] for name in run.task.headline] == pytest.approx(
        [metrics["test"][name] for name in run.task.headline], rel=0.05
    )
    assert keras.ops.shape(run.model.output)[-1] == 6
    version = onnx_export.export_onnx(run, tmp_path / "onnx")
    assert version.name == "1"
