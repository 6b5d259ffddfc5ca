"""The other tasks beside what a user would pick instead: the same rows, backbone, epochs and machine, in turn.

    python benchmarks/tasks.py --data FOLDER --model FOLDER [--peers-python PATH] [--only qa tags few] [--rounds 1]

    qa    question answering on squadshifts_newwiki, all blocks, --epochs epochs: Hugging Face's run_qa.py
    tags  token classification on wnut17, all blocks, --epochs epochs: Hugging Face's run_ner.py
    few   --shots rows a label of banking77, all test rows: SetFit with --iterations pairs of each kind a row

FOLDER of --data holds one folder a data set, that of --model is the backbone in Hugging Face layout, PATH is the Python
of an environment with peers/requirements.txt; without it tfft's side runs alone. Seconds are of whole processes; in
even rounds the peer comes first. Both sides learn with their own defaults but for what is said above. --limit takes the
first training rows alone: for times.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measuring import Result, append_record, read_rows, run_child, run_script, write_rows
from speed import environment

HERE = Path(__file__).parent
SETS = {"qa": "squadshifts_newwiki", "tags": "wnut17", "few": "banking77"}
TASKS = {"qa": "question-answering", "tags": "token-classification", "few": "few-shot"}
PEERS = {"qa": "hf_question_answering.py", "tags": "hf_token_classification.py", "few": "setfit_few_shot.py"}
SCORES = {"qa": ("f1", "exact"), "tags": ("f1", "precision", "recall"), "few": ("accuracy",)}
BATCH = 16  # rows a step, as the recipes of both peers have it


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--peers-python", type=Path)
    options.add_argument("--only", nargs="+", choices=tuple(SETS), default=tuple(SETS))
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--shots", type=int, default=8)
    options.add_argument("--iterations", type=int, default=20)
    options.add_argument("--limit", type=int)
    options.add_argument("--results", type=Path, help="a file of JSON lines that results are added to")
    given = options.parse_args()
    for case in given.only:
        found: dict[str, list[Result]] = {"tfft": [], **({"peer": []} if given.peers_python else {})}
        for number in range(given.rounds):
            with tempfile.TemporaryDirectory() as scratch:
                data = rows_of(given.data / SETS[case], given.limit, Path(scratch) / "data")
                for side in sorted(found, reverse=number % 2 == 0):
                    result = (train_tfft if side == "tfft" else train_peer)(case, data, given, number, Path(scratch))
                    found[side].append(result)
                    if given.results:
                        append_record(given.results, {"case": case, "side": side, "round": number + 1, **result})
        print(table(case, found), flush=True)


def rows_of(source: Path, limit: int | None, target: Path) -> Path:
    """The data set's folder; with a limit a copy with fewer training rows, of JSON lines alone."""
    if limit is None:
        return source
    shutil.copytree(source, target)
    path = target / "train.jsonl"
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:limit]), "utf-8")
    return target


def train_tfft(case: str, data: Path, given: argparse.Namespace, number: int, scratch: Path) -> Result:
    out, source, flags = scratch / f"run-{number}", data, ["--epochs", given.epochs, "--batch-size", BATCH]
    if case == "few":
        source, flags = scratch / "few.csv", ["--validation-share", 0, "--test", data / "test.csv"]
        write_rows(source, drawn(read_rows(data / "train.csv"), given.shots, number))
    command = [sys.executable, "-P", "-m", "tfft.cli", "train", "--task", TASKS[case], "--data", source, "--out", out]
    command += ["--backbone", given.model, "--cache-dir", scratch / f"cache-{number}", "--seed", number, *flags]
    usage = run_child(list(map(str, command)), environment())[1]
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    return {**metrics["test"], "rows": metrics["rows"]["train"], "seconds": metrics["seconds"], **usage}


def drawn(rows: Sequence[tuple[str, str]], shots: int, seed: int) -> list[tuple[str, str]]:
    """The rows that peers/setfit_few_shot.py draws."""
    sys.path.insert(0, str(HERE / "peers"))
    from draw import draw

    return [rows[i] for i in draw([label for _, label in rows], shots, seed)]


def train_peer(case: str, data: Path, given: argparse.Namespace, number: int, scratch: Path) -> Result:
    flags = ["--rows-per-class", given.shots, "--iterations", given.iterations] if case == "few" else []
    flags = flags or ["--epochs", given.epochs, "--batch-size", BATCH]
    script = [given.peers_python, HERE / "peers" / PEERS[case]]
    command = [*script, "--model", given.model, "--data", data, "--seed", number, *flags]
    return run_script(list(map(str, command)), environment(peer=True))


def table(case: str, found: dict[str, list[Result]]) -> str:
    """A line for each side: seconds, what other processes took meanwhile, scores; all rounds, and their medians."""
    lines = [f"### {case}: {SETS[case]}", "", f"| | seconds | others | {' | '.join(SCORES[case])} |"]
    lines.append("|" + "---|" * (3 + len(SCORES[case])))
    for side, results in found.items():
        values = [[result[name] for result in results] for name in ("wall", "others", *SCORES[case])]
        shown = [f"{statistics.median(v):{form}} ({', '.join(f'{x:{form}}' for x in v)})" for v, form in _forms(values)]
        lines.append(f"| {side if side == 'tfft' else PEERS[case]} | {' | '.join(shown)} |")
    if "peer" not in found:
        return "\n".join([*lines, ""])
    ratios = [peer["wall"] / own["wall"] for own, peer in zip(found["tfft"], found["peer"], strict=True)]
    return "\n".join([*lines, "", f"{statistics.median(ratios):.2f}x ({', '.join(f'{r:.2f}' for r in ratios)})", ""])


def _forms(values: list[list[float]]) -> list[tuple[list[float], str]]:
    return [(v, ".1f" if place == 0 else ".3f" if place == 1 else ".4f") for place, v in enumerate(values)]


if __name__ == "__main__":
    main()
