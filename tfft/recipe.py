"""A run's settings: one frozen dataclass, checked all at once before any weight is loaded, JSON in and out.

Only this file, `pipeline.py`, `arguments.py` and `cli.py` know the recipe; everything below takes plain keyword
arguments. The command line's flags are these fields.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfft.defaults import defaults
from tfft.errors import InvalidValueError, NotFoundError
from tfft.tasks import TASKS


class Rule(NamedTuple):
    """What a setting may be: a check, and its words for the error message."""

    holds: Callable[[Any], bool]
    expected: str


def _one_of(*values: str) -> Rule:
    return Rule(lambda v: v in values, f"one of: {', '.join(values)}")


def _setting(default: Any, text: str, rule: Rule | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"help": text, "rule": rule})


_RATE = Rule(lambda v: 0 <= v < 1, "0 or more and below 1")
_COUNT = Rule(lambda v: v >= 1, "1 or more")
_POSITIVE = Rule(lambda v: 0 < v < float("inf"), "above 0")
_NOT_NEGATIVE = Rule(lambda v: v >= 0, "0 or more")
CLEANING = ("unicode", "html", "control", "whitespace", "stopwords")
MODES = ("auto", "always", "never")
DTYPES = ("float32", "float16", "bfloat16")
PRECISIONS = ("auto", "float32", "bfloat16")
DECAYS = ("cosine", "inverse-sqrt", "constant")
# only some tasks have them
OPTIONS = ("decoder_layers", "vocabulary_size", "target_length", "decoding", "copy", "template")
POOLING = ("trained", "mean", "cls", "max", "pooled", "blocks")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every setting of a run. None: chosen from the data or from `tfft.defaults`, and written down as resolved."""

    data: str = _setting(
        "", "training rows: .csv, .tsv, .jsonl, .json, .conll, .parquet, a folder with train.csv, or tfds:name"
    )
    out: str = _setting("", "folder for the run; must not exist")
    task: str = _setting(
        "text-classification",
        "what to learn; `tfft tasks` lists them; several targets: topic=text-classification,stars=text-regression*0.5",
        Rule(lambda v: v in TASKS or "=" in v, f"one of: {', '.join(TASKS)}; or several targets, NAME=TASK,NAME=TASK"),
    )
    validation: str | None = _setting(None, "rows for early stopping; held out of --data by default")
    test: str | None = _setting(None, "rows for the score card; held out of --data by default")
    columns: tuple[str, ...] = _setting(
        (),
        "the data's columns where they have other names, such as text=review,label=stars; found by name by default",
        Rule(lambda v: all(name.strip("=").count("=") for name in v), "pairs such as text=review"),
    )
    encoding: str = _setting("utf-8", "of text files")
    bad_rows: str = _setting("stop", "unusable rows: stop, or drop them", _one_of("stop", "drop"))
    validation_share: float = _setting(0.1, "share of the rows held out for validation; 0 for none", _RATE)
    test_share: float = _setting(0.1, "share of the rows held out for the test; 0 for none", _RATE)
    clean: tuple[str, ...] = _setting(
        (),
        f"cleaning steps, in order, with commas: {', '.join(CLEANING)}",
        Rule(lambda v: all(name in CLEANING for name in v), f"some of: {', '.join(CLEANING)}"),
    )
    backbone: str = _setting(
        "minilm-l6", "short name, preset, folder (of a run too), hf://... or kaggle://...; see `tfft backbones`"
    )
    freeze: str | None = _setting(
        None,
        "all, none, embeddings, a number of blocks, or names and globs of layers with commas; by default all, where a "
        "head on fixed vectors does well, and none for tasks that read every token or train the backbone itself",
    )
    pooling: str | None = _setting(None, f"one of: {', '.join(POOLING)}", _one_of(*POOLING))
    dropout: float | None = _setting(None, "rate before the last layer", _RATE)
    max_length: int | None = _setting(
        None, "longest text in tokens; from the data by default", Rule(lambda v: v >= 4, "4 or more")
    )
    epochs: int | None = _setting(None, "passes over the training rows, at most", _COUNT)
    batch_size: int | None = _setting(None, "rows a step", _COUNT)
    learning_rate: float | None = _setting(None, "peak of the schedule", _POSITIVE)
    warmup: float | None = _setting(None, "share of the steps over which the rate rises", _RATE)
    decay: str = _setting("cosine", "of the rate after warm-up: cosine, inverse-sqrt or constant", _one_of(*DECAYS))
    weight_decay: float = _setting(0.0, "above 0: AdamW in place of Adam", _NOT_NEGATIVE)
    clip_norm: float | None = _setting(1.0, "largest norm of the gradient", _POSITIVE)
    monitor: str | None = _setting(
        None, "watched on the validation rows: loss, or score (the task's first metric)", _one_of("loss", "score")
    )
    patience: int | None = _setting(None, "epochs without a better value of it before stopping", _COUNT)
    label_smoothing: float | None = _setting(
        None, "share of each target given to all labels or pieces; 0 by default, 0.1 where a text is written", _RATE
    )
    class_weight: str | None = _setting(None, "balanced: rare labels weigh more", _one_of("balanced"))
    average: int | None = _setting(
        None, "the weights after so many last epochs are averaged, if that judges better; 1 for none", _COUNT
    )
    long_rows: str = _setting("cut", "rows of more tokens than max_length: cut them, or stop", _one_of("cut", "stop"))
    decoder_layers: int | None = _setting(None, "translation, summarization: blocks of the new decoder", _COUNT)
    vocabulary_size: int | None = _setting(
        None, "likewise: pieces it writes in, learnt from the targets", Rule(lambda v: v >= 260, "260 or more")
    )
    target_length: int | None = _setting(
        None, "likewise: longest target in pieces; from the data by default", Rule(lambda v: v >= 2, "2 or more")
    )
    copy: bool | None = _setting(
        None, "likewise: may copy words of the source; by default a summary may, a translation not"
    )
    decoding: tuple[str, ...] | None = _setting(
        None,
        "likewise: how it writes, such as beams=4,length_penalty=1 or temperature=0.8,top_p=0.9",
        Rule(lambda v: all(name.strip("=").count("=") == 1 for name in v), "pairs such as beams=4"),
    )
    template: str | None = _setting(
        None,
        "text-generation: how a prompt and its response are one text, such as 'Question: {prompt} Answer: {response}'; "
        "by default with a space between",
    )
    lora: int | None = _setting(
        None, "only adapters of this rank on attention learn, in the blocks that are not frozen; 8 is usual", _COUNT
    )
    seed: int = _setting(0, "of splits, initial weights, shuffling and dropout", _NOT_NEGATIVE)
    cache: str = _setting(
        "auto", "outputs of frozen layers are stored: auto (where it saves time), always, never", _one_of(*MODES)
    )
    cache_dir: str | None = _setting(None, "where; under the user's cache folder by default")
    cache_limit_gb: float | None = _setting(
        None, "GB the cache may take; half of the free disk by default", _NOT_NEGATIVE
    )
    cache_dtype: str = _setting("float16", f"of stored sequences: {', '.join(DTYPES)}", _one_of(*DTYPES))
    precision: str = _setting(
        "auto", f"of matrix products: {', '.join(PRECISIONS)}; auto asks the machine", _one_of(*PRECISIONS)
    )
    deterministic: bool = _setting(False, "TensorFlow's deterministic ops: slower, bit-equal on a GPU too")

    def __post_init__(self) -> None:
        faults = [fault for field in dataclasses.fields(self) for fault in self._faults(field)]
        faults += [f"{name} is needed" for name in ("data", "out") if getattr(self, name) == ""]
        if not faults and self.validation_share + self.test_share >= 1:
            faults.append("validation_share and test_share must leave rows to train on")
        if faults:
            raise InvalidValueError("; ".join(faults))

    def _faults(self, field: dataclasses.Field[Any]) -> list[str]:
        value, kinds = getattr(self, field.name), kinds_of(field.name)
        if value is None and types.NoneType in kinds:
            return []
        if float in kinds and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if tuple in kinds and isinstance(value, Mapping):  # columns, in Python or JSON
            value = tuple(f"{name}={column}" for name, column in value.items())
        if tuple in kinds and isinstance(value, list):
            value = tuple(value)
        object.__setattr__(self, field.name, value)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds if kind is not types.NoneType)
            return [f"{field.name} must be {wanted}. Received: {value!r}"]
        rule = field.metadata["rule"]
        if rule is not None and not rule.holds(value):
            return [f"{field.name} must be {rule.expected}. Received: {value!r}"]
        return []


def kinds_of(name: str) -> tuple[type, ...]:
    """The types a setting may have: `float | None` -> (float, NoneType)."""
    hint = typing.get_type_hints(Recipe)[name]
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(typing.get_origin(part) or part for part in parts)


def columns_of(pairs: Sequence[str]) -> dict[str, str]:
    """Columns as a recipe has them, such as "text=review", by name: the task's -> the data's."""
    return dict(pair.split("=", 1) for pair in pairs)


def from_mapping(settings: Mapping[str, Any], source: str | None = "the recipe") -> Recipe:
    """A recipe from plain values.

    Raises:
        InvalidValueError: all unknown names and unusable values at once, in one line.

    Examples:
        >>> from tfft.recipe import from_mapping
        >>> from_mapping({"data": "T.csv", "out": "runs/x", "epochs": 2}).epochs
        2
    """
    names = [field.name for field in dataclasses.fields(Recipe)]
    faults = []
    for unknown in [name for name in settings if name not in names]:
        near = difflib.get_close_matches(unknown, names, n=1)
        faults.append(f"unknown setting {unknown!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    try:
        recipe = Recipe(**{name: value for name, value in settings.items() if name in names})
    except InvalidValueError as error:
        faults.append(str(error))
    if faults:
        raise InvalidValueError((f"{source}: " if source else "") + "; ".join(faults))
    return recipe


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The settings in a JSON file, such as a run's config.json."""
    try:
        settings = json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"no such file: {path}") from None
    except ValueError as error:
        raise InvalidValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise InvalidValueError(f"{path}: expected a JSON object of settings, found {type(settings).__name__}")
    return settings


def resolve(recipe: Recipe, frozen: bool, **found: Any) -> Recipe:
    """The recipe with every None that has an answer filled in: from what was found, else from the defaults' table."""
    table = defaults(frozen) | found
    return dataclasses.replace(recipe, **{name: v for name, v in table.items() if getattr(recipe, name) is None})


def as_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(recipe).items()}
