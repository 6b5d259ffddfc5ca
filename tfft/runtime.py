"""TensorFlow's C++ runtime without its Python: loads and runs a SavedModel as TensorFlow Serving does.

The server's own path is `LoadSavedModel` with the tag "serve" and `Session::Run` by tensor names; TensorFlow's C API is
the same code. XLA is off, as it is in the server unless asked for.

Only in a process that never imports TensorFlow; see `tfft.capi`.
"""

import ctypes
from collections.abc import Collection, Mapping
from ctypes import c_char_p, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from tfft import machine, memory
from tfft.capi import DTYPES, STRING, Output, RuntimeFailedError, Status, load, messages, package_folder
from tfft.proving import SIDE_BY_SIDE

STRING_BYTES = 24  # sizeof(TF_TString)
CODES = {np.dtype(name): code for code, name in DTYPES.items()}


class Runtime:
    """The loaded libraries.

    Args:
        without: file names of TF-Text libraries that are left out, as an older server has none of their operations.

    Attributes:
        processors: how many this process may use.
    """

    def __init__(self, without: Collection[str] = ()) -> None:
        memory.keep_freed()
        self.messages = messages()  # before the libraries: it notices TensorFlow's Python
        self.c = load()
        self.core_ops = self._ops()
        for path in sorted((package_folder("tensorflow_text") / "python" / "ops").glob("*.so")):
            if path.name not in without:
                with Status(self.c) as status:
                    self.c.TF_LoadLibrary(str(path).encode(), status.pointer)
        self.version = self.c.TF_Version().decode()
        self.processors = machine.processors()

    def _ops(self) -> frozenset[str]:
        buffer = self.c.TF_GetAllOpList().contents
        listed = self.messages.OpList.FromString(ctypes.string_at(buffer.data, buffer.length))
        return frozenset(op.name for op in listed.op)

    def load(self, folder: Path) -> "Served":
        """A version's folder, ready to answer."""
        return Served(self, folder)


class Served:
    """A SavedModel in the runtime.

    Attributes:
        signatures: name -> `SignatureDef`.
    """

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self.runtime = runtime
        c = runtime.c
        config = runtime.messages.ConfigProto(
            intra_op_parallelism_threads=_threads(folder, runtime.processors)
        ).SerializeToString()
        self.graph, options, meta = c.TF_NewGraph(), c.TF_NewSessionOptions(), c.TF_NewBuffer()
        tags = (c_char_p * 1)(b"serve")
        try:
            with Status(c) as status:
                c.TF_SetConfig(options, config, len(config), status.pointer)
            with Status(c) as status:
                self.session = c.TF_LoadSessionFromSavedModel(
                    options, None, str(folder).encode(), tags, 1, self.graph, meta, status.pointer
                )
            content = ctypes.string_at(meta.contents.data, meta.contents.length)
        except RuntimeFailedError:
            c.TF_DeleteGraph(self.graph)
            raise
        finally:
            c.TF_DeleteBuffer(meta)
            c.TF_DeleteSessionOptions(options)
        found = runtime.messages.MetaGraphDef.FromString(content).signature_def.items()
        copied = runtime.messages.SignatureDef.FromString  # a part of the message would keep the whole, graph and all
        self.signatures = {n: copied(s.SerializeToString()) for n, s in found if not n.startswith("__")}

    def close(self) -> None:
        """Give its memory back."""
        with Status(self.runtime.c) as status:
            self.runtime.c.TF_CloseSession(self.session, status.pointer)
            self.runtime.c.TF_DeleteSession(self.session, status.pointer)
        self.runtime.c.TF_DeleteGraph(self.graph)

    def run(self, inputs: Mapping[str, Any], signature: str = "serving_default") -> dict[str, np.ndarray]:
        """Answers of a signature.

        Args:
            inputs: name -> array; texts as a list of `str` or `bytes`.
            signature: its name.

        Returns:
            name -> array; strings as an array of `bytes` objects.

        Raises:
            RuntimeFailedError: the runtime's own words.
        """
        if signature not in self.signatures:
            raise RuntimeFailedError(f"no signature {signature!r}; there are: {', '.join(sorted(self.signatures))}")
        wanted = self.signatures[signature]
        if set(inputs) != set(wanted.inputs):
            raise RuntimeFailedError(f"{signature} takes {sorted(wanted.inputs)}. Received: {sorted(inputs)}")
        names = sorted(wanted.outputs)
        fed, asked = len(inputs), len(names)
        sources = (Output * fed)(*(self._place(wanted.inputs[name].name) for name in inputs))
        targets = (Output * asked)(*(self._place(wanted.outputs[name].name) for name in names))
        tensors = (c_void_p * fed)(*(self._tensor(value) for value in inputs.values()))
        results = (c_void_p * asked)()
        try:
            with Status(self.runtime.c) as status:
                self.runtime.c.TF_SessionRun(
                    self.session, None, sources, tensors, fed, targets, results, asked, None, 0, None, status.pointer
                )
            return {name: self._array(tensor) for name, tensor in zip(names, results, strict=True)}
        finally:
            for tensor in filter(None, tensors):
                self._free_input(tensor)
            for tensor in filter(None, results):
                self.runtime.c.TF_DeleteTensor(tensor)

    def _place(self, name: str) -> Output:
        operation, _, index = name.partition(":")
        found = self.runtime.c.TF_GraphOperationByName(self.graph, operation.encode())
        if not found:
            raise RuntimeFailedError(f"the graph has no tensor {name}")
        return Output(found, int(index or 0))

    def _tensor(self, value: Any) -> int:
        array = np.asarray(value)
        if array.dtype.kind in "USO":
            return self._string_tensor(array.astype(object))
        code = CODES[array.dtype]
        tensor = self.runtime.c.TF_AllocateTensor(code, *_shape(array), array.nbytes)
        if array.nbytes:
            ctypes.memmove(self.runtime.c.TF_TensorData(tensor), np.ascontiguousarray(array).ctypes.data, array.nbytes)
        return int(tensor)

    def _string_tensor(self, array: np.ndarray) -> int:
        tensor = self.runtime.c.TF_AllocateTensor(STRING, *_shape(array), STRING_BYTES * array.size)
        start = self.runtime.c.TF_TensorData(tensor) or 0
        for place, text in enumerate(array.ravel()):
            content = text if isinstance(text, bytes) else str(text).encode()
            self.runtime.c.TF_StringInit(start + STRING_BYTES * place)
            self.runtime.c.TF_StringCopy(start + STRING_BYTES * place, content, len(content))
        return int(tensor)

    def _array(self, tensor: int) -> np.ndarray:
        runtime = self.runtime
        shape = [runtime.c.TF_Dim(tensor, axis) for axis in range(runtime.c.TF_NumDims(tensor))]
        start, code = runtime.c.TF_TensorData(tensor), runtime.c.TF_TensorType(tensor)
        if code != STRING:
            content = ctypes.string_at(start, runtime.c.TF_TensorByteSize(tensor)) if start else b""
            return np.frombuffer(content, DTYPES[code]).reshape(shape)
        texts = np.empty(int(np.prod(shape, dtype=int)), object)
        for place in range(len(texts)):
            text = start + STRING_BYTES * place
            texts[place] = ctypes.string_at(runtime.c.TF_StringGetDataPointer(text), runtime.c.TF_StringGetSize(text))
        return texts.reshape(shape)

    def _free_input(self, tensor: int) -> None:
        runtime = self.runtime  # its strings were put there by hand, in plain memory
        if runtime.c.TF_TensorType(tensor) == STRING:
            start = runtime.c.TF_TensorData(tensor)
            for place in range(runtime.c.TF_TensorByteSize(tensor) // STRING_BYTES):
                runtime.c.TF_StringDealloc(start + STRING_BYTES * place)
        runtime.c.TF_DeleteTensor(tensor)


def _shape(array: np.ndarray) -> tuple[Any, int]:
    return (c_int64 * array.ndim)(*array.shape), array.ndim


def _threads(folder: Path, processors: int) -> int:
    """Threads of one operation: those that run side by side share the processors, and would wait for one another.

    All versions of a process compute with those of the first, for TensorFlow makes its pool of them once.
    """
    path = folder / SIDE_BY_SIDE
    if not path.exists():
        return processors
    said = path.read_text("utf-8", errors="replace").strip()
    if not said.isdecimal() or int(said) < 1:
        raise RuntimeFailedError(f"{path}: expected a whole number from 1. Received: {said!r}. Export again")
    return max(processors // int(said), 1)
