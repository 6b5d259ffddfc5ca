"""Waiting requests joined into one run of the model: while one runs, those that come wait and go together.

There is no time to tune: a request that finds the model idle runs at once. Everything but the run itself happens in the
event loop, so nothing needs a lock.
"""

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays, str], dict[str, np.ndarray]]  # (inputs, signature) -> outputs


class FullError(Exception):
    """More rows would wait than may."""


@dataclasses.dataclass(eq=False)
class _Waiting:
    inputs: Arrays
    signature: str
    answer: "asyncio.Future[dict[str, np.ndarray]]"

    @property
    def rows(self) -> int:
        return min((len(value) for value in self.inputs.values()), default=0)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What may go together: the same signature, and arrays alike but for their rows."""
        return self.signature, *((n, v.dtype, v.shape[1:]) for n, v in sorted(self.inputs.items()))


class Joiner:
    """A queue before one model.

    Args:
        run: answers inputs by a signature; called in a thread, by at most `workers` at a time.
        threads: where it is called.
        max_rows: rows of requests that are joined, at most; a larger request runs alone.
        max_waiting: rows that wait, at most.
        workers: calls at a time.
        ran: is told the rows of each call.
    """

    def __init__(
        self,
        run: Run,
        threads: Executor,
        *,
        max_rows: int,
        max_waiting: int,
        workers: int = 1,
        ran: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self.run, self.threads, self.max_rows, self.max_waiting = run, threads, max_rows, max_waiting
        self.workers, self.ran = workers, ran
        self.queue: collections.deque[_Waiting] = collections.deque()
        self.working = 0  # not len(tasks): a task that is done leaves them later, when others may have asked already
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return sum(item.rows for item in self.queue)

    async def ask(self, inputs: Arrays, signature: str) -> dict[str, np.ndarray]:
        """The model's outputs for some rows.

        Raises:
            FullError: too many rows wait.
            Exception: what `run` raised for these rows alone.
        """
        item = _Waiting(inputs, signature, asyncio.get_running_loop().create_future())
        if self.queue and self.waiting + item.rows > self.max_waiting:
            raise FullError(f"{self.waiting} rows wait already, {self.max_waiting} may")
        self.queue.append(item)
        if self.working < self.workers:
            self.working += 1
            task = asyncio.create_task(self._work())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        try:
            return await item.answer
        finally:
            if item in self.queue:  # given up before its turn
                self.queue.remove(item)

    async def _work(self) -> None:
        try:
            while self.queue:
                items = self._next()
                self.ran(sum(item.rows for item in items))
                answers = await asyncio.get_running_loop().run_in_executor(self.threads, self._answers, items)
                for item, answer in zip(items, answers, strict=True):
                    if item.answer.done():  # given up meanwhile
                        continue
                    if isinstance(answer, Exception):
                        item.answer.set_exception(answer)
                    else:
                        item.answer.set_result(answer)
        finally:
            self.working -= 1

    def _next(self) -> list[_Waiting]:
        """The first in the queue, and those behind it that fit."""
        items = [self.queue.popleft()]
        rows = items[0].rows
        for item in list(self.queue):
            if item.kind == items[0].kind and rows + item.rows <= self.max_rows:
                self.queue.remove(item)
                items.append(item)
                rows += item.rows
        return items

    def _answers(self, items: list[_Waiting]) -> list[dict[str, np.ndarray] | Exception]:
        if len(items) > 1:
            joined = {n: np.concatenate([item.inputs[n] for item in items]) for n in items[0].inputs}
            found = _tried(self.run, joined, items[0].signature)
            if not isinstance(found, Exception):
                ends = np.cumsum([item.rows for item in items])
                return [
                    {n: v[end - item.rows : end] for n, v in found.items()}
                    for item, end in zip(items, ends, strict=True)
                ]
        return [_tried(self.run, item.inputs, item.signature) for item in items]  # one must not fail the others


def _tried(run: Run, inputs: Arrays, signature: str) -> dict[str, np.ndarray] | Exception:
    try:
        return run(inputs, signature)
    except Exception as error:  # noqa: BLE001 - handed to the one who asked
        return error
