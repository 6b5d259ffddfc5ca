"""A real TensorFlow Serving, where TFFT_TFS_REST or TFFT_TFS_GRPC names one; else skipped, visibly."""

import json
import os
from pathlib import Path

import pytest
import requests

import tfft
from tfft.proving import GOLDEN

MODEL = os.environ.get("TFFT_TFS_MODEL", "messages")
TEXTS = ["My parcel says delivered, but there is nothing at the door.", "", "caf\u00e9 \U0001f600", "why " * 500]


@pytest.mark.parametrize("variable", ["TFFT_TFS_REST", "TFFT_TFS_GRPC"])
def test_it_answers_texts_with_label_names(variable: str) -> None:
    address = os.environ.get(variable)
    if not address:
        pytest.skip(f"{variable} names no server")
    together = tfft.Client(address, MODEL).predict(TEXTS)
    for text, answer in zip(TEXTS, together, strict=True):
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        (alone,) = tfft.Client(address, MODEL).predict([text])
        assert alone["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)
    with pytest.raises(tfft.ServerError) as caught:
        tfft.Client(address, "no-such-model").predict(["a"])
    assert caught.value.status == 404


def test_it_answers_the_golden_texts_as_keras_did() -> None:
    address, export = os.environ.get("TFFT_TFS_REST"), os.environ.get("TFFT_TFS_EXPORT")
    if not address or not export:
        pytest.skip("TFFT_TFS_REST and TFFT_TFS_EXPORT (the version's folder it serves) name no server and export")
    golden = json.loads((Path(export) / GOLDEN).read_text("utf-8"))
    body = {"instances": golden["texts"]["text"]}
    rows = requests.post(f"{address}/v1/models/{MODEL}:predict", json=body, timeout=60).json()["predictions"]
    for row, wanted in zip(rows, golden["outputs"]["probabilities"], strict=True):
        assert row["probabilities"] == pytest.approx(wanted, abs=1e-5)
