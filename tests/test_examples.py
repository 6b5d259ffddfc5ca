"""The examples in docstrings run, and say what they say; so do the README's Python block and its commands."""

import doctest
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tfft

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "tfft").rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str, minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_readmes_python_block_runs(readme: str, minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text("utf-8"), flags=re.DOTALL)
    if readme != "README.md":  # the same code, with comments in the reader's language
        (english,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), flags=re.DOTALL)
        strip = lambda text: [line.split("#")[0].rstrip() for line in text.splitlines()]  # noqa: E731
        assert strip(block) == strip(english)
        return
    scope: dict[str, Any] = {}
    exec(compile(block, readme, "exec"), scope)
    accuracy = float(capsys.readouterr().out.split()[-1])
    assert accuracy > 0.7


def test_readmes_commands_run(minilm: Path, tmp_path: Path) -> None:
    for split, name in (("train", "T"), ("validation", "V"), ("test", "E")):
        shutil.copy(tfft.MESSAGES / f"{split}.csv", tmp_path / f"{name}.csv")
    text = (ROOT / "README.md").read_text("utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    block = next(block for language, block in fences if not language and "tfft train" in block)
    script = "set -e\n" + f'tfft() {{ "{sys.executable}" -m tfft.cli "$@"; }}\n' + block
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert (tmp_path / "saved_models" / "x" / "1" / "saved_model.pb").exists()
    assert re.search(r"^delivery +0\.\d+", done.stdout, flags=re.MULTILINE)


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_readmes_server_is_asked_by_curl_and_by_the_client(readme: str, presets: Any, tmp_path: Path) -> None:
    from tests.test_proving import make_run
    from tests.test_server import serving

    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    text = (ROOT / readme).read_text("utf-8")
    fences = [block for _, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)]
    lines = next(block for block in fences if "tfft serve saved" in block).splitlines()
    code = next(block for block in fences if "tfft.Client" in block)
    assert lines[0] == "tfft serve saved_models &"
    tfft.export_saved_model(make_run(presets("bert")), tmp_path / "saved_models" / "x")
    with serving(tmp_path / "saved_models") as running:
        for line in lines[1:]:
            command = line.replace("http://localhost:8501", running.address)
            done = subprocess.run(["bash", "-c", f"{command} -fsS"], capture_output=True, text=True, check=True)
            assert done.stdout.startswith('{"')
        scope: dict[str, Any] = {"tfft": tfft}
        exec(code.replace("http://localhost:8501", running.address), scope)
        assert scope["client"].predict(["Where is my parcel?"])[0]["label"] in ("neg", "pos")


# The pages of tasks that write: the file their commands read, and rows for it beside the page's own.
WRITING = {
    "translation": ("pairs.jsonl", "source", "target"),
    "summarization": ("emails.jsonl", "document", "summary"),
    "text-generation": ("answers.jsonl", "question", "answer"),
}


@pytest.mark.slow
@pytest.mark.parametrize("page", [f"docs/{name}.md" for name in WRITING])
def test_commands_of_the_pages_on_writing_run(page: str, minilm: Path, presets: Any, tmp_path: Path) -> None:
    file, source, target = WRITING[Path(page).stem]
    text = (ROOT / page).read_text("utf-8")
    blocks = [block for _, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)]
    (given,) = (json.loads(block) for block in blocks if block.startswith("{"))
    rows = [given, *({source: f"Number {i} is {i * i}.", target: f"Nummer {i}: {i * i}"} for i in range(15))]
    (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    commands = [line for block in blocks if block.startswith("tfft ") for line in block.splitlines()]
    assert len(commands) >= 6
    (tmp_path / "own").mkdir()  # in place of a backbone that would be fetched
    (tmp_path / "own" / "gpt2_base_en").symlink_to(presets("gpt2"))
    own = os.pathsep.join([str(tmp_path / "own"), os.environ.get("TFFT_BACKBONES", "")])
    for command in commands:
        script = f'tfft() {{ "{sys.executable}" -m tfft.cli "$@"; }}\n{command}'
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TFFT_BACKBONES": own}
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert (tmp_path / "saved_models").is_dir()


@pytest.mark.parametrize("page", [f"{name}.md" for name in WRITING])
def test_pages_on_writing_have_the_same_code_in_both_languages(page: str) -> None:
    english, chinese = (
        re.findall(r"^```\w*\n(.*?)^```$", (ROOT / place / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        for place in ("docs", "docs/zh")
    )
    assert english == chinese
