"""Text cleaning: small functions from a string tensor to a string tensor.

They are TensorFlow ops, so the same function runs before training, at prediction and inside the exported graph.
Off unless asked; the names asked for are saved with the run. A pretrained encoder was trained on raw text and seldom
gains from cleaning: `docs/data.md` shows what each does to accuracy.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_text as tf_text

from tfft.errors import InvalidValueError

# The entities that make up nearly all of the HTML remains in text scraped from the web. RE2 cannot decode
# arbitrary numeric entities inside a graph: those become a space.
_ENTITIES = (
    ("&nbsp;", " "),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", '"'),
    ("&(?:apos|#0?39|#x27);", "'"),
    ("&(?:mdash|#8212);", "\N{EM DASH}"),
    ("&(?:ndash|#8211);", "\N{EN DASH}"),
    ("&(?:hellip|#8230);", "..."),
    # any other, "amp" left out
    ("&(?:#[A-Za-z0-9]{2,8}|[A-Za-z0-9]{2}|[A-Za-z0-9]{4,8}|[^\\Wa_][^\\W_]{2}|a[^\\Wm_][^\\W_]|am[^\\Wp_]);", " "),
    ("&amp;", "&"),
)


def unicode(text: tf.Tensor) -> tf.Tensor:
    """Unicode normal form NFKC: full-width letters, ligatures and composed accents get one spelling."""
    return tf_text.normalize_utf8(text, "NFKC")


def html(text: tf.Tensor) -> tf.Tensor:
    """Drop tags such as `<br />` and decode the common entities."""
    text = tf.strings.regex_replace(text, r"</?[A-Za-z][^<>]*>", " ")
    # "&amp;lt;" is a text about HTML, so the ampersand itself is decoded last.
    for pattern, replacement in _ENTITIES:
        text = tf.strings.regex_replace(text, pattern, replacement)
    return text


def control(text: tf.Tensor) -> tf.Tensor:
    """Replace control characters, except tab and line breaks, with a space."""
    return tf.strings.regex_replace(text, r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x{80}-\x{9f}]", " ")


def whitespace(text: tf.Tensor) -> tf.Tensor:
    """Collapse every run of white space to one space and strip both ends."""
    return tf.strings.strip(tf.strings.regex_replace(text, r"[\s\v\pZ]+", " "))


def stopwords(text: tf.Tensor) -> tf.Tensor:
    """Remove English stop words (scikit-learn's list). It takes "not" and "never" away too: see docs/data.md."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    words = "|".join(sorted(ENGLISH_STOP_WORDS, key=lambda w: (-len(w), w)))
    # RE2's \b knows ASCII letters only: each word is set off by spaces, and looked for between characters of no word.
    edge = r"[^\pL\pM\pN_]"
    for _ in range(2):  # neighbours share the character between them
        text = tf.strings.regex_replace(text, rf"(?i)(^|{edge})(?:{words})($|{edge})", r"\1\2")
    return whitespace(text)


CLEANERS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "unicode": unicode,
    "html": html,
    "control": control,
    "whitespace": whitespace,
    "stopwords": stopwords,
}


def clean(text: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
    """Apply the named cleaners in the order given.

    Args:
        text: strings of any shape, UTF-8.
        names: keys of `CLEANERS`; an empty sequence returns the text as it is.

    Raises:
        InvalidValueError: a name that is not a cleaner.

    Examples:
        >>> import tensorflow as tf
        >>> from tfft.cleaning import clean
        >>> clean(tf.constant(["a<br />b &amp;  c"]), ["html", "whitespace"]).numpy()
        array([b'a b & c'], dtype=object)
    """
    for name in names:
        if name not in CLEANERS:
            raise InvalidValueError(f"unknown cleaning step {name!r}. Expected some of: {', '.join(CLEANERS)}")
        text = CLEANERS[name](text)
    return text
