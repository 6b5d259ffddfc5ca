"""Where the pieces of a tokenizer stand in the text, in characters of the text as it was given.

KerasHub's tokenizers give no offsets. So a text is split into words, whose places TF-Text gives; each word is tokenised
for itself; and its pieces are laid out one after another where their lengths add up to the word's. Where they do not
(lower-casing or normalising changed its length, or it is unknown), every piece of the word has the place of the word.
Graph operations that TensorFlow Serving has.
"""

import functools
from typing import Any, NamedTuple

import keras_hub
import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

SPACE = r"[\s\p{Z}\p{Cc}\p{Cf}]"
PUNCTUATION = r"[!-/:-@\[-`{-~\p{P}]"
CJK = r"[\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2CEAF}\x{2F800}-\x{2FA1F}]"
WIDE = r"[\x{3001}-\x{303F}\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF20}\x{FF3B}-\x{FF40}\x{FF5B}-\x{FF65}]"

UNKNOWN = -(2**20)  # length of a piece that says nothing about the text's


class Pieces(NamedTuple):
    """The pieces of texts, all ragged (batch, None) int32.

    Attributes:
        ids: token ids.
        starts: the character each begins with.
        ends: the character after it.
    """

    ids: tf.RaggedTensor
    starts: tf.RaggedTensor
    ends: tf.RaggedTensor


class _Characters(NamedTuple):
    """Where the characters of texts begin, in bytes; texts one after another, each a byte longer than it is."""

    begins: tf.Tensor  # (characters,)
    first: tf.Tensor  # (batch,): number of each text's first character
    bytes_before: tf.Tensor  # (batch,)


def valid(texts: tf.Tensor) -> tf.Tensor:
    """The texts as valid UTF-8 without NUL, which ends a text for TF-Text's WordPiece; as long as they were."""
    return tf.strings.regex_replace(tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8"), r"\x00", " ")


def pieces(tokenizer: Any, texts: tf.Tensor) -> Pieces:
    """Tokenise texts (batch,), from `valid`, and say where each piece stands.

    Meant for use inside a `tf.function`, as KerasHub's tokenizers are.
    """
    in_bytes = isinstance(tokenizer, keras_hub.tokenizers.BytePairTokenizer)
    by_punctuation = isinstance(tokenizer, keras_hub.tokenizers.WordPieceTokenizer)
    words, starts, ends = _split(texts, f"{PUNCTUATION}|{CJK}" if by_punctuation else "")
    row, word = words.value_rowids(), words.flat_values
    begin, end = starts.flat_values, ends.flat_values
    led = tf.zeros_like(begin)  # bytes before the word that are tokenised with it
    if in_bytes:  # a piece of theirs knows of the space before it
        led = tf.cast(begin > 0, tf.int64)
        word = tf.strings.join([tf.where(begin > 0, " ", ""), word])
    ids = tf.cast(tokenizer(word), tf.int32)
    counts, of = ids.row_lengths(), ids.value_rowids()
    sizes = tf.gather(tf.constant(_piece_lengths(tokenizer)), ids.flat_values)
    ends_in = tf.cumsum(sizes) - tf.gather(tf.cumsum(tf.math.segment_sum(sizes, of), exclusive=True), of)
    characters = _characters(texts)
    if in_bytes:  # they are bytes, and may cut through a character
        first = tf.gather(begin - led, of)
        low, high = tf.maximum(first + ends_in - sizes, tf.gather(begin, of)), first + ends_in
        places = (
            _numbers(characters, tf.gather(row, of), low, "right") - 1,
            _numbers(characters, tf.gather(row, of), high, "left"),
        )
    else:
        word_start = _numbers(characters, row, begin, "left")
        word_end = _numbers(characters, row, end, "left")
        total = tf.math.unsorted_segment_sum(sizes, of, tf.size(word))
        exact = tf.gather(total == word_end - word_start, of)
        low, high = tf.gather(word_start, of), tf.gather(word_end, of)
        places = tf.where(exact, low + ends_in - sizes, low), tf.where(exact, low + ends_in, high)
    per_row = tf.math.unsorted_segment_sum(counts, row, words.nrows())
    rows = tf.RaggedTensor.from_row_lengths(ids.flat_values, per_row)
    return Pieces(rows, *(rows.with_flat_values(tf.cast(place, tf.int32)) for place in places))


def units(texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """The words of texts as a person would tag them: their first characters and those after them, (batch, None) int32.

    What stands between spaces is one word, without the punctuation at its two ends, of which each mark is a word; so
    are Chinese characters and their marks.
    """
    words, starts, ends = _split(texts, f"{PUNCTUATION}|{CJK}|{WIDE}")
    row, begin, end = words.value_rowids(), starts.flat_values, ends.flat_values
    single = tf.strings.regex_full_match(words.flat_values, f"{CJK}|{WIDE}")
    mark = tf.strings.regex_full_match(words.flat_values, PUNCTUATION)
    # What touches and is of one row is one chunk.
    touches = tf.concat([[False], (begin[1:] == end[:-1]) & (row[1:] == row[:-1])], 0)[: tf.size(begin)]
    chunk = tf.cumsum(tf.cast(~touches, tf.int32)) - 1
    place, number = tf.range(tf.size(chunk)), tf.reduce_max(tf.concat([chunk, [-1]], 0)) + 1
    none = tf.size(chunk)
    first = tf.math.unsorted_segment_min(tf.where(mark, none, place), chunk, number)
    last = tf.math.unsorted_segment_max(tf.where(mark, -1, place), chunk, number)
    inside = (place > tf.gather(first, chunk)) & (place <= tf.gather(last, chunk))  # not among the marks at its ends
    after_single = tf.concat([[False], single[:-1]], 0)[: tf.size(begin)]
    opens = ~(touches & inside) | single | after_single
    of = tf.cumsum(tf.cast(opens, tf.int32)) - 1
    characters = _characters(texts)
    count = tf.reduce_sum(tf.cast(opens, tf.int32))
    low = tf.boolean_mask(_numbers(characters, row, begin, "left"), opens)
    high = tf.math.unsorted_segment_max(_numbers(characters, row, end, "left"), of, count)
    per_row = tf.math.unsorted_segment_sum(tf.cast(opens, tf.int64), row, words.nrows())
    found = tf.RaggedTensor.from_row_lengths(low, per_row)
    return found, found.with_flat_values(high)


def substrings(texts: tf.Tensor, starts: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """The characters from `starts` to before `ends` of each text; all (batch,), or (batch, n) for several of a text."""
    size = tf.strings.length(texts, "UTF8_CHAR")
    if starts.shape.rank == 2:
        texts = tf.tile(texts[:, tf.newaxis], [1, tf.shape(starts)[1]])
        size = size[:, tf.newaxis]
    low = tf.clip_by_value(starts, 0, size)
    return tf.strings.substr(texts, low, tf.maximum(ends - low, 0), "UTF8_CHAR")


def _split(texts: tf.Tensor, kept: str) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    """Words between spaces, and by themselves what `kept` matches; with their places in bytes."""
    found = tf_text.regex_split_with_offsets(texts, f"{SPACE}|{kept}" if kept else SPACE, kept)
    return found[0], found[1], found[2]


def _characters(texts: tf.Tensor) -> _Characters:
    _, begins = tf.strings.unicode_decode_with_offsets(texts, "UTF-8")
    sizes = tf.cast(tf.strings.length(texts), tf.int64) + 1
    before = tf.cumsum(sizes, exclusive=True)
    flat = begins.flat_values + tf.gather(before, begins.value_rowids())
    return _Characters(flat, tf.cast(begins.row_splits[:-1], tf.int32), before)


def _numbers(characters: _Characters, row: tf.Tensor, byte: tf.Tensor, side: str) -> tf.Tensor:
    """How many characters of its text begin before a byte ("left"), or before the next one ("right"): int32."""
    place = byte + tf.gather(characters.bytes_before, row)
    return tf.searchsorted(characters.begins, place, side=side) - tf.gather(characters.first, row)


@functools.lru_cache(maxsize=4)
def _piece_lengths(tokenizer: Any) -> np.ndarray:
    """Length of each piece: of a byte-pair tokenizer's in bytes, else in characters of the text that it stands for."""
    if isinstance(tokenizer, keras_hub.tokenizers.BytePairTokenizer):
        by_id = np.zeros(max(tokenizer.vocabulary.values()) + 1, "int64")
        by_id[list(tokenizer.vocabulary.values())] = [len(piece) for piece in tokenizer.vocabulary]
        return by_id
    vocabulary = tokenizer.get_vocabulary()
    if isinstance(tokenizer, keras_hub.tokenizers.WordPieceTokenizer):
        suffix = tokenizer.suffix_indicator
        lengths = [UNKNOWN if _is_special(piece) else len(piece.removeprefix(suffix)) for piece in vocabulary]
    else:
        lengths = [UNKNOWN if _is_special(piece) else len(piece.replace("\u2581", "")) for piece in vocabulary]
    return np.array(lengths, "int32")


def _is_special(piece: str) -> bool:
    """`[UNK]`, `<unk>`, `<0x0A>`: no characters of a text."""
    return len(piece) > 2 and (piece[0] + piece[-1]) in ("[]", "<>")
