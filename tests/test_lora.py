"""Adapters: what learns, what does not, where it is kept, and that it is merged."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfft
from tests.conftest import CAUSAL, FAMILIES, SEQ2SEQ, build
from tfft import fingerprint, lora
from tfft.errors import FreezeError, InvalidValueError

ROWS = [{"text": text, "label": label} for text, label in (("good great", "a"), ("bad awful", "b"), ("fine", "a"))] * 4


def values(variables: Any) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


@pytest.fixture(scope="module", params=[*FAMILIES, *CAUSAL, *SEQ2SEQ])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_adapters_alone_learn_in_blocks_that_do(family: str, tmp_path: Path) -> None:
    backbone, _ = build(family, tmp_path)
    policy: Any = "none" if family == "albert" else 1  # its blocks are one
    lora.adapt(tfft.freeze(backbone, policy), 2)
    learning = {id(variable) for variable in backbone.trainable_variables}
    assert learning == {id(variable) for variable in lora.adapters(backbone).values()}
    assert learning
    if policy == 1:
        lowest = min(name.split(".")[0] for name in lora.adapters(backbone))
        assert not lowest.endswith(("encoder_layer_0", "transformer_layer_0", "block_0"))


def test_nothing_changes_before_they_learn(family: str, tmp_path: Path) -> None:
    backbone, _ = build(family, tmp_path)
    x = {name: np.ones((2, 4), "int32") for name in backbone.input}
    before = keras.tree.map_structure(np.asarray, backbone(x, training=False))
    lora.adapt(tfft.freeze(backbone, "none"), 2)
    after = keras.tree.map_structure(np.asarray, backbone(x, training=False))
    keras.tree.map_structure(np.testing.assert_array_equal, before, after)


def disturbed(backbone: Any) -> None:
    generator = np.random.default_rng(0)
    for variable in lora.adapters(backbone).values():
        variable.assign(generator.normal(0, 0.3, variable.shape))


def test_merged_weights_answer_as_adapters_do_and_are_undone(family: str, tmp_path: Path) -> None:
    backbone, _ = build(family, tmp_path)
    lora.adapt(tfft.freeze(backbone, "none"), 2)
    disturbed(backbone)
    x = {name: np.ones((2, 4), "int32") for name in backbone.input}
    whole, weights = keras.tree.flatten(backbone(x, training=False)), values(backbone.variables)
    with lora.merged(backbone):
        merged = keras.tree.flatten(backbone(x, training=False))
        assert not lora.adapters(backbone)
    for one, other in zip(whole, merged, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    for one, other in zip(weights, values(backbone.variables), strict=True):
        np.testing.assert_array_equal(one, other)
    assert lora.adapters(backbone)


def test_no_block_to_adapt(tmp_path: Path) -> None:
    backbone, _ = build("bert", tmp_path)
    with pytest.raises(FreezeError, match="no block learns"):
        lora.adapt(tfft.freeze(backbone, "all"), 2)


def test_adapters_of_another_backbone(tmp_path: Path) -> None:
    backbone, _ = build("bert", tmp_path)
    with pytest.raises(InvalidValueError, match="not this backbone's"):
        lora.restore(backbone, {"transformer_layer_9.0.query.a": np.zeros((8, 2, 2), "float32")})


def test_a_run_keeps_them_apart_and_a_later_one_has_them_merged(presets: Any, tmp_path: Path) -> None:
    out, folder = tmp_path / "run", presets("bert")
    pairs: dict[str, Any] = {"data": ROWS, "validation": ROWS, "test": ROWS}
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(f'{{"text": "{row["text"]}", "label": "{row["label"]}"}}\n' for row in ROWS), "utf-8")
    given = {name: str(data) for name in pairs} | {"out": str(out), "backbone": str(folder)}
    tfft.train(**given, lora=2, epochs=2, learning_rate=0.05, max_length=8, pooling="mean")
    before, _ = tfft.load_backbone(folder)
    beneath, _ = tfft.load_backbone(out / "preset", merge=False)
    for one, other in zip(before.weights, beneath.weights, strict=True):
        assert fingerprint.digest(one) == fingerprint.digest(other)  # to the bit
    run = tfft.load_run(out)
    assert run.config["lora"] == 2
    assert any(np.any(array) for name, array in lora.weights(run.model).items() if name.endswith(".b"))
    merged, _ = tfft.load_backbone(out)
    assert not lora.adapters(merged)
    changed = [np.any(a.numpy() != b.numpy()) for a, b in zip(before.weights, merged.weights, strict=True)]
    assert any(changed)
    adapted = lora.restore(before, lora.read(out / lora.FILE))
    x = {name: np.ones((2, 4), "int32") for name in merged.input}
    for one, other in zip(*(keras.tree.flatten(model(x, training=False)) for model in (adapted, merged)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    exported = tfft.export_saved_model(run, tmp_path / "model")  # its proof compares it with the adapters' answers
    assert exported.is_dir()
    with pytest.raises(InvalidValueError, match="int8 is for whole weights"):
        tfft.export_saved_model(run, tmp_path / "small", precision="int8")
    assert lora.adapters(run.model)


def test_a_damaged_file_of_adapters(presets: Any, tmp_path: Path) -> None:
    (tmp_path / lora.FILE).write_bytes(b"no tensors")
    with pytest.raises(InvalidValueError, match="damaged"):
        lora.read(tmp_path / lora.FILE)


def test_adapters_want_a_block_that_learns(presets: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="freeze=all leaves no block"):
        tfft.train(data="x.csv", out=str(tmp_path / "x"), lora=4, freeze="all")
