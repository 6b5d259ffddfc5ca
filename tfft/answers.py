"""One row of what an export answers, as a client is given it; `predict_texts` gives the same. Plain values only."""

from collections.abc import Mapping
from typing import Any

Answer = dict[str, Any]

# Of some things a row has several, each in outputs side by side; shorter rows are filled up, with starts of -1.
LISTS = {
    "entities": ("text", "label", "score", "start", "end"),
    "answers": ("text", "score", "start", "end"),
    "fills": ("text", "score", "start"),
}


# What ends the names of outputs where a row has several targets, such as "topic_probabilities" and "stars_value".
PARTS = ("_probabilities", "_value")


def as_answer(row: Any) -> Answer:
    """A row by names: probabilities by label, lists side by side as one list of answers.

    Args:
        row: output name -> value, as a server's JSON has it; a bare value where a model has one output.
    """
    if not isinstance(row, Mapping):
        return {"value": row}
    targets = list(dict.fromkeys(name[: -len(end)] for name in row for end in PARTS if name.endswith(end)))
    if targets:
        return {
            name: as_answer({n[len(name) + 1 :]: v for n, v in row.items() if n.rpartition("_")[0] == name})
            for name in targets
        }
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
