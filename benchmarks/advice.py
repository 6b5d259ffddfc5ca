"""How far `tfft advise` can be trusted: its probes' ranks against those of really training each choice.

    python benchmarks/advice.py --data FOLDER [--limit 1000] [--only NAME ...] [--out table.md]

FOLDER is as for accuracy.py. Every choice is one `tfft train` on the first --limit training rows, judged by the
validation rows; the probes see the same rows. Printed: Spearman's rank correlation over the choices.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

NAMES = ("sst2", "banking77", "ag_news", "sms_spam")
POOLINGS = ("mean", "cls", "max", "pooled", "blocks")
DEPTHS = (1, 2, 3, 4, 5, 6)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--limit", type=int, default=1000)
    options.add_argument("--only", nargs="*", choices=NAMES, default=list(NAMES), metavar="NAME")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    lines = ["| data | choice | probe | trained |", "|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    for name in given.only:
        with tempfile.TemporaryDirectory() as scratch:
            for line in measure(given.data / name, given.limit, Path(scratch)):
                lines.append(line)
                print(line, flush=True)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", "utf-8")


def measure(source: Path, limit: int, scratch: Path) -> list[str]:
    rows = scratch / source.name
    rows.mkdir()
    for split in ("train", "validation", "test"):
        table = pd.read_csv(source / f"{split}.csv", dtype=str, keep_default_na=False)
        size = limit if split == "train" else 1000
        table.sample(min(size, len(table)), random_state=0).to_csv(rows / f"{split}.csv", index=False)
    poolings, depths = probe(rows)
    cache = ["--cache-dir", str(scratch / "cache")]
    kinds = {
        "pooling": ({name: poolings[name] for name in POOLINGS}, ["--freeze", "all", *cache, "--pooling"]),
        "frozen blocks": (
            {str(k): depths[k] for k in DEPTHS},
            ["--epochs", "3", "--pooling", "mean", *cache, "--freeze"],
        ),
    }
    lines = []
    for kind, (probed, flags) in kinds.items():
        trained = {
            choice: train(rows, scratch / f"{kind}-{choice}".replace(" ", "-"), [*flags, choice]) for choice in probed
        }
        lines += [f"| {source.name} | {kind} {c} | {probed[c]:.4f} | {trained[c]:.4f} |" for c in probed]
        together = pd.DataFrame({"probe": probed, "trained": trained}).rank()
        lines.append(f"| {source.name} | **rank correlation, {kind}** | {together.corr().iloc[0, 1]:.2f} | |")
    return lines


def probe(rows: Path) -> tuple[dict[str, float], dict[int, float]]:
    code = (
        "import json, sys, tfft; p, d = tfft.advise_data(sys.argv[1]);"
        "print(json.dumps([[[a.choice, a.accuracy] for a in part] for part in (p, d)]))"
    )
    printed = subprocess.run([sys.executable, "-c", code, str(rows)], check=True, capture_output=True, text=True).stdout
    poolings, depths = json.loads(printed.splitlines()[-1])
    return dict(poolings), dict(depths)


def train(rows: Path, out: Path, flags: list[str]) -> float:
    command = [sys.executable, "-m", "tfft.cli", "train", "--quiet", "--data", str(rows), "--out", str(out), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return float(json.loads((out / "metrics.json").read_text("utf-8"))["validation"]["accuracy"])


if __name__ == "__main__":
    main()
