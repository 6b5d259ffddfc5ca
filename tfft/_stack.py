"""The versions tfft stands on, checked once at import, before anything heavy is loaded."""

import os
import re
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from tfft.errors import StackError

Release = tuple[int, ...]

# distribution, lowest release, first release that is too new, why. The same ranges stand in setup.cfg.
RANGES: tuple[tuple[str, Release, Release, str], ...] = (
    ("tensorflow", (2, 21), (2, 22), "TF-Text's ops are compiled against one minor version of TensorFlow"),
    ("tensorflow-text", (2, 21, 1), (2, 22), "2.21.0 breaks KerasHub's tokenizers, other minors do not load"),
    ("keras", (3, 15), (3, 16), "tfft walks the functional graph's private nodes"),
    ("keras-hub", (0, 32), (0, 33), "tokenizers change between minor versions"),
)


def check_stack(installed: Callable[[str], str] = version) -> None:
    """Raise `StackError` with one readable line if an installed version does not fit.

    Args:
        installed: distribution name -> version string; a parameter so that tests can lie.
    """
    found = {}
    for name, *_ in RANGES:
        try:
            found[name] = installed(name)
        except PackageNotFoundError:
            raise StackError(f"tfft needs {name}, which is not installed. Run: {_fix(name)}") from None
    for name, low, high, why in RANGES:
        if not low <= _release(found[name]) < high:
            anchor = "tensorflow" if name != "tensorflow" else "tensorflow-text"
            raise StackError(
                f"tfft needs {name} {_range(name)} beside {anchor} {found[anchor]}. "
                f"Found: {name} {found[name]} ({why}). Run: {_fix(name)}"
            )


def choose_keras_backend() -> None:
    """Make Keras use TensorFlow, or say why it cannot."""
    loaded = sys.modules.get("keras")
    chosen = loaded.config.backend() if loaded and hasattr(loaded, "config") else os.environ.get("KERAS_BACKEND")
    if chosen not in (None, "", "tensorflow"):
        raise StackError(
            f"tfft runs on Keras's TensorFlow backend. Found: KERAS_BACKEND={chosen}. "
            "Set KERAS_BACKEND=tensorflow before the first import of keras"
        )
    os.environ["KERAS_BACKEND"] = "tensorflow"


def _release(text: str) -> Release:
    """The leading numbers of a version: "2.21.0rc1" -> (2, 21, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _range(name: str) -> str:
    low, high = next((low, high) for n, low, high, _ in RANGES if n == name)
    return f">={'.'.join(map(str, low))},<{'.'.join(map(str, high))}"


def _fix(name: str) -> str:
    return f"pip install '{name}{_range(name)}'"
