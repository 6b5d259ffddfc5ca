"""Pictures: of a run's scores, of advice before one."""

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


def advice(
    poolings: Sequence[tuple[str, float]], depths: Sequence[tuple[int, float, float]], title: str, path: Path
) -> None:
    """Draw what probes say: accuracy of each pooling as bars, accuracy against cost for each number of frozen blocks.

    Args:
        poolings: (name, accuracy).
        depths: (frozen blocks, accuracy of a probe on the highest of them, cost of an epoch against training all).
        title: the data and the backbone.
        path: PNG to write.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    names, accuracies = [name for name, _ in poolings][::-1], [accuracy for _, accuracy in poolings][::-1]
    bars = left.barh(names, accuracies, color="#4878a8")
    left.bar_label(bars, fmt="%.3f", padding=3)
    left.set_xlim(max(min(accuracies) - 0.1, 0), min(max(accuracies) + 0.06, 1.05))
    left.set_xlabel("validation accuracy of a linear probe")
    left.set_title("pooling, everything frozen", fontsize=10)
    right.plot([cost for *_, cost in depths], [accuracy for _, accuracy, _ in depths], "o-", color="#c05020")
    for count, accuracy, cost in depths:
        right.annotate(str(count), (cost, accuracy), textcoords="offset points", xytext=(4, 5), fontsize=9)
    right.set_xlabel("cost of an epoch, share of training all blocks")
    right.set_title("probe on the highest of k frozen blocks", fontsize=10)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=120)
