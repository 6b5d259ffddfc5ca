"""The verbs, in process, on a tiny backbone: what they print and what they leave."""

import json
from pathlib import Path
from typing import Any

import pytest

from tfft.cli import main

TEXTS = [
    "the movie was good",
    "great film !",
    "a lovely story",
    "bad , awful ending",
    "dull and poor",
    "it is not good",
]


@pytest.fixture(scope="module")
def run(presets: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    rows = [f'"{text} {n}",{"pos" if i < 3 else "neg"}' for n in range(4) for i, text in enumerate(TEXTS)]
    (folder / "T.csv").write_text("review,stars\n" + "\n".join(rows) + "\n", "utf-8")
    command = ["train", "--data", str(folder / "T.csv"), "--label", "stars", "--backbone", str(presets("bert"))]
    assert main([*command, "--epochs", "2", "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_train_prints_a_score_card(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = ["train", "--config", str(run / "config.json"), "--epochs", "1", "--out", str(run.parent / "again")]
    assert main(again) == 0
    shown = capsys.readouterr()
    assert "test (2 rows): accuracy " in shown.out
    assert "precision" in shown.out
    assert "seconds: load " in shown.out
    assert shown.out.endswith(f"run folder: {run.parent / 'again'}\n")
    assert "columns: text = 'review', label = 'stars'" in shown.err
    assert "learning: head_probabilities; 34 of" in shown.err
    assert json.loads((run.parent / "again" / "config.json").read_text("utf-8"))["epochs"] == 1


def test_evaluate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--data", str(run.parent / "T.csv"), "--json", "--quiet"]) == 0
    shown = capsys.readouterr()
    scores = json.loads(shown.out)
    assert shown.err == ""
    assert 0 <= scores["accuracy"] <= 1
    assert main(["evaluate", str(run), "--data", str(run.parent / "T.csv")]) == 0
    assert f"{scores['accuracy']:.4f}" in capsys.readouterr().out


def test_predict_texts_and_a_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run.parent / "F.jsonl").write_text('{"review": "a dull film"}\n{"review": "lovely"}\n', "utf-8")
    command = ["predict", str(run), "great film", "--data", str(run.parent / "F.jsonl"), "--json", "--quiet"]
    assert main(command) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in answers] == ["great film", "a dull film", "lovely"]
    assert all(set(answer["probabilities"]) == {"neg", "pos"} for answer in answers)
    assert main(["predict", str(run), "great   film\n" + "x" * 200]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("great film " + "x" * 66 + "...")


def test_predict_reads_texts_from_another_column(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run.parent / "G.csv").write_text("id,remark\n1,dull\n", "utf-8")
    assert main(["predict", str(run), "--data", str(run.parent / "G.csv"), "--text", "remark", "--quiet"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("dull")


def test_export_prints_the_version(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), str(tmp_path / "m"), "--model-version", "3", "--quiet"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'm' / '3'}\n"


def test_backbones_lists_the_catalog(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones"]) == 0
    shown = capsys.readouterr().out
    assert "minilm-l6" in shown
    assert "Apache-2.0" in shown
    assert "22.7 M" in shown


def test_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    assert capsys.readouterr().out.startswith("text-classification  one label for a text")
