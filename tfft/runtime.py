"""TensorFlow's C++ runtime without its Python: loads and runs a SavedModel as TensorFlow Serving does.

The server's own path is `LoadSavedModel` with the tag "serve" and `Session::Run` by tensor names; TensorFlow's C API is
the same code. XLA is off, as it is in the server unless asked for.

Only in a process that never imports TensorFlow: its Python loads the same libraries in another way, and the
process dies.
"""

import ctypes
import importlib.util
import sys
import types
from collections.abc import Collection, Mapping
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

# Serving 2.13 to 2.19 link TF-Text 2.12, which has none of their operations.
NEW_IN_SERVING_2_20 = ("_trimmer_ops.so", "_utf8_binarize_op.so")

STRING = 7  # TF_STRING
STRING_BYTES = 24  # sizeof(TF_TString)
DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 6: "int8", 9: "int64", 10: "bool", 19: "float16"}
CODES = {np.dtype(name): code for code, name in DTYPES.items()}


class RuntimeFailedError(RuntimeError):
    """What the runtime answered in place of a result."""


class _Buffer(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p)]


class _Output(ctypes.Structure):
    _fields_ = [("operation", c_void_p), ("index", c_int)]


# name -> (result, arguments)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "TF_Version": (c_char_p, []),
    "TF_NewStatus": (c_void_p, []),
    "TF_DeleteStatus": (None, [c_void_p]),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_LoadLibrary": (c_void_p, [c_char_p, c_void_p]),
    "TF_GetAllOpList": (POINTER(_Buffer), []),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_NewGraph": (c_void_p, []),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, POINTER(_Buffer), c_void_p],
    ),
    "TF_CloseSession": (None, [c_void_p, c_void_p]),
    "TF_DeleteSession": (None, [c_void_p, c_void_p]),
    "TF_DeleteGraph": (None, [c_void_p]),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_AllocateTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_size_t]),
    "TF_DeleteTensor": (None, [c_void_p]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_TensorByteSize": (c_size_t, [c_void_p]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_NumDims": (c_int, [c_void_p]),
    "TF_Dim": (c_int64, [c_void_p, c_int]),
    "TF_StringInit": (None, [c_void_p]),
    "TF_StringCopy": (None, [c_void_p, c_char_p, c_size_t]),
    "TF_StringDealloc": (None, [c_void_p]),
    "TF_StringGetDataPointer": (c_void_p, [c_void_p]),
    "TF_StringGetSize": (c_size_t, [c_void_p]),
    "TF_SessionRun": (
        None,
        [
            *(c_void_p, c_void_p),
            *(POINTER(_Output), POINTER(c_void_p), c_int),
            *(POINTER(_Output), POINTER(c_void_p), c_int),
            *(c_void_p, c_int, c_void_p, c_void_p),
        ],
    ),
}


def package_folder(name: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"the package {name} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def messages() -> Any:
    """TensorFlow's protocol messages, `meta_graph_pb2` and `saved_model_pb2`, without TensorFlow.

    They live below a package whose `__init__` would load the whole of it; an empty one stands in.
    """
    stand_in = sys.modules.get("tensorflow")
    if stand_in is None:
        folder, spec = package_folder("tensorflow"), importlib.util.find_spec("tensorflow")
        stand_in = types.ModuleType("tensorflow")
        stand_in.__path__, stand_in.__spec__ = [str(folder)], spec
        sys.modules["tensorflow"] = stand_in
    elif hasattr(stand_in, "constant"):
        raise RuntimeFailedError("TensorFlow's Python is loaded in this process; its C++ runtime needs one of its own")
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
    from tensorflow_serving.apis import prediction_log_pb2

    return types.SimpleNamespace(
        OpList=op_def_pb2.OpList,
        MetaGraphDef=meta_graph_pb2.MetaGraphDef,
        SavedModel=saved_model_pb2.SavedModel,
        PredictionLog=prediction_log_pb2.PredictionLog,
    )


class Runtime:
    """The loaded libraries.

    Args:
        without: file names of TF-Text libraries that are left out, as an older server has none of their operations.
        text: load TF-Text at all.
    """

    def __init__(self, without: Collection[str] = (), text: bool = True) -> None:
        self.messages = messages()  # before the libraries: it notices TensorFlow's Python
        folder = package_folder("tensorflow")
        # RTLD_GLOBAL: TF-Text's libraries carry a second protobuf, and abort where they find the first one hidden
        framework = ctypes.CDLL(str(_library(folder, "tensorflow_framework")), ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(_library(folder, "tensorflow_cc")), ctypes.RTLD_GLOBAL)
        self.c: Any = types.SimpleNamespace()
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name, None) or getattr(framework, name)
            function.restype, function.argtypes = result, arguments
            setattr(self.c, name, function)
        library["_ZN10tensorflow21DisableXlaCompilationEv"]()  # as the server's `main` does
        self.core_ops = self._ops()
        if text:
            for path in sorted((package_folder("tensorflow_text") / "python" / "ops").glob("*.so")):
                if path.name not in without:
                    with _Status(self) as status:
                        self.c.TF_LoadLibrary(str(path).encode(), status.pointer)
        self.version = self.c.TF_Version().decode()

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
        self.graph, meta = runtime.c.TF_NewGraph(), _Buffer()
        with _Status(runtime) as status:
            self.session = runtime.c.TF_LoadSessionFromSavedModel(
                runtime.c.TF_NewSessionOptions(),
                None,
                str(folder).encode(),
                (c_char_p * 1)(b"serve"),
                1,
                self.graph,
                byref(meta),
                status.pointer,
            )
        self.meta = runtime.messages.MetaGraphDef.FromString(ctypes.string_at(meta.data, meta.length))
        self.signatures = {n: s for n, s in self.meta.signature_def.items() if not n.startswith("__")}

    def close(self) -> None:
        """Give its memory back."""
        with _Status(self.runtime) as status:
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
        sources = (_Output * fed)(*(self._place(wanted.inputs[name].name) for name in inputs))
        targets = (_Output * asked)(*(self._place(wanted.outputs[name].name) for name in names))
        tensors = (c_void_p * fed)(*(self._tensor(value) for value in inputs.values()))
        results = (c_void_p * asked)()
        try:
            with _Status(self.runtime) as status:
                self.runtime.c.TF_SessionRun(
                    self.session, None, sources, tensors, fed, targets, results, asked, None, 0, None, status.pointer
                )
            return {name: self._array(tensor) for name, tensor in zip(names, results, strict=True)}
        finally:
            for tensor in filter(None, tensors):
                self._free_input(tensor)
            for tensor in filter(None, results):
                self.runtime.c.TF_DeleteTensor(tensor)

    def _place(self, name: str) -> _Output:
        operation, _, index = name.partition(":")
        found = self.runtime.c.TF_GraphOperationByName(self.graph, operation.encode())
        if not found:
            raise RuntimeFailedError(f"the graph has no tensor {name}")
        return _Output(found, int(index or 0))

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


class _Status:
    """The runtime's answer to one call, raised where it is a failure."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime

    def __enter__(self) -> "_Status":
        self.pointer = self.runtime.c.TF_NewStatus()
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        failed = self.runtime.c.TF_GetCode(self.pointer)
        said = self.runtime.c.TF_Message(self.pointer).decode(errors="replace")
        self.runtime.c.TF_DeleteStatus(self.pointer)
        if failed and kind is None:
            raise RuntimeFailedError(said)


def _library(folder: Path, name: str) -> Path:
    found = sorted(folder.glob(f"lib{name}*.so*")) + sorted(folder.glob(f"lib{name}*.dylib"))
    if not found:
        raise RuntimeFailedError(
            f"{folder} has no lib{name}: the proof runs where TensorFlow's wheel has one (Linux, macOS)"
        )
    return found[0]


def _shape(array: np.ndarray) -> tuple[Any, int]:
    return (c_int64 * array.ndim)(*array.shape), array.ndim
