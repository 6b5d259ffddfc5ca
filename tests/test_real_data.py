"""The accuracies asked of the project, on public data sets with the default backbone; skipped where one is absent."""

import json
from pathlib import Path
from typing import Any

import pytest

import tfft
from tfft.data import load_data

pytestmark = pytest.mark.real

CLASSIFICATION = ["sst2", "imdb", "banking77", "ag_news", "sms_spam", "chnsenticorp"]


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_the_sets_are_read_whole(name: str, shared_data: Path) -> None:
    rows = {split: len(frame) for split, frame in load_data(shared_data / name).items()}
    listed = {
        "sst2": (6920, 872, 1821),
        "imdb": (10000, 2000, 5000),
        "ag_news": (5600, 1000, 1000),
        "sms_spam": (4460, 556, 558),
        "chnsenticorp": (6212, 777, 776),
    }
    if name in listed:
        assert tuple(rows.values()) == listed[name]
    else:  # no validation file: held out of the 10,003
        assert rows["train"] + rows["validation"] == 10003
        assert rows["test"] == 3080


def test_a_set_ordered_by_class_is_held_out_in_every_class(shared_data: Path) -> None:
    splits = load_data(shared_data / "banking77")
    assert {name: frame["label"].nunique() for name, frame in splits.items()} == dict.fromkeys(splits, 77)


def scores_of(folder: Path) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads((folder / "metrics.json").read_text("utf-8"))["test"]
    return scores


@pytest.mark.slow
def test_sms_spam_frozen(shared_data: Path, minilm: Path, tmp_path: Path) -> None:
    scores = scores_of(tfft.train(data=str(shared_data / "sms_spam"), backbone=str(minilm), out=str(tmp_path / "x")))
    assert scores["per_class"]["spam"]["f1"] >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "accuracy"), [("sst2", 0.83), ("banking77", 0.91), ("ag_news", 0.885)])
def test_frozen(name: str, accuracy: float, shared_data: Path, minilm: Path, tmp_path: Path) -> None:
    folder = tfft.train(data=str(shared_data / name), backbone=str(minilm), freeze="all", out=str(tmp_path / "x"))
    assert scores_of(folder)["accuracy"] >= accuracy


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_thawed_sst2(shared_data: Path, minilm: Path, tmp_path: Path) -> None:
    folder = tfft.train(
        data=str(shared_data / "sst2"), backbone=str(minilm), freeze="none", epochs=3, out=str(tmp_path / "x")
    )
    assert scores_of(folder)["accuracy"] >= 0.885
