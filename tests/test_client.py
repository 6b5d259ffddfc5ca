"""The client, over REST and gRPC: batches, retries, time-outs, the server's own words."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

import tfft
from tfft import client as client_module
from tfft.errors import InvalidValueError, ServerError

ROW = {"label": "pos", "score": 0.75, "labels": ["neg", "pos"], "probabilities": [0.25, 0.75]}
ANSWER = {"label": "pos", "score": 0.75, "probabilities": {"neg": 0.25, "pos": 0.75}}


class Scripted(http.server.ThreadingHTTPServer):
    """Answers each request with the next of a list of (status, body), the last again and again; keeps what came."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), []  # type: ignore[var-annotated]
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_: Any) -> None:  # a client that has gone
        pass

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body["instances"]))
        answers = self.server.answers
        status, answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if status == "slow":
            time.sleep(1.5)
            status = 200
        if answer is None:
            answer = {"predictions": [ROW] * len(body["instances"])}
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(client_module, "BACKOFF_SECONDS", 0.01)
    made = []

    def start(*answers: Any) -> Scripted:
        server = Scripted(*answers)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made.append((server, thread))
        return server

    yield start
    for server, thread in made:
        server.shutdown()
        server.server_close()
        thread.join()


def test_many_texts_go_in_batches_and_come_back_in_order(scripted: Any) -> None:
    server = scripted((200, None))
    answers = tfft.Client(server.address, "m", batch_size=2, token="t").predict(["a", "b", "c"])
    assert answers == [ANSWER] * 3
    assert server.asked == [
        ("/v1/models/m:predict", "Bearer t", ["a", "b"]),
        ("/v1/models/m:predict", "Bearer t", ["c"]),
    ]
    assert tfft.Client(server.address, "m").predict([]) == []


def test_a_version_or_a_label(scripted: Any) -> None:
    server = scripted((200, None))
    tfft.Client(server.address, "m", version=3).predict(["a"])
    tfft.Client(server.address, "a b/c", label="stable").predict(["a"])
    assert [path for path, _, _ in server.asked] == [
        "/v1/models/m/versions/3:predict",
        "/v1/models/a%20b%2Fc/labels/stable:predict",
    ]


@pytest.mark.parametrize("status", [429, 503, 504])
def test_a_server_in_a_hurry_is_asked_again(scripted: Any, status: int) -> None:
    server = scripted((status, {"error": "later"}), (status, {"error": "later"}), (200, None))
    assert tfft.Client(server.address, "m").predict(["a"]) == [ANSWER]
    assert len(server.asked) == 3


def test_the_servers_own_words(scripted: Any) -> None:
    server = scripted((503, {"error": "the queue is full"}))
    with pytest.raises(ServerError, match="answered 503: the queue is full") as caught:
        tfft.Client(server.address, "m", retries=2).predict(["a"])
    assert (caught.value.status, len(server.asked)) == (503, 3)
    server = scripted((400, {"error": "no such signature"}))
    with pytest.raises(ServerError, match="answered 400: no such signature") as caught:
        tfft.Client(server.address, "m").predict(["a"])
    assert (caught.value.status, len(server.asked)) == (400, 1)
    server = scripted((500, "<html>broken</html>"))
    with pytest.raises(ServerError, match="answered 500: <html>broken</html>"):
        tfft.Client(server.address, "m").predict(["a"])
    server = scripted((200, {"outputs": []}))
    with pytest.raises(ServerError, match="answered 200"):
        tfft.Client(server.address, "m").predict(["a"])


def test_a_time_out_is_not_asked_again(scripted: Any) -> None:
    server = scripted(("slow", None))
    with pytest.raises(ServerError, match=r"did not answer within 0.2 s") as caught:
        tfft.Client(server.address, "m", timeout=0.2).predict(["a"])
    assert (caught.value.status, len(server.asked)) == (504, 1)


def test_nobody_there(scripted: Any) -> None:
    server = scripted((200, None))
    address = server.address.replace("127.0.0.1", "127.0.0.2").rsplit(":", 1)[0] + ":9"
    with pytest.raises(ServerError, match="cannot be reached") as caught:
        tfft.Client(address, "m", retries=1).predict(["a"])
    assert caught.value.status is None


@pytest.mark.parametrize("address", ["localhost:8501", "ftp://localhost", "http://", ""])
def test_an_address_of_another_kind(address: str) -> None:
    with pytest.raises(InvalidValueError, match="a server's address is http://host:8501"):
        tfft.Client(address, "m")
    with pytest.raises(InvalidValueError, match="a version or a label, not both"):
        tfft.Client("http://localhost:8501", "m", version=1, label="stable")


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Fails with the codes it was given, one a request, then answers."""

    def __init__(self, *codes: grpc.StatusCode) -> None:
        self.codes, self.asked = list(codes), []  # type: ignore[var-annotated]

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        self.asked.append(request)
        if self.codes:
            context.abort(self.codes.pop(0), "in these words")
        count = request.inputs["text"].tensor_shape.dim[0].size
        answer = predict_pb2.PredictResponse()
        columns = {"label": [b"pos"], "score": [0.75], "labels": [[b"neg", b"pos"]], "probabilities": [[0.25, 0.75]]}
        for name, value in columns.items():
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(tf.constant(value * count)))
        return answer


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(client_module, "BACKOFF_SECONDS", 0.01)
    servers = []

    def start(service: Predictions) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(2))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"grpc://127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


def test_the_same_over_grpc(started: Any) -> None:
    service = Predictions()
    address = started(service)
    assert tfft.Client(address, "m", version=3, batch_size=2).predict(["a", "\u00e9", "c"]) == [ANSWER] * 3
    first = service.asked[0]
    assert (first.model_spec.name, first.model_spec.version.value) == ("m", 3)
    assert list(first.inputs["text"].string_val) == [b"a", "\u00e9".encode()]
    tfft.Client(address, "m", label="stable").predict(["a"])
    assert service.asked[-1].model_spec.version_label == "stable"


def test_grpc_is_asked_again_and_fails_in_the_servers_words(started: Any) -> None:
    busy = Predictions(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert tfft.Client(started(busy), "m").predict(["a"]) == [ANSWER]
    wrong = Predictions(grpc.StatusCode.INVALID_ARGUMENT)
    with pytest.raises(ServerError, match="INVALID_ARGUMENT: in these words") as caught:
        tfft.Client(started(wrong), "m").predict(["a"])
    assert (caught.value.status, len(wrong.asked)) == (400, 1)
