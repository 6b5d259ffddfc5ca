"""Rows in, clean splits out: which columns, which rows are unusable, what is held out, what occurs twice."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tfft.errors import DataError, InvalidValueError
from tfft.reading import SPLITS, Source, read, read_splits

if TYPE_CHECKING:
    from tfft.tasks.task import Task

log = logging.getLogger(__name__)

Splits = dict[str, pd.DataFrame]


def load_data(
    data: Source,
    validation: Source | None = None,
    test: Source | None = None,
    *,
    task: "Task | str" = "text-classification",
    columns: Mapping[str, str | None] | None = None,
    encoding: str = "utf-8",
    bad_rows: str = "stop",
    validation_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
) -> Splits:
    """Read the training rows and the rows to judge with; hold out what is missing.

    Args:
        data: training rows, any source `tfft.reading.read` takes, a folder of splits, or `tfds:name[/config]`.
        validation: rows for early stopping and choices; held out of `data` when None.
        test: rows for the score card; held out of `data` when None.
        task: name or `Task`; says which columns a row must have.
        columns: the task's column -> the column of the source, where they differ: `{"text": "review"}`.
        encoding: of text files.
        bad_rows: "stop" raises on the first kind of unusable row, "drop" leaves them out and counts them in the log.
        validation_share: share of the rows held out when `validation` is None; 0 for none, so all are trained on.
        test_share: likewise for `test`.
        seed: of the shuffle before holding out.

    Returns:
        `{"train": rows, "validation": rows, "test": rows}`, each a DataFrame with the task's columns only; without
        those that are neither given nor held out.

    Raises:
        DataError, NotFoundError, InvalidValueError: one line that says what is wrong and what to do.

    Examples:
        >>> import tfft
        >>> rows = [{"text": f"{word} {n}", "label": word} for word in ("good", "bad") for n in range(10)]
        >>> {name: len(rows) for name, rows in tfft.load_data(rows).items()}
        {'train': 16, 'validation': 2, 'test': 2}
    """
    from tfft.tasks import get_task

    task = get_task(task) if isinstance(task, str) else task
    if bad_rows not in ("stop", "drop"):
        raise InvalidValueError(f"bad_rows must be 'stop' or 'drop'. Received: {bad_rows!r}")
    found = read_splits(data, encoding)
    for name, source in (("validation", validation), ("test", test)):
        if source is not None:
            found[name] = read(source, encoding)
    chosen = find_columns(found["train"], task, columns or {})
    splits: Splits = {}
    for name in SPLITS:
        if name in found:
            rows = _select(found[name], chosen, name)
            if name != "train" and _has_no_answers(rows, task):
                log.warning("the %s rows have no %s at all (as public test sets often do): left out", name, task.target)
                continue
            splits[name] = with_answers(_usable(rows, task, name, bad_rows), task)
    shares = {"validation": validation_share, "test": test_share}
    missing = {name: share for name, share in shares.items() if name not in splits and share != 0}
    if missing:
        by = task.target if task.stratify else None
        splits |= hold_out(splits["train"], missing, inputs=task.apart or task.inputs, by=by, seed=seed)
    return {name: splits[name] for name in SPLITS if name in splits}


def load_rows(
    source: Source,
    *,
    task: "Task",
    columns: Mapping[str, str | None] | None = None,
    encoding: str = "utf-8",
    bad_rows: str = "stop",
) -> pd.DataFrame:
    """Read rows with answers, as they are: nothing is held out. Arguments as in `load_data`."""
    rows = read(source, encoding)
    return _usable(_select(rows, find_columns(rows, task, columns or {}), "given"), task, "given", bad_rows)


def _has_no_answers(rows: pd.DataFrame, task: "Task") -> bool:
    checked = task.check(rows)[0]
    return task.target not in checked or bool(checked[task.target].isna().all())


def with_answers(rows: pd.DataFrame, task: "Task") -> pd.DataFrame:
    """The rows, if they have the task's answers at all."""
    if task.target not in rows:
        answers = ", ".join(name for name in task.columns if name not in task.inputs)
        raise DataError(
            f"found no {task.target}: {task.name} learns from {answers}. Name them with --columns NAME=COLUMN"
        )
    return rows


def find_columns(frame: pd.DataFrame, task: "Task", given: Mapping[str, str | None]) -> dict[str, str]:
    """The source's column for each column the task wants: as given, else the first known name that is there."""
    unknown = [name for name in given if name not in task.columns]
    if unknown:
        raise InvalidValueError(
            f"{task.name} has no column {unknown[0]!r}. Expected one of: {', '.join(task.columns)} (as --columns "
            f"{next(iter(task.columns))}=NAME)"
        )
    have = [str(c) for c in frame.columns]
    found: dict[str, str] = {}
    for column, aliases in task.columns.items():
        name = given.get(column)
        if name is not None and name not in have:
            raise DataError(f"no column {name!r}. The columns are: {', '.join(have)}")
        if name is None:
            lower = {h.lower(): h for h in reversed(have)}
            taken = {*found.values(), *given.values()}
            name = next(
                (lower[a] for a in map(str.lower, (column, *aliases)) if a in lower and lower[a] not in taken), None
            )
        if name is None and column not in task.optional:
            raise DataError(
                f"found no {column} column; the columns are: {', '.join(have)}. "
                f"Name it with --columns {column}=NAME (is the first line of the file a header?)"
            )
        if name is not None:
            found[column] = name
    log.info("columns: %s", ", ".join(f"{column} = {name!r}" for column, name in found.items()))
    return found


def _select(frame: pd.DataFrame, columns: Mapping[str, str], split: str) -> pd.DataFrame:
    frame = frame.set_axis([str(c) for c in frame.columns], axis=1)
    missing = [name for name in columns.values() if name not in frame.columns]
    if missing:
        raise DataError(
            f"the {split} rows have no column {missing[0]!r}. The columns are: {', '.join(map(str, frame.columns))}"
        )
    return pd.DataFrame({column: frame[name].astype(object) for column, name in columns.items()})


def _usable(rows: pd.DataFrame, task: "Task", split: str, bad_rows: str) -> pd.DataFrame:
    rows, faults = task.check(rows)
    return rows[usable(faults, len(rows), split, bad_rows)].reset_index(drop=True)


def usable(faults: Mapping[str, np.ndarray], rows: int, split: str, bad_rows: str) -> np.ndarray:
    """Which rows have no fault, (rows,) bool; the others are counted and named in the log.

    Args:
        faults: what is wrong -> the rows it is wrong in, (rows,) bool.
        rows: how many there are.
        split: what they are called.
        bad_rows: "stop" or "drop".

    Raises:
        DataError: with "stop" any fault; with "drop" no row is left.
    """
    bad = np.zeros(rows, bool)
    for fault, where in faults.items():
        if not where.any():
            continue
        message = f"{split}: {where.sum()} of {rows} rows {fault} (row {_first(where)})"
        if bad_rows == "stop":
            raise DataError(f"{message}. Mend them, or leave them out with --bad-rows drop")
        log.warning("%s: left out", message)
        bad |= where
    if bad.all():
        raise DataError(f"{split}: no usable row is left")
    return ~bad


def _first(where: np.ndarray, most: int = 3) -> str:
    positions = np.flatnonzero(where)
    return ", ".join(str(p + 1) for p in positions[:most]) + (", ..." if len(positions) > most else "")


def hold_out(
    rows: pd.DataFrame, shares: Mapping[str, float], *, inputs: Sequence[str], by: str | None, seed: int
) -> Splits:
    """Split rows off at random: stratified by a column, equal inputs always in one split.

    Args:
        rows: the rows to split.
        shares: split name -> share of the rows, each in (0, 1) and below 1 in sum.
        inputs: columns that make two rows equal.
        by: column whose distribution every split keeps; None for none.
        seed: of the shuffle.

    Returns:
        `{"train": rows, **{name: rows}}`, each in the order of the source.
    """
    if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        raise InvalidValueError(f"shares must lie between 0 and 1 and leave rows to train on. Received: {dict(shares)}")
    keys = _keys(rows, inputs)
    unique = ~keys.duplicated().to_numpy()
    classes = rows[by].to_numpy() if by else np.zeros(len(rows), int)
    generator = np.random.default_rng(seed)
    split_of: dict[Any, str] = {}
    for label in sorted(set(classes), key=str):
        members = np.flatnonzero(unique & (classes == label))
        if len(members) <= len(shares):
            what, remedy = (f"{by} {label!r}", "remove the class, ") if by else ("the data", "")
            raise DataError(
                f"{what} has {len(members)} different row(s); holding out {' and '.join(shares)} "
                f"needs at least {len(shares) + 1}. Add rows, {remedy}or give --validation and --test files"
            )
        members, total = generator.permutation(members), len(members)
        for others, (name, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
            count = min(max(1, round(share * total)), len(members) - others)  # the splits still to come get a row each
            taken, members = members[:count], members[count:]
            split_of.update((keys[i], name) for i in taken)
    names = np.array([split_of.get(key, "train") for key in keys])
    log.info("held out with seed %d: %s", seed, ", ".join(f"{n} {(names == n).sum()} rows" for n in shares))
    return {name: rows[names == name].reset_index(drop=True) for name in ("train", *shares)}


def duplicates(splits: Splits, inputs: Sequence[str], target: str) -> dict[str, int]:
    """Count exact duplicates: inside each split, across splits, and equal inputs with different targets.

    Returns:
        `{"train": n, ..., "train/test": n, ..., "conflicting": n}`; zero counts are left out. A count says how many
        rows of the (last named) split have an equal row before them.
    """
    keyed = {name: _keys(rows, inputs) for name, rows in splits.items()}
    counts = {name: int(keys.duplicated().sum()) for name, keys in keyed.items()}
    names = list(splits)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            counts[f"{first}/{second}"] = int(keyed[second].isin(set(keyed[first])).sum())
    together = pd.DataFrame(
        {"key": pd.concat(keyed.values()), "target": pd.concat([r[target] for r in splits.values()])}
    )
    counts["conflicting"] = int((together.astype(str).groupby("key")["target"].nunique() > 1).sum())
    return {name: count for name, count in counts.items() if count}


def _keys(rows: pd.DataFrame, inputs: Sequence[str]) -> pd.Series:
    return rows[inputs[0]] if len(inputs) == 1 else rows[list(inputs)].agg("\x1f".join, axis=1)
