"""Python code as the doctor reads it: what names stand for, what calls are given, and where a change goes."""

import ast
import builtins
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Edit(NamedTuple):
    """A piece of the code to be replaced: lines and columns as `ast` counts them, lines from 1."""

    begin: tuple[int, int]
    end: tuple[int, int]
    text: str


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        line: where, from 1.
        rule: its short name.
        says: what happens on today's stack, and why.
        instead: what to write.
        edits: the change, where it can be made without asking.
        needs_import: whether the change uses tfft.
        cell: of a notebook, from 1; None in a script.
    """

    line: int
    rule: str
    says: str
    instead: str
    edits: tuple[Edit, ...] = ()
    needs_import: bool = False
    cell: int | None = None


class Names:
    """What names stand for after the imports: `tf.keras.layers.Dense`, `layers.Dense` and `Dense` -> the same."""

    def __init__(self, tree: ast.AST) -> None:
        self.imported: dict[str, str] = {}
        self.assigned: set[str] = set()
        self.star = False
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    self.imported[name.asname or name.name.split(".")[0]] = (
                        name.name if name.asname else name.name.split(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom):
                for name in node.names:
                    self.star |= name.name == "*"
                    self.imported[name.asname or name.name] = f"{node.module}.{name.name}"
            elif isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
                self.assigned.add(node.id)
            elif isinstance(node, ast.arg):
                self.assigned.add(node.arg)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.assigned.add(node.name)

    def full(self, node: ast.AST) -> str:
        """The dotted name, Keras's own without `tensorflow.`; "" where it is none."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or (node.id not in self.imported):
            return ""
        name = ".".join([self.imported[node.id], *parts])
        name = re.sub(r"^tensorflow\.(compat\.v\d\.|python\.)?keras\b", "keras", name)
        return re.sub(r"^tf_keras\b", "tf_keras", name)

    def unknown(self, name: str) -> bool:
        """Whether nothing in the file gives it."""
        known = name in self.imported or name in self.assigned or hasattr(builtins, name)
        return not known and not self.star


def last_part(dotted: str) -> str:
    """The name behind the last dot."""
    return dotted.rsplit(".", 1)[-1]


def argument(call: ast.Call, name: str, place: int | None = None) -> ast.expr | None:
    """What a call is given by a name, or at a place; None for nothing."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[place] if place is not None and place < len(call.args) else None


def value_of(node: ast.AST | None) -> Any:
    """The value of a literal; None where it is none."""
    try:
        return ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, SyntaxError):
        return None


def span(node: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a piece of code begins and ends."""
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def name_of(node: ast.AST | None) -> str | None:
    """The name, where it is just that."""
    return node.id if isinstance(node, ast.Name) else None


def is_block(node: ast.AST) -> bool:
    """`[0] * n`, or a sum of such."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return is_block(node.left)
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.List)


def is_flag(node: ast.AST, owner: str) -> bool:
    """`owner.trainable`."""
    return isinstance(node, ast.Attribute) and node.attr == "trainable" and name_of(node.value) == owner


def calls_of(statement: ast.stmt) -> Iterator[ast.Call]:
    """The calls of a statement, those of its own blocks left out, inner ones first."""
    todo: list[ast.AST] = [statement]
    found: list[ast.Call] = []
    blocks: Callable[[ast.AST], bool] = lambda node: isinstance(node, ast.stmt) and node is not statement  # noqa: E731
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Call):
            found.append(node)
        todo += [child for child in ast.iter_child_nodes(node) if not blocks(child)]
    return iter(sorted(found, key=lambda call: (call.end_lineno or 0, call.end_col_offset or 0)))
