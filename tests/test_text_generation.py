"""Texts that go on: what of a row is learnt, what is cut, and how a prompt is put."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tfft
from tests.conftest import WORDS, build
from tfft.data import load_rows
from tfft.errors import DataError, InvalidValueError
from tfft.examples import each
from tfft.pretrained import NEXT
from tfft.tasks import text_generation
from tfft.tasks.task import on_backbone

ROWS = [
    {"prompt": "was the movie good", "response": "it was great"},
    {"prompt": "the plot", "response": "awful \u00fc\u5305"},
    {"prompt": "a", "response": "a very lovely story and a fine ending"},
]
PLAIN: dict[str, Any] = {"template": None, "target_length": None, "decoding": ()}


# Byte pairs are slow: tracing KerasHub's tokenizer takes seconds.
@pytest.fixture(scope="module", params=["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def writer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return build(request.param, tmp_path_factory.mktemp("writer"))


def encoded(writer: tuple[Any, Any], rows: Any = ROWS, **options: Any) -> Any:
    task = on_backbone(tfft.get_task("text-generation"), *writer)
    checked = load_rows(rows, task=task)
    facts = task.learn(checked, **PLAIN | options)
    return task, facts, checked, task.encode(checked, writer[1], facts)


def text_of(tokenizer: Any, ids: Any) -> str:
    from tfft.tokenizing import written

    return written(tokenizer, tf.constant([np.asarray(ids)])).numpy()[0].decode()


@pytest.mark.parametrize(
    "template", [None, "Q: {prompt}\nA: {response}", "{prompt}{response}", "{prompt} ({prompt}) {response}"]
)
def test_a_response_and_its_end_are_learnt(writer: Any, template: str | None) -> None:
    _, facts, rows, examples = encoded(writer, template=template)
    asked = text_generation.encode(rows[["prompt"]], writer[1], facts)
    for number, row in rows.iterrows():
        ids, following, weight = (each(v)[number] for v in (examples.x["token_ids"], examples.x[NEXT], examples.weight))
        whole = (template or "{prompt} {response}").format(**row)
        assert ids[0] == facts["start"][0]
        assert following[-1] == facts["end"]
        np.testing.assert_array_equal(ids[1:], following[:-1])
        assert text_of(writer[1], following).strip() == whole
        learnt = following[weight > 0]
        assert text_of(writer[1], learnt).strip() == row["response"]
        # What is asked is what stood before, token by token.
        np.testing.assert_array_equal(each(asked.x["token_ids"])[number], ids[: len(ids) - len(learnt) + 1])


def test_texts_without_prompts_are_learnt_whole(writer: Any) -> None:
    _, facts, rows, examples = encoded(writer, [{"text": "the movie was good"}, {"text": "a dull story"}])
    assert facts["template"] == "{response}"
    assert rows["prompt"].tolist() == ["", ""]
    assert all((row > 0).all() for row in each(examples.weight))


def test_what_is_asked_is_fed_to_an_export_as_it_is_encoded(writer: Any) -> None:
    task, facts, rows, _ = encoded(writer)
    prompts = rows[["prompt"]].assign(prompt=["the movie was good , very good and fine", "", "caf\u00e9 \U0001f600  "])
    for length in (6, 64):
        cut, _ = task.cut(task.encode(prompts, writer[1], facts), writer[1], length)
        feed = tf.function(lambda t, n=length: task.feed({"prompt": t}, writer[1], facts, (), n))
        fed = feed(tf.constant(prompts["prompt"].tolist()))
        for number, row in enumerate(each(cut.x["token_ids"])):
            assert len(row) <= length
            np.testing.assert_array_equal(fed["token_ids"][number][: len(row)], row)
            assert fed["padding_mask"][number].numpy().sum() == len(row)


def test_long_rows_lose_their_end_and_long_prompts_their_beginning(writer: Any, caplog: Any) -> None:
    task, facts, rows, examples = encoded(writer)
    with caplog.at_level(logging.WARNING):
        cut, longer = task.cut(examples, writer[1], 8)
    assert longer == sum(len(row) > 8 for row in each(examples.x["token_ids"]))
    for one, other in zip(each(examples.x[NEXT]), each(cut.x[NEXT]), strict=True):
        np.testing.assert_array_equal(one[:8], other)
    asked = task.encode(rows[["prompt"]], writer[1], facts)
    shorter, _ = task.cut(asked, writer[1], 3)
    for one, other in zip(each(asked.x["token_ids"]), each(shorter.x["token_ids"]), strict=True):
        np.testing.assert_array_equal(other, one if len(one) <= 3 else np.r_[one[:1], one[-2:]])


def test_rows_without_room_for_a_response(writer: Any, caplog: Any) -> None:
    rows = [{"prompt": "good " * 30, "response": "bad"}, {"prompt": "a", "response": "good"}]
    task, _, _, examples = encoded(writer, rows)
    with caplog.at_level(logging.WARNING):
        task.cut(examples, writer[1], 12)
    assert "1 of 2 rows have no token of their response within 12 tokens" in caplog.text
    task, _, _, examples = encoded(writer, rows[:1] * 2)
    with pytest.raises(DataError, match="no response begins within"):
        task.cut(examples, writer[1], 12)


@pytest.mark.parametrize(
    ("template", "message"),
    [("{prompt}", "ends with"), ("{response} {prompt}", "ends with"), ("A: {response}", "has {prompt}")],
)
def test_templates_that_cannot_be(writer: Any, template: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        encoded(writer, template=template)


def test_a_template_without_prompts(writer: Any) -> None:
    with pytest.raises(InvalidValueError, match="no prompt"):
        encoded(writer, [{"text": "good"}, {"text": "bad"}], template="Q: {prompt} {response}")


def test_faults_are_named(writer: Any) -> None:
    task = tfft.get_task("text-generation")
    with pytest.raises(DataError, match="response"):
        load_rows([{"prompt": "a", "response": ""}, {"prompt": "b", "response": "c"}], task=task)
    with pytest.raises(DataError, match="prompt"):
        load_rows([{"prompt": " ", "response": "c"}, {"prompt": "b", "response": "c"}], task=task)


def test_encoders_are_refused(tmp_path: Path) -> None:
    task = tfft.get_task("text-generation")
    with pytest.raises(InvalidValueError, match="does not write"):
        on_backbone(task, *build("bert", tmp_path))
    with pytest.raises(InvalidValueError, match="translation and summarization"):
        on_backbone(task, *build("t5", tmp_path))


def test_a_run_says_how_it_was_judged_before(presets: Any, tmp_path: Path) -> None:
    import json

    data = tmp_path / "rows.jsonl"
    words = list(WORDS)
    rows = [{"text": " ".join(words[i : i + 5])} for i in range(10)] * 3
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    given = {
        "backbone": str(presets("llama")),
        "data": str(data),
        "out": str(tmp_path / "x"),
    }
    given |= {"task": "text-generation", "validation": str(data), "test": str(data)}
    tfft.train(**given, freeze=1, epochs=30, batch_size=8, learning_rate=0.02, patience=30)
    metrics = json.loads((tmp_path / "x" / "metrics.json").read_text("utf-8"))
    assert metrics["test"]["perplexity"] < 0.75 * metrics["before"]["test"]["perplexity"]
    table = pd.read_csv(tmp_path / "x" / "samples_test.csv")
    assert set(table["which"]) == {"best", "median", "worst"}
    assert all(any(row["text"].startswith(source) for row in rows) for source in table["source"])
    run = tfft.load_run(tmp_path / "x")
    scores = tfft.evaluate_run(run, data)
    assert scores["perplexity"] < metrics["before"]["test"]["perplexity"]
    (answer,) = tfft.predict_texts(run, ["the movie"])
    assert isinstance(answer["written"], str)
