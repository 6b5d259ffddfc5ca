"""What the command line shows: tables, score cards, answers, log lines, and one line for an error."""

import contextlib
import errno
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tfft.errors import TfftError

SHOWN = 4  # numbers in a headline


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> None:
    """Print a table; columns in `right` are aligned so."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, header_style="bold")
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        shown.add_row(*row)
    console = Console()
    if not console.is_terminal:  # a file has no width to fold to
        console = Console(width=200)
    console.print(shown, markup=False, highlight=False)


def score_card(metrics: dict[str, Any]) -> None:
    """Print a run's metrics: the validation rows in a line, the test rows label by label."""
    for name, show in (("validation", headline), ("test", scores)):
        if name in metrics:
            show(f"{name} ({metrics['rows'][name]} rows)", metrics[name])
    print("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in metrics["seconds"].items()))


def headline(title: str, values: dict[str, Any]) -> None:
    """Print the metrics one looks at first."""
    numbers = [(name, value) for name, value in values.items() if isinstance(value, float)]
    print(f"{title}: " + ", ".join(f"{name} {value:.4f}" for name, value in numbers[:SHOWN]))


def scores(title: str, values: dict[str, Any]) -> None:
    """Print the headline, then what there is by label: precision, recall, F1."""
    headline(title, values)
    for signature in values.get("signatures", {}).values():
        print(f"  {signature}")
    if "per_class" in values:
        columns = list(next(iter(values["per_class"].values())))
        rows = [
            (name, *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
            for name, row in values["per_class"].items()
        ]
        table(("label", *columns), rows, right=columns)


def answer(texts: Mapping[str, str], given: dict[str, Any], as_json: bool = False) -> None:
    """Print one answer, the next best, and the beginning of the text that was asked last."""
    if as_json:
        print(json.dumps({**texts, **given}, ensure_ascii=False))
        return
    short = _short(list(texts.values())[-1])
    print(f"{answered(given)}  {short}")


def answered(given: Mapping[str, Any]) -> str:
    """One answer in a few words."""
    if "entities" in given:
        found = [f"{one['text']} [{one['label']} {one['score']:.2f}]" for one in given["entities"]]
        return ", ".join(found) or "nothing"
    if "fills" in given:
        return ", ".join(f"{one['text']} {one['score']:.2f}" for one in given["fills"]) or "no mask token"
    if "chosen" in given:
        shares = ", ".join(f"{name} {p:.2f}" for name, p in given["probabilities"].items() if name in given["chosen"])
        return shares or "none"
    if "probabilities" in given:
        best = sorted(given["probabilities"].items(), key=lambda item: -item[1])[1:3]
        others = ", ".join(f"{name} {p:.2f}" for name, p in best)
        return f"{given['label']}  {given['score']:.3f}  ({others})"
    if "answers" in given:
        return f"{given['text'] or 'no answer'}  {given['score']:.3f}  [{given['start']}:{given['end']}]"
    if "written" in given:
        return f"{' '.join(given['written'].split())}  {given['score']:.3f}"  # one line; --json has it as it is
    if "value" in given:
        return f"{given['value']:.4f}"
    return "; ".join(f"{name}: {answered(one)}" for name, one in given.items())  # several targets


def neighbours(text: str, rows: Sequence[Mapping[str, Any]], column: str, as_json: bool = False) -> None:
    """Print the rows nearest to a text, best first."""
    if as_json:
        for row in rows:
            print(json.dumps({"asked": text, **row}, ensure_ascii=False, default=str))
        return
    others = [name for name in (rows[0] if rows else {}) if name not in ("cosine", column)]
    shown = [(f"{row['cosine']:.3f}", _short(row[column]), *(_short(row[name], 20) for name in others)) for row in rows]
    table(("cosine", f"{column}: {_short(text)}", *others), shown, right=("cosine",))


def _short(value: Any, most: int = 80) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def findings(folder: Any, found: Sequence[Any]) -> None:
    """Print what a check of an export found, and what to do about each fault."""
    rows = [("FAULT" if one.cure else "ok", one.check, one.found) for one in found]
    table(("", "check", f"{folder}"), rows)
    for one in found:
        if one.cure:
            print(f"{one.check}: {one.cure}")


@contextlib.contextmanager
def log_to_stderr(quiet: bool) -> Iterator[None]:
    """Show tfft's log and progress on stderr; warnings only if quiet."""
    from tfft.progress import show_progress

    class Stderr(logging.StreamHandler[Any]):
        def emit(self, record: logging.LogRecord) -> None:
            self.stream = sys.stderr  # looked up each time: a progress bar may stand in front of it
            super().emit(record)

    handler = Stderr()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("tfft")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        with contextlib.nullcontext() if quiet else show_progress():
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextlib.contextmanager
def ctrl_c_is_heard() -> Iterator[None]:
    """Remember Ctrl-C besides raising KeyboardInterrupt, which is lost where it hits a finalizer."""
    from tfft.progress import interrupted

    def remember(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        interrupted.clear()
        signal.signal(signal.SIGINT, before)


def load_tensorflow(debug: bool) -> None:
    """Import TensorFlow without its start-up messages, and without its warning that several models were traced."""
    with native_messages_off(debug):
        import tensorflow as tf
    if not debug:
        tf.get_logger().setLevel(logging.ERROR)


@contextlib.contextmanager
def native_messages_off(debug: bool) -> Iterator[None]:
    """Keep the start-up messages of TensorFlow's C++ side off the screen; `--debug` shows them."""
    if debug:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # they are written to the file descriptor before any setting is read
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def one_line(error: BaseException) -> str:
    """An error as the one line a user is shown."""
    text = " ".join(str(error).split()) or type(error).__name__
    # the libraries that write weights put the system's error into words of their own
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text or "StorageFull" in text:
        return "no space left on the disk; nothing was kept"
    if isinstance(error, TfftError):
        return text
    return f"{type(error).__name__}: {text[:400]} (--debug shows where)"


def faults(path: str, found: Sequence[Any]) -> None:
    """What the doctor found: where, what happens, and what to write instead."""
    for one in found:
        where = f"{path}:{one.line}" if one.cell is None else f"{path}, cell {one.cell}, line {one.line}"
        print(f"{where}: {one.rule}\n    {one.says}\n    instead: {one.instead}")
    print(f"{len(found)} faults" if found else f"{path}: nothing to say")
