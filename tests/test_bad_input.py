"""Bad input at the command line: exit code 2, one readable line, nothing left behind. And odd input that is none."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tfft.cli import main
from tfft.tasks import TASKS

ROOT = Path(__file__).parents[1]
GOOD = ("the movie was good", "great film !", "a lovely story", "i was fine and it is great", "very fine plot")
BAD = ("the movie was bad", "awful film !", "a dull story", "it is not good , awful ending", "very poor plot")
STOP = "Mend them, or leave them out with --bad-rows drop"


def _csv(pos: str = "pos", neg: str = "neg", header: str = "text,label") -> str:
    rows = [f'"{text}",{label}' for texts, label in ((GOOD, pos), (BAD, neg)) for text in texts]
    return "\n".join([header, *rows]) + "\n"


def _jsonl(*rows: str) -> str:
    return "\n".join(rows) + "\n"


def _write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


def _failed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command line that must fail; returns its one line on stderr."""
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as left:  # argparse's own errors
        code = left.code  # type: ignore[assignment]
    shown = capsys.readouterr()
    assert code == 2
    assert shown.out == ""
    assert shown.err.endswith("\n")
    (line,) = shown.err.splitlines()
    assert line.startswith("tfft")
    return re.sub(r"(?<=_backbone)_\d+", "", line)  # Keras numbers the models of a process


def _left(folder: Path) -> list[str]:
    """What lies in a folder, hidden or not; nothing if it was never made."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def train(presets: Any, tmp_path: Path) -> Callable[..., list[str]]:
    """The command that trains on T.csv in this test's folder, with more arguments that stand over these."""
    (tmp_path / "T.csv").write_text(_csv(), "utf-8")

    def command(*more: str) -> list[str]:
        usual = ["--data", str(tmp_path / "T.csv"), "--backbone", str(presets("bert")), "--epochs", "1", "--quiet"]
        return ["train", *usual, "--out", str(tmp_path / "runs" / "x"), *(part.format(d=tmp_path) for part in more)]

    return command


@pytest.fixture(scope="module")
def run(presets: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real run, on labels 0 and 1 and with one text of 100,000 characters."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "T.csv").write_text(_csv("1", "0") + f'"{"good film " * 10_000}",1\n', "utf-8")
    command = ["train", "--data", str(folder / "T.csv"), "--backbone", str(presets("bert")), "--epochs", "1"]
    assert main([*command, "--out", str(folder / "x"), "--quiet"]) == 0
    return folder / "x"


@pytest.fixture
def damaged(run: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the run with one file changed."""

    def copy(name: str, content: bytes | None) -> Path:
        shutil.copytree(run, tmp_path / "copy")
        (tmp_path / "copy" / name).unlink()
        if content is not None:
            (tmp_path / "copy" / name).write_bytes(content)
        return tmp_path / "copy"

    return copy


# what is wrong -> (files, arguments, line)
DATA: dict[str, tuple[dict[str, str | bytes], list[str], str]] = {
    "no such file": ({}, ["--data", "{d}/no.csv"], "no such file: {d}/no.csv"),
    "empty file": ({"T.csv": ""}, [], "{d}/T.csv is empty: expected at least one row"),
    "header only": ({"T.csv": "text,label\n"}, [], "{d}/T.csv is empty: expected at least one row"),
    "unknown kind": (
        {"T.xlsx": "x"},
        ["--data", "{d}/T.xlsx"],
        "{d}/T.xlsx: unknown kind of file '.xlsx'. "
        "Expected one of: .csv, .tsv, .jsonl, .ndjson, .json, .conll, .parquet",
    ),
    "folder without train file": (
        {},
        ["--data", "{d}"],
        "{d} has no train file. Expected one of: train.csv, train.tsv, train.jsonl, train.ndjson, train.json, "
        "train.conll, train.parquet",
    ),
    "wrong encoding": (
        {"T.csv": b"text,label\na fine film,pos\ncaf\xe9,neg\n"},
        [],
        "{d}/T.csv is not utf-8 (byte 0xe9 in line 3). Save it as UTF-8, or name its encoding: --encoding cp1252",
    ),
    "unknown encoding": (
        {},
        ["--encoding", "utf-99"],
        "unknown encoding 'utf-99'. Expected a name Python knows, such as utf-8 or cp1252",
    ),
    "ragged": (
        {"T.csv": "text,label\ngood,pos\nbad, but long,neg\n"},
        [],
        "{d}/T.csv, line 3: expected 2 fields as in the header, got 3. "
        "Put fields that hold the delimiter or a quote in double quotes",
    ),
    "no JSON": (
        {"T.jsonl": '{"text": "a", "label": "b"}\ntext\n'},
        ["--data", "{d}/T.jsonl"],
        "{d}/T.jsonl, line 2: expected one JSON object a line. Expecting value: line 1 column 1 (char 0)",
    ),
    "column not there": ({}, ["--columns", "label=stars"], "no column 'stars'. The columns are: text, label"),
    "column not found": (
        {"T.csv": _csv(header="text,kind of")},
        [],
        "found no label column; the columns are: text, kind of. "
        "Name it with --columns label=NAME (is the first line of the file a header?)",
    ),
    "column not in the test rows": (
        {"E.csv": _csv(header="remark,label")},
        ["--test", "{d}/E.csv"],
        "the test rows have no column 'text'. The columns are: remark, label",
    ),
    "repeated column": (
        {"T.csv": "text,label,text\na,b,c\n"},
        [],
        "{d}/T.csv has more than one column named text. Rename or remove the others",
    ),
    "empty texts": (
        {"T.csv": _csv() + '"",pos\n"  ",neg\n'},
        [],
        f"train: 2 of 12 rows have an empty text (row 11, 12). {STOP}",
    ),
    "missing texts": (
        {"T.jsonl": _jsonl('{"text": null, "label": "a"}', '{"text": "x", "label": "a"}', '{"label": "b"}')},
        ["--data", "{d}/T.jsonl"],
        f"train: 2 of 3 rows have no text (row 1, 3). {STOP}",
    ),
    "empty labels": ({"T.csv": _csv(pos="")}, [], f"train: 5 of 10 rows have no label (row 1, 2, 3, ...). {STOP}"),
    "NaN labels": (
        {"T.jsonl": _jsonl('{"text": "x", "label": 1}', '{"text": "y", "label": NaN}')},
        ["--data", "{d}/T.jsonl"],
        f"train: 1 of 2 rows have no label (row 2). {STOP}",
    ),
    "one class": (
        {"T.csv": _csv("pos", "pos")},
        [],
        "all 8 training rows have the label 'pos'. Classification needs at least two labels",
    ),
    "small class": (
        {"T.csv": _csv() + "so so,mixed\nwell,mixed\n"},
        [],
        "label 'mixed' has 2 different row(s); holding out validation and test needs at least 3. "
        "Add rows, remove the class, or give --validation and --test files",
    ),
    "text as label": (
        {"T.csv": "text,label\n" + "".join(f"text {n},label {n}\n" for n in range(150)), "E.csv": _csv()},
        ["--validation", "{d}/E.csv", "--test", "{d}/E.csv"],
        "150 different labels in 150 training rows: is the label column a text or a number? "
        "Name the right one with --columns label=NAME",
    ),
    "unseen label": (
        {"E.csv": "text,label\na fine film,pos\nso so,mixed\nwell,mixed\n"},
        ["--test", "{d}/E.csv"],
        "labels that the training rows do not have: 'mixed' (2 rows). Known labels: 'neg', 'pos'",
    ),
    "backbone with a typo": (
        {},
        ["--backbone", "minilm-l7"],
        "no backbone 'minilm-l7': no such folder, short name or KerasHub preset. Did you mean 'minilm-l6'?",
    ),
    "backbone that is none": (
        {},
        ["--backbone", "{d}"],
        "{d} is no backbone: it has no config.json. Expected a KerasHub preset or Hugging Face folder",
    ),
    "too many blocks": ({}, ["--freeze", "99"], "freeze=99: bert_backbone has 2 blocks, so 0 to 2 can be frozen"),
    "fewer than no blocks": ({}, ["--freeze=-1"], "freeze=-1: bert_backbone has 2 blocks, so 0 to 2 can be frozen"),
    "unknown layer": (
        {},
        ["--freeze", "token_embedding,layer_9*"],
        "freeze: no layer is called 'layer_9*'. The layers are: token_ids, token_embedding, segment_ids, "
        "position_embedding, segment_embedding, embeddings_add, embeddings_layer_norm, embeddings_dropout, "
        "padding_mask, transformer_layer_0, transformer_layer_1, pooled_dense",
    ),
    "no layer": ({}, ["--freeze", ","], "freeze names no layer. Use 'none' to freeze nothing"),
    "unknown task": (
        {},
        ["--task", "translating"],
        f"task must be one of: {', '.join(TASKS)}; or several targets, NAME=TASK,NAME=TASK. Received: 'translating'",
    ),
    "unusable value": ({}, ["--epochs", "0"], "epochs must be 1 or more. Received: 0"),
    "unusable values": (
        {},
        ["--epochs", "0", "--dropout", "1", "--clean", "html,lower"],
        "clean must be some of: unicode, html, control, whitespace, stopwords. Received: ('html', 'lower'); "
        "dropout must be 0 or more and below 1. Received: 1.0; epochs must be 1 or more. Received: 0",
    ),
    "no data": ({}, ["--data", ""], "data is needed"),
    "no such config": ({}, ["--config", "{d}/no.json"], "no such file: {d}/no.json"),
    "config that is no JSON": (
        {"a.json": "epochs: 3"},
        ["--config", "{d}/a.json"],
        "{d}/a.json is not JSON: Expecting value: line 1 column 1 (char 0)",
    ),
    "unknown setting": (
        {"a.json": '{"epoch": 3}'},
        ["--config", "{d}/a.json"],
        "{d}/a.json: unknown setting 'epoch' (did you mean 'epochs'?)",
    ),
}


@pytest.mark.parametrize(("files", "more", "line"), DATA.values(), ids=DATA)
def test_training_on_bad_input_is_one_line(
    files: dict[str, str | bytes],
    more: list[str],
    line: str,
    train: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _write(tmp_path, files)
    assert _failed(train(*more), capsys) == "tfft: " + line.replace("{d}", str(tmp_path))
    assert _left(tmp_path / "runs") == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "tfft: the following arguments are required: VERB (tfft --help shows what it takes)"),
        (
            ["evaluate", "x"],
            "tfft evaluate: the following arguments are required: --data (tfft evaluate --help shows what it takes)",
        ),
        (
            ["train", "--epochs", "many"],
            "tfft train: argument --epochs: invalid int value: 'many' (tfft train --help shows what it takes)",
        ),
        (
            ["evaluate", "x", "--data", "y", "--bad-rows", "skip"],
            "tfft evaluate: argument --bad-rows: invalid choice: 'skip' (choose from 'stop', 'drop') "
            "(tfft evaluate --help shows what it takes)",
        ),
        (["train"], "tfft: data is needed; out is needed"),
        (["predict", "x"], "tfft: nothing to predict: give texts, or a file with --data FILE"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _failed(arguments, capsys) == line


def test_unknown_flag(train: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    line = _failed(train("--colour", "red"), capsys)
    assert line == "tfft: unrecognized arguments: --colour red (tfft --help shows what it takes)"


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    line = _failed(["tain"], capsys)
    assert line.startswith("tfft: argument VERB: invalid choice: 'tain' (choose from 'train', 'evaluate', 'predict', ")


def test_results_are_never_overwritten(
    train: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "x").mkdir(parents=True)
    line = _failed(train("--data", "{d}/not even read.csv"), capsys)
    assert line == f"tfft: {tmp_path}/runs/x exists already. Choose another folder, or remove it"
    assert _left(tmp_path / "runs") == ["x"]
    assert _left(tmp_path / "runs" / "x") == []


def test_without_a_network_a_hub_backbone_is_one_line(
    train: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(handle: str) -> None:
        raise ConnectionError("HTTPSConnectionPool(host='www.kaggle.com')\nMax retries exceeded")

    monkeypatch.setattr("kagglehub.model_download", download)
    monkeypatch.setenv("TFFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TFFT_BACKBONES", raising=False)
    line = _failed(train("--backbone", "bert-tiny"), capsys)
    assert line == (
        "tfft: could not get bert_tiny_en_uncased from the hub (ConnectionError: HTTPSConnectionPool(host="
        "'www.kaggle.com') Max retries exceeded). Without a network, copy the folder from a machine that has it and "
        "pass its path"
    )
    assert _left(tmp_path / "runs") == []


def test_unusable_rows_may_be_left_out(
    train: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, {"T.csv": _csv(neg="") + "x,\n"})
    capsys.readouterr()
    assert main(train("--bad-rows", "drop")) == 2  # what is left is one class
    assert capsys.readouterr().err.splitlines() == [
        "train: 6 of 11 rows have no label (row 6, 7, 8, ...): left out",
        "tfft: all 3 training rows have the label 'pos'. Classification needs at least two labels",
    ]


def test_the_last_line_is_the_error_where_progress_is_shown(
    train: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = train("--freeze", "99")
    command.remove("--quiet")
    assert main(command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "columns: text = 'text', label = 'label'"
    last = re.sub(r"(?<=_backbone)_\d+", "", lines[-1])
    assert last == "tfft: freeze=99: bert_backbone has 2 blocks, so 0 to 2 can be frozen"
    assert len([line for line in lines if line.startswith("tfft")]) == 1


VERBS = {
    "evaluate": lambda folder: ["evaluate", str(folder), "--data", "x.csv", "--quiet"],
    "predict": lambda folder: ["predict", str(folder), "some text", "--quiet"],
    "export": lambda folder: ["export", str(folder), f"{folder}/../served", "--quiet"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_is_no_run(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").mkdir()
    for name, why in (("no", "no such folder"), ("x", "it has no config.json")):
        line = _failed(VERBS[verb](tmp_path / name), capsys)
        made = f"`tfft train --out {tmp_path}/{name}` makes one"
        assert line == f"tfft: {tmp_path}/{name} is not a run of tfft: {why}. {made}"
    assert _left(tmp_path) == ["x"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_damaged_head(
    verb: str, damaged: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = damaged("head.safetensors", b"\x00" * 40)
    line = _failed(VERBS[verb](copy), capsys)
    assert line.startswith(f"tfft: {copy}/head.safetensors is damaged or of another model: ")
    assert _left(tmp_path) == ["copy"]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("head.safetensors", None, "{copy} is not a run of tfft: it has no head.safetensors."),
        ("config.json", b"{", "{copy}/config.json is not JSON: "),
        ("facts.json", b"", "{copy}/facts.json is not JSON: "),
        ("config.json", b"{}", "{copy}/config.json"),
        ("facts.json", b"{}", "{copy}/facts.json"),
        ("preset/tokenizer.json", b"{", "{copy}/preset does not load as a backbone with a tokenizer: "),
    ],
)
def test_a_damaged_run(
    name: str, content: bytes | None, line: str, damaged: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    copy = damaged(name, content)
    assert _failed(["predict", str(copy), "some text", "--quiet"], capsys).startswith(f"tfft: {line.format(copy=copy)}")


@pytest.mark.parametrize(
    ("content", "more", "line"),
    [
        (None, [], "no such file: {d}/E.csv"),
        (
            "text,label\na,1\nb,7\n",
            [],
            "labels that the training rows do not have: '7' (1 rows). Known labels: '0', '1'",
        ),
        (
            "remark,label\na,1\n",
            [],
            "found no text column; the columns are: remark, label. "
            "Name it with --columns text=NAME (is the first line of the file a header?)",
        ),
        ("text,label\na,1\n", ["--columns", "label=y"], "no column 'y'. The columns are: text, label"),
        ("text,label\n,1\n", [], f"given: 1 of 1 rows have an empty text (row 1). {STOP}"),
    ],
)
def test_evaluating_on_bad_input_is_one_line(
    content: str | None, more: list[str], line: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "E.csv").write_text(content, "utf-8")
    command = ["evaluate", str(run), "--data", str(tmp_path / "E.csv"), "--quiet", *more]
    assert _failed(command, capsys) == f"tfft: {line.format(d=tmp_path)}"


def test_exporting_badly_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(run), str(tmp_path / "m"), "--quiet", "--model-version"]
    assert _failed([*command, "0"], capsys) == "tfft: a version is a whole number from 1. Received: 0"
    assert _left(tmp_path) == []
    (tmp_path / "m" / "3").mkdir(parents=True)
    line = f"tfft: {tmp_path}/m/3 exists already. Choose another folder, or remove it"
    assert _failed([*command, "3"], capsys) == line
    assert _left(tmp_path / "m") == ["3"]


def test_a_disk_too_full_is_told_before_training(
    train: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfft.runs.shutil.disk_usage", lambda place: SimpleNamespace(free=2**19))
    line = _failed(train(), capsys)
    assert line.startswith(f"tfft: {tmp_path} has 0.5 MB left, a run of this backbone takes about 1.0 MB. ")
    assert line.endswith("Make room, or choose another --out")
    assert _left(tmp_path / "runs") == []


def test_a_run_folder_that_cannot_be_made_is_told_before_training(
    train: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: Any, **__: Any) -> None:
        pytest.fail("the training had begun")

    monkeypatch.setattr("tfft.pipeline.fit", fit)
    (tmp_path / "file").touch()
    line = _failed(train("--out", "{d}/file/x"), capsys)
    assert str(tmp_path / "file") in line
    assert "--debug" not in line


def test_a_disk_full_at_the_end_leaves_nothing(
    train: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_file(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "head.safetensors")

    monkeypatch.setattr("tfft.runs.save_file", save_file)
    assert _failed(train(), capsys) == "tfft: no space left on the disk; nothing was kept"
    assert _left(tmp_path / "runs") == []


def test_ctrl_c_while_training_leaves_nothing(train: Callable[..., list[str]], tmp_path: Path) -> None:
    command = train("--epochs", "100000", "--patience", "100000", "--learning-rate", "1e-6")
    command.remove("--quiet")
    process = subprocess.Popen(
        [sys.executable, "-m", "tfft.cli", *command],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line.rstrip("\n"))
            if line.startswith("epoch 1:"):
                break
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    lines += rest.splitlines()
    assert process.returncode == 2, lines
    assert lines[-1] == "tfft: interrupted; nothing was kept"
    assert len([line for line in lines if line.startswith("tfft")]) == 1
    assert not any("Traceback" in line for line in lines)
    assert out == ""
    assert _left(tmp_path / "runs") == []


def test_labels_0_and_1_are_names(run: Path) -> None:
    assert json.loads((run / "facts.json").read_text("utf-8"))["labels"] == ["0", "1"]
    per_class = json.loads((run / "metrics.json").read_text("utf-8"))["test"]["per_class"]
    assert list(per_class) == ["0", "1"]


def test_a_text_of_100000_characters_is_cut_and_counted(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    assert metrics["rows"] == {"train": 7, "validation": 2, "test": 2}
    assert sum(metrics["truncated"].values()) == 1


def test_odd_texts_are_answered(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["", " ", "\U0001f600 \u4f60\u597d", "x" * 100_000, "nul \x00 byte"]
    assert main(["predict", str(run), *texts, "--json", "--quiet"]) == 0
    shown = capsys.readouterr()
    answers = [json.loads(line) for line in shown.out.split("\n") if line]
    assert [answer["text"] for answer in answers] == texts
    assert {answer["label"] for answer in answers} <= {"0", "1"}
    assert shown.err == ""
