"""Writes models with Keras 2, in a process of its own, and what they answer: `python old_models.py FOLDER`.

For each: NAME.h5, NAME.keras, and NAME.npz with inputs in_0, ... and outputs out_0, ...
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np
import tf_keras as keras

L = keras.layers


def sequential(*layers):
    return lambda: keras.Sequential(list(layers))


def functional(build):
    return build


def text(rnn):
    return lambda: keras.Sequential([L.Embedding(12, 6, input_length=7), rnn(), L.Dense(3, activation="softmax")])


def two_inputs():
    a, b = keras.Input((7,)), keras.Input((7,))
    x = L.Concatenate()([L.Embedding(12, 6)(a), L.SpatialDropout1D(0.1)(L.Embedding(5, 4)(b))])
    return keras.Model([a, b], L.Dense(2, activation="sigmoid")(L.Flatten()(L.BatchNormalization()(x))))


def nested():
    inner_in = keras.Input((6, 4))
    inner = keras.Model(inner_in, L.BatchNormalization()(L.Conv1D(5, 3, activation="relu")(inner_in)), name="inner")
    x = keras.Input((6, 4))
    return keras.Model(x, L.Dense(3)(L.GlobalMaxPooling1D()(inner(x))))


def nested_frozen():
    inner = keras.Sequential([L.Dense(5, input_shape=(4,)), L.BatchNormalization(), L.Dense(3)], name="base")
    inner.layers[0].trainable = False
    return keras.Sequential([inner, L.Dense(2, activation="softmax")])


def siamese():
    shared = keras.Sequential([L.Embedding(12, 6), L.LSTM(5)], name="tower")
    a, b = keras.Input((7,)), keras.Input((7,))
    return keras.Model([a, b], L.Dot(axes=-1, normalize=True)([shared(a), shared(b)]))


def shared_layer():
    dense, a, b = L.Dense(4, activation="tanh"), keras.Input((5,)), keras.Input((5,))
    return keras.Model([a, b], [L.Subtract()([dense(a), dense(b)]), L.Multiply()([dense(a), dense(b)])])


def states():
    x = keras.Input((6, 4))
    out, h, c = L.LSTM(5, return_sequences=True, return_state=True)(x)
    y = L.LSTM(5)(out, initial_state=[h, c])
    return keras.Model(x, [y, h])


def attention():
    q, v = keras.Input((5, 8)), keras.Input((6, 8))
    x = L.MultiHeadAttention(2, 4)(q, v, key=v)
    return keras.Model([q, v], L.LayerNormalization()(L.Add()([x, q])))


def old_attention():
    q, v = keras.Input((5, 8)), keras.Input((6, 8))
    return keras.Model([q, v], L.Concatenate()([L.Attention()([q, v]), L.AdditiveAttention()([q, v])]))


def operations():
    import tensorflow as tf

    x = keras.Input((6, 4))
    y = tf.nn.relu(x * 2.0 - 0.5)[:, 1:4]
    y = tf.concat([y, tf.reduce_mean(x, axis=1, keepdims=True)], axis=1)
    y = (
        tf.transpose(tf.reshape(y, [-1, 2, 8]), [0, 2, 1])
        + tf.math.sqrt(tf.math.abs(1.0 - tf.expand_dims(x[:, 0, 0], -1)))[:, None]
    )
    return keras.Model(x, L.Dense(2)(y))


def mini_xception():
    x = keras.Input((16, 16, 1))
    y = L.BatchNormalization()(L.Conv2D(4, 3, use_bias=False, kernel_regularizer="l2")(x))
    r = L.BatchNormalization()(L.Conv2D(6, 1, strides=2, padding="same", use_bias=False)(y))
    y = L.SeparableConv2D(6, 3, padding="same", use_bias=False, kernel_regularizer=keras.regularizers.L1L2(0.0, 0.01))(
        L.Activation("relu")(y)
    )
    y = L.MaxPooling2D(3, strides=2, padding="same")(L.BatchNormalization()(y))
    return keras.Model(x, L.Activation("softmax")(L.GlobalAveragePooling2D()(L.Add()([y, r]))))


def time_distributed():
    inner = keras.Sequential([L.Conv2D(3, 3, input_shape=(8, 8, 1)), L.Flatten(), L.Dense(4)])
    return keras.Sequential(
        [L.TimeDistributed(inner, input_shape=(3, 8, 8, 1)), L.GRU(5, reset_after=False), L.Dense(2)]
    )


def cells():
    x = keras.Input((6, 4))
    return keras.Model(x, L.RNN([L.LSTMCell(5), L.GRUCell(3)])(x))


def masked():
    return keras.Sequential(
        [
            L.Embedding(12, 6, mask_zero=True, input_length=7),
            L.Bidirectional(L.LSTM(4)),
            L.Dense(2, activation="softmax"),
        ]
    )


def dropouts():
    return keras.Sequential(
        [L.Dense(6, input_shape=(5,)), L.Dropout(0.5), L.GaussianNoise(0.1), L.GaussianDropout(0.1),
         L.AlphaDropout(0.1), L.ActivityRegularization(0.1),
         L.Dense(3, kernel_constraint="max_norm", activity_regularizer="l1")]
    )  # fmt: skip


def activations():
    layers = [L.LeakyReLU(0.2), L.PReLU(), L.ELU(0.7), L.ReLU(2.0, 0.1, 0.2), L.ThresholdedReLU(0.3), L.Softmax(axis=1)]
    names = ["hard_sigmoid", "swish", "selu", "softplus", "softsign", "exponential", "gelu", "elu"]
    return keras.Sequential(
        [L.Dense(6, input_shape=(5,)), *(part for layer in layers for part in (layer, L.Dense(6))),
         *(L.Dense(6, activation=name) for name in names)]
    )  # fmt: skip


def shapes():
    return keras.Sequential(
        [
            L.Reshape((4, 6, 2), input_shape=(48,)),
            L.Permute((2, 1, 3)),
            L.ZeroPadding2D(1),
            L.Cropping2D(((1, 0), (0, 1))),
            L.UpSampling2D(2),
            L.AveragePooling2D(2),
            L.DepthwiseConv2D(3, depth_multiplier=2),
            L.Conv2DTranspose(3, 3, strides=2),
            L.Flatten(),
            L.RepeatVector(3),
            L.Masking(),
            L.GlobalAveragePooling1D(),
        ]
    )


def many_names():
    x = keras.Input((4,))
    y = x
    for i in range(40):
        y = L.Dense(4, name=f"a_rather_long_name_of_a_layer_{'x' * 40}_{i}", activation="tanh")(y)
    return keras.Model(x, y)


def dict_inputs():
    given = {"a": keras.Input((4,), name="a"), "b": keras.Input((3,), name="b")}
    x = L.Concatenate()([given["a"], given["b"]])
    return keras.Model(given, L.Dense(2)(x))


MODELS = {
    "dense": sequential(L.Dense(8, activation="relu", input_shape=(5,)), L.Dropout(0.3),
                        L.Dense(3, activation="softmax")),
    "lstm": text(lambda: L.LSTM(5, dropout=0.1)),
    "lstm_hard": text(lambda: L.LSTM(5, recurrent_activation="hard_sigmoid")),
    "gru": text(lambda: L.GRU(5)),
    "gru_before": text(lambda: L.GRU(5, reset_after=False, recurrent_activation="hard_sigmoid")),
    "simple_rnn": text(lambda: L.SimpleRNN(5, go_backwards=True)),
    "bidirectional": text(lambda: L.Bidirectional(L.LSTM(4, return_sequences=False), merge_mode="sum")),
    "bidirectional_gru": text(lambda: L.Bidirectional(L.GRU(4))),
    "masked": masked,
    "conv1d": sequential(L.Conv1D(4, 3, padding="causal", dilation_rate=2, input_shape=(9, 3)), L.MaxPooling1D(2),
                         L.SeparableConv1D(5, 2), L.Conv1DTranspose(3, 2), L.GlobalMaxPooling1D()),
    "conv3d": sequential(L.Conv3D(2, 2, input_shape=(4, 4, 4, 1)), L.MaxPooling3D(2), L.Flatten(), L.Dense(2)),
    "conv_lstm": sequential(L.ConvLSTM2D(3, 2, input_shape=(3, 5, 5, 1)), L.Flatten(), L.Dense(2)),
    "channels_groups": sequential(L.Conv2D(4, 3, groups=2, input_shape=(6, 6, 2)), L.LayerNormalization(axis=[1, 2, 3]),
                                  L.GlobalMaxPooling2D(keepdims=True), L.Flatten()),
    "two_inputs": two_inputs,
    "nested": nested,
    "nested_frozen": nested_frozen,
    "siamese": siamese,
    "shared_layer": shared_layer,
    "states": states,
    "attention": attention,
    "old_attention": old_attention,
    "operations": operations,
    "mini_xception": mini_xception,
    "time_distributed": time_distributed,
    "cells": cells,
    "dropouts": dropouts,
    "activations": activations,
    "shapes": shapes,
    "many_names": many_names,
    "dict_inputs": dict_inputs,
    "rescaled": sequential(L.Rescaling(1 / 255, input_shape=(6, 6, 3)), L.Conv2D(2, 3), L.GlobalAveragePooling2D()),
    "mobilenet": lambda: keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=4),
}  # fmt: skip


def main(folder: Path) -> None:
    for number, (name, build) in enumerate(MODELS.items()):
        keras.utils.set_random_seed(number)
        model = build()
        generator = np.random.default_rng(number)
        model.set_weights([
            w + generator.uniform(0.01, 0.2, w.shape).astype(w.dtype) if w.ndim == 1 else w for w in model.get_weights()
        ])  # fmt: skip
        whole = any(isinstance(layer, L.Embedding) for layer in model._flatten_layers())
        inputs = [
            generator.integers(0, 5, (3, *t.shape[1:])).astype("float32")
            if whole
            else generator.normal(0, 1, (3, *t.shape[1:])).astype("float32")
            for t in model.inputs
        ]
        given = inputs[0] if len(inputs) == 1 else inputs
        given = dict(zip(model.input_names, inputs, strict=True)) if isinstance(model.input, dict) else given
        outputs = model.predict(given, verbose=0)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        model.compile("adam", "mse")
        model.save(folder / f"{name}.h5")
        model.save(folder / f"{name}.keras")
        arrays = {f"in_{i}": v for i, v in enumerate(inputs)} | {f"out_{i}": v for i, v in enumerate(outputs)}
        np.savez(folder / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
