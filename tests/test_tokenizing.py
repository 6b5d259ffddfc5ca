"""Tokens: special tokens in place, cuts that keep the end, the same in a graph, nothing lost."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import tfft
from tests.conftest import FAMILIES
from tfft import tokenizing
from tfft.errors import InvalidValueError


def ids_of(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return tokenizing.encode(tokenizer, texts)[0]["token_ids"].to_list()


@pytest.mark.parametrize("family", FAMILIES)
def test_between_start_and_end(family: str, presets: Any) -> None:
    _, tokenizer = tfft.load_backbone(presets(family))
    start, end, pad = tokenizing.special_ids(tokenizer)
    rows = ids_of(tokenizer, ["the movie was good", "", "caf\u00e9 \U0001f600"])
    assert all(row[0] == start and row[-1] == end for row in rows)
    assert rows[1] == [start, end]
    assert pad not in rows[0]
    plain = tokenizer("the movie was good")
    assert rows[0][1:-1] == list(np.array(plain))


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=6),
    st.integers(1, 10),
    st.sampled_from([None, 99]),
)
def test_truncate(rows: list[list[int]], most: int, end: int | None) -> None:
    ragged = tf.ragged.constant(rows, dtype=tf.int32, ragged_rank=1)
    expected = [row if len(row) <= most else (row[:most] if end is None else [*row[: most - 1], end]) for row in rows]
    assert tokenizing.truncate(ragged, most, end).to_list() == expected


class Digits:
    """A tokenizer of digits: "12" is the tokens 1 and 2."""

    def __init__(self, start: int | None, end: int | None) -> None:
        self.start_token_id, self.end_token_id, self.pad_token_id = start, end, 0

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return tf.strings.to_number(tf.strings.bytes_split(texts), tf.int32)


@given(
    st.lists(st.text("123456789", max_size=12), min_size=1, max_size=6),
    st.integers(3, 10),
    st.sampled_from([None, 77]),
    st.sampled_from([None, 99]),
)
def test_padded_for_an_export_as_cut_for_training(texts: list[str], most: int, start: Any, end: Any) -> None:
    tokenizer = Digits(start, end)
    ragged = tokenizing.truncate(tokenizing.token_ids(tokenizer, tf.constant(texts)), most, end)
    ids, mask = tokenizing.padded_ids(tokenizer, tf.constant(texts), (), most)
    np.testing.assert_array_equal(ids, ragged.to_tensor(0))
    np.testing.assert_array_equal(mask, tf.ones_like(ragged).to_tensor(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_real_tokenizer_pads_for_an_export_as_it_cuts_for_training(family: str, presets: Any) -> None:
    _, tokenizer = tfft.load_backbone(presets(family))
    end, pad = tokenizing.special_ids(tokenizer)[1:]
    texts = tf.constant(["the movie was good and long and long", "", "good", "caf\u00e9 \U0001f600"])
    in_graph = tf.function(lambda t: tokenizing.padded_ids(tokenizer, t, ("whitespace",), 6), autograph=False)
    ragged = tf.function(lambda t: tokenizing.token_ids(tokenizer, t, ("whitespace",)), autograph=False)(texts)
    np.testing.assert_array_equal(in_graph(texts)[0], tokenizing.truncate(ragged, 6, end).to_tensor(pad))


def test_a_nul_byte_does_not_end_the_text(presets: Any) -> None:
    _, tokenizer = tfft.load_backbone(presets("bert"))
    assert ids_of(tokenizer, ["the\x00movie"]) == ids_of(tokenizer, ["the movie"])


@pytest.mark.parametrize(
    ("lengths", "limit", "expected"),
    [
        ([5] * 999 + [400], None, 8),
        ([30] * 10, None, 32),
        ([900] * 10, 512, 512),
        ([900] * 10, None, 512),
        ([20], 16, 16),
    ],
)
def test_length_from_the_data(lengths: list[int], limit: int | None, expected: int) -> None:
    assert tokenizing.choose_length(np.array(lengths), limit) == expected


def test_a_length_that_is_asked_for_must_be_readable() -> None:
    assert tokenizing.choose_length(np.array([5]), 32, 9) == 9
    assert tokenizing.choose_length(np.array([5]), None, 999) == 999
    with pytest.raises(
        InvalidValueError, match="^max_length must be at most 32, what the backbone reads. Received: 33$"
    ):
        tokenizing.choose_length(np.array([5]), 32, 33)


def test_truncated_rows_are_counted_and_every_input_is_cut(presets: Any) -> None:
    _, tokenizer = tfft.load_backbone(presets("bert"))
    task = tfft.get_task("text-classification")
    import pandas as pd

    rows = pd.DataFrame({"text": ["the movie", "the movie was very very good"]})
    examples = task.encode(rows, tokenizer, {"labels": ["a", "b"], "counts": [1, 1]})
    cut, count = tokenizing.truncate_examples(examples, tokenizer, 5)
    assert count == 1
    assert {name: value.row_lengths().numpy().tolist() for name, value in cut.x.items()} == {
        "token_ids": [4, 5],
        "padding_mask": [4, 5],
        "segment_ids": [4, 5],
    }
    assert cut.x["token_ids"].to_list()[1][-1] == tokenizing.special_ids(tokenizer)[1]


def test_more_texts_than_a_chunk_keep_their_order(presets: Any) -> None:
    _, tokenizer = tfft.load_backbone(presets("bert"))
    texts = ["good", "bad"] * tokenizing.CHUNK
    rows = ids_of(tokenizer, texts)
    assert len(rows) == len(texts)
    assert rows[::2] == [rows[0]] * tokenizing.CHUNK
    assert rows[1::2] == [rows[1]] * tokenizing.CHUNK


def test_the_default_backbones_ids_are_the_published_tokenizers(minilm: Any) -> None:
    from tokenizers import Tokenizer

    _, tokenizer = tfft.load_backbone(minilm)
    published = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    published.no_truncation()
    published.no_padding()
    # accents above all: see tfft.backbones._tokenizer_options
    texts = [
        "caf\u00e9 na\u00efve Jos\u00e9",
        "It's 5 o'clock!",
        "\u5317\u4eac\u5927\u5b66 hello",
        "a\tb\nc",
        "",
        "\u0110\u1ed7 \u00c5ngstr\u00f6m",
    ]
    assert ids_of(tokenizer, texts) == [published.encode(text).ids for text in texts]
