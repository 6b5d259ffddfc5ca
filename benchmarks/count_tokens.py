"""Tokens of the training rows a run has seen, cut where the run cut them; `speed.py` runs this (case g).

python benchmarks/count_tokens.py --model FOLDER --data FOLDER --max-length N
"""

import argparse
import csv
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tfft
from tfft import tokenizing
from tfft.examples import lengths


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", required=True)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--max-length", type=int, required=True)
    given = options.parse_args()
    with (given.data / "train.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    _, tokenizer = tfft.load_backbone(given.model)
    x, _ = tokenizing.encode(tokenizer, texts)
    print("RESULT " + json.dumps({"tokens": int(np.minimum(lengths(x), given.max_length).sum())}), flush=True)


if __name__ == "__main__":
    main()
