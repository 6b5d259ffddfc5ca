"""The local server: models of a folder behind TensorFlow Serving's REST dialect, for a laptop and for tests.

Runs in TensorFlow's C++ runtime, in a process that never imports TensorFlow. Starlette and uvicorn do the HTTP.
"""

import asyncio
import contextlib
import dataclasses
import hmac
import ipaddress
import json
import logging
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Any

import prometheus_client as prometheus
import uvicorn
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tfft import rest
from tfft.capi import RuntimeFailedError
from tfft.errors import InvalidValueError, NotFoundError
from tfft.joining import FullError
from tfft.openapi import description
from tfft.repository import Repository, Version, model_folders
from tfft.rest import RestError

log = logging.getLogger(__name__)

PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)"
    r"(?:/versions/(?P<number>[0-9]{1,18})|/labels/(?P<label>[^/:]+))?"
    r"(?P<verb>:predict|:classify|:regress|/metadata)?"
)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]  # each path says itself what it allows
VERBS = (":predict", ":classify", ":regress")
POLL_SECONDS = 1.0  # between two looks at the folders
# One page, no resource from elsewhere, and nobody may frame it.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        body_bytes: of its body; more is 413.
        rows: texts in it; more is 413.
        characters: of one text, in bytes; more is 413.
        seconds: until it is answered; longer is 504.
    """

    body_bytes: int = 8 * 2**20
    rows: int = 1024
    characters: int = 100_000
    seconds: float = 30.0


class Metrics:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        labels = ("model", "method")
        self.requests = prometheus.Counter(
            "tfft_requests", "Requests answered.", (*labels, "code"), registry=self.registry
        )
        self.seconds = prometheus.Histogram(
            "tfft_request_seconds", "From the first byte read to the answer.", labels, registry=self.registry
        )
        self.rows = prometheus.Histogram(
            "tfft_run_rows",
            "Rows in one run of a model.",
            ("model",),
            registry=self.registry,
            buckets=[2**n for n in range(11)],
        )

    def ran(self, model: str, rows: int) -> None:
        """One run of a model."""
        self.rows.labels(model).observe(rows)


def application(
    repository: Repository,
    limits: Limits | None = None,
    *,
    metrics: Metrics | None = None,
    token: str | None = None,
    ready: Callable[[], None] = lambda: None,
) -> Starlette:
    """The ASGI application.

    Args:
        repository: the models; watched from start-up, closed at shutdown.
        limits: of a request.
        metrics: where to count.
        token: what `Authorization: Bearer` must carry for everything but the page.
        ready: called once, when the models there are have been loaded.
    """
    limits, metrics = limits or Limits(), metrics or Metrics()

    async def models(request: Request) -> Response:
        _allow(request, "GET", "HEAD")
        return _json(
            {
                "models": [
                    {"name": model.name, "versions": [str(n) for n in model.available()], "labels": model.labels}
                    for model in repository.models.values()
                ]
            }
        )

    async def model(request: Request) -> Response:
        match = PATH.fullmatch(request.scope["path"])
        if match is None:
            raise RestError(400, f"Malformed request: {request.method} {request.scope['path']}")
        verb = match["verb"]
        _allow(request, *(("POST",) if verb in VERBS else ("GET", "HEAD")))
        name, number = match["name"], int(match["number"]) if match["number"] else None
        if verb is None:
            return _json(_status(repository, name, number, match["label"]))
        start, code = time.perf_counter(), 500
        known = name if name in repository.models else ""  # a counter for every name asked for would grow for ever
        try:
            with repository.find(name, number, match["label"]).used() as version:
                if verb == "/metadata":
                    return _json(_metadata(name, version))
                async with asyncio.timeout(limits.seconds):
                    answer = await _answer(repository, version, verb, await _body(request, limits), limits)
            code = 200
            return _json(answer)
        except TimeoutError:
            code = 504
            raise RestError(code, f"Timed out: no answer within {limits.seconds:g} s") from None
        except RestError as error:
            code = error.status
            raise
        finally:
            metrics.requests.labels(known, verb[1:], code).inc()
            metrics.seconds.labels(known, verb[1:]).observe(time.perf_counter() - start)

    async def page(request: Request) -> Response:
        content = resources.files("tfft").joinpath("page.html").read_bytes()
        return Response(content, media_type="text/html", headers=PAGE_HEADERS)

    async def openapi(request: Request) -> Response:
        answering = {name: repository.find(name) for name, model in repository.models.items() if model.available()}
        signatures = {n: list(v.servable.signatures) for n, v in answering.items() if v.servable is not None}
        return _json(description(limits.rows, limits.characters, signatures))

    async def measured(request: Request) -> Response:
        return Response(prometheus.generate_latest(metrics.registry), media_type=prometheus.CONTENT_TYPE_LATEST)

    async def malformed(request: Request) -> Response:
        raise RestError(400, f"Malformed request: {request.method} {request.scope['path']}")

    def guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
                raise HTTPException(401, "a token is needed", headers={"WWW-Authenticate": "Bearer"})
            return await endpoint(request)

        return answer

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await repository.refresh()
        watching = asyncio.create_task(_watch(repository))
        ready()
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            repository.close()

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/openapi.json", guarded(openapi)),
            Route("/v1/models", guarded(models), methods=METHODS),
            Route("/monitoring/prometheus/metrics", guarded(measured)),
            Route("/v1/models/{rest:path}", guarded(model), methods=METHODS),
            Route("/v1/{rest:path}", guarded(malformed), methods=METHODS),
        ],
        exception_handlers={
            RestError: _rest_error,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # it would send clients to whatever their Host header names
    return app


def _allow(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise HTTPException(405, headers={"Allow": ", ".join(methods)})


async def _watch(repository: Repository) -> None:
    while True:
        await asyncio.sleep(POLL_SECONDS)
        try:
            await repository.refresh()
        except Exception as error:  # noqa: BLE001 - such as a folder that is being moved: the next look may do
            log.warning("%s: %s", repository.root, error)


async def _body(request: Request, limits: Limits) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.body_bytes:
            raise RestError(413, f"the body has more than {limits.body_bytes} bytes; send fewer rows in a request")
    return bytes(body)


async def _answer(
    repository: Repository, version: Version, verb: str, content: bytes, limits: Limits
) -> dict[str, Any]:
    body = rest.read_body(content)
    name = rest.signature_name(body)
    if version.servable is None or version.joiner is None:  # `find` gives none such
        raise RestError(404, "Servable not found for request")
    signature = rest.signature_of(version.servable.signatures, name)
    row_format = True
    if verb == ":predict":
        inputs, row_format = rest.predict_inputs(body, signature)
    else:
        inputs = rest.example_inputs(body, signature, repository.runtime.messages)
    for array in inputs.values():
        if len(array) > limits.rows:
            raise RestError(413, f"{len(array)} rows; one request may have {limits.rows}")
        longest = max((len(text) for text in array.ravel()), default=0) if array.dtype == object else 0
        if longest > limits.characters:
            raise RestError(413, f"a text of {longest} bytes; one may have {limits.characters}")
    try:
        outputs = await version.joiner.ask(inputs, name)
    except FullError as error:
        raise RestError(429, str(error)) from None
    except RuntimeFailedError as error:
        raise RestError(rest.STATUS.get(error.code, 500), str(error)) from None
    if verb == ":classify":
        return rest.classifications(outputs)
    return rest.predictions(outputs, row_format) if verb == ":predict" else rest.regressions(outputs)


def _status(repository: Repository, name: str, number: int | None, label: str | None) -> dict[str, Any]:
    model = repository.models.get(name)
    if label is not None:
        number = repository.find(name, label=label).number
    found = sorted(model.versions.values(), key=lambda version: -version.number) if model else []
    found = [version for version in found if number in (None, version.number)]
    if not found:
        wanted = f"version {number}" if number is not None else "any versions"
        raise RestError(404, f"Could not find {wanted} of model {name}")
    return {
        "model_version_status": [
            {
                "version": str(version.number),
                "state": version.state,
                "status": {"error_code": "UNKNOWN" if version.error else "OK", "error_message": version.error},
            }
            for version in found
        ]
    }


def _metadata(name: str, version: Version) -> dict[str, Any]:
    signatures = version.servable.signatures if version.servable else {}
    plain = {
        key: json_format.MessageToDict(
            signature, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for key, signature in sorted(signatures.items())
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version.number)},
        "metadata": {"signature_def": {"signature_def": plain}},
    }


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    return Response(body, status, headers, "application/json")


async def _rest_error(request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, error.status if isinstance(error, RestError) else 500)


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return _json({"error": "Internal error"}, 500)
    said = f"{error.detail}: {request.method} {request.scope['path']}"
    return _json({"error": said}, error.status_code, dict(error.headers or {}))


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


def serve(
    runtime: Callable[[], Any],
    root: Path,
    limits: Limits,
    *,
    host: str,
    port: int,
    token: str | None = None,
    joined: bool = True,
    max_rows: int = 64,
    max_waiting: int = 1024,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Answer until SIGINT or SIGTERM; what is being answered then is finished.

    Args:
        runtime: makes a `tfft.runtime.Runtime`, once all else is in order.
        root: a folder of models, or one model's.
        limits: of a request.
        host: address to listen on; beyond this machine only with a token.
        port: 0 for a free one.
        token: clients must send.
        joined: join waiting requests.
        max_rows: rows that are joined, at most.
        max_waiting: rows that wait, at most.
        ready: is told the address once models are loaded.

    Raises:
        NotFoundError: no models in the folder.
        InvalidValueError: a host beyond this machine without a token, or an address that cannot be listened on.
    """
    if not model_folders(root):
        raise NotFoundError(f"{root} has no model (name/1/saved_model.pb). `tfft export RUN {root}/name` makes one")
    if not _is_loopback(host) and not token:
        raise InvalidValueError(
            f"{host} can be reached from elsewhere: give --token, or TFFT_TOKEN. 127.0.0.1 needs none"
        )
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InvalidValueError(f"cannot listen on {host}:{port}: {error.strerror}. Choose another --port") from None
    metrics = Metrics()
    repository = Repository(root, runtime(), joined=joined, max_rows=max_rows, max_waiting=max_waiting, ran=metrics.ran)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}"
    app = application(repository, limits, metrics=metrics, token=token, ready=lambda: ready(address))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=60
    )
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn stops, then sends the signal once more
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # likewise
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
