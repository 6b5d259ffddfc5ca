"""Hidden words: whole ones, about 15 % of a text, never a special token, and drawn anew by every generator."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import KEPT, build
from tfft import masking, tokenizing
from tfft.errors import InvalidValueError
from tfft.guessing import GIVEN

START, END, MASK, PAD = 1, 2, 3, 0
ORDINARY = np.arange(10, 60)
# of each row its words, of each word the ids of its pieces
WORDS = st.lists(st.lists(st.sampled_from(ORDINARY.tolist()), min_size=1, max_size=6), max_size=30)
ROWS = st.lists(WORDS, min_size=1, max_size=6)


def dense(rows: list[list[list[int]]], headless: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rows between start and end token, padded: ids, and the number of the word that begins at a piece.

    Args:
        rows: words of pieces.
        headless: the rows go on with a word that began before them, as a window may.
    """
    flat = [[START, *(piece for word in words for piece in word), END] for words in rows]
    first = [
        [-1, *(n if i == 0 else -1 for n, word in enumerate(words) for i in range(len(word))), -1] for words in rows
    ]
    if headless:
        first = [[-1 if n == 0 else n for n in row] for row in first]
    size = max(map(len, flat))
    ids, starts = ([[*row, *[fill] * (size - len(row))] for row in value] for value, fill in ((flat, PAD), (first, -1)))
    return np.array(ids, "int32"), np.array(starts, "int32")


def hide(ids: np.ndarray, first: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return masking.hide(ids, first, MASK, ORDINARY, np.random.default_rng(seed))


@given(rows=ROWS, headless=st.booleans(), seed=st.integers(0, 2**32))
@example(rows=[[], [[10, 11, 12]], [[13]] * 20], headless=False, seed=0)
@example(rows=[[[10, 11, 12]]], headless=True, seed=0)  # nothing of it may be hidden
def test_whole_words_are_hidden_and_no_more_than_their_share(
    rows: list[list[list[int]]], headless: bool, seed: int
) -> None:
    ids, first = dense(rows, headless)
    shown, hidden = hide(ids, first, seed)
    assert shown.dtype == hidden.dtype == np.int32
    assert shown.shape == hidden.shape == ids.shape
    is_hidden = hidden != GIVEN
    np.testing.assert_array_equal(shown[~is_hidden], ids[~is_hidden])
    np.testing.assert_array_equal(hidden[is_hidden], ids[is_hidden])
    assert np.isin(hidden[is_hidden], ORDINARY).all()
    assert np.isin(shown[is_hidden], [MASK, *ORDINARY]).all()
    for row, words in enumerate(rows):
        ends = np.cumsum([1, *map(len, words)])
        whole = [is_hidden[row, begin:end] for begin, end in itertools.pairwise(ends)]
        assert all(part.all() or not part.any() for part in whole)
        asked = whole[1:] if headless else whole
        pieces, chosen = sum(map(len, asked)), [len(part) for part in asked if part.any()]
        assert is_hidden[row].sum() == sum(chosen)
        if pieces:
            assert len(chosen) == 1 or 0 < sum(chosen) <= round(0.15 * pieces)


def test_hidden_pieces_become_masks_or_any_piece_or_stay() -> None:
    ids, first = dense([[[piece] for piece in ORDINARY]] * 400)
    shown, hidden = hide(ids, first, 0)
    found = hidden != GIVEN
    assert found.sum() == 400 * round(0.15 * len(ORDINARY))
    same, masked = shown[found] == ids[found], shown[found] == MASK
    other = shown[found][~same & ~masked]
    assert masked.mean() == pytest.approx(0.8, abs=0.03)
    assert same.mean() == pytest.approx(0.1 + 0.1 / len(ORDINARY), abs=0.02)
    assert len(other) / found.sum() == pytest.approx(0.1, abs=0.02)
    assert set(other) == set(ORDINARY.tolist())  # any of them
    assert np.unique(hidden[found], return_counts=True)[1].min() > 15  # no word is spared


def test_another_draw_hides_other_words_and_the_same_seed_the_same() -> None:
    ids, first = dense([[[piece] for piece in ORDINARY]] * 3)
    generator = np.random.default_rng(5)
    one, two = (masking.hide(ids, first, MASK, ORDINARY, generator) for _ in range(2))
    assert (one[1] != two[1]).any()
    assert (hide(ids, first, 6)[1] != hide(ids, first, 7)[1]).any()
    np.testing.assert_array_equal(hide(ids, first, 6), hide(ids, first, 6))
    assert len({tuple(row) for row in one[1] == GIVEN}) == 3  # and in every row others


@pytest.mark.parametrize("family", ["bert", "roberta", "albert"])
def test_ordinary_pieces_are_all_but_the_special_ones(family: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    _, tokenizer = build(family, tmp_path_factory.mktemp(family))
    KEPT.append(tokenizer)
    mask, ordinary = masking.mask_id(tokenizer), masking.ordinary_ids(tokenizer)
    assert tokenizer.id_to_token(mask) == tokenizer.mask_token
    left_out = set(range(tokenizer.vocabulary_size())) - set(ordinary.tolist())
    assert left_out == {mask, *tokenizing.special_ids(tokenizer)}


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    class Generator:
        mask_token_id: Any = None

    line = (
        "words are hidden behind a mask token, and Generator has none. Take a backbone that was pretrained with hidden "
        "words; `tfft backbones` lists such"
    )
    with pytest.raises(InvalidValueError, match=f"^{line}$"):
        masking.mask_id(Generator())
