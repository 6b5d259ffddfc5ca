"""Which words of a text are hidden, and what stands in their place. NumPy, one dense batch at a time.

Whole words, as later BERTs had it: where a word has several pieces all are hidden, for one of them tells of the others.
"""

import functools
from typing import Any

import numpy as np

from tfft import tokenizing
from tfft.errors import InvalidValueError
from tfft.guessing import GIVEN

SHARE = 0.15  # of a text's pieces that are hidden (Devlin et al. 2019, arXiv 1810.04805)
MASKED, RANDOM = 0.8, 0.1  # of those: shares that become the mask, or any piece; the rest stays as it is


def hide(
    ids: np.ndarray, first: np.ndarray, mask: int, ordinary: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Hide words drawn at random.

    Args:
        ids: token ids (rows, length).
        first: (rows, length), at the first piece of a word its number, -1 elsewhere.
        mask: the id that stands for a hidden piece.
        ordinary: ids of pieces of text: only they are hidden, or stand in a hidden one's place.
        generator: draws.

    Returns:
        (ids with some replaced, what was hidden: its id, `tfft.guessing.GIVEN` elsewhere), both (rows, length) int32.
        Of a row with words at least one is hidden, and otherwise no more than `SHARE` of its pieces.
    """
    word = np.where(np.isin(ids, ordinary), np.maximum.accumulate(first, axis=1), -1)
    hidden = np.full(ids.shape, GIVEN, "int32")
    for row, words in enumerate(word):
        counts = np.bincount(words[words >= 0])
        order = generator.permutation(np.flatnonzero(counts))
        room = max(round(SHARE * counts.sum()), 1)
        chosen = order[np.cumsum(counts[order]) <= room]
        if not len(chosen):  # the first drawn is longer than all the room
            chosen = order[:1]
        picked = np.isin(words, chosen)
        hidden[row, picked] = ids[row, picked]
    is_hidden, draw = hidden != GIVEN, generator.random(ids.shape)
    shown = np.where(is_hidden & (draw < MASKED), mask, ids)
    other = is_hidden & (draw >= MASKED) & (draw < MASKED + RANDOM)
    shown[other] = generator.choice(ordinary, other.sum())
    return shown.astype("int32"), hidden


def mask_id(tokenizer: Any) -> int:
    """The id that stands for a hidden piece.

    Raises:
        InvalidValueError: the tokenizer has none, as those of generators.
    """
    found = getattr(tokenizer, "mask_token_id", None)
    if found is None:
        raise InvalidValueError(
            f"words are hidden behind a mask token, and {type(tokenizer).__name__} has none. Take a backbone that was "
            "pretrained with hidden words; `tfft backbones` lists such"
        )
    return int(found)


@functools.lru_cache(maxsize=4)
def ordinary_ids(tokenizer: Any) -> np.ndarray:
    """The ids of pieces of text: all but the special tokens."""
    special = {mask_id(tokenizer), *(i for i in tokenizing.special_ids(tokenizer) if i is not None)}
    return np.setdiff1d(np.arange(tokenizer.vocabulary_size()), sorted(special))
