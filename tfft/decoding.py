"""Writing a text one piece at a time: greedy, beam search, sampling. In graph operations; an export runs them, too.

Knows no model: a step function gives the logits of what may come next.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfft.errors import InvalidValueError

NEVER = -1e9
NONE = -1  # no piece

# (pieces written last (batch, beams), how many were written before, state) -> (logits (batch, beams, pieces), state)
Step = Callable[[tf.Tensor, tf.Tensor, Any], tuple[tf.Tensor, Any]]


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How a text is written.

    Attributes:
        beams: texts that are written side by side, of which the best is answered; 1 is greedy.
        length_penalty: the logarithm of a text's probability is divided by ((5 + length) / 6) ** length_penalty (Wu et
            al. 2016, arXiv 1609.08144): 0 prefers short texts.
        temperature: above 0 draws by probability, of logits divided by it; 0 takes the likeliest.
        top_k: draws among so many of the likeliest; 0 among all.
        top_p: draws among the likeliest that together have this probability.
        repetition_penalty: the logarithm of the probability of a piece that was written is multiplied by it.
        no_repeat: no so many pieces are written twice in the same order; 0 for no such rule.
        min_length: pieces before the end, at least.
        max_length: pieces, the end among them, at most; 0 for as many as the decoder learnt.
        seed: of drawing. It is the same for every row, so an answer does not depend on what else is asked.

    Examples:
        >>> from tfft.decoding import Decoding
        >>> Decoding(beams=4, length_penalty=0.6).beams
        4
    """

    beams: int = 4
    length_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat: int = 0
    min_length: int = 0
    max_length: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        whole = {f.name for f in dataclasses.fields(self) if f.type is int}
        faults = []
        for name, value in dataclasses.asdict(self).items():
            kinds = int if name in whole else (int, float)
            least = {"beams": 1, "top_p": 1e-6, "repetition_penalty": 1e-6}.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < float("inf"):
                what = f"a whole number of at least {least}" if name in whole else f"a number of at least {least}"
                faults.append(f"{name} must be {what}. Received: {value!r}")
        if faults:
            raise InvalidValueError("decoding: " + "; ".join(faults))
        if self.temperature and self.beams > 1:
            raise InvalidValueError(
                f"decoding: temperature {self.temperature} draws one text and beams={self.beams} search for the "
                "likeliest; use beams=1 or temperature=0"
            )
        if self.top_p > 1:
            raise InvalidValueError(f"decoding: top_p is a probability, at most 1. Received: {self.top_p}")
        if self.max_length and self.min_length >= self.max_length:
            raise InvalidValueError(
                f"decoding: min_length={self.min_length} leaves no room within max_length={self.max_length}"
            )


def from_pairs(pairs: Mapping[str, Any], start: Decoding | None = None) -> Decoding:
    """Settings by name, as the command line gives them: numbers, or strings of numbers.

    Args:
        pairs: such as {"beams": "4"}.
        start: what the others are.

    Raises:
        InvalidValueError: an unknown name, or no number.
    """
    start, kinds = start or Decoding(), {f.name: f.type for f in dataclasses.fields(Decoding)}
    values: dict[str, Any] = {}
    for name, value in pairs.items():
        if name not in kinds:
            raise InvalidValueError(f"decoding has no setting {name!r}. Expected some of: {', '.join(kinds)}")
        try:
            values[name] = (int if kinds[name] is int else float)(value) if isinstance(value, str) else value
        except ValueError:
            raise InvalidValueError(f"decoding: {name} must be a number. Received: {value!r}") from None
    if float(values.get("temperature", 0)) > 0 and "beams" not in values:
        values["beams"] = 1  # who asks for drawing has not to know that it is of one text
    return dataclasses.replace(start, **values)


def as_facts(pairs: Sequence[str], start: Decoding | None = None) -> dict[str, Any]:
    """Settings such as "beams=4" as plain data, all of them; arguments and errors as in `from_pairs`."""
    return dataclasses.asdict(from_pairs(dict(pair.split("=", 1) for pair in pairs), start))


class _Texts(NamedTuple):
    """Texts, whole or begun.

    Attributes:
        ids: (batch, beams, written).
        scores: (batch, beams), logarithms of their probabilities; of finished ones divided by their length's penalty.
    """

    ids: tf.Tensor
    scores: tf.Tensor


def decode(
    step: Step,
    state: Any,
    batch: Any,
    decoding: Decoding,
    *,
    longest: int,
    start: Any,
    end: int,
    pad: int,
    given: Any = None,
    place: Any = 0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Write a text for each row.

    Rows do not depend on each other. Of candidates that end, those among the `beams` likeliest are finished. A row is
    done once it has as many finished texts as beams, and the best of them is better than the best that goes on would be
    if it ended here.

    Args:
        step: gives logits.
        state: nested tensors (batch, beams, ...) that `step` takes and gives; an axis of none grows.
        batch: rows.
        decoding: settings.
        longest: pieces that can be written, the end among them.
        start: what was written last when nothing is: one for all rows, or (batch,).
        end: the piece that ends a text.
        pad: fills up shorter texts; never written.
        given: pieces that a row goes on from, whatever is likely, (batch, any), `NONE` behind them; they are no part of
            what is written.
        place: pieces before all that: two calls draw alike where as many stand before.

    Returns:
        ids (batch, longest) int32, without the end; and for each the mean over its pieces, the end among them, of the
        logarithms of their probabilities, (batch,).
    """
    limit = min(decoding.max_length or longest, longest)
    beams = decoding.beams
    given = tf.fill((batch, 0), NONE) if given is None else given
    begun = tf.reduce_sum(tf.cast(given != NONE, tf.int32), axis=1)
    steps = limit + tf.maximum(tf.reduce_max(begun), 0)
    given = tf.pad(given, [[0, 0], [0, limit]], constant_values=NONE)[:, :steps]
    first = tf.where(tf.range(beams) == 0, 0.0, NEVER)  # all beams begin alike; only one of them counts
    live = _Texts(tf.zeros((batch, beams, 0), tf.int32), tf.tile(first[tf.newaxis], (batch, 1)))
    finished = _Texts(tf.fill((batch, beams, steps), pad), tf.fill((batch, beams), 2 * NEVER))
    last = tf.broadcast_to(tf.reshape(start, (-1, 1)), (batch, beams))

    def going(position: Any, last: Any, live: Any, finished: Any, done: Any, state: Any) -> Any:
        return tf.reduce_any(~done & (position - begun < limit))

    def body(position: Any, last: Any, live: _Texts, finished: _Texts, done: Any, state: Any) -> Any:
        logits, state = step(last, position, state)
        own, forced = position - begun, given[:, position]  # (batch,): how many are written, what must come
        chances = tf.nn.log_softmax(tf.cast(logits, tf.float32)) + NEVER * tf.one_hot(pad, tf.shape(logits)[2])
        chances = _ruled(chances, live.ids, position, own, decoding, end)
        pieces, is_forced = tf.shape(chances)[2], (forced != NONE)[:, tf.newaxis]
        only = (1.0 - tf.one_hot(forced, pieces)) * NEVER
        chances = tf.where(is_forced[:, :, tf.newaxis], only[:, tf.newaxis], chances)
        total = live.scores[:, :, tf.newaxis] + chances
        ranked = _drawn(total, decoding, place + position) if decoding.temperature else total
        _, best = tf.math.top_k(tf.reshape(ranked, (batch, -1)), 2 * beams)  # a piece more than ends, in every case
        score = tf.gather(tf.reshape(total, (batch, -1)), best, batch_dims=1)
        beam, piece = best // pieces, best % pieces
        ends = (piece == end) & ~is_forced

        shown = tf.where(is_forced, NONE, piece)
        ids = tf.concat([tf.gather(live.ids, beam, batch_dims=1), shown[:, :, tf.newaxis]], axis=2)
        size, more = (own + 1)[:, tf.newaxis], steps - position
        ended = tf.where(ends[:, :beams], _normalised(score[:, :beams], size, decoding), 2 * NEVER)
        ended = tf.where((done | (own >= limit))[:, tf.newaxis], 2 * NEVER, ended)
        filled = _filled(ids[:, :beams, :-1], more, pad)  # without the end
        finished = _best(_joined(finished, _Texts(filled, ended)), beams)

        (ids, score), order = _kept(_Texts(ids, tf.where(ends, NEVER + score, score)), beams)
        beam, piece = (tf.gather(of, order, batch_dims=1) for of in (beam, piece))
        state = tf.nest.map_structure(lambda t: tf.gather(t, beam, batch_dims=1), state) if beams > 1 else state

        going_on = _normalised(score, size, decoding)[:, 0]
        done |= tf.reduce_all(finished.scores > NEVER, axis=1) & (finished.scores[:, 0] >= going_on)

        def with_unended() -> _Texts:  # what has no end after so many pieces is answered as it is
            open_still = ((own + 1 == limit) & ~done)[:, tf.newaxis]
            cut = tf.where(open_still, _normalised(score, size, decoding), 2 * NEVER)
            return _best(_joined(finished, _Texts(_filled(ids, more - 1, pad), cut)), beams)

        finished = tf.cond(tf.reduce_any(own + 1 == limit), with_unended, lambda: finished)
        return position + 1, piece, _Texts(ids, score), finished, done, state

    invariants = (
        tf.TensorShape([]),
        tf.TensorShape([None, beams]),
        _Texts(tf.TensorShape([None, beams, None]), tf.TensorShape([None, beams])),
        _Texts(tf.TensorShape([None, beams, None]), tf.TensorShape([None, beams])),
        tf.TensorShape([None]),
        tf.nest.map_structure(lambda t: tf.TensorShape([None, *(d or None for d in t.shape[1:])]), state),
    )
    begin = (tf.constant(0), last, live, finished, tf.fill((batch,), False), state)
    _, _, _, finished, _, _ = tf.while_loop(going, body, begin, shape_invariants=invariants)
    found = _best(finished, 1)
    ids = tf.gather(found.ids[:, 0], begun[:, tf.newaxis] + tf.range(limit), batch_dims=1)
    size = tf.minimum(tf.reduce_sum(tf.cast(ids != pad, tf.float32), axis=1) + 1, float(limit))  # an end is a piece
    score = found.scores[:, 0] * _penalty(size, decoding) / size
    return tf.pad(ids, [[0, 0], [0, longest - limit]], constant_values=pad), score


def _filled(ids: tf.Tensor, more: Any, pad: int) -> tf.Tensor:
    return tf.pad(ids, [[0, 0], [0, 0], [0, more]], constant_values=pad)


def _penalty(length: Any, decoding: Decoding) -> Any:
    return ((5.0 + tf.cast(tf.maximum(length, 0), tf.float32)) / 6.0) ** decoding.length_penalty


def _normalised(scores: tf.Tensor, length: Any, decoding: Decoding) -> tf.Tensor:
    return tf.where(scores > NEVER / 2, scores / _penalty(length, decoding), 2 * NEVER)


def _joined(one: _Texts, other: _Texts) -> _Texts:
    return _Texts(tf.concat([one.ids, other.ids], axis=1), tf.concat([one.scores, other.scores], axis=1))


def _kept(texts: _Texts, count: int) -> tuple[_Texts, tf.Tensor]:
    scores, order = tf.math.top_k(texts.scores, count)
    return _Texts(tf.gather(texts.ids, order, batch_dims=1), scores), order


def _best(texts: _Texts, count: int) -> _Texts:
    return _kept(texts, count)[0]


def _ruled(
    chances: tf.Tensor, written: tf.Tensor, position: Any, own: tf.Tensor, decoding: Decoding, end: int
) -> tf.Tensor:
    """Logarithms of probabilities (batch, beams, pieces) with what the settings forbid made impossible.

    `written` has `NONE` where a piece was given; `own` is how many were not, (batch,).
    """
    pieces = tf.shape(chances)[2]
    if decoding.repetition_penalty != 1.0:
        there = tf.reduce_sum(tf.one_hot(written, pieces), axis=2) > 0
        chances = tf.where(there, chances * decoding.repetition_penalty, chances)
    if decoding.no_repeat:
        chances += NEVER * _repeating(written, position, decoding.no_repeat, tf.shape(chances))
    if decoding.min_length:
        early = tf.cast(own < decoding.min_length, tf.float32)[:, tf.newaxis, tf.newaxis]
        chances += NEVER * early * tf.one_hot(end, pieces)
    return chances


def _repeating(written: tf.Tensor, position: Any, size: int, shape: tf.Tensor) -> tf.Tensor:
    """1 for pieces that would write the last `size - 1` and themselves a second time: (batch, beams, pieces)."""

    def found() -> tf.Tensor:
        places = position - size + 1  # beginnings of what was written whole
        same = written[:, :, size - 1 :] != NONE
        for i in range(size - 1):
            one, other = written[:, :, i : places + i], written[:, :, places + i, tf.newaxis]
            same &= (one == other) & (one != NONE)
        where = tf.where(same)
        next_one = tf.gather_nd(written[:, :, size - 1 :], where)
        index = tf.concat([where[:, :2], tf.cast(next_one, tf.int64)[:, tf.newaxis]], axis=1)
        return tf.minimum(tf.scatter_nd(index, tf.ones_like(next_one, tf.float32), tf.cast(shape, tf.int64)), 1.0)

    return tf.cond(position >= size, found, lambda: tf.zeros(shape))


def _drawn(total: tf.Tensor, decoding: Decoding, position: Any) -> tf.Tensor:
    """Scores whose largest is a draw (Gumbel's trick) of one beam's (batch, 1, pieces)."""
    scores = tf.nn.log_softmax(total / decoding.temperature)
    pieces = tf.shape(scores)[2]
    ordered = tf.sort(scores, axis=2, direction="DESCENDING")
    if decoding.top_k:
        least = tf.gather(ordered, tf.minimum(decoding.top_k, pieces) - 1, axis=2)[:, :, tf.newaxis]
        scores = tf.where(scores < least, NEVER, scores)
        ordered = tf.where(ordered < least, NEVER, ordered)
    if decoding.top_p < 1:
        share = tf.nn.softmax(ordered)
        before = tf.cumsum(share, axis=2, exclusive=True)
        count = tf.reduce_sum(tf.cast(before < decoding.top_p, tf.int32), axis=2, keepdims=True)
        least = tf.gather(ordered, count - 1, batch_dims=2)
        scores = tf.where(scores < least, NEVER, scores)
    uniform = tf.random.stateless_uniform((pieces,), tf.stack([decoding.seed, position]), minval=1e-30)
    return scores - tf.math.log(-tf.math.log(uniform))
