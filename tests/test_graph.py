"""Blocks and embeddings found from the graph are KerasHub's own, for every family: guards private attributes."""

from collections.abc import Callable
from typing import Any

import keras
import keras_hub
import pytest

from tfft import graph
from tfft.errors import InvalidValueError

M = keras_hub.models
SIZE = {
    "vocabulary_size": 30,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
}
LONG = {**SIZE, "max_sequence_length": 16}
GROUPED = {**{k: v for k, v in SIZE.items() if k != "num_heads"}, "num_query_heads": 2, "num_key_value_heads": 1}
ELECTRA = {**{k: v for k, v in LONG.items() if k != "vocabulary_size"}, "vocab_size": 30, "embedding_dim": 4}
FNET = {k: v for k, v in LONG.items() if k != "num_heads"}

BACKBONES: dict[str, Callable[[], Any]] = {
    "bert": lambda: M.BertBackbone(**LONG),
    "distilbert": lambda: M.DistilBertBackbone(**LONG),
    "roberta": lambda: M.RobertaBackbone(**LONG),
    "xlm-roberta": lambda: M.XLMRobertaBackbone(**LONG),
    "albert": lambda: M.AlbertBackbone(**LONG, embedding_dim=4, num_groups=1),
    "albert-2-groups": lambda: M.AlbertBackbone(**LONG, embedding_dim=4, num_groups=2),
    "deberta-v3": lambda: M.DebertaV3Backbone(**LONG, bucket_size=4),
    "electra": lambda: M.ElectraBackbone(**ELECTRA),
    "f-net": lambda: M.FNetBackbone(**FNET),
    "gpt2": lambda: M.GPT2Backbone(**LONG),
    "llama": lambda: M.LlamaBackbone(**GROUPED),
    "gemma": lambda: M.GemmaBackbone(**GROUPED, head_dim=4),
    "bart": lambda: M.BartBackbone(**LONG),
    "t5": lambda: M.T5Backbone(**SIZE),
}


@pytest.mark.parametrize("family", BACKBONES)
def test_blocks_are_keras_hubs(family: str) -> None:
    backbone = BACKBONES[family]()
    own: list[Any] = list(getattr(backbone, "transformer_layers", []))
    own += [*getattr(backbone, "encoder_transformer_layers", []), *getattr(backbone, "decoder_transformer_layers", [])]
    own = [layer for row in own for layer in (row if isinstance(row, list) else [row])]
    assert graph.blocks(backbone) == own


@pytest.mark.parametrize("family", BACKBONES)
def test_below_the_blocks_are_the_embeddings(family: str) -> None:
    backbone = BACKBONES[family]()
    below = graph.below_blocks(backbone)
    assert any("embed" in name for name in graph.names(below))
    for block in graph.blocks(backbone):
        assert block not in below
    above = [layer for layer in backbone.layers if layer.name in ("pooled_dense", "layer_norm", "final_normalization")]
    assert not set(graph.names(above)) & set(graph.names(below))


def test_blocks_of_a_model_on_top_are_the_backbones() -> None:
    backbone = BACKBONES["bert"]()
    output = keras.layers.Dense(2)(backbone.output["sequence_output"])
    model = keras.Model(backbone.input, output)
    assert graph.blocks(model) == backbone.transformer_layers


def test_a_shared_block_stands_once_and_has_an_output_for_every_call() -> None:
    backbone = BACKBONES["albert"]()
    assert len(graph.blocks(backbone)) == 1
    assert len(graph.block_outputs(backbone)) == 2


def test_a_model_without_a_graph_is_refused() -> None:
    class Subclassed(keras.Model):
        pass

    with pytest.raises(InvalidValueError, match="expected a functional keras.Model"):
        graph.nodes(Subclassed())
