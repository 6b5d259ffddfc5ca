"""The pieces a decoder writes in: a SentencePiece vocabulary learnt from the training targets.

Every text can be written: a character without a piece is spelled in bytes. What was learnt is plain data, kept among a
run's facts.
"""

import base64
import collections
import functools
import io
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfft.errors import DataError
from tfft.examples import Ragged

PAD, UNKNOWN, START, END = 0, 1, 2, 3
BYTES = 256
SPACE = "\u2581"  # what SentencePiece writes for a space
LEAST = 4 + BYTES  # pieces that are there before any is learnt


def learn(texts: Sequence[str], size: int) -> str:
    """Learn a vocabulary from texts by byte pair encoding.

    Args:
        texts: the training targets.
        size: pieces, at most; fewer where the texts have no more.

    Returns:
        SentencePiece's own file, in base 64.

    Raises:
        DataError: there is no character in the texts, or one text has more than SentencePiece takes.

    Examples:
        >>> from tfft import vocabulary
        >>> model = vocabulary.learn(["ein Hund", "ein Haus"], 300)
        >>> vocabulary.decoded(model, [vocabulary.encoded(model, ["ein Huhn\u00e9"]).values])
        ['ein Huhn\u00e9']
    """
    import sentencepiece

    if not any(text.strip() for text in texts):
        raise DataError("expected training targets of some words. All of them are empty")
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=written,
            model_type="bpe",
            vocab_size=size,
            hard_vocab_limit=False,
            byte_fallback=True,
            character_coverage=_coverage(texts, (size - LEAST) // 2),
            normalization_rule_name="identity",  # what is written is what was there
            remove_extra_whitespaces=False,
            max_sentence_length=2**20,
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=START,
            eos_id=END,
            minloglevel=2,
            num_threads=1,  # the same pieces on every machine
        )
    except RuntimeError as error:
        raise DataError(f"no vocabulary of {size} pieces can be learnt from the targets: {error}") from None
    return base64.b64encode(written.getvalue()).decode("ascii")


def _coverage(texts: Sequence[str], most: int) -> float:
    """The share of all characters that the most frequent ones make up: rare ones, of Chinese, are spelled in bytes."""
    counts = [count for _, count in collections.Counter(itertools.chain.from_iterable(texts)).most_common()]
    share = 1.0 if len(counts) <= max(most, 1) else sum(counts[: max(most, 1)]) / sum(counts) - 1e-6
    return max(share, 0.98)  # SentencePiece takes no less


@functools.lru_cache(maxsize=4)
def _processor(model: str) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=base64.b64decode(model))


def size(model: str) -> int:
    """How many pieces there are."""
    return int(_processor(model).vocab_size())


def encoded(model: str, texts: Sequence[str]) -> Ragged:
    """The ids of texts, without special ones: int32, of a length of their own."""
    ids = _processor(model).encode(list(texts), num_threads=1)
    lengths = np.array([len(row) for row in ids], int)
    flat = np.fromiter((piece for row in ids for piece in row), "int32", int(lengths.sum()))
    return Ragged(flat, np.cumsum(lengths) - lengths, lengths, own=True)


def decoded(model: str, ids: Sequence[Sequence[int]]) -> list[str]:
    """Texts of ids, special ones left out."""
    return [str(text) for text in _processor(model).decode([[int(i) for i in row if i > END] for row in ids])]


@functools.cache  # TF-Text: two tokenizers of one model share tables that the first takes along
def tokenizer(model: str) -> Any:
    """The same as KerasHub's tokenizer, for graphs: ids are those of `encoded`."""
    import keras_hub

    with tf.init_scope():  # its tables outlive the graph that asks for it first
        return keras_hub.tokenizers.SentencePieceTokenizer(proto=base64.b64decode(model))


@functools.lru_cache(maxsize=4)
def pieces(model: str) -> list[bytes]:
    """What each piece adds to a text, in UTF-8; special ones nothing."""
    processor = _processor(model)
    found = []
    for number in range(processor.vocab_size()):
        piece = processor.id_to_piece(number)
        if processor.is_byte(number):
            found.append(bytes([int(piece[3:-1], 16)]))  # "<0xE4>"
        elif processor.is_control(number) or processor.is_unknown(number):
            found.append(b"")
        else:
            found.append(piece.replace(SPACE, " ").encode("utf-8"))
    return found


def written(model: str, ids: tf.Tensor) -> tf.Tensor:
    """`decoded` in graph operations: of ids (batch, length) strings (batch,).

    Bytes that are no UTF-8, as where a decoder stopped within a character, become U+FFFD.
    """
    parts = tf.gather(tf.constant(pieces(model)), ids)
    texts = tf.strings.reduce_join(parts, axis=1)
    texts = tf.strings.regex_replace(texts, "^ ", "")  # SentencePiece begins every text with a space
    return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
