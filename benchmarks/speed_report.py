"""The results of `speed.py` as Markdown: the protocol, and for each case a table of values and one of ratios."""

import datetime
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring import Result

Rounds = dict[int, Result]  # round -> result
Number = Callable[[Result], Any]  # what is read from a result: a float, or None where it has no such value

OURS = ("tensorflow", "tensorflow-text", "keras", "keras-hub", "numpy")
PEERS = ("torch", "transformers", "accelerate", "sentence-transformers", "scikit-learn", "onnxruntime", "numpy")
VERSIONS = (
    "import sys; from importlib.metadata import version; print(*(f'{n} {version(n)}' for n in sys.argv[1:]), sep=', ')"
)
BUSY = 0.05  # a share of the machine that other processes took, above which a measurement is named
BASES = ("tfft", "tfft-float32")  # what ratios are to, where a case has it

TITLES = {
    "a": "a. Everything frozen, 10 epochs",
    "b": "b. The blocks above the lowest four, 3 epochs",
    "c": "c. All blocks, 3 epochs",
    "d": "d. A second run on a warm cache",
    "e": "e. Prediction",
    "f": "f. The floor: matrix products of this machine",
    "g": "g. Growth",
}
NOTES = {
    "d": "Both runs are whole processes of `tfft train --freeze all --cache always`.",
    "e": "Rows a second over the test rows in batches of 64, in order of their length in characters and in order of "
    "arrival; latency of 200 test texts one at a time, all after a warm-up. Heads are untrained: only speed counts.",
    "f": "Operations on real tokens of the training rows (projections and attention products of all blocks; padding, "
    "norms, softmax and pooling are no work) for the bare forward pass; shares are of the float32 rate of the same "
    "round, so a bfloat16 row may stand above 1.",
    "g": "`tfft train --freeze 4 --epochs 1 --cache always`: the first rows of the data set, repeated, each with a "
    "number of its own at its end; validation and test rows stay the same few.",
}


def markdown(
    records: Sequence[Result], what: Mapping[str, Mapping[str, str]], settings: Result, peers: Path | None, command: str
) -> str:
    """The whole report.

    Args:
        records: of `speed.py`.
        what: case -> contender -> what it runs.
        settings: model, data set and rows of the cases a to f.
        peers: Python of the peers' environment.
        command: what was typed.
    """
    found = latest(records)
    parts = [f"# Speed\n\n{_protocol(found, settings, peers, command)}"]
    tables = {"a": _training, "b": _training, "c": _training, "d": _warm, "e": _prediction, "f": _floor, "g": _growth}
    for case, contenders in what.items():
        measured = {name: _rounds(found, case, name) for name in contenders}
        known = {name: rounds for name, rounds in measured.items() if rounds}
        if known:
            text = tables[case](known, contenders)
            note = f"{NOTES[case]}\n\n" if case in NOTES else ""
            parts.append(f"## {TITLES[case]}\n\n{note}{text}")
    failures = [r for r in found if "failed" in r]
    if failures:
        parts.append(
            "## Failed\n\n"
            + "\n\n".join(
                f"{r['case']} {r['contender']}, round {r['round']}:\n\n```\n{r['failed']}\n```" for r in failures
            )
        )
    return "\n\n".join(parts) + "\n"


def latest(records: Iterable[Result]) -> list[Result]:
    """The last record of each case, contender and round: what failed once may have been measured later."""
    return list({(r["case"], r["contender"], r["round"]): r for r in records}.values())


def disturbed(record: Result) -> bool:
    """Whether other processes took more of the machine than a measurement bears."""
    return (record.get("result", {}).get("others") or 0.0) > BUSY


def in_a_line(result: Result) -> str:
    """A result as progress shows it."""
    shown = ("train", "total", "wall", "sorted_rate", "median_ms", "accuracy")
    values = [f"{name} {result[name]:.3f}" for name in shown if name in result]
    others = result.get("others") or 0.0
    busy = [f"OTHER PROCESSES TOOK {others:.0%} OF THE MACHINE"] if others > BUSY else []
    return ", ".join([*values, f"{_megabytes(result):.0f} MB", *busy])


def _rounds(records: Sequence[Result], case: str, name: str) -> Rounds:
    mine = [r for r in records if (r["case"], r["contender"]) == (case, name) and "result" in r]
    return {r["round"]: r["result"] for r in sorted(mine, key=lambda r: r["round"])}


def _protocol(records: Sequence[Result], settings: Result, peers: Path | None, command: str) -> str:
    rows = ", ".join(f"{name} {count:,}" for name, count in settings["rows"].items())
    rounds = sorted({r["round"] for r in records if "result" in r})
    days = sorted({r["when"][:10] for r in records}) or [datetime.date.today().isoformat()]
    lines = [
        f"Machine: {_processor()}, {os.cpu_count()} cores, {_memory()}, {platform.system()} {platform.release()}; "
        "accelerators are hidden from every process.",
        f"bfloat16 in hardware: {bfloat16() or 'no'}.",
        f"Date: {' to '.join(dict.fromkeys((days[0], days[-1])))}.",
        f"tfft: {_commit()}; Python {platform.python_version()}, {_versions(Path(sys.executable), OURS)}.",
        f"Peers: {_versions(peers, PEERS) if peers else 'not measured'}.",
        f"Rows of {settings['dataset']}: {rows}. Backbone: {settings['model']}.",
        f"Rounds: {max(rounds, default=0)}. In each, the contenders of a case run one after the other, each in a "
        "process of its own, in even rounds in the reverse order. The seed is the round's number less 1.",
        "Seconds: train is from raw texts to a trained model (tokenising is in it), total adds the scoring of the test "
        "rows, setup is the rest of the process's wall time: imports, reading rows, loading the model, writing. tfft "
        "also has the validation rows within train (every epoch) and total; the peers do not look at them.",
        "Memory: the largest resident set of one process (`ru_maxrss`).",
        "Cells: median over the rounds, with the range in brackets. A ratio is taken within a round, contender by "
        "base; above 1 the base is faster or smaller.",
        f"Disturbance: {_disturbance(records)}.",
        f"Command: `{command}`.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _disturbance(records: Sequence[Result]) -> str:
    shares = {f"{r['case']} {r['contender']} {r['round']}": r["result"].get("others") for r in records if "result" in r}
    known = {name: share for name, share in shares.items() if share is not None}
    if not known:
        return "unknown, this system does not say what other processes took"
    most = f"other processes took at most {max(known.values()):.1%} of the machine while one was measured"
    busy = [f"{name} ({share:.0%})" for name, share in known.items() if share > BUSY]
    return most + (f". DISTURBED, measure again: {', '.join(busy)}" if busy else "")


def _training(known: Mapping[str, Rounds], what: Mapping[str, str]) -> str:
    columns: dict[str, tuple[Number, str]] = {
        "setup s": (_value("setup"), ".1f"),
        "train s": (_value("train"), ".1f"),
        "total s": (_value("total"), ".1f"),
        "wall s": (_value("wall"), ".1f"),
        "rows/s in train": (_rate, ",.0f"),
        "peak MB": (_megabytes, ",.0f"),
        "test accuracy": (_value("accuracy"), ".4f"),
    }
    ratios = {name: _value(name) for name in ("train", "total", "wall")} | {"peak": _megabytes}
    beside = {"test accuracy": (_value("accuracy"), ".4f")}
    return "\n\n".join([_table(known, columns, what), *_ratios(known, ratios, beside)])


def _warm(known: Mapping[str, Rounds], what: Mapping[str, str]) -> str:
    def second(name: str) -> Number:
        return lambda result: result["seconds"].get(name)

    def other(result: Result) -> float:
        return result["wall"] - sum(result["seconds"].values())

    parts = ("imports", "load", "prepare", "train", "evaluate", "write")
    columns: dict[str, tuple[Number, str]] = {
        "wall s": (_value("wall"), ".1f"),
        "imports and loading s": (_before, ".1f"),
        "rest s": (lambda result: result["wall"] - _before(result), ".1f"),
        **{f"{name} s": (second(name), ".2f") for name in parts},
        "not timed by tfft s": (other, ".1f"),
        "peak MB": (_megabytes, ",.0f"),
        "test accuracy": (_value("accuracy"), ".4f"),
    }
    ratios: dict[str, Number] = {
        "wall": _value("wall"),
        "rest": lambda result: result["wall"] - _before(result),
        "train": _value("train"),
    }
    return "\n\n".join([_table(known, columns, what), *_ratios(known, ratios, {}, ("second run",))])


def _before(result: Result) -> float:
    """Seconds of imports and loading; without a clock for the imports, all that tfft did not time counts as them."""
    seconds = result["seconds"]
    imports = seconds.get("imports", result["wall"] - sum(seconds.values()))
    return imports + seconds["load"]


def _prediction(known: Mapping[str, Rounds], what: Mapping[str, str]) -> str:
    columns: dict[str, tuple[Number, str]] = {
        "rows/s by length": (_value("sorted_rate"), ",.0f"),
        "rows/s in arrival order": (_value("arrival_rate"), ",.0f"),
        "one text, median ms": (_value("median_ms"), ".2f"),
        "one text, p90 ms": (_value("p90_ms"), ".2f"),
        "setup s": (_value("setup"), ".1f"),
        "peak MB": (_megabytes, ",.0f"),
    }
    ratios: dict[str, Number] = {
        "time by length": lambda result: 1 / result["sorted_rate"],
        "time in arrival order": lambda result: 1 / result["arrival_rate"],
        "one text, median": _value("median_ms"),
        "one text, p90": _value("p90_ms"),
        "setup": _value("setup"),
        "peak": _megabytes,
    }
    return "\n\n".join([_table(known, columns, what), *_ratios(known, ratios, {})])


def _floor(known: Mapping[str, Rounds], what: Mapping[str, str]) -> str:
    first = next(iter(next(iter(known.values())).values()))
    shape = "×".join(map(str, first["shape"]))
    square = "×".join(3 * [str(first["square"])])
    plain = known.get("float32", {})
    header = ["precision", f"{shape}, GFLOP/s", f"{square}, GFLOP/s", "forward rows/s", "forward real tokens/s"]
    header += ["forward GFLOP/s", f"share of float32 {shape}", f"share of float32 {square}"]
    rows = []
    for name, rounds in known.items():
        values: list[tuple[list[float], str]] = [
            ([r["model_rate"] / 1e9 for r in rounds.values()], ",.0f"),
            ([r["square_rate"] / 1e9 for r in rounds.values()], ",.0f"),
            ([r["rows"] / r["forward"] for r in rounds.values()], ",.0f"),
            ([r["tokens"] / r["forward"] for r in rounds.values()], ",.0f"),
            ([r["forward_rate"] / 1e9 for r in rounds.values()], ",.0f"),
            ([r["forward_rate"] / plain[n]["model_rate"] for n, r in rounds.items() if n in plain], ".2f"),
            ([r["forward_rate"] / plain[n]["square_rate"] for n, r in rounds.items() if n in plain], ".2f"),
        ]
        rows.append([name, *(_spread(numbers, form) for numbers, form in values)])
    return _lines(header, rows)


def _growth(known: Mapping[str, Rounds], what: Mapping[str, str]) -> str:
    header = ["data", "rows", "tokens", "train s", "µs a token", "time a token ÷ 1x", "peak MB", "peak ÷ 1x"]
    rows = []
    for rounds in known.values():
        one = next(iter(rounds.values()))
        base = known.get(f"{one['dataset']} 1x", {})
        pairs = [(r, base[n]) for n, r in rounds.items() if n in base]
        values: list[tuple[list[float], str]] = [
            ([r["train"] for r in rounds.values()], ".1f"),
            ([1e6 * r["train"] / r["tokens"] for r in rounds.values()], ".1f"),
            ([(r["train"] / r["tokens"]) / (b["train"] / b["tokens"]) for r, b in pairs], ".2f"),
            ([_megabytes(r) for r in rounds.values()], ",.0f"),
            ([r["memory"] / b["memory"] for r, b in pairs], ".2f"),
        ]
        start = [f"{one['dataset']} {one['factor']}x", f"{one['rows']:,}", f"{one['tokens']:,}"]
        rows.append([*start, *(_spread(numbers, form) for numbers, form in values)])
    return _lines(header, rows)


def _value(name: str) -> Number:
    return lambda result: result.get(name)


def _rate(result: Result) -> float | None:
    return result["rows"] * result["epochs"] / result["train"] if "epochs" in result else None


def _megabytes(result: Result) -> float:
    return result["memory"] / 1e6


def _table(known: Mapping[str, Rounds], columns: Mapping[str, tuple[Number, str]], what: Mapping[str, str]) -> str:
    rows = [
        [name, what[name], str(len(rounds)), *(_cell(rounds, number, form) for number, form in columns.values())]
        for name, rounds in known.items()
    ]
    return _lines(["contender", "what is run", "rounds", *columns], rows)


def _ratios(
    known: Mapping[str, Rounds],
    ratios: Mapping[str, Number],
    beside: Mapping[str, tuple[Number, str]],
    bases: Sequence[str] = BASES,
) -> list[str]:
    tables = []
    for base in [name for name in bases if name in known]:
        rows = []
        for name, rounds in known.items():
            if name == base:
                continue
            pairs = [(result, known[base][n]) for n, result in rounds.items() if n in known[base]]
            quotients = [
                _spread([number(result) / number(other) for result, other in pairs], ".2f")
                for number in ratios.values()
            ]
            rows.append([name, *quotients, *(_cell(rounds, number, form) for number, form in beside.values())])
        if rows:
            tables.append(_lines([f"÷ {base}", *ratios, *beside], rows))
    return tables


def _cell(rounds: Rounds, number: Number, form: str) -> str:
    return _spread([v for v in map(number, rounds.values()) if v is not None], form)


def _spread(values: Sequence[float], form: str) -> str:
    """The median, and the range where it shows: "5.1 (4.9 to 5.3)"."""
    if not values:
        return "–"
    middle, low, high = (format(v, form) for v in (statistics.median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _processor() -> str:
    name = _line_of("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    family, model = _line_of("/proc/cpuinfo", "cpu family"), _line_of("/proc/cpuinfo", "model")
    return name + (f" (family {family}, model {model})" if family and model else "")


def _memory() -> str:
    kilobytes = _line_of("/proc/meminfo", "MemTotal").split()
    return f"{int(kilobytes[0]) / 1024**2:.0f} GiB of memory" if kilobytes else "memory unknown"


def bfloat16() -> str:
    """The instructions with which this CPU multiplies bfloat16 matrices; empty where it has none."""
    flags = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in _line_of("/proc/cpuinfo", "flags").split()]
    return ", ".join(flags)


def _line_of(path: str, key: str) -> str:
    """The value of the first `key : value` line of a file; empty where there is none."""
    if not Path(path).exists():
        return ""
    lines = (line.partition(":") for line in Path(path).read_text("utf-8").splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")


def _commit() -> str:
    here = Path(__file__).parent
    if not shutil.which("git"):
        return "commit unknown"

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", here, *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "--", str(here.parent / "tfft"))
    return (f"commit {commit}" if commit else "no commit") + (" with changes not committed" if changed else "")


def _versions(python: Path, names: Sequence[str]) -> str:
    done = subprocess.run([python, "-c", VERSIONS, *names], capture_output=True, text=True, check=False)
    return done.stdout.strip() or f"unknown ({(done.stderr.strip().splitlines() or ['no answer'])[-1]})"
