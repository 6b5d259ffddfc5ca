"""What an export answers: each signature as a function of tensors, in operations TensorFlow Serving has.

No `jit_compile`: Serving has XLA off. No Python function, no operation newer than Serving 2.13.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfft import fusing, heads, tokenizing
from tfft.runs import Run

# Batches are computed in rows and lengths of a multiple of it: oneDNN keeps what it made for every shape it meets, and
# a server that meets all would grow for hours. A batch of none gets a row, for no operation likes it.
ROUND = 8

Signature = tuple[Callable[[Any], dict[str, Any]], list[tf.TensorSpec]]  # the function, and what it takes

TEXT = [tf.TensorSpec([None], tf.string, name="text")]
IDS = [tf.TensorSpec([None, None], tf.int32, name="token_ids")]
EXAMPLES = [tf.TensorSpec([None], tf.string, name="inputs")]  # the name TensorFlow Serving gives them


def signatures(run: Run) -> dict[str, Signature]:
    """All signatures of a run's export; every output is batch first.

    - `serving_default`: `text` (batch,) -> what the task serves
    - `tokens`: `token_ids` (batch, length), padded as `tokenize` pads -> the same
    - `tokenize`: `text` -> `token_ids` (batch, length) int32, cut as for training, padded to the longest
    - `embed`: `text` -> `embedding` (batch, width): what the head's last layer reads
    - `classify`, where there are labels: `inputs` (batch,), serialized `tf.Example`s with a feature `text` ->
      `classes` and `scores` (batch, labels)
    - `regress`, where there are two labels: `inputs` -> `outputs` (batch,), the probability of the second
    """
    tokenizer, facts = run.tokenizer, run.facts
    pad = tokenizing.special_ids(tokenizer)[2]
    names = [tensor.name for tensor in run.model.inputs]
    outputs = {"answers": run.model.output, "embedding": heads.pooled(run.model)}
    model = fusing.fused(keras.Model(run.model.input, outputs), served=True)

    def encode(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tokenizing.padded_ids(tokenizer, text, run.config["clean"], run.config["max_length"])

    def compute(ids: tf.Tensor, mask: tf.Tensor) -> dict[str, Any]:
        x = tokenizing.padded_inputs(ids, mask)
        return model({name: x[name] for name in names}, training=False)

    outputs_for = tf.function(compute, input_signature=2 * IDS, autograph=False)  # one graph: it may hold weights

    def answer(text: tf.Tensor) -> dict[str, Any]:
        rows = tf.shape(text)[0]
        more = tf.where(rows > ROUND, tf.math.floormod(-rows, ROUND), tf.cast(rows == 0, tf.int32))
        text = tf.concat([text, tf.fill([more], "")], 0)
        ids, mask = ids_of(text)
        longer = tf.where(rows > 1, tf.math.floormod(-tf.shape(ids)[1], ROUND), 0)
        ids, mask = (tf.pad(t, [[0, 0], [0, longer]], constant_values=v) for t, v in ((ids, pad), (mask, 0)))
        return keras.tree.map_structure(lambda t: t[:rows], outputs_for(ids, mask))

    # Traced once for all signatures: tracing a BPE tokenizer takes seconds.
    ids_of, outputs_of = (tf.function(f, input_signature=TEXT, autograph=False) for f in (encode, answer))

    def serving_default(text: tf.Tensor) -> dict[str, Any]:
        return run.task.serve(outputs_of(text)["answers"], facts)

    def tokenize(text: tf.Tensor) -> dict[str, Any]:
        return {"token_ids": ids_of(text)[0]}

    def tokens(token_ids: tf.Tensor) -> dict[str, Any]:
        return run.task.serve(outputs_for(token_ids, tf.cast(token_ids != pad, tf.int32))["answers"], facts)

    def embed(text: tf.Tensor) -> dict[str, Any]:
        return {"embedding": outputs_of(text)["embedding"]}

    def classify(inputs: tf.Tensor) -> dict[str, Any]:
        answers = serving_default(_text_of(inputs))
        return {"classes": answers["labels"], "scores": answers["probabilities"]}

    def regress(inputs: tf.Tensor) -> dict[str, Any]:
        return {"outputs": serving_default(_text_of(inputs))["probabilities"][:, 1]}

    found: dict[str, Signature] = {
        "serving_default": (serving_default, TEXT),
        "tokens": (tokens, IDS),
        "tokenize": (tokenize, TEXT),
        "embed": (embed, TEXT),
    }
    if "labels" in facts:
        found["classify"] = classify, EXAMPLES
    if len(facts.get("labels", ())) == 2:
        found["regress"] = regress, EXAMPLES
    return found


def _text_of(examples: tf.Tensor) -> tf.Tensor:
    """The feature `text` of serialized examples; one that lacks it is an empty text."""
    return tf.io.parse_example(examples, {"text": tf.io.FixedLenFeature([], tf.string, "")})["text"]
