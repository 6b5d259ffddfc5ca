"""The house rules that a grep can hold."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tfft"
FILES = sorted(PACKAGE.rglob("*.py"))
FAMILIES = re.compile(r"(?i)(bert|roberta|albert|deberta|electra|gpt2|llama|gemma|bart|t5|f_?net)")
MAY_NAME_FAMILIES = {"backbones.py", "fetching.py", "catalog.py", "serving_ops.py"}  # the last: a server's operations


def code_of(path: Path) -> str:
    """The file's code without its docstrings and comments, which may explain by example."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0].value.value = ""
    return ast.unparse(tree)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_keeps_the_rules(path: Path) -> None:
    code = code_of(path)
    if path.name not in MAY_NAME_FAMILIES:
        assert not FAMILIES.findall(code)
        assert "isinstance(backbone," not in code
    if path.name not in ("cli.py", "console.py"):
        assert not re.search(r"(?<![._a-zA-Z])print\(", code)
    if path.name != "graph.py":
        assert not re.search(r"\._(nodes_by_depth|inbound_nodes|outputs_struct|flatten_layers|layers)\b", code)
    tree = ast.parse(code)
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), "assert is not for users"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), "no bare except"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            assert not {"pickle", "joblib", "dill", "marshal", "torch"} & set(names)


def test_only_these_files_know_the_recipe() -> None:
    knowing = {path.name for path in FILES if "tfft.recipe" in code_of(path)}
    assert knowing == {"arguments.py", "cli.py", "pipeline.py"}


def test_every_module_says_what_it_is_for() -> None:
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path
