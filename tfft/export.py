"""A trained model as a SavedModel for TensorFlow Serving: written beside, proven, then renamed."""

import os
from collections.abc import Iterable
from pathlib import Path

import keras
import pandas as pd

from tfft import fusing, handover, lora, proving
from tfft.errors import ExportError, InvalidValueError
from tfft.precision import quantize
from tfft.runs import Run, new_folder
from tfft.signatures import signatures


def export_saved_model(
    run: Run,
    folder: str | os.PathLike[str],
    version: int | None = None,
    *,
    serving: str = proving.OLDEST,
    precision: str = "float32",
    rows: pd.DataFrame | None = None,
    bound: float = 0.005,
) -> Path:
    """Write `folder/<version>/`, ready for TensorFlow Serving, and prove it.

    The signature `serving_default` takes the task's texts, such as `text`, strings (batch,), and returns what the task
    serves; they are cleaned, tokenised and cut in the graph as they were for training. Further signatures:
    `tfft.signatures`. Beside the graph lie a card, golden answers and warm-up requests (`assets.extra/`), beside the
    versions what a server is started with.

    Args:
        run: from `load_run`.
        folder: the model's folder, such as `saved_models/sentiment`; the last part is the served name.
        version: a whole number from 1; by default the next one free.
        serving: the oldest TensorFlow Serving it must load in, "2.13" or "2.20".
        precision: "float32", or "int8" as Keras quantizes: `run.model` is then of that precision, too.
        rows: with answers; int8 is kept only if its score on them is near.
        bound: how far from that of float32 it may be, as a share.

    Returns:
        The version's folder.

    Raises:
        InvalidValueError: the version exists, is no positive whole number, or int8 without rows.
        ExportError: the proof failed, or int8 costs too much; nothing is left behind.

    Examples:
        path = tfft.export_saved_model(tfft.load_run("runs/x"), "saved_models/x")
    """
    root = Path(folder)
    version = next_version(root, version)
    if precision != "float32":
        quantize(run, precision, rows, bound)
    with new_folder(root / str(version)) as scratch:
        with lora.merged(run.model):
            write_saved_model(run, scratch)
        handover.write_extra(run, scratch, precision)
        side_by_side = fusing.side_by_side(run.model)
        (scratch / proving.SIDE_BY_SIDE).write_text(f"{side_by_side}\n", "utf-8")
        refuse_faults(proving.prove(scratch, serving, str(version)))
    handover.write_beside(run, root, side_by_side)
    return root / str(version)


def write_saved_model(run: Run, folder: Path) -> None:
    """Write `saved_model.pb` and variables with all signatures."""
    archive = keras.export.ExportArchive()  # it finds variables itself; those of a tracked model it writes twice
    for tokenizer in (*run.tokenizers, *(run.task.tables(run.facts) if run.task.tables else ())):
        tokenizer([""])  # Keras tracks a layer only once it has been called
        archive.track(tokenizer)  # its tables are state of the graph
    for name, (function, taken) in signatures(run).items():
        archive.add_endpoint(name, function, input_signature=taken)
    archive.write_out(str(folder), verbose=False)


def refuse_faults(found: Iterable[proving.Finding]) -> None:
    """Raise if the proof found a fault."""
    faults = [one for one in found if one.cure]
    if faults:
        said = "; ".join(f"{fault.check}: {fault.found} ({fault.cure})" for fault in faults)
        raise ExportError(f"the export would not serve, and was not kept. {said}")


def next_version(folder: Path, wanted: int | None = None) -> int:
    """The version asked for, else one more than the highest there."""
    if wanted is not None and wanted < 1:
        raise InvalidValueError(f"a version is a whole number from 1. Received: {wanted}")
    return max(proving.versions(folder), default=0) + 1 if wanted is None else wanted
