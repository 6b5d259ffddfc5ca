"""The cache: stored outputs mean the same to the suffix, whole or absent on disk, and found again by what they are."""

import functools
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import tfft
from tests.test_graph import BACKBONES, LONG
from tfft import batching, caching, fingerprint, frontier
from tfft import store as entries_on_disk
from tfft.arithmetic import arithmetic
from tfft.caching import Cache
from tfft.errors import InvalidValueError
from tfft.examples import Examples, Ragged, Shared, as_arrays, lengths, take
from tfft.seeding import seed_layers, set_seed

ROOT = Path(__file__).parents[1]
LENGTHS = (3, 7, 5, 12, 4, 9, 3, 16, 6, 8, 11, 5)  # tokens of each row; the models' tables of positions end at 16
TOKENS = sum(LENGTHS)

REASONS = {  # what cannot be stored, and the words for it
    ("f-net", "embeddings"): "depend on how far a text was padded",  # no mask: padding is part of the text
    ("f-net", 1): "depend on how far a text was padded",
    ("t5", 1): "has no axis of rows, or two as long as the text",  # each row's mask is inside its position bias
}


def rows_for(model: keras.Model, counts: Any = LENGTHS, seed: int = 0) -> Examples:
    """Random rows of these lengths as any of the families takes them."""
    random_ = np.random.default_rng(seed)
    values = random_.integers(4, 30, sum(counts)).astype("int32")
    ids = tf.RaggedTensor.from_row_lengths(values, counts)
    whole = {"token_ids": ids, "padding_mask": tf.ones_like(ids), "segment_ids": tf.zeros_like(ids)}
    both = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in whole.items()}
    x = {name: (whole | both)[name] for name in model.input}
    y = np.eye(3, dtype="float32")[random_.integers(0, 3, len(counts))]
    return Examples(x, y, np.ones(len(counts), "float32"), dict.fromkeys(x, 0))


def model_on(backbone: Any, dropout: float = 0.0) -> keras.Model:
    if "token_ids" in backbone.input:
        return keras.Model(backbone.input, tfft.softmax_head(backbone, 3, dropout=dropout))
    mean = keras.layers.GlobalAveragePooling1D(name="head_mean")  # of what the decoder says
    pooled = mean(backbone.output["decoder_sequence_output"], mask=backbone.input["decoder_padding_mask"])
    return keras.Model(backbone.input, keras.layers.Dense(3, name="head_scores")(pooled))


@functools.cache
def shared_model(family: str) -> keras.Model:
    """One model a family, for tests that train nothing."""
    return model_on(BACKBONES[family]())


def bert(policy: Any = 1, *, seed: int = 5, dropout: float = 0.0) -> keras.Model:
    """A model of its own: the same weights for the same seed."""
    set_seed(seed)
    backbone = keras_hub.models.BertBackbone(**LONG, dropout=dropout)
    return tfft.freeze(model_on(backbone, dropout), policy)


def store(
    model: keras.Model, rows: Examples, folder: Path, passes: int = 2, **settings: Any
) -> tuple[keras.Model, Examples | None]:
    """The suffix, and the rows as it takes them."""
    prefix, suffix = tfft.split(model)
    assert prefix is not None
    cache = Cache(folder, **{"mode": "always", "dtype": "float32"} | settings)
    return suffix, caching.frozen_outputs(prefix, suffix, rows, cache, passes=passes, description="rows")


def stored(model: keras.Model, rows: Examples, folder: Path, **settings: Any) -> Examples:
    _, found = store(model, rows, folder, **settings)
    assert found is not None
    return found


def answers(model: keras.Model, rows: Examples, like: Examples | None = None, size: int = 6) -> list[np.ndarray]:
    """Batch by batch, rows of like length together: the lengths are those of `like`."""
    found, names = [], [tensor.name for tensor in model.inputs]
    for picked, length in batching.plan(lengths((like or rows).x), size, 10**6):
        x = {name: take(as_arrays(rows.x[name]), picked, length, rows.padding.get(name, 0)) for name in names}
        x = {name: value.astype("float32") if value.dtype.itemsize == 2 else value for name, value in x.items()}
        found.append(np.asarray(model(x, training=False)))
    return found


def arrays(x: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every array behind the inputs, by name."""
    parts = {name: value if isinstance(value, (Ragged, Shared)) else (value,) for name, value in x.items()}
    return {f"{name} {i}": np.asarray(part) for name, value in parts.items() for i, part in enumerate(value)}


def assert_same_arrays(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert arrays(one).keys() == arrays(other).keys()
    for name, value in arrays(one).items():
        np.testing.assert_array_equal(value, arrays(other)[name], err_msg=name)


def assert_close(one: list[np.ndarray], other: list[np.ndarray], atol: float = 1e-5) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def entry_in(folder: Path) -> Path:
    (entry,) = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return entry


def fields_of(entry: Path) -> dict[str, Any]:
    return json.loads((entry / "manifest.json").read_text("utf-8"))["fields"]


def key_of(model: keras.Model, rows: Examples, dtype: str = "float32") -> str:
    prefix, _ = tfft.split(model)
    assert prefix is not None
    return fingerprint.key(frontier.computing(prefix), rows, dtype)


# -- stored == computed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["embeddings", 1, "all"])
@pytest.mark.parametrize("family", BACKBONES)
def test_the_suffix_of_what_is_stored_is_the_model(
    family: str, policy: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tfft.freeze(shared_model(family), policy)
    rows = rows_for(model)
    with caplog.at_level("INFO", "tfft"):
        suffix, found = store(model, rows, tmp_path)
    if (family, policy) in REASONS:
        assert found is None
        assert "cache: no, " in caplog.text
        assert REASONS[family, policy] in caplog.text
        assert not list(tmp_path.iterdir())
        return
    assert found is not None
    if (family, policy) == ("f-net", "all"):  # its vectors are those of the batches they were computed in
        np.testing.assert_allclose(tfft.predict(suffix, found), tfft.predict(model, rows), atol=1e-5)
    else:
        assert_close(answers(suffix, found, rows), answers(model, rows))
    assert "read from" not in caplog.text
    with caplog.at_level("INFO", "tfft"):
        again = stored(model, rows, tmp_path)
    assert f"cache: rows, read from {entry_in(tmp_path)}" in caplog.text
    assert_same_arrays(found.x, again.x)


def test_debertas_table_of_relative_positions_is_kept_once(tmp_path: Path) -> None:
    found = stored(tfft.freeze(shared_model("deberta-v3"), 1), rows_for(shared_model("deberta-v3")), tmp_path)
    (name,) = [name for name, value in found.x.items() if isinstance(value, Shared)]
    assert fields_of(entry_in(tmp_path))[name]["kind"] == "shared"
    assert not (entry_in(tmp_path) / f"{name}.bin").exists()
    assert found.x[name].value.shape == (8, 8)  # twice the bucket size, the width


class Distances(keras.layers.Layer):
    """How near each two positions are: the same for all rows, two axes as long as they are."""

    def call(self, ids: Any) -> Any:
        """(batch, length) -> (batch, length, length)."""
        rows, length = ops.shape(ids)
        places = ops.arange(length)
        near = ops.exp(-ops.cast(ops.abs(places[:, None] - places), "float32"))
        return ops.broadcast_to(near, (rows, length, length))

    def compute_output_spec(self, ids: Any) -> Any:
        """Nothing is known but the number of axes."""
        return keras.KerasTensor((None, None, None))


def test_what_is_the_same_for_all_rows_is_kept_once_and_cut_to_each_batch(tmp_path: Path) -> None:
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
    hidden = keras.layers.Embedding(30, 8, trainable=False)(inputs["token_ids"])
    learnt = keras.layers.Dense(8)(hidden) * ops.cast(inputs["padding_mask"], "float32")[:, :, None]
    mixed = ops.matmul(Distances()(inputs["token_ids"]), learnt)
    pooled = keras.layers.GlobalAveragePooling1D()(mixed, mask=inputs["padding_mask"])
    model = keras.Model(inputs, keras.layers.Dense(3, name="head_scores")(pooled))
    rows = rows_for(model)
    suffix, found = store(model, rows, tmp_path)
    assert found is not None
    (shared,) = [value for value in found.x.values() if isinstance(value, Shared)]
    assert shared.value.shape == (16, 16)
    assert shared.length_axes == (0, 1)
    assert_close(answers(suffix, found, rows), answers(model, rows))


def image_model(activation: str = "relu") -> keras.Model:
    pixels = keras.Input((8, 8, 1), name="pixels")
    hidden = keras.layers.Conv2D(4, 3, activation=activation, trainable=False)(pixels)
    hidden = keras.layers.Conv2D(4, 3, activation=activation, trainable=False)(hidden)
    hidden = keras.layers.Conv2D(2, 3, activation="relu")(hidden)
    return keras.Model(pixels, keras.layers.Dense(3, name="head_scores")(keras.layers.Flatten()(hidden)))


def images(count: int = 40) -> Examples:
    x = np.random.default_rng(0).normal(size=(count, 8, 8, 1)).astype("float32")
    return Examples({"pixels": x}, np.eye(3, dtype="float32")[np.arange(count) % 3], np.ones(count, "float32"), {})


def test_images_are_stored_row_by_row(tmp_path: Path) -> None:
    model, rows = image_model(), images()
    suffix, found = store(model, rows, tmp_path)
    assert found is not None
    assert fields_of(entry_in(tmp_path))["frozen_0"] | {"axis": 1} == {
        "kind": "row",
        "axis": 1,
        "length_axes": [],
        "dtype": "float32",
        "shape": [4, 4, 4],
    }
    assert_close(answers(suffix, found, rows), answers(model, rows))
    assert_same_arrays(found.x, stored(model, rows, tmp_path).x)


def test_what_is_equal_in_a_few_rows_only_is_not_taken_for_shared(tmp_path: Path) -> None:
    """A frozen ReLU that is silent for the first rows, not for the others."""
    model, rows = image_model(), images()
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(np.abs(layer.kernel.numpy()))
    rows.x["pixels"][:3] = -np.abs(rows.x["pixels"][:3])
    suffix, found = store(model, rows, tmp_path)
    if found is not None:
        assert_close(answers(suffix, found, rows), answers(model, rows))


def test_rows_that_are_already_padded(tmp_path: Path) -> None:
    model = tfft.freeze(shared_model("deberta-v3"), 1)
    ids = np.random.default_rng(0).integers(4, 30, (9, 7)).astype("int32")
    mask = (np.arange(7) < np.arange(9)[:, None] % 5 + 2).astype("int32")
    rows = Examples({"token_ids": ids, "padding_mask": mask}, np.zeros(9), np.ones(9), {})
    suffix, found = store(model, rows, tmp_path)
    assert found is not None
    assert_close(answers(suffix, found), answers(model, rows))


def test_the_masks_of_keras_are_stored_too(tmp_path: Path) -> None:
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    hidden = keras.layers.Embedding(30, 8, mask_zero=True, trainable=False)(ids)
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(8)(hidden))
    model = keras.Model({"token_ids": ids}, keras.layers.Dense(3, name="head_scores")(pooled))
    rows = rows_for(model)
    suffix, found = store(model, rows, tmp_path)
    assert found is not None
    assert_close(answers(suffix, found, rows), answers(model, rows))


def test_inputs_in_a_list_are_found_by_name(tmp_path: Path) -> None:
    a, b = (keras.Input((3,), name=name) for name in "ab")
    hidden = [keras.layers.Dense(2, trainable=False)(x) for x in (a, b)]
    model = keras.Model([b, a], keras.layers.Dense(2, name="head_scores")(hidden[0] - 2 * hidden[1]))
    x = {name: np.random.default_rng(i).normal(size=(5, 3)).astype("float32") for i, name in enumerate("ab")}
    suffix, found = store(model, Examples(x, np.zeros(5), np.ones(5), {}), tmp_path)
    assert found is not None
    np.testing.assert_allclose(answers(suffix, found)[0], model([x["b"], x["a"]]), atol=1e-6)


def test_rows_may_be_as_long_as_the_model_takes(tmp_path: Path) -> None:
    model = tfft.freeze(shared_model("bert"), 1)
    rows = rows_for(model, [16, 16, 15, 16, 14, 16])
    suffix, found = store(model, rows, tmp_path)
    assert found is not None
    assert_close(answers(suffix, found, rows), answers(model, rows))


@pytest.mark.parametrize("counts", [[5], [5, 5], [4, 4, 4, 4]])
def test_few_rows_and_rows_of_one_length(counts: list[int], tmp_path: Path) -> None:
    model = tfft.freeze(shared_model("deberta-v3"), 1)
    rows = rows_for(model, counts)
    suffix, found = store(model, rows, tmp_path)
    if found is not None:
        assert_close(answers(suffix, found, rows), answers(model, rows))


def test_a_head_that_answers_for_padding_too_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbone = BACKBONES["bert"]()
    model = keras.Model(backbone.input, keras.layers.Dense(3, name="head_scores")(backbone.output["sequence_output"]))
    with caplog.at_level("INFO", "tfft"):
        _, found = store(tfft.freeze(model, 1), rows_for(model), tmp_path)
        assert found is None
        assert "depend on how far a text was padded" in caplog.text


def test_padding_is_not_asked_for_where_tokens_are_weighed(tmp_path: Path) -> None:
    backbone = BACKBONES["bert"]()
    model = keras.Model(backbone.input, keras.layers.Dense(3, name="head_scores")(backbone.output["sequence_output"]))
    rows = rows_for(model)
    tokens = as_arrays(rows.x["token_ids"])
    rows = rows._replace(weight=tokens._replace(values=np.ones(len(tokens.values), "float32")))
    _, found = store(tfft.freeze(model, 1), rows, tmp_path)
    assert found is not None


def test_predict_with_a_cache_is_predict(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tfft.freeze(shared_model("bert"), 1)
    rows, cache = rows_for(model), Cache(tmp_path, dtype="float32")
    with caplog.at_level("INFO", "tfft"):
        first, second = (tfft.predict(model, rows, cache=cache) for _ in range(2))
    assert caplog.text.count("cache: yes, predicting, 12 rows") == 1
    assert caplog.text.count("read from") == 1
    np.testing.assert_allclose(first, tfft.predict(model, rows), atol=1e-5)
    np.testing.assert_array_equal(first, second)


# -- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "itemsize"), [("float16", 2), ("bfloat16", 2), ("float32", 4)])
def test_real_tokens_only_are_written(dtype: str, itemsize: int, tmp_path: Path) -> None:
    model = tfft.freeze(shared_model("bert"), "embeddings")
    rows = rows_for(model)
    suffix, found = store(model, rows, tmp_path, dtype=dtype)
    assert found is not None
    assert (entry_in(tmp_path) / "frozen_0.bin").stat().st_size == TOKENS * 8 * itemsize
    assert found.x["frozen_0"].values.dtype.name == dtype
    (x, _, _), *_ = tfft.batches(found, ["frozen_0"], 4)
    assert x["frozen_0"].dtype == tf.float32
    assert_close(answers(suffix, found, rows), answers(model, rows), atol=1e-5 if itemsize == 4 else 2e-2)


def test_one_vector_a_row_is_float32_whatever_is_asked(tmp_path: Path) -> None:
    model = tfft.freeze(shared_model("bert"), "all")
    found = stored(model, rows_for(model), tmp_path, dtype="float16")
    assert found.x["frozen_0"].dtype == np.float32
    assert (entry_in(tmp_path) / "frozen_0.bin").stat().st_size == len(LENGTHS) * 16 * 4
    found = stored(tfft.freeze(shared_model("bert"), 1), rows_for(model), tmp_path, dtype="float16")
    dtypes = {name: as_arrays(value)[0].dtype.name for name, value in found.x.items()}
    assert dtypes == {"frozen_0": "float16", "frozen_1": "float32", "frozen_2": "int32"}  # tokens, a block's mean, mask


def loud_model() -> keras.Model:
    """Its frozen part puts out more than float16 holds."""
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    hidden = keras.layers.Embedding(30, 8, trainable=False)(ids)
    hidden = keras.layers.Dense(4, kernel_initializer=keras.initializers.Constant(1e7), trainable=False)(hidden)
    hidden = keras.layers.Dense(4, activation="relu")(hidden)  # no bias yet: 0 for padding
    return keras.Model({"token_ids": ids}, keras.layers.Dense(3, name="head_scores")(ops.max(hidden, axis=1)))


def test_what_float16_cannot_hold_is_stored_as_float32(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = loud_model()
    model.get_layer(index=1).set_weights([np.random.default_rng(0).normal(size=(30, 8)) * (np.arange(30) > 0)[:, None]])
    rows = rows_for(model)
    suffix, found = store(model, rows, tmp_path, dtype="float16")
    assert found is not None
    assert "cache: values of the frozen part do not fit float16; stored as float32" in caplog.text
    assert (entry_in(tmp_path) / "frozen_0.bin").stat().st_size == TOKENS * 4 * 4
    assert np.abs(found.x["frozen_0"].values).max() > 65504
    for one, other in zip(answers(suffix, found, rows), answers(model, rows), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    caplog.clear()
    assert_same_arrays(found.x, stored(model, rows, tmp_path, dtype="float16").x)
    assert not caplog.records  # found again, not tried again


def test_never_stores_nothing(tmp_path: Path) -> None:
    model = tfft.freeze(shared_model("bert"), 1)
    assert store(model, rows_for(model), tmp_path, mode="never")[1] is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mode": "on"}, "cache mode must be one of: auto, always, never. Received: 'on'"),
        ({"dtype": "int8"}, "cache dtype must be one of: float32, float16, bfloat16. Received: 'int8'"),
    ],
)
def test_unknown_settings(setting: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        Cache("x", **setting)  # type: ignore[arg-type]


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "dropout"), [(1, 0.3), ("all", 0.0)])  # what drops out is the same too
def test_training_with_the_cache_is_training_without(policy: Any, dropout: float, tmp_path: Path) -> None:
    weights, losses = [], []
    for mode in ("always", "never"):
        model = bert(policy, dropout=dropout)
        settings = {"epochs": 3, "batch_size": 5, "learning_rate": 1e-2, "seed": 2}
        cache = Cache(tmp_path, mode, dtype="float32")
        history = tfft.fit(model, rows_for(model, LENGTHS * 2), cache=cache, **settings)
        weights.append([v.numpy() for v in model.weights])
        losses.append(history.history["loss"])
    assert len(entries_on_disk.entries(tmp_path)) == 1
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
    assert_close(weights[0], weights[1])


def test_validation_rows_are_stored_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = bert("all")
    train, validation = rows_for(model), rows_for(model, seed=1)
    with caplog.at_level("INFO", "tfft"):
        history = tfft.fit(model, train, validation, epochs=1, cache=Cache(tmp_path, "always"))
    assert "cache: yes, training rows, 12 rows" in caplog.text
    assert "cache: yes, validation rows, 12 rows" in caplog.text
    loss = keras.losses.CategoricalCrossentropy()(validation.y, tfft.predict(model, validation))
    assert history.history["val_loss"] == [pytest.approx(float(loss), abs=1e-5)]


def test_batches_of_stored_rows_hold_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    model = tfft.freeze(shared_model("bert"), 1)
    rows = rows_for(model)._replace(y=np.arange(len(LENGTHS)))
    suffix, found = store(model, rows, tmp_path)
    assert found is not None
    one, other = (
        tfft.batches(examples, [tensor.name for tensor in part.inputs], 4, seed=3)
        for examples, part in ((rows, model), (found, suffix))
    )
    for _ in range(2):  # epochs
        assert [y.numpy().tolist() for _, y, _ in one] == [y.numpy().tolist() for _, y, _ in other]


def test_another_learning_rate_and_another_head_read_the_same_entries(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for rate, dropout in ((1e-2, 0.0), (1e-3, 0.5)):
        set_seed(5)
        backbone = keras_hub.models.BertBackbone(**LONG, dropout=0.0)
        set_seed(int(dropout * 10))
        model = tfft.freeze(model_on(backbone, dropout), "all")
        with caplog.at_level("INFO", "tfft"):
            tfft.fit(model, rows_for(model), epochs=1, learning_rate=rate, cache=Cache(tmp_path, "always"))
    assert caplog.text.count("cache: yes") == 1
    assert caplog.text.count("read from") == 1


# -- the key ----------------------------------------------------------------------------------------------------------


def test_key_follows_the_frozen_weights_only() -> None:
    model = bert(1)
    rows = rows_for(model)
    before = key_of(model, rows)
    for layer in ("transformer_layer_1", "head_output"):
        for variable in model.get_layer(layer).trainable_variables:
            variable.assign(variable.value + 1.0)
    assert key_of(model, rows) == before
    weight = model.get_layer("transformer_layer_0").weights[0]
    weight.assign(weight.value + 1e-6)
    assert key_of(model, rows) != before


def test_key_follows_the_rows_and_their_order() -> None:
    model = bert(1)
    rows = rows_for(model)
    before = key_of(model, rows)
    assert key_of(model, rows_for(model)) == before
    assert key_of(model, rows._replace(y=rows.y[::-1])) == before  # targets are not what is stored
    ids = rows.x["token_ids"]
    for changed in (ids[::-1], ids.with_values(tf.concat([ids.values[:-1], [3]], 0))):  # the last token only
        assert key_of(model, rows._replace(x=rows.x | {"token_ids": changed})) != before


def test_key_follows_dtype_and_arithmetic() -> None:
    model = bert(1)
    rows = rows_for(model)
    keys = {key_of(model, rows, dtype) for dtype in caching.DTYPES}
    with arithmetic("bfloat16"):
        keys.add(key_of(model, rows))
    assert len(keys) == 4


def test_key_follows_an_activation_function() -> None:
    keys = set()
    for activation in ("relu", "tanh", "relu"):
        set_seed(1)
        keys.add(key_of(image_model(activation), images()))
    assert len(keys) == 2
    keys = set()
    for activation in ("gelu", "relu"):
        set_seed(1)
        backbone = keras_hub.models.BertBackbone(**LONG, dropout=0.0)
        backbone.transformer_layers[0].activation = keras.activations.get(activation)
        model = tfft.freeze(model_on(backbone), 1)
        keys.add(key_of(model, rows_for(model)))
    assert len(keys) == 2


def test_key_follows_the_settings_of_a_layer_that_cannot_say_them() -> None:
    """KerasHub's `LlamaTransformerDecoder` has a `get_config` that raises."""
    keys = set()
    for activation in ("silu", "relu"):
        set_seed(1)
        backbone = BACKBONES["llama"]()
        backbone.transformer_layers[0].activation = keras.activations.get(activation)
        model = tfft.freeze(model_on(backbone), 1)
        keys.add(key_of(model, rows_for(model)))
    assert len(keys) == 2


def one_layer(policy: str = "float32", constant: Any = 0.0) -> tuple[keras.Model, Examples]:
    x = keras.Input((3000,), name="x")
    hidden = keras.layers.Dense(2, kernel_initializer="ones", dtype=policy, trainable=False)(x + constant)
    model = keras.Model(x, keras.layers.Dense(2, name="head_scores")(hidden))
    return model, Examples({"x": np.ones((2, 3000), "float32")}, np.zeros(2), np.ones(2), {})


def test_key_follows_the_precision_a_layer_computes_in() -> None:
    assert key_of(*one_layer("float32")) != key_of(*one_layer("mixed_float16"))


def test_key_follows_long_constants_in_the_graph() -> None:
    constants = np.zeros((2, 3000), "float32")
    constants[1, 1500] = 5.0  # where a printed array has dots
    assert key_of(*one_layer(constant=constants[0])) != key_of(*one_layer(constant=constants[1]))


def test_key_follows_no_seed_and_no_dropout() -> None:
    keys = set()
    for seed in (1, 2):
        model = bert(1, dropout=0.1)
        seed_layers(model, seed)
        keys.add(key_of(model, rows_for(model)))
    assert len(keys) == 1


# -- damage -----------------------------------------------------------------------------------------------------------


def _truncate(entry: Path) -> None:
    os.truncate(entry / "frozen_0.bin", 100)


def _flip(entry: Path, name: str = "frozen_0.bin") -> None:
    content = bytearray((entry / name).read_bytes())
    content[len(content) // 2] ^= 4
    (entry / name).write_bytes(content)


def _grow(entry: Path) -> None:
    os.truncate(entry / "frozen_0.bin", (entry / "frozen_0.bin").stat().st_size + 64)


def _empty(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.mkdir()


def _manifest(text: str) -> Callable[[Path], Any]:
    return lambda entry: (entry / "manifest.json").write_text(text, "latin-1")


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated": _truncate,
    "a bit flipped": _flip,
    "a bit of the index flipped": lambda entry: _flip(entry, "index.npz"),
    "grown": _grow,
    "file gone": lambda entry: (entry / "frozen_0.bin").unlink(),
    "index gone": lambda entry: (entry / "index.npz").unlink(),
    "manifest gone": lambda entry: (entry / "manifest.json").unlink(),
    "manifest empty": _manifest(""),
    "manifest cut": lambda entry: os.truncate(entry / "manifest.json", 200),
    "manifest not text": _manifest("\xff\xfe{}"),
    "manifest null": _manifest("null"),
    "manifest a list": _manifest("[]"),
    "manifest without its parts": _manifest("{}"),
    "all gone": _empty,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_computed_again(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tfft.freeze(shared_model("bert"), 1)
    rows = rows_for(model)
    before = {name: array.copy() for name, array in arrays(stored(model, rows, tmp_path).x).items()}
    entry = entry_in(tmp_path)
    DAMAGE[damage](entry)
    found = stored(model, rows, tmp_path)
    assert f"cache: {entry} is damaged (" in caplog.text
    assert "; computed again" in caplog.text
    np.testing.assert_equal(arrays(found.x), before)
    caplog.clear()
    assert_same_arrays(stored(model, rows, tmp_path).x, found.x)
    assert not caplog.records  # whole again


def test_no_bit_of_a_manifest_can_flip_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tfft.freeze(shared_model("bert"), "all")
    stored(model, rows_for(model), tmp_path)
    entry = entry_in(tmp_path)
    whole, before = (entry / "manifest.json").read_bytes(), entries_on_disk.open_entry(entry)
    assert before is not None
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
    monkeypatch.setattr(logging.getLogger("tfft.store"), "disabled", True)
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        (entry / "manifest.json").write_bytes(content)
        found = entries_on_disk.open_entry(entry)
        if found is not None:
            assert_same_arrays(found, before)


def test_an_entry_of_other_weights_is_not_read(tmp_path: Path) -> None:
    model = bert(1)
    rows = rows_for(model)
    stored(model, rows, tmp_path)
    weight = model.get_layer("transformer_layer_0").weights[0]
    weight.assign(weight.value * 3.0)
    suffix, found = store(model, rows, tmp_path)
    assert found is not None
    assert_close(answers(suffix, found, rows), answers(model, rows))
    assert len(entries_on_disk.entries(tmp_path)) == 2


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_what_a_dead_writer_left_is_not_read_and_is_swept(tmp_path: Path) -> None:
    model = tfft.freeze(shared_model("bert"), 1)
    rows = rows_for(model)
    found = stored(model, rows, tmp_path / "elsewhere")
    key, host = entry_in(tmp_path / "elsewhere").name, socket.gethostname()
    place = tmp_path / "cache"
    left = {
        "dead": place / f".{key}-{host}-{dead_pid()}-abc_1234",
        "alive": place / f".{key}-{host}-{os.getppid()}-abc_1234",
        "far": place / f".{key}-not{host}-{dead_pid()}-abc_1234",
    }
    for folder in left.values():  # all written but not yet renamed
        shutil.copytree(entry_in(tmp_path / "elsewhere"), folder)
    _flip(left["dead"])
    assert entries_on_disk.entries(place) == []
    assert_same_arrays(stored(model, rows, place).x, found.x)
    assert {name for name, folder in left.items() if folder.exists()} == {"alive", "far"}
    assert [entry.path.name for entry in entries_on_disk.entries(place)] == [key]


def test_the_second_writer_of_an_entry_leaves_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tfft.freeze(shared_model("bert"), 1)
    rows, finish, others = rows_for(model), entries_on_disk.Writer.finish, []

    def late(writer: Any, *args: Any) -> None:
        finish(writer, *args)
        monkeypatch.setattr(entries_on_disk.Writer, "finish", finish)
        others.append(stored(model, rows, tmp_path))

    monkeypatch.setattr(entries_on_disk.Writer, "finish", late)
    found = stored(model, rows, tmp_path)
    assert_same_arrays(found.x, others[0].x)
    assert os.listdir(tmp_path) == [entry_in(tmp_path).name]


# -- when it pays, and where it fits ----------------------------------------------------------------------------------


def test_auto_says_no_with_the_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tfft.freeze(shared_model("bert"), 1)
    with caplog.at_level("INFO", "tfft"):
        _, found = store(model, rows_for(model), tmp_path, passes=3, mode="auto")
    assert found is None
    numbers = "rows, 12 rows, 0.0 MB, about 0 s; 3 passes would save 0.0 s and cost 0.0 s"
    assert f"cache: no, {numbers}" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("passes", "rate", "pays"), [(3, 1e30, True), (3, 1e3, False), (1, 1e3, True)])
def test_auto_compares_the_time_saved_with_the_time_spent(
    passes: int, rate: float, pays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass pays for the run that comes after it."""
    monkeypatch.setattr(caching, "INFERENCE_ROWS", 4)  # several batches, so there is one to time
    monkeypatch.setattr(caching, "WRITE_RATE", rate)
    monkeypatch.setattr(caching, "READ_RATE", rate)
    model = tfft.freeze(shared_model("bert"), 1)
    _, found = store(model, rows_for(model), tmp_path, passes=passes, mode="auto")
    assert (found is not None) == pays


def test_more_than_the_limit_is_not_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tfft.freeze(shared_model("bert"), "embeddings")
    rows = rows_for(model, [5, 6, 7] + [12] * 40000)
    _, found = store(model, rows, tmp_path, limit_gb=0.001)
    assert found is None
    assert "cache: no, rows, 40,003 rows, 15.4 MB, about " in caplog.text
    assert "the limit is 1.0 MB (cache_limit_gb)" in caplog.text
    assert not list(tmp_path.iterdir())


def test_the_longest_unused_makes_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tfft.freeze(shared_model("bert"), "embeddings")
    keys = []
    for seed in range(3):
        stored(model, rows_for(model, seed=seed), tmp_path)
        keys.append(key_of(model, rows_for(model, seed=seed)))
        os.utime(tmp_path / keys[-1] / "manifest.json", (1e9 + seed, 1e9 + seed))
    assert [entry.path.name for entry in entries_on_disk.entries(tmp_path)] == keys
    stored(model, rows_for(model, seed=0), tmp_path)  # reading it makes it the youngest
    size = entries_on_disk.entries(tmp_path)[0].bytes
    with caplog.at_level("INFO", "tfft"):
        stored(model, rows_for(model, seed=3), tmp_path, limit_gb=3.5 * size / 1e9)
    assert f"cache: {keys[1]} (0.0 MB) makes room" in caplog.text
    left = {entry.path.name for entry in entries_on_disk.entries(tmp_path)}
    assert left == {keys[0], keys[2], key_of(model, rows_for(model, seed=3))}
    assert sum(entry.bytes for entry in entries_on_disk.entries(tmp_path)) <= 3.5 * size


@pytest.mark.parametrize("below", ["", "below/it"])
def test_a_folder_that_cannot_be_made_is_a_warning(
    below: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder", "utf-8")
    model = tfft.freeze(shared_model("bert"), 1)
    assert store(model, rows_for(model), tmp_path / "file" / below)[1] is None
    assert f"cache: no, {tmp_path / 'file' / below} cannot be written (" in caplog.text


def test_a_disk_that_fills_up_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entries_on_disk.Writer, "add", full)
    model = tfft.freeze(shared_model("bert"), 1)
    assert store(model, rows_for(model), tmp_path)[1] is None
    assert f"cache: no, {tmp_path} cannot be written (No space left on device)" in caplog.text
    assert not list(tmp_path.iterdir())


def test_entries_and_clear(tmp_path: Path) -> None:
    assert entries_on_disk.entries(tmp_path / "none") == []
    assert entries_on_disk.clear(tmp_path / "none") == 0
    model = tfft.freeze(shared_model("bert"), "embeddings")
    stored(model, rows_for(model), tmp_path)
    (entry,) = entries_on_disk.entries(tmp_path)
    assert (entry.description, entry.rows) == ("rows", 12)
    assert entry.bytes == sum(path.stat().st_size for path in entry.path.iterdir())
    assert abs(entry.used - time.time()) < 60
    (tmp_path / "notes.txt").write_text("somebody's own", "utf-8")
    (tmp_path / f".{entry.path.name}-{socket.gethostname()}-{dead_pid()}-abc_1234").mkdir()
    assert entries_on_disk.clear(tmp_path) == entry.bytes
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", "3"])
def test_a_broken_entry_is_no_entry_and_is_cleared(text: str, tmp_path: Path) -> None:
    model = tfft.freeze(shared_model("bert"), "embeddings")
    stored(model, rows_for(model), tmp_path)
    _manifest(text)(entry_in(tmp_path))
    assert entries_on_disk.entries(tmp_path) == []
    stored(model, rows_for(model, seed=1), tmp_path)  # does not stop others
    entries_on_disk.clear(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"TFFT_ACTIVATIONS": "/a/b"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/tfft/activations"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/tfft/activations"),
    ],
)
def test_default_folder(variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TFFT_ACTIVATIONS")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert caching.default_folder() == Path(folder)


# -- other processes --------------------------------------------------------------------------------------------------


def serve() -> None:
    """Do each job of stdin in a process of its own, forked where TensorFlow is imported and has not begun to work."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are gone at once
    for line in sys.stdin:
        if os.fork() == 0:
            answer: Any = "failed"
            try:
                answer = JOBS[line.split()[0]](*line.split()[1:])
            finally:
                if answer == "failed":
                    traceback.print_exc()
                os.write(1, f"{os.getpid()} {json.dumps(answer)}\n".encode())
                os._exit(0)


def write_many(folder: str, count: str) -> list[int]:
    """Store `count` rows; says when it starts and, at the end, the checksums of what it got."""
    model = bert(1)
    rows = many_rows(model, int(count))
    os.write(1, f"{os.getpid()} null\n".encode())
    return [zlib.crc32(array.tobytes()) for array in arrays(stored(model, rows, Path(folder)).x).values()]


def key_on(preset: str) -> str:
    backbone, _ = tfft.load_backbone(preset)
    model = tfft.freeze(model_on(backbone), 1)
    return key_of(model, rows_for(model))


def many_rows(model: keras.Model, count: int) -> Examples:
    return rows_for(model, np.random.default_rng(0).integers(3, 17, count))


JOBS: dict[str, Callable[..., Any]] = {"write": write_many, "key": key_on}


class Processes:
    """Jobs in other processes, and what they say: (pid, answer)."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-c", "from tests.test_caching import serve; serve()"]
        self.process: Any = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def start(self, *job: Any) -> None:
        self.process.stdin.write(" ".join(map(str, job)) + "\n")
        self.process.stdin.flush()

    def heard(self) -> tuple[int, Any]:
        pid, answer = self.process.stdout.readline().split(" ", 1)
        assert json.loads(answer) != "failed"
        return int(pid), json.loads(answer)

    def started(self) -> int:
        """Past what those before may have said before they were killed."""
        while True:
            pid, answer = self.heard()
            if answer is None:
                return pid


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    others = Processes()
    yield others
    others.process.stdin.close()
    others.process.wait(timeout=60)
    others.process.stdout.close()


def test_two_processes_have_the_same_key(processes: Processes, presets: Any) -> None:
    processes.start("key", presets("bert"))
    assert processes.heard()[1] == key_on(presets("bert"))


def test_two_processes_write_the_same_entry(processes: Processes, tmp_path: Path) -> None:
    for _ in range(2):
        processes.start("write", tmp_path, 3000)
    said = [processes.heard()[1] for _ in range(4)]
    one, other = (answer for answer in said if answer)
    assert one == other
    assert os.listdir(tmp_path) == [entry_in(tmp_path).name]
    model = bert(1)
    suffix, found = store(model, many_rows(model, 3000), tmp_path)
    assert found is not None
    np.testing.assert_allclose(tfft.predict(suffix, found), tfft.predict(model, many_rows(model, 3000)), atol=1e-5)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_writer_that_is_killed_leaves_an_entry_whole_or_absent(
    kills: int, processes: Processes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count, generator, cut = 6000, random.Random(0), 0
    processes.start("write", tmp_path / "first", count)
    processes.started()
    started = time.monotonic()
    _, whole = processes.heard()
    duration = time.monotonic() - started
    place = tmp_path / "cache"
    for kill in range(kills):
        processes.start("write", place, count)
        pid = processes.started()
        if kill % 2:  # anywhere
            time.sleep(generator.uniform(0, duration))
        else:  # while it writes
            while not any(place.glob(f".*-{pid}-*")) and alive(pid):
                time.sleep(0.001)
            time.sleep(generator.uniform(0, duration / 4) if kill else 0)
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
        while alive(pid):
            time.sleep(0.001)
        cut += any(place.glob(f".*-{pid}-*"))
        for path in place.glob("[!.]*") if place.exists() else []:
            opened = entries_on_disk.open_entry(path)
            assert opened is not None
            shutil.rmtree(path)  # the next has to write again
    assert cut  # some were killed with half an entry on the disk
    processes.start("write", place, count)
    pid = processes.started()
    assert processes.heard() == (pid, whole)
    assert os.listdir(place) == [entry_in(place).name]  # and what the killed had left is gone
    model = bert(1)
    suffix, found = store(model, many_rows(model, count), place)
    assert found is not None
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    np.testing.assert_allclose(tfft.predict(suffix, found), tfft.predict(model, many_rows(model, count)), atol=1e-5)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
