"""TensorFlow's C++ runtime, each time in a process that never imports TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tfft
from tests.test_proving import make_run
from tfft import runtime
from tfft.capi import RuntimeFailedError, messages
from tfft.proving import EXTRA, SIDE_BY_SIDE

TEXTS = ["the movie was good", "awful", "", "A GREAT film, caf\u00e9 \U0001f600 " + "very " * 80, "i was fine"]

PROGRAM = """
import json, sys
from pathlib import Path
from tfft.capi import RuntimeFailedError
from tfft.runtime import Runtime

served = Runtime().load(Path(sys.argv[1]))
answers = served.run({"text": json.loads(sys.argv[2])})
plain = lambda value: value.decode() if isinstance(value, bytes) else value
failures = []
asked = (({"text": ["a"]}, "nothing"), ({"words": ["a"]}, "serving_default"), ({"text": [["a"]]}, "embed"))
for inputs, signature in asked:
    try:
        served.run(inputs, signature)
    except RuntimeFailedError as error:
        failures.append(str(error))
served.close()
assert not hasattr(sys.modules["tensorflow"], "constant") and "keras" not in sys.modules
print(json.dumps({"answers": {n: v.tolist() for n, v in answers.items()}, "failures": failures}, default=plain))
"""


@pytest.mark.parametrize("family", ["bert", pytest.param("roberta", marks=pytest.mark.slow), "albert"])
def test_the_answers_are_those_of_predict(family: str, presets: Any, tmp_path: Path) -> None:
    run = make_run(presets(family))
    folder = tfft.export_saved_model(run, tmp_path / "model")
    command = [sys.executable, "-c", PROGRAM, str(folder), json.dumps(TEXTS)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for i, answer in enumerate(tfft.predict_texts(run, TEXTS)):
        assert found["answers"]["label"][i] == answer["label"]
        assert found["answers"]["probabilities"][i] == pytest.approx(list(answer["probabilities"].values()), abs=1e-5)
    nothing, words, rank = found["failures"]
    assert nothing == "no signature 'nothing'; there are: classify, embed, regress, serving_default, tokenize, tokens"
    assert words == "serving_default takes ['text']. Received: ['words']"
    assert rank


@pytest.mark.parametrize(("said", "threads"), [(None, 6), ("1\n", 6), ("2\n", 3), ("4\n", 1), ("9\n", 1)])
def test_operations_side_by_side_share_the_processors(said: str | None, threads: int, tmp_path: Path) -> None:
    if said:
        (tmp_path / EXTRA).mkdir()
        (tmp_path / SIDE_BY_SIDE).write_text(said, "utf-8")
    assert runtime._threads(tmp_path, processors=6) == threads


@pytest.mark.parametrize("said", ["", "0", "two", "-1", "1.5", "\xff"])
def test_a_number_of_operations_that_is_none_is_refused(said: str, tmp_path: Path) -> None:
    (tmp_path / EXTRA).mkdir()
    (tmp_path / SIDE_BY_SIDE).write_text(said, "latin-1")
    read = said.encode("latin-1").decode("utf-8", "replace")
    with pytest.raises(RuntimeFailedError, match=f"expected a whole number from 1. Received: {read!r}"):
        runtime._threads(tmp_path, processors=6)


def test_a_process_with_tensorflow_is_refused() -> None:
    with pytest.raises(RuntimeFailedError, match="TensorFlow's Python is loaded in this process"):
        messages()
