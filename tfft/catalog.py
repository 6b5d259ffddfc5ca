"""The backbones tfft has short names for: what each is good for, so that a person can choose. Loads nothing."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Entry:
    """One backbone.

    Attributes:
        preset: where a hub has it, as KerasHub takes it.
        family: architecture.
        languages: it was pretrained on.
        millions: parameters, in millions.
        licence: of the weights.
        good_for: in a few words.
    """

    preset: str
    family: str
    languages: str
    millions: float
    licence: str
    good_for: str

    @property
    def megabytes(self) -> int:
        """Size of the float32 weights."""
        return round(self.millions * 4)


DEFAULT = "minilm-l6"

# Parameters as KerasHub 0.32 states them in its presets.
CATALOG = {
    DEFAULT: Entry(
        "hf://sentence-transformers/all-MiniLM-L6-v2",
        "BERT",
        "English",
        22.7,
        "Apache-2.0",
        "the default: a sentence encoder, strong when frozen, fast on a CPU",
    ),
    "minilm-l12": Entry(
        "all_minilm_l12_v2_en", "BERT", "English", 33.4, "Apache-2.0", "the same, twice as deep: half the speed"
    ),
    "bert-tiny": Entry(
        "bert_tiny_en_uncased", "BERT", "English", 4.4, "Apache-2.0", "trying things out; thaw it, it knows little"
    ),
    "bert-base": Entry(
        "bert_base_en_uncased", "BERT", "English", 109.5, "Apache-2.0", "the classic of the papers; thaw it, use a GPU"
    ),
    "distilbert": Entry(
        "distil_bert_base_en_uncased",
        "DistilBERT",
        "English",
        66.4,
        "Apache-2.0",
        "most of bert-base at 1.6x its speed",
    ),
    "roberta-base": Entry(
        "roberta_base_en", "RoBERTa", "English", 124.1, "MIT", "better than bert-base when thawed; keeps letter case"
    ),
    "albert-base": Entry(
        "albert_base_en_uncased", "ALBERT", "English", 11.7, "Apache-2.0", "small on disk; as slow as bert-base to run"
    ),
    "deberta-small": Entry(
        "deberta_v3_small_en", "DeBERTa-v3", "English", 141.3, "MIT", "the most accurate here when thawed; use a GPU"
    ),
    "bert-zh": Entry("bert_base_zh", "BERT", "Chinese", 102.3, "Apache-2.0", "Chinese, character by character"),
    "e5-multi": Entry(
        "multilingual_e5_small", "BERT", "about 100", 117.7, "MIT", "a sentence encoder for many languages, Chinese too"
    ),
    "xlm-roberta": Entry(
        "xlm_roberta_base_multi", "XLM-RoBERTa", "about 100", 277.5, "MIT", "many languages when thawed; use a GPU"
    ),
}
