"""A trained model as a SavedModel: strings in, named answers out, in ops TensorFlow Serving has."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfft import fusing, tokenizing
from tfft.errors import InvalidValueError
from tfft.examples import dense_inputs
from tfft.runs import Run, new_folder


def export_saved_model(run: Run, folder: str | os.PathLike[str], version: int | None = None) -> Path:
    """Write `folder/<version>/`, ready for TensorFlow Serving.

    The signature `serving_default` takes `text`, strings (batch,), and returns what the task serves; texts are cleaned,
    tokenised and cut in the graph as they were for training, and padded to the longest of the batch.

    Args:
        run: from `load_run`.
        folder: the model's folder, such as `saved_models/sentiment`; the last part is the served name.
        version: a whole number from 1; by default the next one free.

    Returns:
        The version's folder, written beside and renamed.

    Raises:
        InvalidValueError: the version exists, or is no positive whole number.

    Example:
        path = tfft.export_saved_model(tfft.load_run("runs/x"), "saved_models/x")
    """
    root = Path(folder)
    version = next_version(root) if version is None else version
    if version < 1:
        raise InvalidValueError(f"a version is a whole number from 1. Received: {version}")
    model = fusing.fused(run.model, served=True)
    endpoint = serving_function(model, run.tokenizer, run.config["max_length"], run.config["clean"])
    with new_folder(root / str(version)) as scratch:
        archive = (
            keras.export.ExportArchive()
        )  # finds the variables itself; those of a tracked model it would write twice
        run.tokenizer([""])  # Keras tracks a layer only once it has been called
        archive.track(run.tokenizer)  # its tables are state of the graph
        archive.add_endpoint(
            "serving_default",
            lambda text: run.task.serve(endpoint(text), run.facts),
            input_signature=[tf.TensorSpec([None], tf.string, name="text")],
        )
        archive.write_out(str(scratch), verbose=False)
    return root / str(version)


def serving_function(model: keras.Model, tokenizer: Any, max_length: int, cleaning: Sequence[str]) -> Any:
    """strings (batch,) -> the model's outputs, in graph ops only; no `jit_compile`: Serving has XLA off."""
    end = tokenizing.special_ids(tokenizer)[1]
    names = [tensor.name for tensor in model.inputs]

    def answer(text: tf.Tensor) -> Any:
        ids = tokenizing.truncate(tokenizing.token_ids(tokenizer, text, cleaning), max_length, end)
        x, padding = tokenizing.inputs_of(ids, tokenizer)
        return model(dense_inputs(x, padding, names), training=False)

    return answer


def next_version(folder: Path) -> int:
    """One more than the highest version there."""
    found = [int(entry.name) for entry in folder.glob("*") if entry.name.isdecimal()] if folder.is_dir() else []
    return max(found, default=0) + 1
