"""Exports asked in this process, in TensorFlow's C++ runtime: one text at a time, and 256 of mixed lengths together.

    python benchmarks/exports.py --exports saved_models/a/1 onnx_models/a/1 --run runs/a --data test.csv --rounds 5

In turns, a round each; `tfft predict`'s own speed, the run in Keras, is measured in a process of its own, in turn too;
so is Hugging Face's pipeline, with --peers-python and --model.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

BATCH = 256
SINGLE = 200

KERAS = """
import csv, json, sys, time, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tfft
run, texts = tfft.load_run(sys.argv[1]), json.loads(sys.stdin.read())
tfft.predict_texts(run, texts[:256])
start = time.perf_counter()
tfft.predict_texts(run, texts)
print(json.dumps({"rate": len(texts) / (time.perf_counter() - start)}))
"""

EXPORT = """
import json, sys, time
from pathlib import Path
from tfft.proving import newest
from tfft.runtime import Runtime
from tfft.servable import load
texts, batch, single = json.loads(sys.stdin.read()), int(sys.argv[2]), int(sys.argv[3])
served = load(Runtime(), newest(Path(sys.argv[1])))
run = lambda some: served.run({"text": some})
for text in texts[:20]:
    run([text])
run(texts[:batch])
seconds = []
for text in texts[:single]:
    start = time.perf_counter()
    run([text])
    seconds.append(time.perf_counter() - start)
start = time.perf_counter()
for begin in range(0, len(texts) - batch + 1, batch):
    run(texts[begin:begin + batch])
rate = (len(texts) // batch * batch) / (time.perf_counter() - start)
assert not hasattr(sys.modules["tensorflow"], "constant")
print(json.dumps({"ms": sorted(seconds)[len(seconds) // 2] * 1e3, "rate": rate}))
"""


def child(command: list[str], texts: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1].removeprefix("RESULT "))
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--exports", type=Path, nargs="+", required=True)
    options.add_argument("--run", type=Path, help="run folder, for the speed of `tfft predict`")
    options.add_argument("--data", type=Path, required=True, help="CSV with a column text")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--peers-python", type=Path)
    options.add_argument("--classifier", type=Path, help="what benchmarks/peers/save_classifier.py saved")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    with given.data.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(given.rounds):
        turns: list[tuple[str, list[str]]] = [
            (str(e), [sys.executable, "-P", "-c", EXPORT, str(e), str(BATCH), str(SINGLE)]) for e in given.exports
        ]
        if given.run:
            turns.append(("tfft predict", [sys.executable, "-P", "-c", KERAS, str(given.run)]))
        if given.peers_python and given.classifier:
            script = Path(__file__).parent / "peers" / "predict_hf.py"
            command = [
                str(given.peers_python),
                str(script),
                "--model",
                str(given.classifier),
                "--data",
                str(given.data.parent),
            ]
            turns.append(("hf-pipeline", command))
        for name, command in turns if number % 2 == 0 else turns[::-1]:
            result = child(command, texts)
            found.setdefault(name, []).append(
                {
                    "ms": result.get("ms", result.get("median_ms")),
                    "rate": result.get("rate", result.get("arrival_rate")),
                }
            )
            print(f"round {number + 1}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    first = found[str(given.exports[0])]
    lines = ["| what | one text, ms | first export's / its | rows/s | its / first export's |", "|" + " --- |" * 5]
    for name, rows in found.items():
        cells = [name]
        for key, above in (("ms", False), ("rate", True)):
            values = [row[key] for row in rows if row[key] is not None]
            if not values:
                cells += ["", ""]
                continue
            ratios = [
                (row[key] / one[key]) if above else (one[key] / row[key]) for row, one in zip(rows, first, strict=True)
            ]
            cells += [_range(values, ".0f" if above else ".2f"), _range(ratios, ".2f")]
        lines.append("| " + " | ".join(cells) + " |")
    print("\n".join(lines))
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", "utf-8")


def _range(values: list[float], kind: str) -> str:
    return f"{statistics.median(values):{kind}} ({min(values):{kind}} to {max(values):{kind}})"


if __name__ == "__main__":
    main()
