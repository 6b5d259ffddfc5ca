"""Masked language model: an encoder reads on in your own text, unlabelled, before it is fine-tuned on labels.

Words are hidden at random, others in every epoch, and the backbone learns to guess them. The run's `preset` folder is
then the backbone of the next run: `--backbone runs/x`.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfft import masking, offsets, packing, tokenizing
from tfft.batching import Redraw
from tfft.cleaning import clean
from tfft.errors import DataError
from tfft.examples import Examples, Ragged
from tfft.guessing import BEST, GIVEN, UNKNOWN, hidden_head
from tfft.likelihood import Unlikelihood, counted
from tfft.tasks import text_classification as single
from tfft.tasks import token_classification as tagging
from tfft.tasks.task import Facts, Scores, Task, refuse_class_weight, refuse_smoothing

SEED = 0  # of the words that are hidden in rows one is judged by: the same in every epoch and run
CHUNK = 256  # rows in which words are hidden together


def check(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Texts as strings; which rows have none. In `whole`, the same, words are hidden that are to be guessed."""
    checked, faults = single.check(rows[["text"]])
    return checked.assign(whole=checked["text"]), faults


def learn(rows: pd.DataFrame) -> Facts:
    """Nothing is fixed by the rows; how many there were."""
    if len(rows) < 2:
        raise DataError(f"expected at least 2 training rows. Received: {len(rows)}")
    return {"texts": len(rows)}


def encode(
    rows: pd.DataFrame,
    tokenizer: Any,
    facts: Facts,
    *,
    cleaning: Sequence[str] = (),
    class_weight: str | Mapping[str, float] | None = None,
) -> Examples:
    """Texts to token ids; `x["word"]` is the number of the word a token begins, -1 for all others.

    In a row that is asked, one without `whole`, the tokenizer's mask token stands for what is to be guessed, and
    `x["hidden"]` says where.
    """
    refuse_class_weight(class_weight)
    masking.mask_id(tokenizer)
    graph = _graph(tokenizer, tuple(cleaning), "whole" in rows)
    x = tokenizing.in_chunks(graph, rows["text"].tolist())
    nothing = x["token_ids"].with_flat_values(tf.zeros(tf.size(x["token_ids"].flat_values)))
    return Examples(x, nothing, nothing, tokenizing.paddings(tokenizer))


@functools.lru_cache(maxsize=4)
def _graph(tokenizer: Any, cleaning: tuple[str, ...], whole: bool) -> Any:
    packed = _whole if whole else _asked
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda t: packed(t, tokenizer, cleaning), input_signature=signature, autograph=False)


def _whole(texts: tf.Tensor, tokenizer: Any, cleaning: Sequence[str]) -> dict[str, tf.RaggedTensor]:
    text = offsets.valid(clean(texts, cleaning))
    pieces = offsets.pieces(tokenizer, text)
    first = tagging.first_pieces(pieces, offsets.units(text)[0])
    return packing.packed(tokenizer, [pieces.ids], {"word": (first, tagging.NONE)})


def _asked(texts: tf.Tensor, tokenizer: Any, cleaning: Sequence[str]) -> dict[str, tf.RaggedTensor]:
    mask = masking.mask_id(tokenizer)
    parts = tf.strings.split(offsets.valid(texts), tokenizer.mask_token)
    flat = offsets.pieces(tokenizer, clean(parts.flat_values, cleaning)).ids
    # Behind every part, also the last; what is a mask token only once it is normalised or cleaned is text like other.
    joined = tf.concat([flat, tf.fill([flat.nrows(), 1], mask)], axis=1)
    given = flat.with_flat_values(tf.fill(tf.shape(flat.flat_values), GIVEN))
    marks = tf.concat([given, tf.fill([flat.nrows(), 1], UNKNOWN)], axis=1)
    ids, hidden = (
        tf.RaggedTensor.from_row_splits(t, parts.row_splits).merge_dims(1, 2)[:, :-1] for t in (joined, marks)
    )
    return packing.packed(tokenizer, [ids], {"hidden": (hidden, GIVEN)})


def cut(examples: Examples, tokenizer: Any, max_length: int) -> tuple[Examples, int]:
    """Windows of at most so many tokens that share none; in those of whole texts words are hidden (`whole`: as was)."""
    longer = int(tf.reduce_sum(tf.cast(examples.x["token_ids"].row_lengths() > max_length, tf.int32)))
    x = _windows(examples.x, tokenizer, max_length)
    ids = x["token_ids"]
    if "word" in x:
        generator, mask, ordinary = np.random.default_rng(SEED), *_drawn(tokenizer)
        shown, hidden = [], []
        for begin in range(0, int(ids.nrows()), CHUNK):
            some, first = ids[begin : begin + CHUNK], x["word"][begin : begin + CHUNK]
            real = np.arange(int(some.bounding_shape(1))) < some.row_lengths().numpy()[:, np.newaxis]
            dense = some.to_tensor(-1).numpy(), first.to_tensor(tagging.NONE).numpy()
            replaced, were = masking.hide(*dense, mask, ordinary, generator)
            shown.append(replaced[real])
            hidden.append(were[real])
        x |= {
            "whole": ids,
            "token_ids": ids.with_flat_values(np.concatenate(shown)),
            "hidden": ids.with_flat_values(np.concatenate(hidden)),
        }
    asked = tf.cast(x["hidden"].flat_values != GIVEN, tf.float32)
    y, weight = ids.with_flat_values(tf.zeros_like(asked)), ids.with_flat_values(asked)
    return examples._replace(x=x, y=y, weight=weight), longer


def _windows(x: Mapping[str, Any], tokenizer: Any, max_length: int) -> dict[str, Any]:
    start = int(tokenizing.special_ids(tokenizer)[0] is not None)
    prefix = tf.fill([x["token_ids"].nrows()], start)
    made = packing.windows(x, tf.cast(prefix, tf.int32), tokenizer, max_length, overlap=0)
    return made.x | {"row": made.row}


def _drawn(tokenizer: Any) -> tuple[int, np.ndarray]:
    return masking.mask_id(tokenizer), masking.ordinary_ids(tokenizer)


def redraw(tokenizer: Any) -> Redraw:
    """Hides other words in every batch of training."""
    mask, ordinary = _drawn(tokenizer)

    def drawn(
        x: dict[str, np.ndarray], y: np.ndarray, weight: np.ndarray, generator: np.random.Generator
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        ids, hidden = masking.hide(x["whole"], x["word"], mask, ordinary, generator)
        return x | {"token_ids": ids, "hidden": hidden}, y, (hidden != GIVEN).astype("float32")

    return drawn


def feed(
    texts: Mapping[str, Any], tokenizer: Any, facts: Facts, cleaning: Sequence[str], max_length: int
) -> dict[str, Any]:
    """Rows that are asked, dense, in graph operations."""
    x = _asked(texts["text"], tokenizer, cleaning)
    return packing.dense(_windows(x, tokenizer, max_length), tokenizing.paddings(tokenizer))


def head(backbone: keras.Model, facts: Facts, *, pooling: str, dropout: float) -> keras.Model:
    """What hidden tokens may be, as `tfft.guessing.HiddenTokens` gives it; takes one input more, `hidden`."""
    hidden = keras.Input((None,), dtype="int32", name="hidden")
    return keras.Model(backbone.input | {"hidden": hidden}, hidden_head(backbone, hidden))


def loss(facts: Facts, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """See `Unlikelihood`, a mean over hidden tokens."""
    refuse_smoothing(label_smoothing)
    return Unlikelihood()


def score(outputs: Ragged, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Scores:
    """Share of the hidden tokens that were guessed, and perplexity: e to the mean of minus the logarithms of theirs."""
    found, wanted = counted(outputs, examples.x["hidden"])
    asked = wanted >= 0
    found, wanted = found[asked], wanted[asked]
    if not len(wanted):
        raise DataError("there is no word to hide in the rows that judge. Expected texts of words")
    return {
        "accuracy": float((found[:, 1] == wanted).mean()),
        "perplexity": float(np.exp(-found[:, 0].mean(dtype=float))),
        "hidden": len(wanted),
    }


def serve(outputs: Any, x: Mapping[str, Any], texts: Mapping[str, Any], facts: Facts, tokenizer: Any) -> dict[str, Any]:
    """The likeliest pieces for each mask token of a text side by side, (batch, `BEST` for each of its masks):
    `fills_text`, `fills_score` (probabilities), `fills_start` (the mask's first character); shorter rows are filled up
    with "", 0 and -1.
    """
    parts = tf.strings.split(offsets.valid(texts["text"]), tokenizer.mask_token)
    sizes = parts.with_flat_values(tf.strings.length(parts.flat_values, "UTF8_CHAR"))[:, :-1]
    size = len(tokenizer.mask_token)
    steps, row = sizes.flat_values + size, sizes.value_rowids()
    rows_before = tf.cumsum(tf.math.unsorted_segment_sum(steps, row, parts.nrows()), exclusive=True)
    start = tf.cumsum(steps) - size - tf.gather(rows_before, row)
    flat, asked = tf.reshape(outputs, (-1, 1 + 2 * BEST)), tf.reshape(x["hidden"], (-1,))
    found = tf.gather(flat, tf.where(asked != GIVEN)[:, 0])  # (masks, ...), in the order of the texts
    pieces = tf.gather(tf.constant(tokenizing.piece_texts(tokenizer)), tf.cast(found[:, 1 : 1 + BEST], tf.int32))
    each = {
        "text": (pieces, ""),
        "score": (tf.exp(found[:, 1 + BEST :]), 0.0),
        "start": (tf.tile(start[:, tf.newaxis], [1, BEST]), -1),
    }
    lengths = BEST * sizes.row_lengths()
    return {
        f"fills_{name}": tf.RaggedTensor.from_row_lengths(tf.reshape(value, (-1,)), lengths).to_tensor(fill)
        for name, (value, fill) in each.items()
    }


TASK = Task(
    name="masked-lm",
    columns={"text": single.TEXT},
    inputs=("text",),
    target="whole",
    headline=("accuracy", "perplexity"),
    check=check,
    learn=learn,
    encode=encode,
    cut=cut,
    feed=feed,
    redraw=redraw,
    windowed=True,
    pooled=False,
    freeze="none",
    head=head,
    loss=loss,
    score=score,
    serve=serve,
)
