"""Pictures for the run folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def confusion_matrix(counts: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix: a row for each true label, shares of the row as colour, counts as text.

    Args:
        counts: [true label][predicted label].
        labels: their names.
        path: PNG to write.
    """
    table = np.array(counts)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size = min(max(3.2, 0.55 * len(labels) + 1.6), 22)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    font = 9 if len(labels) <= 20 else 6
    axes.set_xticks(range(len(labels)), labels, rotation=45 if len(labels) <= 20 else 90, ha="right", fontsize=font)
    axes.set_yticks(range(len(labels)), labels, fontsize=font)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(labels) <= 30:
        for (row, column), count in np.ndenumerate(table):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=font)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true label")
    figure.savefig(path, dpi=120)
