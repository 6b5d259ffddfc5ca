"""What translation and summarization share: a text in, a text out.

The encoder is any pretrained one; the decoder above it is new and writes in a vocabulary of its own, learnt from the
training targets (Rothe et al. 2020, arXiv 1907.12461, without the pretrained decoder).
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfft import backbones, copying, packing, text_metrics, tokenizing, vocabulary
from tfft.decoder import Decoder, NextPiece, attention_heads
from tfft.decoding import Decoding, as_facts
from tfft.examples import Examples, as_arrays, each, from_each
from tfft.heads import OUTPUT, padding_mask, sequence_output
from tfft.likelihood import Perplexity, Unlikelihood
from tfft.tasks import pretrained_text_to_text as pretrained
from tfft.tasks import text_classification as single
from tfft.tasks.task import Facts, Scores, Task, refuse_class_weight
from tfft.writing import Writer

log = logging.getLogger(__name__)

TARGET = "target_ids"  # the model's input that holds what is to be written
DECODER = "head_decoder"

Judge = Callable[[Sequence[str], pd.DataFrame], Scores]  # (what was written, rows) -> metrics

OPTIONS: dict[str, Any] = {
    "decoder_layers": 3,
    "vocabulary_size": 6000,
    "target_length": None,
    "decoding": (),
    "copy": False,
}
# A decoder learns from nothing: more passes and larger steps than a pretrained encoder wants.
DEFAULTS: dict[str, Any] = {
    "dropout": 0.3,
    "epochs": 30,
    "batch_size": 96,
    "learning_rate": 1e-3,
    "warmup": 0.05,
    "monitor": "loss",
    "patience": 4,
    "label_smoothing": 0.1,
    "average": 5,
}


def text_to_text(
    *,
    name: str,
    source: str,
    target: str,
    columns: Mapping[str, Sequence[str]],
    options: Mapping[str, Any],
    judge: Judge,
    defaults: Mapping[str, Any] = DEFAULTS,
    **rest: Any,
) -> Task:
    """A task of rows `source`, `target`, by these names, scored by `judge`; `rest` are fields of `Task`.

    On a backbone that has a decoder of its own, it is what `tfft.tasks.pretrained_text_to_text` makes of it.
    """

    def on(backbone: keras.Model, tokenizer: Any) -> Task:
        if backbones.has_decoder(backbone):
            return pretrained.text_to_text(task, judge, backbone, tokenizer)
        return task

    task = Task(
        name=name,
        columns=columns,
        inputs=(source,),
        target=target,
        options={**OPTIONS, **options},
        defaults=defaults,
        check=functools.partial(check, source, target),
        learn=functools.partial(learn, target),
        encode=functools.partial(encode, source, target),
        head=head,
        answering=answering,
        loss=loss,
        metrics=(Perplexity,),
        score=functools.partial(score, judge),
        serve=serve,
        cut=cut,
        feed=feed,
        tables=tables,
        on=on,
        pooled=False,
        **rest,
    )
    return task


def check(source: str, target: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Both texts as strings; which rows lack one, or have an empty one."""
    checked: dict[str, pd.Series] = {}
    faults: dict[str, np.ndarray] = {}
    for name in (source, target):
        if name not in rows:
            continue
        own, found = single.check(rows[[name]].rename(columns={name: "text"}))
        checked[name] = own["text"]
        faults |= {fault.replace("text", name): where for fault, where in found.items()}
    return rows.assign(**checked), faults


def learn(
    target: str,
    rows: pd.DataFrame,
    *,
    decoder_layers: int,
    vocabulary_size: int,
    target_length: int | None,
    decoding: Sequence[str],
    copy: bool,
) -> Facts:
    """The vocabulary, how long a target may be, the decoder's size, and how it writes."""
    texts = rows[target].tolist()
    model = vocabulary.learn(texts, vocabulary_size)
    lengths = vocabulary.encoded(model, texts).lengths + 1
    longest = tokenizing.longest_target(lengths, target_length)
    log.info("vocabulary: %d pieces, at most %d a target", vocabulary.size(model), longest)
    return {
        "vocabulary": model,
        "longest": longest,
        "decoder_layers": decoder_layers,
        "decoding": as_facts(decoding),  # better refused now than after the training
        "copy": copy,
    }


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
    """Sources to token ids; targets to pieces with the end, of lengths of their own."""
    refuse_class_weight(class_weight)
    x, padding = _read(rows[source].tolist(), tokenizer, facts, cleaning)
    if target not in rows:
        nothing = np.zeros(len(rows), "float32")
        return Examples(dict(x), nothing, nothing + 1, padding)
    _warn_of_unknown(x["token_ids"], tokenizer)
    pieces = each(vocabulary.encoded(facts["vocabulary"], rows[target].tolist()))
    ids = from_each(tokenizing.with_end(pieces, vocabulary.END, facts["longest"]), own=True)
    y, weight = (ids._replace(values=np.full(len(ids.values), value, "float32")) for value in (0, 1))
    return Examples(dict(x) | {TARGET: ids}, y, weight, padding | {TARGET: vocabulary.PAD})


def _read(
    texts: Sequence[str], tokenizer: Any, facts: Facts, cleaning: Sequence[str]
) -> tuple[dict[str, Any], dict[str, int]]:
    """What the model reads of sources, and what fills it up."""
    if not facts["copy"]:
        x, padding = tokenizing.encode(tokenizer, texts, cleaning)
        return dict(x), padding
    x = tokenizing.in_chunks(copying.graph(tokenizer, facts["vocabulary"], tuple(cleaning)), texts)
    own = {name: as_arrays(x[name])._replace(own=True) for name in (copying.IDS, copying.PLACES)}
    return x | own, tokenizing.paddings(tokenizer) | {copying.IDS: vocabulary.PAD, copying.PLACES: 0}


def cut(examples: Examples, tokenizer: Any, max_length: int) -> tuple[Examples, int]:
    """Sources cut to `max_length` tokens, and how many lost some."""
    cut, longer = tokenizing.truncate_examples(examples, tokenizer, max_length)
    if copying.IDS in cut.x:
        cut = cut._replace(x=cut.x | copying.within(cut.x, tokenizer, max_length))
    return cut, longer


def feed(
    texts: Mapping[str, Any], tokenizer: Any, facts: Facts, cleaning: Sequence[str], max_length: int
) -> dict[str, Any]:
    """Rows that are asked, dense, in graph operations."""
    if not facts["copy"]:
        return tokenizing.padded_text(texts, tokenizer, facts, cleaning, max_length)
    (text,) = texts.values()
    x = copying.cut(copying.sources(text, tokenizer, facts["vocabulary"], cleaning), tokenizer, max_length)
    return packing.dense(x, tokenizing.paddings(tokenizer))


def tables(facts: Facts) -> list[Any]:
    """The tokenizer that reads what may be copied."""
    return [vocabulary.tokenizer(facts["vocabulary"])] if facts["copy"] else []


def _warn_of_unknown(ids: tf.RaggedTensor, tokenizer: Any) -> None:
    unknown = tokenizing.unknown_id(tokenizer)
    if unknown is None:
        return
    rows = int(tf.math.count_nonzero(tf.reduce_any(ids == unknown, axis=1)))
    if rows:
        log.warning(
            "%d of %d sources have characters the backbone's vocabulary lacks; it reads them as unknown",
            *(rows, int(ids.nrows())),
        )


def head(backbone: keras.Model, facts: Facts, *, pooling: str, dropout: float) -> keras.Model:
    """A decoder on the encoder's states; takes one input more, the target, and gives what `NextPiece` gives."""
    encoded = sequence_output(backbone)
    width = encoded.shape[-1]
    target = keras.Input((None,), dtype="int32", name=TARGET)
    decoder = Decoder(
        vocabulary.size(facts["vocabulary"]),
        facts["decoder_layers"],
        width,
        attention_heads(width),
        facts["longest"],
        dropout,
        name=DECODER,
    )
    states = decoder(target, encoded, padding_mask(backbone))
    inputs = backbone.input | {TARGET: target}
    if not facts["copy"]:
        return keras.Model(inputs, NextPiece(decoder, name=OUTPUT)(states, target))
    copied = {name: keras.Input((None,), dtype="int32", name=name) for name in (copying.IDS, copying.PLACES)}
    outputs = copying.NextOrCopied(decoder, name=OUTPUT)(states, target, encoded, *copied.values())
    return keras.Model(inputs | copied, outputs)


def answering(model: keras.Model, facts: Facts) -> keras.Model:
    """The model that writes, of the same layers: from a source alone."""
    decoder = model.get_layer(DECODER)
    _, encoded, mask = decoder.input
    inputs = {name: tensor for name, tensor in model.input.items() if name != TARGET}
    copied = [inputs[name] for name in (copying.IDS, copying.PLACES) if name in inputs]
    writer = Writer(decoder, model.get_layer(OUTPUT), Decoding(**facts["decoding"]), name=OUTPUT)
    return keras.Model(inputs, writer(encoded, mask, *copied))


def loss(facts: Facts, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """See `Unlikelihood`; `NextPiece` gives its numbers."""
    return Unlikelihood(label_smoothing)


def texts(outputs: np.ndarray, facts: Facts) -> list[str]:
    """What was written, from outputs of the model that answers, (rows, 1 + pieces)."""
    return vocabulary.decoded(facts["vocabulary"], outputs[:, 1:].astype(int).tolist())


def score(judge: Judge, outputs: np.ndarray, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Scores:
    """What `judge` says of the texts that were written."""
    return judge(texts(outputs, facts), rows)


def judge(
    scores: Callable[[Sequence[str], Sequence[str]], Scores],
    source: str,
    target: str,
    written: Sequence[str],
    rows: pd.DataFrame,
) -> Scores:
    """Scores of what was written against the targets, and the best, the median and the worst of it."""
    wanted = rows[target].tolist()
    found = scores(written, wanted) | {
        "empty": float(np.mean([not text.strip() for text in written])),
        "repeated": text_metrics.repeated(written),
    }
    samples = text_metrics.samples(rows[source].tolist(), written, wanted, text_metrics.sentence_chrf)
    return found | {"samples": samples}


def serve(outputs: Any, x: Mapping[str, Any], texts: Mapping[str, Any], facts: Facts, tokenizer: Any) -> dict[str, Any]:
    """`written`, the text, (batch,), and `score`, the mean of the logarithms of its pieces' probabilities, (batch,)."""
    ids = tf.cast(outputs[:, 1:], tf.int32)
    return {"written": vocabulary.written(facts["vocabulary"], ids), "score": outputs[:, 0]}
