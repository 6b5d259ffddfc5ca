"""What lies beside an exported graph: a card, labels, golden answers, warm-up requests, and files for the server."""

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from tfft import tokenizing
from tfft.catalog import CATALOG
from tfft.evaluation import predict, served
from tfft.examples import Examples, each
from tfft.proving import EXTRA, GOLDEN, WARMUP
from tfft.runs import Run, write_json

BATCH = 32  # rows a server joins at most, in batching_parameters.txt and the largest warm-up request

# Of all shapes a client may send, none of them anybody's data.
TEXTS: tuple[str | bytes, ...] = (
    "It works as it should.",
    "",
    " ",
    "Where is my parcel? It was to come on Monday, and nobody answers the telephone.",
    "GREAT!!! and then: awful, awful, awful.",
    "A [MASK] day, and a <mask> night.",  # for those who fill masks; a text like others to the rest
    "Crème brûlée, naïve café, Straße, ﬁne",
    "包裹还没有到，请问什么时候能送到？",
    "مرحبا بالعالم، أين طلبي؟",
    "שלום עולם",
    "🙂👍🏽 👩‍👩‍👧 5️⃣",
    "tab\tnewline\nnul\0 and <b>mark-up</b> https://example.org/?q=1",
    b"caf\xe9 is no UTF-8, nor is \xff\xfe",
    "supercalifragilisticexpialidocious" * 4,
    "one two three four five six seven eight nine ten " * 60,
)


def write_extra(run: Run, folder: Path, precision: str = "float32") -> None:
    """Write `assets.extra/` of a version: golden answers, warm-up requests, labels, the card."""
    extra = folder / EXTRA
    extra.mkdir()
    write_json(folder / GOLDEN, golden(run) | {"precision": precision})
    write_warm_up(run, folder / WARMUP)
    if "labels" in run.facts:
        write_json(extra / "labels.json", run.facts["labels"])
    (extra / "README.md").write_text(card(run), "utf-8")


def golden_texts(run: Run) -> dict[str, list[str | bytes]]:
    """`TEXTS` for every text the run is asked with; each begins elsewhere in them, so that rows are not all alike."""
    return {name: [*TEXTS[-3 * i :], *TEXTS[: -3 * i]][: len(TEXTS)] for i, name in enumerate(run.task.inputs)}


def golden_rows(run: Run) -> tuple[pd.DataFrame, Examples]:
    """`golden_texts`, encoded, not yet cut."""
    rows = pd.DataFrame(golden_texts(run), dtype=object)
    return rows, run.task.encode(rows, run.tokenizer, run.facts, cleaning=run.config["clean"])


def golden(run: Run) -> dict[str, Any]:
    """`golden_texts`, their token ids, and the numbers of Keras's own answers, as plain data.

    Places are left out: of two answers as good as each other either may come first.
    """
    rows, whole = golden_rows(run)
    cut = run.task.cut(whole, run.tokenizer, run.config["max_length"])[0]
    answers = served(run.task, predict(run.answering, cut), cut, rows, run.facts, run.tokenizer)
    texts = {
        name: [t if isinstance(t, str) else {"b64": base64.b64encode(t).decode()} for t in column]
        for name, column in golden_texts(run).items()
    }
    return {
        "texts": texts,
        "token_ids": [row.tolist() for row in each(tokenizing.ids_of((whole if run.task.windowed else cut).x))],
        "labels": run.facts.get("labels"),
        "outputs": {name: value.tolist() for name, value in answers.items() if value.dtype.kind == "f"},
    }


def write_warm_up(run: Run, path: Path) -> None:
    """Requests the server answers before it says that it is ready: a short text, the longest, a full batch.

    An error in any of them keeps the server from loading the model, so they are a test on the server itself.
    """
    texts = golden_texts(run)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for cut in (slice(1), slice(len(TEXTS) - 1, len(TEXTS)), slice(BATCH)):
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = "serving_default"
            for name, column in texts.items():
                some = [tf.compat.as_bytes(text) for text in (column * BATCH)[cut]]
                request.inputs[name].CopyFrom(tf.make_tensor_proto(some, tf.string))
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def card(run: Run) -> str:
    """The model card, in Markdown: what it was trained on, how good it is, and with what it was made."""
    treated = "read in windows" if run.task.windowed else "cut"
    config, entry = run.config, CATALOG.get(run.config.get("backbone", ""))
    fixed = [str(tokenizer.length) for tokenizer in run.tokenizers if getattr(tokenizer, "length", None)]
    longest = " and ".join(fixed) or config["max_length"]
    facts = {
        "task": run.task.name,
        "backbone": config.get("backbone", "unknown"),
        "licence of the backbone": entry.licence if entry else "see where it comes from",
        "frozen": config.get("freeze", "unknown"),
        "data": Path(config.get("data", "unknown")).name,  # not where it lay on the machine that trained
        "longest text": f"{longest} tokens; longer ones are {treated}",
        "cleaning": ", ".join(config["clean"]) or "none",
    }
    rows = run.metrics.get("rows", {})
    facts |= {f"{name} rows": f"{count:,}" for name, count in rows.items()}
    lines = ["# Model card", "", *_table(("", ""), facts.items())]
    names = run.facts.get("labels") or run.facts.get("tags")
    counts = dict(zip(names or (), run.facts.get("counts", ()), strict=False)) or run.facts.get("entities")
    if counts:
        lines += [
            "",
            "## Labels",
            "",
            *_table(("label", "entities" if "entities" in run.facts else "training rows"), counts.items()),
        ]
    if "test" in run.metrics:
        plain = {n: f"{v:.4f}" for n, v in run.metrics["test"].items() if isinstance(v, float)}
        lines += [
            "",
            "## Scores",
            "",
            f"On {rows['test']:,} test rows, scored once"
            + ("; validation rows chose the epoch." if "validation" in rows else "."),
            "",
        ]
        lines += _table(("metric", "test"), plain.items())
    made = {"python": run.environment.get("python"), **run.environment.get("versions", {})}
    lines += ["", "## Made with", "", *_table(("", "version"), made.items())]
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, str], rows: Iterable[tuple[Any, Any]]) -> list[str]:
    cells = [head, ("---", "---"), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in cells]


def write_beside(run: Run, root: Path, side_by_side: int) -> None:
    """Write what a server needs into the model's folder; files that are there stay as they are.

    Args:
        run: what was exported.
        root: the model's folder.
        side_by_side: how many operations of it run at once; more than one, and each gets one thread.
    """
    asked = dict.fromkeys(run.task.inputs, "It works as it should.")
    example = json.dumps({"instances": [asked if len(asked) > 1 else next(iter(asked.values()))]})
    for file, content in _beside(root.name, example, side_by_side).items():
        path = root / file
        if not path.exists():
            path.write_text(content, "utf-8")


def _beside(name: str, example: str, side_by_side: int) -> dict[str, str]:
    threads = "\n      - --tensorflow_intra_op_parallelism=1" if side_by_side > 1 else ""
    return {
        "models.config": f"""\
model_config_list {{
  config {{
    name: '{name}'
    base_path: '/models/{name}'
    model_platform: 'tensorflow'
  }}
}}
""",
        "batching_parameters.txt": f"""\
max_batch_size {{ value: {BATCH} }}
batch_timeout_micros {{ value: 2000 }}
num_batch_threads {{ value: 4 }}
max_enqueued_batches {{ value: 100 }}
""",
        "docker-compose.yml": f"""\
services:
  serving:
    image: tensorflow/serving:2.19.1
    ports: ["8500:8500", "8501:8501"]
    volumes: [".:/models/{name}:ro"]
    command:
      - --model_config_file=/models/{name}/models.config
      - --enable_batching
      - --batching_parameters_file=/models/{name}/batching_parameters.txt{threads}
""",
        "README.md": f"""\
# {name}, for TensorFlow Serving
    docker compose up

    curl -d '{example}' http://localhost:8501/v1/models/{name}:predict
    curl http://localhost:8501/v1/models/{name}
    curl http://localhost:8501/v1/models/{name}/metadata

Each numbered folder is a version; the server answers with the largest. What it was trained on and how good it is
stands in `assets.extra/README.md` of each.
""",
    }
