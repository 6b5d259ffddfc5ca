"""What it is worth that tfft has freed memory kept (tfft/memory.py): with and without it, in turns.

    python benchmarks/memory.py --rounds 3 [--export saved_models/a/1 --data test.csv]

Trains on the embedded messages, three epochs, of which the last is timed; with --export it asks the version in batches
of 256 in TensorFlow's C++ runtime, too. "Without" names glibc's own default in `GLIBC_TUNABLES`, by which tfft leaves
all of it alone. Printed: a Markdown table and the ratios, median and range.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path

from measuring import Result, run_script

TRAIN = """
import json, resource, sys, time
import keras, tfft

class Clock(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.begin, self.usage = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)

    def on_epoch_end(self, epoch, logs=None):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.found = {
            "seconds": time.perf_counter() - self.begin,
            "system": usage.ru_stime - self.usage.ru_stime,
            "user": usage.ru_utime - self.usage.ru_utime,
            "faults": usage.ru_minflt - self.usage.ru_minflt,
        }

policy = sys.argv[1]
data, task = tfft.load_data(tfft.MESSAGES), tfft.get_task("text-classification")
facts = task.learn(data["train"])
backbone, tokenizer = tfft.load_backbone("minilm-l6")
rows = {split: task.encode(data[split], tokenizer, facts) for split in ("train", "validation")}
tfft.freeze(backbone, int(policy) if policy.isdigit() else policy)
model = keras.Model(backbone.input, tfft.softmax_head(backbone, len(facts["labels"]), pooling="mean"))
clock = Clock()
tfft.fit(model, rows["train"], rows["validation"], epochs=3, learning_rate=1e-4, callbacks=[clock])
print("RESULT " + json.dumps(clock.found))
"""

ASK = """
import csv, json, resource, sys, time
from pathlib import Path
from tfft.runtime import Runtime
from tfft.servable import load
with open(sys.argv[2], encoding="utf-8", newline="") as file:
    texts = [row["text"] for row in csv.DictReader(file)][:1024]
served = load(Runtime(), Path(sys.argv[1]))
for turn in range(2):  # the first warms up
    before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for first in range(0, len(texts), 256):
        served.run({"text": texts[first : first + 256]})
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
print("RESULT " + json.dumps({
    "seconds": seconds, "system": after.ru_stime - before.ru_stime, "user": after.ru_utime - before.ru_utime,
    "faults": after.ru_minflt - before.ru_minflt,
}))
"""

NAMES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
WAYS = {"kept": {}, "given back": {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}}
COLUMNS = {"seconds": "{:.1f}", "system": "{:.1f}", "user": "{:.1f}", "faults": "{:,.0f}", "MB": "{:,.0f}"}


def middle(values: list[float], shown: str) -> str:
    """Median and range."""
    return f"{shown} ({shown} to {shown})".format(statistics.median(values), min(values), max(values))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--export", type=Path, help="a version's folder")
    options.add_argument("--data", type=Path, help="CSV with a column text, for --export")
    given = options.parse_args()
    cases = {"all blocks learn": [TRAIN, "embeddings"], "two blocks learn": [TRAIN, "4"]}
    if given.export:
        cases["an export asked"] = [ASK, str(given.export), str(given.data)]
    bare = {name: value for name, value in os.environ.items() if name not in NAMES}
    bare |= {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(Path(__file__).parents[1])}
    found: dict[tuple[str, str], list[Result]] = {(case, way): [] for case in cases for way in WAYS}
    for _ in range(given.rounds):
        for case, way in found:
            result = run_script([sys.executable, "-c", *cases[case]], bare | WAYS[way])
            found[case, way].append(result | {"MB": result["memory"] / 2**20})
            print(f"{case}, {way}: {result['seconds']:.1f} s", file=sys.stderr)
    print(f"| case | freed memory is | {' | '.join(COLUMNS)} |")
    print(f"| --- | --- | {' | '.join('---' for _ in COLUMNS)} |")
    for (case, way), results in found.items():
        cells = [middle([result[name] for result in results], shown) for name, shown in COLUMNS.items()]
        print(f"| {case} | {way} | {' | '.join(cells)} |")
    print()
    for case in cases:
        pairs = zip(found[case, "given back"], found[case, "kept"], strict=True)
        ratios = [without["seconds"] / kept["seconds"] for without, kept in pairs]
        print(f"{case}, given back by kept: {middle(ratios, '{:.2f}')} the time")


if __name__ == "__main__":
    main()
