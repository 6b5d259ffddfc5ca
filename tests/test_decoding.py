"""Writing piece by piece, held against a slow decoder that keeps nothing and loops in Python."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfft.decoding import NONE, Decoding, _drawn, decode, from_pairs
from tfft.errors import InvalidValueError

PAD, START, END = 0, 2, 3
PIECES = 9


def table(seed: int, rows: int) -> np.ndarray:
    """Logits of the next piece by row and by the sum of all that was written before it: they depend on all of it."""
    return np.random.default_rng(seed).normal(0, 2, (rows, 23, PIECES)).astype("float32")


def step_of(logits: tf.Tensor) -> Any:
    """A model whose state is what it has read, so that a wrong reordering of beams is seen."""

    def step(ids: Any, position: Any, state: Any) -> tuple[Any, Any]:
        (total, kept) = state
        total = (total * 3 + ids) % 23  # (batch, beams)
        kept = tf.concat([kept, tf.cast(ids, tf.float32)[:, :, tf.newaxis]], axis=2)
        again = tf.zeros_like(total)
        # the same from what was kept: a growing state
        power = tf.cast(3 ** tf.range(tf.shape(kept)[2])[::-1] % 23, tf.int32)
        again = tf.reduce_sum(tf.cast(kept, tf.int32) * power, axis=2) % 23
        tf.debugging.assert_equal(again, total)
        return tf.gather(logits, total, batch_dims=1), (total, kept)

    return step


def written(logits: np.ndarray, decoding: Decoding, longest: int) -> tuple[np.ndarray, np.ndarray]:
    ids, scores = _graph(decoding, longest)(logits)
    return ids.numpy(), scores.numpy()


@functools.cache  # tracing takes most of the time
def _graph(decoding: Decoding, longest: int) -> Any:
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 23, PIECES])])
    def run(logits: tf.Tensor) -> Any:
        batch, beams = tf.shape(logits)[0], decoding.beams
        state = tf.zeros((batch, beams), tf.int32), tf.zeros((batch, beams, 0))
        return decode(step_of(logits), state, batch, decoding, longest=longest, start=START, end=END, pad=PAD)

    return run


def chances_after(logits: np.ndarray, begun: list[int], ids: list[int], decoding: Decoding) -> np.ndarray:
    total = START % 23
    for one in begun + ids:
        total = (total * 3 + one) % 23
    row = logits[total].astype("float64")
    chances = row - np.log(np.exp(row - row.max()).sum()) - row.max()
    if decoding.repetition_penalty != 1:
        for one in set(ids):
            chances[one] *= decoding.repetition_penalty
    size = decoding.no_repeat
    if size:
        before = tuple(ids[len(ids) - size + 1 :]) if size > 1 else ()
        for begin in range(len(ids) - size + 1):
            if tuple(ids[begin : begin + size - 1]) == before:
                chances[ids[begin + size - 1]] = -math.inf
    if len(ids) < decoding.min_length:
        chances[END] = -math.inf
    chances[PAD] = -math.inf
    return chances


def slow(
    logits: np.ndarray, decoding: Decoding, longest: int, begun: list[int] | None = None
) -> tuple[list[int], float]:
    """Beam search of one row, with lists: (ids without the end, mean of the pieces' logarithms)."""
    limit = min(decoding.max_length or longest, longest)

    def normal(score: float, size: int) -> float:
        return score / ((5 + size) / 6) ** decoding.length_penalty

    live: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, float, list[int], int]] = []
    for _ in range(limit):
        options = [
            (score + chance, [*ids, piece])
            for score, ids in live
            for piece, chance in enumerate(chances_after(logits, begun or [], ids, decoding))
            if chance > -math.inf
        ]
        options = sorted(options, key=lambda one: -one[0])[: 2 * decoding.beams]
        for score, ids in options[: decoding.beams]:
            if ids[-1] == END:
                finished.append((normal(score, len(ids)), score, ids[:-1], len(ids)))
        finished = sorted(finished, key=lambda one: -one[0])[: decoding.beams]
        live = [one for one in options if one[1][-1] != END][: decoding.beams]
        best_going = max((normal(score, len(ids)) for score, ids in live), default=-math.inf)
        if len(finished) == decoding.beams and finished[0][0] >= best_going:
            break
    else:
        finished += [(normal(score, len(ids)), score, ids, len(ids)) for score, ids in live]
    best = max(finished, key=lambda one: one[0])
    return best[2], best[1] / best[3]


SETTINGS = [
    Decoding(beams=1),
    Decoding(beams=4),
    Decoding(beams=3, length_penalty=0.0),
    Decoding(beams=4, length_penalty=2.0, min_length=3),
    Decoding(beams=2, repetition_penalty=1.7),
    Decoding(beams=3, no_repeat=2),
    Decoding(beams=1, no_repeat=1),
    Decoding(beams=5, max_length=4),
]


@pytest.mark.parametrize("decoding", SETTINGS, ids=lambda d: str(dataclasses.asdict(d)))
def test_texts_are_those_of_a_slow_decoder(decoding: Decoding) -> None:
    logits = table(1, 40)
    ids, scores = written(logits, decoding, 8)
    for row, one in enumerate(logits):
        wanted, score = slow(one, decoding, 8)
        assert [i for i in ids[row].tolist() if i != PAD] == wanted
        assert scores[row] == pytest.approx(score, abs=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 5]), st.sampled_from([0.0, 0.6]))
def test_any_table_is_written_as_slowly(seed: int, beams: int, penalty: float) -> None:
    logits = table(seed, 3)
    decoding = Decoding(beams=beams, length_penalty=penalty)
    ids, _ = written(logits, decoding, 7)
    assert [[i for i in row if i != PAD] for row in ids.tolist()] == [slow(one, decoding, 7)[0] for one in logits]


def test_a_row_does_not_depend_on_the_others() -> None:
    logits = table(3, 12)
    for decoding in (Decoding(beams=4), Decoding(beams=1, temperature=0.9, seed=3)):
        together, scores = written(logits, decoding, 8)
        for row in range(len(logits)):
            alone, score = written(logits[row : row + 1], decoding, 8)
            np.testing.assert_array_equal(alone[0], together[row])
            assert score[0] == pytest.approx(scores[row], abs=1e-5)


def test_one_beam_is_greedy() -> None:
    logits = table(4, 20)
    ids, _ = written(logits, Decoding(beams=1), 8)
    for row, one in enumerate(logits):
        greedy: list[int] = []
        while len(greedy) < 8:
            piece = int(chances_after(one, [], greedy, Decoding()).argmax())
            if piece == END:
                break
            greedy.append(piece)
        assert [i for i in ids[row].tolist() if i != PAD] == greedy


@pytest.mark.parametrize(
    ("more", "allowed"),
    [({}, PIECES), ({"top_k": 2}, 2), ({"top_p": 0.5}, None), ({"top_k": 1}, 1), ({"top_p": 1e-6}, 1)],
)
def test_draws_have_the_probabilities_asked_for(more: dict[str, Any], allowed: int | None) -> None:
    """Many draws of one piece, against the distribution worked out by hand."""
    logits = table(5, 1)
    temperature = 1.3
    chances = chances_after(logits[0], [], [], Decoding()) / temperature
    share = np.exp(chances - chances.max())
    share /= share.sum()
    order = np.argsort(-share)
    if "top_k" in more:
        share[order[more["top_k"] :]] = 0
    if "top_p" in more:
        before = np.cumsum(share[order]) - share[order]
        share[order[before >= more["top_p"]]] = 0
    share /= share.sum()
    assert allowed is None or (share > 0).sum() <= allowed
    draws, decoding = 2000, Decoding(beams=1, temperature=temperature, seed=7, **more)
    total = tf.constant(
        np.maximum(chances_after(logits[0], [], [], Decoding()), -1e9)[np.newaxis, np.newaxis], tf.float32
    )
    drawn = [int(tf.argmax(_drawn(total, decoding, tf.constant(place))[0, 0])) for place in range(draws)]
    counts = np.bincount(drawn, minlength=PIECES)
    assert counts[share == 0].sum() == 0
    error = np.sqrt(share * (1 - share) / draws)
    assert (np.abs(counts / draws - share) <= 4.5 * error + 1e-9).all()


def test_the_same_seed_draws_the_same() -> None:
    logits, drawn = table(6, 30), Decoding(beams=1, temperature=1.5, seed=1)
    one, other = written(logits, drawn, 8)[0], written(logits, drawn, 8)[0]
    np.testing.assert_array_equal(one, other)
    assert (one != written(logits, dataclasses.replace(drawn, seed=2), 8)[0]).any()


def test_no_rows_are_no_texts() -> None:
    ids, scores = written(table(7, 1)[:0], Decoding(beams=2), 5)
    assert ids.shape == (0, 5)
    assert scores.shape == (0,)


@pytest.mark.parametrize(
    ("given_settings", "said"),
    [
        ({"beams": 0}, "beams must be a whole number of at least 1"),
        ({"beams": 2.5}, "beams must be a whole number"),
        ({"length_penalty": -1}, "length_penalty must be a number of at least 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 1.5}, "top_p is a probability"),
        ({"top_p": 0}, "top_p"),
        ({"beams": 4, "temperature": 1.0}, "use beams=1 or temperature=0"),
        ({"min_length": 5, "max_length": 5}, "leaves no room"),
        ({"beams": True}, "beams"),
    ],
)
def test_bad_settings_are_refused_in_a_line(given_settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValueError, match=said) as caught:
        Decoding(**given_settings)
    assert "\n" not in str(caught.value)


def test_settings_by_name() -> None:
    assert from_pairs({"beams": "2", "length_penalty": "0.6"}) == Decoding(beams=2, length_penalty=0.6)
    assert from_pairs({"temperature": "0.7"}) == Decoding(beams=1, temperature=0.7)
    assert from_pairs({"top_k": "5"}, Decoding(beams=1, temperature=0.5)) == Decoding(1, temperature=0.5, top_k=5)
    with pytest.raises(InvalidValueError, match="no setting 'beam'"):
        from_pairs({"beam": "4"})
    with pytest.raises(InvalidValueError, match="beams must be a number"):
        from_pairs({"beams": "four"})
    with pytest.raises(InvalidValueError, match="beams must be a whole number|must be a number"):
        from_pairs({"beams": "2.5"})


@pytest.mark.parametrize("decoding", SETTINGS, ids=lambda d: str(dataclasses.asdict(d)))
def test_what_is_given_is_gone_on_from(decoding: Decoding) -> None:
    """Rows that begin with other pieces, and more or fewer of them, are those of a slow decoder that begins there."""
    logits = table(4, 12)
    begun = [[5, 6, 7, 3, 8][: row % 6] for row in range(len(logits))]  # an end that is given ends nothing
    given = tf.constant([[*row, *[NONE] * (5 - len(row))] for row in begun])

    @tf.function(autograph=False)
    def run(logits: tf.Tensor, given: tf.Tensor) -> Any:
        batch, beams = tf.shape(logits)[0], decoding.beams
        state = tf.zeros((batch, beams), tf.int32), tf.zeros((batch, beams, 0))
        step = step_of(logits)
        return decode(step, state, batch, decoding, longest=8, start=START, end=END, pad=PAD, given=given)

    ids, scores = run(logits, given)
    for row, one in enumerate(logits):
        wanted, score = slow(one, decoding, 8, begun[row])
        assert [i for i in ids[row].numpy().tolist() if i != PAD] == wanted
        assert float(scores[row]) == pytest.approx(score, abs=1e-4)
