"""Strings -> token ids -> the inputs of a backbone, in graph ops that TensorFlow Serving has.

Training and the exported graph call the same functions, so what is served is tokenised as it was trained. KerasHub's
own packer is not used: it pads to the preset's length and puts `TFText>RoundRobinTrim` into the graph, which
TensorFlow Serving 2.13 to 2.19 does not know (docs/architecture.md).
"""

import base64
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfft import vocabulary
from tfft.cleaning import clean
from tfft.errors import InvalidValueError
from tfft.examples import Examples, lengths
from tfft.progress import track

log = logging.getLogger(__name__)

NOWHERE = ("starts", "ends", "word", "hidden")  # not of tokens, but what they stand for in a text: -1 for nothing
CHUNK = 512  # texts tokenised by one graph call: large enough to amortise the call, small enough to show progress


def special_ids(tokenizer: Any) -> tuple[int | None, int | None, int]:
    """Ids that begin a sequence, end it and fill it up; None where the tokenizer has no such token."""
    start = _first_id(tokenizer, "cls_token_id", "start_token_id")
    end = _first_id(tokenizer, "sep_token_id", "end_token_id")
    pad = _first_id(tokenizer, "pad_token_id")
    return start, end, 0 if pad is None else pad


def separators(tokenizer: Any) -> int:
    """End tokens between the two texts of a pair: RoBERTa's kin, which call theirs start and end, have two."""
    return 1 if _first_id(tokenizer, "sep_token_id") is not None else 2


def _first_id(tokenizer: Any, *names: str) -> int | None:
    return next((int(v) for v in (getattr(tokenizer, name, None) for name in names) if v is not None), None)


def unknown_id(tokenizer: Any) -> int | None:
    """The id of what the vocabulary lacks; None where it spells everything in bytes."""
    if hasattr(tokenizer, "merges"):
        return None
    known = getattr(tokenizer, "oov_token", None)  # of word pieces; SentencePiece answers so to whatever is no piece
    return int(tokenizer.token_to_id("\ue000\ue001" if known is None else known))


def token_ids(tokenizer: Any, texts: tf.Tensor, cleaning: Sequence[str] = ()) -> tf.RaggedTensor:
    """Token ids of whole texts, between the tokenizer's start and end token: (batch, None) int32.

    Meant for use inside a `tf.function`: KerasHub's tokenizers answer Python lists outside a graph.
    """
    start, end, _ = special_ids(tokenizer)
    ids = bare_ids(tokenizer, texts, cleaning)
    column = tf.ones([ids.nrows(), 1], tf.int32)
    before = [] if start is None else [start * column]
    after = [] if end is None else [end * column]
    return tf.concat([*before, ids, *after], axis=1)


def bare_ids(tokenizer: Any, texts: tf.Tensor, cleaning: Sequence[str]) -> tf.RaggedTensor:
    """Token ids of texts, without special tokens: (batch, None) int32."""
    # TF-Text's WordPiece ends a text at its first NUL byte and loses the rest.
    return tf.cast(tokenizer(tf.strings.regex_replace(clean(texts, cleaning), r"\x00", " ")), tf.int32)


@functools.lru_cache(maxsize=4)
def piece_texts(tokenizer: Any) -> list[str]:
    """What each id stands for in a text."""
    ids = np.arange(tokenizer.vocabulary_size())
    with tf.init_scope():  # where an export asks first, the pieces are still plain text, not a part of its graph
        return [str(piece) for piece in tokenizer.detokenize(tf.RaggedTensor.from_row_lengths(ids, np.ones_like(ids)))]


def written(tokenizer: Any, ids: tf.Tensor) -> tf.Tensor:
    """The texts that ids (batch, length) stand for, (batch,), with the spaces pieces begin with; others add nothing.

    Bytes that are no UTF-8, as where one stopped within a character, become U+FFFD.
    """
    table = tf.constant([*_piece_bytes(tokenizer), b""])
    last = len(_piece_bytes(tokenizer))
    texts = tf.strings.reduce_join(tf.gather(table, tf.where((ids < 0) | (ids > last), last, ids)), axis=1)
    return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")


@functools.lru_cache(maxsize=4)
def _piece_bytes(tokenizer: Any) -> list[bytes]:
    """What each id adds to a text, in UTF-8; special ones nothing."""
    if hasattr(tokenizer, "merges"):  # bytes, each spelled by a character that can be printed
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        rest = iter(range(256, 512))
        spelled = {chr(byte if byte in printable else next(rest)): byte for byte in range(256)}
        special = set(tokenizer.special_tokens)
        found = [b""] * (max(tokenizer.vocabulary.values()) + 1)
        for piece, number in tokenizer.vocabulary.items():
            if piece not in special and all(letter in spelled for letter in piece):
                found[number] = bytes(spelled[letter] for letter in piece)
        return found
    return vocabulary.pieces(base64.b64encode(tokenizer.proto).decode("ascii"))


def padded_ids(
    tokenizer: Any, texts: tf.Tensor, cleaning: Sequence[str], max_length: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Token ids as `truncate(token_ids(...))` gives them, padded to the longest row, and their mask: (batch, length).

    For a single text the same in ragged operations takes twice as long.
    """
    start, end, pad = special_ids(tokenizer)
    before, after = int(start is not None), int(end is not None)
    room = max_length - before - after
    ids = bare_ids(tokenizer, texts, cleaning)
    last = tf.minimum(tf.cast(ids.row_lengths(), tf.int32), room)[:, tf.newaxis] + before  # what comes next is the end
    dense = tf.pad(ids.to_tensor(pad)[:, :room], [[0, 0], [before, after]], constant_values=pad)
    place = tf.range(tf.shape(dense)[1])
    if start is not None:
        dense = tf.where(place == 0, start, dense)
    if end is not None:
        dense = tf.where(place == last, end, dense)
    return dense, tf.cast(place < last + after, tf.int32)


def truncate(ids: tf.RaggedTensor, max_length: int, end: int | None) -> tf.RaggedTensor:
    """Cut rows longer than `max_length` and let them end with the end token: (batch, None)."""
    cut = ids[:, :max_length]
    if end is None:
        return cut
    last = tf.boolean_mask(cut.row_splits[1:] - 1, ids.row_lengths() > max_length)
    ends = tf.fill([tf.size(last)], tf.constant(end, ids.dtype))
    return cut.with_flat_values(tf.tensor_scatter_nd_update(cut.flat_values, last[:, tf.newaxis], ends))


def inputs_of(ids: tf.RaggedTensor, tokenizer: Any) -> tuple[dict[str, tf.RaggedTensor], dict[str, int]]:
    """The inputs KerasHub backbones take, for single texts, and the values that pad them."""
    x = {"token_ids": ids, "padding_mask": tf.ones_like(ids), "segment_ids": tf.zeros_like(ids)}
    return x, paddings(tokenizer)


def paddings(tokenizer: Any) -> dict[str, int]:
    """What fills a shorter row of each input; of places, nowhere."""
    pad = special_ids(tokenizer)[2]
    fill = {"token_ids": pad, "whole": pad, "padding_mask": 0, "segment_ids": 0}
    return fill | dict.fromkeys(NOWHERE, -1)


def padded_text(
    texts: Mapping[str, Any], tokenizer: Any, facts: Mapping[str, Any], cleaning: Sequence[str], max_length: int
) -> dict[str, Any]:
    """The dense inputs of a model that reads one text a row."""
    (text,) = texts.values()
    return padded_inputs(*padded_ids(tokenizer, text, cleaning, max_length))


def ids_of(x: Mapping[str, Any]) -> Any:
    """The token ids among a model's inputs; where texts become inputs of other names, all of them side by side."""
    if "token_ids" in x:
        return x["token_ids"]
    return tf.concat([tf.cast(x[name], tf.float32) for name in sorted(x)], axis=1)


def padded_inputs(ids: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
    """The same inputs for token ids (batch, length) that are padded already, and their mask."""
    return {"token_ids": ids, "padding_mask": mask, "segment_ids": tf.zeros_like(ids)}


def encode(
    tokenizer: Any, texts: Sequence[str | bytes], cleaning: Sequence[str] = ()
) -> tuple[dict[str, tf.RaggedTensor], dict[str, int]]:
    """Tokenise many texts, whole: (inputs of ragged shape (rows, None), value that pads each)."""
    return inputs_of(in_chunks(_graph(tokenizer, tuple(cleaning)), texts), tokenizer)


def encode_bare(tokenizer: Any, texts: Sequence[str | bytes], cleaning: Sequence[str] = ()) -> tf.RaggedTensor:
    """Token ids of many texts, whole and without special tokens: (rows, None) int32."""
    ids: tf.RaggedTensor = in_chunks(_bare_graph(tokenizer, tuple(cleaning)), texts)
    return ids


def in_chunks(graph: Any, *columns: Sequence[str | bytes]) -> Any:
    """Call a graph of string tensors (batch,) on many rows, some at a time; what it gives, nested, is joined."""
    starts = range(0, len(columns[0]), CHUNK)
    chunks = [[list(column[i : i + CHUNK]) for column in columns] for i in starts]
    some = track(chunks, "tokenising", len(columns[0]), lambda chunk: len(chunk[0]))
    encoded = [graph(*(tf.constant(column) for column in chunk)) for chunk in some]
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *encoded)


@functools.lru_cache(maxsize=4)  # tracing a BPE tokenizer takes seconds
def _graph(tokenizer: Any, cleaning: tuple[str, ...]) -> Any:
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda texts: token_ids(tokenizer, texts, cleaning), input_signature=signature, autograph=False)


@functools.lru_cache(maxsize=4)
def _bare_graph(tokenizer: Any, cleaning: tuple[str, ...]) -> Any:
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda texts: bare_ids(tokenizer, texts, cleaning), input_signature=signature, autograph=False)


def choose_length(
    row_lengths: np.ndarray, limit: int | None, wanted: int | None = None, *, quantile: float = 0.99
) -> int:
    """The length to cut texts to: a quantile of the rows' own lengths, rounded up to a multiple of 8.

    Args:
        row_lengths: tokens in each row.
        limit: positions the backbone has; None when it has no table of positions.
        wanted: this length, if it was asked for.
        quantile: share of the rows that are kept whole.

    Raises:
        InvalidValueError: more tokens are wanted than the backbone has positions for.
    """
    if wanted is not None:
        if limit is not None and wanted > limit:
            raise InvalidValueError(f"max_length must be at most {limit}, what the backbone reads. Received: {wanted}")
        return wanted
    return min(_rounded(row_lengths, quantile), 512 if limit is None else limit)


def _rounded(row_lengths: np.ndarray, quantile: float) -> int:
    return int(-(-np.quantile(row_lengths, quantile) // 8) * 8)


def longest_target(row_lengths: np.ndarray, wanted: int | None) -> int:
    """Pieces a target may have: as many as are wanted, or as all but one in a thousand of the rows have, in eights."""
    return _rounded(row_lengths, 0.999) if wanted is None else wanted


def with_end(rows: Sequence[np.ndarray], end: int, longest: int) -> list[np.ndarray]:
    """Targets with the end behind them, of at most so many pieces: what is too long is cut, and counted in the log."""
    cut = sum(len(row) >= longest for row in rows)
    if cut:
        log.warning("%d of %d targets are longer than %d pieces and were cut", cut, len(rows), longest)
    return [np.append(row[: longest - 1], end) for row in rows]


def truncate_examples(examples: Examples, tokenizer: Any, max_length: int) -> tuple[Examples, int]:
    """The examples with every row cut to `max_length` tokens, and how many rows lost some."""
    end = special_ids(tokenizer)[1]
    x = {}
    for name, value in examples.x.items():
        if isinstance(value, tf.RaggedTensor):
            value = truncate(value, max_length, end if name.endswith("token_ids") else None)
        x[name] = value
    return examples._replace(x=x), int((lengths(examples.x) > max_length).sum())
