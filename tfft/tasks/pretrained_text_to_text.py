"""Translation and summarization on a backbone that has a decoder of its own, such as BART and T5: it is trained on.

Source and target are tokenised as in pretraining; nothing is learnt from nothing.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfft import backbones, packing, tokenizing
from tfft.decoding import as_facts
from tfft.examples import Examples, each, from_each
from tfft.heads import OUTPUT
from tfft.pretrained import NEXT, Rewriter, next_token_head
from tfft.tasks.task import Facts, Scores, Task, refuse_class_weight

# A decoder that knows its language wants small steps and few passes.
DEFAULTS = {"dropout": 0.0, "batch_size": 16, "monitor": "loss", "label_smoothing": 0.1}


def text_to_text(task: Task, judge: Callable[..., Scores], backbone: keras.Model, tokenizer: Any) -> Task:
    """The task, as it is on such a backbone."""
    (source,), target, framing = task.inputs, task.target, backbones.framing(backbone, tokenizer)
    kept = ("max_length",)  # how much of a source is read
    return dataclasses.replace(
        task,
        options={name: task.options[name] for name in ("target_length", "decoding")},
        defaults=DEFAULTS | {name: task.defaults[name] for name in kept if name in task.defaults},
        learn=functools.partial(learn, target, tokenizer, framing),
        encode=functools.partial(encode, source, target),
        cut=tokenizing.truncate_examples,
        feed=feed,
        tables=None,
        head=head,
        answering=answering,
        score=functools.partial(score, judge, tokenizer),
        serve=serve,
    )


def learn(
    target: str,
    tokenizer: Any,
    framing: Mapping[str, Any],
    rows: pd.DataFrame,
    *,
    target_length: int | None,
    decoding: Sequence[str],
) -> Facts:
    """How long a target may be, how it is written, and the ids that frame texts."""
    lengths = tokenizing.encode_bare(tokenizer, rows[target].tolist()).row_lengths().numpy() + 1
    longest = tokenizing.longest_target(lengths, target_length)
    return {"longest": longest, "decoding": as_facts(decoding), **framing}


def encode(
    source: str,
    target: str,
    rows: pd.DataFrame,
    tokenizer: Any,
    facts: Facts,
    *,
    cleaning: Sequence[str] = (),
    class_weight: str | Mapping[str, float] | None = None,
) -> Examples:
    """Sources and targets to token ids, of lengths of their own, and for each of a target's the one that comes next."""
    refuse_class_weight(class_weight)
    x, padding = _sources(rows[source].tolist(), tokenizer, facts, tuple(cleaning)), _paddings(tokenizer)
    if target not in rows:
        nothing = np.zeros(len(rows), "float32")
        return Examples(x, nothing, nothing + 1, padding)
    start, bare = facts["start"], each(tokenizing.encode_bare(tokenizer, rows[target].tolist()))
    framed = [np.r_[start, row] for row in tokenizing.with_end(bare, facts["end"], facts["longest"])]
    before, following = (from_each([row[cut] for row in framed], own=True) for cut in (slice(-1), slice(1, None)))
    weight = from_each([np.arange(len(row) - 1) >= len(start) - 1 for row in framed], "float32", own=True)
    ones = before._replace(values=np.ones_like(before.values))
    x |= {"decoder_token_ids": before, "decoder_padding_mask": ones, NEXT: following}
    return Examples(x, weight._replace(values=np.zeros_like(weight.values)), weight, padding)


def _paddings(tokenizer: Any) -> dict[str, int]:
    pad = tokenizing.special_ids(tokenizer)[2]
    return dict.fromkeys(("encoder_token_ids", "decoder_token_ids", "token_ids"), pad) | {NEXT: 0}


def _sources(texts: Sequence[str], tokenizer: Any, facts: Facts, cleaning: tuple[str, ...]) -> dict[str, Any]:
    graph = _source_graph(tokenizer, tuple(facts["source_start"]), tuple(facts["source_end"]), cleaning)
    x: dict[str, Any] = tokenizing.in_chunks(graph, texts)
    return x


@functools.lru_cache(maxsize=4)
def _source_graph(tokenizer: Any, start: tuple[int, ...], end: tuple[int, ...], cleaning: tuple[str, ...]) -> Any:
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(
        lambda t: _framed(t, tokenizer, start, end, cleaning), input_signature=signature, autograph=False
    )


def _framed(
    texts: Any,
    tokenizer: Any,
    start: Sequence[int],
    end: Sequence[int],
    cleaning: Sequence[str],
    room: int | None = None,
) -> dict[str, tf.RaggedTensor]:
    ids = tokenizing.bare_ids(tokenizer, texts, cleaning)
    if room is not None:
        ids = ids[:, : room - len(start) - len(end)]
    around = [tf.tile(tf.constant([list(some)], tf.int32, (1, len(some))), (ids.nrows(), 1)) for some in (start, end)]
    ids = tf.concat([around[0], ids, around[1]], axis=1)
    mask = tf.ones_like(ids)
    return {"encoder_token_ids": ids, "encoder_padding_mask": mask, "token_ids": ids}  # the last as other tasks call it


def feed(
    texts: Mapping[str, Any], tokenizer: Any, facts: Facts, cleaning: Sequence[str], max_length: int
) -> dict[str, Any]:
    """Rows that are asked, dense, in graph operations."""
    (text,) = texts.values()
    x = _framed(text, tokenizer, facts["source_start"], facts["source_end"], cleaning, max_length)
    return packing.dense(x, _paddings(tokenizer))


def head(backbone: keras.Model, facts: Facts, *, pooling: str, dropout: float) -> keras.Model:
    """The backbone's own language model; takes one input more, the tokens that come next."""
    return next_token_head(backbone, dropout)


def answering(model: keras.Model, facts: Facts) -> keras.Model:
    """The model that writes, of the same layers: from a source alone."""
    backbone = model.get_layer(OUTPUT).backbone
    inputs = {name: tensor for name, tensor in model.input.items() if name.startswith("encoder_")}
    encoded = backbone.output["encoder_sequence_output"]
    return keras.Model(inputs, Rewriter(backbone, facts, name=OUTPUT)(encoded, inputs["encoder_padding_mask"]))


def _written(tokenizer: Any, outputs: Any) -> Any:
    texts = tokenizing.written(tokenizer, tf.cast(outputs[:, 1:], tf.int32))
    return tf.strings.regex_replace(texts, "^ ", "")


def score(
    judge: Callable[..., Scores],
    tokenizer: Any,
    outputs: np.ndarray,
    examples: Examples,
    rows: pd.DataFrame,
    facts: Facts,
) -> Scores:
    """What `judge` says of the texts that were written."""
    return judge([text.decode("utf-8") for text in _written(tokenizer, outputs).numpy()], rows)


def serve(outputs: Any, x: Mapping[str, Any], texts: Mapping[str, Any], facts: Facts, tokenizer: Any) -> dict[str, Any]:
    """`written`, the text, (batch,), and `score`, the mean of the logarithms of its tokens' probabilities, (batch,)."""
    return {"written": _written(tokenizer, outputs), "score": outputs[:, 0]}
