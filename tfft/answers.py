"""One row of what an export answers, as a client is given it; `predict_texts` gives the same. Plain values only."""

from collections.abc import Mapping
from typing import Any

Answer = dict[str, Any]

# Of some things a row has several, each in outputs side by side; shorter rows are filled up, with starts of -1.
LISTS = {"entities": ("text", "label", "score", "start", "end"), "answers": ("text", "score", "start", "end")}


def as_answer(row: Any) -> Answer:
    """A row by names: probabilities by label, lists side by side as one list of answers.

    Args:
        row: output name -> value, as a server's JSON has it; a bare value where a model has one output.
    """
    if not isinstance(row, Mapping):
        return {"value": row}
    answer = dict(row)
    if {"labels", "probabilities"} <= set(row):
        names = answer.pop("labels")
        answer["probabilities"] = dict(zip(names, row["probabilities"], strict=True))
        if "chosen" in row:
            answer["chosen"] = [name for name, chosen in zip(names, row["chosen"], strict=True) if chosen]
        return answer
    for name, fields in LISTS.items():
        if f"{name}_start" in row:
            each = zip(*(answer.pop(f"{name}_{field}") for field in fields), strict=True)
            found = [dict(zip(fields, one, strict=True)) for one in each]
            answer[name] = [one for one in found if one["start"] >= 0]
    return answer
