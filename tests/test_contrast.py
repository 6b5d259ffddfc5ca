"""Texts of one label are drawn together: the loss against a plain loop, mates in every batch, and what a run keeps."""

import json
import math
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tfft
from tfft import cli, contrast, heads
from tfft.contrast import PairLoss, by_label
from tfft.errors import FreezeError
from tfft.examples import Examples
from tfft.seeding import is_seed

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60)


def unit_vectors(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 4))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32")


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=12), seed=st.integers(0, 99))
@example(labels=[5], seed=0)
@example(labels=[0, 1, 2], seed=0)
def test_the_loss_is_that_of_a_plain_loop(labels: list[int], seed: int) -> None:
    vectors = unit_vectors(len(labels), seed)
    similar = vectors.astype(float) @ vectors.T.astype(float) / 0.1
    expected = []
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i]
        mates = [j for j in others if labels[j] == label]
        total = sum(math.exp(similar[i, j]) for j in others)
        expected.append(-sum(math.log(math.exp(similar[i, j]) / total) for j in mates) / max(len(mates), 1))
    y = np.array(labels)[:, np.newaxis]
    found = keras.ops.convert_to_numpy(PairLoss(0.1).call(y, vectors))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    alone = [labels.count(label) == 1 for label in labels]
    assert (found[alone] == 0).all()
    assert float(PairLoss(0.1)(y, vectors)) == pytest.approx(np.mean(expected), abs=1e-4)


def plan_of(labels: list[int], seed: int, rows: int) -> list[list[int]]:
    with mock.patch.object(contrast, "ROWS", rows):
        arrange = by_label(np.array(labels), 0)
        return [batch.tolist() for batch, _ in arrange(np.ones(len(labels), int), np.random.default_rng(seed))]


@given(labels=LABELS, seed=st.integers(0, 99), rows=st.sampled_from([4, 8, 64]))
def test_every_row_comes_once_an_epoch_in_always_as_many_batches(labels: list[int], seed: int, rows: int) -> None:
    plan = plan_of(labels, seed, rows)
    assert sorted(row for batch in plan for row in batch) == list(range(len(labels)))
    assert all(0 < len(batch) <= rows for batch in plan)
    groups = sum(-(-labels.count(label) // 2) for label in set(labels))  # twos of a label, and who is left over
    assert len(plan) == math.ceil(groups / (rows // 2))  # and no list of pairs
    assert len(plan) == len(plan_of(labels, seed + 1, rows))
    with mock.patch.object(contrast, "ROWS", rows):
        assert len(plan) == len(by_label(np.array(labels), 7)(np.ones(len(labels), int), None))


@given(labels=LABELS, seed=st.integers(0, 99))
@example(labels=[0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4], seed=0)
def test_rows_of_a_label_of_even_count_meet_one_of_their_own(labels: list[int], seed: int) -> None:
    for batch in plan_of(labels, seed, 4):
        for row in batch:
            mates = [other for other in batch if other != row and labels[other] == labels[row]]
            assert mates or labels.count(labels[row]) % 2


@given(labels=LABELS, seed=st.integers(0, 99))
@example(labels=[0, 0, 0, 1, 1, 1, 1, 1], seed=0)
def test_of_a_label_of_odd_count_one_row_at_most_meets_none(labels: list[int], seed: int) -> None:
    alone = [
        labels[row]
        for batch in plan_of(labels, seed, 4)
        for row in batch
        if not any(other != row and labels[other] == labels[row] for other in batch)
    ]
    assert len(alone) == len(set(alone))


def test_who_meets_whom_is_drawn_anew() -> None:
    labels = [0, 1] * 20
    plans = [sorted(map(sorted, plan_of(labels, seed, 4))) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_batches_are_padded_to_their_longest_row() -> None:
    padded = np.arange(1, 101)
    for rows, length in by_label(np.arange(100) % 3, 0)(padded, np.random.default_rng(0)):
        assert length == padded[rows].max()


def prepared(presets: Any, reviews: list[dict[str, str]], policy: Any) -> tuple[keras.Model, np.ndarray, Examples]:
    task, rows = tfft.get_task("few-shot"), pd.DataFrame(reviews)
    backbone, tokenizer = tfft.load_backbone(presets("bert"))
    tfft.freeze(backbone, policy)
    examples = task.encode(rows, tokenizer, task.learn(rows))
    return backbone, examples.y.argmax(axis=1), examples


def closeness(backbone: keras.Model, labels: np.ndarray, examples: Examples) -> float:
    """By how much the cosine of two texts of one label is above that of two of different ones."""
    vectors = keras.layers.UnitNormalization()(heads.pool(backbone, "mean"))
    found = tfft.predict(keras.Model(backbone.input, vectors), examples)
    cosines, same = found @ found.T, labels[:, None] == labels[None, :]
    return float(cosines[same & ~np.eye(len(labels), dtype=bool)].mean() - cosines[~same].mean())


def test_texts_of_one_label_come_closer(
    presets: Any, reviews: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrast, "RATE", 1e-2)
    monkeypatch.setattr(contrast, "STEPS", 100)
    backbone, labels, examples = prepared(presets, reviews, "none")
    apart = closeness(backbone, labels, examples)
    contrast.contrast(backbone, labels, examples, pooling="mean", seed=0)
    assert closeness(backbone, labels, examples) > apart + 0.3


def test_what_is_frozen_stays(presets: Any, reviews: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast, "STEPS", 2)
    backbone, labels, examples = prepared(presets, reviews, "embeddings")
    learn = {v.path for v in backbone.trainable_variables}
    before = {v.path: keras.ops.convert_to_numpy(v) for v in backbone.variables if not is_seed(v)}
    contrast.contrast(backbone, labels, examples, pooling="mean", seed=0)
    after = {v.path: keras.ops.convert_to_numpy(v) for v in backbone.variables if not is_seed(v)}
    moved = {path for path in after if not np.array_equal(before[path], after[path])}
    assert moved
    assert moved <= learn < set(after)


def test_a_frozen_backbone_is_refused(presets: Any, reviews: list[dict[str, str]]) -> None:
    line = "few-shot trains the backbone on pairs before its head, and all of it is frozen. Freeze less"
    with pytest.raises(FreezeError, match=f"^{line}$"):
        contrast.contrast(*prepared(presets, reviews, "all"), pooling="mean", seed=0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    good, bad = ("good", "great", "lovely", "fine"), ("bad", "awful", "poor", "dull")
    for name, texts in (("T", ("the movie was {}", "a {} film")), ("E", ("the {} plot",))):
        rows = [(t.format(w), label) for label, words in (("pos", good), ("neg", bad)) for w in words for t in texts]
        pd.DataFrame(rows, columns=["text", "label"]).to_csv(folder / f"{name}.csv", index=False)
    return folder


def test_a_run_of_few_rows_with_no_validation(
    files: Path, presets: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrast, "STEPS", 10)
    run = files / "run"
    command = ["train", "--task", "few-shot", "--data", str(files / "T.csv"), "--test", str(files / "E.csv")]
    command += ["--validation-share", "0", "--backbone", str(presets("bert")), "--epochs", "3", "--out", str(run)]
    assert cli.main(command) == 0
    shown = capsys.readouterr()
    assert "test (8 rows): accuracy " in shown.out
    assert ", warm " in shown.out
    assert "validation (" not in shown.out
    config, metrics = (json.loads((run / f"{name}.json").read_text("utf-8")) for name in ("config", "metrics"))
    assert (config["freeze"], config["pooling"], config["learning_rate"]) == ("none", "pooled", 1e-3)
    assert metrics["rows"] == {"train": 16, "test": 8}
    before, after = (tfft.load_backbone(folder)[0] for folder in (presets("bert"), run))
    moved = [
        (keras.ops.convert_to_numpy(one) != keras.ops.convert_to_numpy(other)).any()
        for one, other in zip(before.variables, after.variables, strict=True)
        if not is_seed(one)
    ]
    assert np.mean(moved) > 0.8
    (answer,) = tfft.predict_texts(tfft.load_run(run), ["a great film"])
    assert set(answer["probabilities"]) == {"neg", "pos"}
    assert tfft.evaluate_run(tfft.load_run(run), files / "E.csv")["accuracy"] == metrics["test"]["accuracy"]


def test_a_run_that_freezes_everything_ends_in_a_line(
    files: Path, presets: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--task", "few-shot", "--data", str(files / "T.csv"), "--freeze", "all", "--quiet"]
    command += ["--validation-share", "0", "--test-share", "0.25", "--backbone", str(presets("bert"))]
    assert cli.main([*command, "--out", str(files / "none")]) == 2
    line = "tfft: few-shot trains the backbone on pairs before its head, and all of it is frozen. Freeze less\n"
    assert capsys.readouterr().err == line
    assert sorted(path.name for path in files.iterdir() if path.name not in ("run",)) == ["E.csv", "T.csv"]
