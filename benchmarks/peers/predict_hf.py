"""Times the predictions of Hugging Face's text-classification pipeline for a saved classifier."""

import common
from transformers import pipeline


def main() -> None:
    given = common.parser(__doc__).parse_args()
    texts, _ = common.read(given.data, "test")
    answer = pipeline("text-classification", model=str(given.model), device="cpu", truncation=True, max_length=256)
    times = common.time_predictions(lambda batch: answer(batch, batch_size=common.BATCH), answer, texts)
    common.report(**times)


if __name__ == "__main__":
    main()
