"""Token classification: words tagged, their entities found. A softmax for each word, read at its first piece.

Tags are learnt as IOB2 whatever scheme they come in. What is asked with a text alone is split into words by
`tfft.offsets.units`.
"""

import contextlib
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfft import metrics, offsets, packing, tokenizing
from tfft.errors import DataError
from tfft.examples import Examples, Ragged, as_arrays
from tfft.heads import token_head
from tfft.tasks import text_classification as single
from tfft.tasks.task import Facts, Scores, Task, refuse_class_weight, refuse_cleaning, refuse_smoothing

PREFIXES = ("B", "I", "E", "S")
NONE = -1


def check(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Rows of `text`, `words` (first and next character of each) and `tags` (IOB2, one a word).

    From tokens and tags, the text is the tokens with a space between; from a text and spans, words are
    `tfft.offsets.units`. A text alone gets its words when it is encoded.
    """
    if "tags" in rows and "words" in rows:
        return rows, {}  # checked already
    if "tokens" in rows and "tags" in rows:
        return _from_tokens(rows)
    if "text" not in rows:
        raise DataError(
            "expected the columns tokens and tags, or text and spans. Name them with --columns tokens=NAME,tags=NAME"
        )
    checked, faults = single.check(rows[["text"]])
    rows = rows.assign(text=checked["text"])
    return _from_spans(rows, faults) if "spans" in rows else (rows[["text"]], faults)


def _from_tokens(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    wrong: dict[str, list[bool]] = {
        "have no list of tokens": [],
        "have no list of tags": [],
        "have tags and tokens of different number": [],
        "have a tag of an unknown scheme (known: O, and B-, I-, E-, S- before a label)": [],
    }
    texts, words, found = [], [], []
    for tokens, tags in zip(*(map(_plain, rows[name]) for name in ("tokens", "tags")), strict=True):
        listed = isinstance(tokens, (list, tuple, np.ndarray)) and len(tokens) > 0
        tagged = isinstance(tags, (list, tuple, np.ndarray))
        same = listed and tagged and len(tokens) == len(tags)
        known = not tagged or all(_is_known(tag) for tag in tags)
        for name, fault in zip(wrong, (not listed, not tagged, listed and tagged and not same, not known), strict=True):
            wrong[name].append(fault)
        usable = same and known
        strings = [str(token) for token in tokens] if usable else []
        ends = np.cumsum([len(token) + 1 for token in strings], dtype=int) - 1
        texts.append(" ".join(strings))
        words.append([(int(end) - len(token), int(end)) for end, token in zip(ends, strings, strict=True)])
        found.append(iob2(metrics.entities([str(tag) for tag in tags]), len(strings)) if usable else None)
    made = {"text": texts, "words": words, "tags": found}
    return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in made.items()}), {
        name: np.array(mask, bool) for name, mask in wrong.items()
    }


def _plain(value: Any) -> Any:
    """A list, also one that a CSV file holds as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


def _is_known(tag: Any) -> bool:
    prefix, dash, label = str(tag).partition("-")
    return tag == "O" or (prefix in PREFIXES and bool(dash and label))


def _from_spans(rows: pd.DataFrame, faults: dict[str, np.ndarray]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    texts = ["" if text is None else text for text in rows["text"]]
    words, found = _units(texts), []
    wrong: dict[str, list[bool]] = {
        "have no list of spans ({start, end, label})": [],
        "have a span past the end of the text, or an empty one": [],
        "have spans that overlap": [],
        "have a span that begins or ends inside a word": [],
    }
    for text, each, spans in zip(texts, words, map(_plain, rows["spans"]), strict=True):
        listed = isinstance(spans, (list, tuple, np.ndarray)) and all(_is_span(span) for span in spans)
        ordered = sorted(spans, key=lambda span: int(span["start"])) if listed else []
        inside = all(0 <= int(s["start"]) < int(s["end"]) <= len(text) for s in ordered)
        apart = all(int(a["end"]) <= int(b["start"]) for a, b in itertools.pairwise(ordered))
        begins = {begin: place for place, (begin, _) in enumerate(each)}
        ends = {end: place + 1 for place, (_, end) in enumerate(each)}
        whole = all(int(s["start"]) in begins and int(s["end"]) in ends for s in ordered)
        faulty = not listed, listed and not inside, inside and not apart, inside and apart and not whole
        for name, fault in zip(wrong, faulty, strict=True):
            wrong[name].append(fault)
        usable = not any(faulty)
        entities = [(str(s["label"]), begins[int(s["start"])], ends[int(s["end"])]) for s in ordered] if usable else []
        found.append(iob2(entities, len(each)) if usable else None)
    rows = rows.assign(words=pd.Series(words, dtype=object), tags=pd.Series(found, dtype=object))
    return rows[["text", "words", "tags"]], faults | {name: np.array(mask, bool) for name, mask in wrong.items()}


def _is_span(span: Any) -> bool:
    if not isinstance(span, Mapping) or not {"start", "end", "label"} <= set(span):
        return False
    return all(isinstance(span[name], (int, np.integer)) for name in ("start", "end")) and bool(span["label"])


def iob2(entities: Sequence[metrics.Entity], words: int) -> list[str]:
    """Entities as one tag a word: B- at the first, I- at the others, O elsewhere."""
    tags = ["O"] * words
    for label, begin, end in entities:
        tags[begin:end] = [f"B-{label}", *[f"I-{label}"] * (end - begin - 1)]
    return tags


def _units(texts: Sequence[str | bytes]) -> list[list[tuple[int, int]]]:
    if not len(texts):
        return []
    starts, ends = tokenizing.in_chunks(_units_graph(), texts)
    return [list(zip(low, high, strict=True)) for low, high in zip(starts.to_list(), ends.to_list(), strict=True)]


@functools.lru_cache(maxsize=1)
def _units_graph() -> Any:
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda t: offsets.units(offsets.valid(t)), input_signature=signature, autograph=False)


def learn(rows: pd.DataFrame) -> Facts:
    """The tags, O first, then B- and I- of each label, and how many entities each label has."""
    found = pd.Series([label for tags in rows["tags"] for label, _, _ in metrics.entities(tags)], dtype=object)
    counts = found.value_counts()
    if not len(counts):
        raise DataError(f"none of {len(rows)} training rows has an entity: every tag is O")
    labels = sorted(counts.index)
    tags = ["O", *(f"{prefix}-{label}" for label in labels for prefix in "BI")]
    return {"tags": tags, "entities": {label: int(counts[label]) for label in labels}}


def encode(
    rows: pd.DataFrame,
    tokenizer: Any,
    facts: Facts,
    *,
    cleaning: Sequence[str] = (),
    class_weight: str | Mapping[str, float] | None = None,
) -> Examples:
    """Texts to token ids; `x["word"]` is the number of the word a token begins, -1 for all others; y is its tag.

    Raises:
        DataError: labels that the training rows do not have, named and counted.
    """
    refuse_cleaning(cleaning)
    refuse_class_weight(class_weight)
    texts = rows["text"].tolist()
    words = rows["words"].tolist() if "words" in rows else _units(texts)
    known = {tag: i for i, tag in enumerate(facts["tags"])}
    tags = rows["tags"].tolist() if "tags" in rows else [["O"] * len(each) for each in words]
    unseen = pd.Series([tag for row in tags for tag in row if tag not in known], dtype=object).value_counts()
    if len(unseen):
        listed = ", ".join(f"{tag!r} ({count} words)" for tag, count in unseen.head(5).items())
        raise DataError(f"tags that the training rows do not have: {listed}")
    pieces = tokenizing.in_chunks(_pieces_graph(tokenizer), texts)
    word = first_pieces(
        pieces, tf.ragged.constant([[b for b, _ in each] for each in words], dtype=tf.int32, ragged_rank=1)
    )
    x = packing.packed(tokenizer, [pieces.ids], {"word": (word, NONE)})
    at = x["word"].flat_values.numpy()
    flat = np.array([known[tag] for row in tags for tag in row], "int32")
    begins = np.concatenate([[0], np.cumsum([len(row) for row in tags])])[:-1].astype(int)
    place = begins[x["word"].value_rowids().numpy()] + np.maximum(at, 0) if len(flat) else np.zeros_like(at)
    y = np.where(at >= 0, flat[place] if len(flat) else 0, 0).astype("int32")
    weight = (at >= 0).astype("float32")
    ids = x["token_ids"]
    return Examples(x, ids.with_flat_values(y), ids.with_flat_values(weight), tokenizing.paddings(tokenizer))


@functools.lru_cache(maxsize=4)
def _pieces_graph(tokenizer: Any) -> Any:
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(
        lambda t: offsets.pieces(tokenizer, offsets.valid(t)), input_signature=signature, autograph=False
    )


def first_pieces(pieces: offsets.Pieces, words: tf.RaggedTensor) -> tf.RaggedTensor:
    """For each piece the number of the word whose first it is, else -1: ragged (batch, None) int32.

    Args:
        pieces: of the texts.
        words: the first character of each word, in order, (batch, None).
    """
    far = tf.constant(2**32, tf.int64)
    row = pieces.starts.value_rowids()
    place = row * far + tf.cast(pieces.starts.flat_values, tf.int64)
    empty = pieces.starts.flat_values == pieces.ends.flat_values  # a space's own piece
    begins = words.value_rowids() * far + tf.cast(words.flat_values, tf.int64)
    number = tf.searchsorted(begins, place, side="right") - 1  # the word that begins at or before the piece
    before = tf.gather(tf.cast(words.row_starts(), tf.int32), row)
    inside = number >= before
    number = tf.where(inside & ~empty, number, NONE)
    # the first of its word: no earlier piece has it
    order = tf.range(tf.size(number))
    first = tf.math.unsorted_segment_min(order, number, tf.size(begins))
    safe = tf.maximum(number, 0)
    is_first = (number >= 0) & (tf.gather(tf.concat([first, [0]], 0), safe) == order)
    return pieces.starts.with_flat_values(tf.where(is_first, number - before, NONE))


def cut(examples: Examples, tokenizer: Any, max_length: int) -> tuple[Examples, int]:
    """Windows of at most so many tokens."""
    x = examples.x | {"y": examples.y, "weight": examples.weight}
    sizes = x["token_ids"].row_lengths()
    made = windows(x, tokenizer, max_length)
    y, weight = made.pop("y"), made.pop("weight")
    longer = int(tf.reduce_sum(tf.cast(sizes > max_length, tf.int32)))
    return examples._replace(x=made, y=y, weight=weight), longer


def windows(x: Mapping[str, Any], tokenizer: Any, max_length: int) -> dict[str, Any]:
    """The inputs cut into windows, with `row` and, for each token, how many stand between it and a cut (`context`)."""
    start = int(tokenizing.special_ids(tokenizer)[0] is not None)
    prefix = tf.fill([x["token_ids"].nrows()], start)
    made = packing.windows(x, tf.cast(prefix, tf.int32), tokenizer, max_length)
    size = tf.cast(made.x["token_ids"].row_lengths(), tf.int32)
    place = tf.ragged.range(size).flat_values
    context = tf.minimum(place, tf.gather(size, made.x["token_ids"].value_rowids()) - 1 - place)
    return made.x | {"row": made.row, "context": made.x["token_ids"].with_flat_values(context)}


def feed(
    texts: Mapping[str, Any], tokenizer: Any, facts: Facts, cleaning: Sequence[str], max_length: int
) -> dict[str, Any]:
    """The same, dense, in graph operations; words are `tfft.offsets.units`."""
    text = offsets.valid(texts["text"])
    pieces = offsets.pieces(tokenizer, text)
    x = packing.packed(tokenizer, [pieces.ids], {"word": (first_pieces(pieces, offsets.units(text)[0]), NONE)})
    return packing.dense(windows(x, tokenizer, max_length), tokenizing.paddings(tokenizer))


def head(backbone: keras.Model, facts: Facts, *, pooling: str, dropout: float) -> keras.Model:
    """Logits of the tags for every token: (batch, length, tags)."""
    return keras.Model(backbone.input, token_head(backbone, len(facts["tags"]), dropout=dropout))


def loss(facts: Facts, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """Cross-entropy of the words' first pieces, a mean over words."""
    refuse_smoothing(label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")


def by_word(logits: Any, word: Any, context: Any, row: Any, first: Any, words: Any) -> Any:
    """Probabilities of each word's tags, (words, tags), from the window where most stands around it.

    Args:
        logits: (tokens, tags), of all windows one after another.
        word: (tokens,), the number of the word a token begins in its row, or -1.
        context: (tokens,), how many tokens stand between it and a cut.
        row: (tokens,), whose it is.
        first: (rows,), how many words the rows before have.
        words: how many words there are. One without a token of its own has zeros: the first tag, O.
    """
    kept = tf.where(word >= 0)[:, 0]
    number = tf.gather(first, tf.gather(row, kept)) + tf.gather(word, kept)
    around = tf.gather(context, kept)
    most = tf.math.unsorted_segment_max(around, number, words)
    best = tf.where(around == tf.gather(most, number))[:, 0]
    probabilities = tf.nn.softmax(tf.gather(logits, tf.gather(kept, best)))
    return tf.math.unsorted_segment_mean(probabilities, tf.gather(number, best), words)


def word_tags(outputs: Ragged, examples: Examples, words: Sequence[int], facts: Facts) -> list[list[str]]:
    """The most probable tag of each word of each row; O for a word without a piece of its own.

    Args:
        outputs: logits.
        examples: what they are of.
        words: how many words each row has.
        facts: with the tags.
    """
    ranges = [np.arange(begin, begin + size) for begin, size in zip(outputs.starts, outputs.lengths, strict=True)]
    logits = outputs.values[np.concatenate(ranges)]
    word, context = (as_arrays(examples.x[name]).values for name in ("word", "context"))
    row = np.repeat(np.asarray(examples.x["row"]), outputs.lengths)
    ends = np.concatenate([[0], np.cumsum(words)]).astype("int32")
    best = by_word(logits, word, context, row, ends[:-1], ends[-1]).numpy().argmax(axis=1)
    tags = np.array(facts["tags"], object)[best]
    return [list(tags[begin:end]) for begin, end in itertools.pairwise(ends)]


def score(outputs: Any, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Scores:
    """Entity-level F1, precision and recall, against the rows' tags."""
    found = word_tags(outputs, examples, [len(tags) for tags in rows["tags"]], facts)
    return metrics.tagging(*([metrics.entities(tags) for tags in side] for side in (rows["tags"], found)))


def serve(outputs: Any, x: Mapping[str, Any], texts: Mapping[str, Any], facts: Facts, tokenizer: Any) -> dict[str, Any]:
    """The entities of each text side by side, (batch, most entities of a text): `entities_text`, `entities_label`,
    `entities_score` (mean probability of its words' tags), `entities_start` and `entities_end` in characters; shorter
    rows are filled up with "", "", 0, -1 and -1.
    """
    text = offsets.valid(texts["text"])
    starts, ends = offsets.units(text)
    count = tf.size(starts.flat_values)
    first = tf.cast(starts.row_starts(), tf.int32)
    logits = tf.reshape(outputs, (-1, outputs.shape[-1]))
    word, context = (tf.reshape(x[name], (-1,)) for name in ("word", "context"))
    whose = tf.repeat(x["row"], tf.shape(x["word"])[1])
    probabilities = by_word(logits, word, context, whose, first, count)
    tag, sure = tf.argmax(probabilities, axis=1, output_type=tf.int32), tf.reduce_max(probabilities, axis=1)
    label = (tag + 1) // 2  # O, B-a, I-a, B-b, I-b: 0, 1, 1, 2, 2
    row = starts.value_rowids()
    before = tf.concat([[0], label[:-1]], 0)[:count]
    new_row = tf.concat([[True], row[1:] != row[:-1]], 0)[:count]
    begins = (label > 0) & ((tag % 2 == 1) | (label != before) | new_row)
    of = tf.cumsum(tf.cast(begins, tf.int32)) - 1
    named = tf.where(label > 0)[:, 0]
    of_named, number = tf.gather(of, named), tf.reduce_sum(tf.cast(begins, tf.int32))
    opening = tf.where(begins)[:, 0]
    flat = {
        "label": tf.gather(tf.constant(["", *facts["entities"]]), tf.gather(label, opening)),
        "score": tf.math.unsorted_segment_mean(tf.gather(sure, named), of_named, number),
        "start": tf.gather(starts.flat_values, opening),
        "end": tf.math.unsorted_segment_max(tf.gather(ends.flat_values, named), of_named, number),
    }
    per_row = tf.math.unsorted_segment_sum(tf.cast(begins, tf.int64), row, starts.nrows())
    fill: dict[str, Any] = {"label": "", "score": 0.0, "start": -1, "end": -1}
    found = {
        f"entities_{name}": tf.RaggedTensor.from_row_lengths(value, per_row).to_tensor(fill[name])
        for name, value in flat.items()
    }
    found["entities_text"] = offsets.substrings(text, found["entities_start"], found["entities_end"])
    return found


TASK = Task(
    name="token-classification",
    columns={
        "text": single.TEXT,
        "tokens": ("words",),
        "tags": ("ner_tags", "labels", "ner"),
        "spans": ("entities", "annotations"),
    },
    optional=("text", "tokens", "tags", "spans"),
    inputs=("text",),
    target="tags",
    headline=("f1", "precision"),
    check=check,
    learn=learn,
    encode=encode,
    cut=cut,
    feed=feed,
    windowed=True,
    pooled=False,
    freeze="none",
    head=head,
    loss=loss,
    score=score,
    serve=serve,
)
