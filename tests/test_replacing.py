"""A head for other classes: what goes, what stays, what cannot be."""

from typing import Any

import keras
import numpy as np
import pytest

import tfft
from tfft.errors import InvalidValueError

L = keras.layers


def chain(*layers: Any, shape: Any = (6,)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *layers])


IMAGE = chain(L.Conv2D(4, 3, name="kept"), L.Conv2D(7, 3), L.GlobalAveragePooling2D(), L.Softmax(), shape=(8, 8, 1))

TAGGER = chain(L.LSTM(5, return_sequences=True, name="kept"), L.Dense(9, "softmax"), shape=(7, 2))


@pytest.mark.parametrize(
    ("model", "kept", "shape"),
    [
        (chain(L.Dense(5, name="kept"), L.Dropout(0.1), L.Dense(3, "softmax")), ["kept", "dropout"], (None, 4)),
        (chain(L.Dense(5, name="kept"), L.Dense(1), L.Activation("sigmoid")), ["kept"], (None, 4)),
        (IMAGE, ["kept", "head_pooling"], (None, 4)),
        (
            chain(L.LSTM(5, return_sequences=True, name="kept"), L.Dense(9, "softmax"), shape=(7, 2)),
            ["kept"],
            (None, 7, 4),
        ),
    ],
)
def test_the_old_head_goes_and_all_else_stays(model: keras.Model, kept: list[str], shape: Any) -> None:
    new = tfft.replace_head(model, 4)
    names = [layer.name.rstrip("_0123456789") for layer in new.layers if not isinstance(layer, L.InputLayer)]
    assert names == [*kept, "head_output"]
    assert new.output_shape == shape
    assert new.get_layer("kept") is model.get_layer("kept")
    outputs = np.asarray(new(np.ones((2, *new.input_shape[1:]), "float32")))
    np.testing.assert_allclose(outputs.sum(-1), 1, atol=1e-5)


def test_dropout_is_before_the_new_layer_and_learns_with_all_else_frozen() -> None:
    new = tfft.freeze(tfft.replace_head(chain(L.Dense(5), L.Dense(3)), 4, dropout=0.5), "all")
    assert [layer.name for layer in new.layers][-2:] == ["head_dropout", "head_output"]
    assert [v.path.split("/")[0] for v in new.trainable_variables] == ["head_output"] * 2


def test_heads_that_cannot_be_replaced() -> None:
    x = keras.Input((3,))
    two = keras.Model(x, [L.Dense(2)(x), L.Dense(2)(x)])
    with pytest.raises(InvalidValueError, match="has 2 outputs"):
        tfft.replace_head(two, 3)
    with pytest.raises(InvalidValueError, match="no layer with weights"):
        tfft.replace_head(keras.Model(x, L.Softmax()(x)), 3)
    with pytest.raises(InvalidValueError, match="at least 2"):
        tfft.replace_head(chain(L.Dense(2)), 1)
    a, b = L.Dense(2)(x), L.Dense(2)(x)
    with pytest.raises(InvalidValueError, match="before it branches"):
        tfft.replace_head(keras.Model(x, L.Add()([a, b])), 3)
