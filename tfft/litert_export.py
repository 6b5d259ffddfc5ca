"""A trained model for LiteRT, once TensorFlow Lite: its numeric half, token ids in, with its tokenizer beside it."""

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tfft import fusing, handover
from tfft.errors import ExportError
from tfft.examples import as_arrays, count, lengths, take
from tfft.export import next_version
from tfft.onnx_export import refuse_others, write_ends
from tfft.runs import Run, new_folder
from tfft.servable import ENDS

NUMERIC = "model.tflite"
TOLERANCE = 1e-4  # between its answers and Keras's


def export_litert(run: Run, folder: str | os.PathLike[str], version: int | None = None) -> Path:
    """Write `folder/<version>/` with `model.tflite`, compared with Keras.

    It takes the model's inputs, (batch, length) int32, and gives `answers`, float32, by its signature
    `serving_default`. `ends/` is a SavedModel of the tokenizer and of what makes answers of numbers;
    `run/preset/assets/tokenizer` has the vocabulary for others.

    Args:
        run: from `load_run`.
        folder: the model's folder.
        version: a whole number from 1; by default the next one free.

    Returns:
        The version's folder.

    Raises:
        ExportError: the converter does not manage, or its answers are not Keras's; nothing is left behind.

    Examples:
        path = tfft.export_litert(tfft.load_run("runs/x"), "litert_models/x")
    """
    refuse_others(run)
    root = Path(folder)
    version = next_version(root, version)
    with new_folder(root / str(version)) as scratch:
        (scratch / NUMERIC).write_bytes(convert(run))
        apart = _distance(run, scratch / NUMERIC)
        if not apart <= TOLERANCE:
            raise ExportError(f"LiteRT's answers are up to {apart:.1e} from those of Keras. Export it as a SavedModel")
        write_ends(run, scratch / ENDS)
        run.tokenizer.save_to_preset(str(scratch / "tokenizer"))
        handover.write_extra(run, scratch)
    return root / str(version)


def convert(run: Run) -> bytes:
    """The numeric half as LiteRT keeps it."""
    model = fusing.fused(run.model)
    names = [tensor.name for tensor in run.model.inputs]
    signature = {name: tf.TensorSpec([None, None], tf.int32, name=name) for name in names}
    traced = tf.function(lambda **x: {"answers": model(x, training=False)}, autograph=False)
    # The converter leaves Keras's variables as variables nobody sets: numbers that are none.
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function(**signature))
    module = tf.Module()
    module.answers = tf.function(
        lambda **x: {"answers": keras.tree.flatten(frozen(**x))[0]}, autograph=False
    ).get_concrete_function(**signature)
    with tempfile.TemporaryDirectory() as scratch:
        tf.saved_model.save(module, scratch, signatures={"serving_default": module.answers})
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
        try:
            return bytes(converter.convert())
        except Exception as error:
            said = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
            raise ExportError(
                f"LiteRT's converter does not manage this model: {said}. Export it as a SavedModel"
            ) from error


def runner(path: Path) -> Any:
    """The file's signature as a function: inputs by name to `{"answers": array}`."""
    with warnings.catch_warnings():  # it will live in a package of its own, and says so each time
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        return tf.lite.Interpreter(model_path=str(path)).get_signature_runner("serving_default")


def _distance(run: Run, path: Path) -> float:
    """How far its answers to the golden texts are from Keras's, at most."""
    rows = run.task.cut(handover.golden_rows(run)[1], run.tokenizer, run.config["max_length"])[0]
    names = [tensor.name for tensor in run.model.inputs]
    longest = int(lengths(rows.x).max())
    every = np.arange(count(rows))
    batch = {n: take(as_arrays(rows.x[n]), every, longest, rows.padding.get(n, 0)) for n in names}
    found = runner(path)(**batch)["answers"]
    return float(np.abs(found - np.asarray(run.model(batch, training=False))).max())
