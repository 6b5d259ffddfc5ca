"""What each cleaner does to a text, in a graph as outside of one."""

import re

import pytest
import tensorflow as tf

from tfft.cleaning import CLEANERS, clean
from tfft.errors import InvalidValueError
from tfft.recipe import CLEANING

EMOJI, CHINESE, INVALID = "caf\u00e9 \U0001f600", "\u4f60\u597d\uff0c\u4e16\u754c", b"bad \xff\xfe byte"

# name -> (text, what becomes of it)
CASES: dict[str, list[tuple[str | bytes, str | bytes]]] = {
    "unicode": [
        ("", ""),
        ("plain ASCII", "plain ASCII"),
        ("\uff21\uff22\uff43\uff11", "ABc1"),
        ("\ufb01ne", "fine"),
        ("cafe\u0301", "caf\u00e9"),
        ("a\u00a0b\u3000c", "a b c"),
        (EMOJI, EMOJI),
        (CHINESE, "\u4f60\u597d,\u4e16\u754c"),
        (INVALID, INVALID),
    ],
    "html": [
        ("", ""),
        ("a<br />b", "a b"),
        ('<p class="x">hi</p>', " hi "),
        ("two\n<a\nhref='x'>lines</a>", "two\n lines "),
        ("1 < 2 and 3 > 2, <3", "1 < 2 and 3 > 2, <3"),
        ("&lt;b&gt; &amp; &quot;q&quot; &apos;&#39;&#039;&#x27;", "<b> & \"q\" ''''"),
        ("a&nbsp;b", "a b"),
        ("&mdash;&#8212;&ndash;&#8211;&hellip;&#8230;", "\u2014\u2014\u2013\u2013......"),
        ("caf&eacute; &#233;&#xe9;", "caf    "),
        ("&amp;lt; and &amp;amp;", "&lt; and &amp;"),  # a text about HTML: the ampersand is decoded last
        ("fish & chips; AT&T", "fish & chips; AT&T"),
        (EMOJI, EMOJI),
        (CHINESE, CHINESE),
        (INVALID, INVALID),
        (b"\xff <b>x</b> \xfe &amp;", b"\xff  x  \xfe &"),
    ],
    "control": [
        ("", ""),
        ("a\x00b\x07c\x7fd\u0085e\u009ff", "a b c d e f"),
        ("tab\tline\nreturn\r", "tab\tline\nreturn\r"),
        (EMOJI, EMOJI),
        (CHINESE, CHINESE),
        (INVALID, INVALID),
    ],
    "whitespace": [
        ("", ""),
        (" \t\n", ""),
        ("  a \t b\n\nc\r\nd ", "a b c d"),
        ("\u00a0a\u00a0\u3000b\u2003c\u2028d\u2029", "a b c d"),
        ("a\x0bb\x0cc", "a b c"),
        (EMOJI, EMOJI),
        (CHINESE, CHINESE),
        (INVALID, INVALID),
    ],
    "stopwords": [
        ("", ""),
        ("the and of", ""),
        ("This is NOT the best film", "best film"),
        ("An apple, and a pear.", "apple, pear."),
        ("theatre andes island", "theatre andes island"),
        ("se\u00f1or", "se\u00f1or"),  # "or" is a stop word, but here no word
        (EMOJI, EMOJI),
        (CHINESE, CHINESE),
        (INVALID, INVALID),
    ],
}


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8")


TABLE = [(name, _bytes(text), _bytes(cleaned)) for name, cases in CASES.items() for text, cleaned in cases]


@pytest.mark.parametrize(("name", "text", "cleaned"), TABLE)
def test_cleaner(name: str, text: bytes, cleaned: bytes) -> None:
    assert clean(tf.constant([text]), [name]).numpy().tolist() == [cleaned]


def test_every_cleaner_is_tested_and_known_to_the_recipe() -> None:
    assert tuple(CASES) == tuple(CLEANERS) == CLEANING


@pytest.mark.parametrize("name", CLEANERS)
def test_graph_gives_the_eager_result(name: str) -> None:
    texts = tf.constant([text for _, text, _ in TABLE])
    graph = tf.function(lambda x: clean(x, [name]), input_signature=[tf.TensorSpec([None], tf.string)])
    assert graph(texts).numpy().tolist() == clean(texts, [name]).numpy().tolist()


@pytest.mark.parametrize("name", CLEANERS)
def test_shape_is_kept(name: str) -> None:
    assert clean(tf.constant("a b"), [name]).shape == []
    assert clean(tf.constant([["a", "b"], ["c", "d"]]), [name]).shape == [2, 2]
    assert clean(tf.constant([], tf.string), [name]).shape == [0]


@pytest.mark.parametrize(
    ("names", "cleaned"),
    [
        ([], b" a&nbsp;&nbsp;<i>b</i> "),
        (["html", "whitespace"], b"a b"),
        (["whitespace", "html"], b"a   b "),
        (("html", "stopwords"), b"b"),
    ],
)
def test_cleaners_are_applied_in_the_order_given(names: list[str], cleaned: bytes) -> None:
    assert clean(tf.constant([" a&nbsp;&nbsp;<i>b</i> "]), names).numpy().tolist() == [cleaned]


@pytest.mark.parametrize("names", [["lower"], ["html", "lower"]])
def test_unknown_name_is_refused(names: list[str]) -> None:
    message = "unknown cleaning step 'lower'. Expected some of: unicode, html, control, whitespace, stopwords"
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        clean(tf.constant(["a"]), names)
