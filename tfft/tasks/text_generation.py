"""Text generation: a decoder such as GPT-2 or Llama learns to go on as your texts do, or to answer prompts.

Rows are texts, which are learnt whole, or prompts and responses, of which the response is. A model is judged by how
likely it finds texts it has not seen.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfft import backbones, packing, text_metrics, tokenizing
from tfft.decoding import Decoding, as_facts
from tfft.errors import DataError, InvalidValueError
from tfft.examples import Examples, Ragged, each, from_each
from tfft.heads import OUTPUT
from tfft.likelihood import Perplexity, Unlikelihood, perplexity
from tfft.pretrained import NEXT, Continuer, next_token_head
from tfft.tasks import text_classification as single
from tfft.tasks.task import Answer, Facts, Scores, Task, refuse_class_weight

log = logging.getLogger(__name__)

PROMPT, RESPONSE = "prompt", "response"
WHOLE = "whole"  # both, by which equal rows are known
TEMPLATE = "{prompt} {response}"
LONGEST = 64  # tokens that are written at most, by default
SHOWN = 15  # rows, in the table of samples
GREEDY = Decoding(beams=1)


def check(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Both texts as strings, the prompt empty where there is none; which rows lack one, or have an empty one."""
    checked: dict[str, Any] = {}
    faults: dict[str, np.ndarray] = {}
    for name in (PROMPT, RESPONSE):
        if name not in rows:
            continue
        own, found = single.check(rows[[name]].rename(columns={name: "text"}))
        checked[name] = own["text"]
        faults |= {fault.replace("text", name): where for fault, where in found.items()}
    rows = rows.assign(**{PROMPT: "", **checked})
    return rows.assign(**{WHOLE: rows[PROMPT] + "\n" + rows[RESPONSE]}) if RESPONSE in checked else rows, faults


def on(backbone: keras.Model, tokenizer: Any) -> Task:
    """The task that knows the ids which the backbone's texts begin and end with."""
    if backbones.has_decoder(backbone):
        raise InvalidValueError(f"{backbone.name} has an encoder; it is for translation and summarization")
    return dataclasses.replace(TASK, learn=functools.partial(learn, framing=backbones.framing(backbone, tokenizer)))


def learn(
    rows: pd.DataFrame,
    *,
    template: str | None,
    target_length: int | None,
    decoding: Sequence[str],
    framing: Mapping[str, Any],
) -> Facts:
    """How a prompt and its response become one text, how long an answer may be, and how it is written."""
    prompted = bool((rows[PROMPT] != "").any())
    if template is not None and not prompted:
        raise InvalidValueError("template joins prompts and responses; these rows have no prompt. Leave it out")
    chosen = (template or TEMPLATE) if prompted else "{response}"
    _check_template(chosen, prompted)
    longest = target_length or LONGEST
    return {"template": chosen, "longest": longest, "decoding": as_facts(decoding, GREEDY), **framing}


def _check_template(template: str, prompted: bool) -> None:
    if template.count("{response}") != 1 or not template.endswith("{response}"):
        raise InvalidValueError(f"a template ends with {{response}} and has it once. Received: {template!r}")
    if prompted and "{prompt}" not in template:
        raise InvalidValueError(f"a template has {{prompt}} somewhere before {{response}}. Received: {template!r}")


def before(prompts: Any, facts: Facts) -> Any:
    """The texts that responses follow, without the space between, (batch,); in graph operations."""
    opening = facts["template"].removesuffix("{response}")
    parts = [tf.fill(tf.shape(prompts), part) for part in opening.split("{prompt}")]
    joined = [text for part in parts for text in (prompts, part)][1:] if "{prompt}" in opening else [prompts]
    return tf.strings.regex_replace(tf.strings.join(joined), r"[\s\p{Z}]+$", "")


def encode(
    rows: pd.DataFrame,
    tokenizer: Any,
    facts: Facts,
    *,
    cleaning: Sequence[str] = (),
    class_weight: str | Mapping[str, float] | None = None,
) -> Examples:
    """Texts to token ids, and for each the one that comes next; those of responses count, and the end.

    A response is tokenised together with what stands before it, as a text of pretraining would be.
    """
    refuse_class_weight(class_weight)
    prompts = rows[PROMPT].tolist()
    asked = tokenizing.in_chunks(_opening(tokenizer, facts["template"], tuple(cleaning)), prompts)
    padding = tokenizing.paddings(tokenizer) | {NEXT: 0}
    start, end = facts["start"], facts["end"]
    if RESPONSE not in rows:
        ids = from_each([np.concatenate([start, own]) for own in each(asked)])
        nothing = np.zeros(len(rows), "float32")
        return Examples(_inputs(ids), nothing, nothing + 1, padding)
    texts = [_filled(facts["template"], *row) for row in zip(prompts, rows[RESPONSE], strict=True)]
    whole = tokenizing.encode_bare(tokenizer, texts, cleaning)
    alone = tokenizing.encode_bare(tokenizer, rows[RESPONSE].tolist(), cleaning)
    framed, weights = [], []
    for own, joint, rest in zip(each(asked), each(whole), each(alone), strict=True):
        # Elsewhere its first piece holds the end of what stands before.
        joined = joint if np.array_equal(joint[: len(own)], own) else np.concatenate([own, rest])
        framed.append(np.concatenate([start, joined, [end]]))
        weights.append(np.arange(1, len(framed[-1])) >= len(start) + len(own))
    x = _inputs(from_each([row[:-1] for row in framed])) | {NEXT: from_each([row[1:] for row in framed])}
    weight = from_each(weights, "float32")
    return Examples(x, weight._replace(values=np.zeros_like(weight.values)), weight, padding)


def _filled(template: str, prompt: str, response: str) -> str:
    return template.removesuffix("{response}").replace("{prompt}", prompt) + response


@functools.lru_cache(maxsize=4)
def _opening(tokenizer: Any, template: str, cleaning: tuple[str, ...]) -> Any:
    def ids(prompts: Any) -> Any:
        return tokenizing.bare_ids(tokenizer, before(prompts, {"template": template}), cleaning)

    return tf.function(ids, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def _inputs(ids: Ragged) -> dict[str, Any]:
    return {"token_ids": ids, "padding_mask": ids._replace(values=np.ones_like(ids.values))}


def cut(examples: Examples, tokenizer: Any, max_length: int) -> tuple[Examples, int]:
    """At most so many tokens: of rows that are learnt the first, of those that are asked the start and the last."""
    ids = examples.x["token_ids"]
    longer = int((ids.lengths > max_length).sum())
    if not longer:
        return examples, 0
    lengths = np.minimum(ids.lengths, max_length)
    if NEXT not in examples.x:
        last = [np.r_[row[:1], row[1:][-(max_length - 1) :]] for row in each(ids)]
        return examples._replace(x=examples.x | _inputs(from_each(last))), longer
    x = {name: value._replace(lengths=lengths) for name, value in examples.x.items()}
    y, weight = (value._replace(lengths=lengths) for value in (examples.y, examples.weight))
    lost = sum(not row.any() for row in each(weight))
    if lost == len(lengths):
        raise DataError(f"no response begins within {max_length} tokens. Raise --max-length, or shorten the prompts")
    if lost:
        log.warning("%d of %d rows have no token of their response within %d tokens", lost, len(lengths), max_length)
    return examples._replace(x=x, y=y, weight=weight), longer


def feed(
    texts: Mapping[str, Any], tokenizer: Any, facts: Facts, cleaning: Sequence[str], max_length: int
) -> dict[str, Any]:
    """Rows that are asked, dense, in graph operations."""
    (prompts,) = texts.values()
    ids = tokenizing.bare_ids(tokenizer, before(prompts, facts), cleaning)
    start = facts["start"]
    room = max_length - len(start)
    places = tf.ragged.range(tf.maximum(ids.row_lengths() - room, 0), ids.row_lengths())  # the last so many
    flat = places.flat_values + tf.gather(ids.row_starts(), places.value_rowids())
    last = places.with_flat_values(tf.gather(ids.flat_values, flat))
    opening = tf.tile(tf.constant([start], tf.int32, (1, len(start))), (last.nrows(), 1))
    framed = tf.concat([opening, last], axis=1)
    return packing.dense({"token_ids": framed, "padding_mask": tf.ones_like(framed)}, tokenizing.paddings(tokenizer))


def head(backbone: keras.Model, facts: Facts, *, pooling: str, dropout: float) -> keras.Model:
    """The backbone's own language model; takes one input more, the tokens that come next."""
    return next_token_head(backbone, dropout)


def answering(model: keras.Model, facts: Facts) -> keras.Model:
    """The model that writes, of the same layers: from a text alone."""
    inputs = {name: tensor for name, tensor in model.input.items() if name != NEXT}
    writer = Continuer(model.get_layer(OUTPUT).backbone, facts, name=OUTPUT)
    return keras.Model(inputs, writer(inputs["token_ids"], inputs["padding_mask"]))


def loss(facts: Facts, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """See `Unlikelihood`, a mean over tokens of responses."""
    return Unlikelihood(label_smoothing)


def score(outputs: Ragged, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Scores:
    """Perplexity of the responses' tokens, their ends among them, and how many there are."""
    return perplexity(outputs, examples.weight)


def samples(answers: Callable[[list[str]], list[Answer]], rows: pd.DataFrame, facts: Facts) -> list[dict[str, Any]]:
    """What is written for some rows: for their prompts, or where they are texts, for the first words of each."""
    some = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, SHOWN).round().astype(int))]
    prompts, wanted = some[PROMPT].tolist(), some[RESPONSE].tolist()
    if "{prompt}" not in facts["template"]:
        words = [text.split(" ") for text in wanted]
        prompts = [" ".join(row[: max(1, len(row) // 3)]) for row in words]
        wanted = [text[len(prompt) :] for text, prompt in zip(wanted, prompts, strict=True)]
    written = [answer["written"] for answer in answers(prompts)]
    return text_metrics.samples(prompts, written, wanted, text_metrics.sentence_chrf)


def serve(outputs: Any, x: Mapping[str, Any], texts: Mapping[str, Any], facts: Facts, tokenizer: Any) -> dict[str, Any]:
    """`written`, what comes next, (batch,), and `score`, the mean of the logarithms of its tokens' probabilities,
    (batch,). Without a template it is just what follows the text, with the space before it.
    """
    written = tokenizing.written(tokenizer, tf.cast(outputs[:, 1:], tf.int32))
    if "{prompt}" in facts["template"]:
        written = tf.strings.regex_replace(written, r"^[\s\p{Z}]+", "")
    return {"written": written, "score": outputs[:, 0]}


TASK = Task(
    name="text-generation",
    columns={
        PROMPT: ("question", "instruction", "input"),
        RESPONSE: ("answer", "output", "completion", "text"),
    },
    optional=(PROMPT,),
    inputs=(PROMPT,),
    target=RESPONSE,
    headline=("perplexity",),
    options={"template": None, "target_length": None, "decoding": ()},
    defaults={"dropout": 0.0, "label_smoothing": 0.0},
    check=check,
    learn=learn,
    on=on,
    encode=encode,
    cut=cut,
    feed=feed,
    head=head,
    answering=answering,
    by_likelihood=True,
    loss=loss,
    metrics=(Perplexity,),
    score=score,
    samples=samples,
    serve=serve,
    freeze="none",
    pooled=False,
    apart=(WHOLE,),
)
