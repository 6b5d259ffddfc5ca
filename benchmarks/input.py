"""Whether training waits for its rows: seconds that reading an epoch's batches takes, beside those of the epoch.

    python benchmarks/input.py --model FOLDER --data FOLDER [--limit 2000]

FOLDER of --data has train.csv (text, label). For each freeze policy the second epoch of a training is timed, then the
same batches are read once more and nothing is computed with them. Printed: a Markdown table. Batches are made in a
thread of their own beside the training, so a share below 1 means that they are ready when they are asked for.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import tfft
from tfft import tokenizing
from tfft.arithmetic import arithmetic, choose
from tfft.batching import batches
from tfft.caching import Cache, frozen_outputs
from tfft.examples import Examples, lengths
from tfft.tasks import get_task

# freeze policy -> (what the batches hold, pooling)
CASES = {
    "none": ("token ids", "mean"),
    "4": ("stored sequences, float16 on disk", "mean"),
    "all": ("stored vectors", "blocks"),
}


class Clock(keras.callbacks.Callback):
    """Seconds of the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds = time.perf_counter() - self.begin


def measure(folder: Path, rows: Examples, policy: str, pooling: str, classes: int, place: Path) -> tuple[float, float]:
    """Seconds of (reading an epoch, training it)."""
    backbone, _ = tfft.load_backbone(folder)
    tfft.freeze(backbone, policy)
    model = keras.Model(backbone.input, tfft.softmax_head(backbone, classes, pooling=pooling))
    cache, clock = Cache(place, mode="always"), Clock()
    tfft.fit(model, rows, epochs=2, batch_size=32, cache=cache, callbacks=[clock])
    prefix, suffix = tfft.split(model)
    read = rows if prefix is None else frozen_outputs(prefix, suffix, rows, cache, passes=1, description="rows")
    start = time.perf_counter()
    batches(read, [tensor.name for tensor in suffix.inputs], 32, seed=0).reduce(0, lambda count, *_: count + 1).numpy()
    return time.perf_counter() - start, clock.seconds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--limit", type=int, help="training rows; all by default")
    given = options.parse_args()
    task = get_task("text-classification")
    table = tfft.load_data(given.data, task=task)["train"][: given.limit]
    facts = task.learn(table)
    backbone, tokenizer = tfft.load_backbone(given.model)
    rows = task.encode(table, tokenizer, facts)
    length = tokenizing.choose_length(lengths(rows.x), backbone.max_sequence_length)
    rows, _ = tokenizing.truncate_examples(rows, tokenizer, length)
    print(f"{len(table):,} rows of {given.data.name}, at most {length} tokens, batches of 32\n")
    print(
        "| `--freeze` | a batch holds | reading an epoch, s | training it, s | share |\n|---|---|---|---|---|",
        flush=True,
    )
    with arithmetic(choose()), tempfile.TemporaryDirectory() as place:
        for policy, (what, pooling) in CASES.items():
            read, trained = measure(given.model, rows, policy, pooling, len(facts["labels"]), Path(place))
            print(f"| `{policy}` | {what} | {read:.2f} | {trained:.2f} | {read / trained:.3f} |", flush=True)


if __name__ == "__main__":
    main()
