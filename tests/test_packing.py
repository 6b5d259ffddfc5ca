"""Packed rows by hand; windows and cuts lose nothing they should keep, whatever the lengths."""

import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import KEPT, build
from tfft import packing, tokenizing

FAMILIES = ("bert", "roberta")  # one end token between two texts, and two
SEPARATORS = {"bert": 1, "roberta": 2}
FIRST, SECOND = 1000, 5000  # ids of first and last texts are these and what follows, so each says which it is


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = {family: build(family, tmp_path_factory.mktemp(family))[1] for family in FAMILIES}
    KEPT.extend(made.values())
    return made


def ragged(rows: list[list[int]]) -> tf.RaggedTensor:
    return tf.ragged.constant(rows, dtype=tf.int32, ragged_rank=1)


def lists(x: Any) -> dict[str, list[list[int]]]:
    return {name: value.to_list() for name, value in x.items()}


def pairs(
    tokenizer: Any, family: str, sizes: list[tuple[int, int]]
) -> tuple[dict[str, tf.RaggedTensor], tf.Tensor, list[list[int]]]:
    """Packed rows of first and second texts so long, the tokens before their second texts, and those themselves."""
    first = [list(range(FIRST, FIRST + a)) for a, _ in sizes]
    second = [list(range(SECOND, SECOND + b)) for _, b in sizes]
    values = {"places": (ragged([list(range(b)) for _, b in sizes]), -1)}
    x = packing.packed(tokenizer, [ragged(first), ragged(second)], values)
    start, end, _ = tokenizing.special_ids(tokenizer)
    heads = [[start, *row, *[end] * SEPARATORS[family]] for row in first]
    return x, tf.constant([len(head) for head in heads], tf.int32), heads


@pytest.mark.parametrize(("family", "start", "end"), [("bert", 2, 3), ("roberta", 0, 2)])
def test_one_text_stands_between_start_and_end(family: str, start: int, end: int, tokenizers: dict[str, Any]) -> None:
    values = {"starts": (ragged([[0, 4], [], [7]]), -1)}
    x = lists(packing.packed(tokenizers[family], [ragged([[11, 12], [], [13]])], values))
    assert x == {
        "token_ids": [[start, 11, 12, end], [start, end], [start, 13, end]],
        "padding_mask": [[1, 1, 1, 1], [1, 1], [1, 1, 1]],
        "segment_ids": [[0, 0, 0, 0], [0, 0], [0, 0, 0]],
        "starts": [[-1, 0, 4, -1], [-1, -1], [-1, 7, -1]],
    }


def test_two_texts_have_an_end_token_between_them(tokenizers: dict[str, Any]) -> None:
    parts = [ragged([[11, 12], [], [13]]), ragged([[21], [22, 23], []])]
    x = lists(packing.packed(tokenizers["bert"], parts, {"starts": (ragged([[5], [0, 6], []]), -1)}))
    assert x == {
        "token_ids": [[2, 11, 12, 3, 21, 3], [2, 3, 22, 23, 3], [2, 13, 3, 3]],
        "padding_mask": [[1] * 6, [1] * 5, [1] * 4],
        "segment_ids": [[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 1]],
        "starts": [[-1, -1, -1, -1, 5, -1], [-1, -1, 0, 6, -1], [-1] * 4],
    }


def test_two_texts_of_robertas_kin_have_two(tokenizers: dict[str, Any]) -> None:
    parts = [ragged([[11, 12], []]), ragged([[21], [22, 23]])]
    x = lists(packing.packed(tokenizers["roberta"], parts, {"starts": (ragged([[5], [0, 6]]), -1)}))
    assert x["token_ids"] == [[0, 11, 12, 2, 2, 21, 2], [0, 2, 2, 22, 23, 2]]
    assert x["padding_mask"] == [[1] * 7, [1] * 6]
    assert x["starts"] == [[-1] * 5 + [5, -1], [-1] * 3 + [0, 6, -1]]


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_in_a_graph_as_outside_of_it(family: str, tokenizers: dict[str, Any]) -> None:
    parts = [ragged([[11, 12], [], [13]]), ragged([[21], [22, 23], []])]
    graph = tf.function(lambda a, b: packing.packed(tokenizers[family], [a, b]), autograph=False)
    assert lists(graph(*parts)) == lists(packing.packed(tokenizers[family], parts))


def test_the_contexts_row_is_the_one_that_tokenizing_gives_for_a_text(tokenizers: dict[str, Any]) -> None:
    for tokenizer in tokenizers.values():
        ids = tf.function(lambda t, tokenizer=tokenizer: tokenizing.bare_ids(tokenizer, t, ()), autograph=False)
        texts = ["the movie was good", "", "bad !"]
        x = packing.packed(tokenizer, [ids(tf.constant(texts))])
        assert lists(x) == lists(tokenizing.encode(tokenizer, texts)[0])


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 60)), min_size=1, max_size=3),
    max_length=st.integers(8, 30),
)
@example(sizes=[(3, 2000), (300, 700), (0, 0)], max_length=512)
@example(sizes=[(40, 40), (1, 4)], max_length=8)
def test_windows_lose_nothing_of_the_last_text(
    family: str, sizes: list[tuple[int, int]], max_length: int, tokenizers: dict[str, Any]
) -> None:
    separators, end = SEPARATORS[family], tokenizing.special_ids(tokenizers[family])[1]
    x, prefix, heads = pairs(tokenizers[family], family, sizes)
    made = packing.windows(x, prefix, tokenizers[family], max_length)
    row, begin, cut = made.row.numpy(), made.begin.numpy(), lists(made.x)
    assert row.tolist() == sorted(row)
    assert set(row) == set(range(len(sizes)))
    for number, ((_, size), head) in enumerate(zip(sizes, heads, strict=True)):
        kept = min(len(head), max_length // 2)
        opening = head if kept == len(head) else [*head[: kept - separators], *[end] * separators]
        room = max_length - kept - 1
        bodies = []
        for window in np.flatnonzero(row == number):
            ids = cut["token_ids"][window]
            assert len(ids) <= max_length
            assert ids[:kept] == opening
            assert ids[-1] == end
            bodies.append(ids[kept:-1])
            assert bodies[-1] == list(range(SECOND + begin[window], SECOND + begin[window] + len(bodies[-1])))
            assert cut["places"][window] == [-1] * kept + [i - SECOND for i in bodies[-1]] + [-1]
            assert cut["padding_mask"][window] == [1] * len(ids)
            assert cut["segment_ids"][window] == [0] * kept + [1] * (len(ids) - kept)
        assert {i for body in bodies for i in body} == set(range(SECOND, SECOND + size))
        assert len(bodies) == 1 or all(bodies)
        assert all(len(body) == room for body in bodies[:-1])
        shared = [len(set(one) & set(other)) for one, other in itertools.pairwise(bodies)]
        assert shared == [min(packing.OVERLAP, room // 3)] * (len(bodies) - 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_that_fits_is_one_window_as_it_was(family: str, tokenizers: dict[str, Any]) -> None:
    x, prefix, _ = pairs(tokenizers[family], family, [(3, 5), (0, 0), (1, 1)])
    fits = int(x["token_ids"].row_lengths().numpy().max())
    made = packing.windows(x, prefix, tokenizers[family], fits + 6)
    assert made.row.numpy().tolist() == [0, 1, 2]
    assert made.begin.numpy().tolist() == [0, 0, 0]
    assert lists(made.x) == lists(x)


def test_windows_by_hand(tokenizers: dict[str, Any]) -> None:
    x = packing.packed(tokenizers["bert"], [ragged([[11, 12, 13, 14, 15], [21, 22, 23, 24, 25, 26, 27, 28]])])
    made = packing.windows(x, tf.constant([1, 1]), tokenizers["bert"], 5)  # room for 3, neighbours share 1
    assert made.row.numpy().tolist() == [0, 0, 1, 1, 1, 1]
    assert made.begin.numpy().tolist() == [0, 2, 0, 2, 4, 6]
    assert made.x["token_ids"].to_list() == [
        [2, 11, 12, 13, 3],
        [2, 13, 14, 15, 3],
        [2, 21, 22, 23, 3],
        [2, 23, 24, 25, 3],
        [2, 25, 26, 27, 3],
        [2, 27, 28, 3],
    ]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("bert", [2, FIRST, FIRST + 1, FIRST + 2, 3, SECOND, SECOND + 1, SECOND + 2, SECOND + 3, 3]),
        ("roberta", [0, FIRST, FIRST + 1, 2, 2, SECOND, SECOND + 1, SECOND + 2, SECOND + 3, 2]),
    ],
)
def test_a_prefix_longer_than_half_is_cut_before_its_separators(
    family: str, expected: list[int], tokenizers: dict[str, Any]
) -> None:
    x, prefix, _ = pairs(tokenizers[family], family, [(20, 9)])
    windows = packing.windows(x, prefix, tokenizers[family], 10).x["token_ids"].to_list()
    assert windows[0] == expected
    assert all(window[:5] == expected[:5] for window in windows)


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=80)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=4),
    max_length=st.integers(6, 40),
)
def test_the_longer_text_of_a_pair_is_cut_first(
    family: str, sizes: list[tuple[int, int]], max_length: int, tokenizers: dict[str, Any]
) -> None:
    tokenizer, separators = tokenizers[family], SEPARATORS[family]
    start, end, _ = tokenizing.special_ids(tokenizer)
    x, _, _ = pairs(tokenizer, family, sizes)
    cut = lists(packing.longest_first(x, tf.constant([a for a, _ in sizes]), tokenizer, max_length))
    for number, (first, second) in enumerate(sizes):
        ids = cut["token_ids"][number]
        special = 1 + separators + 1
        assert len(ids) == min(max_length, first + second + special)
        kept, other = (sum(low <= i < high for i in ids) for low, high in ((FIRST, SECOND), (SECOND, 2 * SECOND)))
        head = [start, *range(FIRST, FIRST + kept), *[end] * separators]
        assert ids == [*head, *range(SECOND, SECOND + other), end]
        assert cut["places"][number] == [-1] * len(head) + list(range(other)) + [-1]
        assert cut["segment_ids"][number] == [0] * len(head) + [1] * (other + 1)
        # what lost tokens is not shorter than the other, but for one that cannot be halved
        assert kept == first or kept >= other - 1
        assert other == second or other >= kept - 1


def test_dense_rows_are_filled_up(tokenizers: dict[str, Any]) -> None:
    x = {"token_ids": ragged([[5], [6, 7]]), "starts": ragged([[0], [0, 3]]), "row": tf.constant([0, 1])}
    dense = packing.dense(x, tokenizing.paddings(tokenizers["roberta"]))
    assert dense["token_ids"].numpy().tolist() == [[5, 1], [6, 7]]
    assert dense["starts"].numpy().tolist() == [[0, -1], [0, 3]]
    assert dense["row"].numpy().tolist() == [0, 1]
