"""FusedAdam: Keras's own Adam and AdamW, number for number."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import optimizers

from tfft import training
from tfft.optimizers import FusedAdam

STEPS = 6


def dense_model() -> keras.Model:
    x = keras.Input((5,))
    hidden = keras.layers.LayerNormalization(name="norm")(keras.layers.Dense(7, activation="tanh", name="dense")(x))
    return keras.Model(x, keras.layers.Dense(3, name="head_scores")(hidden))


def embedding_model() -> keras.Model:
    ids = keras.Input((4,), dtype="int32")
    hidden = keras.layers.Embedding(20, 6, name="embedding")(ids)
    return keras.Model(ids, keras.layers.Dense(3, name="head_scores")(keras.layers.Flatten()(hidden)))


def trained(model: keras.Model, optimizer: Any, weights: list[np.ndarray], graph: bool = True) -> list[np.ndarray]:
    """The weights after a few steps on random batches, big errors among them, from the given start."""
    model.set_weights(weights)
    generator = np.random.default_rng(0)
    model.compile(optimizer, "mse", jit_compile=False, run_eagerly=not graph)
    ids = "int" in model.inputs[0].dtype
    shape = (8, *model.inputs[0].shape[1:])
    for step in range(STEPS):
        x = generator.integers(0, 5, shape) if ids else generator.normal(size=shape)  # few ids: each several times
        model.train_on_batch(x, generator.normal(size=(8, 3)) * 10**step)
    return [v.numpy() for v in model.weights]


def assert_alike(model: keras.Model, one: Any, other: Any, graph: bool = True) -> None:
    start = model.get_weights()
    found = trained(model, one, start, graph)
    expected = trained(model, other, start, graph)
    for a, b, c in zip(found, expected, start, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert np.abs(a - c).max() > 1e-3


@pytest.mark.parametrize("make", [dense_model, embedding_model])
@pytest.mark.parametrize("weight_decay", [None, 0.1])
def test_it_is_keras_adam_and_adamw(weight_decay: float | None, make: Any) -> None:
    keras.utils.set_random_seed(0)
    settings = {"learning_rate": 1e-2, "global_clipnorm": 1.0}
    other = optimizers.AdamW(**settings, weight_decay=weight_decay) if weight_decay else optimizers.Adam(**settings)
    assert_alike(make(), FusedAdam(1e-2, 1.0, weight_decay), other)


@pytest.mark.parametrize(("make", "clip_norm"), [(dense_model, None), (embedding_model, 1e9)])
def test_nothing_is_clipped_unless_asked(make: Any, clip_norm: float | None) -> None:
    """Keras squares the parts of a token's sparse gradient one by one, unless its clipping has summed them before."""
    keras.utils.set_random_seed(0)
    assert_alike(make(), FusedAdam(1e-2), optimizers.Adam(1e-2, global_clipnorm=clip_norm))


def test_gradients_of_embeddings_are_sparse() -> None:
    model = embedding_model()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(np.zeros((2, 4), "int32")))
    assert isinstance(tape.gradient(loss, model.get_layer("embedding").embeddings.value), tf.IndexedSlices)


def test_it_runs_eagerly_too() -> None:
    assert_alike(dense_model(), FusedAdam(1e-2, 1.0), optimizers.Adam(1e-2, global_clipnorm=1.0), graph=False)


def test_the_learning_rate_may_be_a_schedule() -> None:
    rates = [training.schedule(1e-2, STEPS, 0.5, "cosine") for _ in range(2)]
    assert_alike(dense_model(), FusedAdam(rates[0], 1.0), optimizers.Adam(rates[1], global_clipnorm=1.0))


def test_biases_and_norms_are_spared_from_weight_decay() -> None:
    other = optimizers.AdamW(1e-2, weight_decay=0.1, global_clipnorm=1.0)
    other.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    assert_alike(dense_model(), training.optimizer(1e-2, 0.1, 1.0), other)


def test_only_what_is_excluded_is_spared() -> None:
    model = dense_model()
    model.set_weights([np.ones(v.shape) for v in model.weights])
    model.compile(training.optimizer(1e-2, 0.5, 1.0), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    model.optimizer.apply([tf.zeros(v.shape) for v in model.trainable_variables])
    after = {v.path: float(v.numpy().max()) for v in model.weights}
    assert {path: value < 1 for path, value in after.items()} == {path: path.endswith("kernel") for path in after}


def test_what_is_frozen_has_no_moments_and_does_not_move() -> None:
    model = dense_model()
    model.get_layer("dense").trainable = False
    before = [v.numpy() for v in model.get_layer("dense").weights]
    trained(model, FusedAdam(1e-2, 1.0), model.get_weights())
    for one, other in zip(before, model.get_layer("dense").weights, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
    assert len(model.optimizer.moments) == len(model.trainable_variables) == 4


def test_gradients_are_clipped_before_the_step() -> None:
    weight = keras.Variable(np.zeros(2, "float32"))
    moved = []
    for clip_norm in (1e-9, None):
        weight.assign(np.zeros(2))
        optimizer = FusedAdam(1.0, clip_norm)
        optimizer.build([weight])
        optimizer.apply([tf.constant([3.0, 4.0])])
        moved.append(np.abs(weight.numpy()))
    assert (moved[0] < 0.02).all()  # a gradient far below epsilon
    np.testing.assert_allclose(moved[1], 1.0, atol=1e-5)
