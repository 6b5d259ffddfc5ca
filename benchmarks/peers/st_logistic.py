"""sentence-transformers' embeddings with scikit-learn's logistic regression on them: one pass over the rows."""

import time

import common
import numpy as np
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression


def main() -> None:
    given = common.parser(__doc__).parse_args()
    train_texts, train_labels = common.read(given.data, "train")
    test_texts, test_labels = common.read(given.data, "test")
    model = SentenceTransformer(str(given.model), device="cpu")
    loaded = time.perf_counter()

    features = model.encode(train_texts, batch_size=common.BATCH, show_progress_bar=False)  # (rows, width)
    classifier = LogisticRegression(max_iter=1000).fit(features, train_labels)
    trained = time.perf_counter()
    answers = classifier.predict(model.encode(test_texts, batch_size=common.BATCH, show_progress_bar=False))
    common.report(
        rows=len(train_texts),
        train=trained - loaded,
        total=time.perf_counter() - loaded,
        accuracy=float((answers == np.array(test_labels)).mean()),
    )


if __name__ == "__main__":
    main()
