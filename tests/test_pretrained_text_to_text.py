"""Translation on a backbone with a decoder of its own: how rows are framed, and what it has no settings for."""

import logging
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfft
from tests.conftest import build
from tfft.data import load_rows
from tfft.errors import InvalidValueError
from tfft.examples import each, lengths, own_lengths
from tfft.pretrained import NEXT
from tfft.tasks.task import on_backbone
from tfft.tokenizing import written

ROWS = [
    {"source": "the movie was good", "target": "der Film war gut"},
    {"source": "great film !", "target": "gro\u00dfer Film!"},
    {"source": "a", "target": "eine sch\u00f6ne Geschichte \u5305"},
]
PLAIN: dict[str, Any] = {"target_length": None, "decoding": ()}


# Byte pairs are slow: tracing KerasHub's tokenizer takes seconds.
@pytest.fixture(scope="module", params=["t5", pytest.param("bart", marks=pytest.mark.slow)])
def writer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, str]:
    return *build(request.param, tmp_path_factory.mktemp("writer")), request.param


def encoded(writer: tuple[Any, Any, str], **options: Any) -> Any:
    task = on_backbone(tfft.get_task("translation"), *writer[:2])
    rows = load_rows(ROWS, task=task)
    facts = task.learn(rows, **PLAIN | options)
    return task, facts, rows, task.encode(rows, writer[1], facts)


def test_texts_are_framed_as_in_pretraining(writer: Any) -> None:
    _, facts, rows, examples = encoded(writer)
    start, end = facts["start"], facts["end"]
    tokenizer = writer[1]
    if writer[2] == "bart":
        assert start == [tokenizer.end_token_id, tokenizer.start_token_id]
        assert facts["source_start"] == [tokenizer.start_token_id]
    else:
        assert start == [tokenizer.pad_token_id]
        assert facts["source_start"] == []
    for number, row in rows.iterrows():
        before, following = (each(examples.x[name])[number] for name in ("decoder_token_ids", NEXT))
        weight, source = each(examples.weight)[number], each(examples.x["encoder_token_ids"])[number]
        assert before[: len(start)].tolist() == start
        np.testing.assert_array_equal(before[1:], following[:-1])
        learnt = following[weight > 0]
        assert learnt[-1] == end
        assert len(learnt) == len(before) - len(start) + 1
        assert written(tokenizer, tf.constant([learnt])).numpy()[0].decode().strip() == row["target"]
        assert source[-1] == facts["source_end"][0]
        assert written(tokenizer, tf.constant([source])).numpy()[0].decode().strip() == row["source"]


def test_sources_and_targets_have_lengths_of_their_own(writer: Any) -> None:
    _, _, _, examples = encoded(writer)
    sources = [len(row) for row in each(examples.x["encoder_token_ids"])]
    targets = [len(row) for row in each(examples.x["decoder_token_ids"])]
    assert lengths(examples.x).tolist() == sources
    assert own_lengths(examples.x).tolist() == targets
    assert sources != targets


def test_long_targets_are_cut_and_counted(writer: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, facts, _, examples = encoded(writer, target_length=5)
    assert "targets are longer than 5 pieces and were cut" in caplog.text
    assert max(len(row) for row in each(examples.x[NEXT])) == 5 + len(facts["start"]) - 1
    assert all(row[-1] == facts["end"] for row in each(examples.x[NEXT]))


def test_what_is_asked_is_fed_to_an_export_as_it_is_encoded(writer: Any) -> None:
    task, facts, rows, _ = encoded(writer)
    sources = rows[["source"]].assign(source=["the movie was good , very good", "", "caf\u00e9 \U0001f600"])
    for length in (5, 64):
        cut, _ = task.cut(task.encode(sources, writer[1], facts), writer[1], length)
        feed = tf.function(lambda t, n=length: task.feed({"source": t}, writer[1], facts, (), n))
        fed = feed(tf.constant(sources["source"].tolist()))
        for number, row in enumerate(each(cut.x["encoder_token_ids"])):
            assert len(row) <= length
            np.testing.assert_array_equal(fed["encoder_token_ids"][number][: len(row)], row)
            assert fed["encoder_padding_mask"][number].numpy().sum() == len(row)


def test_settings_of_a_new_decoder_are_refused(presets: Any, tmp_path: Any) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("source,target\n" + "".join(f"a {i},b {i}\n" for i in range(30)), "utf-8")
    given = {"task": "translation", "data": str(data), "out": str(tmp_path / "x"), "backbone": str(presets("t5"))}
    with pytest.raises(InvalidValueError, match="no decoder_layers on a backbone with a decoder of its own"):
        tfft.train(**given, decoder_layers=2)
    assert not (tmp_path / "x").exists()
