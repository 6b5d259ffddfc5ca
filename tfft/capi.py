"""TensorFlow's C API by `ctypes`: its functions, its messages, and how its libraries are found and loaded.

Only for a process that never imports TensorFlow: its Python loads the same libraries in another way, and the process
dies.
"""

import ctypes
import importlib.util
import sys
import types
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any


class RuntimeFailedError(RuntimeError):
    """What the runtime answered in place of a result.

    Attributes:
        code: TensorFlow's; 3 is an invalid argument.
    """

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.code = code


STRING = 7  # TF_STRING
DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 6: "int8", 9: "int64", 10: "bool", 19: "float16"}


class Buffer(ctypes.Structure):
    """TF_Buffer: a message in bytes."""

    _fields_ = [("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p)]


class Output(ctypes.Structure):
    """TF_Output: one output of an operation."""

    _fields_ = [("operation", c_void_p), ("index", c_int)]


# name -> (result, arguments)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "TF_Version": (c_char_p, []),
    "TF_NewStatus": (c_void_p, []),
    "TF_DeleteStatus": (None, [c_void_p]),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_LoadLibrary": (c_void_p, [c_char_p, c_void_p]),
    "TF_GetAllOpList": (POINTER(Buffer), []),
    "TF_NewBuffer": (POINTER(Buffer), []),
    "TF_DeleteBuffer": (None, [POINTER(Buffer)]),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_DeleteSessionOptions": (None, [c_void_p]),
    "TF_SetConfig": (None, [c_void_p, c_char_p, c_size_t, c_void_p]),
    "TF_NewGraph": (c_void_p, []),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, POINTER(Buffer), c_void_p],
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
            *(POINTER(Output), POINTER(c_void_p), c_int),
            *(POINTER(Output), POINTER(c_void_p), c_int),
            *(c_void_p, c_int, c_void_p, c_void_p),
        ],
    ),
}


def load() -> Any:
    """The C API's functions by name, XLA off as the server's `main` turns it off."""
    folder = package_folder("tensorflow")
    # RTLD_GLOBAL: TF-Text's libraries carry a second protobuf, and abort where they find the first one hidden
    framework = ctypes.CDLL(str(_library(folder, "tensorflow_framework")), ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(_library(folder, "tensorflow_cc")), ctypes.RTLD_GLOBAL)
    functions = types.SimpleNamespace()
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name, None) or getattr(framework, name)
        function.restype, function.argtypes = result, arguments
        setattr(functions, name, function)
    library["_ZN10tensorflow21DisableXlaCompilationEv"]()
    return functions


def package_folder(name: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"the package {name} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def messages() -> Any:
    """TensorFlow's protocol messages, and the server's, without TensorFlow.

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
    from tensorflow.core.example import example_pb2
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, saved_model_pb2
    from tensorflow_serving.apis import prediction_log_pb2
    from tensorflow_serving.config import model_server_config_pb2

    return types.SimpleNamespace(
        ConfigProto=config_pb2.ConfigProto,
        OpList=op_def_pb2.OpList,
        MetaGraphDef=meta_graph_pb2.MetaGraphDef,
        SavedModel=saved_model_pb2.SavedModel,
        SignatureDef=meta_graph_pb2.SignatureDef,
        PredictionLog=prediction_log_pb2.PredictionLog,
        Example=example_pb2.Example,
        ModelServerConfig=model_server_config_pb2.ModelServerConfig,
    )


class Status:
    """The runtime's answer to one call, raised where it is a failure."""

    def __init__(self, c: Any) -> None:
        self.c = c

    def __enter__(self) -> "Status":
        self.pointer = self.c.TF_NewStatus()
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        failed = self.c.TF_GetCode(self.pointer)
        said = self.c.TF_Message(self.pointer).decode(errors="replace")
        self.c.TF_DeleteStatus(self.pointer)
        if failed and kind is None:
            raise RuntimeFailedError(said, failed)


def _library(folder: Path, name: str) -> Path:
    found = sorted(folder.glob(f"lib{name}*.so*")) + sorted(folder.glob(f"lib{name}*.dylib"))
    if not found:
        raise RuntimeFailedError(
            f"{folder} has no lib{name}: the proof runs where TensorFlow's wheel has one (Linux, macOS)"
        )
    return found[0]
