"""Hugging Face Trainer: sequence classification, batches of rows of like length, padded to their longest row.

`--freeze` means what it means for tfft: `all` trains the classification layer alone, a number k the blocks above the
lowest k and the classification layer, `none` everything. The pooler is frozen unless everything is trained.
"""

import tempfile
import time

import common
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

MAX_LENGTH = 256


class Rows(torch.utils.data.Dataset):
    """Tokenised rows, not padded."""

    def __init__(self, tokenizer, texts: list[str], labels: list[int]) -> None:
        self.encoded = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict:
        return {name: values[i] for name, values in self.encoded.items()} | {"labels": self.labels[i]}


def freeze(model: torch.nn.Module, policy: str) -> None:
    """Leave gradients to what the policy trains."""
    if policy == "none":
        return
    backbone = model.base_model
    backbone.requires_grad_(False)
    if policy != "all":
        for block in backbone.encoder.layer[int(policy) :]:
            block.requires_grad_(True)


def main() -> None:
    options = common.parser(__doc__)
    options.add_argument("--freeze", default="all", help="all, none, or how many of the lowest blocks")
    options.add_argument("--epochs", type=int, default=10)
    options.add_argument("--learning-rate", type=float, default=1e-3)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--bfloat16", action="store_true", help="autocast to bfloat16")
    given = options.parse_args()

    train_texts, train_labels = common.read(given.data, "train")
    test_texts, test_labels = common.read(given.data, "test")
    index = {name: i for i, name in enumerate(sorted(set(train_labels)))}
    set_seed(given.seed)  # for the classification layer's initial weights
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForSequenceClassification.from_pretrained(given.model, num_labels=len(index))
    freeze(model, given.freeze)
    loaded = time.perf_counter()

    train = Rows(tokenizer, train_texts, [index[label] for label in train_labels])
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            scratch,
            num_train_epochs=given.epochs,
            per_device_train_batch_size=given.batch_size,
            learning_rate=given.learning_rate,
            train_sampling_strategy="group_by_length",
            seed=given.seed,
            bf16=given.bfloat16,
            **common.TRAINER,
        )
        trainer = Trainer(
            model=model, args=settings, train_dataset=train, data_collator=DataCollatorWithPadding(tokenizer)
        )
        trainer.train()
        trained = time.perf_counter()
        test = Rows(tokenizer, test_texts, [index[label] for label in test_labels])
        outputs = trainer.predict(test)
    accuracy = (outputs.predictions.argmax(-1) == outputs.label_ids).mean()  # the sampler may have reordered the rows
    common.report(
        rows=len(train),
        epochs=given.epochs,
        train=trained - loaded,
        total=time.perf_counter() - loaded,
        accuracy=float(accuracy),
    )


if __name__ == "__main__":
    main()
