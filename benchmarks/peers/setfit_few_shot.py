"""SetFit, with its own settings, on a few rows of each class; `draw.py` says which, so that others can draw the same.

`steps` is how many the pairs of all drawn rows take, `taken` how many were: `--max-steps` may stop it short.
`total` is `train` and `predict` (scoring left out); `setup` is the imports and loading.
"""

import time

begun = time.perf_counter()  # before the imports: they are part of the setup

import math  # noqa: E402
import tempfile  # noqa: E402

import common  # noqa: E402
import numpy as np  # noqa: E402
from datasets import Dataset  # noqa: E402
from draw import draw  # noqa: E402
from setfit import SetFitModel, Trainer, TrainingArguments  # noqa: E402
from setfit.sampler import ContrastiveDataset  # noqa: E402

BATCH = 16


def main() -> None:
    options = common.parser(__doc__)
    options.add_argument("--rows-per-class", type=int, default=8)
    options.add_argument(
        "--iterations", type=int, help="pairs of each kind a row, 20 in SetFit's paper; by default all there are"
    )
    options.add_argument("--max-steps", type=int, default=-1, help="stop after so many; -1: the epoch's end")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()

    train_texts, train_labels = common.read(given.data, "train")
    test_texts, test_labels = common.read(given.data, "test")
    names = sorted(set(train_labels))
    drawn = draw(train_labels, given.rows_per_class, given.seed)
    texts, labels = [train_texts[i] for i in drawn], [names.index(train_labels[i]) for i in drawn]
    model = SetFitModel.from_pretrained(str(given.model), device="cpu")
    loaded = time.perf_counter()

    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            scratch,
            batch_size=BATCH,
            num_epochs=1,
            num_iterations=given.iterations,
            max_steps=given.max_steps,
            seed=given.seed,
            save_strategy="no",
            report_to="none",
        )
        trainer = Trainer(model=model, args=settings, train_dataset=Dataset.from_dict({"text": texts, "label": labels}))
        trainer.train()
    trained = time.perf_counter()
    answers = model.predict(test_texts).tolist()
    answered = time.perf_counter()
    common.report(
        peer="setfit",
        rows=len(texts),
        steps=math.ceil(
            len(ContrastiveDataset(texts, labels, multilabel=False, num_iterations=given.iterations)) / BATCH
        ),
        taken=trainer.st_trainer.state.global_step,
        setup=loaded - begun,
        train=trained - loaded,
        predict=answered - trained,
        total=answered - loaded,
        accuracy=float(np.mean([names[i] == label for i, label in zip(answers, test_labels, strict=True)])),
    )


if __name__ == "__main__":
    main()
