"""A trained model as a SavedModel for TensorFlow Serving: written beside, proven, then renamed."""

import os
from pathlib import Path

import keras

from tfft import handover, proving
from tfft.errors import ExportError, InvalidValueError
from tfft.runs import Run, new_folder
from tfft.signatures import signatures


def export_saved_model(
    run: Run, folder: str | os.PathLike[str], version: int | None = None, *, serving: str = proving.OLDEST
) -> Path:
    """Write `folder/<version>/`, ready for TensorFlow Serving, and prove it.

    The signature `serving_default` takes `text`, strings (batch,), and returns what the task serves; texts are cleaned,
    tokenised and cut in the graph as they were for training, and padded to the longest of the batch. Further
    signatures: `tfft.signatures`. Beside the graph lie a card, golden answers and warm-up requests (`assets.extra/`),
    beside the versions what a server is started with.

    Args:
        run: from `load_run`.
        folder: the model's folder, such as `saved_models/sentiment`; the last part is the served name.
        version: a whole number from 1; by default the next one free.
        serving: the oldest TensorFlow Serving it must load in, "2.13" or "2.20".

    Returns:
        The version's folder.

    Raises:
        InvalidValueError: the version exists, or is no positive whole number.
        ExportError: the proof failed; nothing is left behind.

    Example:
        path = tfft.export_saved_model(tfft.load_run("runs/x"), "saved_models/x")
    """
    root = Path(folder)
    version = next_version(root) if version is None else version
    if version < 1:
        raise InvalidValueError(f"a version is a whole number from 1. Received: {version}")
    with new_folder(root / str(version)) as scratch:
        write_saved_model(run, scratch)
        handover.write_extra(run, scratch)
        faults = [found for found in proving.prove(scratch, serving, str(version)) if found.cure]
        if faults:
            said = "; ".join(f"{fault.check}: {fault.found} ({fault.cure})" for fault in faults)
            raise ExportError(f"the export would not serve, and was not kept. {said}")
    handover.write_beside(root)
    return root / str(version)


def write_saved_model(run: Run, folder: Path) -> None:
    """Write `saved_model.pb` and variables with all signatures."""
    archive = keras.export.ExportArchive()  # it finds variables itself; those of a tracked model it writes twice
    run.tokenizer([""])  # Keras tracks a layer only once it has been called
    archive.track(run.tokenizer)  # its tables are state of the graph
    for name, (function, taken) in signatures(run).items():
        archive.add_endpoint(name, function, input_signature=taken)
    archive.write_out(str(folder), verbose=False)


def next_version(folder: Path) -> int:
    """One more than the highest version there."""
    return max(proving.versions(folder), default=0) + 1
