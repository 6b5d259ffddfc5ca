"""Settings: checked all at once, JSON in and out, and every None answered."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from tfft.defaults import FROZEN, THAWED, defaults
from tfft.errors import InvalidValueError, NotFoundError
from tfft.recipe import OPTIONS, Recipe, as_json, columns_of, from_mapping, kinds_of, read_recipe, resolve
from tfft.tasks import TASKS

CACHE = {"cache_dir", "cache_limit_gb"}  # None stays None: the machine answers, and another run on another
TASKS_OWN = {"label_smoothing", "average", *OPTIONS}  # answered by the task, not by the table

NEEDED = {"data": "T.csv", "out": "runs/x"}

FULL: dict[str, Any] = {
    "data": "T.csv",
    "out": "runs/x",
    "task": "text-classification",
    "validation": "V.csv",
    "test": "E.csv",
    "columns": ["text=review", "label=stars"],
    "encoding": "cp1252",
    "bad_rows": "drop",
    "validation_share": 0.2,
    "test_share": 0.3,
    "clean": ["html", "whitespace"],
    "backbone": "bert-tiny",
    "freeze": "2",
    "pooling": "cls",
    "dropout": 0.2,
    "max_length": 64,
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 1e-4,
    "warmup": 0.0,
    "decay": "constant",
    "weight_decay": 0.01,
    "clip_norm": None,
    "monitor": "score",
    "patience": 1,
    "label_smoothing": 0.1,
    "class_weight": "balanced",
    "average": 3,
    "long_rows": "stop",
    "decoder_layers": 2,
    "vocabulary_size": 500,
    "target_length": 20,
    "copy": True,
    "decoding": ["beams=2", "length_penalty=0.5"],
    "template": "{prompt} {response}",
    "lora": 4,
    "seed": 7,
    "cache": "never",
    "cache_dir": "cache",
    "cache_limit_gb": 2.0,
    "cache_dtype": "float32",
    "precision": "bfloat16",
    "deterministic": True,
}


def _refused(settings: dict[str, Any]) -> str:
    with pytest.raises(InvalidValueError) as caught:
        Recipe(**(NEEDED | settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_json_round_trip(tmp_path: Path) -> None:
    assert list(FULL) == [field.name for field in dataclasses.fields(Recipe)]
    recipe = from_mapping(FULL)
    (tmp_path / "config.json").write_text(json.dumps(as_json(recipe)), "utf-8")
    assert read_recipe(tmp_path / "config.json") == FULL
    assert from_mapping(read_recipe(tmp_path / "config.json")) == recipe


def test_json_round_trip_of_a_recipe_of_defaults() -> None:
    recipe = Recipe(**NEEDED)
    assert from_mapping(json.loads(json.dumps(as_json(recipe)))) == recipe
    assert recipe.clean == ()
    assert recipe.epochs is None


def test_a_recipe_does_not_change() -> None:
    recipe = Recipe(**NEEDED)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 3  # type: ignore[misc]


def test_a_list_becomes_a_tuple_and_an_integer_a_float() -> None:
    recipe = Recipe(**NEEDED, clean=["html"], learning_rate=1, weight_decay=0)  # type: ignore[arg-type]
    assert recipe.clean == ("html",)
    assert (recipe.learning_rate, type(recipe.learning_rate)) == (1.0, float)
    assert (recipe.weight_decay, type(recipe.weight_decay)) == (0.0, float)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("data", 3, "str"),
        ("data", None, "str"),
        ("validation", 3, "str"),
        ("epochs", True, "int"),
        ("epochs", 2.0, "int"),
        ("epochs", "2", "int"),
        ("seed", False, "int"),
        ("seed", None, "int"),
        ("learning_rate", True, "float"),
        ("learning_rate", "1e-3", "float"),
        ("validation_share", None, "float"),
        ("clean", "html", "tuple"),
        ("clean", None, "tuple"),
        ("deterministic", 1, "bool"),
        ("deterministic", "yes", "bool"),
        ("epochs", 0, "1 or more"),
        ("batch_size", -1, "1 or more"),
        ("patience", 0, "1 or more"),
        ("max_length", 3, "4 or more"),
        ("validation_share", -0.1, "0 or more and below 1"),
        ("test_share", 1.0, "0 or more and below 1"),
        ("dropout", 1.0, "0 or more and below 1"),
        ("dropout", -0.1, "0 or more and below 1"),
        ("warmup", 1.5, "0 or more and below 1"),
        ("label_smoothing", 1.0, "0 or more and below 1"),
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", math.nan, "above 0"),
        ("learning_rate", math.inf, "above 0"),
        ("weight_decay", -0.1, "0 or more"),
        ("clip_norm", 0.0, "above 0"),
        ("seed", -1, "0 or more"),
        ("task", "translating", f"one of: {', '.join(TASKS)}; or several targets, NAME=TASK,NAME=TASK"),
        ("bad_rows", "skip", "one of: stop, drop"),
        ("decay", "linear", "one of: cosine, inverse-sqrt, constant"),
        ("monitor", "f1", "one of: loss, score"),
        ("pooling", "sum", "one of: trained, mean, cls, max, pooled, blocks"),
        ("class_weight", "heavy", "one of: balanced"),
        ("decoding", ("beams",), "pairs such as beams=4"),
        ("vocabulary_size", 100, "260 or more"),
        ("long_rows", "keep", "one of: cut, stop"),
        ("clean", ("html", "lower"), "some of: unicode, html, control, whitespace, stopwords"),
        ("clean", (["html"],), "some of: unicode, html, control, whitespace, stopwords"),
    ],
)
def test_unusable_values_are_refused(name: str, value: Any, expected: str) -> None:
    assert _refused({name: value}) == f"{name} must be {expected}. Received: {value!r}"


def test_all_faults_are_told_at_once() -> None:
    message = (
        "bad_rows must be one of: stop, drop. Received: 'skip'; "
        "epochs must be 1 or more. Received: 0; "
        "data is needed; out is needed"
    )
    assert _refused({"data": "", "out": "", "epochs": 0, "bad_rows": "skip"}) == message


def test_shares_must_leave_rows_to_train_on() -> None:
    message = "validation_share and test_share must leave rows to train on"
    assert _refused({"validation_share": 0.5, "test_share": 0.5}) == message
    Recipe(**NEEDED, validation_share=0.5, test_share=0.4)


def test_shares_may_be_0() -> None:
    recipe = Recipe(**NEEDED, validation_share=0, test_share=0)
    assert (recipe.validation_share, recipe.test_share) == (0.0, 0.0)
    assert from_mapping(json.loads(json.dumps(as_json(recipe)))) == recipe
    Recipe(**NEEDED, validation_share=0, test_share=0.9)


@pytest.mark.parametrize("task", [*TASKS, "a=text-regression,b=text-classification*2"])
def test_every_task_may_be_asked_for(task: str) -> None:
    assert Recipe(**NEEDED, task=task).task == task


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "the recipe: unknown setting 'epoch' (did you mean 'epochs'?)"),
        ({"learning-rate": 3}, "the recipe: unknown setting 'learning-rate' (did you mean 'learning_rate'?)"),
        ({"zzz": 3}, "the recipe: unknown setting 'zzz'"),
        (
            {"zzz": 3, "epoch": 3, "epochs": 0, "data": ""},
            "the recipe: unknown setting 'zzz'; unknown setting 'epoch' (did you mean 'epochs'?); "
            "epochs must be 1 or more. Received: 0; data is needed",
        ),
    ],
)
def test_unknown_settings_are_refused_with_the_nearest_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        from_mapping(NEEDED | settings)


def test_the_source_of_a_fault_is_named() -> None:
    with pytest.raises(InvalidValueError, match=r"^a\.json: out is needed$"):
        from_mapping({"data": "T.csv"}, "a.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": ', "{path} is not JSON: Expecting value: line 1 column 10 (char 9)"),
        ('["data"]', "{path}: expected a JSON object of settings, found list"),
    ],
)
def test_unreadable_recipe_files_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(content, "utf-8")
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message.format(path=path))}$"):
        read_recipe(path)


def test_missing_recipe_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=f"^{re.escape(f'no such file: {tmp_path}/no.json')}$"):
        read_recipe(tmp_path / "no.json")


@pytest.mark.parametrize(("frozen", "table"), [(True, FROZEN), (False, THAWED)])
def test_resolve_fills_in_what_is_none(frozen: bool, table: dict[str, Any]) -> None:
    resolved = resolve(Recipe(**NEEDED), frozen, max_length=48)
    assert as_json(resolved) == as_json(Recipe(**NEEDED)) | table | {"max_length": 48}


@pytest.mark.parametrize("frozen", [True, False])
def test_resolve_keeps_what_is_set(frozen: bool) -> None:
    recipe = from_mapping(FULL)
    assert resolve(recipe, frozen, max_length=48) == recipe
    one = resolve(Recipe(**NEEDED, epochs=1, dropout=0.0, max_length=9), frozen, max_length=48)
    assert (one.epochs, one.dropout, one.max_length) == (1, 0.0, 9)
    assert one.learning_rate == defaults(frozen)["learning_rate"]


def test_resolve_leaves_alone_what_has_no_answer() -> None:
    resolved = resolve(Recipe(**NEEDED, clip_norm=None), True)
    unanswered = {name for name, value in as_json(resolved).items() if value is None}
    unasked = {"validation", "test", "freeze", "max_length", "clip_norm", "class_weight", "lora"}
    assert unanswered == {*unasked, *TASKS_OWN, *CACHE}


def test_defaults_answer_the_same_settings_for_both_kinds_of_training() -> None:
    unset = {name for name, value in as_json(Recipe(**NEEDED)).items() if value is None}
    found = {"validation", "test", "freeze", "max_length", "class_weight", "lora", *TASKS_OWN, *CACHE}
    assert set(FROZEN) == set(THAWED) == unset - found
    assert FROZEN["learning_rate"] > THAWED["learning_rate"]  # a thawed backbone forgets at large steps
    assert FROZEN["epochs"] > THAWED["epochs"]
    assert (FROZEN["pooling"], THAWED["pooling"]) == ("blocks", "trained")


@pytest.mark.parametrize("frozen", [True, False])
def test_defaults_are_good_settings_and_a_copy(frozen: bool) -> None:
    Recipe(**NEEDED, **defaults(frozen))
    defaults(frozen)["epochs"] = 99
    assert defaults(frozen)["epochs"] != 99


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("data", (str,)),
        ("epochs", (int, type(None))),
        ("dropout", (float, type(None))),
        ("clean", (tuple,)),
        ("deterministic", (bool,)),
    ],
)
def test_kinds_of_a_setting(name: str, kinds: tuple[type, ...]) -> None:
    assert kinds_of(name) == kinds


def test_every_setting_has_a_help_text() -> None:
    assert all(field.metadata["help"] for field in dataclasses.fields(Recipe))


def test_columns_may_be_given_as_a_mapping() -> None:
    recipe = from_mapping(NEEDED | {"columns": {"text": "review", "label": "stars"}})
    assert recipe.columns == ("text=review", "label=stars")
    assert columns_of(recipe.columns) == {"text": "review", "label": "stars"}
