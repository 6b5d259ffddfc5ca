"""Starts and ends the local server: where it listens, who may ask, what it serves. `tfft.server` answers."""

import ipaddress
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from tfft.counters import Counters
from tfft.errors import InvalidValueError, NotFoundError
from tfft.repository import Repository, model_folders
from tfft.server import Limits, Server, application


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
    counters = Counters()
    repository = Repository(
        root, runtime(), joined=joined, max_rows=max_rows, max_waiting=max_waiting, ran=counters.ran
    )
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}"
    app = application(Server(repository, limits, counters, token), ready=lambda: ready(address))
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
