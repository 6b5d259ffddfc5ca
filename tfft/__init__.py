"""tfft: fine-tune pretrained language models on TensorFlow, Keras 3 and KerasHub.

Importing this package loads neither TensorFlow nor Keras; the first use of a name does.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

from tfft._stack import check_stack, choose_keras_backend
from tfft._version import VERSION
from tfft.errors import StackError

__version__ = VERSION

try:
    check_stack()
    choose_keras_backend()
except StackError as error:
    if Path(sys.argv[0]).name in (
        "tfft",
        "-m",
    ):  # `tfft ...` and `python -m tfft.cli ...` end in a line, not a traceback
        sys.stderr.write(f"tfft: {error}\n")
        raise SystemExit(2) from None
    raise

# The embedded data: customer messages in six classes, a folder of train, validation and test files.
MESSAGES = Path(__file__).with_name("messages")

# public name -> the module it lives in
_PUBLIC = {
    "TfftError": "errors",
    "ServerError": "errors",
    "load_data": "data",
    "load_backbone": "backbones",
    "load_model": "legacy",
    "replace_head": "replacing",
    "FixedText": "fixed_text",
    "on_text": "fixed_text",
    "get_task": "tasks",
    "Task": "tasks.task",
    "softmax_head": "heads",
    "freeze": "freezing",
    "split": "activations",
    "join": "activations",
    "batches": "batching",
    "fit": "training",
    "predict": "evaluation",
    "evaluate": "evaluation",
    "export_saved_model": "export",
    "export_onnx": "onnx_export",
    "export_litert": "litert_export",
    "Run": "runs",
    "load_run": "runs",
    "with_decoding": "runs",
    "Recipe": "recipe",
    "train": "pipeline",
    "evaluate_run": "pipeline",
    "predict_texts": "pipeline",
    "advise_data": "pipeline",
    "embed": "embedding",
    "nearest": "embedding",
    "Client": "client",
    "Cache": "caching",
    "show_progress": "progress",
}

__all__ = ["MESSAGES", "__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"tfft.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'tfft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_PUBLIC))
