"""Models of old versions of Keras answer as they did, and nothing that a file carries is run."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import tfft
from tests.conftest import SHARED_DATA
from tfft import old_layers
from tfft.errors import InvalidValueError, NotFoundError
from tfft.examples import Examples
from tfft.legacy import load_model

SCRIPT = Path(__file__).with_name("old_models.py")
NAMES = re.findall(r'^    "(\w+)": ', SCRIPT.read_text("utf-8").partition("\nMODELS = {")[2], flags=re.MULTILINE)
LEGACY = SHARED_DATA.parent / "legacy_h5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that Keras 2 wrote, in a process of its own, with what they answer."""
    made = tmp_path_factory.mktemp("old")
    command = [sys.executable, str(SCRIPT), str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return made


def inputs_of(model: keras.Model, arrays: Any) -> Any:
    given = [arrays[name] for name in sorted(arrays) if name.startswith("in_")]
    if isinstance(model.input, dict):
        return dict(zip(model.input, given, strict=True))
    return given if len(given) > 1 else given[0]


@pytest.mark.parametrize("suffix", ["h5", pytest.param("keras", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_answers_as_keras_2_does(name: str, suffix: str, folder: Path, tmp_path: Path) -> None:
    model, arrays = load_model(folder / f"{name}.{suffix}"), np.load(folder / f"{name}.npz")
    assert name == "time_distributed" or not any(isinstance(layer, keras.Model) for layer in model.layers)  # flat
    x = inputs_of(model, arrays)
    outputs = keras.tree.flatten(model(x, training=False))
    for number, output in enumerate(outputs):
        np.testing.assert_allclose(output, arrays[f"out_{number}"], atol=1e-5, rtol=1e-5)
    model.save(tmp_path / "again.keras")
    again = keras.tree.flatten(load_model(tmp_path / "again.keras")(x, training=False))
    for one, other in zip(outputs, again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


ORACLE = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tf_keras
model = tf_keras.models.load_model(sys.argv[1], compile=False)
given = [value for _, value in sorted(np.load(sys.argv[2]).items())]
np.save(sys.argv[3], model(given if len(given) > 1 else given[0], training=False).numpy())
"""


@pytest.mark.parametrize(
    "name", ["deepcut_thai/model_lite.h5", "fer2013_mini_xception/fer2013_mini_XCEPTION.102-0.66.hdf5"]
)
def test_other_peoples_files_learn_again(name: str, tmp_path: Path) -> None:
    path = LEGACY / name
    if not path.exists():
        pytest.skip(f"no {path}")
    model = load_model(path)
    generator = np.random.default_rng(0)
    given = [generator.integers(0, 10, (24, *t.shape[1:])).astype("float32") for t in model.inputs]
    np.savez(tmp_path / "in.npz", *given)
    files = [str(path), str(tmp_path / "in.npz"), str(tmp_path / "out.npy")]
    subprocess.run([sys.executable, "-c", ORACLE, *files], check=True, capture_output=True)
    x = given if len(given) > 1 else given[0]
    np.testing.assert_allclose(model(x, training=False), np.load(tmp_path / "out.npy"), atol=1e-5)

    # Then the line: another head, all else frozen, fit, export.
    new = tfft.freeze(tfft.replace_head(model, 3, dropout=0.2), "all")
    assert new.output_shape == (None, 3)
    named = {t.name: array for t, array in zip(new.inputs, given, strict=True)}
    by_name = keras.Model({t.name: t for t in new.inputs}, new.output)
    labels = np.eye(3, dtype="float32")[np.arange(24) % 3]
    rows = Examples(named, labels, np.ones(24, "float32"), {})
    losses = tfft.fit(by_name, rows, epochs=30, learning_rate=0.01, metrics=()).history["loss"]
    assert losses[-1] < 0.97 * losses[0]
    by_name.export(str(tmp_path / "saved"), verbose=False)
    again = load_model(tmp_path / "saved")
    np.testing.assert_allclose(keras.tree.flatten(again(named))[0], by_name(named, training=False), atol=1e-5)


def test_an_archive_of_keras_2_is_read(folder: Path) -> None:
    model, arrays = load_model(folder / "nested_frozen.keras"), np.load(folder / "nested_frozen.npz")
    np.testing.assert_allclose(model(arrays["in_0"], training=False), arrays["out_0"], atol=1e-5)


def test_weights_alone_want_an_architecture(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder / "mini_xception.h5")
    with h5py.File(folder / "mini_xception.h5") as whole, h5py.File(tmp_path / "weights.h5", "w") as alone:
        for name in whole["model_weights"]:
            whole["model_weights"].copy(name, alone)
        for name, value in whole["model_weights"].attrs.items():
            alone.attrs[name] = value
    with pytest.raises(InvalidValueError, match="holds weights and no architecture"):
        load_model(tmp_path / "weights.h5")
    fresh = keras.models.clone_model(model)
    loaded = load_model(tmp_path / "weights.h5", model=fresh)
    for one, other in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    small = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(InvalidValueError, match="the model 1 layers with weights"):
        load_model(tmp_path / "weights.h5", model=small)


def changed(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a file with another configuration."""
    shutil.copy(source, target)
    with h5py.File(target, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        del file.attrs["model_config"]
        file.attrs["model_config"] = json.dumps(config)
    return target


def layers_of(config: dict[str, Any]) -> Any:
    return config["config"]["layers"]


def test_code_in_a_file_is_not_run(folder: Path, tmp_path: Path) -> None:
    def with_code(config: dict[str, Any]) -> None:
        code = ["4wAAAAAAAAAAAAAAAAEAAAABAAAAQwAAAHMEAAAAfABTACkBTqkA", None, None]
        own = {"name": "evil", "function": code, "function_type": "lambda", "arguments": {}, "trainable": True}
        layers_of(config).append({"class_name": "Lambda", "config": own})

    path = changed(folder / "dense.h5", tmp_path / "code.h5", with_code)
    with pytest.raises(InvalidValueError, match="'evil' is a Lambda: its function is code"):
        load_model(path)
    model = load_model(path, custom_objects={"evil": lambda x: 2 * x})
    arrays = np.load(folder / "dense.npz")
    np.testing.assert_allclose(model(arrays["in_0"], training=False), 2 * arrays["out_0"], atol=1e-5)
    with pytest.raises(InvalidValueError, match="does not run on this Python"):
        load_model(path, safe_mode=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: layers_of(c)[1]["config"].update(units=10**12), "more than the file has numbers"),
        (lambda c: layers_of(c)[0]["config"].update(batch_input_shape=[None, 10**12]), "more weights than the file"),
        (lambda c: layers_of(c)[1].update(class_name="Whatever"), "is a Whatever, which Keras 3 does not have"),
        (lambda c: layers_of(c)[1]["config"].update(surprise=1), "settings that Keras 3 does not know: surprise"),
        (lambda c: layers_of(c)[1]["config"].update(activation="mine"), "activation 'mine'"),
        (lambda c: layers_of(c)[1]["config"].update(units=4), "weights of shapes"),
        (lambda c: c.update(class_name="MyModel"), "only Sequential and functional models"),
        (lambda c: c.pop("class_name"), "describes no model"),
    ],
)
def test_configurations_that_cannot_be(folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    path = changed(folder / "dense.h5", tmp_path / "changed.h5", change)
    with pytest.raises(InvalidValueError, match=message):
        load_model(path)


def test_files_that_are_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        load_model(tmp_path / "x.h5")
    whole = (folder / "lstm.h5").read_bytes()
    for name, content in (("cut.h5", whole[: len(whole) // 2]), ("text.h5", b"no model"), ("empty.h5", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidValueError, match="no HDF5 file"):
            load_model(tmp_path / name)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(InvalidValueError, match="not what Keras writes"):
        load_model(tmp_path / "other.h5")
    (tmp_path / "bad.keras").write_bytes(b"PK no zip")
    with pytest.raises(InvalidValueError, match="does not load"):
        load_model(tmp_path / "bad.keras")
    with pytest.raises(InvalidValueError, match="no SavedModel"):
        load_model(tmp_path)


def test_nothing_is_read_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["kernel:0"] = np.ones((5, 8), "float32")
    shutil.copy(folder / "dense.h5", tmp_path / "link.h5")
    with h5py.File(tmp_path / "link.h5", "r+") as file:
        group = file["model_weights"]
        name = next(n for n in group if len(group[n].attrs["weight_names"]))
        weight = group[name].attrs["weight_names"][0]
        weight = weight.decode() if isinstance(weight, bytes) else weight
        del group[name][weight]
        group[name][weight] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "kernel:0")
    with pytest.raises(InvalidValueError, match="leads out of the file"):
        load_model(tmp_path / "link.h5")
    shutil.copy(folder / "dense.h5", tmp_path / "up.h5")
    with h5py.File(tmp_path / "up.h5", "r+") as file:
        file["model_weights"].attrs["layer_names"] = np.array([b"../../etc"])
    with pytest.raises(InvalidValueError, match="leads out of the file"):
        load_model(tmp_path / "up.h5")


@pytest.mark.parametrize(
    ("kind", "old", "wanted"),
    [
        ("Convolution2D", {"nb_filter": 3, "nb_row": 2, "nb_col": 4, "subsample": [1, 2], "border_mode": "same",
                           "bias": False, "dim_ordering": "tf", "init": "glorot_uniform"},
         ("Conv2D", {"filters": 3, "kernel_size": [2, 4], "strides": [1, 2], "padding": "same", "use_bias": False,
                     "data_format": "channels_last"})),
        ("Convolution1D", {"nb_filter": 3, "filter_length": 2, "subsample_length": 1},
         ("Conv1D", {"filters": 3, "kernel_size": 2, "strides": 1})),
        ("MaxPooling1D", {"pool_length": 2, "stride": 2}, ("MaxPooling1D", {"pool_size": 2, "strides": 2})),
        ("LSTM", {"output_dim": 4, "inner_init": "orthogonal", "inner_activation": "tanh", "dropout_W": 0.1,
                  "dropout_U": 0.2, "forget_bias_init": "one", "consume_less": "cpu", "input_dim": 3},
         ("LSTM", {"units": 4, "recurrent_activation": "tanh", "dropout": 0.1, "recurrent_dropout": 0.2,
                   "unit_forget_bias": True})),
        ("Dense", {"output_dim": 4, "W_regularizer": None, "b_constraint": None, "input_dim": 3},
         ("Dense", {"units": 4, "kernel_regularizer": None, "bias_constraint": None})),
        ("Dropout", {"p": 0.5}, ("Dropout", {"rate": 0.5})),
        ("Merge", {"mode": "concat", "concat_axis": 1, "name": "m"}, ("Concatenate", {"axis": 1, "name": "m"})),
        ("Merge", {"mode": "cos", "dot_axes": 1}, ("Dot", {"axes": 1, "normalize": True})),
        ("Merge", {"mode": "ave"}, ("Average", {})),
        ("CuDNNGRU", {"units": 4}, ("GRU", {"units": 4, "reset_after": True, "activation": "tanh",
                                            "recurrent_activation": "sigmoid"})),
        ("GRU", {"units": 4, "implementation": 2, "time_major": False}, ("GRU", {"units": 4, "reset_after": False})),
        ("LeakyReLU", {"alpha": 0.1}, ("LeakyReLU", {"negative_slope": 0.1})),
        ("BatchNormalization", {"axis": [3], "renorm": False, "fused": True, "mode": 0, "beta_init": "zero"},
         ("BatchNormalization", {"axis": 3})),
        ("SpatialDropout1D", {"rate": 0.1, "noise_shape": None}, ("SpatialDropout1D", {"rate": 0.1})),
        ("Embedding", {"input_dim": 9, "output_dim": 4, "input_length": 7, "batch_input_shape": [None, 7]},
         ("Embedding", {"input_dim": 9, "output_dim": 4})),
    ],
)  # fmt: skip
def test_old_settings_have_new_names(kind: str, old: Any, wanted: Any) -> None:
    assert old_layers.translated(kind, old) == wanted


def test_every_rule_says_what_it_is_for() -> None:
    names = [rule.name for rule in old_layers.RULES]
    assert len(names) == len(set(names))
    assert all(rule.keras for rule in old_layers.RULES)


def test_a_sequential_of_keras_1_is_read(tmp_path: Path) -> None:
    """Two branches merged, as Keras 1.2 wrote them; the weights' names and layouts are its own."""
    generator = np.random.default_rng(0)

    def branch(number: int) -> dict[str, Any]:
        dense = {"name": f"dense_{number}", "output_dim": 4, "activation": "tanh", "batch_input_shape": [None, 3],
                 "init": "glorot_uniform", "bias": True, "W_regularizer": None, "input_dim": 3}  # fmt: skip
        return {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": dense}]}

    merge = {"name": "merge_1", "mode": "concat", "concat_axis": -1, "layers": [branch(1), branch(2)]}
    last = {"name": "dense_3", "output_dim": 2, "activation": "softmax", "init": "uniform", "bias": True}
    config = {"class_name": "Sequential", "config": [{"class_name": "Merge", "config": merge},
                                                     {"class_name": "Dense", "config": last}]}  # fmt: skip
    shapes = {"dense_1": (3, 4), "dense_2": (3, 4), "dense_3": (8, 2)}
    values = {name: (generator.normal(size=shape), generator.normal(size=shape[1])) for name, shape in shapes.items()}
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.array([name.encode() for name in ("merge_1", *shapes)])
        group.create_group("merge_1").attrs["weight_names"] = np.array([], "S1")
        for name, arrays in values.items():
            own = group.create_group(name)
            own.attrs["weight_names"] = np.array([f"{name}_W".encode(), f"{name}_b".encode()])
            for part, array in zip("Wb", arrays, strict=True):
                own[f"{name}_{part}"] = array.astype("float32")
    model = load_model(tmp_path / "old.h5")
    a, b = generator.normal(size=(2, 5, 3)).astype("float32")
    hidden = [np.tanh(x @ values[n][0] + values[n][1]) for x, n in ((a, "dense_1"), (b, "dense_2"))]
    logits = np.concatenate(hidden, -1) @ values["dense_3"][0] + values["dense_3"][1]
    wanted = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(model([a, b]), wanted, atol=1e-5)


def test_a_file_is_converted_by_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tfft.cli import main

    target = tmp_path / "new.keras"
    assert main(["convert", str(folder / "siamese.h5"), str(target)]) == 0
    assert "layers" in capsys.readouterr().out
    arrays = np.load(folder / "siamese.npz")
    np.testing.assert_allclose(
        load_model(target)([arrays["in_0"], arrays["in_1"]], training=False), arrays["out_0"], atol=1e-5
    )
    assert main(["convert", str(folder / "siamese.h5"), str(target)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["convert", str(folder / "siamese.h5"), str(tmp_path / "new.h5")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.keras"]
