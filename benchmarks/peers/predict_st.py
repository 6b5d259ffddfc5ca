"""Times sentence-transformers' `encode`: embeddings without a classifier. It orders texts by length itself."""

import common
from sentence_transformers import SentenceTransformer


def main() -> None:
    given = common.parser(__doc__).parse_args()
    texts, _ = common.read(given.data, "test")
    model = SentenceTransformer(str(given.model), device="cpu")
    times = common.time_predictions(
        lambda batch: model.encode(batch, batch_size=common.BATCH, show_progress_bar=False),
        lambda text: model.encode([text], show_progress_bar=False),
        texts,
    )
    common.report(**times)


if __name__ == "__main__":
    main()
