"""Freed memory is kept for the next tensor, where the C library would give it back to the system.

glibc asks the system for every block of 128 KiB and more, and returns it when it is freed; tensors of a batch have
megabytes, so each of their pages is cleared and mapped anew in every step. By itself glibc learns from what is freed
and stops; TensorFlow 2.21 ends that with the first `tf.data.Dataset.from_generator` of a process (it sets
`M_TRIM_THRESHOLD` to 128 KiB, and says "Memory patch applied"). `benchmarks/memory.py` shows what that costs.
"""

import ctypes
import os

# Parameters of mallopt(3), by number, and what they are set to. Blocks of over 32 MiB glibc never takes from its heap.
SETTINGS = {
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: bytes free at a heap's end before it shrinks
    -2: 2**26,  # M_TOP_PAD: bytes a heap keeps more than it needs; a thread's is of as many
    -3: 2**25,  # M_MMAP_THRESHOLD: bytes from which a block has a mapping of its own
}
OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed() -> bool:
    """Have the C library keep what is freed; to be called again when TensorFlow may have undone it.

    Nothing is done where there is no glibc, or where the environment says how memory is managed (`MALLOC_..._` or
    `GLIBC_TUNABLES`).

    Returns:
        Whether it was done.
    """
    if any(name in os.environ for name in OWN) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(_c_library(), "mallopt", None)
    if mallopt is None:
        return False
    done = [mallopt(number, value) for number, value in SETTINGS.items()]
    return all(done)


def give_back() -> None:
    """Return to the system what is free."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _c_library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if os.name == "posix" else None
