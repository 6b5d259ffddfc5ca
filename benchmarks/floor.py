"""What this machine can do at most, and how much of it the frozen forward pass reaches; `speed.py` runs this (case f).

    python benchmarks/floor.py --model FOLDER --data FOLDER --precision bfloat16

Prints `RESULT {json}`: the rate of matrix products with TensorFlow, and that of the frozen part of a model on the
training rows, in operations on real tokens: padding, pooling, norms and softmax are not counted as work.
"""

import argparse
import csv
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tfft
from tfft import tokenizing
from tfft.evaluation import predict
from tfft.examples import Examples, lengths

TOKENS = 2048  # a batch's tokens in the product of the model's own shape
SQUARE = 4096


def product_rate(rows: int, inner: int, columns: int, repeats: int = 30) -> float:
    """Operations a second of `x @ w + b`, x (rows, inner), w (inner, columns): median of `repeats`."""
    generator = np.random.default_rng(0)
    x = tf.constant(generator.standard_normal((rows, inner), "float32"))
    w = tf.constant(generator.standard_normal((inner, columns), "float32"))
    b = tf.zeros([columns])
    product = tf.function(lambda x: tf.nn.bias_add(tf.matmul(x, w), b))
    product(x), product(x)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(x)
        seconds.append(time.perf_counter() - start)
    return 2 * rows * inner * columns / statistics.median(seconds)


def operations(row_lengths: np.ndarray, blocks: int, width: int, inner: int) -> int:
    """Multiplications and additions of the blocks' matrix products for rows of these lengths."""
    projections = 2 * (4 * width**2 + 2 * width * inner)  # a token
    attention = 2 * 2 * row_lengths * width  # a token: scores, and values by scores
    return int(blocks * (row_lengths * (projections + attention)).sum())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", required=True)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    options.add_argument("--passes", type=int, default=3, help="timed passes over the rows; the median counts")
    given = options.parse_args()
    if given.precision == "bfloat16":  # before any graph is made
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})

    backbone, tokenizer = tfft.load_backbone(given.model)
    tfft.freeze(backbone, "all")
    prefix, _ = tfft.split(keras.Model(backbone.input, tfft.softmax_head(backbone, 2, pooling="blocks")))
    with (given.data / "train.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    x, padding = tokenizing.encode(tokenizer, texts)
    limit = tokenizing.choose_length(lengths(x), backbone.max_sequence_length)
    nothing = np.zeros((len(texts), 2), "float32"), np.ones(len(texts), "float32")
    examples, _ = tokenizing.truncate_examples(Examples(x, *nothing, padding), tokenizer, limit)
    counts = lengths(examples.x)

    # the two rates first and last, the passes between them: none has the machine to itself for longer than the others
    model_rate = product_rate(TOKENS, backbone.hidden_dim, backbone.intermediate_dim)
    predict(prefix, examples)  # traces, and meets every shape once
    seconds = []
    for _ in range(given.passes):
        start = time.perf_counter()
        predict(prefix, examples)
        seconds.append(time.perf_counter() - start)
    forward = statistics.median(seconds)
    result = {
        "rows": len(texts),
        "tokens": int(counts.sum()),
        "shape": [TOKENS, backbone.hidden_dim, backbone.intermediate_dim],
        "model_rate": model_rate,
        "square": SQUARE,
        "square_rate": product_rate(SQUARE, SQUARE, SQUARE),
        "forward": forward,
        "forward_rate": operations(counts, backbone.num_layers, backbone.hidden_dim, backbone.intermediate_dim)
        / forward,
    }
    print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
