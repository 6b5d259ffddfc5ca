"""The REST surface under what nobody would send: never a 500, never a hang, and as its own description says."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from urllib3.exceptions import LocationParseError

import tfft
from tests.test_proving import make_run
from tests.test_server import Running, serving

CASES = 5000
FOLLOW_NONE: Any = {"allow_redirects": False}
EXAMPLES = ("--max-examples", "60", "--seed", "0")
FUZZED = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module")
def server(presets: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("fuzz")
    tfft.export_saved_model(make_run(presets("bert")), folder / "models" / "reviews")
    with serving(folder / "models", "--max-body", "100000", "--max-text", "4000", "--timeout", "20") as running:
        yield running


# Parts that lead somewhere, mixed with parts that do not.
SEGMENTS = st.sampled_from(
    ["v1", "models", "reviews", "reviews:predict", "reviews:classify", "reviews:regress", "metadata", "versions", "1",
     "labels", "monitoring", "prometheus", "metrics", "openapi.json", "reviews:", ":predict", "%2e%2e", "..", "%00", "",
     "1:predict", "99999999999999999999", "-1", "\u0661"]
) | st.text(max_size=8)  # fmt: skip
PATHS = st.lists(SEGMENTS, max_size=7).map("/".join)
KEYS = st.sampled_from(["instances", "inputs", "signature_name", "examples", "context", "text", "b64", "token_ids", ""])
NAMES = st.sampled_from(["serving_default", "tokens", "tokenize", "embed", "classify", "regress", "x"])
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70) | st.integers() | st.floats() | st.text() | NAMES,
    lambda one: st.lists(one, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), one, max_size=4),
    max_leaves=12,
)
BODIES = (
    st.fixed_dictionaries({}, optional={"signature_name": NAMES, "instances": VALUES, "inputs": VALUES})
    | st.fixed_dictionaries({"signature_name": NAMES, "examples": st.lists(st.dictionaries(KEYS, VALUES), max_size=3)})
    | VALUES
)
CONTENT = BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=300)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["Content-Type", "Accept", "Authorization", "Expect", "Host", "X-Odd", "Content-Encoding", "Range"]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).map(str.strip),
    max_size=3,
)


def asked(server: Running, method: str, path: str, headers: dict[str, str], body: bytes) -> requests.Response | None:
    try:
        return requests.request(
            method, f"{server.address}/{path}", headers=headers, data=body, timeout=25, **FOLLOW_NONE
        )
    except (LocationParseError, UnicodeError, requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader):
        return None  # requests itself sends no such thing


@pytest.mark.slow
@pytest.mark.timeout(1800)
@FUZZED
@given(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]), PATHS, HEADERS, CONTENT)
def test_any_path_header_and_body(
    server: Running, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    answer = asked(server, method, path, headers, body)
    if answer is not None:
        assert answer.status_code < 500, answer.text
        assert not answer.is_redirect, "to wherever the Host header says"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@FUZZED
@given(st.sampled_from(["predict", "classify", "regress"]), CONTENT)
def test_any_body_of_a_model(server: Running, verb: str, body: bytes) -> None:
    answer = asked(server, "POST", f"v1/models/reviews:{verb}", {}, body)
    assert answer is not None
    assert answer.status_code in (200, 400, 413), answer.text
    assert answer.json()
    assert server.process.poll() is None


@settings(FUZZED, max_examples=60)
@given(st.sampled_from(["predict", "classify", "regress"]), CONTENT)
def test_some_bodies_of_a_model(server: Running, verb: str, body: bytes) -> None:
    answer = asked(server, "POST", f"v1/models/reviews:{verb}", {}, body)
    assert answer is not None
    assert answer.status_code in (200, 400, 413), answer.text


@pytest.mark.slow
def test_it_is_as_its_own_description_says(server: Running, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("schemathesis")
    if not command.exists():
        pytest.skip("schemathesis is not installed")
    # what is too large is refused with 413, which schemathesis does not count as a refusal by itself
    settled = "[checks.negative_data_rejection]\nexpected-statuses = [400, 404, 405, 413]\n"
    (tmp_path / "schemathesis.toml").write_text(settled, "utf-8")
    config = ["--config-file", str(tmp_path / "schemathesis.toml")]
    done = subprocess.run(
        [command, *config, "run", f"{server.address}/openapi.json", "--checks", "all", *EXAMPLES],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-16000:]
    assert server.process.poll() is None
