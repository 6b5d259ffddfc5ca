"""Seconds of an epoch of summarization, the encoder frozen: prints RESULT {epoch, losses}. For writing.py."""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

import tfft
from tfft import arithmetic
from tfft.data import load_rows
from tfft.seeding import set_seed

EPOCHS, LENGTH = 4, 128


class Seconds(keras.callbacks.Callback):
    """Of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.seconds.append(time.perf_counter() - self.begin)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--limit", type=int, required=True)
    options.add_argument("--cache", choices=("always", "never"), required=True)
    given = options.parse_args()
    task = tfft.get_task("summarization")
    rows = load_rows(given.data / "train.jsonl", task=task, bad_rows="drop")[: given.limit]
    facts = task.learn(rows, **task.options)
    backbone, tokenizer = tfft.load_backbone()
    tfft.freeze(backbone, "all")
    with arithmetic.arithmetic(arithmetic.choose()), tempfile.TemporaryDirectory() as folder:
        set_seed(0)
        model = task.head(backbone, facts, pooling="", dropout=0.0)
        examples, _ = task.cut(task.encode(rows, tokenizer, facts), tokenizer, LENGTH)
        seconds = Seconds()
        history = tfft.fit(
            model,
            examples,
            epochs=EPOCHS,
            batch_size=96,
            learning_rate=1e-3,
            loss=task.loss(facts, 0.1),
            metrics=task.metrics,
            callbacks=[seconds],
            cache=tfft.Cache(folder, given.cache),
        )
    losses = list(map(float, np.asarray(history.history["loss"])))
    # The first epoch traces the step.
    print(f"RESULT {json.dumps({'epoch': statistics.median(seconds.seconds[1:]), 'losses': losses})}")


if __name__ == "__main__":
    main()
