"""Answers of an export on this machine, without a server and without TensorFlow's Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfft.client import Answer, as_answer
from tfft.errors import DataError
from tfft.proving import newest
from tfft.reading import Source, read
from tfft.rest import predictions
from tfft.servable import load

ROWS = 64  # texts answered together


def answers(runtime: Any, folder: Path, texts: Sequence[str]) -> list[Answer]:
    """The answers of an export's highest version, in the order of the texts.

    Args:
        runtime: `tfft.runtime.Runtime`.
        folder: the model's folder, or a version's.
        texts: strings.
    """
    servable = load(runtime, newest(folder))
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # like beside like: less padding
    found: list[Any] = [None] * len(texts)
    for begin in range(0, len(order), ROWS):
        picked = order[begin : begin + ROWS]
        outputs = servable.run({"text": [texts[place] for place in picked]})
        for place, row in zip(picked, predictions(outputs, rows=True)["predictions"], strict=True):
            found[place] = as_answer(row)
    servable.close()
    return found


def read_texts(source: Source, column: str | None = None, encoding: str = "utf-8") -> list[str]:
    """The texts of a table: of the column named, else of `text`, else of its only one."""
    frame = read(source, encoding)
    names = [str(name) for name in frame.columns]
    found = column or ("text" if "text" in names else names[0] if len(names) == 1 else None)
    if found not in names:
        raise DataError(f"{source} has no column {found or 'text'!r}. It has: {', '.join(names)}. Name one with --text")
    return [str(text) for text in frame[found]]
