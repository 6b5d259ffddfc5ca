"""Extractive question answering: the words of a text that answer a question. For beginning and end a softmax each."""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import ops

from tfft import metrics, offsets, packing, tokenizing
from tfft.errors import DataError
from tfft.examples import Examples, Ragged, as_arrays, take
from tfft.heads import span_head
from tfft.tasks import text_classification as single
from tfft.tasks.task import Facts, Scores, Task, refuse_class_weight, refuse_cleaning, refuse_smoothing

LONGEST = 30  # tokens of an answer
CANDIDATES = 100  # spans of a window that are looked at; many may stand for the same characters
WINDOW_BEST = 20  # spans of a row that share its score
BEST = 5  # answers that are given
ROWS = 256  # rows whose answers are looked for together
IMPOSSIBLE = -1e9


def check(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Contexts and questions as strings; answers as lists of (first character, text), empty where there is none.

    Answers come as SQuAD has them ([{text, answer_start}, ...]), as Hugging Face has them ({text: [...],
    answer_start: [...]}), either as JSON in a string, or as a text that stands in the context once.
    """
    faults: dict[str, np.ndarray] = {}
    for name in ("context", "question"):
        checked, found = single.check(rows[[name]].rename(columns={name: "text"}))
        rows = rows.assign(**{name: checked["text"]})
        faults |= {fault.replace("text", name): where for fault, where in found.items()}
    if "answers" not in rows:
        return rows, faults
    wrong: dict[str, list[bool]] = {
        "have no answers (an empty list says: there is none)": [],
        "have an answer that is not in the context": [],
        "have an answer that stands elsewhere in the context than answer_start says": [],
        "have an answer without answer_start that stands in the context more than once": [],
        "have an answer that begins or ends with a space": [],
    }
    answers = []
    for context, given in zip(rows["context"], rows["answers"], strict=True):
        listed = _listed(given)
        faulty, placed = [listed is None, False, False, False, False], []
        for text, start in listed or ():
            where = (context or "").count(text)
            if not where or not text:
                faulty[1] = True
            elif text != text.strip():
                faulty[4] = True
            elif start is None and where > 1:
                faulty[3] = True
            elif start is None:
                placed.append((context.index(text), text))
            elif context[start : start + len(text)] == text:
                placed.append((start, text))
            else:
                faulty[2] = True
        for name, fault in zip(wrong, faulty, strict=True):
            wrong[name].append(fault)
        answers.append(None if any(faulty) else placed)
    rows = rows.assign(answers=pd.Series(answers, dtype=object))
    return rows, faults | {name: np.array(mask, bool) for name, mask in wrong.items()}


def _listed(given: Any) -> list[tuple[str, int | None]] | None:
    """Answers of any kind as (text, first character or None); None where they are of no known kind."""
    if isinstance(given, str) and given.lstrip()[:1] in ("[", "{"):
        try:
            given = json.loads(given)
        except ValueError:
            return None
    if isinstance(given, str):
        return [(given, None)] if given.strip() else []
    if isinstance(given, Mapping):
        texts, starts = given.get("text"), given.get("answer_start")
        if isinstance(texts, str):
            given = [given]
        elif not _is_list(texts) or not _is_list(starts) or len(texts) != len(starts):
            return None
        else:
            given = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not _is_list(given):
        return None
    found: list[tuple[str, int | None]] = []
    for one in given:
        if isinstance(one, tuple) and len(one) == 2:  # checked already
            found.append((one[1], one[0]))
        elif isinstance(one, str):
            found.append((one, None))
        elif isinstance(one, Mapping) and isinstance(one.get("text"), str):
            start = one.get("answer_start")
            if not (start is None or isinstance(start, (int, np.integer)) or str(start).isdecimal()):
                return None
            found.append((one["text"], None if start is None else int(start)))
        else:
            return None
    return found


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (list, tuple, np.ndarray))


def learn(rows: pd.DataFrame) -> Facts:
    """Whether there are questions without an answer, and by how much no answer must win for one to be withheld."""
    without = int(sum(not answers for answers in rows["answers"]))
    if without == len(rows):
        raise DataError(f"none of {len(rows)} training rows has an answer")
    return {"unanswerable": without, "null_threshold": 0.0}


def encode(
    rows: pd.DataFrame,
    tokenizer: Any,
    facts: Facts,
    *,
    cleaning: Sequence[str] = (),
    class_weight: str | Mapping[str, float] | None = None,
) -> Examples:
    """Questions and contexts to token ids and the characters tokens stand for; y: the first answer's characters."""
    refuse_cleaning(cleaning)
    refuse_class_weight(class_weight)
    x = tokenizing.in_chunks(_graph(tokenizer), rows["question"].tolist(), rows["context"].tolist())
    y = np.full((len(rows), 2), -1, "int32")  # (rows, first character and the one after the last)
    if "answers" in rows:
        for i, answers in enumerate(rows["answers"]):
            if answers:
                start, text = answers[0]
                y[i] = start, start + len(text)
    return Examples(x, y, np.ones(len(rows), "float32"), tokenizing.paddings(tokenizer))


def _packed(question: tf.Tensor, context: tf.Tensor, tokenizer: Any) -> dict[str, Any]:
    asked = tokenizing.bare_ids(tokenizer, question, ())
    pieces = offsets.pieces(tokenizer, offsets.valid(context))
    x = packing.packed(tokenizer, [asked, pieces.ids], {"starts": (pieces.starts, -1), "ends": (pieces.ends, -1)})
    start, end, _ = tokenizing.special_ids(tokenizer)
    special = int(start is not None) + int(end is not None) * tokenizing.separators(tokenizer)
    return x | {"before": tf.cast(asked.row_lengths(), tf.int32) + special}


@functools.lru_cache(maxsize=4)
def _graph(tokenizer: Any) -> Any:
    signature = 2 * [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda q, c: _packed(q, c, tokenizer), input_signature=signature, autograph=False)


def _windows(x: Mapping[str, Any], tokenizer: Any, max_length: int) -> dict[str, Any]:
    ragged = {name: value for name, value in x.items() if name != "before"}
    made = packing.windows(ragged, x["before"], tokenizer, max_length)
    return made.x | {"row": made.row}


def cut(examples: Examples, tokenizer: Any, max_length: int) -> tuple[Examples, int]:
    """Windows of at most so many tokens; y becomes the answer's first and last token, 0 and 0 where one lacks it."""
    made = _windows(examples.x, tokenizer, max_length)
    characters = np.asarray(examples.y)[made["row"].numpy()]  # (windows, 2)
    starts, ends = as_arrays(made["starts"]), as_arrays(made["ends"])
    longest = int(starts.lengths.max(initial=1))
    every = np.arange(len(characters))
    low, high = take(starts, every, longest, -1), take(ends, every, longest, -1)
    begin, end = characters[:, :1], characters[:, 1:]
    real = (low >= 0) & (high > low)
    first = real & (low <= begin) & (high > begin)
    last = real & (low < end) & (high >= end)
    inside = first.any(axis=1) & last.any(axis=1) & (begin[:, 0] >= 0)
    tokens = np.stack([first.argmax(axis=1), longest - 1 - last[:, ::-1].argmax(axis=1)], axis=1)
    y = np.where(inside[:, np.newaxis], tokens, 0).astype("int32")
    longer = int(tf.reduce_sum(tf.cast(examples.x["token_ids"].row_lengths() > max_length, tf.int32)))
    return examples._replace(x=made, y=y, weight=np.ones(len(y), "float32")), longer


def feed(
    texts: Mapping[str, Any], tokenizer: Any, facts: Facts, cleaning: Sequence[str], max_length: int
) -> dict[str, Any]:
    """The same, dense, in graph operations."""
    x = _packed(texts["question"], texts["context"], tokenizer)
    return packing.dense(_windows(x, tokenizer, max_length), tokenizing.paddings(tokenizer))


def head(backbone: keras.Model, facts: Facts, *, pooling: str, dropout: float) -> keras.Model:
    """Logits of beginning and end for every token: (batch, length, 2)."""
    return keras.Model(backbone.input, span_head(backbone, dropout=dropout))


@keras.saving.register_keras_serializable(package="tfft")
class SpanCrossentropy(keras.losses.Loss):
    """Mean of two cross-entropies over the tokens: that of the first of the answer's, and that of the last."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Of tokens (batch, 2) and logits (batch, length, 2): (batch,)."""
        each = keras.losses.sparse_categorical_crossentropy(y_true, ops.transpose(y_pred, (0, 2, 1)), from_logits=True)
        return ops.mean(each, axis=-1)


def loss(facts: Facts, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """Cross-entropy of beginning and end."""
    refuse_smoothing(label_smoothing)
    return SpanCrossentropy()


def best_spans(logits: Any, x: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """The best spans of each row over all its windows, as (rows, `WINDOW_BEST`) best first, in graph operations.

    Args:
        logits: (windows, length, 2).
        x: `starts`, `ends` (windows, length): the characters of tokens of the context, -1 for others; `row` (windows,).
        rows: how many rows there are.

    Returns:
        start, end: characters, -1 where a row has fewer spans; score: sum of both logits; null: (rows,), the score of
        "no answer", the least of its windows.
    """
    start, end = logits[:, :, 0], logits[:, :, 1]
    low, high = x["starts"], x["ends"]
    real = (low >= 0) & (high > low)
    begins = tf.where(real, start, IMPOSSIBLE)
    stops = tf.pad(tf.where(real, end, IMPOSSIBLE), [[0, 0], [0, LONGEST - 1]], constant_values=IMPOSSIBLE)
    length, windows = tf.shape(start)[1], tf.shape(start)[0]
    # (windows, length, LONGEST): a span that begins here and has one to LONGEST tokens
    sums = tf.stack([begins + stops[:, k : k + length] for k in range(LONGEST)], axis=2)
    flat = tf.pad(tf.reshape(sums, (windows, -1)), [[0, 0], [0, CANDIDATES]], constant_values=4 * IMPOSSIBLE)
    scores, picked = tf.math.top_k(flat, CANDIDATES)
    possible = scores > IMPOSSIBLE / 2
    first = tf.where(possible, picked // LONGEST, 0)
    last = tf.minimum(first + picked % LONGEST, length - 1)
    found = {
        "start": tf.where(possible, tf.gather(low, first, batch_dims=1), -1),
        "end": tf.where(possible, tf.gather(high, last, batch_dims=1), -1),
        "score": tf.where(possible, scores, 4 * IMPOSSIBLE),
    }
    null = tf.math.unsorted_segment_min(start[:, 0] + end[:, 0], x["row"], rows)
    row = tf.repeat(x["row"], CANDIDATES)
    fill: dict[str, Any] = {"start": -1, "end": -1, "score": 4 * IMPOSSIBLE}
    by_row = {
        name: tf.RaggedTensor.from_value_rowids(tf.reshape(value, (-1,)), row, tf.cast(rows, row.dtype)).to_tensor(
            fill[name]
        )
        for name, value in found.items()
    }
    # Windows overlap, and tokens of one word may stand for the same characters: of equal spans the best is kept.
    scores, order = tf.math.top_k(by_row["score"], tf.minimum(2 * CANDIDATES, tf.shape(by_row["score"])[1]))
    spans = {name: tf.gather(by_row[name], order, batch_dims=1) for name in ("start", "end")}
    same = tf.reduce_all([value[:, :, None] == value[:, None, :] for value in spans.values()], axis=0)
    earlier = tf.linalg.band_part(tf.ones(tf.shape(order)[1:2] * [1, 1], tf.int32), 0, -1)
    earlier = tf.cast(earlier - tf.eye(tf.shape(order)[1], dtype=tf.int32), tf.bool)
    repeated = tf.reduce_any(same & earlier[tf.newaxis], axis=1)
    scores, order = tf.math.top_k(
        tf.where(repeated, 4 * IMPOSSIBLE, scores), tf.minimum(WINDOW_BEST, tf.shape(order)[1])
    )
    spans = {name: tf.gather(value, order, batch_dims=1) for name, value in spans.items()}
    gone = scores < IMPOSSIBLE
    return {name: tf.where(gone, -1, value) for name, value in spans.items()} | {"score": scores, "null": null}


_best_spans = tf.function(best_spans, autograph=False, reduce_retracing=True)


def _answers(outputs: Ragged, examples: Examples, rows: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """The best answer of each row that is one, and by how much "no answer" wins over it."""
    place = np.asarray(examples.x["row"])
    texts: list[str] = []
    margins = []
    for begin in range(0, len(rows), ROWS):
        size = min(ROWS, len(rows) - begin)
        picked = np.flatnonzero((place >= begin) & (place < begin + size))
        longest = int(outputs.lengths[picked].max(initial=1))
        x = {name: tf.constant(take(as_arrays(examples.x[name]), picked, longest, -1)) for name in ("starts", "ends")}
        x["row"] = tf.constant((place[picked] - begin).astype("int32"))
        found = _best_spans(tf.constant(take(outputs, picked, longest)), x, tf.constant(size))
        starts, ends, scores = (found[name].numpy()[:, 0] for name in ("start", "end", "score"))
        contexts = (context.replace("\0", " ") for context in rows["context"].iloc[begin : begin + size])  # as served
        texts += [c[s:e] if s >= 0 else "" for c, s, e in zip(contexts, starts, ends, strict=True)]
        margins.append(found["null"].numpy() - scores)
    return texts, np.concatenate(margins)


def _given(texts: Sequence[str], margins: np.ndarray, facts: Facts) -> list[str]:
    if not facts["unanswerable"]:
        return list(texts)
    return ["" if margin > facts["null_threshold"] else t for t, margin in zip(texts, margins, strict=True)]


def _truth(rows: pd.DataFrame) -> list[list[str]]:
    return [[text for _, text in answers] for answers in rows["answers"]]


def tune(outputs: Ragged, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Facts:
    """Where there are questions without an answer: the threshold that gives the best F1 on the rows."""
    if not facts["unanswerable"]:
        return facts
    texts, margins = _answers(outputs, examples, rows)
    truth = _truth(rows)
    answered = np.array([metrics.answers([t], [p])["f1"] for t, p in zip(truth, texts, strict=True)])
    withheld = np.array([metrics.answers([t], [""])["f1"] for t in truth])
    order = np.argsort(margins, kind="stable")  # up to a threshold answers are given, past it withheld
    total = np.concatenate([[0.0], np.cumsum(answered[order])]) + withheld.sum()
    total -= np.concatenate([[0.0], np.cumsum(withheld[order])])
    best = int(total.argmax())
    ordered = margins[order]
    below = ordered[best - 1] if best else ordered[0] - 1
    above = ordered[best] if best < len(ordered) else ordered[-1] + 1
    return facts | {"null_threshold": float((below + above) / 2)}


def score(outputs: Ragged, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Scores:
    """F1 and exact match as SQuAD's script has them."""
    texts, margins = _answers(outputs, examples, rows)
    return metrics.answers(_truth(rows), _given(texts, margins, facts))


def serve(outputs: Any, x: Mapping[str, Any], texts: Mapping[str, Any], facts: Facts, tokenizer: Any) -> dict[str, Any]:
    """`text`, `score`, `start`, `end` (batch,) of the best answer, and of the best ones `answers_...` (batch, 5).

    Places are characters of the context; "", -1 and -1 say that there is no answer, or no further one. Scores are
    shares of a softmax over the best 20 spans and, where training rows had questions without one, "no answer".
    """
    context = offsets.valid(texts["context"])
    found = best_spans(outputs, x, tf.size(context))
    possible = found["start"] >= 0
    scores = tf.where(possible, found["score"], -2e30)
    null = (found["null"] - facts["null_threshold"])[:, tf.newaxis]
    bound = null if facts["unanswerable"] else tf.fill(tf.shape(null), -1e30)
    share = tf.nn.softmax(tf.concat([bound, scores], 1))
    shares = tf.where(possible, share[:, 1:], 0.0)
    width = tf.shape(shares)[1]
    some = [[0, 0], [0, tf.maximum(BEST - width, 0)]]
    best = {
        "score": tf.pad(shares, some)[:, :BEST],
        "start": tf.pad(found["start"], some, constant_values=-1)[:, :BEST],
        "end": tf.pad(found["end"], some, constant_values=-1)[:, :BEST],
    }
    best["text"] = offsets.substrings(context, best["start"], best["end"])
    withheld = share[:, 0] > best["score"][:, 0]
    one = {name: value[:, 0] for name, value in best.items()}
    answer = {
        "text": tf.where(withheld, "", one["text"]),
        "score": tf.where(withheld, share[:, 0], one["score"]),
        "start": tf.where(withheld, -1, one["start"]),
        "end": tf.where(withheld, -1, one["end"]),
    }
    return answer | {f"answers_{name}": value for name, value in best.items()}


TASK = Task(
    name="question-answering",
    columns={
        "context": ("passage", "paragraph", "document", "text"),
        "question": ("query",),
        "answers": ("answer", "answer_text"),
    },
    inputs=("context", "question"),
    apart=("context",),  # a model that knows a context from training answers other questions about it more easily
    target="answers",
    headline=("f1", "exact"),
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
    tune=tune,
)
