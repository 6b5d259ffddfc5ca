"""The decoder: what it writes step by step is what it learnt with the whole target before it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfft import vocabulary
from tfft.copying import NextOrCopied
from tfft.decoder import Decoder, NextPiece, attention_heads

PIECES, WIDTH, SOURCE, ROWS, LONGEST = 11, 8, 5, 3, 6


def made(copying: bool = False) -> tuple[Decoder, NextPiece, dict[str, np.ndarray]]:
    """A decoder whose weights are no longer those it began with, and something to read."""
    keras.utils.set_random_seed(3)
    decoder = Decoder(PIECES, 2, WIDTH, 2, LONGEST, dropout=0.5, name="head_decoder")
    following = (NextOrCopied if copying else NextPiece)(decoder, name="head_output")
    generator = np.random.default_rng(0)
    x = {
        "target": generator.integers(4, PIECES, (ROWS, LONGEST)).astype("int32"),
        "encoded": generator.normal(size=(ROWS, SOURCE, 12)).astype("float32"),
        "mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], "int32"),
        "copied": np.array([[4, 5, 4, 6], [7, 8, 0, 0], [0, 0, 0, 0]], "int32"),
        "at": np.array([[1, 2, 3, 4], [1, 2, 0, 0], [0, 0, 0, 0]], "int32"),
    }
    states = decoder(x["target"], x["encoded"], x["mask"])
    more = (x["encoded"], x["copied"], x["at"]) if copying else ()
    following(states, x["target"], *more)
    for variable in [*decoder.trainable_variables, *following.trainable_variables]:
        variable.assign_add(0.3 * generator.normal(size=variable.shape))
    return decoder, following, x


@pytest.mark.parametrize("copying", [False, True])
def test_steps_are_what_was_learnt(copying: bool) -> None:
    decoder, following, x = made(copying)
    more = (x["encoded"], x["copied"], x["at"]) if copying else ()
    learnt = following(decoder(x["target"], x["encoded"], x["mask"]), x["target"], *more).numpy()
    memory, kept = decoder.memory(x["encoded"], x["mask"]), decoder.begin(ROWS, 2)
    pointed = [following.remembered(*more)] if copying else []
    last = np.full((ROWS, 2), vocabulary.START, "int32")
    for position in range(LONGEST):
        states, kept = decoder.step(last, position, kept, memory)
        chances = tf.nn.log_softmax(following.logits(states, *pointed)).numpy()  # (rows, beams, pieces)
        own = x["target"][:, position]
        for beam in range(2):
            np.testing.assert_allclose(chances[np.arange(ROWS), beam, own], learnt[:, position, 0], atol=2e-5)
        last = np.stack([own, own], axis=1)


def test_positions_do_not_see_what_comes_after_them() -> None:
    decoder, _, x = made()
    other = x["target"].copy()
    other[:, 3:] = 4
    one, two = (decoder(t, x["encoded"], x["mask"]).numpy() for t in (x["target"], other))
    np.testing.assert_allclose(one[:, :4], two[:, :4], atol=1e-6)
    assert np.abs(one[:, 4:] - two[:, 4:]).max() > 1e-3


def test_padding_of_the_source_is_not_seen() -> None:
    decoder, _, x = made()
    other = x["encoded"].copy()
    other[x["mask"] == 0] = 9
    one, two = (decoder(x["target"], e, x["mask"]).numpy() for e in (x["encoded"], other))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_what_a_loss_is_given() -> None:
    """Both numbers, against a softmax over the whole vocabulary."""
    decoder, following, x = made()
    states = decoder(x["target"], x["encoded"], x["mask"])
    found = following(states, x["target"]).numpy()
    chances = tf.nn.log_softmax(following.logits(states)).numpy()
    own = np.take_along_axis(chances, x["target"][:, :, np.newaxis], axis=2)[..., 0]
    np.testing.assert_allclose(found[..., 0], own, atol=1e-5)
    np.testing.assert_allclose(found[..., 1], chances.mean(axis=2), atol=1e-5)


def test_copying_shares_one_probability() -> None:
    """Over all pieces it sums to 1; where there is nothing to copy it is what is written."""
    decoder, following, x = made(copying=True)
    states = decoder(x["target"], x["encoded"], x["mask"])
    chances = following.logits(states, following.remembered(x["encoded"], x["copied"], x["at"])).numpy()
    np.testing.assert_allclose(np.exp(chances).sum(axis=2), 1, atol=1e-5)
    plain = tf.nn.log_softmax(NextPiece.logits(following, states)).numpy()
    np.testing.assert_allclose(chances[2], plain[2], atol=1e-4)  # its source has no piece
    assert np.abs(chances[0] - plain[0]).max() > 1e-2


def test_dropout_is_for_training_alone() -> None:
    decoder, _, x = made()
    one, two = (decoder(x["target"], x["encoded"], x["mask"], training=False).numpy() for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (decoder(x["target"], x["encoded"], x["mask"], training=True).numpy() != one).any()


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (768, 12), (8, 1), (96, 1), (130, 2), (100, 1), (1, 1)])
def test_heads_divide_the_width(width: int, heads: int) -> None:
    assert attention_heads(width) == heads
    assert width % attention_heads(width) == 0
