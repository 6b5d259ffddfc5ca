"""The run folder: whole or absent, and enough by itself."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfft
from tfft import runs
from tfft.errors import InvalidValueError, NotFoundError
from tfft.recipe import OPTIONS

FILES = {
    "config.json",
    "confusion.png",
    "environment.json",
    "facts.json",
    "head.safetensors",
    "history.csv",
    "metrics.json",
    "preset",
}


@pytest.fixture(scope="module")
def folder(presets: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = {"text": [f"{w} film {n}" for w in ("good", "bad") for n in range(12)], "label": ["pos"] * 12 + ["neg"] * 12}
    source = tmp_path_factory.mktemp("data") / "rows.jsonl"
    lines = [json.dumps({"text": t, "label": y}) for t, y in zip(rows["text"], rows["label"], strict=True)]
    source.write_text("\n".join(lines), "utf-8")
    out = tmp_path_factory.mktemp("runs") / "x"
    return tfft.train(data=str(source), out=str(out), backbone=str(presets("bert")), epochs=2, clean=["whitespace"])


def test_a_run_holds_what_the_docs_say(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["x"]  # no scratch folder


def test_config_is_the_recipe_as_resolved(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["pooling"] == "blocks"
    assert config["epochs"] == 2
    assert config["learning_rate"] == 1e-3
    assert config["max_length"] == 8
    optional = {"validation", "test", "class_weight", "cache_dir", "cache_limit_gb", "lora", *OPTIONS}
    assert {name for name, value in config.items() if value is None} == optional


def test_metrics_have_scores_seconds_rows_and_counts(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert set(metrics["seconds"]) == {"load", "prepare", "train", "evaluate", "write"}
    assert metrics["rows"] == {"train": 20, "validation": 2, "test": 2}
    assert set(metrics["truncated"]) == {"train", "validation", "test"}
    names = {"accuracy", "f1_macro", "f1_weighted", "precision_macro", "recall_weighted", "mcc", "log_loss"}
    assert names <= set(metrics["test"])
    assert np.array(metrics["test"]["confusion_matrix"]).sum() == 2


def test_history_has_a_row_an_epoch(folder: Path) -> None:
    lines = (folder / "history.csv").read_text("utf-8").splitlines()
    assert lines[0] == "epoch,accuracy,loss,val_accuracy,val_loss"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2"]


def test_environment_has_versions_and_command(folder: Path) -> None:
    environment = json.loads((folder / "environment.json").read_text("utf-8"))
    assert set(environment["versions"]) >= {"tensorflow", "tensorflow-text", "keras", "keras-hub"}
    assert environment["command"]


def test_a_config_repeats_the_run(folder: Path, tmp_path: Path) -> None:
    from tfft.recipe import from_mapping, read_recipe

    recipe = from_mapping(read_recipe(folder / "config.json") | {"out": str(tmp_path / "again")})
    again = tfft.train(recipe)
    one, other = (json.loads((path / "metrics.json").read_text("utf-8")) for path in (folder, again))
    assert one["test"] == other["test"]
    assert (folder / "head.safetensors").read_bytes() == (again / "head.safetensors").read_bytes()


def test_in_python_a_path_and_a_number_of_blocks_will_do(folder: Path, presets: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"{w} film {n},{w}\n" for w in ("good", "bad") for n in range(4)), "utf-8")
    again = tfft.train(data=rows, out=tmp_path / "blocks", backbone=presets("bert"), freeze=1, epochs=1)
    assert json.loads((again / "config.json").read_text("utf-8"))["freeze"] == "1"


def test_a_runs_preset_is_a_backbone(folder: Path) -> None:
    backbone, tokenizer = tfft.load_backbone(folder / "preset")
    assert tokenizer.vocabulary_size() <= backbone.vocabulary_size


def test_evaluate_and_predict_need_the_folder_alone(folder: Path) -> None:
    run = tfft.load_run(folder)
    scores = tfft.evaluate_run(run, {"text": ["good film", "bad film"], "label": ["pos", "neg"]})
    assert 0 <= scores["accuracy"] <= 1
    (answer,) = tfft.predict_texts(run, ["a good film"])
    assert set(answer["probabilities"]) == {"pos", "neg"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert tfft.predict_texts(run, []) == []


def test_versions_of_an_export_count_up(folder: Path, tmp_path: Path) -> None:
    run = tfft.load_run(folder)
    assert tfft.export_saved_model(run, tmp_path / "m").name == "1"
    (tmp_path / "m" / "7").mkdir()
    (tmp_path / "m" / "notes").mkdir()
    assert tfft.export_saved_model(run, tmp_path / "m").name == "8"
    with pytest.raises(InvalidValueError, match="exists already. Choose another folder, or remove it"):
        tfft.export_saved_model(run, tmp_path / "m", version=7)
    with pytest.raises(InvalidValueError, match="a version is a whole number from 1. Received: 0"):
        tfft.export_saved_model(run, tmp_path / "m", version=0)


def test_new_folder_is_whole_or_absent(tmp_path: Path) -> None:
    def interrupted() -> None:
        with runs.new_folder(tmp_path / "x") as scratch:
            (scratch / "half").write_text("written")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with runs.new_folder(tmp_path / "x") as scratch:
        assert not (tmp_path / "x").exists()
        (scratch / "whole").write_text("written")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["whole"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("facts.json", "it has no facts.json"),
        ("head.safetensors", "it has no head.safetensors"),
    ],
)
def test_a_folder_that_is_no_run(broken: str, message: str, tmp_path: Path) -> None:
    for name in ("config.json", "facts.json", "preset", "head.safetensors"):
        if name != broken:
            (tmp_path / name).write_text("{}")
    expected = f"{tmp_path} is not a run of tfft: {message}. `tfft train --out {tmp_path}` makes one"
    with pytest.raises(NotFoundError, match=re.escape(expected)):
        tfft.load_run(tmp_path)
