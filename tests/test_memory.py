"""What the C library does with freed memory, counted in page faults by processes of their own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

FAULTS = """
import resource, sys
import numpy as np
import tensorflow as tf
from tfft import memory
from tfft.batching import batches
from tfft.examples import Examples

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(25):
        np.ones(2**22, np.float32)  # 4,096 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "batches":
    rows = Examples({"token_ids": tf.ragged.constant([[5, 6], [5]], dtype=tf.int32)}, np.eye(2), np.ones(2), {})
    list(batches(rows, ["token_ids"], 2, seed=0))
if sys.argv[1] == "back":
    kept = memory.keep_freed()
    resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
    many = [np.ones(2**18, np.float32) for _ in range(200)]  # 1 MiB each
    before = resident()
    del many
    held = before - resident()
    memory.give_back()
    print(kept, held < 50 * 2**20, before - resident() > 150 * 2**20)
else:
    faults()
    print(faults())
"""


def child(what: str, **environment: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    own |= {"PYTHONPATH": str(Path(__file__).parents[1]), "NUMPY_MADVISE_HUGEPAGE": "0"}
    command = [sys.executable, "-c", FAULTS, what]
    return subprocess.run(command, env=own | environment, capture_output=True, text=True, check=True).stdout.strip()


@glibc
def test_batches_of_tfft_leave_freed_memory_where_the_next_tensor_finds_it() -> None:
    assert int(child("batches")) < 2_000  # of 102,400 pages that were written


@glibc
def test_who_sets_malloc_is_left_alone() -> None:
    assert int(child("batches", MALLOC_TRIM_THRESHOLD_="131072")) > 10_000


@pytest.mark.parametrize(("name", "value"), [("MALLOC_TOP_PAD_", "0"), ("GLIBC_TUNABLES", "glibc.malloc.top_pad=1")])
def test_so_is_who_sets_another_of_its_numbers(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    from tfft import memory

    monkeypatch.setenv(name, value)
    monkeypatch.setattr(memory, "_c_library", lambda: pytest.fail("nothing was to be set"))
    assert not memory.keep_freed()


@glibc
def test_what_is_kept_is_given_back_when_asked() -> None:
    assert child("back") == "True True True"


def test_where_there_is_no_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    from tfft import memory

    monkeypatch.setattr(memory, "_c_library", lambda: None)
    assert not memory.keep_freed()
    memory.give_back()
