"""The checks of an export, in a process that never imports TensorFlow; `tfft.proving` starts it.

    python -m tfft.checks FOLDER --serving 2.13 --name 1

The last line it prints is JSON: a list of findings.
"""

import argparse
import base64
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from tfft.capi import RuntimeFailedError, messages
from tfft.proving import GOLDEN, NEWER, OLDEST, WARMUP, Finding
from tfft.runtime import Runtime
from tfft.servable import NUMERIC, Servable, load
from tfft.serving_ops import LIBRARIES_SINCE_2_20, PYTHON_OPS, SINCE_2_20, TEXT_OPS
from tfft.warmup import warm_up_requests

TOLERANCE = 1e-5  # between answers in float32
ONNX_TOLERANCE = 1e-4  # of another runtime
INT8_TOLERANCE = 0.25  # activations are rounded anew in every run; rows with answers have judged it


def find(folder: Path, serving: str, version: str) -> Iterator[Finding]:
    """The checks, in the order in which a server would meet the faults."""
    if not version.isdecimal() or int(version) < 1:
        yield Finding(
            "version folder",
            f"{version!r} is no whole number from 1: the server does not look into it",
            "give the folder a number: saved_models/name/1",
        )
    else:
        yield Finding("version folder", version)
    runtime = Runtime(without=LIBRARIES_SINCE_2_20 if serving == OLDEST else ())
    if (folder / NUMERIC).exists():
        yield from _onnx(runtime, folder)
        return
    try:
        meta = _meta_graph(folder, runtime)
    except (OSError, ValueError) as error:
        yield Finding("saved_model.pb", str(error), "export the run again")
        return
    graph = list(_graph(meta, runtime, serving)) + list(_signatures(meta))
    yield from graph
    if not (folder / "variables" / "variables.index").is_file():  # the runtime loads it all the same
        yield Finding("variables", "no variables/variables.index", "export the run again")
        return
    try:
        served = runtime.load(folder)
    except RuntimeFailedError as error:
        said = str(error)
        broken = any(word in said for word in ("variables", "hecksum", "ata loss", "ess bytes"))
        yield Finding("variables" if broken else "load", said.splitlines()[0][:300], "export the run again")
        return
    yield Finding("load", f"loaded in TensorFlow's C++ runtime {runtime.version}, XLA off")
    if not any(found.cure for found in graph):
        yield from _asked(served, folder, TOLERANCE)


def _onnx(runtime: Runtime, folder: Path) -> Iterator[Finding]:
    try:
        served = load(runtime, folder)
    except (RuntimeFailedError, OSError, ValueError, KeyError) as error:
        yield Finding("load", str(error).splitlines()[0][:300], "export the run again")
        return
    yield Finding("load", f"numbers in ONNX Runtime, texts in TensorFlow's C++ runtime {runtime.version}")
    yield from _asked(served, folder, ONNX_TOLERANCE)


def _asked(served: Servable, folder: Path, tolerance: float) -> Iterator[Finding]:
    try:
        golden = json.loads((folder / GOLDEN).read_text("utf-8"))
    except (OSError, ValueError):
        yield Finding("golden answers", f"no readable {GOLDEN}: nothing to compare with", "export with `tfft export`")
        return
    yield from _answers(served, golden, tolerance if golden.get("precision") != "int8" else INT8_TOLERANCE)
    yield from _warm_up(served, folder)


def _meta_graph(folder: Path, runtime: Runtime) -> Any:
    content = (folder / "saved_model.pb").read_bytes()
    try:
        saved = runtime.messages.SavedModel.FromString(content)
    except DecodeError as error:
        raise ValueError(f"{folder / 'saved_model.pb'} is damaged: {error}") from None
    for meta in saved.meta_graphs:
        if "serve" in meta.meta_info_def.tags:
            return meta
    raise ValueError(f"{folder / 'saved_model.pb'} has no graph with the tag 'serve'")


def _graph(meta: Any, runtime: Runtime, serving: str) -> Iterator[Finding]:
    nodes = list(meta.graph_def.node)
    functions = list(meta.graph_def.library.function)
    ops = {node.op for node in nodes} | {node.op for function in functions for node in function.node_def}
    called = {function.signature.name for function in functions}
    python = sorted(ops & PYTHON_OPS)
    if python:
        yield Finding(
            "Python function",
            f"the graph calls Python ({', '.join(python)}); the server has none",
            "write the function in TensorFlow operations, without tf.py_function and tf.numpy_function",
        )
    unknown = sorted(ops - runtime.core_ops - TEXT_OPS - PYTHON_OPS - called)
    if unknown:
        yield Finding(
            "operations",
            f"TensorFlow Serving has no {', '.join(unknown)}",
            "use operations of TensorFlow and TF-Text alone, or build a server of your own",
        )
    newer = sorted(ops & SINCE_2_20)
    if newer and serving == OLDEST:
        yield Finding(
            "operations",
            f"{', '.join(newer)}: TensorFlow Serving has them from {NEWER}",
            f"pack token ids with tfft.tokenizing, not with KerasHub's packer; or check with --serving {NEWER}",
        )
    if not unknown and not (newer and serving == OLDEST):
        text = len(ops & TEXT_OPS)
        since = NEWER if newer else OLDEST
        yield Finding(
            "operations", f"{len(ops)} kinds, {text} of TF-Text; all in TensorFlow Serving's list, {since} on"
        )
    compiled = [f.signature.name for f in functions if f.attr["_XlaMustCompile"].b]
    compiled += [node.name for node in nodes if node.attr["_XlaMustCompile"].b]
    compiled += [node.name for function in functions for node in function.node_def if node.attr["_XlaMustCompile"].b]
    if compiled:
        yield Finding(
            "XLA",
            f"jit_compile=True in {compiled[0]}; the server starts with XLA off and refuses it",
            "trace the function with jit_compile=False",
        )


def _signatures(meta: Any) -> Iterator[Finding]:
    signatures = {n: s for n, s in meta.signature_def.items() if not n.startswith("__")}
    if "serving_default" not in signatures:
        yield Finding(
            "signatures",
            f"no serving_default; there are: {', '.join(sorted(signatures)) or 'none'}",
            "name the first endpoint serving_default",
        )
        return
    faults = False
    for name, signature in sorted(signatures.items()):
        for side, tensors in (("input", signature.inputs), ("output", signature.outputs)):
            for key, info in sorted(tensors.items()):
                shape = info.tensor_shape
                if not shape.unknown_rank and (not shape.dim or shape.dim[0].size != -1):
                    faults = True
                    yield Finding(
                        "batch first",
                        f"{side} {key!r} of {name} has the shape {[d.size for d in shape.dim]}",
                        "let the first axis be the batch, of unknown size: the server splits and joins rows along it",
                    )
    outputs = signatures["serving_default"].outputs
    if "probabilities" in outputs and "labels" not in outputs:
        faults = True
        yield Finding(
            "labels",
            f"serving_default answers {', '.join(sorted(outputs))}: a client cannot know which class is which",
            "return `labels` too, repeated for every row",
        )
    if not faults:
        yield Finding("signatures", ", ".join(sorted(signatures)))


def _answers(served: Servable, golden: dict[str, Any], tolerance: float) -> Iterator[Finding]:
    texts = {
        name: [base64.b64decode(text["b64"]) if isinstance(text, dict) else text.encode() for text in column]
        for name, column in golden["texts"].items()
    }
    rows = [{name: [column[i]] for name, column in texts.items()} for i in range(len(golden["token_ids"]))]
    try:
        together = served.run(texts)
        alone = [served.run(row) for row in rows]
        ids = [served.run(row, "tokenize")["token_ids"][0].tolist() for row in rows]
    except RuntimeFailedError as error:
        yield Finding("answers", str(error).splitlines()[0][:300], "export the run again")
        return
    other = [place for place, (one, wanted) in enumerate(zip(ids, golden["token_ids"], strict=True)) if one != wanted]
    if other:
        yield Finding(
            "vocabulary",
            f"{len(other)} of {len(rows)} texts give other token ids than in training, the first is number {other[0]}",
            "the tokenizer is not the run's: export the run again",
        )
        return
    yield Finding("vocabulary", f"{len(rows)} texts give the token ids of training")
    labels = golden.get("labels")
    if labels and [name.decode() for name in together["labels"][0]] != labels:
        yield Finding("labels", "the names are not those of the run, or in another order", "export the run again")
    apart = _distance(together, golden["outputs"])
    if not apart <= tolerance:
        yield Finding(
            "weights",
            f"answers are up to {apart:.1e} from those of Keras",
            "the weights are not the run's: export the run again",
        )
        return
    yield Finding("weights", f"answers are Keras's, within {apart:.1e}")
    apart = _distance(
        _joined(alone), {name: value.tolist() for name, value in together.items() if value.dtype != object}
    )
    if not apart <= tolerance:
        yield Finding(
            "rows",
            f"a row's answer moves by {apart:.1e} with the rows beside it",
            "mask padding: the server joins the requests of many clients",
        )
        return
    yield Finding("rows", f"one at a time or together, within {apart:.1e}")
    none = served.run({name: np.empty(0, object) for name in texts})
    counts = {len(value) for value in none.values()}
    yield Finding("empty batch", "no rows in, no rows out", None if counts == {0} else "answer no rows with no rows")


def _joined(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows answered one at a time as one batch; where a row has fewer answers, it is filled up as the export does."""
    found = {}
    for name in rows[0]:
        parts = [row[name] for row in rows]
        widest = max(part.shape[1] for part in parts) if parts[0].ndim == 2 else 0
        fill: Any = -1 if parts[0].dtype.kind == "i" else b"" if parts[0].dtype == object else 0.0
        if widest:
            parts = [np.pad(p, [(0, 0), (0, widest - p.shape[1])], constant_values=fill) for p in parts]
        found[name] = np.concatenate(parts)
    return found


def _distance(answers: dict[str, np.ndarray], wanted: dict[str, Any]) -> float:
    """The largest difference of any number; infinite where a shape or a name differs."""
    largest = 0.0
    for name, value in wanted.items():
        expected, found = np.asarray(value), answers.get(name)
        if found is None or found.shape != expected.shape:
            return np.inf
        if expected.dtype.kind == "f" and expected.size:
            largest = max(largest, float(np.abs(found - expected).max()))
    return largest


def _warm_up(served: Servable, folder: Path) -> Iterator[Finding]:
    path = folder / WARMUP
    if not path.is_file():
        yield Finding("warm-up", "no requests: the first client waits for what is made ready at the first call")
        return
    counts = []
    try:
        for texts, signature in warm_up_requests(path, messages()):
            served.run(texts, signature)
            counts.append(len(next(iter(texts.values()))))
    except (RuntimeFailedError, ValueError) as error:
        yield Finding("warm-up", f"request {len(counts) + 1}: {error}", "the server would not load it: export again")
        return
    yield Finding("warm-up", f"{len(counts)} requests of {', '.join(map(str, counts))} texts answered")


def main() -> None:
    """Check one folder; the last line printed is JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--serving", choices=(OLDEST, NEWER), default=OLDEST)
    options.add_argument("--name", required=True)
    given = options.parse_args()
    found = [dataclasses.asdict(one) for one in find(given.folder, given.serving, given.name)]
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
