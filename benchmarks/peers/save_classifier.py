"""Saves the backbone with a fresh classification layer, for the scripts that time its predictions (`--model OUT`)."""

from pathlib import Path

import common
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed


def main() -> None:
    options = common.parser(__doc__)
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    set_seed(0)
    labels = set(common.read(given.data, "train")[1])
    model = AutoModelForSequenceClassification.from_pretrained(given.model, num_labels=len(labels))
    model.save_pretrained(given.out)
    AutoTokenizer.from_pretrained(given.model).save_pretrained(given.out)
    common.report(labels=len(labels))


if __name__ == "__main__":
    main()
