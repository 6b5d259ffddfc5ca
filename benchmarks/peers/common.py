"""What the peer scripts share: arguments, rows, the line they report, and how predictions are timed.

Standard library only: every peer, and the process that serves tfft's SavedModel, imports this file.
"""

import argparse
import csv
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BATCH = 64  # texts a batch when predicting
SINGLES = 200  # texts answered one at a time
WARM_UP = 20

# What every Hugging Face Trainer here is told besides its task's settings.
TRAINER: dict[str, Any] = {
    "per_device_eval_batch_size": 64,
    "use_cpu": True,
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
}


def parser(text: str | None, *, data: bool = True) -> argparse.ArgumentParser:
    """Arguments every script has: `--model` and, mostly, `--data`."""
    options = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, required=True, help="the folder of the model")
    if data:
        options.add_argument("--data", type=Path, required=True, help="a folder with train.csv and test.csv")
    return options


def read(folder: Path, split: str) -> tuple[list[str], list[str]]:
    """Texts and label names of a split."""
    with (folder / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["label"] for row in rows]


def read_rows(folder: Path, split: str) -> list[dict[str, Any]]:
    """The rows of a split, one JSON object a line."""
    with (folder / f"{split}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def report(**values: Any) -> None:
    """Print the line that `benchmarks/speed.py` looks for."""
    print("RESULT " + json.dumps(values), flush=True)


def in_batches(answer: Callable[[list[str]], Any]) -> Callable[[Sequence[str]], list[Any]]:
    """A function of one batch as a function of many texts: one answer a batch."""

    def answer_all(texts: Sequence[str]) -> list[Any]:
        return [answer(list(texts[i : i + BATCH])) for i in range(0, len(texts), BATCH)]

    return answer_all


def time_predictions(
    answer_all: Callable[[list[str]], Any], answer_one: Callable[[str], Any], texts: list[str]
) -> dict[str, float]:
    """Rows a second in order of length (in characters) and in order of arrival; latency of single texts.

    Both are timed after a warm-up on texts of all lengths.

    Args:
        answer_all: answers many texts, in batches of `BATCH`.
        answer_one: answers one text.
        texts: what is answered.

    Returns:
        `sorted_rate` and `arrival_rate` in rows a second, `median_ms` and `p90_ms` of one text,
        `total` seconds of all that.
    """
    begun, by_length = time.perf_counter(), sorted(texts, key=len)
    answer_all(by_length[:: max(1, len(texts) // (4 * BATCH))])
    rates = {}
    for name, order in (("sorted_rate", by_length), ("arrival_rate", texts)):
        start = time.perf_counter()
        answer_all(order)
        rates[name] = len(order) / (time.perf_counter() - start)
    singles = texts[:SINGLES]
    for text in singles[:WARM_UP]:
        answer_one(text)
    milliseconds = []
    for text in singles:
        start = time.perf_counter()
        answer_one(text)
        milliseconds.append(1000 * (time.perf_counter() - start))
    return rates | {
        "median_ms": statistics.median(milliseconds),
        "p90_ms": statistics.quantiles(milliseconds, n=10)[-1],
        "rows": len(texts),
        "total": time.perf_counter() - begun,
    }
