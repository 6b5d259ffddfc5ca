"""What tfft stands on: versions that do not fit are one readable line, and importing it is cheap."""

import configparser
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from tfft._stack import RANGES, check_stack
from tfft.errors import StackError

ROOT = Path(__file__).parents[1]
GOOD = {"tensorflow": "2.21.0", "tensorflow-text": "2.21.1", "keras": "3.15.1", "keras-hub": "0.32.0"}
HEAVY = {"tensorflow", "tensorflow_text", "tensorflow_datasets", "keras", "keras_hub", "pandas", "numpy", "sklearn"}


def _lying(versions: dict[str, str | None]) -> Callable[[str], str]:
    def installed(name: str) -> str:
        found = (GOOD | versions)[name]
        if found is None:
            raise PackageNotFoundError(name)
        return found

    return installed


def _python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=plain | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "versions",
    [
        {},
        {"tensorflow": "2.21.5", "tensorflow-text": "2.21.9"},
        {"tensorflow": "2.21"},
        {"tensorflow": "2.21.0rc1"},
        {"keras": "3.15.0.dev20260101", "keras-hub": "0.32.7"},
        {"keras": "3.15"},
    ],
)
def test_fitting_versions_pass(versions: dict[str, str | None]) -> None:
    check_stack(_lying(versions))


def test_the_installed_versions_fit() -> None:
    check_stack()


TF_WHY = "TF-Text's ops are compiled against one minor version of TensorFlow"
TEXT_WHY = "2.21.0 breaks KerasHub's tokenizers, other minors do not load"
KERAS_WHY = "tfft walks the functional graph's private nodes"
HUB_WHY = "tokenizers change between minor versions"


@pytest.mark.parametrize(
    ("name", "found", "needed", "beside", "why"),
    [
        ("tensorflow", "2.20.0", ">=2.21,<2.22", "tensorflow-text 2.21.1", TF_WHY),
        ("tensorflow", "2.22.0", ">=2.21,<2.22", "tensorflow-text 2.21.1", TF_WHY),
        ("tensorflow", "2.22.0rc1", ">=2.21,<2.22", "tensorflow-text 2.21.1", TF_WHY),
        ("tensorflow-text", "2.20.1", ">=2.21.1,<2.22", "tensorflow 2.21.0", TEXT_WHY),
        ("tensorflow-text", "2.21.0", ">=2.21.1,<2.22", "tensorflow 2.21.0", TEXT_WHY),
        ("tensorflow-text", "2.22.0", ">=2.21.1,<2.22", "tensorflow 2.21.0", TEXT_WHY),
        ("keras", "3.14.9", ">=3.15,<3.16", "tensorflow 2.21.0", KERAS_WHY),
        ("keras", "3.16.0", ">=3.15,<3.16", "tensorflow 2.21.0", KERAS_WHY),
        ("keras", "2.15.0", ">=3.15,<3.16", "tensorflow 2.21.0", KERAS_WHY),
        ("keras-hub", "0.31.1", ">=0.32,<0.33", "tensorflow 2.21.0", HUB_WHY),
        ("keras-hub", "1.0", ">=0.32,<0.33", "tensorflow 2.21.0", HUB_WHY),
        ("keras-hub", "unknown", ">=0.32,<0.33", "tensorflow 2.21.0", HUB_WHY),
    ],
)
def test_versions_that_do_not_fit_are_named(name: str, found: str, needed: str, beside: str, why: str) -> None:
    message = (
        f"tfft needs {name} {needed} beside {beside}. Found: {name} {found} ({why}). Run: pip install '{name}{needed}'"
    )
    with pytest.raises(StackError, match=f"^{re.escape(message)}$"):
        check_stack(_lying({name: found}))


def test_tensorflow_text_2_21_0_is_told_in_these_words() -> None:
    message = (
        "tfft needs tensorflow-text >=2.21.1,<2.22 beside tensorflow 2.21.0. Found: tensorflow-text 2.21.0 "
        "(2.21.0 breaks KerasHub's tokenizers, other minors do not load). "
        "Run: pip install 'tensorflow-text>=2.21.1,<2.22'"
    )
    with pytest.raises(StackError) as caught:
        check_stack(_lying({"tensorflow-text": "2.21.0"}))
    assert str(caught.value) == message


@pytest.mark.parametrize(("name", "needed"), [(name, _) for name, _ in zip(GOOD, RANGES, strict=True)])
def test_missing_packages_are_named(name: str, needed: tuple[str, tuple[int, ...], tuple[int, ...], str]) -> None:
    assert needed[0] == name
    low, high = (".".join(map(str, release)) for release in needed[1:3])
    message = f"tfft needs {name}, which is not installed. Run: pip install '{name}>={low},<{high}'"
    with pytest.raises(StackError, match=f"^{re.escape(message)}$"):
        check_stack(_lying({name: None}))


def test_the_ranges_are_those_of_the_installation() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    needed = config["options"]["install_requires"].split()
    for name, low, high, _ in RANGES:
        assert [line for line in needed if re.match(rf"{name}[<>=!~]", line)] == [
            f"{name}>={'.'.join(map(str, low))},<{'.'.join(map(str, high))}"
        ]


def test_another_keras_backend_is_refused() -> None:
    done = _python("-c", "import tfft", KERAS_BACKEND="jax")
    message = (
        "tfft runs on Keras's TensorFlow backend. Found: KERAS_BACKEND=jax. "
        "Set KERAS_BACKEND=tensorflow before the first import of keras"
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"tfft.errors.StackError: {message}"


def test_the_command_line_says_so_in_one_line() -> None:
    done = _python("-m", "tfft.cli", "tasks", KERAS_BACKEND="jax")
    message = (
        "tfft runs on Keras's TensorFlow backend. Found: KERAS_BACKEND=jax. "
        "Set KERAS_BACKEND=tensorflow before the first import of keras"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"tfft: {message}\n")


@pytest.mark.parametrize("backend", ["", "tensorflow"])
def test_the_tensorflow_backend_is_chosen(backend: str) -> None:
    done = _python("-c", "import os, tfft; print(os.environ['KERAS_BACKEND'])", KERAS_BACKEND=backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, "tensorflow\n", "")


LIGHT = {
    "import": "import tfft",
    "public names": "import tfft; dir(tfft), tfft.Recipe, tfft.TfftError, tfft.show_progress",
    "help": "from tfft.cli import main; main(['--help'])",
    "help of train": "from tfft.cli import main; main(['train', '--help'])",
    "tasks": "from tfft.cli import main; main(['tasks'])",
    "backbones": "from tfft.cli import main; main(['backbones'])",
    "fault": "from tfft.cli import main; main(['train', '--data', 'a.csv', '--out', 'x', '--epochs', '0'])",
}


@pytest.mark.parametrize("code", LIGHT.values(), ids=LIGHT)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    watched = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted({name.split('.')[0] for name in sys.modules}))))\n"
    )
    done = _python("-c", watched + code)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "tfft" in loaded, done.stderr
    assert not loaded & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_and_version_end_well(arguments: list[str]) -> None:
    done = _python("-m", "tfft.cli", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tfft 0." if arguments == ["--version"] else "usage: tfft ")
