"""Tasks that write: translation and summarization on real data, what storing the encoder and keeping keys save.

    python benchmarks/writing.py --data FOLDER [--only translate scratch summarize cached kept] [--rounds 3]
                                 [--presets FOLDER] [--peers-python PATH --model FOLDER]
                                 [--out FOLDER]

    translate  multi30k_en_de, MiniLM and a new decoder: the recipe below, scores of the test rows, seconds of training
    scratch    the same model, its encoder drawn at random: everything learns
    summarize  aeslc, e-mails to subject lines, likewise; beside it the e-mails' first eight words
    cached     seconds of an epoch with the frozen encoder's outputs stored, and computed anew: aeslc, in turn
    adapters   stories260k, a decoder of 0.26 M parameters (--presets), learns by adapters to answer as
               examples/answers.jsonl does: perplexity before and after, and what it writes
    kept       seconds of 64 pieces with keys and values kept, and computed anew, for 32 texts, in turn; with
               --peers-python the same of a twin in PyTorch and Transformers (peers/hf_translation.py), and its epoch

FOLDER of --data holds one folder a data set. Seconds of translate, scratch and summarize are those the run wrote down
for its training, of the frozen part and validation too. --out keeps the runs and their logs.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measuring import Result, run_child, run_script
from speed import environment

HERE = Path(__file__).parent
# What was found on validation rows; everything else is the tasks' default.
RECIPES = {
    "translate": ["--freeze", "4", "--learning-rate", "7e-4", "--epochs", "22"],
    "scratch": ["--freeze", "none", "--learning-rate", "7e-4", "--epochs", "22"],
    "summarize": ["--freeze", "4", "--learning-rate", "5e-4", "--epochs", "12", "--bad-rows", "drop"],
}
SETS = {"translate": "multi30k_en_de", "scratch": "multi30k_en_de", "summarize": "aeslc"}
TASKS = {"translate": "translation", "scratch": "translation", "summarize": "summarization"}
TESTS = {"multi30k_en_de": "test_2016_flickr.jsonl", "aeslc": "test.jsonl"}
LEAD = 8  # words


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--only", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--limit", type=int, help="training rows of cached; 4,000 by default", default=4000)
    options.add_argument("--epochs", type=int, help="of translate, scratch and summarize, in place of the recipe's")
    options.add_argument("--presets", type=Path)
    options.add_argument("--peers-python", type=Path)
    options.add_argument("--model", type=Path)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        given.out = given.out or Path(scratch)
        given.out.mkdir(parents=True, exist_ok=True)
        for case in given.only:
            print(f"### {case}\n\n{CASES[case](case, given)}\n", flush=True)


def trained(case: str, given: argparse.Namespace) -> str:
    """Train by the recipe, score the test rows, and say so."""
    data, out = given.data / SETS[case], given.out / case
    backbone = ["--backbone", drawn_at_random(given.out)] if case == "scratch" else []
    flags = ["--task", TASKS[case], "--data", data / "train.jsonl", "--validation", data / "validation.jsonl"]
    flags += ["--test", data / TESTS[SETS[case]], "--out", out, "--cache-dir", given.out / "cache"]
    recipe = [*RECIPES[case], *(["--epochs", str(given.epochs)] if given.epochs else [])]
    command = [sys.executable, "-P", "-m", "tfft.cli", "train", *flags, *backbone, *recipe]
    usage = run_child(list(map(str, command)), environment())[1]
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    scores = {name: value for name, value in metrics["test"].items() if isinstance(value, float)}
    lines = [f"{name} {value:.2f}" for name, value in scores.items()]
    lines += [str(signature) for signature in metrics["test"]["signatures"].values()]
    lines.append(f"training {metrics['seconds']['train']:.0f} s, whole process {usage['wall']:.0f} s")
    lines.append(f"others {usage['others']:.3f}, peak {usage['memory'] / 1e9:.1f} GB; {' '.join(recipe)}")
    lines += ["", (out / "history.csv").read_text("utf-8")]
    if case == "summarize":
        lines.append(f"the first {LEAD} words: {lead(data / TESTS['aeslc'])}")
    return "\n".join(lines)


def drawn_at_random(place: Path) -> Path:
    """A preset of the default backbone's shape and tokenizer, with weights that know nothing."""
    code = (
        "import sys, keras, tfft; backbone, tokenizer = tfft.load_backbone(); keras.utils.set_random_seed(0); "
        "fresh = type(backbone).from_config(backbone.get_config()); fresh.save_to_preset(sys.argv[1]); "
        "tokenizer.save_to_preset(sys.argv[1])"
    )
    folder = place / "random"
    run_child([sys.executable, "-c", code, str(folder)], environment())
    return folder


def lead(path: Path) -> str:
    """ROUGE of the first words of each document."""
    code = (
        "import json, sys; from tfft import text_metrics as m; "
        "rows = [json.loads(line) for line in open(sys.argv[1], encoding='utf-8').read().split('\\n') if line]; "
        "f = m.summarization(m.lead([r['document'] for r in rows], int(sys.argv[2])), [r['summary'] for r in rows]); "
        "print(' '.join(f'{n} {f[n]:.2f}' for n in m.ROUGE))"
    )
    return run_child([sys.executable, "-c", code, str(path), str(LEAD)], environment())[0].strip()


def cached(case: str, given: argparse.Namespace) -> str:
    """Epochs with the encoder's outputs stored, and without, in turn."""
    found: dict[str, list[Result]] = {"always": [], "never": []}
    for number in range(given.rounds):
        for mode in ("always", "never") if number % 2 == 0 else ("never", "always"):
            flags = ["--data", given.data / "aeslc", "--limit", given.limit, "--cache", mode]
            found[mode].append(run_script(_script("write_epochs.py", *flags), environment()))
    ratios = [b["epoch"] / a["epoch"] for a, b in zip(found["always"], found["never"], strict=True)]
    losses = {mode: " ".join(f"{loss:.4f}" for loss in results[0]["losses"]) for mode, results in found.items()}
    lines = [f"{mode}: {_all(results, 'epoch')} s an epoch; losses {losses[mode]}" for mode, results in found.items()]
    return "\n".join([*lines, f"{statistics.median(ratios):.2f}x ({', '.join(f'{r:.2f}' for r in ratios)})"])


def adapters(case: str, given: argparse.Namespace) -> str:
    """What adapters learnt, and what they left as it was."""
    flags = ["--backbone", given.presets / "stories260k", "--data", HERE.parent / "examples" / "answers.jsonl"]
    found = run_script(_script("write_adapters.py", *flags, "--out", given.out), environment())
    first, last = found["perplexity"]
    lines = [f"perplexity of {found['rows']['test']} held-out answers: {first:.2f} before, {last:.2f} after"]
    lines.append(
        f"adapters: {100 * found['share']:.1f} % of the model's file; weights beneath equal: {found['unchanged']}"
    )
    lines.append(f"the export writes the same: {found['after'] == found['exported']}")
    lines += [f"  {name}: {text!r}" for name in ("before", "after") for text in found[name]]
    return "\n".join(lines)


def kept(case: str, given: argparse.Namespace) -> str:
    """64 pieces for 32 texts, with keys and values kept and without; the twin's, where its Python is named."""
    found = [run_script(_script("write_kept.py"), environment()) for _ in range(given.rounds)]
    ratios = [result["anew"] / result["kept"] for result in found]
    lines = [f"{name}: {_all(found, name)} s" for name in ("kept", "anew")]
    lines.append(f"{statistics.median(ratios):.2f}x ({', '.join(f'{r:.2f}' for r in ratios)})")
    if given.peers_python:
        flags = ["--data", given.data / "multi30k_en_de", "--model", given.model, "--steps", 20, "--generate", 32]
        script = [given.peers_python, HERE / "peers" / "hf_translation.py", *flags]
        lines.append(run_child(list(map(str, script)), environment(peer=True))[0].strip())
    return "\n".join(lines)


def _script(name: str, *flags: object) -> list[str]:
    return [sys.executable, "-P", str(HERE / name), *map(str, flags)]


def _all(results: list[Result], name: str) -> str:
    values = [result[name] for result in results]
    return f"{statistics.median(values):.2f} ({', '.join(f'{v:.2f}' for v in values)})"


CASES: dict[str, Callable[[str, argparse.Namespace], str]] = {
    "translate": trained,
    "scratch": trained,
    "summarize": trained,
    "cached": cached,
    "adapters": adapters,
    "kept": kept,
}

if __name__ == "__main__":
    main()
