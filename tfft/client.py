"""A client of TensorFlow Serving, or of `tfft serve`: texts to a server, answers back as `predict_texts` gives them."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from tfft.answers import Answer, as_answer
from tfft.errors import InvalidValueError, ServerError
from tfft.rest import predictions

RETRIED = (429, 503, 504)  # a full queue, a model that is loading, a server in a hurry
BACKOFF_SECONDS = 0.2  # before the second try; doubled before each further one

Text = str | Mapping[str, str]  # one text, or several by the names a model takes them by
Send = Callable[[Sequence[Text]], list[Any]]


class Client:
    """A model on a server.

    Args:
        address: `http://host:8501` or `https://...` for REST, `grpc://host:8500` for gRPC.
        model: the served name.
        version: a number; by default the server's choice.
        label: a version's label, in place of its number.
        timeout: seconds one request may take.
        retries: how often a request is sent again after 429, 503, 504 or a connection that failed, at growing pauses.
        batch_size: texts in one request, at most.
        token: sent as a bearer token, as `tfft serve --token` wants it.

    Raises:
        InvalidValueError: an address of another kind, or both version and label.

    Examples:
        client = tfft.Client("http://localhost:8501", "sentiment")
        client.predict(["It works as it should."])[0]["label"]
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = 30.0,
        retries: int = 4,
        batch_size: int = 32,
        token: str | None = None,
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https", "grpc") or not parts.netloc:
            raise InvalidValueError(
                f"a server's address is http://host:8501, https://... or grpc://host:8500. Received: {address!r}"
            )
        if version is not None and label is not None:
            raise InvalidValueError(f"give a version or a label, not both. Received: {version} and {label!r}")
        self.batch_size = batch_size
        connect = _grpc if parts.scheme == "grpc" else _rest
        self._send: Send = connect(address.rstrip("/"), model, version, label, timeout, retries, token)

    def predict(self, texts: Sequence[Text]) -> list[Answer]:
        """Answers in the order of the texts; for classification `{"label", "score", "probabilities": {name: p}}`.

        Args:
            texts: strings, or mappings for a model of several texts: `{"context": "...", "question": "..."}`.

        Raises:
            ServerError: the server's own words and its status, or that it cannot be reached.
        """
        batches = [texts[begin : begin + self.batch_size] for begin in range(0, len(texts), self.batch_size)]
        return [as_answer(row) for batch in batches for row in self._send(batch)]


def _rest(
    address: str, model: str, version: int | None, label: str | None, timeout: float, retries: int, token: str | None
) -> Send:
    chosen = f"/versions/{version}" if version is not None else f"/labels/{quote(label, '')}" if label else ""
    url = f"{address}/v1/models/{quote(model, '')}{chosen}:predict"
    # Asking twice does no harm, so a POST may be sent again; one that was not answered in time was heard.
    again = Retry(
        total=None,
        connect=retries,
        read=False,
        status=retries,
        status_forcelist=RETRIED,
        allowed_methods=None,
        backoff_factor=BACKOFF_SECONDS,
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=again))
    if token is not None:
        session.headers["Authorization"] = f"Bearer {token}"

    def send(texts: Sequence[Text]) -> list[Any]:
        try:
            answer = session.post(url, json={"instances": list(texts)}, timeout=timeout)
        except requests.Timeout:
            raise ServerError(f"{url} did not answer within {timeout:g} s", 504) from None
        except requests.RequestException as error:
            raise ServerError(f"{url} cannot be reached: {error}") from None
        try:
            body = answer.json()
        except ValueError:
            body = {"error": answer.text[:300]}
        if answer.status_code != 200 or "predictions" not in body:
            said = body.get("error") if isinstance(body, dict) else json.dumps(body)
            raise ServerError(f"{url} answered {answer.status_code}: {said}", answer.status_code)
        rows: list[Any] = body["predictions"]
        return rows

    return send


def _grpc(
    address: str, model: str, version: int | None, label: str | None, timeout: float, retries: int, token: str | None
) -> Send:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(urlsplit(address).netloc))
    statuses = {
        grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
        grpc.StatusCode.UNAVAILABLE: 503,
        grpc.StatusCode.DEADLINE_EXCEEDED: 504,
        grpc.StatusCode.NOT_FOUND: 404,
        grpc.StatusCode.INVALID_ARGUMENT: 400,
        grpc.StatusCode.FAILED_PRECONDITION: 400,
    }
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]

    def send(texts: Sequence[Text]) -> list[Any]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        if label is not None:
            request.model_spec.version_label = label
        rows_given = [{"text": text} if isinstance(text, str) else text for text in texts]
        for name in rows_given[0]:
            request.inputs[name].CopyFrom(tf.make_tensor_proto([row[name] for row in rows_given], tf.string))
        for tried in range(retries + 1):
            try:
                answer = stub.Predict(request, timeout=timeout, metadata=metadata)
                break
            except grpc.RpcError as error:
                status = statuses.get(error.code(), 500)
                timed_out = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                if status not in RETRIED or timed_out or tried == retries:
                    raise ServerError(f"{address} answered {error.code().name}: {error.details()}", status) from None
                time.sleep(BACKOFF_SECONDS * 2**tried)
        outputs = {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}
        rows: list[Any] = predictions(outputs, rows=True)["predictions"]
        return rows

    return send
