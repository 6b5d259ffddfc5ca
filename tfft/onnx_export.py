"""A trained model for ONNX Runtime: its numeric half as ONNX, its two ends as a small SavedModel. Extra `tfft[onnx]`.

ONNX has no tokenizer of TF-Text, so strings become ids, and numbers answers, in TensorFlow's C++ runtime: by the same
functions as everywhere else. The version folder stands where a SavedModel's would, and is proven as one is.
"""

import logging
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfft import handover, onnx_graph, proving, tokenizing
from tfft.batching import INFERENCE_ROWS, plan
from tfft.errors import ExportError, InvalidValueError
from tfft.examples import as_arrays, lengths, take
from tfft.export import next_version, refuse_faults
from tfft.precision import Judged, judge
from tfft.runs import Run, new_folder, run_examples, write_json
from tfft.servable import ENDS, GROUP_TOKENS, NUMERIC, SETTINGS
from tfft.signatures import is_single, texts_of

PRECISIONS = ("float32", "int8")

log = logging.getLogger(__name__)


def export_onnx(
    run: Run,
    folder: str | os.PathLike[str],
    version: int | None = None,
    *,
    precision: str = "float32",
    rows: pd.DataFrame | None = None,
    bound: float = 0.005,
) -> Path:
    """Write `folder/<version>/` for `tfft serve` and `tfft predict` by ONNX Runtime, and prove it.

    Args:
        run: from `load_run`.
        folder: the model's folder; the last part is the served name.
        version: a whole number from 1; by default the next one free.
        precision: "float32", or "int8" for weights of a byte and products of bytes.
        rows: with answers; int8 is kept only if its score on them is near.
        bound: how far from that of float32 it may be, as a share.

    Returns:
        The version's folder.

    Raises:
        ExportError: the converter does not manage, the proof failed, or int8 costs too much; nothing is left behind.
        InvalidValueError: the version exists, or int8 without rows.

    Examples:
        path = tfft.export_onnx(tfft.load_run("runs/x"), "onnx_models/x")
    """
    if precision not in PRECISIONS:
        raise InvalidValueError(
            f"precision of an ONNX export is one of: {', '.join(PRECISIONS)}. Received: {precision!r}"
        )
    if precision != "float32" and rows is None:
        raise InvalidValueError(f"{precision} is judged by rows with answers; none were given")
    refuse_others(run)
    root = Path(folder)
    version = next_version(root, version)
    with new_folder(root / str(version)) as scratch:
        try:
            onnx_graph.write(onnx_graph.converted(run.model, patient=True), scratch / NUMERIC)
        except ExportError as error:
            raise ExportError(f"{error}. Export it as a SavedModel") from error
        if precision == "int8" and rows is not None:
            judged = _quantize(run, scratch / NUMERIC, rows, bound)
            log.info("int8: %s", judged)
        write_ends(run, scratch / ENDS)
        write_json(scratch / SETTINGS, {"inputs": [tensor.name for tensor in run.model.inputs]})
        handover.write_extra(run, scratch, precision)
        refuse_faults(proving.prove(scratch, version=str(version)))
    return root / str(version)


def refuse_others(run: Run) -> None:
    """Raise if the run's answers are no function of the model's outputs for one text alone."""
    if not is_single(run):
        raise InvalidValueError(f"{run.task.name} is exported as a SavedModel only: leave --format out")


def write_ends(run: Run, folder: Path) -> None:
    """Write what stands before and after the numeric half, as a SavedModel: texts to inputs, outputs to answers."""
    names = [tensor.name for tensor in run.model.inputs]

    def encode(text: tf.Tensor) -> dict[str, tf.Tensor]:
        ids, mask = tokenizing.padded_ids(run.tokenizer, text, run.config["clean"], run.config["max_length"])
        x = tokenizing.padded_inputs(ids, mask)
        return {name: x[name] for name in {*names, "token_ids", "padding_mask"}}

    def decode(answers: tf.Tensor) -> dict[str, tf.Tensor]:
        found: dict[str, tf.Tensor] = run.task.serve(answers, {}, {}, run.facts, run.tokenizer)
        return found

    archive = keras.export.ExportArchive()
    run.tokenizer([""])  # Keras tracks a layer only once it has been called
    archive.track(run.tokenizer)
    archive.add_endpoint("encode", encode, input_signature=texts_of(run))
    shape = list(run.model.output.shape)
    archive.add_endpoint("decode", decode, input_signature=[tf.TensorSpec(shape, tf.float32, name="answers")])
    archive.write_out(str(folder), verbose=False)


def _quantize(run: Run, path: Path, rows: pd.DataFrame, bound: float) -> Judged:
    """Replace the file by one of int8, if its score on the rows is near enough."""
    before = _outputs(run, path, rows)
    small = path.with_name("int8.onnx")
    onnx_graph.quantize(path, small)
    small.replace(path)
    return judge(run, rows, run_examples(run, rows), before, _outputs(run, path, rows), "int8", bound)


def _outputs(run: Run, path: Path, rows: pd.DataFrame) -> np.ndarray:
    """The file's outputs for rows, in their order; in groups as it is served, for int8's depend on the rows beside."""
    session = onnx_graph.session(path)
    examples = run_examples(run, rows)
    names = [one.name for one in session.get_inputs()]
    source = {name: as_arrays(examples.x[name]) for name in names}
    found: list[Any] = [None] * len(rows)
    for picked, length in plan(lengths(examples.x), INFERENCE_ROWS, GROUP_TOKENS):
        x = {name: take(value, picked, length, examples.padding.get(name, 0)) for name, value in source.items()}
        (answers,) = session.run(None, x)
        for place, answer in zip(picked, answers, strict=True):
            found[place] = answer
    return np.stack(found)
