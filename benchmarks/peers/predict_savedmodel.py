"""Times the predictions of a SavedModel that `tfft export` wrote, with TensorFlow and TF-Text alone: no tfft, no Keras.

`--model` is the version's folder, such as saved_models/sentiment/1.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys

import common
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the tokenizer's ops)


def main() -> None:
    given = common.parser(__doc__).parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)  # as docs/export.md says, and the export's compose file
    texts, _ = common.read(given.data, "test")
    served = tf.saved_model.load(str(given.model)).signatures["serving_default"]

    def answer(batch: list[str]) -> list[bytes]:
        return served(text=tf.constant(batch))["label"].numpy().tolist()

    times = common.time_predictions(common.in_batches(answer), lambda text: answer([text]), texts)
    strangers = [name for name in ("tfft", "keras_hub", "torch") if name in sys.modules]
    if strangers:
        raise SystemExit(f"this process was to have TensorFlow and TF-Text alone; it has loaded {strangers}")
    common.report(**times)


if __name__ == "__main__":
    main()
