"""A run is a folder that everything later needs and nothing else: whole or absent, never half."""

import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tfft import lora
from tfft.backbones import load_backbone
from tfft.decoding import Decoding, from_pairs
from tfft.errors import InvalidValueError, NotFoundError
from tfft.examples import Examples
from tfft.seeding import is_seed
from tfft.tasks import get_task
from tfft.tasks.task import Facts, Task, answering_model, on_backbone

# config.json       the recipe, as resolved
# environment.json  versions, command, machine
# facts.json        what the training rows fixed: label names
# history.csv       one row an epoch
# metrics.json      scores, seconds, rows
# preset/           the backbone and its tokenizer as a KerasHub preset: `--backbone runs/x/preset` goes on from it
# head.safetensors  the head's weights
# adapter.safetensors  with lora: the adapters; the preset is then what is beneath them


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model with all that is needed to use it.

    Attributes:
        model: flat functional model, backbone and head.
        tokenizer: KerasHub's; of a model on `tfft.on_text`, its texts.
        task: what was trained.
        facts: what it learnt from the training rows.
        config: the recipe, as resolved, as plain data; of a model made in Python the two settings an export asks for:
            how texts are cleaned, and how many tokens they have at most.
        metrics: scores, seconds and rows, where it was read from a folder that has them.
        environment: versions and machine, likewise.
    """

    model: keras.Model
    tokenizer: Any
    task: Task
    facts: Facts
    config: dict[str, Any] = dataclasses.field(default_factory=lambda: {"clean": [], "max_length": 512})
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def tokenizers(self) -> list[Any]:
        """All that texts go through: of a model with several inputs on `tfft.on_text` one for each."""
        return list(self.tokenizer.values()) if isinstance(self.tokenizer, Mapping) else [self.tokenizer]

    @functools.cached_property
    def answering(self) -> keras.Model:
        """The model that answers; `model`, but where the task has another for it."""
        return answering_model(self.task, self.model, self.facts)

    @property
    def judged(self) -> keras.Model:
        """The model whose outputs are scored."""
        return self.model if self.task.by_likelihood else self.answering


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to write into, renamed to `path` at the end of a `with` block that did not fail, else removed.

    Raises:
        InvalidValueError: the path exists already.
    """
    target = Path(path)
    refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    scratch.chmod(0o777 & ~_umask())
    try:
        yield scratch
        refuse_existing(target)
        scratch.rename(target)
    except BaseException:  # Ctrl-C too
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def refuse_existing(path: str | os.PathLike[str]) -> None:
    """Raise if there is something at the path already: results are never overwritten."""
    if os.path.lexists(path):
        raise InvalidValueError(f"{os.fspath(path)} exists already. Choose another folder, or remove it")


def check_space(path: str | os.PathLike[str], model: keras.Model) -> None:
    """Raise if the disk cannot hold the model's weights: better before the training than after it."""
    place = next(folder for folder in Path(path).absolute().parents if os.path.lexists(folder))
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InvalidValueError(f"{os.fspath(path)} cannot be made: {place} is no folder one can write to")
    free, needed = shutil.disk_usage(place).free, 4 * model.count_params() + 2**20
    if free < needed:
        raise InvalidValueError(
            f"{place} has {free / 2**20:.1f} MB left, a run of this backbone takes about {needed / 2**20:.1f} MB. "
            "Make room, or choose another --out"
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def run_examples(run: Run, rows: pd.DataFrame) -> Examples:
    """Rows, encoded and cut as the run's own were."""
    examples = run.task.encode(rows, run.tokenizer, run.facts, cleaning=run.config["clean"])
    return run.task.cut(examples, run.tokenizer, run.config["max_length"])[0]


def save_run(folder: Path, run: Run, backbone: Any, history: Mapping[str, np.ndarray]) -> None:
    """Write a run into an existing folder, best one from `new_folder`; all but `metrics.json`."""
    with lora.apart(backbone):
        backbone.save_to_preset(folder / "preset")
    run.tokenizer.save_to_preset(folder / "preset")
    save_file(_head_weights(run.model, backbone), folder / "head.safetensors")
    if lora.adapters(backbone):
        save_file(lora.weights(backbone), folder / lora.FILE)
    columns = list(history)
    lines = [",".join(columns), *(",".join(str(value) for value in row) for row in zip(*history.values(), strict=True))]
    (folder / "history.csv").write_text("\n".join(lines) + "\n", "utf-8")
    for name, content in (("config", run.config), ("environment", environment()), ("facts", run.facts)):
        write_json(folder / f"{name}.json", content)


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Read a run back; needs the folder alone.

    Raises:
        NotFoundError: no such folder, or it is not a run.
        InvalidValueError: a file in it is damaged.

    Examples:
        run = tfft.load_run("runs/x")
        run.model.summary()
    """
    path = Path(folder)
    missing = [n for n in ("config.json", "facts.json", "preset", "head.safetensors") if not (path / n).exists()]
    if missing:
        what = "no such folder" if not path.is_dir() else f"it has no {missing[0]}"
        raise NotFoundError(f"{path} is not a run of tfft: {what}. `tfft train --out {path}` makes one")
    config, facts = read_json(path / "config.json"), read_json(path / "facts.json")
    for name in ("task", "pooling", "dropout", "max_length", "clean"):
        if name not in config:
            raise InvalidValueError(f"{path / 'config.json'} has no {name!r}: it is not the file training wrote")
    task = get_task(config["task"])
    backbone, tokenizer = load_backbone(path / "preset", merge=False)
    task = on_backbone(task, backbone, tokenizer)
    if (path / lora.FILE).exists():
        lora.restore(backbone, lora.read(path / lora.FILE))
    try:
        model = task.head(backbone, facts, pooling=config["pooling"], dropout=config["dropout"])
    except (KeyError, TypeError) as error:
        raise InvalidValueError(f"{path / 'facts.json'} is not the file training wrote: {error}") from None
    try:
        _set_head_weights(model, backbone, load_file(path / "head.safetensors"))
    except (SafetensorError, KeyError, ValueError) as error:
        raise InvalidValueError(f"{path / 'head.safetensors'} is damaged or of another model: {error}") from None
    records = {n: read_json(path / f"{n}.json") for n in ("metrics", "environment") if (path / f"{n}.json").exists()}
    return Run(model, tokenizer, task, facts, config, **records)


def with_decoding(run: Run, settings: Mapping[str, Any]) -> Run:
    """The same run, writing otherwise.

    Args:
        run: from `load_run`, of a task that writes.
        settings: those of `tfft.decoding.Decoding` that change, numbers or strings of them.

    Raises:
        InvalidValueError: the run's task writes nothing, or a setting is unknown or no number.

    Examples:
        run = tfft.with_decoding(tfft.load_run("runs/x"), {"beams": 1})
    """
    if "decoding" not in run.facts:
        raise InvalidValueError(
            f"{run.task.name} writes no text, so there is no decoding to set: {', '.join(settings)}"
        )
    chosen = from_pairs(settings, Decoding(**run.facts["decoding"]))
    return dataclasses.replace(run, facts=run.facts | {"decoding": dataclasses.asdict(chosen)})


def _head_variables(model: keras.Model, backbone: Any) -> dict[str, Any]:
    own = {id(v) for v in backbone.variables}
    return {v.path: v for v in model.variables if id(v) not in own and not is_seed(v)}


def _head_weights(model: keras.Model, backbone: Any) -> dict[str, np.ndarray]:
    return {path: keras.ops.convert_to_numpy(variable) for path, variable in _head_variables(model, backbone).items()}


def _set_head_weights(model: keras.Model, backbone: Any, weights: Mapping[str, np.ndarray]) -> None:
    for path, variable in _head_variables(model, backbone).items():
        variable.assign(weights[path])


def environment() -> dict[str, Any]:
    """Versions, command and machine, for the record."""
    names = ("tfft", "tensorflow", "tensorflow-text", "keras", "keras-hub", "numpy", "pandas", "scikit-learn")
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "python": platform.python_version(),
        "versions": versions,
        "command": sys.argv,
        "machine": {"platform": platform.platform(), "processors": os.cpu_count()},
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON, beside and renamed."""
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
    scratch.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON, with the file's name in the error."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InvalidValueError(f"{path} is not JSON: {error}") from None
