"""Hugging Face's question-answering recipe (run_qa.py, utils_qa.py) as for SQuAD v1.1: all questions have answers.

One difference: batches are padded to their longest row, where run_qa.py by default pads all to MAX_LENGTH.
`--data` has train.jsonl and test.jsonl, rows of `id`, `context`, `question` and `answers` (`text`, `answer_start`).
`total` is `train` (tokenising included) and `predict` (scoring left out); `setup` is the imports and loading.
"""

import time

begun = time.perf_counter()  # before the imports: they are part of the setup

import re  # noqa: E402
import string  # noqa: E402
import tempfile  # noqa: E402
from collections import Counter, defaultdict  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import common  # noqa: E402
import numpy as np  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

MAX_LENGTH = 384
STRIDE = 128
N_BEST = 20
MAX_ANSWER_LENGTH = 30  # tokens
PUNCTUATION = str.maketrans("", "", string.punctuation)

Offsets = list[tuple[int, int] | None]  # of each token in the context; None: not of the context


def windows(tokenizer, rows: list[dict]) -> tuple[list[dict], list[int], list[Offsets]]:
    """The model's inputs, one a window of a context; the row each is of; the offsets of its tokens."""
    encoded = tokenizer(
        [row["question"].lstrip() for row in rows],  # long leading space would leave the context no room
        [row["context"] for row in rows],
        truncation="only_second",
        max_length=MAX_LENGTH,
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    owners = encoded.pop("overflow_to_sample_mapping")
    offsets = [
        [span if part == 1 else None for span, part in zip(spans, encoded.sequence_ids(i), strict=True)]
        for i, spans in enumerate(encoded.pop("offset_mapping"))
    ]
    inputs = [{name: values[i] for name, values in encoded.items()} for i in range(len(owners))]
    return inputs, owners, offsets


def positions(answer: dict, offsets: Offsets, nowhere: int) -> dict[str, int]:
    """The answer's first and last token in a window; `nowhere` for both where the window does not hold all of it."""
    begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
    tokens = [i for i, span in enumerate(offsets) if span is not None]
    if not tokens or offsets[tokens[0]][0] > begin or offsets[tokens[-1]][1] < end:
        return {"start_positions": nowhere, "end_positions": nowhere}
    return {
        "start_positions": max(i for i in tokens if offsets[i][0] <= begin),
        "end_positions": min(i for i in tokens if offsets[i][1] >= end),
    }


def training_windows(tokenizer, rows: list[dict]) -> list[dict]:
    inputs, owners, offsets = windows(tokenizer, rows)
    for features, owner, spans in zip(inputs, owners, offsets, strict=True):
        nowhere = features["input_ids"].index(tokenizer.cls_token_id)
        features.update(positions(rows[owner]["answers"][0], spans, nowhere))
    return inputs


def best_answers(
    rows: list[dict], owners: list[int], offsets: list[Offsets], starts: np.ndarray, ends: np.ndarray
) -> list[str]:
    """Of each row, the text between the best pair of a start and an end in any of its windows."""
    found = defaultdict(list)  # row: (score, begin, end), in characters
    for owner, spans, start_scores, end_scores in zip(owners, offsets, starts, ends, strict=True):
        likely_ends = np.argsort(end_scores)[: -N_BEST - 1 : -1].tolist()
        for start in np.argsort(start_scores)[: -N_BEST - 1 : -1].tolist():
            for end in likely_ends:
                if not start <= end < min(start + MAX_ANSWER_LENGTH, len(spans)):  # past the spans there is padding
                    continue
                if spans[start] and spans[end]:
                    found[owner].append((start_scores[start] + end_scores[end], spans[start][0], spans[end][1]))
    answers = []
    for i, row in enumerate(rows):
        _, begin, end = max(found[i], key=lambda candidate: candidate[0], default=(0, 0, 0))
        answers.append(row["context"][begin:end] or "empty")
    return answers


def words(text: str) -> list[str]:
    """Normalised as SQuAD's evaluation script does."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(PUNCTUATION)).split()


def exact(answer: str, gold: str) -> float:
    return float(words(answer) == words(gold))


def f1(answer: str, gold: str) -> float:
    given, wanted = words(answer), words(gold)
    common_words = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common_words / (len(given) + len(wanted)) if common_words else 0.0


def mean_best(measure: Callable[[str, str], float], answers: list[str], rows: list[dict]) -> float:
    """The mean over rows of the best a gold answer gives."""
    pairs = zip(answers, rows, strict=True)
    return float(np.mean([max(measure(answer, gold["text"]) for gold in row["answers"]) for answer, row in pairs]))


def main() -> None:
    options = common.parser(__doc__, data=False)
    options.add_argument("--data", type=Path, required=True, help="a folder with train.jsonl and test.jsonl")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--learning-rate", type=float, default=3e-5)
    options.add_argument("--batch-size", type=int, default=16)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()

    train_rows, test_rows = common.read_rows(given.data, "train"), common.read_rows(given.data, "test")
    set_seed(given.seed)  # for the new layer's initial weights
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForQuestionAnswering.from_pretrained(given.model)
    loaded = time.perf_counter()

    train = training_windows(tokenizer, train_rows)
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            scratch,
            num_train_epochs=given.epochs,
            per_device_train_batch_size=given.batch_size,
            learning_rate=given.learning_rate,
            seed=given.seed,
            **common.TRAINER,
        )
        trainer = Trainer(
            model=model, args=settings, train_dataset=train, data_collator=DataCollatorWithPadding(tokenizer)
        )
        trainer.train()
        trained = time.perf_counter()
        test, owners, offsets = windows(tokenizer, test_rows)
        starts, ends = trainer.predict(test).predictions
    answers = best_answers(test_rows, owners, offsets, starts, ends)
    answered = time.perf_counter()
    common.report(
        peer="hf-question-answering",
        rows=len(train_rows),
        windows=len(train),
        epochs=given.epochs,
        setup=loaded - begun,
        train=trained - loaded,
        predict=answered - trained,
        total=answered - loaded,
        exact=mean_best(exact, answers, test_rows),
        f1=mean_best(f1, answers, test_rows),
    )


if __name__ == "__main__":
    main()
