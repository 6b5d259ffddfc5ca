"""Tiny backbones built here and loaded by path: no network, the users' own code path."""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest

# Outputs of frozen layers go where pytest cleans up, not into the cache of who runs the tests.
os.environ["TFFT_ACTIVATIONS"] = tempfile.mkdtemp(prefix="tfft-activations-")

_LINE = (
    "the a movie film was is very not good great fine lovely bad awful poor dull i we it and . , ! plot ending story"
)
WORDS = tuple(_LINE.split())

SHARED_DATA = Path(os.environ.get("TFFT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))

# What every family's backbone is built with: 2 blocks, width 8.
SIZES = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 32}

KEPT: list[Any] = []  # see tfft.backbones._KEPT

FAMILIES = ("bert", "distilbert", "roberta", "albert")
CAUSAL = ("llama", "gpt2", "gemma")  # decoders
SEQ2SEQ = ("bart", "t5")  # encoders with a decoder of their own


@pytest.fixture(scope="session")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """family -> folder of a tiny preset of it, made once a session when first asked for."""
    made: dict[str, Path] = {}

    def preset(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp("presets") / family
            backbone, tokenizer = build(family, tmp_path_factory.mktemp("vocabulary"))
            backbone.save_to_preset(folder)
            tokenizer.save_to_preset(folder)
            KEPT.append(tokenizer)
            made[family] = folder
        return made[family]

    return preset


def build(family: str, scratch: Path) -> tuple[Any, Any]:
    """A tiny backbone of a family, seeded, with a tokenizer that knows `WORDS`."""
    import keras
    import keras_hub

    keras.utils.set_random_seed(7)
    if family in (*CAUSAL, *SEQ2SEQ):
        return build_writer(family, scratch)
    tokenizer = {"roberta": _bpe, "albert": _sentencepiece}.get(family, _wordpiece)(family, scratch)
    size = {**SIZES, "vocabulary_size": tokenizer.vocabulary_size()}
    models = keras_hub.models
    if family == "bert":
        return models.BertBackbone(**size), tokenizer
    if family == "distilbert":
        return models.DistilBertBackbone(**size), tokenizer
    if family == "roberta":
        return models.RobertaBackbone(**size), tokenizer
    return models.AlbertBackbone(**size, embedding_dim=4, num_groups=1), tokenizer


def build_writer(family: str, scratch: Path) -> tuple[Any, Any]:
    """The same of a family that writes: 2 blocks, width 16."""
    import keras_hub

    models = keras_hub.models
    tokenizer = _bpe(family, scratch) if family in ("gpt2", "bart") else _byte_fallback(family, scratch)
    size = {"vocabulary_size": tokenizer.vocabulary_size(), "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32}
    heads = {"num_query_heads": 2, "num_key_value_heads": 1}
    if family == "llama":
        return models.LlamaBackbone(**size, **heads), tokenizer
    if family == "gemma":
        return models.GemmaBackbone(**size, **heads, head_dim=8), tokenizer
    if family == "gpt2":
        return models.GPT2Backbone(**size, num_heads=2, max_sequence_length=128, dropout=0.0), tokenizer
    if family == "bart":
        return models.BartBackbone(**size, num_heads=2, max_sequence_length=64, dropout=0.0), tokenizer
    return models.T5Backbone(**size, num_heads=2, dropout=0.0), tokenizer


def _byte_fallback(family: str, scratch: Path) -> Any:
    """SentencePiece that spells what it does not know in bytes, with the special tokens of a family."""
    import keras_hub
    import sentencepiece

    prefix = scratch / family
    special = {
        "llama": {"unk": "<unk>", "bos": "<s>", "eos": "</s>"},
        "gemma": {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"},
        "t5": {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
    }[family]
    named = {f"{name}_piece": piece for name, piece in special.items()}
    numbers = {f"{name}_id": number for number, name in enumerate(special)}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 4),
        model_prefix=str(prefix),
        vocab_size=340,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **({"pad_id": -1, "bos_id": -1} | named | numbers),
    )
    models = keras_hub.models
    kind = {"llama": models.LlamaTokenizer, "gemma": models.GemmaTokenizer, "t5": models.T5Tokenizer}[family]
    return kind(proto=f"{prefix}.model")


def _wordpiece(family: str, scratch: Path) -> Any:
    import keras_hub

    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*WORDS, *letters])]
    vocabulary += [f"##{letter}" for letter in letters]
    kind = keras_hub.models.BertTokenizer if family == "bert" else keras_hub.models.DistilBertTokenizer
    return kind(vocabulary=vocabulary, lowercase=True)


def _bpe(family: str, scratch: Path) -> Any:
    """Byte-level: every byte is a piece, and each word is merged from its letters."""
    import keras_hub

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    letters = [chr(b) if b in printable else chr(next(extra)) for b in range(256)]
    pieces, merges = ["<s>", "<pad>", "</s>", "<unk>", "<|endoftext|>", *letters], []
    for word in WORDS:
        for spelled in (word, f"\u0120{word}"):
            built = spelled[0]
            for letter in spelled[1:]:
                merges.append(f"{built} {letter}")
                built += letter
                pieces.append(built)
    pieces.append("<mask>")
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    models = keras_hub.models
    kind = {"gpt2": models.GPT2Tokenizer, "bart": models.BartTokenizer}.get(family, models.RobertaTokenizer)
    return kind(vocabulary=vocabulary, merges=list(dict.fromkeys(merges)))


def _sentencepiece(family: str, scratch: Path) -> Any:
    import keras_hub
    import sentencepiece

    prefix = scratch / "albert"
    special = {"pad": 0, "unk": 1, "bos": 2, "eos": 3}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 4),
        model_prefix=str(prefix),
        vocab_size=60,
        hard_vocab_limit=False,
        model_type="unigram",
        user_defined_symbols="[MASK]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        pad_piece="<pad>",
        unk_piece="<unk>",
        minloglevel=2,
        **{f"{name}_id": number for name, number in special.items()},
    )
    return keras_hub.models.AlbertTokenizer(proto=f"{prefix}.model")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets; the test is skipped, visibly, where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no data sets at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def reviews() -> list[dict[str, str]]:
    """Eight rows that a tiny model can learn by heart."""
    good = ("the movie was good", "great film !", "a lovely story", "i was fine and it is great")
    bad = ("the movie was bad", "awful film !", "a dull story", "it is not good , awful ending")
    return [{"text": t, "label": "pos"} for t in good] + [{"text": t, "label": "neg"} for t in bad]


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the default backbone; skipped, visibly, where it is not on this machine and no index gives it."""
    from tfft.backbones import resolve
    from tfft.errors import NotFoundError

    try:
        return resolve("minilm-l6")
    except NotFoundError as error:
        pytest.skip(str(error))
