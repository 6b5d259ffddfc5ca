"""64 pieces for 32 texts by a decoder of MiniLM's width: RESULT {kept, anew}, seconds. For writing.py.

`kept` is tfft's own writing, which keeps keys and values; `anew` calls the decoder on all that is written for every
piece. Greedy, float32, and the end is forbidden, so that both write the same 64.
"""

import json
import statistics
import time
from typing import Any

import numpy as np
import tensorflow as tf

from tfft import vocabulary
from tfft.decoder import Decoder, NextPiece
from tfft.decoding import Decoding, decode
from tfft.seeding import set_seed

ROWS, SOURCE, WIDTH, HEADS, LAYERS, PIECES, WRITTEN, TURNS = 32, 24, 384, 6, 3, 6000, 64, 5


def main() -> None:
    set_seed(0)
    decoder = Decoder(PIECES, LAYERS, WIDTH, HEADS, WRITTEN, name="head_decoder")
    following = NextPiece(decoder, name="head_output")
    encoded = tf.constant(np.random.default_rng(0).normal(size=(ROWS, SOURCE, WIDTH)).astype("float32"))
    mask = tf.ones((ROWS, SOURCE), tf.int32)
    start = tf.fill((ROWS, 1), 4)
    following(decoder(start, encoded, mask), start)
    settings = Decoding(beams=1, min_length=WRITTEN)

    def write(step: Any, state: Any) -> tf.Tensor:
        ids, _ = decode(
            step,
            state,
            ROWS,
            settings,
            longest=WRITTEN,
            start=vocabulary.START,
            end=vocabulary.END,
            pad=vocabulary.PAD,
        )
        return ids

    @tf.function(autograph=False)
    def kept(encoded: tf.Tensor) -> tf.Tensor:
        memory = decoder.memory(encoded, mask)

        def step(ids: Any, position: Any, kept: Any) -> tuple[Any, Any]:
            states, kept = decoder.step(ids, position, kept, memory)
            return following.logits(states), kept

        return write(step, decoder.begin(ROWS, 1))

    @tf.function(autograph=False)
    def anew(encoded: tf.Tensor) -> tf.Tensor:
        def step(ids: Any, position: Any, before: Any) -> tuple[Any, Any]:
            before = tf.concat(
                [before, ids[:, :, tf.newaxis]], axis=2
            )  # begins with the start, which `call` puts there
            target = tf.pad(before[:, 0, 1:], [[0, 0], [0, 1]])
            states = decoder(target, encoded, mask)[:, -1:]
            return following.logits(states), before

        return write(step, tf.zeros((ROWS, 1, 0), tf.int32))

    one, other = kept(encoded).numpy(), anew(encoded).numpy()  # traces
    if (one != other).mean() > 0.01:  # ties may fall either way
        raise SystemExit("the two write different pieces")
    seconds: dict[str, list[float]] = {"kept": [], "anew": []}
    for _ in range(TURNS):
        for name, function in (("kept", kept), ("anew", anew)):
            begin = time.perf_counter()
            function(encoded).numpy()
            seconds[name].append(time.perf_counter() - begin)
    print(f"RESULT {json.dumps({name: statistics.median(values) for name, values in seconds.items()})}")


if __name__ == "__main__":
    main()
