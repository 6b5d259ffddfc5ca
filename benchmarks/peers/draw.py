"""Which rows a few-shot comparison draws: the same for tfft and its peer."""

from collections.abc import Sequence

import numpy as np


def draw(labels: Sequence[str], n: int, seed: int) -> list[int]:
    """Indices of n rows of each label, the labels in order of their names."""
    generator, of = np.random.default_rng(seed), np.asarray(labels)
    names = sorted(set(of.tolist()))
    drawn = [np.sort(generator.choice(np.flatnonzero(of == name), n, replace=False)) for name in names]
    return [int(i) for i in np.concatenate(drawn)]
