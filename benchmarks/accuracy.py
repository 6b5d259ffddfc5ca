"""The accuracies in README and docs: trains on public data sets through the command line and prints a Markdown table.

    python benchmarks/accuracy.py --data FOLDER [--only NAME ...] [--out table.md]

FOLDER holds one folder a data set (sst2, banking77, ag_news, sms_spam), each with train, validation and test files.
Every row is one `tfft train` with the flags shown, scored once on the test rows; validation says when to stop.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

# name -> (data set, flags)
RUNS: dict[str, tuple[str, list[str]]] = {
    "sst2": ("sst2", []),
    "banking77": ("banking77", []),
    "ag_news": ("ag_news", []),
    "sms_spam": ("sms_spam", []),
    "sst2-none": ("sst2", ["--freeze", "none"]),
    "sst2-embeddings": ("sst2", ["--freeze", "embeddings"]),
    "sst2-mean": ("sst2", ["--pooling", "mean"]),
    "sst2-cls": ("sst2", ["--pooling", "cls"]),
    "sst2-max": ("sst2", ["--pooling", "max"]),
    "sst2-pooled": ("sst2", ["--pooling", "pooled"]),
    "banking77-mean": ("banking77", ["--pooling", "mean"]),
    "sst2-stopwords": ("sst2", ["--clean", "stopwords"]),
    "banking77-stopwords": ("banking77", ["--clean", "stopwords"]),
} | {
    f"{name}-{dtype}": (name, ["--freeze", "4", "--cache", "always", "--cache-dtype", dtype])
    for name in ("sst2", "banking77")
    for dtype in ("float32", "float16", "bfloat16")
}


def measure(data: Path, name: str, more: list[str]) -> dict[str, float | str]:
    dataset, flags = RUNS[name]
    flags = [*flags, *more]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        command = [sys.executable, "-m", "tfft.cli", "train", "--data", str(data / dataset), "--out", str(out), *flags]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        metrics = json.loads((out / "metrics.json").read_text("utf-8"))
        config = json.loads((out / "config.json").read_text("utf-8"))
    test = metrics["test"]
    rarest = min(test["per_class"], key=lambda label: test["per_class"][label]["rows"])
    return {
        "name": name,
        "data": dataset,
        "flags": " ".join(flags) or "(defaults)",
        "pooling": config["pooling"],
        "epochs": config["epochs"],
        "rows": metrics["rows"]["train"],
        "validation": metrics["validation"]["accuracy"],
        "test": test["accuracy"],
        "f1_macro": test["f1_macro"],
        "f1_rarest": test["per_class"][rarest]["f1"],
        "rarest": rarest,
        "seconds": sum(metrics["seconds"].values()),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--only", nargs="*", choices=RUNS, default=list(RUNS), metavar="NAME")
    options.add_argument("--cache", help="as tfft train takes it")
    options.add_argument("--seed", help="likewise")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    more = [f"--{name}={value}" for name in ("cache", "seed") if (value := getattr(given, name)) is not None]
    lines = [
        "| data | flags | pooling | epochs | training rows | validation accuracy | test accuracy | test F1 macro | F1 of the rarest label | seconds |",  # noqa: E501
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in given.only:
        row = measure(given.data, name, more)
        lines.append(
            f"| {row['data']} | `{row['flags']}` | {row['pooling']} | {row['epochs']} | {row['rows']:,} "
            f"| {row['validation']:.4f} | {row['test']:.4f} | {row['f1_macro']:.4f} "
            f"| {row['f1_rarest']:.4f} ({row['rarest']}) | {row['seconds']:.0f} |"
        )
        print(lines[-1], flush=True)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
