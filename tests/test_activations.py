"""The split: same outputs, same training, dropout only where something learns."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfft
from tests.test_graph import BACKBONES
from tfft import activations
from tfft.arithmetic import arithmetic
from tfft.examples import Examples

IDS = np.array([[2, 5, 6, 3], [2, 7, 3, 0]], "int32")


def inputs_for(model: keras.Model) -> dict[str, np.ndarray]:
    whole = {"token_ids": IDS, "padding_mask": (IDS != 0).astype("int32"), "segment_ids": np.zeros_like(IDS)}
    both = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in whole.items()}
    return {name: (whole | both)[name] for name in model.input}


def model_on(family: str, dropout: float = 0.0) -> keras.Model:
    backbone = BACKBONES[family]()
    if "token_ids" in backbone.input:
        return keras.Model(backbone.input, tfft.softmax_head(backbone, 3, pooling="blocks", dropout=dropout))
    hidden = keras.layers.Dropout(dropout, name="head_dropout")(backbone.output["decoder_sequence_output"])
    return keras.Model(backbone.input, keras.layers.Dense(3, name="head_scores")(hidden))


@pytest.mark.parametrize("family", BACKBONES)
@pytest.mark.parametrize("policy", ["all", "embeddings", 1, "*_1"])
def test_suffix_of_prefix_is_the_model(family: str, policy: Any) -> None:
    model = model_on(family, dropout=0.5)
    try:
        tfft.freeze(model, policy)
    except tfft.TfftError:
        pytest.skip("the family has no second block")
    prefix, suffix = tfft.split(model)
    x = inputs_for(model)
    cut = x if prefix is None else prefix(x, training=False)
    np.testing.assert_allclose(suffix(cut, training=False), model(x, training=False), atol=1e-6)
    trained = {id(v) for v in suffix.trainable_variables}
    assert trained == {id(v) for v in model.trainable_variables}


def test_all_frozen_ends_in_one_vector_a_row_below_the_heads_dropout() -> None:
    model = model_on("bert", dropout=0.5)
    tfft.freeze(model, "all")
    prefix, suffix = tfft.split(model)
    assert prefix is not None
    assert [t.shape for t in prefix.output.values()] == [(None, 16)]
    assert activations.is_pooled(prefix)
    assert "head_dropout" in [layer.name for layer in suffix.layers]


def test_nothing_frozen_has_no_prefix() -> None:
    prefix, _ = tfft.split(tfft.freeze(model_on("bert"), "none"))
    assert prefix is None


def test_frozen_sequences_are_not_pooled() -> None:
    prefix, _ = tfft.split(tfft.freeze(model_on("bert"), 1))
    assert prefix is not None
    assert not activations.is_pooled(prefix)


@pytest.mark.parametrize("policy", ["all", "transformer_layer_1", "token_embedding"])
def test_frozen_layers_run_no_dropout_in_training(policy: str) -> None:
    model = tfft.freeze(model_on("bert"), policy)
    learner = activations.join(*tfft.split(model))
    x = inputs_for(model)
    differs = np.abs(np.array(learner(x, training=True)) - np.array(learner(x, training=True))).max() > 0
    # all frozen: nothing is random; else the layers that learn still drop out
    assert differs == (policy != "all")
    top = tfft.freeze(model_on("bert"), "none")
    for layer in top.layers:  # everything frozen by hand but the head: what Keras alone would leave noisy
        layer.trainable = layer.name == "head_output"
    plain = [np.array(top(x, training=True)) for _ in range(2)]
    assert np.abs(plain[0] - plain[1]).max() > 0
    cut = activations.join(*tfft.split(top))
    np.testing.assert_array_equal(cut(x, training=True), cut(x, training=True))


def test_training_the_suffix_trains_the_model_alike() -> None:
    """Fast path == plain path: stored frozen outputs, against the frozen part run in every step."""
    weights = []
    for stored in (True, False):
        keras.utils.set_random_seed(3)
        model = tfft.freeze(model_on("bert"), "all")
        prefix, suffix = tfft.split(model)
        learner = suffix if stored else activations.join(prefix, suffix)
        x: Any = inputs_for(model)
        x = prefix(x, training=False) if stored else x  # type: ignore[misc]
        learner.compile(keras.optimizers.Adam(1e-2), "categorical_crossentropy", jit_compile=False)
        for _ in range(3):
            learner.train_on_batch(x, np.eye(3, dtype="float32")[:2])
        weights.append([keras.ops.convert_to_numpy(v) for v in model.trainable_variables])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("many", [1, 10**6])
@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_pass_over_rows_is_the_model_on_each_batch(
    family: str, many: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_on(family)
    x = {name: np.concatenate([value] * 10) for name, value in inputs_for(model).items()}
    x = {name: np.where(value > 3, np.arange(20, dtype="int32")[:, None] % 5 + 4, value) for name, value in x.items()}
    rows = Examples(x, np.zeros(20), np.ones(20), {})
    monkeypatch.setattr(activations, "MANY", many)
    monkeypatch.setattr(activations, "processors", lambda: 2)
    asked = []
    as_it_is = tf.data.Dataset.map
    monkeypatch.setattr(
        tf.data.Dataset, "map", lambda self, *args, **kwargs: asked.append(kwargs) or as_it_is(self, *args, **kwargs)
    )
    with arithmetic(precision):
        found = list(activations.forward_pass(model, rows, 4))
        forward = activations.compiled(model)
        cut = [{name: tf.constant(value[i : i + 4]) for name, value in x.items()} for i in range(0, 20, 4)]
        wanted = [forward(batch).numpy() for batch in cut]
    assert len(found) == 5
    assert ({"num_parallel_calls": 2} in asked) == (many == 1)
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(wanted), atol=1e-6)
    assert len(np.unique(np.concatenate(wanted), axis=0)) > 3  # were all the same, no order would be wrong


@pytest.mark.parametrize("many", [1, 10**6])
def test_a_pass_gives_outputs_nested_as_the_models(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = keras.Input((3,), name="x")
    outputs = [keras.layers.Dense(2)(inputs), {"b": keras.layers.Dense(4)(inputs), "a": keras.layers.Dense(2)(inputs)}]
    model = keras.Model({"x": inputs}, outputs)
    x = np.random.default_rng(0).standard_normal((200, 3)).astype("float32")
    monkeypatch.setattr(activations, "MANY", many)
    monkeypatch.setattr(activations, "processors", lambda: 2)
    found = list(activations.forward_pass(model, Examples({"x": x}, np.zeros(200), np.ones(200), {}), 4))
    assert len(found) == 50
    wanted = model({"x": x})
    for pick in (lambda y: y[0], lambda y: y[1]["a"], lambda y: y[1]["b"]):
        np.testing.assert_allclose(np.concatenate([pick(part) for part in found]), pick(wanted), atol=1e-6)


def test_a_pass_over_no_rows() -> None:
    model = model_on("bert")
    x = {name: value[:0] for name, value in inputs_for(model).items()}
    assert list(activations.forward_pass(model, Examples(x, np.zeros(0), np.ones(0), {}), 4)) == []
