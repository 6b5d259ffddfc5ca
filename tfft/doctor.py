"""Old fine-tuning code, read and never run: what fails or silently goes wrong on today's stack, and what to write.

Only what is certain from the code is said: a name is followed where it was assigned, and where that cannot be told
there is no finding.
"""

import ast
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from tfft.code_reading import Finding, Names
from tfft.code_rules import Reader
from tfft.errors import InvalidValueError, NotFoundError

MEANT = re.compile(r"#\s*doctor:\s*([a-z, -]+)$")  # at a line's end: the rules it breaks on purpose
MAGIC = "# tfft-magic "  # before lines of a notebook that are no Python, while it is read


def examine(source: str) -> list[Finding]:
    """The faults in a script, in its order; not those that a line names as meant: `x = f()  # doctor: rule, rule`.

    Raises:
        InvalidValueError: it is not Python.

    Examples:
        >>> from tfft.doctor import examine
        >>> [finding.rule for finding in examine("import keras_nlp")]
        ['renamed-package']
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise InvalidValueError(f"line {error.lineno} is not Python: {error.msg}") from None
    names = Names(tree)
    reader = Reader(names, source)
    reader.block(tree.body, {})
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            reader.block(function.body, {})
    meant = [re.split(r"[, ]+", m[1]) if (m := MEANT.search(line)) else [] for line in source.split("\n")]
    found = {(f.line, f.rule): f for f in reader.found if f.rule not in meant[f.line - 1]}
    return sorted(found.values(), key=lambda f: (f.line, f.rule))


def fixed(source: str) -> str:
    """The script with every change that can be made without asking."""
    findings = examine(source)
    edits = sorted({edit for finding in findings for edit in finding.edits}, reverse=True)
    lines = source.splitlines(keepends=True)
    for edit in edits:
        (first, low), (last, high) = edit.begin, edit.end
        before = lines[first - 1].encode()[:low].decode() if first <= len(lines) else ""
        after = lines[last - 1].encode()[high:].decode() if last <= len(lines) else ""
        lines[first - 1 : last] = [before + edit.text + after]
    text = "".join(lines)
    if any(finding.needs_import for finding in findings) and not re.search(r"^import tfft\b", text, flags=re.MULTILINE):
        text = _with_import(text)
    return text


def _with_import(text: str) -> str:
    tree = ast.parse(text)
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    line = imports[-1].end_lineno if imports else 0
    lines = text.splitlines(keepends=True)
    lines.insert(line or 0, "import tfft\n")
    return "".join(lines)


def examine_file(path: str | Path) -> list[Finding]:
    """The faults in a script or a notebook.

    Raises:
        NotFoundError: there is no such file.
        InvalidValueError: it is neither Python nor a notebook.
    """
    path = Path(path)
    if path.suffix != ".ipynb":
        return examine(_text(path))
    cells = _cells(_notebook(path))
    starts, line = [], 1
    for _, source in cells:
        starts.append(line)
        line += source.count("\n") + 1
    found = []
    for finding in examine("\n".join(source for _, source in cells)):
        place = max(i for i, start in enumerate(starts) if start <= finding.line)
        found.append(dataclasses.replace(finding, line=finding.line - starts[place] + 1, cell=cells[place][0]))
    return found


def fix_file(path: str | Path, target: str | Path) -> None:
    """Write a corrected copy of a script; of a notebook, with the cells kept apart."""
    path, target = Path(path), Path(target)
    if target.exists():
        raise InvalidValueError(f"{target} exists already. Choose another name, or remove it")
    if path.suffix != ".ipynb":
        _write(target, fixed(_text(path)))
        return
    notebook = _notebook(path)
    mark = "# --- tfft doctor: next cell ---"
    cells = _cells(notebook)
    parts = fixed(f"\n{mark}\n".join(source for _, source in cells)).split(f"\n{mark}\n")
    for (number, _), source in zip(cells, parts, strict=True):
        notebook["cells"][number - 1]["source"] = source.replace(MAGIC, "").splitlines(keepends=True)
    _write(target, json.dumps(notebook, ensure_ascii=False, indent=1) + "\n")


def _write(target: Path, content: str) -> None:
    scratch = target.with_name(f".{target.name}.tmp")
    scratch.write_text(content, "utf-8")
    scratch.replace(target)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"no such file: {path}") from None
    except (UnicodeDecodeError, OSError) as error:
        raise InvalidValueError(f"{path} is no text file in UTF-8: {error}") from None


def _notebook(path: Path) -> dict[str, Any]:
    try:
        notebook = json.loads(_text(path))
        _cells(notebook)
    except (ValueError, KeyError, TypeError):
        raise InvalidValueError(f"{path} is no Jupyter notebook") from None
    return dict(notebook)


def _cells(notebook: dict[str, Any]) -> list[tuple[int, str]]:
    """Number and code of the cells; lines that are no Python (`%matplotlib`, `!pip`) as comments."""
    found = []
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] == "code":
            source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
            found.append((number, re.sub(r"^(\s*)([%!])", rf"\1{MAGIC}\2", source, flags=re.MULTILINE)))
    return found
