"""Pooling: the numbers are right, padding never counts."""

import keras
import numpy as np
import pytest

import tfft
from tests.test_graph import BACKBONES
from tfft import heads
from tfft.errors import InvalidValueError
from tfft.seeding import is_seed

IDS = np.array([[2, 5, 6, 3]], "int32")
PADDED = np.array([[2, 5, 6, 3, 0, 0]], "int32")


def inputs_for(model: keras.Model, ids: np.ndarray) -> dict[str, np.ndarray]:
    whole = {"token_ids": ids, "padding_mask": (ids != 0).astype("int32"), "segment_ids": np.zeros_like(ids)}
    return {name: whole[name] for name in model.input}


@pytest.mark.parametrize("pooling", heads.POOLINGS)
@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "distilbert"])
def test_padding_changes_nothing(family: str, pooling: str) -> None:
    backbone = BACKBONES[family]()
    if pooling == "pooled" and not isinstance(backbone.output, dict):
        with pytest.raises(InvalidValueError, match="pooling 'pooled' needs a backbone with a pooled_output"):
            heads.pool(backbone, pooling)
        return
    model = keras.Model(backbone.input, heads.pool(backbone, pooling))
    short, long = (np.array(model(inputs_for(model, ids), training=False)) for ids in (IDS, PADDED))
    np.testing.assert_allclose(short, long, atol=1e-5)


def test_poolings_are_what_their_names_say() -> None:
    backbone = BACKBONES["bert"]()
    hidden = np.array(backbone(inputs_for(backbone, IDS))["sequence_output"])[0]

    def pooled(how: str) -> np.ndarray:
        model = keras.Model(backbone.input, heads.pool(backbone, how))
        return np.array(model(inputs_for(model, IDS), training=False))[0]

    def normal(x: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-3)

    np.testing.assert_allclose(pooled("mean"), normal(hidden.mean(0)), atol=1e-4)
    np.testing.assert_allclose(pooled("max"), normal(hidden.max(0)), atol=1e-4)
    np.testing.assert_allclose(pooled("cls"), normal(hidden[0]), atol=1e-4)
    np.testing.assert_allclose(pooled("blocks")[-8:], pooled("mean"), atol=1e-5)
    assert pooled("blocks").shape == (16,)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "pooled"])
def test_a_vector_is_the_pooled_state_at_unit_length(pooling: str) -> None:
    backbone = BACKBONES["bert"]()
    outputs = backbone(inputs_for(backbone, IDS), training=False)
    states = np.array(outputs["sequence_output"])[0]
    expected = {
        "mean": states.mean(0),
        "cls": states[0],
        "max": states.max(0),
        "pooled": np.array(outputs["pooled_output"])[0],
    }[pooling]
    model = keras.Model(backbone.input, heads.vector(backbone, pooling))
    for ids in (IDS, PADDED):
        found = np.array(model(inputs_for(model, ids), training=False))[0]
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


def test_a_vector_for_each_block_is_refused() -> None:
    with pytest.raises(
        InvalidValueError, match="^vectors are compared in one space; pooling 'blocks' has one for each"
    ):
        heads.vector(BACKBONES["bert"](), "blocks")


@pytest.mark.parametrize("pooling", ["mean", "blocks"])
@pytest.mark.parametrize("family", ["bert", "roberta", "albert-2-groups"])
def test_a_cosine_is_that_of_two_texts_read_one_by_one(family: str, pooling: str) -> None:
    backbone = BACKBONES[family]()
    model = tfft.get_task("text-similarity").head(backbone, {}, pooling=pooling, dropout=0.1)
    pooled = keras.Model(backbone.input, heads.pool(backbone, pooling))
    others = np.array([[2, 9, 3, 0, 0]], "int32")
    texts = [inputs_for(pooled, ids) for ids in (IDS, others)]
    vectors = np.concatenate([np.array(pooled(x, training=False)) for x in texts])

    def cosine(first: int, second: int) -> float:
        again = {heads.SECOND + name: value for name, value in texts[second].items()}
        return float(np.array(model({**texts[first], **again}, training=False)).item())

    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert cosine(0, 1) == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-4)
    assert cosine(1, 0) == pytest.approx(cosine(0, 1), abs=1e-5)
    assert cosine(0, 0) == pytest.approx(1, abs=1e-4)
    shared = {id(variable) for variable in backbone.variables}
    own = [variable for variable in model.weights if id(variable) not in shared and not is_seed(variable)]
    assert [tuple(variable.shape) for variable in own] == [(vectors.shape[1],) * 2]  # all else is used twice


def test_every_layer_of_a_head_is_named_so() -> None:
    backbone = BACKBONES["bert"]()
    own = {layer.name for layer in backbone.layers}
    model = keras.Model(backbone.input, tfft.softmax_head(backbone, 3, dropout=0.1))
    assert all(layer.name.startswith("head_") for layer in model.layers if layer.name not in own)


@pytest.mark.parametrize(
    ("family", "pooling", "message"),
    [
        ("bert", "median", "unknown pooling 'median'. Expected one of: mean, cls, max, pooled, blocks"),
        ("bart", "mean", "this head needs a backbone with one sequence_output"),
    ],
)
def test_a_pooling_that_cannot_be(family: str, pooling: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        heads.pool(BACKBONES[family](), pooling)


def test_probabilities_sum_to_one() -> None:
    backbone = BACKBONES["roberta"]()
    model = keras.Model(backbone.input, tfft.softmax_head(backbone, 7))
    assert float(np.array(model(inputs_for(model, PADDED))).sum()) == pytest.approx(1, abs=1e-6)
