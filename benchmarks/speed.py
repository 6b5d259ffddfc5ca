"""How fast tfft is beside its peers: the same rows, backbone and machine, in turn, in several rounds.

    python benchmarks/speed.py --data FOLDER --model FOLDER --peers-python PATH [--only a b ...] [--out speed.md]

FOLDER of --data holds one folder a data set, each with train.csv, validation.csv and test.csv (text, label); that of
--model is the backbone in Hugging Face layout; PATH is the Python of an environment with peers/requirements.txt.
Every number comes from a process of its own; within a round the contenders of a case run one after the other, in even
rounds in the reverse order, so that only ratios within a round are compared. Cases:

    a  everything frozen, 10 epochs                  e  prediction: an exported model, one and many texts
    b  the blocks above the lowest four, 3 epochs    f  matrix products of this machine, and the share reached
    c  all blocks, 3 epochs                          g  growth: 1, 2, 4 and 8 times the rows
    d  a second run on a warm cache

Results are kept in --results as soon as they are known; the same command goes on where it was stopped.
"""

import argparse
import csv
import dataclasses
import datetime
import functools
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import speed_report
from measuring import ChildError, Result, append_record, read_records, read_rows, run_child, run_script, write_rows

HERE = Path(__file__).parent
FACTORS = (1, 2, 4, 8)
SPLITS = ("train", "validation", "test")
HELD_OUT = 50  # validation and test rows while the training rows grow: few, or their constant cost hides the growth


@dataclasses.dataclass(frozen=True)
class Bench:
    """What is measured with.

    Attributes:
        sets: folder of the data sets as given.
        data: the rows every contender reads: a folder of CSV files.
        model: the backbone's folder.
        peers: Python of the peers' environment; None: tfft alone is measured.
        scratch: folder for what is thrown away.
        growth_rows: training rows at 1x in case g.
    """

    sets: Path
    data: Path
    model: Path
    peers: Path | None
    scratch: Path
    growth_rows: int


Measure = Callable[[Bench, int], Result]  # (bench, round) -> what was measured


@dataclasses.dataclass(frozen=True)
class Contender:
    """One row of a case's table: its name, what is run in words, and how.

    Attributes:
        is_bfloat16: measured where the CPU multiplies bfloat16, or if it is named: elsewhere it is emulated, at a
            small part of the speed, or what another row is.
    """

    name: str
    what: str
    measure: Measure
    is_peer: bool = False
    is_bfloat16: bool = False


def environment(peer: bool = False) -> dict[str, str]:
    """A child's environment: no accelerator, no hub; tfft's own search path is kept from the peers."""
    offline = {"CUDA_VISIBLE_DEVICES": "-1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return {n: v for n, v in os.environ.items() if not (peer and n in ("PYTHONPATH", "PYTHONHOME"))} | offline


def train_tfft(
    bench: Bench, data: Path, flags: list[str], cache: Path | None = None, keep: Path | None = None
) -> Result:
    """One `tfft train`, in a fresh cache unless one is given; `keep` is where the run folder stays."""
    with tempfile.TemporaryDirectory(dir=bench.scratch) as fresh:
        out = keep or Path(fresh) / "run"
        command = [sys.executable, "-m", "tfft.cli", "train", "--data", data, "--out", out, "--backbone", bench.model]
        command += ["--cache-dir", cache or Path(fresh) / "cache", *flags]
        usage = run_child(list(map(str, command)), environment())[1]
        metrics = json.loads((out / "metrics.json").read_text("utf-8"))
        config = json.loads((out / "config.json").read_text("utf-8"))
        with (out / "history.csv").open(encoding="utf-8", newline="") as file:
            epochs = sum(1 for _ in csv.DictReader(file))
    seconds = metrics["seconds"]
    train = seconds["prepare"] + seconds["train"]
    total = train + seconds["evaluate"]
    return {
        "rows": metrics["rows"]["train"],
        "epochs": epochs,
        "setup": usage["wall"] - total,
        "train": train,
        "total": total,
        "accuracy": metrics["test"]["accuracy"],
        "max_length": config["max_length"],
        "seconds": seconds,
        **usage,
    }


def tfft(*flags: str) -> Measure:
    """A run of tfft on the rows of the case, in a fresh cache."""

    def measure(bench: Bench, number: int) -> Result:
        return train_tfft(bench, bench.data, ["--cache", "auto", "--seed", str(number - 1), *flags])

    return measure


def peer(script: str, *arguments: str, seeded: bool = True) -> Measure:
    """A peer's training script."""

    def measure(bench: Bench, number: int) -> Result:
        seed = ["--seed", str(number - 1)] if seeded else []
        return run_peer(bench, script, "--model", bench.model, "--data", bench.data, *arguments, *seed)

    return measure


def run_peer(bench: Bench, script: str, *arguments: object) -> Result:
    """A script of `peers/` in the peers' environment."""
    return run_script([str(bench.peers), str(HERE / "peers" / script), *map(str, arguments)], environment(peer=True))


def warm_cache(bench: Bench, number: int, second: bool) -> Result:
    """The first run of a pair fills a cache, the second, with another seed and rate, finds it warm."""
    cache = bench.scratch / f"warm-{number}"
    first = functools.partial(train_tfft, bench, bench.data, ["--cache", "always", "--freeze", "all", "--seed", "0"])
    if not second:
        shutil.rmtree(cache, ignore_errors=True)
        return first(cache)
    if not cache.exists():  # resumed between the two
        first(cache)
    if not cache.exists():
        raise ChildError(f"the first run stored nothing in its --cache-dir, {cache}: the second is no warm one")
    flags = ["--cache", "always", "--freeze", "all", "--seed", "1", "--learning-rate", "5e-4"]
    result = train_tfft(bench, bench.data, flags, cache)
    shutil.rmtree(cache)
    return result


@functools.lru_cache(maxsize=1)
def saved_model(bench: Bench) -> Path:
    """The version folder of an exported run: everything frozen, one epoch, as only its speed counts."""
    run, served = bench.scratch / "served-run", bench.scratch / "served"
    for folder in (run, served):  # of an attempt that failed
        shutil.rmtree(folder, ignore_errors=True)
    train_tfft(bench, bench.data, ["--freeze", "all", "--epochs", "1"], keep=run)
    run_child([sys.executable, "-m", "tfft.cli", "export", str(run), str(served)], environment())
    return served / "1"


@functools.lru_cache(maxsize=1)
def saved_classifier(bench: Bench) -> Path:
    """Hugging Face's classifier of the same backbone with a fresh head."""
    folder = bench.scratch / "classifier"
    run_peer(bench, "save_classifier.py", "--model", bench.model, "--data", bench.data, "--out", folder)
    return folder


@functools.lru_cache(maxsize=1)
def onnx(bench: Bench) -> Path:
    """The same classifier for ONNX Runtime: a folder with model.onnx and model.int8.onnx."""
    folder = bench.scratch / "onnx"
    run_peer(bench, "export_onnx.py", "--model", saved_classifier(bench), "--out", folder)
    return folder


def predict_saved_model(bench: Bench, number: int) -> Result:
    model = saved_model(bench)
    bare = {n: v for n, v in environment().items() if n != "PYTHONPATH"}
    script = HERE / "peers" / "predict_savedmodel.py"
    return run_script([sys.executable, str(script), "--model", str(model), "--data", str(bench.data)], bare)


def predict_pipeline(bench: Bench, number: int) -> Result:
    return run_peer(bench, "predict_hf.py", "--model", saved_classifier(bench), "--data", bench.data)


def predict_onnx(bench: Bench, number: int, file: str) -> Result:
    tokenizer = saved_classifier(bench) / "tokenizer.json"
    arguments = ("--model", onnx(bench) / file, "--data", bench.data, "--tokenizer", tokenizer)
    return run_peer(bench, "predict_onnx.py", *arguments)


def floor(bench: Bench, number: int, precision: str) -> Result:
    command = [sys.executable, HERE / "floor.py", "--model", bench.model, "--data", bench.data]
    return run_script([*map(str, command), "--precision", precision], environment())


def growth(bench: Bench, number: int, dataset: str, factor: int) -> Result:
    """One epoch above four stored blocks, on the first rows repeated, each with a number of its own at its end."""
    with tempfile.TemporaryDirectory(dir=bench.scratch) as scratch:
        data, source = Path(scratch), bench.sets / dataset
        base = read_rows(source / "train.csv")[: bench.growth_rows]
        rows = [(f"{text} {i:06d}", label) for i, (text, label) in enumerate(base * factor)]
        write_rows(data / "train.csv", rows)
        for split in ("validation", "test"):
            write_rows(data / f"{split}.csv", read_rows(source / f"{split}.csv")[:HELD_OUT])
        result = train_tfft(bench, data, ["--cache", "always", "--freeze", "4", "--epochs", "1"])
        command = [sys.executable, HERE / "count_tokens.py", "--model", bench.model, "--data", data]
        counted = run_script([*map(str, command), "--max-length", str(result["max_length"])], environment())
    return result | {"tokens": counted["tokens"], "factor": factor, "dataset": dataset}


def cases(growth_sets: list[str], peers_bfloat16: bool) -> dict[str, list[Contender]]:
    """Case -> its contenders; ratios are to those called tfft."""

    def trained(flags: list[str], hf_flags: list[str], what: str) -> list[Contender]:
        named = " ".join(flags)
        found = [
            Contender("tfft", f"`tfft train {named}`", tfft(*flags, "--precision", "auto")),
            Contender(
                "tfft-float32",
                f"`tfft train {named} --precision float32`",
                tfft(*flags, "--precision", "float32"),
                is_bfloat16=True,  # elsewhere it is what "tfft" is
            ),
            Contender("hf-trainer", f"Hugging Face Trainer, {what}", peer("hf_trainer.py", *hf_flags), True),
        ]
        if peers_bfloat16:
            measure = peer("hf_trainer.py", *hf_flags, "--bfloat16")
            found.append(Contender("hf-trainer-bfloat16", f"the same with `bf16=True`, {what}", measure, True))
        return found

    logistic = peer("st_logistic.py", seeded=False)
    fine = ["--epochs", "3", "--learning-rate", "5e-5"]
    return {
        "a": [
            *trained(
                ["--freeze", "all", "--epochs", "10"],
                ["--freeze", "all", "--epochs", "10", "--learning-rate", "1e-3"],
                "backbone frozen, 10 epochs, rate 1e-3",
            ),
            Contender("st-logistic", "sentence-transformers + LogisticRegression(max_iter=1000)", logistic, True),
        ],
        "b": [
            *trained(
                ["--freeze", "4", "--pooling", "cls", "--epochs", "3"],  # the Trainer's network reads the first token
                ["--freeze", "4", *fine],
                "encoder.layer[4:] and classifier, 3 epochs, rate 5e-5",
            ),
            Contender("tfft-mean", "`tfft train --freeze 4 --epochs 3`", tfft("--freeze", "4", "--epochs", "3")),
        ],
        "c": [
            *trained(
                ["--freeze", "embeddings", "--epochs", "3"],
                ["--freeze", "none", *fine],
                "all layers, 3 epochs, rate 5e-5",
            ),
            Contender("tfft-none", "`tfft train --freeze none --epochs 3`", tfft("--freeze", "none", "--epochs", "3")),
        ],
        "d": [
            Contender("first run", "fills the cache", functools.partial(warm_cache, second=False)),
            Contender("second run", "other seed and learning rate", functools.partial(warm_cache, second=True)),
        ],
        "e": [
            Contender(
                "tfft",
                "the exported SavedModel: TensorFlow and TF-Text alone, a thread an operation",
                predict_saved_model,
            ),
            Contender("hf-pipeline", '`pipeline("text-classification")`', predict_pipeline, True),
            Contender("st-encode", "sentence-transformers, embeddings alone", st_encode, True),
            Contender("onnx", "ONNX Runtime, float32", functools.partial(predict_onnx, file="model.onnx"), True),
            Contender(
                "onnx-int8",
                "ONNX Runtime, int8 by dynamic quantisation",
                functools.partial(predict_onnx, file="model.int8.onnx"),
                True,
            ),
        ],
        "f": [
            Contender(precision, "", functools.partial(floor, precision=precision), is_bfloat16=precision == "bfloat16")
            for precision in ("float32", "bfloat16")
        ],
        "g": [
            Contender(f"{name} {factor}x", "", functools.partial(growth, dataset=name, factor=factor))
            for name in growth_sets
            for factor in FACTORS
        ],
    }


def st_encode(bench: Bench, number: int) -> Result:
    return run_peer(bench, "predict_st.py", "--model", bench.model, "--data", bench.data)


def prepare_rows(source: Path, limit: int | None, folder: Path) -> dict[str, int]:
    """Write the rows every contender reads; rows in each split."""
    counts = {}
    for split in SPLITS:
        rows = read_rows(source / f"{split}.csv")[:limit]
        write_rows(folder / f"{split}.csv", rows)
        counts[split] = len(rows)
    return counts


def measure_all(
    bench: Bench, todo: list[tuple[str, Contender, int]], settings: Result, results: Path, records: list[Result]
) -> None:
    """Measure what is to do; adds to the records and to the file."""
    for case, contender, number in todo:
        record: Result = {"case": case, "contender": contender.name, "round": number, "settings": settings[case]}
        record["when"] = datetime.datetime.now().isoformat(timespec="seconds")
        try:
            record["result"] = contender.measure(bench, number)
            line = speed_report.in_a_line(record["result"])
        except (ChildError, OSError, KeyError, ValueError) as error:
            record["failed"] = f"{type(error).__name__}: {error}"
            line = "FAILED " + record["failed"]
        records.append(record)
        append_record(results, record)
        print(f"{case} {contender.name}, round {number}: {line}", flush=True)


def in_turn(chosen: dict[str, list[Contender]], rounds: int, growth_rounds: int) -> list[tuple[str, Contender, int]]:
    """The order of everything: round by round, case by case, the contenders forwards and in even rounds backwards."""
    order = []
    for number in range(1, rounds + 1):
        for case, contenders in chosen.items():
            if case == "g" and number > growth_rounds:
                continue
            turn = contenders[::-1] if number % 2 == 0 and case != "d" else contenders  # d's second run needs its first
            order += [(case, contender, number) for contender in turn]
    return order


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="folder of data set folders")
    options.add_argument("--dataset", default="sst2", help="data set of the cases a to f (default sst2)")
    options.add_argument("--model", type=Path, required=True, help="the backbone, a folder in Hugging Face layout")
    options.add_argument("--peers-python", type=Path, help="Python of the peers' environment; without it, tfft alone")
    options.add_argument("--peers-bfloat16", action="store_true", help="Hugging Face Trainer with bf16=True as well")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", nargs="+", choices=tuple("abcdefg"), default=list("abcdefg"), metavar="CASE")
    options.add_argument("--contenders", nargs="+", metavar="NAME", help="of the cases' contenders only these")
    options.add_argument("--limit", type=int, help="rows of each split, for a quick try")
    options.add_argument(
        "--growth-data", nargs="+", default=["sst2", "imdb"], metavar="NAME", help="data sets of case g"
    )
    options.add_argument("--growth-rows", type=int, default=2000, help="training rows at 1x (default 2000)")
    options.add_argument("--growth-rounds", type=int, default=1, help="rounds of case g (default 1)")
    options.add_argument("--scratch", type=Path, help="folder for temporary files; the system's by default")
    options.add_argument("--results", type=Path, default=Path("speed.jsonl"), help="every result; goes on from it")
    options.add_argument("--redo-disturbed", action="store_true", help="measure disturbed rounds of a case again")
    options.add_argument("--out", type=Path, help="Markdown file for protocol and tables")
    given = options.parse_args()
    needed = [given.data / given.dataset / f"{split}.csv" for split in SPLITS] + [given.model / "config.json"]
    for path in [*needed, *([given.peers_python] if given.peers_python else [])]:
        if not path.is_file():
            options.error(f"no such file: {path}")
    growth_sets = [name for name in given.growth_data if (given.data / name / "train.csv").is_file()]
    for name in sorted(set(given.growth_data) - set(growth_sets)):
        print(f"case g: no {given.data / name}/train.csv; left out", file=sys.stderr)
    if given.peers_python is None:
        print("no --peers-python: tfft is measured alone", file=sys.stderr)

    every, has_bfloat16 = cases(growth_sets, given.peers_bfloat16), bool(speed_report.bfloat16())
    if not has_bfloat16:
        print("no bfloat16 in hardware: its rows are left out unless --contenders names them", file=sys.stderr)
    chosen = {
        case: [
            c
            for c in every[case]
            if (given.peers_python or not c.is_peer)
            and (c.name in given.contenders if given.contenders else has_bfloat16 or not c.is_bfloat16)
        ]
        for case in given.only
    }
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a plain `kill` ends as Ctrl-C does
    with tempfile.TemporaryDirectory(prefix="tfft-speed-", dir=given.scratch) as scratch:
        place = Path(scratch)
        rows = prepare_rows(given.data / given.dataset, given.limit, place / "data")
        model = "/".join(given.model.resolve().parts[-2:])
        settings = {case: {"model": model, "dataset": given.dataset, "rows": rows} for case in every}
        settings["g"] = {"model": model, "growth_rows": given.growth_rows}
        bench = Bench(given.data, place / "data", given.model, given.peers_python, place, given.growth_rows)
        records = [r for r in read_records(given.results) if r["settings"] == settings[r["case"]]]
        known = speed_report.latest(records)
        again = {(r["case"], r["round"]) for r in known if given.redo_disturbed and speed_report.disturbed(r)}
        done = {(r["case"], r["contender"], r["round"]) for r in known if "result" in r}
        todo = [
            (case, contender, number)
            for case, contender, number in in_turn(chosen, given.rounds, given.growth_rounds)
            if (case, contender.name, number) not in done or (case, number) in again
        ]
        interrupted = False
        try:
            measure_all(bench, todo, settings, given.results, records)
        except KeyboardInterrupt:
            interrupted = True
            print(f"interrupted; the same command goes on from {given.results}", file=sys.stderr)
    what = {case: {c.name: c.what for c in named} for case, named in cases(growth_sets, peers_bfloat16=True).items()}
    text = speed_report.markdown(records, what, settings["a"], given.peers_python, shlex.join(sys.argv))
    if given.out:
        given.out.write_text(text, "utf-8")
    print("\n" + text)
    return 130 if interrupted else int(any("failed" in r for r in speed_report.latest(records)))


if __name__ == "__main__":
    sys.exit(main())
