"""`tfft serve` under load: joined requests against single ones, then versions swapped while it is asked.

    python benchmarks/load.py --exports saved_models/a/1 saved_models/b/1 --texts test.csv --out load.md

Needs `wrk` (Debian: wrk). The server and the load share the machine's cores.
"""

import argparse
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

CONNECTIONS = 32
TEXTS = 500
SWAP_SECONDS = 4.0  # between two new versions

# Each request is the next of the texts; a body without an answer counts as failed.
SCRIPT = """
local lines = {}
for line in io.lines(os.getenv("BODIES")) do lines[#lines + 1] = line end
local at = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
function request()
  at = at % #lines + 1
  return wrk.format(nil, wrk.path, nil, lines[at])
end
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args) wrong = 0 end
function response(status, headers, body)
  if status ~= 200 or not body:find('"label"', 1, true) then wrong = wrong + 1 end
end
function done(summary, latency, requests)
  local wrong = 0
  for _, thread in ipairs(threads) do wrong = wrong + thread:get("wrong") end
  io.write(string.format("RESULT %d %d %d %.3f %.3f %.3f\\n", summary.requests, wrong,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@contextlib.contextmanager
def serving(folder: Path, *flags: str) -> Iterator[tuple[str, int]]:
    """The address and process id of a server."""
    command = [sys.executable, "-P", "-m", "tfft.cli", "serve", str(folder), "--port", "0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        yield line.partition(" at ")[2].split()[0], process.pid
        process.send_signal(signal.SIGTERM)
        if process.wait(60):
            raise RuntimeError(f"the server ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def resident(process: int) -> float:
    """Megabytes resident."""
    lines = Path(f"/proc/{process}/status").read_text("utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+)", lines)[0]) / 1024


def wrk(address: str, model: str, bodies: Path, seconds: int) -> dict[str, float]:
    """One run of wrk."""
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "load.lua"
        script.write_text(SCRIPT, "utf-8")
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
        done = subprocess.run(
            [*command, f"{address}/v1/models/{model}:predict"],
            env={**os.environ, "BODIES": str(bodies)},
            capture_output=True,
            text=True,
            check=True,
        )
    found = re.search(r"^RESULT (.*)$", done.stdout, flags=re.MULTILINE)
    if found is None:
        raise RuntimeError(done.stdout + done.stderr)
    names = ("requests", "wrong", "errors", "rate", "p50_ms", "p99_ms")
    return dict(zip(names, map(float, found[1].split()), strict=True))


def swapped(exports: list[Path], texts: list[str], swaps: int) -> dict[str, Any]:
    """Versions swapped while 32 connections ask; every answer is compared with those of both exports."""
    with tempfile.TemporaryDirectory() as scratch:
        known = []
        for number, export in enumerate(exports):
            folder = Path(scratch) / f"alone-{number}"
            shutil.copytree(export, folder / "m" / "1")
            with serving(folder) as (address, _):
                rows = requests.post(f"{address}/v1/models/m:predict", json={"instances": texts}, timeout=120).json()
                known.append([row["probabilities"] for row in rows["predictions"]])
        models = Path(scratch) / "models"
        shutil.copytree(exports[0], models / "m" / "1")
        with serving(models) as (address, process):
            done, failed, wrong, seen = threading.Event(), [], [], [0, 0]
            memory = [resident(process)]

            def ask(start: int) -> None:
                session = requests.Session()
                place = start
                while not done.is_set():
                    place = (place + CONNECTIONS) % len(texts)
                    try:
                        answer = session.post(
                            f"{address}/v1/models/m:predict", json={"instances": [texts[place]]}, timeout=60
                        )
                        row = answer.json()["predictions"][0]["probabilities"]
                    except Exception as error:  # noqa: BLE001 - counted and reported, whatever it is
                        failed.append(str(error))
                        continue
                    near = [max(abs(a - b) for a, b in zip(row, one[place], strict=True)) < 1e-5 for one in known]
                    if any(near):
                        seen[near.index(True)] += 1
                    else:
                        wrong.append(row)

            threads = [threading.Thread(target=ask, args=(start,)) for start in range(CONNECTIONS)]
            for thread in threads:
                thread.start()
            time.sleep(SWAP_SECONDS)
            memory.append(resident(process))
            for number in range(2, swaps + 2):
                shutil.copytree(exports[(number - 1) % 2], models / "m" / ".next")
                (models / "m" / ".next").rename(models / "m" / str(number))
                limit = time.monotonic() + 60
                path = f"{address}/v1/models/m/versions/{number}"
                while "AVAILABLE" not in requests.get(path, timeout=60).text:
                    if time.monotonic() > limit:
                        raise RuntimeError(f"version {number} did not come")
                    time.sleep(0.2)
                time.sleep(SWAP_SECONDS)
                memory.append(resident(process))
            done.set()
            for thread in threads:
                thread.join()
        return {"answers": seen, "failed": failed, "wrong": wrong, "memory": memory}


def main() -> None:
    """Run all and print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--exports", type=Path, nargs=2, required=True, help="two version folders, same labels")
    options.add_argument("--texts", type=Path, required=True, help="CSV with a column text")
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--swaps", type=int, default=10)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    with given.texts.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)][:TEXTS]
    lines = [f"{CONNECTIONS} connections, one text a request, {given.seconds} s each, in turns:", ""]
    lines += [
        "| requests | requests/s | p50 ms | p99 ms | failed or wrong | MB at start | MB after |",
        "|" + " --- |" * 7,
    ]
    found: dict[str, list[dict[str, float]]] = {"joined": [], "single": []}
    with tempfile.TemporaryDirectory() as scratch:
        bodies = Path(scratch) / "bodies"
        bodies.write_text("".join(json.dumps({"instances": [text]}) + "\n" for text in texts), "utf-8")
        shutil.copytree(given.exports[0], Path(scratch) / "models" / "m" / "1")
        for number in range(given.rounds):
            for name in ("joined", "single") if number % 2 == 0 else ("single", "joined"):
                flags = [] if name == "joined" else ["--no-joined"]
                with serving(Path(scratch) / "models", *flags) as (address, process):
                    wrk(address, "m", bodies, 5)
                    before = resident(process)
                    result = wrk(address, "m", bodies, given.seconds)
                    found[name].append(result)
                    lines.append(
                        f"| {name} | {result['rate']:.0f} | {result['p50_ms']:.0f} | {result['p99_ms']:.0f} | "
                        f"{result['wrong'] + result['errors']:.0f} of {result['requests']:,.0f} | {before:.0f} | "
                        f"{resident(process):.0f} |"
                    )
    middle = {n: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for n, rows in found.items()}
    rate = middle["joined"]["rate"] / middle["single"]["rate"]
    tail = middle["joined"]["p99_ms"] / middle["single"]["p99_ms"]
    lines += ["", f"Joined by single: {rate:.2f}x the requests, {tail:.2f}x the p99.", ""]
    result = swapped(given.exports, texts, given.swaps)
    memory = result["memory"]
    lines.append(
        f"{given.swaps} versions swapped in while {CONNECTIONS} connections ask: {sum(result['answers']):,} answers "
        f"({result['answers'][0]:,} and {result['answers'][1]:,} of the two exports), {len(result['failed'])} failed, "
        f"{len(result['wrong'])} wrong. Resident: {memory[0]:.0f} MB at start, after each swap "
        f"{', '.join(f'{one:.0f}' for one in memory[1:])}."
    )
    print("\n".join(lines))
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
