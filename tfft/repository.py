"""Models found in a folder, loaded, watched, swapped: a version answers until the newer one stands ready.

TensorFlow Serving's rules: versions are numbered folders, the highest answers unless `models.config` in the model's
folder says otherwise; a version that fails to load leaves the old one in place.
"""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tfft import memory
from tfft.capi import RuntimeFailedError
from tfft.joining import Joiner
from tfft.proving import WARMUP, versions
from tfft.rest import RestError
from tfft.servable import Servable, load
from tfft.warmup import warm_up_requests

CONFIG = "models.config"

log = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False)
class Version:
    """One version of a model.

    Attributes:
        number: of the folder.
        state: "LOADING", "AVAILABLE", "UNLOADING" or "END", as the server names them.
        error: why it could not be loaded.
        servable: answers, while it is available.
        joiner: the queue before it.
        seen: what its folder looked like when it was loaded; a failed load is tried again when that changes.
    """

    number: int
    state: str = "LOADING"
    error: str = ""
    servable: Servable | None = None
    joiner: Joiner | None = None
    seen: Any = None
    users: int = 0
    dispose: Callable[[Servable], Any] = lambda servable: servable.close()

    @contextlib.contextmanager
    def used(self) -> Iterator["Version"]:
        """It is not closed before this is left."""
        self.users += 1
        try:
            yield self
        finally:
            self.users -= 1
            if self.state == "UNLOADING" and not self.users:
                self.close()

    def retire(self) -> None:
        """Answer no new requests; close after the last that is running."""
        self.state = "UNLOADING"
        if not self.users:
            self.close()

    def close(self) -> None:
        """Give its memory back."""
        self.state = "END"
        servable, self.servable, self.joiner = self.servable, None, None
        if servable is not None:
            self.dispose(servable)


@dataclasses.dataclass(eq=False)
class Model:
    """A served model: its folder, its versions by number, and names some versions go by."""

    name: str
    folder: Path
    versions: dict[int, Version] = dataclasses.field(default_factory=dict)
    labels: dict[str, int] = dataclasses.field(default_factory=dict)
    wanted: Callable[[list[int]], list[int]] = lambda found: found[-1:]

    def available(self) -> list[int]:
        """Numbers of the versions that answer, in order."""
        return sorted(number for number, version in self.versions.items() if version.state == "AVAILABLE")


class Repository:
    """The models of a folder.

    Args:
        root: a folder of models' folders, or one model's.
        runtime: `tfft.runtime.Runtime`.
        joined: join waiting requests.
        max_rows: as `Joiner`.
        max_waiting: as `Joiner`.
        threads: calls of models at a time, where requests are not joined.
        ran: as `Joiner`, with the model's name before.
    """

    def __init__(
        self,
        root: Path,
        runtime: Any,
        *,
        joined: bool = True,
        max_rows: int = 64,
        max_waiting: int = 1024,
        threads: int = 2,
        ran: Callable[[str, int], None] = lambda name, rows: None,
    ) -> None:
        self.root, self.runtime, self.ran = root, runtime, ran
        self.joined, self.max_rows, self.max_waiting, self.workers = joined, max_rows, max_waiting, threads
        self.models: dict[str, Model] = {}
        self.threads = ThreadPoolExecutor(max_workers=max(threads, 2), thread_name_prefix="model")
        self.loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="load")

    def find(self, name: str, number: int | None = None, label: str | None = None) -> Version:
        """The version that answers a request.

        Raises:
            RestError: 404, in the server's words.
        """
        model = self.models.get(name)
        if label is not None:
            number = model.labels.get(label) if model else None
            if number is None:
                raise RestError(404, f"Unrecognized servable version label: {label}")
        wanted = f"Latest({name})" if number is None else f"Specific({name}, {number})"
        found = model.available() if model else []
        if model is None or not found or (number is not None and number not in found):
            raise RestError(404, f"Servable not found for request: {wanted}")
        return model.versions[found[-1] if number is None else number]

    async def refresh(self) -> None:
        """Look at the folders; load what is new, retire what is not wanted any more."""
        found = await asyncio.get_running_loop().run_in_executor(self.loader, model_folders, self.root)
        for name, folder in found.items():
            await self._refresh(self.models.setdefault(name, Model(name, folder)))
        for name in set(self.models) - set(found):
            for version in self.models.pop(name).versions.values():
                version.retire()

    async def _refresh(self, model: Model) -> None:
        config = model.folder / CONFIG
        try:
            model.labels, model.wanted = _policy(config, self.runtime.messages)
        except (OSError, ValueError) as error:
            log.warning("%s: %s", config, error)
        wanted = model.wanted(versions(model.folder))
        for number in wanted:
            seen = _look(model.folder / str(number))
            before = model.versions.get(number)
            if before is None or (before.state == "END" and before.seen != seen):
                await self._load(model, number, seen)
        if set(wanted) & set(model.available()):
            for number in set(model.available()) - set(wanted):
                log.info("%s version %d: retired", model.name, number)
                model.versions[number].retire()

    async def _load(self, model: Model, number: int, seen: Any) -> None:
        version = model.versions[number] = Version(number, seen=seen)
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            servable = await loop.run_in_executor(self.loader, _warm, self.runtime, model.folder / str(number))
        except (RuntimeFailedError, OSError, ValueError) as error:
            version.state, version.error = "END", str(error).splitlines()[0][:300]
            log.warning("%s version %d does not load: %s", model.name, number, version.error)
            return
        version.servable, version.dispose = servable, self._dispose
        version.joiner = Joiner(
            servable.run,
            self.threads,
            max_rows=self.max_rows if self.joined else 1,
            max_waiting=self.max_waiting,
            workers=1 if self.joined else self.workers,
            ran=lambda rows: self.ran(model.name, rows),
        )
        version.state = "AVAILABLE"
        log.info("%s version %d: available after %.1f s", model.name, number, time.perf_counter() - start)

    def _dispose(self, servable: Servable) -> None:  # elsewhere: it takes a while, and requests are being answered
        self.loader.submit(_dispose, servable)

    def close(self) -> None:
        """Close what is loaded; nothing must be running."""
        for model in self.models.values():
            for version in model.versions.values():
                version.close()
        self.threads.shutdown()
        self.loader.shutdown()


def model_folders(root: Path) -> dict[str, Path]:
    """The models of a folder: name -> folder. The folder itself is one if it has numbered versions."""
    if versions(root):
        return {root.resolve().name: root}
    entries = sorted(root.iterdir()) if root.is_dir() else []
    return {e.name: e for e in entries if e.is_dir() and versions(e) and not set(e.name) & set("/:")}


def _warm(runtime: Any, folder: Path) -> Servable:
    servable = load(runtime, folder)
    path = folder / WARMUP
    if path.is_file():
        for texts, signature in warm_up_requests(path, runtime.messages):
            servable.run(texts, signature)
    return servable


def _look(folder: Path) -> Any:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _policy(config: Path, messages: Any) -> tuple[dict[str, int], Callable[[list[int]], list[int]]]:
    """Version labels, and which versions to serve, from the file TensorFlow Serving is started with."""
    if not config.is_file():
        return {}, lambda found: found[-1:]
    try:
        parsed = text_format.Parse(config.read_text("utf-8"), messages.ModelServerConfig())
    except text_format.ParseError as error:
        raise ValueError(f"no configuration of TensorFlow Serving: {error}") from None
    if not parsed.model_config_list.config:
        return {}, lambda found: found[-1:]
    settings = parsed.model_config_list.config[0]
    policy = settings.model_version_policy
    if policy.HasField("all"):
        return dict(settings.version_labels), lambda found: found
    if policy.HasField("specific"):
        numbers = set(policy.specific.versions)
        return dict(settings.version_labels), lambda found: [n for n in found if n in numbers]
    count = policy.latest.num_versions or 1
    return dict(settings.version_labels), lambda found: found[-count:]


def _dispose(servable: Servable) -> None:
    servable.close()
    memory.give_back()  # what the closed model held
