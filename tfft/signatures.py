"""What an export answers: each signature as a function of tensors, in operations TensorFlow Serving has.

No `jit_compile`: Serving has XLA off. No Python function, no operation newer than Serving 2.13.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfft import fusing, grouping, heads, tokenizing
from tfft.grouping import ROUND
from tfft.runs import Run

WHOLE = 2**20  # tokens: longer than any row

Signature = tuple[Callable[..., dict[str, Any]], list[tf.TensorSpec]]  # the function, and what it takes

IDS = [tf.TensorSpec([None, None], tf.int32, name="token_ids")]
EXAMPLES = [tf.TensorSpec([None], tf.string, name="inputs")]  # the name TensorFlow Serving gives them


def signatures(run: Run) -> dict[str, Signature]:
    """All signatures of a run's export; every output is batch first.

    - `serving_default`: the task's texts, each (batch,) by its name, such as `text` -> what the task serves
    - `tokenize`: the same -> `token_ids` (batch, length) int32, padded to the longest; cut as for training, but whole
      where the task cuts rows into windows
    - `tokens`, where rows are single texts: `token_ids` (batch, length), padded as `tokenize` pads -> what the task
      serves
    - `embed`, where texts become one vector: the texts -> `embedding` (batch, width): what the head's last layer reads
    - `classify`, where one of some labels is the answer: `inputs` (batch,), serialized `tf.Example`s with a feature for
      each text -> `classes` and `scores` (batch, labels)
    - `regress`, where there are two labels, or the answer is a number: `inputs` -> `outputs` (batch,), the probability
      of the second, or the number
    """
    task, tokenizer, facts, names = run.task, run.tokenizer, run.facts, list(run.task.inputs)
    fill = tokenizing.paddings(tokenizer)
    taken = [tensor.name for tensor in run.answering.inputs]
    fixed = {tensor.name for tensor in run.answering.inputs if None not in tensor.shape[1:]}  # of one length alone
    outputs, vector = {"answers": run.answering.output}, heads.pooled(run.answering)
    if vector is not None:
        outputs["embedding"] = vector
    plain = keras.Model(run.answering.input, outputs)
    model = fusing.fused(plain, served=True)
    # Only blocks of our own are put into a loop: TensorFlow 2.21 fuses some ways of writing attention into an operation
    # that gives nothing there, and does so on some processors alone (architecture.md, decision 52).
    masks = grouping.masks_of(model) if model is not plain else None
    texts_taken = texts_of(run)

    def outputs_for(x: Mapping[str, Any]) -> dict[str, Any]:
        x = {name: x[name] for name in taken}
        found: dict[str, Any] = grouping.in_groups(model, x, masks) if masks else model(x, training=False)
        return found

    def rounded(name: str, t: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        longer = tf.where(rows > 1, tf.math.floormod(-tf.shape(t)[1], ROUND), 0)
        return tf.pad(t, [[0, 0], [0, longer]], constant_values=fill.get(name, 0))

    def fed(max_length: int, *texts: tf.Tensor) -> dict[str, Any]:
        return task.feed(dict(zip(names, texts, strict=True)), tokenizer, facts, run.config["clean"], max_length)

    def encode(*texts: tf.Tensor) -> dict[str, Any]:
        return fed(run.config["max_length"], *texts)

    def answer(*texts: tf.Tensor) -> dict[str, Any]:
        rows = tf.shape(texts[0])[0]
        more = tf.cast(rows == 0, tf.int32)  # no operation likes a batch of none
        if masks is None:
            more = tf.where(rows > ROUND, tf.math.floormod(-rows, ROUND), more)
        texts = tuple(tf.concat([text, tf.fill([more], "")], 0) for text in texts)
        x = x_of(*texts)
        x = {name: rounded(name, t, rows) if t.shape.rank == 2 and name not in fixed else t for name, t in x.items()}
        found = dict(outputs_for(x))
        found["answers"] = task.serve(found["answers"], x, dict(zip(names, texts, strict=True)), facts, tokenizer)
        return keras.tree.map_structure(lambda t: t[:rows], found)

    # Traced once for all signatures: tracing a BPE tokenizer takes seconds.
    x_of, outputs_of = (tf.function(f, input_signature=texts_taken, autograph=False) for f in (encode, answer))

    def serving_default(*texts: tf.Tensor) -> dict[str, Any]:
        found: dict[str, Any] = outputs_of(*texts)["answers"]
        return found

    def tokenize(*texts: tf.Tensor) -> dict[str, Any]:
        return {"token_ids": tokenizing.ids_of((whole if task.windowed else x_of)(*texts))}

    def whole(*texts: tf.Tensor) -> dict[str, Any]:
        return fed(WHOLE, *texts)

    def tokens(token_ids: tf.Tensor) -> dict[str, Any]:
        x = tokenizing.padded_inputs(token_ids, tf.cast(token_ids != fill["token_ids"], tf.int32))
        return task.serve(outputs_for(x)["answers"], {}, {}, facts, tokenizer)

    def embed(*texts: tf.Tensor) -> dict[str, Any]:
        return {"embedding": outputs_of(*texts)["embedding"]}

    def classify(inputs: tf.Tensor) -> dict[str, Any]:
        answers = serving_default(*_texts_of(inputs, names))
        return {"classes": answers["labels"], "scores": answers["probabilities"]}

    def regress(inputs: tf.Tensor) -> dict[str, Any]:
        answers = serving_default(*_texts_of(inputs, names))
        return {"outputs": answers["probabilities"][:, 1] if "labels" in facts else answers["value"]}

    found: dict[str, Signature] = {
        "serving_default": (serving_default, texts_taken),
        "tokenize": (tokenize, texts_taken),
    }
    if is_single(run):
        found["tokens"] = tokens, IDS
    if vector is not None:
        found["embed"] = embed, texts_taken
    if "labels" in facts:
        found["classify"] = classify, EXAMPLES
    if len(facts.get("labels", ())) == 2 or "scale" in facts:
        found["regress"] = regress, EXAMPLES
    return found


def texts_of(run: Run) -> list[tf.TensorSpec]:
    """What a run is asked with: strings (batch,), by name."""
    return [tf.TensorSpec([None], tf.string, name=name) for name in run.task.inputs]


def is_single(run: Run) -> bool:
    """Whether its rows are single texts, each answered by what the model says of it alone."""
    return run.task.feed is tokenizing.padded_text


def _texts_of(examples: tf.Tensor, names: list[str]) -> list[tf.Tensor]:
    """The features of serialized examples that are texts; one that lacks a text has an empty one."""
    features = {name: tf.io.FixedLenFeature([], tf.string, "") for name in names}
    parsed = tf.io.parse_example(examples, features)
    return [parsed[name] for name in names]
