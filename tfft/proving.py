"""The proof that an export serves: starts the process that runs `tfft.checks`, and reads what it found."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from tfft.defaults import SERVING
from tfft.errors import NotFoundError
from tfft.servable import NUMERIC

EXTRA = "assets.extra"  # the server ignores what lies there, but for the warm-up
GOLDEN = f"{EXTRA}/golden.json"
WARMUP = f"{EXTRA}/tf_serving_warmup_requests"
SIDE_BY_SIDE = f"{EXTRA}/side_by_side"  # how many operations of an export run at once: a whole number

OLDEST, NEWER = SERVING


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        found: in words.
        cure: what to do; None where all is well.
    """

    check: str
    found: str
    cure: str | None = None


def versions(folder: Path) -> list[int]:
    """The versions a server would find in a model's folder, in order."""
    found = folder.glob("*") if folder.is_dir() else ()
    return sorted(int(entry.name) for entry in found if entry.name.isdecimal())


def is_export(folder: Path) -> bool:
    """Whether the folder is a model's with versions, or a version's."""
    return bool(versions(folder)) or _is_version(folder)


def _is_version(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("saved_model.pb", NUMERIC))


def newest(folder: Path) -> Path:
    """The folder itself if it is a version's, else that of its highest version.

    Raises:
        NotFoundError: there is none.
    """
    if _is_version(folder):
        return folder
    found = versions(folder)
    if not found:
        raise NotFoundError(f"{folder} has no version folder (1, 2, ...). `tfft export RUN {folder}` makes one")
    return folder / str(found[-1])


def prove(folder: Path, serving: str = OLDEST, version: str | None = None) -> list[Finding]:
    """Check a version's folder in a process of its own.

    Args:
        folder: with `saved_model.pb`.
        serving: the oldest TensorFlow Serving it must load in, "2.13" or "2.20".
        version: the name the folder will have; its own by default.
    """
    name = version or folder.name
    # -P: without it the folder one stands in comes before the installed packages
    command = [sys.executable, "-P", "-m", "tfft.checks", str(folder), "--serving", serving, "--name", name]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    last = child.stdout.strip().rpartition("\n")[2]
    try:
        return [Finding(**found) for found in json.loads(last)]
    except ValueError:
        said = child.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        how = f"exit code {child.returncode}" if child.returncode >= 0 else f"signal {-child.returncode}"
        return [Finding("load", f"the runtime died ({how}): {said[0]}", "export the run again")]
