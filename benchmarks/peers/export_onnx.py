"""Writes model.onnx (float32) and model.int8.onnx (dynamic quantisation) of a saved classifier; checks the first."""

import warnings
from pathlib import Path

import common
import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForSequenceClassification, AutoTokenizer

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TOLERANCE = 1e-3  # of a logit


class Logits(torch.nn.Module):
    """The classifier with tensors for arguments and for its answer."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(INPUTS, tensors, strict=True))).logits


def main() -> None:
    options = common.parser(__doc__, data=False)
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    # plain attention: the exporter traces it, whatever fused kernel torch would choose
    model = AutoModelForSequenceClassification.from_pretrained(given.model, attn_implementation="eager")
    logits = Logits(model).eval()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "model.onnx"
    traced = tokenizer(["two texts", "the second one is longer than the first"], padding=True, return_tensors="pt")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's, on every shape it traces
        torch.onnx.export(
            logits,
            tuple(traced[name] for name in INPUTS),
            str(path),
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in INPUTS} | {"logits": {0: "batch"}},
            dynamo=False,  # the newer exporter needs onnxscript
        )
    other = tokenizer(["a batch of three", "of another length than what was traced, to be sure", "x"], padding=True)
    feed = {name: np.array(other[name], np.int64) for name in INPUTS}
    found = onnxruntime.InferenceSession(str(path)).run(None, feed)[0]
    with torch.no_grad():
        wanted = logits(*(torch.from_numpy(feed[name]) for name in INPUTS)).numpy()
    difference = float(np.abs(found - wanted).max())
    if not difference < TOLERANCE:
        raise SystemExit(f"the exported model's logits differ by {difference} from torch's (at most {TOLERANCE})")
    quantize_dynamic(path, given.out / "model.int8.onnx", weight_type=QuantType.QInt8)
    common.report(difference=difference)


if __name__ == "__main__":
    main()
