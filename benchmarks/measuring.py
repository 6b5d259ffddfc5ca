"""Running one thing in a process of its own and keeping what was measured; standard library only.

This process must stay small: on Linux a child's peak memory counts from that of the process that started it.
"""

import contextlib
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]

TAIL = 12  # lines of a failed child's stderr that are shown
UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


class ChildError(RuntimeError):
    """A child failed; the message has its last lines."""


def run_child(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[str, Result]:
    """Run a command to its end.

    Args:
        command: program and arguments.
        environment: all of the child's environment; that of this process by default.

    Returns:
        What it printed, and `{"wall": seconds, "memory": peak bytes resident in one process, "others": share of the
        machine's processors that other processes took meanwhile}`; None for the last where the system does not say.

    Raises:
        ChildError: it could not be started, or did not exit with 0.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        start, busy = time.perf_counter(), _busy_seconds()
        try:
            child = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment)
        except OSError as error:
            raise ChildError(f"{command[0]} does not start: {error}") from error
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:  # Ctrl-C: leave no child behind
            child.kill()
            child.wait()
            raise
        wall, busy = time.perf_counter() - start, _busy_seconds() - busy
        child.returncode = os.waitstatus_to_exitcode(status)  # wait4 took it from Popen
        printed, complaint = _text(stdout), _text(stderr)
    if child.returncode:
        tail = "\n".join((complaint or printed).strip().splitlines()[-TAIL:])
        raise ChildError(f"exit code {child.returncode}: {' '.join(map(str, command))}\n{tail}")
    others = max(0.0, busy - usage.ru_utime - usage.ru_stime) / (wall * (os.cpu_count() or 1))
    return printed, {"wall": wall, "memory": usage.ru_maxrss * UNIT, "others": others if busy else None}


def run_script(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Result:
    """Run a script that reports `RESULT {json}`: its values, with wall time and memory.

    `setup`, where a `total` is reported, is all the rest of the wall time: start, imports, loading, end.
    """
    printed, usage = run_child(command, environment)
    lines = [line.removeprefix("RESULT ") for line in printed.splitlines() if line.startswith("RESULT ")]
    if len(lines) != 1:
        raise ChildError(f"expected one line RESULT {{json}}, found {len(lines)}: {' '.join(map(str, command))}")
    result = json.loads(lines[0]) | usage
    return result | ({"setup": usage["wall"] - result["total"]} if "total" in result else {})


def _busy_seconds() -> float:
    """Processor seconds of the whole machine since it started, what a hypervisor took included; 0 where unknown."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0
    user, nice, system, _, _, interrupts, soft, steal = map(int, path.read_text("utf-8").split()[1:9])
    return (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK")


def _text(file: Any) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace").replace("\r", "\n")


def read_records(path: Path) -> list[Result]:
    """The records of a results file; a last line that was cut off is left out."""
    records = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def append_record(path: Path, record: Result) -> None:
    """Add a record, whole and on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        cut_off = file.read(1) not in (b"", b"\n")
        file.write((b"\n" if cut_off else b"") + json.dumps(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[tuple[str, str]]:
    """Texts and labels of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def write_rows(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    """A CSV file of texts and labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
