"""Freeze policies, and the proof that they were kept."""

import re
from typing import Any

import keras
import pytest

import tfft
from tests.test_graph import BACKBONES
from tfft import freezing
from tfft.errors import FreezeError, InvalidValueError

EMBEDDINGS = {"token_embedding", "position_embedding", "segment_embedding", "embeddings_layer_norm"}
BLOCKS = ["transformer_layer_0", "transformer_layer_1"]


def learning(model: keras.Model) -> set[str]:
    return {layer.name for layer in model.layers if layer.trainable_variables}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("all", set()),
        ("none", EMBEDDINGS | {*BLOCKS, "pooled_dense"}),
        ("embeddings", {*BLOCKS, "pooled_dense"}),
        (0, {*BLOCKS, "pooled_dense"}),
        (1, {BLOCKS[1], "pooled_dense"}),
        ("2", {"pooled_dense"}),
        ("transformer_layer_*", EMBEDDINGS | {"pooled_dense"}),
        ("token_embedding, transformer_layer_[1-9]", EMBEDDINGS - {"token_embedding"} | {BLOCKS[0], "pooled_dense"}),
        (["token_embedding"], EMBEDDINGS - {"token_embedding"} | {*BLOCKS, "pooled_dense"}),
    ],
)
def test_policy_freezes_and_thaws(policy: Any, expected: set[str]) -> None:
    backbone = BACKBONES["bert"]()
    tfft.freeze(backbone, "all")
    assert tfft.freeze(backbone, policy) is backbone
    assert learning(backbone) == expected


@pytest.mark.parametrize("family", BACKBONES)
@pytest.mark.parametrize("policy", ["all", "embeddings", 1])
def test_every_family_takes_every_policy(family: str, policy: Any) -> None:
    backbone = BACKBONES[family]()
    whole = len(backbone.trainable_variables)
    tfft.freeze(backbone, policy)
    assert (len(backbone.trainable_variables) == 0) == (policy == "all")
    assert len(backbone.trainable_variables) < whole


def test_the_head_is_never_frozen() -> None:
    backbone = BACKBONES["bert"]()
    model = keras.Model(backbone.input, tfft.softmax_head(backbone, 2))
    tfft.freeze(model, "all")
    assert learning(model) == {"head_output"}


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (3, "freeze=3: bert_backbone has 2 blocks, so 0 to 2 can be frozen"),
        (-1, "freeze=-1: bert_backbone has 2 blocks, so 0 to 2 can be frozen"),
        ("transformer_layer_7", "freeze: no layer is called 'transformer_layer_7'. The layers are: token_ids"),
        ("", "freeze names no layer. Use 'none' to freeze nothing"),
        (True, "freeze must be 'all', 'none', 'embeddings', a number of blocks, or names of layers. Received: True"),
        (1.5, "freeze must be 'all', 'none', 'embeddings', a number of blocks, or names of layers. Received: 1.5"),
    ],
)
def test_a_policy_that_cannot_be(policy: Any, message: str) -> None:
    backbone = BACKBONES["bert"]()
    backbone.name = "bert_backbone"
    with pytest.raises(InvalidValueError, match=re.escape(message)):
        tfft.freeze(backbone, policy)


def test_a_model_without_blocks_says_what_to_name() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="old_head")(inputs), name="mine")
    with pytest.raises(
        InvalidValueError, match="freeze=1 needs a model of numbered blocks; mine has none. Name layers"
    ):
        tfft.freeze(model, 1)
    tfft.freeze(model, "old_head")
    assert not model.trainable_variables


def test_a_frozen_variable_that_moved_is_an_error() -> None:
    with pytest.raises(FreezeError, match=re.escape("1 frozen variable(s) moved while training: a/kernel")):
        freezing.check_kept(({"0 a/kernel": "1"}, {"0 b": "1"}), ({"0 a/kernel": "2"}, {"0 b": "2"}))


def test_a_training_that_moved_nothing_is_an_error() -> None:
    with pytest.raises(FreezeError, match="no trainable variable moved"):
        freezing.check_kept(({"0 a": "1"}, {"0 b": "1"}), ({"0 a": "1"}, {"0 b": "1"}))


def test_a_single_variable_that_stood_still_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    freezing.check_kept(({}, {"0 b": "1", "1 c": "1"}), ({}, {"0 b": "1", "1 c": "2"}))
    assert "1 trainable variable(s) did not move: b" in caplog.text
