"""Progress of long work, shown only where somebody asked for it.

The library calls `track` around its long loops. Nothing is shown until a display is switched on with
`show_progress()`; the command line does so, a notebook may.
"""

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# A display makes, for one piece of work, a function "so many of it are done": (description, total) -> advance.
Advance = Callable[[int], None]
Display = Callable[[str, int], contextlib.AbstractContextManager[Advance]]

# Set by whoever handles Ctrl-C. A KeyboardInterrupt that Python raises inside a finalizer or a call-back of TensorFlow
# is lost; long work looks here after every step.
interrupted = threading.Event()

_display: contextvars.ContextVar[Display | None] = contextvars.ContextVar("tfft_progress", default=None)


@contextlib.contextmanager
def work(description: str, total: int) -> Iterator[Advance]:
    """Announce work of `total` steps; yields the function that says how many more steps are done."""
    display = _display.get() or _no_display
    with display(description, total) as advance:

        def checked(steps: int) -> None:
            if interrupted.is_set():
                raise KeyboardInterrupt
            advance(steps)

        yield checked


@contextlib.contextmanager
def _no_display(description: str, total: int) -> Iterator[Advance]:
    yield lambda steps: None


def track(items: Iterable[T], description: str, total: int, step: Callable[[T], int] = lambda item: 1) -> Iterator[T]:
    """Yield the items and advance the display after each.

    Examples:
        >>> from tfft.progress import track
        >>> list(track([1, 2], "counting", 2))
        [1, 2]
    """
    with work(description, total) as advance:
        for item in items:
            yield item
            advance(step(item))


@contextlib.contextmanager
def show_progress() -> Iterator[None]:
    """Show tfft's progress bars on stderr for the `with` block.

    Examples:
        >>> import tfft
        >>> with tfft.show_progress():
        ...     pass
    """
    token = _display.set(_rich_display)
    try:
        yield
    finally:
        _display.reset(token)


@contextlib.contextmanager
def _rich_display(description: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:  # a log file gets one line a piece of work, not a thousand redrawn bars
        started = time.monotonic()
        yield lambda steps: None
        seconds = time.monotonic() - started
        if seconds > 2:
            console.print(f"{description}: {total} in {seconds:.0f} s", highlight=False)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(description, total=total)
        yield lambda steps: bars.advance(task, steps)
