"""A small pretrained decoder learns to answer by adapters alone: RESULT {...}. For writing.py.

Perplexity of held-out answers before and after, the adapters' file as a share of the model's, whether the weights
beneath are the same to the bit, and what is written before, after, and by the export, in which they are merged.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import tfft
from tfft import lora
from tfft.fingerprint import digest

PROMPTS = ["Where is the cat?", "Who ate the cake?", "Why is the boy happy?", "How do I find the park?"]
RECIPE = {
    "task": "text-generation",
    "template": "Question: {prompt} Answer: {response}",
    "lora": 4,
    "epochs": 30,
    "batch_size": 8,
    "learning_rate": 5e-3,
    "patience": 5,
    "test_share": 0.2,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--backbone", type=Path, required=True)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    folder = tfft.train(data=given.data, backbone=given.backbone, out=given.out / "adapted", **RECIPE)
    run, (before, _) = tfft.load_run(folder), tfft.load_backbone(given.backbone)
    beneath, _ = tfft.load_backbone(folder / "preset", merge=False)
    pairs = zip(before.weights, beneath.weights, strict=True)
    after = tfft.predict_texts(run, PROMPTS)
    exported = tfft.export_saved_model(run, given.out / "saved_models" / "adapted")
    command = [sys.executable, "-P", "-m", "tfft.cli", "predict", str(exported.parent), *PROMPTS, "--json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    untrained = dataclasses.replace(run, model=run.task.head(before, run.facts, pooling=None, dropout=0.0))
    untaught = tfft.predict_texts(untrained, PROMPTS)
    files = [folder / lora.FILE, folder / "preset" / "model.weights.h5"]
    found = {
        "perplexity": [run.metrics["before"]["test"]["perplexity"], run.metrics["test"]["perplexity"]],
        "rows": run.metrics["rows"],
        "share": files[0].stat().st_size / files[1].stat().st_size,
        "unchanged": all(digest(one) == digest(other) for one, other in pairs),
        "before": [row["written"] for row in untaught],
        "after": [row["written"] for row in after],
        "exported": [json.loads(line)["written"] for line in said.splitlines()],
        "recipe": RECIPE,
    }
    print("RESULT", json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main()
