"""An export for LiteRT has Keras's numbers, a tokenizer beside it, and refuses what it cannot do in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfft
from tests.test_proving import make_run
from tfft import litert_export
from tfft.cli import main
from tfft.errors import ExportError


def test_its_numbers_are_those_of_keras(presets: Any, tmp_path: Path) -> None:
    run = make_run(presets("bert"))
    folder = tfft.export_litert(run, tmp_path / "reviews")
    x = {"token_ids": np.array([[2, 5, 6, 3], [2, 7, 3, 0]], "int32")}
    x |= {"padding_mask": (x["token_ids"] != 0).astype("int32"), "segment_ids": np.zeros((2, 4), "int32")}
    found = litert_export.runner(folder / "model.tflite")(**x)["answers"]
    np.testing.assert_allclose(found, run.model(x, training=False), atol=1e-4)
    assert (folder / "tokenizer" / "tokenizer.json").exists()
    assert (folder / "ends" / "saved_model.pb").exists()


def test_other_numbers_are_refused(presets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert_export, "_distance", lambda run, path: 0.3)
    with pytest.raises(ExportError, match=r"LiteRT's answers are up to 3\.0e-01 from those of Keras"):
        tfft.export_litert(make_run(presets("bert")), tmp_path / "reviews")
    assert not any((tmp_path / "reviews").iterdir())


def test_no_int8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), str(tmp_path / "x"), "--format", "litert", "--precision", "int8"]) == 2
    assert "--format litert is float32 alone. Received: --precision int8" in capsys.readouterr().err
