"""Groups of rows: the same answers as the whole batch, whatever the rows."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tfft import grouping

# In a process of its own: oneDNN is chosen once, and with it TensorFlow fuses other operations.
COMPARED = """
import sys
import keras, keras_hub, numpy as np, tensorflow as tf
from tfft import fusing, grouping

keras.utils.set_random_seed(0)
backbone = keras_hub.models.BertBackbone(
    vocabulary_size=50, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=16, max_sequence_length=64)
for weight in backbone.weights:  # biases begin as zeros: no test of what they are added to
    weight.assign(np.random.default_rng(1).normal(scale=0.3, size=weight.shape))
states = backbone.output["sequence_output"]
pooled = keras.layers.GlobalAveragePooling1D()(states, mask=backbone.input["padding_mask"])
plain = keras.Model(backbone.input, {"answers": keras.layers.Dense(3)(pooled), "embedding": states[:, 0]})
model = fusing.fused(plain, served=True)
masks = grouping.masks_of(model)
assert model is not plain and masks is not None
grouping.TOKENS = int(sys.argv[1])
sizes = []

class Counted:
    output = model.output
    def __call__(self, x, training):
        tf.py_function(lambda t: sizes.append(tuple(t.shape)), [x["token_ids"]], [])
        return model(x, training=training)

spec = {name: tf.TensorSpec([None, None], tf.int32) for name in masks}
whole = tf.function(lambda x: grouping.in_groups(Counted(), x, masks), input_signature=[spec], autograph=False)
rng = np.random.default_rng(2)
for rows in (1, 2, 7, 8, 9, 40, 133):
    lengths = rng.integers(0 if rows > 1 else 5, 61, rows)
    mask = (np.arange(64) < lengths[:, None]).astype("int32")
    x = {"token_ids": rng.integers(1, 50, (rows, 64)).astype("int32") * mask, "padding_mask": mask,
         "segment_ids": np.zeros_like(mask)}
    sizes.clear()
    found, wanted = whole({n: tf.constant(v) for n, v in x.items()}), plain(x, training=False)
    full = lengths > 0  # a row of padding alone attends to nothing: what it gives depends on how long it is
    for name in wanted:
        assert found[name].shape == wanted[name].shape, (rows, name, found[name].shape)
        assert np.abs(found[name].numpy() - wanted[name].numpy())[full].max() < 1e-5, (rows, name)
    assert sum(size[0] for size in sizes) == rows
    assert all(n == 1 or n * length <= grouping.TOKENS for n, length in sizes), sizes
    assert all(n <= 8 or n % 8 == 0 for n, _ in sizes) and (rows == 1 or all(n % 8 == 0 for _, n in sizes)), sizes
assert len(sizes) > 2, sizes
print("same", len(sizes))
"""


@pytest.mark.parametrize("onednn", ["0", "1"])
@pytest.mark.parametrize("tokens", [100, 1024])
def test_groups_answer_as_the_whole(onednn: str, tokens: int) -> None:
    env = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn, "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-c", COMPARED, str(tokens)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("same ")


def inputs(*names: str) -> dict[str, keras.KerasTensor]:
    return {name: keras.Input((None,), dtype="int32", name=name) for name in names}


def vector(x: dict[str, keras.KerasTensor]) -> keras.KerasTensor:
    mean = keras.layers.GlobalAveragePooling1D()
    return keras.layers.Add()([mean(keras.layers.Embedding(5, 2)(value)) for value in x.values()])


def test_masks_of_two_texts() -> None:
    x = inputs("token_ids", "padding_mask", "second_token_ids", "second_padding_mask")
    assert grouping.masks_of(keras.Model(x, vector(x))) == {
        "token_ids": "padding_mask",
        "padding_mask": "padding_mask",
        "second_token_ids": "second_padding_mask",
        "second_padding_mask": "second_padding_mask",
    }


def test_no_groups_without_a_mask() -> None:
    x = inputs("token_ids", "segment_ids")
    assert grouping.masks_of(keras.Model(x, vector(x))) is None


def test_no_groups_for_other_inputs() -> None:
    x = inputs("token_ids", "padding_mask", "words")
    assert grouping.masks_of(keras.Model(x, vector(x))) is None


def test_no_groups_for_answers_by_token() -> None:
    x = inputs("token_ids", "padding_mask")
    per_token = keras.layers.Embedding(5, 2)(x["token_ids"])
    assert grouping.masks_of(keras.Model(x, per_token)) is None
    assert grouping.masks_of(keras.Model(x, {"a": vector(x), "b": per_token})) is None


def test_an_empty_batch_has_empty_answers() -> None:
    x = inputs("token_ids", "padding_mask")
    model = keras.Model(x, vector(x))
    empty = {name: np.zeros((0, 4), "int32") for name in x}
    assert grouping.in_groups(model, empty, grouping.masks_of(model)).shape == (0, 2)
