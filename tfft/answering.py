"""Answers of an export on this machine, without a server and without TensorFlow's Python."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfft.answers import Answer, as_answer
from tfft.errors import DataError
from tfft.reading import Source, read
from tfft.rest import predictions
from tfft.servable import Servable

ROWS = 64  # texts answered together


def answers(servable: Servable, rows: Sequence[Mapping[str, str]]) -> list[Answer]:
    """The answers of a loaded export, in the order of the rows.

    Args:
        servable: from `tfft.servable.load`.
        rows: texts by the names the export takes them by.
    """
    order = sorted(range(len(rows)), key=lambda place: sum(map(len, rows[place].values())))  # less padding
    found: list[Any] = [None] * len(rows)
    for begin in range(0, len(order), ROWS):
        picked = order[begin : begin + ROWS]
        outputs = servable.run({name: [rows[place][name] for place in picked] for name in inputs_of(servable)})
        for place, row in zip(picked, predictions(outputs, rows=True)["predictions"], strict=True):
            found[place] = as_answer(row)
    return found


def inputs_of(servable: Servable) -> list[str]:
    """The names of the texts an export takes."""
    return sorted(servable.signatures["serving_default"].inputs)


def read_texts(
    source: Source, names: Sequence[str], columns: Mapping[str, str], encoding: str = "utf-8"
) -> list[dict[str, str]]:
    """The texts of a table: each of the column named for it, else of that of its name, else of the only one."""
    frame = read(source, encoding)
    have = [str(name) for name in frame.columns]
    chosen = {}
    for name in names:
        column = columns.get(name) or (name if name in have or len(have) > 1 or len(names) > 1 else have[0])
        if column not in have:
            raise DataError(
                f"{source} has no column {column!r}. It has: {', '.join(have)}. Name one with --columns {name}=NAME"
            )
        chosen[name] = column
    return [{name: str(row[column]) for name, column in chosen.items()} for _, row in frame.iterrows()]
