"""What can answer requests: a loaded version of a model, as a SavedModel or for ONNX Runtime."""

import concurrent.futures
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tfft.capi import RuntimeFailedError

# The files of an ONNX export.
NUMERIC = "model.onnx"  # token ids to numbers
ENDS = "ends"  # a SavedModel: texts to token ids, numbers to answers
SETTINGS = "onnx.json"

GROUP_TOKENS = 256  # positions computed together: a network in ONNX computes padding, too


class Servable(Protocol):
    """A loaded version."""

    @property
    def signatures(self) -> Mapping[str, Any]:
        """Name -> `SignatureDef`."""

    def run(self, inputs: Mapping[str, Any], signature: str = "serving_default") -> dict[str, np.ndarray]:
        """Outputs of a signature, batch first."""

    def close(self) -> None:
        """Give its memory back."""


class OnnxServed:
    """An ONNX export: its two ends in TensorFlow's C++ runtime, its numbers in ONNX Runtime.

    The network is loaded twice: for all processors to compute one group of rows together, and for each to compute one
    alone. Together they wait for one another in every operation, so many groups take less time alone.

    Args:
        runtime: `tfft.runtime.Runtime`.
        folder: with `model.onnx` and `ends/`.
    """

    def __init__(self, runtime: Any, folder: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise RuntimeFailedError("an ONNX export needs onnxruntime: pip install 'tfft[onnx]'") from None
        settings = json.loads((folder / SETTINGS).read_text("utf-8"))
        self.names, self.ends = settings["inputs"], runtime.load(folder / ENDS)
        try:
            self.alone = _session(onnxruntime, folder, 1)
            self.together = _session(onnxruntime, folder, runtime.processors) if runtime.processors > 1 else self.alone
        except Exception as error:  # noqa: BLE001 - its own have no common base
            self.ends.close()
            raise RuntimeFailedError(f"{folder / NUMERIC}: {error}") from None
        self.processors = runtime.processors
        self.pool = concurrent.futures.ThreadPoolExecutor(runtime.processors, "onnx")
        encode, decode = self.ends.signatures["encode"], self.ends.signatures["decode"]
        whole, tokens = runtime.messages.SignatureDef(), runtime.messages.SignatureDef()
        for wanted, outputs in ((whole, decode.outputs), (tokens, {"token_ids": encode.outputs["token_ids"]})):
            wanted.inputs["text"].CopyFrom(encode.inputs["text"])
            for name, info in outputs.items():
                wanted.outputs[name].CopyFrom(info)
            wanted.method_name = encode.method_name
        self.signatures = {"serving_default": whole, "tokenize": tokens}

    def run(self, inputs: Mapping[str, Any], signature: str = "serving_default") -> dict[str, np.ndarray]:
        """As `tfft.runtime.Served.run`."""
        if signature not in self.signatures:
            raise RuntimeFailedError(f"no signature {signature!r}; there are: {', '.join(sorted(self.signatures))}")
        rows = len(inputs["text"]) if set(inputs) == {"text"} else 1
        x = self.ends.run(inputs if rows else {"text": [""]}, "encode")  # ONNX Runtime has no batch of none
        if signature == "tokenize":
            return {"token_ids": x["token_ids"][:rows]}
        found = self.ends.run({"answers": self._numbers(x)}, "decode")
        return {name: value[:rows] for name, value in found.items()}

    def _numbers(self, x: Mapping[str, np.ndarray]) -> np.ndarray:
        """The network's outputs, in the order of the rows; like rows together, each group cut to its longest."""
        lengths = x["padding_mask"].sum(axis=1)
        order = np.argsort(lengths, kind="stable")
        groups, begin = [], 0
        while begin < len(order):
            ends = lengths[order[begin:]] * np.arange(1, len(order) - begin + 1)
            end = begin + max(int(np.searchsorted(ends, GROUP_TOKENS, side="right")), 1)
            picked, longest = order[begin:end], max(int(lengths[order[end - 1]]), 1)
            groups.append({name: x[name][picked, :longest] for name in self.names})
            begin = end
        if len(groups) < self.processors:
            parts = [self.together.run(None, group)[0] for group in groups]
        else:
            parts = list(self.pool.map(lambda group: self.alone.run(None, group)[0], groups))
        return np.concatenate(parts)[np.argsort(order, kind="stable")]

    def close(self) -> None:
        """Give its memory back."""
        self.pool.shutdown()
        del self.together, self.alone
        self.ends.close()


def _session(onnxruntime: Any, folder: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(folder / NUMERIC), options, providers=["CPUExecutionProvider"])


def load(runtime: Any, folder: Path) -> Servable:
    """A version's folder, ready to answer.

    Args:
        runtime: `tfft.runtime.Runtime`.
        folder: with `saved_model.pb`, or with `model.onnx`.

    Raises:
        RuntimeFailedError: it cannot be loaded.
    """
    if (folder / NUMERIC).exists():
        return OnnxServed(runtime, folder)
    served: Servable = runtime.load(folder)
    return served
