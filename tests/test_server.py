"""The local server, in a process of its own, as a client meets it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import tfft
from tests.test_proving import make_run
from tfft.cli import main

TEXTS = ["the movie was good", "awful", "", "A GREAT film, caf\u00e9 \U0001f600 " + "very " * 80, "i was fine"]
CONFIG = "model_config_list { config { name: 'x' model_version_policy { %s } %s } }"


class Running:
    """A server that was started, and how to ask it."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process, self.address = process, address

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.address + path, timeout=30, **options)

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        content = body if isinstance(body, bytes) else json.dumps(body)
        return requests.post(self.address + path, data=content, timeout=60, **options)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)


@contextlib.contextmanager
def serving(folder: Path, *flags: str, **environment: str) -> Iterator[Running]:
    command = [sys.executable, "-P", "-m", "tfft.cli", "serve", str(folder), "--port", "0", *flags]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **environment}
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        yield Running(process, line.partition(" at ")[2].split()[0])
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.1)


def states(running: Running) -> dict[str, str]:
    return {v["version"]: v["state"] for v in running.get("/v1/models/reviews").json()["model_version_status"]}


@pytest.fixture(scope="module")
def exports(presets: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two versions that answer differently."""
    folder = tmp_path_factory.mktemp("exports")
    return [tfft.export_saved_model(make_run(presets("bert"), seed), folder / str(seed), seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def expected(presets: Any) -> list[list[Any]]:
    """What Keras answers to `TEXTS`, for each of the two."""
    return [tfft.predict_texts(make_run(presets("bert"), seed), TEXTS) for seed in (1, 2)]


@pytest.fixture(scope="module")
def server(exports: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(exports[0], models / "reviews" / "1")
    with serving(models, "--max-body", "20000", "--max-rows", "16", "--max-text", "3000") as running:
        yield running


def test_predict_answers_as_keras_does(server: Running, expected: list[list[Any]]) -> None:
    answer = server.post("/v1/models/reviews:predict", {"instances": TEXTS})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    for row, wanted in zip(answer.json()["predictions"], expected[0], strict=True):
        assert row["label"] == wanted["label"]
        assert dict(zip(row["labels"], row["probabilities"], strict=True)) == pytest.approx(
            wanted["probabilities"], abs=1e-5
        )
    columns = server.post("/v1/models/reviews/versions/1:predict", {"inputs": {"text": TEXTS}}).json()["outputs"]
    assert columns["label"] == [row["label"] for row in answer.json()["predictions"]]
    ids = server.post("/v1/models/reviews:predict", {"signature_name": "tokenize", "instances": ["good film"]}).json()
    again = server.post("/v1/models/reviews:predict", {"signature_name": "tokens", "instances": ids["predictions"]})
    alone = server.post("/v1/models/reviews:predict", {"instances": ["good film"]}).json()["predictions"][0]
    assert again.json()["predictions"][0]["score"] == pytest.approx(alone["score"], abs=1e-5)


def test_classify_and_regress(server: Running, expected: list[list[Any]]) -> None:
    body = {"signature_name": "classify", "examples": [{"text": TEXTS[0]}, {}]}
    first, _ = server.post("/v1/models/reviews:classify", body).json()["results"]
    assert dict(first) == pytest.approx(expected[0][0]["probabilities"], abs=1e-5)
    body = {"signature_name": "regress", "context": {"text": TEXTS[0]}, "examples": [{}]}
    (second,) = server.post("/v1/models/reviews:regress", body).json()["results"]
    assert second == pytest.approx(dict(first)["pos"], abs=1e-6)


def test_status_metadata_and_the_list(server: Running) -> None:
    status = server.get("/v1/models/reviews").json()["model_version_status"]
    assert status == [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]
    metadata = server.get("/v1/models/reviews/metadata").json()
    assert metadata["model_spec"] == {"name": "reviews", "signature_name": "", "version": "1"}
    text = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["text"]
    assert text["dtype"] == "DT_STRING"
    assert server.get("/v1/models").json() == {"models": [{"name": "reviews", "versions": ["1"], "labels": {}}]}


def test_metrics(server: Running) -> None:
    server.post("/v1/models/reviews:predict", {"instances": ["a"]})
    shown = server.get("/monitoring/prometheus/metrics").text
    assert 'tfft_requests_total{code="200",method="predict",model="reviews"}' in shown
    assert 'tfft_run_rows_count{model="reviews"}' in shown


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/models/reviews:predict", b"{", 400, "JSON Parse error"),
        ("/v1/models/reviews:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        ("/v1/models/reviews:predict", {"signature_name": "x", "instances": ["a"]}, 400, 'key "x" not found'),
        ("/v1/models/reviews:classify", {"examples": [{}]}, 400, "it takes no tf.Example"),
        ("/v1/models/none:predict", {"instances": ["a"]}, 404, "Servable not found for request: Latest(none)"),
        ("/v1/models/reviews/versions/9:predict", {"instances": ["a"]}, 404, "Specific(reviews, 9)"),
        ("/v1/models/reviews/labels/x:predict", {"instances": ["a"]}, 404, "version label: x"),
        ("/v1/models/reviews:forecast", {"instances": ["a"]}, 400, "Malformed request: POST"),
        ("/v1/nothing", {}, 400, "Malformed request: POST"),
        ("/nothing", {}, 404, "Not Found"),
        ("/v1/models/reviews", {}, 405, "Method Not Allowed"),
        ("/v1/models/reviews:predict", {"instances": ["a"] * 17}, 413, "17 rows"),
        ("/v1/models/reviews:predict", {"instances": ["a" * 3001]}, 413, "3001 bytes"),
        ("/v1/models/reviews:predict", {"instances": ["a" * 21_000]}, 413, "more than 20000 bytes"),
        (
            "/v1/models/reviews:predict",
            {"signature_name": "tokens", "instances": [[2, 99999]]},
            400,
            "indices",
        ),
    ],
)
def test_what_is_refused(server: Running, path: str, body: Any, status: int, said: str) -> None:
    answer = server.post(path, body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]


def test_a_method_that_a_path_does_not_have(server: Running) -> None:
    answer = server.get("/v1/models/reviews:predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert requests.delete(f"{server.address}/v1/models/reviews", timeout=30).status_code == 405


def test_the_page_needs_nothing_from_elsewhere(server: Running) -> None:
    answer = server.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "src=" not in answer.text


def test_requests_beside_one_another_are_joined_and_right(server: Running, expected: list[list[Any]]) -> None:
    wrong: list[Any] = []

    def ask(place: int) -> None:
        for _ in range(10):
            answer = server.post("/v1/models/reviews:predict", {"instances": [TEXTS[place]]})
            if answer.status_code != 200:
                wrong.append(answer.text)
                return
            row = answer.json()["predictions"][0]
            if row["score"] != pytest.approx(expected[0][place]["score"], abs=1e-5):
                wrong.append(row)

    threads = [threading.Thread(target=ask, args=(place % len(TEXTS),)) for place in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    sizes = [line for line in server.get("/monitoring/prometheus/metrics").text.splitlines() if "tfft_run_rows" in line]
    assert any('le="1.0"' in line for line in sizes)


def test_a_new_version_is_swapped_in_without_a_failed_request(
    exports: list[Path], expected: list[list[Any]], tmp_path: Path
) -> None:
    shutil.copytree(exports[0], tmp_path / "reviews" / "1")
    with serving(tmp_path) as running:
        problems: list[str] = []
        seen: list[str] = []
        done = threading.Event()

        def ask() -> None:
            scores = [version[0]["score"] for version in expected]
            while not done.is_set():
                answer = running.post("/v1/models/reviews:predict", {"instances": [TEXTS[0]]})
                score = answer.json()["predictions"][0]["score"] if answer.ok else None
                which = [str(n + 1) for n, one in enumerate(scores) if score == pytest.approx(one, abs=1e-5)]
                (seen if which else problems).extend(which or [answer.text])

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        shutil.copytree(exports[1], tmp_path / "reviews" / "scratch")
        os.rename(tmp_path / "reviews" / "scratch", tmp_path / "reviews" / "2")
        wait_for(lambda: "2" in seen[-4:])
        wait_for(lambda: states(running) == {"1": "END", "2": "AVAILABLE"})
        time.sleep(0.5)
        done.set()
        for thread in threads:
            thread.join()
        assert not problems
        assert (seen[0], seen[-1]) == ("1", "2")
        # one that does not load leaves the old one in place, and is taken up once it was mended
        (tmp_path / "reviews" / "3").mkdir()
        (tmp_path / "reviews" / "3" / "saved_model.pb").write_bytes(b"no graph")
        wait_for(lambda: states(running).get("3") == "END")
        broken = running.get("/v1/models/reviews/versions/3").json()["model_version_status"][0]
        assert (broken["state"], broken["status"]["error_code"]) == ("END", "UNKNOWN")
        assert running.post("/v1/models/reviews:predict", {"instances": ["a"]}).ok
        shutil.rmtree(tmp_path / "reviews" / "3")
        shutil.copytree(exports[0], tmp_path / "reviews" / "3")
        wait_for(lambda: running.post("/v1/models/reviews/versions/3:predict", {"instances": ["a"]}).ok)


def test_versions_and_labels_of_models_config(exports: list[Path], expected: list[list[Any]], tmp_path: Path) -> None:
    for export in exports:
        shutil.copytree(export, tmp_path / "reviews" / export.name)
    labels = "version_labels { key: 'stable' value: 1 } version_labels { key: 'canary' value: 2 }"
    (tmp_path / "reviews" / "models.config").write_text(CONFIG % ("all {}", labels), "utf-8")
    with serving(tmp_path / "reviews") as running:  # one model's own folder
        for path, version in (("labels/stable", 0), ("labels/canary", 1), ("versions/1", 0)):
            body = running.post(f"/v1/models/reviews/{path}:predict", {"instances": [TEXTS[0]]}).json()
            assert body["predictions"][0]["score"] == pytest.approx(expected[version][0]["score"], abs=1e-5)
        assert running.get("/v1/models").json()["models"][0]["labels"] == {"stable": 1, "canary": 2}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_finishes_what_it_holds(exports: list[Path], tmp_path: Path, how: signal.Signals) -> None:
    shutil.copytree(exports[0], tmp_path / "reviews" / "1")
    with serving(tmp_path, "--max-body", "100000000") as running:
        answers: list[int] = []
        body = {"instances": ["the movie was " + "very " * 8000] * 1000}

        def ask() -> None:
            answers.append(running.post("/v1/models/reviews:predict", body).status_code)

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.3)
        assert running.stop(how) == 0
        thread.join()
        assert answers == [200]


def test_a_token_is_asked_for(exports: list[Path], tmp_path: Path) -> None:
    shutil.copytree(exports[0], tmp_path / "reviews" / "1")
    with serving(tmp_path, "--host", "0.0.0.0", TFFT_TOKEN="s3cret") as running:
        running.address = running.address.replace("0.0.0.0", "127.0.0.1")
        body = {"instances": ["a"]}
        refused = running.post("/v1/models/reviews:predict", body)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/v1/models", "/monitoring/prometheus/metrics", "/openapi.json", "/v1/models/reviews"):
            assert running.get(path).status_code == 401
        assert running.get("/").status_code == 200
        bearer = {"Authorization": "Bearer s3cret"}
        assert running.post("/v1/models/reviews:predict", body, headers=bearer).status_code == 200
        client = tfft.Client(running.address, "reviews", token="s3cret")
        assert client.predict(["a"])[0]["label"] in ("neg", "pos")


def test_a_full_queue_and_a_slow_model(exports: list[Path], tmp_path: Path) -> None:
    shutil.copytree(exports[0], tmp_path / "reviews" / "1")
    with serving(tmp_path, "--max-waiting", "3", "--timeout", "1", "--max-body", "100000000") as running:
        slow = {"instances": ["the movie was " + "very " * 15000] * 1024}
        codes: list[int] = []

        def ask(body: Any) -> None:
            codes.append(running.post("/v1/models/reviews:predict", body).status_code)

        threads = [threading.Thread(target=ask, args=(slow,))]
        threads[0].start()
        time.sleep(0.6)
        threads += [threading.Thread(target=ask, args=({"instances": ["a", "b"]},)) for _ in range(4)]
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes.count(429) == 3, codes
        assert set(codes) <= {200, 429, 504}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "0.0.0.0"], "0.0.0.0 can be reached from elsewhere: give --token"),
        (["--host", "203.0.113.9", "--token", "x"], "cannot listen on 203.0.113.9:8501"),
    ],
)
def test_it_does_not_start(
    exports: list[Path], flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(exports[0].parent), *flags]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path)]) == 2
    assert f"{tmp_path} has no model" in capsys.readouterr().err
