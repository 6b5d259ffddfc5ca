"""Precision: what the machine is asked for, what it computes, and that nothing of it stays."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfft
from tests.test_training import prepared
from tfft import arithmetic
from tfft.arithmetic import choose, has_bfloat16
from tfft.errors import InvalidValueError
from tfft.runs import Run

OPTION = "auto_mixed_precision_onednn_bfloat16"


def option() -> bool:
    return bool(tf.config.optimizer.get_experimental_options().get(OPTION, False))


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu avx2 avx512f avx512_bf16 sse4_2", "bfloat16"),
        ("fpu amx_bf16 amx_tile", "bfloat16"),
        ("fpu avx2 avx512f avx512_bf16x", "float32"),
        ("", "float32"),
    ],
)
def test_auto_follows_the_flags_of_the_cpu(flags: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"processor\t: 0\nmodel name\t: a CPU\nflags\t\t: {flags}\nbugs\t\t: avx512_bf16\n\nprocessor\t: 1\n"
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: text if path == Path("/proc/cpuinfo") else "")
    assert choose("auto") == choose() == precision


def test_auto_is_float32_where_no_flags_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path, encoding: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert choose("auto") == "float32"


def test_auto_is_float32_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: "flags : avx512_bf16\n")
    assert choose("auto") == "float32"


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_asked_for_is_what_is_used(precision: str, has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "has_bfloat16", lambda: has)
    assert choose(precision) == precision


def test_unknown_precision() -> None:
    with pytest.raises(InvalidValueError, match="precision must be one of: auto, float32, bfloat16. Received: 'half'"):
        choose("half")


@pytest.mark.parametrize("before", ["float32", "bfloat16"])
@pytest.mark.parametrize("inside", ["float32", "bfloat16"])
def test_the_option_is_put_back_after_an_exception_too(inside: str, before: str) -> None:
    start = option()
    with arithmetic.arithmetic(before):
        with arithmetic.arithmetic(inside):
            assert option() == (inside == "bfloat16")
        assert option() == (before == "bfloat16")
        with pytest.raises(KeyError), arithmetic.arithmetic(inside):
            raise KeyError
        assert option() == (before == "bfloat16")
    assert option() == start


needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16 products")


@needs_bfloat16
def test_products_lose_less_than_one_percent() -> None:
    generator = np.random.default_rng(0)
    a, b = (tf.constant(generator.normal(size=(256, 256)), tf.float32) for _ in range(2))
    product = tf.function(lambda a, b: tf.nn.relu(tf.matmul(a, b)))
    results = {}
    for precision in ("float32", "bfloat16", "float32 again"):
        with arithmetic.arithmetic(precision.split()[0]):
            results[precision] = product(a, b).numpy()
    assert results["bfloat16"].dtype == np.float32
    size = np.abs(results["float32"]).max()
    assert 0 < np.abs(results["bfloat16"] - results["float32"]).max() < 0.01 * size
    np.testing.assert_array_equal(results["float32"], results["float32 again"])  # one trace, optimised for each


@needs_bfloat16
def test_weights_and_exports_stay_float32(presets: Any, reviews: list[dict[str, str]], tmp_path: Path) -> None:
    model, examples = prepared(presets, 1, reviews)
    with arithmetic.arithmetic("bfloat16"):
        tfft.fit(model, examples, epochs=2, batch_size=4)
        assert tfft.predict(model, examples).dtype == np.float32
    assert {str(v.dtype) for v in model.trainable_variables} == {"float32"}
    task = tfft.get_task("text-classification")
    _, tokenizer = tfft.load_backbone(presets("bert"))
    facts = {"labels": ["neg", "pos"], "counts": [4, 4]}
    config = {"max_length": 16, "clean": ["whitespace"]}
    path = tfft.export_saved_model(Run(model, tokenizer, task, facts, config), tmp_path / "export")
    graph = tf.saved_model.load(str(path)).signatures["serving_default"].graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert tf.bfloat16.as_datatype_enum not in {attr.type for node in nodes for attr in node.attr.values()}
    assert keras.config.dtype_policy().name == "float32"
