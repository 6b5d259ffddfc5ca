"""Requests that wait go together; each gets its own rows, its own error, and nobody else's."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tfft.joining import FullError, Joiner


def texts(*words: str) -> dict[str, np.ndarray]:
    return {"text": np.array([word.encode() for word in words], object)}


class Model:
    """Answers each text with itself, once `open` is set; "bad" fails the whole call."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.calls: list[list[bytes]] = []

    def __call__(self, inputs: Any, signature: str) -> dict[str, np.ndarray]:
        self.open.wait(10)
        self.calls.append(list(inputs["text"]))
        if b"bad" in inputs["text"]:
            raise ValueError("bad")
        return {"answer": inputs["text"]}


def asked(model: Model, requests: list[dict[str, np.ndarray]], **settings: Any) -> list[Any]:
    """What each request got; the first is running while the others come."""

    async def main() -> list[Any]:
        with ThreadPoolExecutor(4) as threads:
            joiner = Joiner(model, threads, **{"max_rows": 8, "max_waiting": 100, **settings})
            model.open.clear()
            tasks = []
            for request in requests:
                tasks.append(asyncio.create_task(joiner.ask(request, "serving_default")))
                await asyncio.sleep(0.02)
            model.open.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    return [list(one["answer"]) if isinstance(one, dict) else one for one in asyncio.run(main())]


def test_those_that_wait_go_together_and_get_their_own_rows() -> None:
    model = Model()
    assert asked(model, [texts("a"), texts("b", "c"), texts("d")]) == [[b"a"], [b"b", b"c"], [b"d"]]
    assert model.calls == [[b"a"], [b"b", b"c", b"d"]]


def test_one_that_fails_fails_alone() -> None:
    model = Model()
    found = asked(model, [texts("a"), texts("b"), texts("bad"), texts("c")])
    assert [found[0], found[1], found[3]] == [[b"a"], [b"b"], [b"c"]]
    assert isinstance(found[2], ValueError)
    assert model.calls[1:] == [[b"b", b"bad", b"c"], [b"b"], [b"bad"], [b"c"]]


def test_no_more_rows_than_may_be_joined() -> None:
    model = Model()
    asked(model, [texts("a"), texts("b", "c"), texts("d", "e"), texts("f")], max_rows=3)
    assert model.calls == [[b"a"], [b"b", b"c", b"f"], [b"d", b"e"]]  # f fits where d and e do not


def test_a_request_larger_than_that_runs_alone() -> None:
    model = Model()
    asked(model, [texts("a"), texts("b", "c", "d"), texts("e")], max_rows=2)
    assert model.calls == [[b"a"], [b"b", b"c", b"d"], [b"e"]]


def test_arrays_of_another_shape_do_not_go_together() -> None:
    async def main() -> list[Any]:
        calls: list[Any] = []
        with ThreadPoolExecutor(2) as threads:

            def run(inputs: Any, signature: str) -> dict[str, np.ndarray]:
                calls.append((signature, inputs["x"].shape))
                return {"y": inputs["x"]}

            joiner = Joiner(run, threads, max_rows=8, max_waiting=100)
            shapes = [("a", (1, 2)), ("a", (1, 2)), ("a", (1, 3)), ("b", (1, 2))]
            await asyncio.gather(*(joiner.ask({"x": np.zeros(shape)}, name) for name, shape in shapes))
        return calls

    assert asyncio.run(main()) == [("a", (2, 2)), ("a", (1, 3)), ("b", (1, 2))]


def test_too_many_rows_are_refused_at_once() -> None:
    found = asked(Model(), [texts("a"), texts("b", "c"), texts("d", "e"), texts("f")], max_waiting=3)
    assert found[:2] == [[b"a"], [b"b", b"c"]]
    assert isinstance(found[2], FullError)
    assert found[3] == [b"f"]


def test_one_that_gave_up_is_not_run() -> None:
    model = Model()

    async def main() -> None:
        with ThreadPoolExecutor(2) as threads:
            joiner = Joiner(model, threads, max_rows=8, max_waiting=100)
            model.open.clear()
            first = asyncio.create_task(joiner.ask(texts("a"), "s"))
            await asyncio.sleep(0.02)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(joiner.ask(texts("b"), "s"), 0.02)
            assert joiner.waiting == 0
            model.open.set()
            await first

    asyncio.run(main())
    assert model.calls == [[b"a"]]


@pytest.mark.parametrize("workers", [1, 2])
def test_who_asks_again_at_once_is_answered(workers: int) -> None:
    async def main() -> list[Any]:
        with ThreadPoolExecutor(2) as threads:
            joiner = Joiner(Model(), threads, max_rows=8, max_waiting=100, workers=workers)
            async with asyncio.timeout(5):  # not wait_for, which lets others run in between
                return [await joiner.ask(texts(word), "serving_default") for word in "abcde"]

    assert [list(one["answer"]) for one in asyncio.run(main())] == [[b"a"], [b"b"], [b"c"], [b"d"], [b"e"]]
