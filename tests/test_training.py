"""fit: learns what it should, keeps what it must, the same each time."""

import logging
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import tfft
from tfft import training
from tfft.errors import FreezeError, InvalidValueError
from tfft.examples import Examples
from tfft.seeding import set_seed


def prepared(
    presets: Any, policy: Any, reviews: list[dict[str, str]], pooling: str = "mean"
) -> tuple[keras.Model, Examples]:
    rows = pd.DataFrame(reviews)
    task = tfft.get_task("text-classification")
    facts = task.learn(rows)
    backbone, tokenizer = tfft.load_backbone(presets("bert"))
    tfft.freeze(backbone, policy)
    set_seed(5)
    model = task.head(backbone, facts, pooling=pooling, dropout=0.1)
    return model, task.encode(rows, tokenizer, facts)


@pytest.mark.parametrize("policy", ["all", "none", "embeddings", 1])
def test_only_what_is_trainable_moves(policy: Any, presets: Any, reviews: list[dict[str, str]]) -> None:
    model, examples = prepared(presets, policy, reviews)
    before = {v.path: keras.ops.convert_to_numpy(v) for v in model.variables}
    learn = {v.path for v in model.trainable_variables}
    tfft.fit(model, examples, examples, epochs=2, batch_size=4, learning_rate=1e-2)
    moved = {v.path for v in model.variables if not np.array_equal(before[v.path], keras.ops.convert_to_numpy(v))}
    moved = {path for path in moved if "seed_generator" not in path}
    assert moved
    assert moved <= learn


def test_the_same_seed_gives_the_same_weights(presets: Any, reviews: list[dict[str, str]]) -> None:
    results = []
    for seed in (1, 1, 2):
        model, examples = prepared(presets, "none", reviews)
        tfft.fit(model, examples, examples, epochs=2, batch_size=3, learning_rate=1e-2, seed=seed)
        results.append(keras.ops.convert_to_numpy(model.get_layer("head_output").kernel))
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - results[2]).max() > 0


def test_what_learns_is_in_the_log(
    presets: Any, reviews: list[dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    model, examples = prepared(presets, "all", reviews)
    with caplog.at_level("INFO", "tfft"):
        tfft.fit(model, examples, epochs=1)
    assert "learning: head_output; 18 of " in caplog.text
    assert "epoch 1: " in caplog.text


def test_nothing_to_learn_is_an_error(presets: Any, reviews: list[dict[str, str]]) -> None:
    model, examples = prepared(presets, "all", reviews)
    model.trainable = False
    with pytest.raises(FreezeError, match="nothing learns: every layer is frozen. Add a head, or freeze less"):
        tfft.fit(model, examples)


def test_a_learning_rate_of_nothing_is_an_error(presets: Any, reviews: list[dict[str, str]]) -> None:
    model, examples = prepared(presets, "all", reviews)
    with pytest.raises(FreezeError, match="no trainable variable moved"):
        tfft.fit(model, examples, epochs=1, learning_rate=0.0)


def test_early_stopping_keeps_the_best_weights(presets: Any, reviews: list[dict[str, str]]) -> None:
    model, examples = prepared(presets, "none", reviews)
    opposite = examples._replace(y=examples.y[:, ::-1].copy())  # every step towards the training rows is a step away
    history = tfft.fit(
        model, examples, opposite, epochs=9, monitor="loss", patience=1, batch_size=8, learning_rate=1e-2, warmup=0.0
    )
    assert len(history.epoch) < 9
    loss = keras.losses.CategoricalCrossentropy()(opposite.y, tfft.predict(model, opposite))
    assert float(loss) == pytest.approx(min(history.history["val_loss"]), abs=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_keeps_its_statistics_only_where_frozen(frozen: bool) -> None:
    inputs = keras.Input((4,), name="pixels")
    norm = keras.layers.BatchNormalization(name="norm", trainable=not frozen)
    outputs = keras.layers.Dense(2, activation="softmax", name="head_scores")(norm(inputs))
    model = keras.Model({"pixels": inputs}, outputs)
    rows = Examples({"pixels": np.arange(32, dtype="float32").reshape(8, 4)}, np.eye(2)[[0, 1] * 4], np.ones(8), {})
    tfft.fit(model, rows, epochs=2, batch_size=4)
    moved = float(np.abs(keras.ops.convert_to_numpy(norm.moving_mean)).max())
    assert (moved == 0) == frozen


def test_users_may_go_on_in_plain_keras(presets: Any, reviews: list[dict[str, str]]) -> None:
    model, examples = prepared(presets, "all", reviews)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    history = model.fit(tfft.batches(examples, list(model.input), 4, seed=0), epochs=2, shuffle=False, verbose=0)
    assert len(history.history["accuracy"]) == 2


@pytest.mark.parametrize(
    ("decay", "warmup", "expected"),
    [
        ("cosine", 0.2, [0.0, 0.5, 1.0, 0.5, 0.0]),
        ("constant", 0.2, [0.0, 0.5, 1.0, 1.0, 1.0]),
        ("constant", 0.0, [1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedule(decay: str, warmup: float, expected: list[float]) -> None:
    rate = training.schedule(1.0, 100, warmup, decay)
    steps = (0, 10, 20, 60, 100)
    assert [float(rate(step)) for step in steps] == pytest.approx(expected, abs=1e-6)


def test_unknown_decay() -> None:
    with pytest.raises(
        InvalidValueError, match="decay must be one of: cosine, inverse-sqrt, constant. Received: 'linear'"
    ):
        training.schedule(1.0, 10, 0.1, "linear")


def test_weight_decay_asks_for_adamw_and_clipping_is_on() -> None:
    assert training.optimizer(1e-3, 0.0, 1.0).weight_decay is None
    adamw = training.optimizer(1e-3, 0.01, 1.0)
    assert adamw.weight_decay == 0.01
    assert adamw.clip_norm == 1.0


def test_label_weights_reach_the_loss(presets: Any, reviews: list[dict[str, str]]) -> None:
    task = tfft.get_task("text-classification")
    rows = pd.DataFrame(reviews[:5])
    facts = task.learn(rows)
    _, tokenizer = tfft.load_backbone(presets("bert"))
    weighted = task.encode(rows, tokenizer, facts, class_weight="balanced").weight
    assert weighted.tolist() == pytest.approx([0.625] * 4 + [2.5])
    assert task.encode(rows, tokenizer, facts, class_weight={"neg": 3.0}).weight.tolist() == [1, 1, 1, 1, 3]
    with pytest.raises(InvalidValueError, match="class_weight must be 'balanced' or weights of known labels"):
        task.encode(rows, tokenizer, facts, class_weight={"nope": 1.0})


def test_inverse_root_rises_and_falls() -> None:
    rate = training.schedule(1e-3, 1000, 0.1, "inverse-sqrt")
    values = [float(rate(step)) for step in (0, 49, 99, 399)]
    assert values == pytest.approx([1e-5, 5e-4, 1e-3, 5e-4], rel=1e-4)


@pytest.mark.parametrize("judged", [True, False])
def test_the_mean_of_the_last_epochs_is_kept_where_it_is_no_worse(
    judged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Steps that overshoot swing around the least loss; their mean is nearer to it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((1,), name="x")
    model = keras.Model({"x": inputs}, keras.layers.Dense(1, use_bias=False, name="head_output")(inputs))
    x = np.ones((8, 1), "float32")
    rows = Examples({"x": x}, 3 * x, np.ones(8, "float32"), {})
    settings = {"batch_size": 8, "learning_rate": 2.0, "warmup": 0.0, "decay": "constant", "loss": "mse", "metrics": ()}
    settings |= {"monitor": "loss", "patience": 99, "clip_norm": None, "epochs": 12}
    ends = []

    class Ends(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            ends.append(float(self.model.trainable_variables[0].numpy()[0, 0]))

    with caplog.at_level(logging.INFO, "tfft"):
        training.fit(model, rows, rows if judged else None, average=4, callbacks=[Ends()], **settings)
    kept, mean = float(model.trainable_variables[0].numpy()[0, 0]), float(np.mean(ends[-4:]))
    if judged:
        best = min([*ends, mean], key=lambda value: abs(value - 3))
        assert kept == pytest.approx(best, abs=1e-5)
        assert "the mean of the last 4 epochs' weights is tried" in caplog.text
    else:
        assert kept == pytest.approx(mean, abs=1e-5)


def test_the_mean_is_judged_by_a_score_that_keras_does_not_know() -> None:
    inputs = keras.Input((1,), name="x")
    model = keras.Model({"x": inputs}, keras.layers.Dense(1, use_bias=False, name="head_output")(inputs))
    x = np.ones((8, 1), "float32")
    rows = Examples({"x": x}, 3 * x, np.ones(8, "float32"), {})
    seen = []

    def near(outputs: np.ndarray) -> dict[str, float]:
        seen.append(-abs(float(outputs[0, 0]) - 3))
        return {"near": seen[-1]}

    settings = {"batch_size": 8, "learning_rate": 1.0, "loss": "mse", "metrics": (), "clip_norm": None, "epochs": 5}
    training.fit(model, rows, rows, average=3, monitor="near", score=near, patience=99, **settings)
    assert len(seen) == 7  # five epochs, the best of them, the mean
    assert -abs(float(model.trainable_variables[0].numpy()[0, 0]) - 3) == pytest.approx(max(seen), abs=1e-5)


def test_an_epoch_whose_only_step_has_no_rate_is_not_gone_back_to() -> None:
    """What is best of the validation rows is then the first epoch with a step, not the weights before any."""
    inputs = keras.Input((1,), name="x")
    model = keras.Model({"x": inputs}, keras.layers.Dense(1, use_bias=False, name="head_output")(inputs))
    x, ones = np.ones((8, 1), "float32"), np.ones(8, "float32")
    settings = {"batch_size": 8, "epochs": 20, "warmup": 0.2, "loss": "mse", "metrics": (), "monitor": "loss"}
    validation = Examples({"x": x}, -9 * x, ones, {})  # away from it from the first step on
    history = training.fit(model, Examples({"x": x}, 9 * x, ones, {}), validation, patience=20, **settings)
    losses = history.history["val_loss"]
    assert losses[0] < losses[1] < losses[-1]
    assert float((model.trainable_variables[0].numpy()[0, 0] + 9) ** 2) == pytest.approx(losses[1], rel=1e-4)
