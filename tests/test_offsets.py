"""Pieces and units stand where they say: in order, inside the text, and as Python's own slices of it."""

import itertools
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import KEPT, WORDS, build
from tfft import offsets

TOKENIZERS = ("bert", "roberta", "albert")  # WordPiece, byte-pair, SentencePiece
STRINGS = [tf.TensorSpec([None], tf.string)]
ODD = (
    *(
        "\u00e9",
        "e\u0301",
        "caf\u00e9",
        "Stra\u00dfe",
        "\ufb01lm",
        "\u0130",
        "\U0001f600",
        "\U0001f468\u200d\U0001f469",
    ),
    *(" ", "  ", "\t", "\n", "\u00a0", "\u3000", "\u200b", "\ufeff", "\x00", "\u5305\u88f9", "\uff0c", "\u3001ok"),
    *("don't", "...", "[UNK]", "<s>", "##s", "\u2581", "MOVIE", "\uff21\uff22", "\u00bd", "\u1e9b\u0323"),
)
PARTS = st.sampled_from((*WORDS, *ODD, " ", " ")) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
TEXTS = st.lists(PARTS, max_size=10).map("".join)

Graph = Callable[[list[str]], Any]


def is_space(character: str) -> bool:
    return unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = {family: build(family, tmp_path_factory.mktemp(family))[1] for family in TOKENIZERS}
    KEPT.extend(made.values())
    return made


@pytest.fixture(scope="module")
def graphs(tokenizers: dict[str, Any]) -> dict[str, Graph]:
    """family -> texts to pieces, traced once."""

    def graph(tokenizer: Any) -> Graph:
        traced = tf.function(
            lambda t: offsets.pieces(tokenizer, offsets.valid(t)), input_signature=STRINGS, autograph=False
        )
        return lambda texts: traced(tf.constant(texts, tf.string))

    return {family: graph(tokenizer) for family, tokenizer in tokenizers.items()}


_units = tf.function(lambda t: offsets.units(offsets.valid(t)), input_signature=STRINGS, autograph=False)


def units_of(texts: list[str]) -> list[list[tuple[int, int]]]:
    found = (side.to_list() for side in _units(tf.constant(texts, tf.string)))
    return [list(zip(*row, strict=True)) for row in zip(*found, strict=True)]


@pytest.mark.parametrize("family", TOKENIZERS)
@settings(deadline=None, max_examples=60)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
@example(texts=["\ufeffgood", "a\u0301\u0302", ""])
@example(texts=["", "\x00good\x00bad", " \t "])
@example(texts=["\ufb01\u0301 \uff21\u0300b \u1e9b\u0323"])
def test_pieces_stand_in_the_text_and_in_order(family: str, texts: list[str], graphs: dict[str, Graph]) -> None:
    found = graphs[family](texts)
    assert found.ids.nrows() == len(texts)
    for text, starts, ends in zip(texts, found.starts.to_list(), found.ends.to_list(), strict=True):
        assert all(0 <= start <= end <= len(text) for start, end in zip(starts, ends, strict=True))
        assert starts == sorted(starts)
        assert ends == sorted(ends)


@settings(deadline=None, max_examples=100)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
def test_no_piece_of_words_reaches_over_a_space_and_no_letter_is_lost(
    texts: list[str], graphs: dict[str, Graph]
) -> None:
    found = graphs["bert"](texts)
    for text, starts, ends in zip(texts, found.starts.to_list(), found.ends.to_list(), strict=True):
        assert all(start < end for start, end in zip(starts, ends, strict=True))
        standing = "".join(text[start:end] for start, end in zip(starts, ends, strict=True))
        assert not any(is_space(character) for character in standing)
        covered = {place for start, end in zip(starts, ends, strict=True) for place in range(start, end)}
        assert covered >= {place for place, character in enumerate(text) if character.isascii() and character.isalnum()}


@pytest.mark.parametrize(
    ("family", "text", "expected"),
    [
        ("bert", "The MOVIE was good", ["The", "MOVIE", "was", "good"]),
        ("bert", "movies, GOODX!", ["movie", "s", ",", "GOOD", "X", "!"]),
        ("bert", "\u00e9\tcaf\u00e9", ["\u00e9", "caf\u00e9"]),
        ("bert", "Stra\u00dfe", ["Stra\u00dfe"] * 7),  # becomes strasse, a letter longer: every piece has the word
        ("bert", "good\U0001f600 bad", ["good\U0001f600", "bad"]),
        ("bert", "\U0001f600\tbad", ["\U0001f600", "bad"]),
        ("bert", "a\tb\n good", ["a", "b", "good"]),
        ("bert", "\u5305\u88f9\uff0cok", ["\u5305", "\u88f9", "\uff0c", "o", "k"]),
        ("bert", "don't", ["d", "o", "n", "'", "t"]),
        ("bert", "good\x00bad", ["good", "bad"]),
        ("bert", "", []),
        ("bert", " \t\u3000", []),
        ("roberta", "the movie was good", ["the", "", "movie", "", "was", "", "good"]),
        ("roberta", "\u00e9\tcaf\u00e9", ["\u00e9", "\u00e9", "", "c", "a", "f", "\u00e9", "\u00e9"]),
        ("roberta", "Stra\u00dfe", ["S", "t", "r", "a", "\u00df", "\u00df", "e"]),
        ("roberta", "good\U0001f600 bad", ["good", *["\U0001f600"] * 4, "", "bad"]),
        ("roberta", "\u5305\uff0cok", [*["\u5305"] * 3, *["\uff0c"] * 3, "o", "k"]),
        ("roberta", "  ", []),
        ("albert", "was good", ["w", "a", "s", "g", "oo", "d"]),
        ("albert", "\u00e9\tcaf\u00e9", ["\u00e9", "\u00e9", *["caf\u00e9"] * 5]),
        ("albert", "good\U0001f600 bad", [*["good\U0001f600"] * 4, "", "b", "a", "d"]),
        ("albert", "", []),
    ],
)
def test_pieces_by_hand(family: str, text: str, expected: list[str], graphs: dict[str, Graph]) -> None:
    found = graphs[family](["movie good", text, "good"])  # between others, whose places are none of its own
    starts, ends = found.starts[1].numpy(), found.ends[1].numpy()
    substrings = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    if family == "roberta":  # whether a space is a piece of its own is up to the merges
        substrings, expected = ([piece for piece in side if piece] for side in (substrings, expected))
    assert substrings == expected


@pytest.mark.parametrize("family", TOKENIZERS)
def test_equal_substrings_have_places_of_their_own(family: str, graphs: dict[str, Graph]) -> None:
    found = graphs[family](["good bad good"])
    places = set(zip(found.starts[0].numpy().tolist(), found.ends[0].numpy().tolist(), strict=True))
    if family == "albert":
        assert {(0, 1), (1, 3), (3, 4), (9, 10), (10, 12), (12, 13)} <= places
    else:
        assert {(0, 4), (5, 8), (9, 13)} <= places


@pytest.mark.parametrize("family", TOKENIZERS)
@settings(deadline=None, max_examples=30)
@given(
    words=st.lists(st.sampled_from((*WORDS, "caf\u00e9", "good,", "don't", "Film", "(very)", "\U0001f600", "\u5305")))
)
def test_ids_are_those_of_the_whole_text(
    family: str, words: list[str], graphs: dict[str, Graph], tokenizers: dict[str, Any]
) -> None:
    text = " ".join(words)
    whole = tokenizers[family](tf.constant([text, "a"]))  # two, since some drop the axis of one
    whole = whole.to_list() if isinstance(whole, tf.RaggedTensor) else [list(row) for row in whole]
    assert graphs[family]([text]).ids.to_list() == whole[:1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("don't http://a.b/c?d=1, (yes)!", ["don't", "http://a.b/c?d=1", ",", "(", "yes", ")", "!"]),
        ("\u5305\u88f9\uff0cok", ["\u5305", "\u88f9", "\uff0c", "ok"]),
        ("ok\u3002\u5305x", ["ok", "\u3002", "\u5305", "x"]),
        ("The U.S.A. won.", ["The", "U.S.A", ".", "won", "."]),
        ("\u00abcaf\u00e9\u00bb\t\u2014\nwell-known", ["\u00ab", "caf\u00e9", "\u00bb", "\u2014", "well-known"]),
        ("?!...", ["?", "!", ".", ".", "."]),
        ("a\u200bb\u00a0c", ["a", "b", "c"]),
        ("good\U0001f600 \U0001f600!", ["good\U0001f600", "\U0001f600", "!"]),
        ("'a' b", ["'", "a", "'", "b"]),
        ("", []),
        (" \n", []),
    ],
)
def test_units_by_hand(text: str, expected: list[str]) -> None:
    # between texts that it would touch if they were one
    before, found, after = units_of(["a.", text, "b"])
    assert [text[start:end] for start, end in found] == expected
    assert before == [(0, 1), (1, 2)]
    assert after == [(0, 1)]


@settings(deadline=None, max_examples=150)
@given(texts=st.lists(st.lists(PARTS, max_size=8).map("".join), min_size=1, max_size=3))
@example(texts=["\ufeffa", "\x00", "\x85\u2028b"])
@example(texts=["\u5305\u3000\u88f9"])  # the space of wide characters
def test_units_are_apart_in_order_and_hold_all_but_spaces(texts: list[str]) -> None:
    for text, found in zip(texts, units_of(texts), strict=True):
        assert all(start < end for start, end in found)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(found))
        covered = [place for start, end in found for place in range(start, end)]
        # Python's Unicode may be older than TensorFlow's: what it does not know yet may be anything
        known = [place for place in covered if unicodedata.category(text[place]) != "Cn"]
        wanted = [p for p, c in enumerate(text) if not is_space(c) and unicodedata.category(c) != "Cn"]
        assert known == wanted


@settings(deadline=None, max_examples=100)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    places=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)) | st.just((-1, -1)), min_size=1, max_size=4),
)
def test_substrings_are_pythons_slices(text: str, places: list[tuple[int, int]]) -> None:
    starts, ends = zip(*places, strict=True)
    expected = [text[start:end] if start >= 0 else "" for start, end in places]
    several = offsets.substrings(tf.constant([text, ""]), tf.constant([starts, starts]), tf.constant([ends, ends]))
    one_each = offsets.substrings(tf.constant([text] * len(places)), tf.constant(starts), tf.constant(ends))
    assert [[value.decode() for value in row] for row in several.numpy()] == [expected, [""] * len(places)]
    assert [value.decode() for value in one_each.numpy()] == expected
