"""What every task must do on every backbone family: learn a few rows by heart, and keep the answers for ever after."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfft
from tests.conftest import FAMILIES, SEQ2SEQ
from tfft import runs, tasks
from tfft.answers import as_answer
from tfft.data import load_rows
from tfft.runs import Run
from tfft.seeding import set_seed
from tfft.tasks.task import answering_model, on_backbone
from tfft.training import as_columns

# Answers of an export, from a process that knows nothing of tfft, Keras or KerasHub.
READER = """
import json, sys
import tensorflow as tf, tensorflow_text
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answers = serve(**{name: tf.constant(column) for name, column in json.loads(sys.argv[2]).items()})
plain = lambda value: value.decode() if isinstance(value, bytes) else value
print(json.dumps({k: v.numpy().tolist() for k, v in answers.items()}, default=plain))
assert not {"tfft", "keras_hub"} & set(sys.modules)
"""

ADJECTIVES = ("good", "great", "lovely", "fine", "bad", "awful", "dull")
NOUNS = (("movie", "good"), ("film", "great"), ("story", "lovely"), ("plot", "dull"), ("ending", "awful"))
GOOD = ("the movie was good", "great film !", "a lovely story", "i was fine and it is great")
BAD = ("the movie was bad", "awful film !", "a dull story", "it is not good , awful ending")
LONG = "A GREAT film, caf\u00e9 \U0001f600 " + "very " * 80

# task -> rows to learn by heart, what to ask of it then, and the score to reach
TASKS: dict[str, tuple[list[dict[str, Any]], list[Any], float]] = {
    "text-classification": (
        [{"text": t, "label": "pos"} for t in GOOD] + [{"text": t, "label": "neg"} for t in BAD],
        ["the movie was good", "awful", "", LONG],
        1.0,
    ),
    "text-pair-classification": (
        [{"first": a, "second": b, "label": "same"} for a, b in itertools.pairwise(GOOD)]
        + [{"first": a, "second": b, "label": "other"} for a, b in zip(GOOD, BAD, strict=True)],
        [{"first": GOOD[0], "second": BAD[0]}, {"first": "", "second": LONG}, {"first": LONG, "second": LONG}],
        1.0,
    ),
    "multi-label-classification": (
        [{"text": t, "labels": ["good", "short"] if len(t) < 15 else ["good"]} for t in GOOD]
        + [{"text": t, "labels": ["short"] if len(t) < 15 else []} for t in BAD],
        ["the movie was good", "awful", "", LONG],
        1.0,
    ),
    "text-regression": (
        [{"text": t, "value": 5 - i} for i, t in enumerate(GOOD)]
        + [{"text": t, "value": -i} for i, t in enumerate(BAD)],
        ["the movie was good", "awful", "", LONG],
        0.95,
    ),
    "token-classification": (
        [{"tokens": t.split(), "tags": ["B-x" if w in ADJECTIVES else "O" for w in t.split()]} for t in GOOD + BAD],
        ["the movie was good", "awful !", "", LONG, "caf\u00e9\tgreat\U0001f600, good."],
        1.0,
    ),
    "question-answering": (
        [{"context": f"the {a} was {b} .", "question": f"was the {a}", "answers": [b]} for a, b in NOUNS],
        [
            {"context": "the movie was good .", "question": "was the movie"},
            {"context": LONG, "question": "was it"},
            {"context": "", "question": ""},
            {"context": "caf\u00e9\t\U0001f600\u5305\u88f9 good", "question": LONG},
        ],
        1.0,
    ),
}
SEVERAL = "mood=text-classification,stars=text-regression*0.5,kinds=multi-label-classification"
TASKS["text-similarity"] = (
    [{"first": a, "second": b, "value": 4} for a, b in itertools.pairwise(GOOD)]
    + [{"first": a, "second": b, "value": 1} for a, b in zip(GOOD, BAD, strict=True)],
    TASKS["text-pair-classification"][1],
    0.8,
)
TASKS["few-shot"] = TASKS["text-classification"]
TASKS["masked-lm"] = (
    [{"text": text} for text in GOOD + BAD],
    [
        "the movie was [MASK]",
        "[MASK] film ! [MASK]",
        "awful",
        "",
        f"[MASK] {LONG} [MASK]",
        "caf\u00e9\t\U0001f600 [MASK].",
    ],
    1.0,
)
TASKS[SEVERAL] = (
    [
        {"text": t, "mood": m, "stars": i, "kinds": ["short"] if len(t) < 15 else []}
        for m, texts in (("good", GOOD), ("bad", BAD))
        for i, t in enumerate(texts)
    ],
    ["the movie was good", "awful", "", LONG],
    1.0,
)
TASKS["translation"] = (
    [{"source": t, "target": " ".join(reversed(f"{t} \u00fc\u5305".split()))} for t in GOOD + BAD],
    TASKS["text-regression"][1],
    99.99,
)
TASKS["summarization"] = (
    [{"document": t, "summary": t.split()[1]} for t in ("it Zo\u00eb was", *GOOD[1:], *BAD)],
    TASKS["text-regression"][1],
    99.99,
)
TASKS["text-generation"] = (
    [{"prompt": t, "response": " ".join(reversed(f"{t} \u00fc\u5305".split()))} for t in GOOD + BAD],
    TASKS["text-regression"][1],
    0.0,
)
# what a tiny decoder needs
OPTIONS = {"decoder_layers": 1, "vocabulary_size": 340, "decoding": ("beams=2",)}
CASES: list[Any] = [("text-classification", family) for family in FAMILIES if family != "distilbert"]
OTHERS = ("text-classification", "few-shot", "text-generation")  # done already, or the same, or of other families
CASES += [(task, "bert") for task in TASKS if task not in OTHERS]
CASES += [("text-generation", "llama")]
# Slow: byte pairs with two separators in a pair, for tracing KerasHub's tokenizer takes long; SentencePiece where
# tests/test_offsets.py holds its places; and a family that differs from another here in nothing but its weights.
SLOW = [(task, "roberta") for task in ("question-answering", "text-pair-classification", "masked-lm")]
SLOW += [(task, "albert") for task in ("token-classification", "masked-lm")]
SLOW += [("text-classification", "distilbert")]
SLOW += [("text-generation", "gpt2"), ("text-generation", "gemma"), ("translation", "bart")]
SLOW += [("summarization", "bart"), ("summarization", "t5"), ("translation", "t5")]
CASES += [pytest.param(case, marks=pytest.mark.slow) for case in SLOW]


def test_every_task_is_held_to_the_contract() -> None:
    assert set(TASKS) == {*tasks.TASKS, SEVERAL}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case).partition("=")[0])
def trained(
    request: pytest.FixtureRequest, presets: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Path, list[Any]]:
    """A run of the task on the family, trained on a few rows until it knows them; its folder; what to ask of it."""
    name, family = request.param
    given, asked, wanted = TASKS[name]
    task = tfft.get_task(name)
    rows = load_rows(given, task=task)
    backbone, tokenizer = tfft.load_backbone(presets(family))
    task = on_backbone(task, backbone, tokenizer)
    facts = task.learn(rows, **{name: OPTIONS.get(name, default) for name, default in task.options.items()})
    tfft.freeze(backbone, "none")
    set_seed(1)
    model = task.head(backbone, facts, pooling="mean", dropout=0.0)
    length = 64 if task.by_likelihood else 16
    examples, _ = task.cut(task.encode(rows, tokenizer, facts), tokenizer, length)
    history = tfft.fit(
        model,
        examples,
        epochs=400 if family in SEQ2SEQ else 150,
        batch_size=8,
        learning_rate=2e-2,
        decay="constant",
        loss=task.loss(facts, 0.0),
        metrics=(),
    )
    config = {"task": task.name, "pooling": "mean", "dropout": 0.0, "max_length": length, "clean": []}
    outputs = None if task.by_likelihood else tfft.predict(answering_model(task, model, facts), examples)
    facts = task.tune(outputs, examples, rows, facts) if task.tune else facts
    run = Run(model, tokenizer, task, facts, config)
    scores = tfft.evaluate(run.judged, rows, examples, task, facts)
    if task.by_likelihood:
        learnt = [answer["written"] for answer in tfft.predict_texts(run, rows["prompt"].tolist())]
        assert learnt == rows["response"].tolist(), scores
    else:
        assert scores[task.headline[0]] >= wanted, history.history["loss"][-5:]
    with runs.new_folder(tmp_path_factory.mktemp("runs") / family) as folder:
        runs.save_run(folder, run, backbone, as_columns(history))
    return run, folder.parent / family, asked


def assert_alike(one: Any, other: Any, tolerance: float) -> None:
    """Answers are equal, their numbers nearly."""
    if isinstance(one, dict):
        assert set(one) == set(other)
        for name in one:
            assert_alike(one[name], other[name], tolerance)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_alike(*pair, tolerance)
    else:
        assert one == (pytest.approx(other, abs=tolerance) if isinstance(one, float) else other)


def test_run_read_back_gives_the_same_answers(trained: tuple[Run, Path, list[Any]]) -> None:
    run, folder, asked = trained
    assert_alike(tfft.predict_texts(run, asked), tfft.predict_texts(tfft.load_run(folder), asked), 1e-6)


def test_batched_answers_are_the_single_ones(trained: tuple[Run, Path, list[Any]]) -> None:
    run, _, asked = trained
    for text, answer in zip(asked, tfft.predict_texts(run, asked), strict=True):
        assert_alike(tfft.predict_texts(run, [text])[0], answer, 1e-5)


@pytest.fixture(scope="module")
def exported(trained: tuple[Run, Path, list[Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    version = tfft.export_saved_model(trained[0], tmp_path_factory.mktemp("exports") / "model")
    assert version.name == "1"
    return version


def test_export_answers_the_same_without_tfft(trained: tuple[Run, Path, list[Any]], exported: Path) -> None:
    run, _, asked = trained
    rows = [{run.task.inputs[0]: row} if isinstance(row, str) else row for row in asked]
    columns = {name: [row[name] for row in rows] for name in run.task.inputs}
    command = [sys.executable, "-c", READER, str(exported), json.dumps(columns)]
    served = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    found = [dict(zip(served, row, strict=True)) for row in zip(*served.values(), strict=True)]
    answers = [as_answer(row if len(row) > 1 else next(iter(row.values()))) for row in found]
    assert_alike(tfft.predict_texts(run, asked), answers, 1e-5)


def test_export_holds_each_weight_once(trained: tuple[Run, Path, list[Any]], exported: Path) -> None:
    import tensorflow as tf

    stored = tf.train.list_variables(str(exported / "variables" / "variables"))
    # ALBERT's one block is called twice, and each call joins query, key and value for itself
    assert sum(int(np.prod(shape)) for _, shape in stored) < 1.3 * trained[0].model.count_params()


def test_export_has_no_op_that_serving_lacks(exported: Path) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    graph = SavedModel.FromString((exported / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    ops = {node.op for node in graph.node} | {node.op for f in graph.library.function for node in f.node_def}
    assert not ops & {"TFText>RoundRobinTrim", "TFText>Utf8Binarize", "PyFunc", "EagerPyFunc", "PyFuncStateless"}
    assert not any(f.attr["_XlaMustCompile"].b for f in graph.library.function)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", ["all", "none", "embeddings", 1])
def test_split_gives_the_models_own_outputs(family: str, policy: str | int, presets: Any) -> None:
    backbone, _ = tfft.load_backbone(presets(family))
    model = keras.Model(backbone.input, tfft.softmax_head(backbone, 3, pooling="blocks", dropout=0.5))
    tfft.freeze(model, policy)
    prefix, suffix = tfft.split(model)
    ids = np.array([[2, 5, 6, 3], [2, 7, 3, 0]], "int32")
    x = {"token_ids": ids, "padding_mask": (ids != 0).astype("int32"), "segment_ids": np.zeros_like(ids)}
    x = {name: x[name] for name in model.input}
    cut = x if prefix is None else prefix(x, training=False)
    assert (prefix is None) == (policy == "none")
    np.testing.assert_allclose(suffix(cut, training=False), model(x, training=False), atol=1e-6)
