"""The verbs, in process, on a tiny backbone: what they print and what they leave."""

import json
import re
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
    command = ["train", "--data", str(folder / "T.csv"), "--columns", "label=stars", "--backbone", str(presets("bert"))]
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
    assert "learning: head_output; 34 of" in shown.err
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
    assert main(["predict", str(run), "--data", str(run.parent / "G.csv"), "--columns", "text=remark", "--quiet"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("dull")


def test_export_prints_the_version(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), str(tmp_path / "m"), "--model-version", "3", "--quiet"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'm' / '3'}\n"


def test_check_proves_the_newest_version(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), str(tmp_path / "m"), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["check", str(tmp_path / "m")]) == 0
    shown = capsys.readouterr().out
    assert str(tmp_path / "m" / "1") in shown
    assert "FAULT" not in shown
    assert "answers are Keras's" in shown
    (data,) = (tmp_path / "m" / "1" / "variables").glob("variables.data-*")
    data.write_bytes(data.read_bytes()[:100])
    assert main(["check", str(tmp_path / "m" / "1")]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"FAULT +variables", shown)
    assert "variables: export the run again" in shown
    assert main(["check", str(tmp_path / "m"), "--json"]) == 1
    assert [f["check"] for f in json.loads(capsys.readouterr().out) if f["cure"]] == ["variables"]


def test_check_wants_a_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 2
    line = f"tfft: {tmp_path} has no version folder (1, 2, ...). `tfft export RUN {tmp_path}` makes one\n"
    assert capsys.readouterr().err == line


def test_backbones_lists_the_catalog(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones"]) == 0
    shown = capsys.readouterr().out
    assert "minilm-l6" in shown
    assert "Apache-2.0" in shown
    assert "22.7 M" in shown


def test_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    assert capsys.readouterr().out.startswith("text-classification  one label for a text")


def test_cache_list_and_clear_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert main(["cache", "list", "--cache-dir", str(folder)]) == 0
        shown = capsys.readouterr()
        assert shown.out.splitlines()[-1] == f"0.0 MB in {folder}"
        assert shown.err == ""
        assert main(["cache", "clear", "--cache-dir", str(folder)]) == 0
        assert capsys.readouterr().out == f"0.0 MB freed in {folder}\n"
    assert not (tmp_path / "none").exists()


def test_cache_list_and_clear_after_training(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    command = ["train", "--config", str(run / "config.json"), "--epochs", "1", "--cache-dir", str(cache)]
    assert main([*command, "--cache", "never", "--out", str(tmp_path / "never")]) == 0
    assert not cache.exists()
    assert main([*command, "--cache", "always", "--out", str(tmp_path / "always")]) == 0
    assert "cache: yes, training rows, 20 rows, " in capsys.readouterr().err
    assert main(["cache", "list", "--cache-dir", str(cache)]) == 0
    head, *lines, total = capsys.readouterr().out.splitlines()
    assert head.split() == ["entry", "what", "rows", "size", "last", "used"]
    assert sorted(" ".join(line.split()[1:4]) for line in lines) == [
        "evaluated rows 2",
        "training rows 20",
        "validation rows 2",
    ]
    assert {line.split()[0] for line in lines} == {entry.name[:12] for entry in cache.iterdir()}
    assert total == f"0.0 MB in {cache}"
    monkeypatch.setenv("TFFT_ACTIVATIONS", str(cache))
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"0.0 MB freed in {cache}\n"
    assert not list(cache.iterdir())


def test_train_help_says_what_cache_and_precision_take(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--cache CACHE outputs of frozen layers are stored: auto (where it saves time), always, never" in shown
    assert "(default auto)" in shown
    assert "--cache-limit-gb CACHE_LIMIT_GB" in shown
    assert "--precision PRECISION of matrix products: auto, float32, bfloat16; auto asks the machine" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cache", "on"], "cache must be one of: auto, always, never. Received: 'on'"),
        (["--cache-dtype", "int8"], "cache_dtype must be one of: float32, float16, bfloat16. Received: 'int8'"),
        (["--cache-limit-gb", "-1"], "cache_limit_gb must be 0 or more. Received: -1.0"),
        (["--precision", "half"], "precision must be one of: auto, float32, bfloat16. Received: 'half'"),
    ],
)
def test_unknown_caches_and_precisions_end_in_a_line(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", "T.csv", "--out", "x", *flags]) == 2
    assert message in capsys.readouterr().err
