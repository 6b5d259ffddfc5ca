"""Hugging Face's token-classification recipe (run_ner.py): a word's first piece carries its tag, no other piece counts.

`--data` has train.jsonl and test.jsonl, rows of `tokens` and `tags` (IOB2). Words that truncation cuts off count as O.
Precision, recall and f1 are of whole entities, as seqeval has them.
`total` is `train` (tokenising included) and `predict` (scoring left out); `setup` is the imports and loading.
"""

import time

begun = time.perf_counter()  # before the imports: they are part of the setup

import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import common  # noqa: E402
import numpy as np  # noqa: E402
from seqeval.metrics import f1_score, precision_score, recall_score  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

IGNORED = -100  # by the loss


def tokenise(tokenizer, rows: list[dict], max_length: int) -> tuple[list[dict], list[dict[int, int]]]:
    """The model's inputs, one a row, and where each row's words begin: word to piece."""
    encoded = tokenizer(
        [row["tokens"] for row in rows], is_split_into_words=True, truncation=True, max_length=max_length
    )
    inputs = [{name: values[i] for name, values in encoded.items()} for i in range(len(rows))]
    firsts = []
    for i in range(len(rows)):
        first: dict[int, int] = {}
        for piece, word in enumerate(encoded.word_ids(i)):
            if word is not None:
                first.setdefault(word, piece)
        firsts.append(first)
    return inputs, firsts


def training_rows(tokenizer, rows: list[dict], index: dict[str, int], max_length: int) -> list[dict]:
    inputs, firsts = tokenise(tokenizer, rows, max_length)
    for features, first, row in zip(inputs, firsts, rows, strict=True):
        features["labels"] = [IGNORED] * len(features["input_ids"])
        for word, piece in first.items():
            features["labels"][piece] = index[row["tags"][word]]
    return inputs


def tags_of_words(rows: list[dict], firsts: list[dict[int, int]], best: np.ndarray, names: list[str]) -> list:
    answers = []
    for row, first, of_pieces in zip(rows, firsts, best, strict=True):
        tags = ["O"] * len(row["tokens"])
        for word, piece in first.items():
            tags[word] = names[of_pieces[piece]]
        answers.append(tags)
    return answers


def main() -> None:
    options = common.parser(__doc__, data=False)
    options.add_argument("--data", type=Path, required=True, help="a folder with train.jsonl and test.jsonl")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--learning-rate", type=float, default=5e-5)
    options.add_argument("--batch-size", type=int, default=16)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--max-length", type=int, default=256, help="pieces of words, special tokens included")
    given = options.parse_args()

    train_rows, test_rows = common.read_rows(given.data, "train"), common.read_rows(given.data, "test")
    names = sorted({tag for row in train_rows for tag in row["tags"]})
    set_seed(given.seed)  # for the classification layer's initial weights
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForTokenClassification.from_pretrained(given.model, num_labels=len(names))
    loaded = time.perf_counter()

    train = training_rows(tokenizer, train_rows, {name: i for i, name in enumerate(names)}, given.max_length)
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            scratch,
            num_train_epochs=given.epochs,
            per_device_train_batch_size=given.batch_size,
            learning_rate=given.learning_rate,
            seed=given.seed,
            **common.TRAINER,
        )
        collator = DataCollatorForTokenClassification(tokenizer, label_pad_token_id=IGNORED)
        trainer = Trainer(model=model, args=settings, train_dataset=train, data_collator=collator)
        trainer.train()
        trained = time.perf_counter()
        test, firsts = tokenise(tokenizer, test_rows, given.max_length)
        best = trainer.predict(test).predictions.argmax(-1)  # (rows, pieces)
    answers = tags_of_words(test_rows, firsts, best, names)
    answered = time.perf_counter()
    gold = [row["tags"] for row in test_rows]
    common.report(
        peer="hf-token-classification",
        rows=len(train_rows),
        epochs=given.epochs,
        setup=loaded - begun,
        train=trained - loaded,
        predict=answered - trained,
        total=answered - loaded,
        precision=float(precision_score(gold, answers)),
        recall=float(recall_score(gold, answers)),
        f1=float(f1_score(gold, answers)),
    )


if __name__ == "__main__":
    main()
