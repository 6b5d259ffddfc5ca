"""Lays out what the site is built of: `python website/pages.py EXECUTED OUT` writes OUT/en and OUT/zh.

EXECUTED is the folder of executed notebooks (`make notebooks`). The pages are those of docs/, the notebooks, and a
reference made of the docstrings and of the command line's own help.
"""

import argparse
import json
import os
import posixpath
import re
import shutil
import sys
from pathlib import Path

import rendering

from tfft import _PUBLIC, arguments

ROOT = Path(__file__).parents[1]

# What of the package stands together on one page of the reference, in the order of the straight line.
REFERENCE = {
    "data": ("Data and tasks", "数据与任务", ["load_data", "get_task", "Task"]),
    "models": (
        "Models and freezing",
        "模型与冻结",
        [
            "load_backbone",
            "load_model",
            "replace_head",
            "FixedText",
            "on_text",
            "softmax_head",
            "freeze",
            "split",
            "join",
        ],
    ),
    "training": (
        "Training and scores",
        "训练与评估",
        ["batches", "fit", "Cache", "predict", "evaluate", "show_progress"],
    ),
    "runs": (
        "Recipes and runs",
        "配方与运行",
        ["Recipe", "train", "evaluate_run", "predict_texts", "advise_data", "Run", "load_run", "with_decoding"],
    ),
    "serving": (
        "Export and serving",
        "导出与服务",
        ["export_saved_model", "export_onnx", "export_litert", "Client"],
    ),
    "vectors": ("Text vectors", "文本向量", ["embed", "nearest"]),
    "errors": ("Errors", "错误", ["TfftError", "ServerError"]),
}
ENGLISH_ONLY = "\n\n*以下内容取自代码中的文档字符串，为英文。*"


def lay_out(executed: Path, out: Path) -> None:
    """Every page of both languages."""
    for language in ("en", "zh"):
        folder = out / language
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ROOT / "website" / language, folder)
        shutil.copytree(ROOT / "website" / "assets", folder / "assets")
        shutil.copy(ROOT / "docs" / "page.png", folder)
        for page, source in documents(language).items():
            (folder / page).write_text(within_site((ROOT / source).read_text("utf-8"), source), "utf-8")
        _course(executed, folder, language)
        _reference(folder / "reference", language)


def documents(language: str) -> dict[str, str]:
    """Page of the site -> the file it is made of; what there is in English alone is in both halves."""
    files = sorted((ROOT / "docs").glob("*.md"))
    if language == "zh":
        files = [translated if (translated := f.parent / "zh" / f.name).exists() else f for f in files]
    readme = "README.md" if language == "en" else "README.zh-CN.md"
    others = [readme, "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/writing.md"]
    return {page_of(source): source for source in [*(f.relative_to(ROOT).as_posix() for f in files), *others]}


def page_of(source: str) -> str:
    """Where a file of the repository stands in either half of the site: docs/zh/data.md -> data.md."""
    folder, _, name = source.rpartition("/")
    if folder == "notebooks":
        return "course/index.md" if name == "README.md" else f"course/{name.replace('.ipynb', '.md')}"
    return name if folder.startswith("docs") else name.split(".")[0].lower() + ".md"


def within_site(text: str, source: str) -> str:
    """A page's text with its links, which are from file to file, led from page to page."""
    here = posixpath.dirname(page_of(source))

    def led(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        return f"]({posixpath.relpath(page_of(target), here or '.')}" if (ROOT / target).is_file() else match[0]

    return re.sub(r"\]\(([^)#:]+)", led, text)


def _course(executed: Path, folder: Path, language: str) -> None:
    sources = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    missing = [path.name for path in sources if not (executed / path.name).exists()]
    if missing:
        sys.exit(f"{executed}: {', '.join(missing)} not there; `make notebooks` executes them")
    for path in sources:
        notebook = json.loads((executed / path.name).read_text("utf-8"))
        text = rendering.page(notebook, language, folder / "course" / path.stem)
        text = within_site(text, path.relative_to(ROOT).as_posix())
        (folder / "course" / f"{path.stem}.md").write_text(text, "utf-8")


def _reference(folder: Path, language: str) -> None:
    left_out = set(_PUBLIC) - {name for *_, names in REFERENCE.values() for name in names}
    if left_out:
        sys.exit(f"website/pages.py: no place in the reference for {', '.join(sorted(left_out))}")
    folder.mkdir()
    for file, (english, chinese, names) in REFERENCE.items():
        title = english if language == "en" else chinese + ENGLISH_ONLY
        entries = [f"::: tfft.{_PUBLIC[name]}.{name}\n    options:\n      heading: tfft.{name}" for name in names]
        (folder / f"{file}.md").write_text("\n\n".join([f"# {title}", *entries]) + "\n", "utf-8")
    (folder / "command-line.md").write_text(_command_line(language), "utf-8")


def _command_line(language: str) -> str:
    """What `tfft VERB --help` says, for all verbs."""
    os.environ["COLUMNS"] = "100"  # argparse's width
    parser = arguments.parser(dict.fromkeys(arguments.VERBS, lambda _: None))
    verbs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    parts = ["# The command line" if language == "en" else f"# 命令行{ENGLISH_ONLY}"]
    for name, sub in verbs.choices.items():
        parts.append(f"## tfft {name}\n\n```text\n{sub.format_help().rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]), Path(sys.argv[2]))
