"""The fastest arithmetic a machine has that keeps accuracy."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from tfft.errors import InvalidValueError

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bfloat16")
OPTION = "auto_mixed_precision_onednn_bfloat16"
CPU_FLAGS = ("avx512_bf16", "amx_bf16")  # without one of them bfloat16 products are emulated, and slower


def choose(precision: str = "auto") -> str:
    """ "float32" or "bfloat16": what was asked for, or what this machine is fastest with.

    Raises:
        InvalidValueError: no such precision.

    Examples:
        >>> from tfft.arithmetic import choose
        >>> choose("float32")
        'float32'
    """
    if precision not in PRECISIONS:
        raise InvalidValueError(f"precision must be one of: {', '.join(PRECISIONS)}. Received: {precision!r}")
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16() else "float32"


def has_bfloat16() -> bool:
    """Whether this machine's CPU multiplies bfloat16 matrices in hardware.

    A GPU is left at float32: TensorFlow multiplies in TF32 there by itself.
    """
    if tf.config.list_physical_devices("GPU"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8").partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return any(flag in flags for flag in CPU_FLAGS)


def product_dtype() -> str:
    """What matrix products are computed in just now: "float32" or "bfloat16"."""
    return "bfloat16" if tf.config.optimizer.get_experimental_options().get(OPTION, False) else "float32"


@contextlib.contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Compute matrix products in this precision in the `with` block; weights stay float32.

    On a CPU oneDNN's graph rewrite does it: no layer changes, so what is saved and exported is float32. What stands
    between two products in bfloat16, softmax, norms and sums among it, is computed in bfloat16 too. The option is the
    process's own and is put back at the end.

    Args:
        precision: "float32" or "bfloat16".

    Examples:
        >>> from tfft.arithmetic import arithmetic
        >>> with arithmetic("float32"):
        ...     pass
    """
    before = product_dtype()
    tf.config.optimizer.set_experimental_options({OPTION: precision == "bfloat16"})
    log.info("matrix products: %s", precision)
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({OPTION: before == "bfloat16"})
