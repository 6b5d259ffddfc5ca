"""An export for ONNX Runtime answers what the run answers; int8 is kept only where it costs little."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import tfft
from tests.test_proving import make_run
from tests.test_server import TEXTS, serving
from tfft import onnx_graph, precision, proving
from tfft.cli import main
from tfft.errors import ExportError, InvalidValueError
from tfft.runs import run_examples
from tfft.servable import NUMERIC

pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")

ROWS = pd.DataFrame({"text": ["the movie was good", "awful film"] * 4, "label": ["pos", "neg"] * 4})


@pytest.fixture(scope="module")
def exported(presets: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tfft.export_onnx(make_run(presets("bert")), tmp_path_factory.mktemp("onnx") / "reviews")


def test_it_answers_as_the_run_does(exported: Path, presets: Any) -> None:
    wanted = tfft.predict_texts(make_run(presets("bert")), TEXTS)
    command = [sys.executable, "-P", "-m", "tfft.cli", "predict", str(exported.parent), *TEXTS, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for line, answer, text in zip(done.stdout.splitlines(), wanted, TEXTS, strict=True):
        found = json.loads(line)
        assert (found["text"], found["label"]) == (text, answer["label"])
        assert found["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-4)


def test_the_proof_knows_it(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(exported.parent)]) == 0
    shown = capsys.readouterr().out
    assert "numbers in ONNX Runtime" in shown
    assert "FAULT" not in shown
    golden = exported / proving.GOLDEN
    kept = golden.read_text("utf-8")
    changed = json.loads(kept)
    changed["outputs"]["score"][0] -= 0.01
    golden.write_text(json.dumps(changed), "utf-8")
    try:
        assert {one.check for one in proving.prove(exported) if one.cure} == {"weights"}
    finally:
        golden.write_text(kept, "utf-8")


def test_it_is_served(exported: Path, presets: Any) -> None:
    wanted = tfft.predict_texts(make_run(presets("bert")), TEXTS)
    with serving(exported.parent) as running:
        rows = running.post("/v1/models/reviews:predict", {"instances": TEXTS}).json()["predictions"]
        assert [row["label"] for row in rows] == [answer["label"] for answer in wanted]
        assert running.get("/v1/models/reviews/metadata").ok
        assert running.post("/v1/models/reviews:predict", {"inputs": []}).json() == {
            "outputs": {"label": [], "labels": [], "probabilities": [], "score": []}
        }


GROUPS = """
import json, sys
from pathlib import Path
from tfft import servable
from tfft.runtime import Runtime

texts, processors, runtime = json.loads(sys.argv[2]), int(sys.argv[3]), Runtime()
runtime.processors, servable.GROUP_TOKENS = processors, 40
served = servable.load(runtime, Path(sys.argv[1]))
asked, threads = [], {}
for name in ("together", "alone"):
    session = getattr(served, name)
    threads[name] = session.get_session_options().intra_op_num_threads

    class Asked:
        def run(self, names, x, name=name, session=session):
            asked.append((name, list(x["token_ids"].shape)))
            return session.run(names, x)

    setattr(served, name, Asked())
many = served.run({"text": texts})["probabilities"].tolist()
groups, asked[:] = list(asked), []
one = [served.run({"text": [text]})["probabilities"].tolist()[0] for text in texts]
served.close()
print(json.dumps({"many": many, "one": one, "groups": groups, "asked": asked, "threads": threads}))
"""


@pytest.mark.parametrize(
    ("processors", "by", "one_by"), [(1, "alone", "alone"), (2, "alone", "together"), (64, "together", "together")]
)
def test_many_groups_are_computed_one_on_each_processor(exported: Path, processors: int, by: str, one_by: str) -> None:
    texts = ["good film " * (i % 9 + 1) for i in range(40)]
    command = [sys.executable, "-c", GROUPS, str(exported), json.dumps(texts), str(processors)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found["threads"] == {"together": processors, "alone": 1}
    assert {name for name, _ in found["groups"]} == {by}
    assert sum(rows for _, (rows, _) in found["groups"]) == len(texts)
    assert all(rows * length <= 40 for _, (rows, length) in found["groups"])
    assert {name for name, _ in found["asked"]} == {one_by}
    np.testing.assert_allclose(found["many"], found["one"], atol=1e-6)
    assert len({tuple(row) for row in found["one"]}) > 5  # were all the same, no order would be wrong


def test_its_runtime_makes_one_operation_of_each_norm(presets: Any, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    run = make_run(presets("bert"))
    blocks = [layer for layer in run.model.layers if "transformer_layer" in layer.name]
    norms = [layer for layer in run.model.layers if isinstance(layer, keras.layers.LayerNormalization)]
    others = [norm for norm in norms if norm.scale]
    for variable in (variable for layer in [*blocks, *others] for variable in layer.weights):
        variable.assign(variable + 0.1)  # a factor of 1 and a shift of 0, as they begin, would be dropped
    onnx_graph.write(onnx_graph.converted(run.model), tmp_path / NUMERIC)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(tmp_path / NUMERIC), options, providers=["CPUExecutionProvider"])
    operations = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert operations.count("LayerNormalization") == 2 * len(blocks) + len(others)
    assert blocks
    assert "embeddings_layer_norm" in {layer.name for layer in others}
    assert operations.count("Transpose") <= len(blocks)  # back from the heads; to them the tokens are gathered


def test_int8(presets: Any, tmp_path: Path) -> None:
    run = make_run(presets("bert"))
    small = tfft.export_onnx(run, tmp_path / "reviews", precision="int8", rows=ROWS, bound=1.0)
    assert json.loads((small / proving.GOLDEN).read_text("utf-8"))["precision"] == "int8"
    assert (small / "model.onnx").stat().st_size > 0
    with pytest.raises(InvalidValueError, match="judged by rows with answers; none were given"):
        tfft.export_onnx(run, tmp_path / "reviews", precision="int8")
    with pytest.raises(InvalidValueError, match="Received: 'int4'"):
        tfft.export_onnx(run, tmp_path / "reviews", precision="int4")


@pytest.mark.slow
def test_keras_quantizes_a_saved_model(presets: Any, tmp_path: Path) -> None:
    run = make_run(presets("bert"))
    folder = tfft.export_saved_model(run, tmp_path / "reviews", precision="int8", rows=ROWS, bound=1.0)
    assert not [one for one in proving.prove(folder) if one.cure]


def test_what_costs_too_much_is_refused_with_both_numbers(presets: Any) -> None:
    run = make_run(presets("bert"))
    right = np.tile([[0.1, 0.9], [0.9, 0.1]], (4, 1))
    with pytest.raises(ExportError, match=r"accuracy 0\.5000, in float32 1\.0000, on 8 rows"):
        precision.judge(run, ROWS, run_examples(run, ROWS), right, np.tile([[0.1, 0.9]], (8, 1)), "int8", 0.005)
    assert precision.judge(run, ROWS, run_examples(run, ROWS), right, right, "int8", 0.005).after == 1.0
