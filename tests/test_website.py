"""The site: pages of two languages from one notebook, the reference, and what holds the course together."""

import base64
import json
import re
from pathlib import Path

import docstrings
import pages
import pytest
import rendering

import tfft

ROOT = Path(__file__).parents[1]

COURSE = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text("utf-8"))["cells"]


def test_the_course_has_twelve_notebooks_named_in_both_lists() -> None:
    assert [path.name[:2] for path in COURSE] == [f"{n:02d}" for n in range(1, 13)]
    for page in ("website/en/course/index.md", "website/zh/course/index.md", "notebooks/README.md"):
        assert re.findall(r"\((\d\d_\w+)\.", (ROOT / page).read_text("utf-8")) == [path.stem for path in COURSE]
    for config in ("mkdocs.yml", "zh.yml"):
        named = re.findall(r"course/(\d\d_\w+)\.md", (ROOT / "website" / config).read_text("utf-8"))
        assert named == [path.stem for path in COURSE]


@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)
def test_every_paragraph_is_there_in_both_languages(path: Path) -> None:
    for cell in cells(path):
        if cell["cell_type"] == "markdown":
            source = "".join(cell["source"])
            both = {language: rendering.blocks(rendering.in_language(source, language)) for language in ("en", "zh")}
            assert len(both["en"]) == len(both["zh"]), source
            paragraphs = [b for b in both["en"] if not rendering.is_both(b) and not re.match(r"\d+\.|[-*]|\|", b)]
            assert not any(rendering.CHINESE.search(b) for b in paragraphs), source  # lists and tables may quote some
            assert all(rendering.is_both(b) or rendering.CHINESE.search(b) for b in both["zh"]), source


@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)
def test_a_notebook_has_no_outputs_and_ends_with_folded_answers(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert [cell["metadata"].get("tags") for cell in code][-1] == ["answer"]
    assert code[-1]["metadata"]["jupyter"]["source_hidden"]
    assert "assert" in "".join(code[-1]["source"])
    first = "".join(cells(path)[0]["source"])
    assert re.match(rf"# {int(path.name[:2])}\. .+ · .+", first), "title: its number, English, Chinese"


@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_somewhere(path: Path) -> None:
    text = "\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\(([^)#]+)[)#]", text):
        assert target.startswith("http") or (path.parent / target).exists(), target


def test_one_language_of_a_text_in_two() -> None:
    both = "$$x = 1$$\n\n```\ncode · 代码\n```\n\n"
    text = f"## 2. Data · 数据\nTwo lines\nof English.\n\n两行中文。\n\n{both}1. One · 一\n2. Two · 二"
    assert rendering.in_language(text, "en") == f"## 2. Data\n\nTwo lines\nof English.\n\n{both}1. One\n2. Two"
    assert rendering.in_language(text, "zh") == f"## 2. 数据\n\n两行中文。\n\n{both}1. 一\n2. 二"


def test_formulas_become_mathml_and_code_and_prices_do_not() -> None:
    text = rendering.with_mathml("a $x^2$ b `$y$` costs $5 or $6\n\n$$\\frac{1}{2}$$\n\n```\n$z$\n```")
    assert text.count("<math") == 2
    assert 'display="block"' in text
    assert "`$y$` costs $5 or $6" in text
    assert "```\n$z$\n```" in text


def test_a_page_shows_what_was_printed_and_drawn_but_not_stderr(tmp_path: Path) -> None:
    table = '<div>\n<style scoped>x</style>\n\n<table border="1">'
    outputs = [
        {"output_type": "stream", "name": "stderr", "text": ["a warning\n"]},
        {"output_type": "stream", "name": "stdout", "text": ["\x1b[1mone\x1b[0m ```\n"]},
        {"output_type": "display_data", "data": {"image/png": base64.b64encode(b"png").decode()}},
        {"output_type": "execute_result", "data": {"text/html": [table]}},
    ]
    notebook = {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": ["# Title · 标题"]},
            {"cell_type": "code", "metadata": {}, "source": ["x = 1"], "outputs": outputs},
            {"cell_type": "code", "metadata": {"tags": ["answer"]}, "source": ["assert x"], "outputs": []},
        ]
    }
    page = rendering.page(notebook, "en", tmp_path / "pictures")
    assert "a warning" not in page
    assert "````{ .text .printed }\none ```\n````" in page
    assert "![Title](pictures/01-2.png)" in page
    assert (tmp_path / "pictures" / "01-2.png").read_bytes() == b"png"
    assert '<div class="table" markdown="0">\n<div>\n<table>\n</div>' in page
    assert '??? success "Answers"\n    ```python\n    assert x\n    ```' in page


def test_links_are_led_to_where_pages_stand_in_the_site() -> None:
    for source, text, wanted in (
        ("README.md", "[a](docs/data.md) [b](notebooks/README.md)", "[a](data.md) [b](course/index.md)"),
        ("docs/zh/page.md", "[a](../page.png) [b](tasks.md#x) [c](#y)", "[a](page.png) [b](tasks.md#x) [c](#y)"),
        ("docs/a.md", "[a](../notebooks/01_the_snippet.ipynb)", "[a](course/01_the_snippet.md)"),
        (
            "notebooks/04.ipynb",
            "[a](../docs/zh/data.md#x) [b](../README.zh-CN.md)",
            "[a](../data.md#x) [b](../readme.md)",
        ),
        ("notebooks/04.ipynb", "[a](https://x.org/y) ![p](04/1.png)", "[a](https://x.org/y) ![p](04/1.png)"),
    ):
        assert pages.within_site(text, source) == wanted


def test_an_example_without_prompts_is_code() -> None:
    text = "One line.\n\nExamples:\n    x = f()\n\n    x[0]\n"
    assert docstrings.EXAMPLE.sub(docstrings.fenced, text) == (
        "One line.\n\nExamples:\n    ```python\n    x = f()\n\n    x[0]\n    ```\n"
    )
    prompts = "Examples:\n    >>> f()\n    1\n"
    assert docstrings.EXAMPLE.sub(docstrings.fenced, prompts) == prompts


def test_every_public_name_is_in_the_reference() -> None:
    named = [name for *_, names in pages.REFERENCE.values() for name in names]
    assert sorted(named) == sorted(tfft._PUBLIC)
