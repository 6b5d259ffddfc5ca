"""Pieces learnt from texts: every text comes back, in Python and in a graph."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfft import vocabulary
from tfft.errors import DataError

TEXTS = ["ein Hund läuft über die Wiese", "zwei Hunde laufen", "die Katze schläft auf dem Haus", "ein Haus"] * 5


@pytest.fixture(scope="module")
def model() -> str:
    return vocabulary.learn(TEXTS, 320)


def in_rows(ids: vocabulary.Ragged) -> list[list[int]]:
    return [ids.values[s : s + n].tolist() for s, n in zip(ids.starts, ids.lengths, strict=True)]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\0"), max_size=30),
        min_size=1,
        max_size=4,
    )
)
def test_any_text_comes_back(model: str, texts: list[str]) -> None:
    rows = in_rows(vocabulary.encoded(model, texts))
    assert vocabulary.UNKNOWN not in {piece for row in rows for piece in row}
    assert vocabulary.decoded(model, rows) == texts
    longest = max(map(len, rows), default=0)
    dense = np.array([row + [vocabulary.PAD] * (longest - len(row)) for row in rows], "int32").reshape(
        len(rows), longest
    )
    assert [t.decode("utf-8") for t in vocabulary.written(model, tf.constant(dense)).numpy()] == texts


def test_the_same_texts_give_the_same_pieces(model: str) -> None:
    assert vocabulary.learn(TEXTS, 320) == model
    assert vocabulary.size(model) <= 320


def test_frequent_words_are_few_pieces(model: str) -> None:
    assert vocabulary.encoded(model, ["Hund"]).lengths[0] <= 2
    assert vocabulary.encoded(model, ["包"]).lengths[0] == 4  # a space, three bytes


def test_bytes_that_are_no_text_are_marked(model: str) -> None:
    ids = in_rows(vocabulary.encoded(model, ["包"]))[0][:-1]  # stopped within a character
    assert vocabulary.written(model, tf.constant([ids])).numpy()[0].decode("utf-8") in ("\ufffd", "\ufffd\ufffd")


def test_keras_hub_reads_the_same_pieces(model: str) -> None:
    texts = ["ein Hund", "Katze 包 x", "läuft"]
    read = tf.function(lambda t: vocabulary.tokenizer(model)(t))(tf.constant(texts))
    assert read.to_list() == in_rows(vocabulary.encoded(model, texts))


@pytest.mark.parametrize("texts", [[], [""], ["", "  "]])
def test_no_words_are_refused(texts: list[str]) -> None:
    with pytest.raises(DataError, match="expected training targets"):
        vocabulary.learn(texts, 300)


def test_too_few_pieces_are_refused() -> None:
    with pytest.raises(DataError, match="no vocabulary of 265 pieces"):
        vocabulary.learn(["".join(map(chr, range(0x61, 0x7B)))] * 3, 265)


def test_few_texts_give_fewer_pieces_than_asked_for() -> None:
    assert vocabulary.size(vocabulary.learn(["ein Hund"], 6000)) < 300


def test_thousands_of_characters_need_no_piece_each() -> None:
    """Of Chinese the rare ones are spelled in bytes."""
    texts = [chr(0x4E00 + i) for i in range(3000)] + ["\u4e00\u4e8c"] * 200000
    model = vocabulary.learn(texts, 1500)
    rare = ["\u4e00\u5999"]
    assert vocabulary.decoded(model, in_rows(vocabulary.encoded(model, rare))) == rare
