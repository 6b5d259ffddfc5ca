"""KerasHub's block in fewer operations: the same numbers for every family that has it."""

from typing import Any

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import tfft
from tests.test_activations import inputs_for, model_on
from tests.test_graph import BACKBONES
from tfft import activations, fusing, graph
from tfft.arithmetic import arithmetic

KNOWN = ("bert", "distilbert", "roberta", "xlm-roberta", "electra", "albert", "albert-2-groups")
OTHERS = [family for family in BACKBONES if family not in KNOWN]


def fused_blocks(model: keras.Model) -> list[fusing.FusedBlock]:
    return [layer for layer in model.layers if isinstance(layer, fusing.FusedBlock)]


def classifier(family: str, pooling: str) -> keras.Model:
    """Its weights are not those of a fresh model, where biases are 0 and could be lost unseen."""
    backbone = BACKBONES[family]()
    model = keras.Model(backbone.input, tfft.softmax_head(backbone, 3, pooling=pooling))
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if variable.dtype == "float32":
            variable.assign(variable + 0.3 * generator.standard_normal(variable.shape))
    return model


@pytest.mark.parametrize("purpose", ["plain", "served", "onnx"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "blocks"])
@pytest.mark.parametrize("family", KNOWN)
def test_the_same_answers(family: str, pooling: str, purpose: str) -> None:
    model, served = classifier(family, pooling), purpose == "served"
    sooner = fusing.fused(model, served=served, onnx=purpose == "onnx")
    blocks = fused_blocks(sooner)
    shared = family == "albert" and pooling != "cls"  # one block, called twice
    assert [block.first_only for block in blocks] == ([False] if shared else [False, pooling == "cls"])
    x = inputs_for(model)
    np.testing.assert_allclose(sooner(x, training=False), model(x, training=False), atol=2e-6)
    own = {id(v) for v in sooner.variables} - {id(v) for v in model.variables}
    parts = [part for block in blocks if served for part in block.parts]
    assert len(parts) == (fusing.PARTS * len(blocks) if served else 0)
    assert own == {id(variable) for part in parts for variable in keras.tree.flatten(part)}


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling")
@pytest.mark.parametrize("settings", [{}, {"axis": -2}, {"scale": False}, {"center": False}, {"rms_scaling": True}])
def test_only_norms_it_can_write_are_written_anew(settings: dict[str, Any]) -> None:
    backbone = BACKBONES["bert"]()
    norm = keras.layers.LayerNormalization(**settings)
    states = backbone.output["sequence_output"]
    x = inputs_for(backbone)
    if settings.get("axis"):
        states = keras.layers.Reshape((x["token_ids"].shape[1], states.shape[-1]))(states)  # it wants a fixed length
    model = keras.Model(backbone.input, norm(states))
    for variable in norm.weights:
        variable.assign(variable + np.random.default_rng(0).standard_normal(variable.shape))
    sooner = fusing.fused(model, onnx=True)
    written = [layer.norm for layer in sooner.layers if isinstance(layer, fusing.PlainNorm)]
    assert (norm in written) == (not settings)
    np.testing.assert_allclose(sooner(x, training=False), model(x, training=False), atol=2e-5)


def test_packed_tokens_come_in_multiples() -> None:
    mask = np.ones((7, 40), "int32")
    mask[3:, 21:] = 0  # 204 tokens
    packed = fusing._packing(tf.constant(mask))
    assert len(packed.positions) == 208
    flat = np.flatnonzero(mask)
    np.testing.assert_array_equal(packed.positions[:204], flat)
    np.testing.assert_array_equal(np.take(packed.positions, packed.tokens)[mask == 1], flat)
    assert len(fusing._packing(tf.constant(mask[:2])).positions) == 80  # few: as they are


@pytest.mark.parametrize("family", OTHERS)
def test_other_families_stay_as_they_are(family: str) -> None:
    model = model_on(family)
    if family == "bart":  # its encoder is made of the same blocks, its decoder is not
        x = inputs_for(model)
        np.testing.assert_allclose(fusing.fused(model)(x, training=False), model(x, training=False), atol=1e-6)
    else:
        assert fusing.fused(model) is model
    assert fusing.side_by_side(model) == 1


@pytest.mark.parametrize("family", KNOWN)
def test_an_export_computes_parts_side_by_side(family: str) -> None:
    assert fusing.side_by_side(model_on(family)) == fusing.PARTS


@pytest.mark.parametrize(("heads", "hidden"), [(3, 16), (2, 15)])
def test_counts_that_have_no_half_are_one_part(heads: int, hidden: int) -> None:
    inputs = keras.Input((None, 12)), keras.Input((None,), dtype="int32")
    block = keras_hub.layers.TransformerEncoder(hidden, heads, name="layer_0")
    model = keras.Model(list(inputs), block(inputs[0], padding_mask=inputs[1]))
    sooner = fusing.fused(model, served=True)
    assert [len(b.parts) for b in fused_blocks(sooner)] == [1]
    assert fusing.side_by_side(model) == 1
    mask = np.array([[1] * 4, [1, 1, 0, 0]])
    x = [np.random.default_rng(0).standard_normal((2, 4, 12)).astype("float32"), mask]
    np.testing.assert_allclose(np.asarray(sooner(x))[mask == 1], np.asarray(model(x))[mask == 1], atol=1e-6)


def test_a_block_before_which_the_norm_comes() -> None:
    inputs = keras.Input((None, 8)), keras.Input((None,), dtype="int32")
    block = keras_hub.layers.TransformerEncoder(16, 2, normalize_first=True, activation="gelu", name="layer_0")
    model = keras.Model(list(inputs), block(inputs[0], padding_mask=inputs[1])[:, 0, :])
    sooner = fusing.fused(model, served=True)
    assert [b.first_only for b in fused_blocks(sooner)] == [True]
    x = [np.random.default_rng(0).standard_normal((2, 4, 8)).astype("float32"), np.array([[1] * 4, [1, 1, 0, 0]])]
    np.testing.assert_allclose(sooner(x), model(x), atol=1e-6)


def test_a_block_without_a_mask() -> None:
    inputs = keras.Input((None, 8))
    model = keras.Model(inputs, keras_hub.layers.TransformerEncoder(16, 2, name="layer_0")(inputs))
    x = np.random.default_rng(0).standard_normal((2, 4, 8)).astype("float32")
    sooner = fusing.fused(model, served=True)
    assert fused_blocks(sooner)
    np.testing.assert_allclose(sooner(x), model(x), atol=1e-6)


def test_a_block_that_is_read_elsewhere_too_is_computed_whole() -> None:
    backbone = BACKBONES["bert"]()
    sequence = backbone.output["sequence_output"]
    for outputs in ([sequence[:, 0, :], sequence], [sequence[:, 0, :], sequence[:, 1, :]], sequence[:, 0:2, :]):
        sooner = fusing.fused(keras.Model(backbone.input, outputs))
        assert not any(block.first_only for block in fused_blocks(sooner))


def test_blocks_of_another_arithmetic_stay_as_they_are() -> None:
    mixed = keras_hub.models.BertBackbone(
        vocabulary_size=9, num_layers=1, num_heads=1, hidden_dim=8, intermediate_dim=8, dtype="mixed_bfloat16"
    )
    assert fusing.fused(mixed) is mixed
    backbone = BACKBONES["bert"]()
    backbone.quantize("int8", filters="query")
    assert fusing.fused(backbone) is backbone


def test_adapters_count() -> None:
    backbone = BACKBONES["bert"]()
    backbone.enable_lora(2)
    model = keras.Model(backbone.input, tfft.softmax_head(backbone, 3, pooling="mean"))
    for variable in model.trainable_variables:
        variable.assign(np.random.default_rng(1).standard_normal(variable.shape))
    x = inputs_for(model)
    sooner = fusing.fused(model)
    assert fused_blocks(sooner)
    np.testing.assert_allclose(sooner(x), model(x, training=False), atol=2e-6)


@pytest.mark.parametrize("family", KNOWN)
def test_training_what_is_narrowed_is_training_the_model(family: str) -> None:
    model = classifier(family, "cls")
    for layer in graph.flattened(model):
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    narrow = fusing.narrowed(model)
    assert [block.first_only for block in fused_blocks(narrow)] == [True]
    x = inputs_for(model)

    def gradients(which: keras.Model) -> dict[int, Any]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(which(x, training=True)[:, 0])
        variables = model.trainable_variables
        found = tape.gradient(loss, [v.value for v in variables])
        return {id(v): tf.convert_to_tensor(g) for v, g in zip(variables, found, strict=True) if g is not None}

    expected, got = gradients(model), gradients(narrow)
    assert expected.keys() == got.keys()
    for variable, gradient in expected.items():
        np.testing.assert_allclose(got[variable], gradient, atol=2e-5 * max(1.0, float(tf.reduce_max(abs(gradient)))))


def test_what_is_narrowed_still_drops_out() -> None:
    narrow = fusing.narrowed(classifier("bert", "cls"))
    x = inputs_for(narrow)
    assert not np.allclose(narrow(x, training=True), narrow(x, training=True))
    assert np.allclose(narrow(x, training=False), narrow(x, training=False))


def test_nothing_to_narrow() -> None:
    model = classifier("bert", "mean")
    assert fusing.narrowed(model) is model


def test_bfloat16_products_are_near() -> None:
    model = classifier("bert", "mean")
    x = {name: tf.constant(value) for name, value in inputs_for(model).items()}
    with arithmetic("bfloat16"):
        near = activations.compiled(model)(x)
    exact = activations.compiled(model)(x)
    assert near.dtype == tf.float32
    np.testing.assert_allclose(near, exact, atol=0.05)
    np.testing.assert_allclose(exact, model(x, training=False), atol=2e-6)
    assert not np.array_equal(near, exact)


def test_the_first_position_is_found_in_the_graph() -> None:
    inputs = keras.Input((None, 8))
    one, two = keras.layers.Dense(4)(inputs), keras.layers.Dense(4)(inputs)
    model = keras.Model(inputs, [one[:, 0, :], one[:, 0], two[:, 0, :], two[:, -1, :]])
    assert graph.only_first_read(model) == {id(one)}
