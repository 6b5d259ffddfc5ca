"""A model as an ONNX graph: the same answers for every family, and how many products are of bytes."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfft
from tests.test_caching import model_on
from tests.test_graph import BACKBONES
from tfft.errors import ExportError, InvalidValueError
from tfft.seeding import set_seed

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

from tfft import onnx_graph  # noqa: E402

# Its converter does not know complex numbers, and loses a constant of Gemma's.
NOT_CONVERTED = ("f-net", "gemma")


def perturbed(model: keras.Model) -> keras.Model:
    """Weights as after training: a factor of 1 or a shift of 0 would be dropped."""
    random = np.random.default_rng(0)
    for variable in model.variables:
        if keras.backend.standardize_dtype(variable.dtype) == "float32":
            variable.assign(variable + 0.05 * random.standard_normal(variable.shape))
    return model


def inputs(model: keras.Model) -> dict[str, np.ndarray]:
    """Three rows of nine tokens, the second padded from the sixth on."""
    random = np.random.default_rng(1)
    x = {}
    for name in model.input:
        x[name] = random.integers(4, 30, (3, 9)).astype("int32")
        if "mask" in name:
            x[name] = np.ones((3, 9), "int32")
            x[name][1, 5:] = 0
        if "segment" in name:
            x[name] = np.zeros((3, 9), "int32")
    return x


def answers(path: Path, x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnx_graph.session(path)
    taken = {one.name for one in session.get_inputs()}
    assert taken <= x.keys()
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, {name: x[name] for name in taken}), strict=True))


def operations(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


@pytest.mark.parametrize("family", [family for family in BACKBONES if family not in NOT_CONVERTED])
def test_it_answers_as_the_model_does(family: str, tmp_path: Path) -> None:
    set_seed(3)
    model = perturbed(model_on(BACKBONES[family]()))
    onnx_graph.write(onnx_graph.converted(model), tmp_path / "model.onnx")
    x = inputs(model)
    np.testing.assert_allclose(
        answers(tmp_path / "model.onnx", x)["answers"], np.asarray(model(x, training=False)), atol=1e-5
    )


def test_a_frozen_part_has_its_outputs_by_their_names(tmp_path: Path) -> None:
    set_seed(3)
    prefix, _ = tfft.split(tfft.freeze(perturbed(model_on(BACKBONES["bert"]())), 1))
    assert prefix is not None
    onnx_graph.write(onnx_graph.converted(prefix), tmp_path / "model.onnx")
    x = inputs(prefix)
    found, exact = answers(tmp_path / "model.onnx", x), prefix(x, training=False)
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        np.testing.assert_allclose(found[name], np.asarray(value), atol=1e-5)


@pytest.mark.parametrize("patient", [False, True])
@pytest.mark.parametrize("family", NOT_CONVERTED)
def test_what_the_converter_does_not_manage_is_refused(family: str, patient: bool) -> None:
    with pytest.raises(ExportError, match="tf2onnx does not convert this model"):
        onnx_graph.converted(model_on(BACKBONES[family]()), patient=patient)


def test_recurrent_layers_take_patience(tmp_path: Path) -> None:
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    read = keras.layers.Bidirectional(keras.layers.LSTM(8))(keras.layers.Embedding(30, 8, mask_zero=True)(ids))
    model = keras.Model({"token_ids": ids}, keras.layers.Dense(3, "softmax")(read))
    x = {"token_ids": np.random.default_rng(0).integers(1, 30, (3, 9)).astype("int32")}
    onnx_graph.write(onnx_graph.converted(model, patient=True), tmp_path / "model.onnx")
    exact = np.asarray(model(x, training=False))
    np.testing.assert_allclose(answers(tmp_path / "model.onnx", x)["answers"], exact, atol=1e-5)
    with pytest.raises(ExportError, match="tf2onnx does not convert this model"):
        onnx_graph.converted(model)  # were it managed, patience would be of no use


def test_products_with_weights_become_products_of_bytes(tmp_path: Path) -> None:
    set_seed(3)
    model = perturbed(model_on(BACKBONES["roberta"]()))
    whole, small = tmp_path / "whole.onnx", tmp_path / "small.onnx"
    onnx_graph.write(onnx_graph.converted(model), whole)
    onnx_graph.quantize(whole, small)
    assert operations(small).count("MatMulInteger") == 2 * 4 + 1  # of two blocks and the head
    x = inputs(model)
    exact = answers(whole, x)["answers"]
    assert 0 < np.abs(answers(small, x)["answers"] - exact).max() < 0.05


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert onnx_graph.is_installed()
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(InvalidValueError, match=r"tf2onnx is not installed. `pip install 'tfft\[onnx\]'` brings it"):
        onnx_graph.converted(model_on(BACKBONES["bert"]()))
