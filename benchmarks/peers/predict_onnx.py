"""Times ONNX Runtime on what `export_onnx.py` wrote, tokenised by Hugging Face's fast tokenizer, without torch."""

from pathlib import Path

import common
import numpy as np
import onnxruntime
from tokenizers import Tokenizer


def main() -> None:
    options = common.parser(__doc__)
    options.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    given = options.parse_args()
    texts, _ = common.read(given.data, "test")
    tokenizer = Tokenizer.from_file(str(given.tokenizer))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()  # to the longest of the batch; the file may ask for a fixed length
    session = onnxruntime.InferenceSession(str(given.model), providers=["CPUExecutionProvider"])

    def answer(batch: list[str]) -> np.ndarray:
        encoded = tokenizer.encode_batch(batch)
        feed = {
            "input_ids": np.array([row.ids for row in encoded], np.int64),
            "attention_mask": np.array([row.attention_mask for row in encoded], np.int64),
            "token_type_ids": np.array([row.type_ids for row in encoded], np.int64),
        }
        return session.run(None, feed)[0].argmax(-1)

    times = common.time_predictions(common.in_batches(answer), lambda text: answer([text]), texts)
    common.report(**times)


if __name__ == "__main__":
    main()
