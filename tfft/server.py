"""The local server's answers: models of a folder behind TensorFlow Serving's REST dialect.

Runs in TensorFlow's C++ runtime, in a process that never imports TensorFlow. Starlette and uvicorn do the HTTP.
"""

import asyncio
import contextlib
import dataclasses
import hmac
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tfft import rest
from tfft.capi import RuntimeFailedError
from tfft.counters import Counters
from tfft.joining import FullError
from tfft.openapi import description
from tfft.repository import Repository, Version
from tfft.rest import RestError

log = logging.getLogger(__name__)

PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)"
    r"(?:/versions/(?P<number>[0-9]{1,18})|/labels/(?P<label>[^/:]+))?"
    r"(?P<verb>:predict|:classify|:regress|/metadata)?"
)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]  # each path says itself what it allows
VERBS = (":predict", ":classify", ":regress")
Endpoint = Callable[[Request], Awaitable[Response]]
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


@dataclasses.dataclass(frozen=True)
class Server:
    """What every endpoint needs; `request.app.state.server`.

    Attributes:
        repository: the models; watched from start-up, closed at shutdown.
        limits: of a request.
        counters: where to count.
        token: what `Authorization: Bearer` must carry for everything but the page; None for no one in particular.
    """

    repository: Repository
    limits: Limits
    counters: Counters
    token: str | None = None


def application(server: Server, ready: Callable[[], None] = lambda: None) -> Starlette:
    """The ASGI application.

    Args:
        server: what it answers with.
        ready: called once, when the models there are have been loaded.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await server.repository.refresh()
        watching = asyncio.create_task(_watch(server.repository))
        ready()
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            server.repository.close()

    app = Starlette(
        routes=[
            Route("/", _page),
            Route("/openapi.json", _guarded(_openapi)),
            Route("/v1/models", _guarded(_models), methods=METHODS),
            Route("/monitoring/prometheus/metrics", _guarded(_counted)),
            Route("/v1/models/{rest:path}", _guarded(_model), methods=METHODS),
            Route("/v1/{rest:path}", _guarded(_malformed), methods=METHODS),
        ],
        exception_handlers={RestError: _rest_error, HTTPException: _http_error, ClientDisconnect: _gone},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # it would send clients to whatever their Host header names
    app.state.server = server
    return app


def _guarded(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        token, given = request.app.state.server.token, request.headers.get("authorization", "").encode()
        if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise HTTPException(401, "a token is needed", headers={"WWW-Authenticate": "Bearer"})
        return await endpoint(request)

    return answer


async def _page(request: Request) -> Response:
    content = resources.files("tfft").joinpath("page.html").read_bytes()
    return Response(content, media_type="text/html", headers=PAGE_HEADERS)


async def _models(request: Request) -> Response:
    _allow(request, "GET", "HEAD")
    models = request.app.state.server.repository.models.values()
    listed = [{"name": m.name, "versions": [str(n) for n in m.available()], "labels": m.labels} for m in models]
    return _json({"models": listed})


async def _openapi(request: Request) -> Response:
    server: Server = request.app.state.server
    names = [name for name, model in server.repository.models.items() if model.available()]
    answering = {name: server.repository.find(name).servable for name in names}
    taken = {
        name: {each: sorted(signature.inputs) for each, signature in servable.signatures.items()}
        for name, servable in answering.items()
        if servable is not None
    }
    return _json(description(server.limits.rows, server.limits.characters, taken))


async def _counted(request: Request) -> Response:
    content, kind = request.app.state.server.counters.text()
    return Response(content, media_type=kind)


async def _malformed(request: Request) -> Response:
    raise RestError(400, f"Malformed request: {request.method} {request.scope['path']}")


async def _model(request: Request) -> Response:
    server: Server = request.app.state.server
    match = PATH.fullmatch(request.scope["path"])
    if match is None:
        return await _malformed(request)
    verb = match["verb"]
    _allow(request, *(("POST",) if verb in VERBS else ("GET", "HEAD")))
    name, number = match["name"], int(match["number"]) if match["number"] else None
    if verb is None:
        return _json(_status(server.repository, name, number, match["label"]))
    start, code = time.perf_counter(), 500
    try:
        with server.repository.find(name, number, match["label"]).used() as version:
            if verb == "/metadata":
                answer = rest.metadata(name, version.number, version.servable.signatures if version.servable else {})
            else:
                async with asyncio.timeout(server.limits.seconds):
                    answer = await _answer(server, version, verb, await _body(request, server.limits))
        code = 200
        return _json(answer)
    except TimeoutError:
        code = 504
        raise RestError(code, f"Timed out: no answer within {server.limits.seconds:g} s") from None
    except RestError as error:
        code = error.status
        raise
    finally:
        known = name if name in server.repository.models else ""  # every name asked for would be counted for ever
        server.counters.answered(known, verb[1:], code, time.perf_counter() - start)


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


async def _answer(server: Server, version: Version, verb: str, content: bytes) -> dict[str, Any]:
    body = rest.read_body(content)
    name = rest.signature_name(body)
    if version.servable is None or version.joiner is None:  # `find` gives none such
        raise RestError(404, "Servable not found for request")
    signature = rest.signature_of(version.servable.signatures, name)
    row_format = True
    if verb == ":predict":
        inputs, row_format = rest.predict_inputs(body, signature)
    else:
        inputs = rest.example_inputs(body, signature, server.repository.runtime.messages)
    limits = server.limits
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
    return rest.statuses([(version.number, version.state, version.error) for version in found])


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
