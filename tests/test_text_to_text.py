"""Texts in, texts out: rows, lengths, vocabulary, what may be copied, and how a run writes."""

import csv
import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tfft
from tfft import copying, offsets, vocabulary
from tfft.batching import batches
from tfft.data import load_rows
from tfft.errors import DataError, InvalidValueError
from tfft.examples import lengths, own_lengths
from tfft.runs import Run
from tfft.tasks import text_to_text as shared

ROWS = [
    {"source": "the movie was good", "target": "der Film war gut"},
    {"source": "great film !", "target": "großer Film!"},
    {"source": "a lovely story", "target": "eine schöne Geschichte 包"},
    {"source": "i was fine and it is great", "target": "mir ging es gut, und es ist großartig"},
]
SMALL: dict[str, Any] = {"decoder_layers": 1, "vocabulary_size": 340, "target_length": None, "decoding": ()}


@pytest.fixture(scope="module")
def bert(presets: Any) -> tuple[Any, Any]:
    return tfft.load_backbone(presets("bert"))


def encoded(tokenizer: Any, *, copy: bool = False, rows: list[dict[str, str]] = ROWS, **more: Any) -> Any:
    task = tfft.get_task("translation")
    checked = load_rows(rows, task=task)
    facts = task.learn(checked, **SMALL | {"copy": copy} | more)
    return task, facts, task.encode(checked, tokenizer, facts), checked


def test_targets_end_and_have_lengths_of_their_own(bert: Any) -> None:
    _, facts, examples, rows = encoded(bert[1])
    ids = examples.x[shared.TARGET]
    for place, text in enumerate(rows["target"]):
        row = ids.values[ids.starts[place] :][: ids.lengths[place]].tolist()
        assert row[-1] == vocabulary.END
        assert vocabulary.decoded(facts["vocabulary"], [row]) == [text]
    assert (own_lengths(examples.x) == ids.lengths).all()
    assert (lengths(examples.x) == examples.x["token_ids"].row_lengths().numpy()).all()  # the sources' alone


def test_batches_pad_sources_and_targets_each_to_their_longest(bert: Any) -> None:
    _, _, examples, _ = encoded(bert[1])
    names = ["token_ids", "padding_mask", "segment_ids", shared.TARGET]
    seen = 0
    for x, y, weight in batches(examples, names, 2, seed=0):
        assert x["token_ids"].shape == x["padding_mask"].shape
        assert x[shared.TARGET].shape == y.shape == weight.shape
        real = (x[shared.TARGET].numpy() != vocabulary.PAD).sum(axis=1)
        assert real.max() == x[shared.TARGET].shape[1]
        assert (weight.numpy().sum(axis=1) == real).all()
        seen += len(y)
    assert seen == len(ROWS)


def test_long_targets_are_cut_and_counted(bert: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tfft"):
        _, facts, examples, _ = encoded(bert[1], target_length=5)
    assert facts["longest"] == 5
    assert "of 4 targets are longer than 5 pieces and were cut" in caplog.text
    ids = examples.x[shared.TARGET]
    assert ids.lengths.max() == 5
    assert (ids.values[ids.starts + ids.lengths - 1] == vocabulary.END).all()


def test_characters_the_backbone_does_not_know_are_counted(bert: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows = [*ROWS, {"source": "the \u0e01\u0e02 movie", "target": "x"}]
    with caplog.at_level(logging.WARNING, "tfft"):
        encoded(bert[1], rows=rows)
    assert "1 of 5 sources have characters the backbone's vocabulary lacks" in caplog.text


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"source": None, "target": "x"}, "1 of 5 rows have no source"),
        ({"source": " ", "target": "x"}, "1 of 5 rows have an empty source"),
        ({"source": "x", "target": None}, "1 of 5 rows have no target"),
        ({"source": "x", "target": "\t"}, "1 of 5 rows have an empty target"),
        ({"source": "x"}, "1 of 5 rows have no target"),
    ],
)
def test_unusable_rows_are_named_or_dropped(row: dict[str, Any], said: str) -> None:
    task = tfft.get_task("translation")
    with pytest.raises(DataError, match=said):
        load_rows([*ROWS, row], task=task)
    assert len(load_rows([*ROWS, row], task=task, bad_rows="drop")) == 4


def test_a_vocabulary_too_small_is_refused_before_anything_is_trained() -> None:
    task = tfft.get_task("translation")
    with pytest.raises(DataError, match="no vocabulary of 262 pieces can be learnt"):
        task.learn(load_rows(ROWS, task=task), **SMALL | {"copy": False, "vocabulary_size": 262})
    with pytest.raises(InvalidValueError, match="no setting 'beam'"):
        task.learn(load_rows(ROWS, task=task), **SMALL | {"copy": False, "decoding": ("beam=2",)})


@pytest.mark.parametrize("family", ["bert", "albert", pytest.param("roberta", marks=pytest.mark.slow)])
def test_what_may_be_copied_knows_where_it_stands(presets: Any, family: str) -> None:
    """Each piece lies in the token it points to, or begins in the space before it."""
    _, tokenizer = tfft.load_backbone(presets(family))
    texts = ["the movie was good", "", "a great   film , it is", "not good ! café"]
    # One of its own: a preset's random weights are seeded, which kills tables that were there (tfft/seeding.py).
    model = vocabulary.learn([row["target"] for row in ROWS] * 3 + texts, 330 + len(family))
    x = copying.graph(tokenizer, model, ())(tf.constant(texts))
    read = tf.function(lambda t: offsets.pieces(tokenizer, t))(tf.constant(texts))
    own = tf.function(lambda t: offsets.pieces(vocabulary.tokenizer(model), t))(tf.constant(texts))
    begins = 1  # the start token
    for row, text in enumerate(texts):
        ids, places = x[copying.IDS][row].numpy(), x[copying.PLACES][row].numpy() - begins
        assert " ".join(vocabulary.decoded(model, [ids])[0].split()) == " ".join(text.split())
        starts, ends = read.starts[row].numpy(), read.ends[row].numpy()
        for start, place in zip(own.starts[row].numpy(), places, strict=True):
            assert starts[place] <= start < ends[place], (text, start)


def test_what_is_cut_off_cannot_be_copied(bert: Any) -> None:
    task, facts, examples, rows = encoded(bert[1], copy=True)
    cut, longer = task.cut(examples, bert[1], 5)
    assert longer == 2
    kept = cut.x[copying.PLACES]
    for place in range(len(rows)):
        own = kept.values[kept.starts[place] :][: kept.lengths[place]]
        assert own.max() < 4  # the fifth is the end
    fed = tf.function(lambda t: task.feed({"source": t}, bert[1], facts, (), 5))(tf.constant(list(rows["source"])))
    for name in (copying.IDS, copying.PLACES, "token_ids"):
        value = cut.x[name]
        dense = fed[name].numpy()
        for place in range(len(rows)):
            ragged = (
                value[place].numpy()
                if isinstance(value, tf.RaggedTensor)
                else value.values[value.starts[place] :][: value.lengths[place]]
            )
            assert dense[place, : len(ragged)].tolist() == ragged.tolist()


def settings(out: Path, rows: list[dict[str, str]], preset: Path, **more: Any) -> dict[str, Any]:
    data = out.parent / "rows.jsonl"
    pd.DataFrame(rows).to_json(data, orient="records", lines=True)
    given = {"data": data, "out": out, "task": "translation", "backbone": preset, "vocabulary_size": 340}
    return given | {"epochs": 2, "decoder_layers": 1, "cache_dir": str(out.parent / "cache")} | more


@pytest.fixture(scope="module")
def run(presets: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "x"
    return tfft.train(**settings(folder, ROWS * 8, presets("bert"), freeze="1", decoding=("beams=2",), average=2))


def test_a_run_says_how_it_wrote(run: Path) -> None:
    read = tfft.load_run(run)
    assert read.config["average"] == 2
    assert read.config["label_smoothing"] == 0.1
    assert read.config["vocabulary_size"] == 340
    assert read.facts["decoding"]["beams"] == 2
    assert {"bleu", "chrf", "ter", "signatures", "empty", "repeated"} <= set(read.metrics["test"])
    assert "samples" not in read.metrics["test"]
    with (run / "samples_test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"which", "score", "source", "target", "written"}
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        history = list(csv.DictReader(file))
    assert float(history[0]["perplexity"]) > 1
    assert float(history[0]["val_perplexity"]) > 1


def test_a_run_can_write_otherwise(run: Path) -> None:
    read = tfft.load_run(run)
    short = tfft.with_decoding(read, {"max_length": "1", "beams": 1})
    assert short.facts["decoding"] == read.facts["decoding"] | {"max_length": 1, "beams": 1}
    pieces = [len(tfft.predict_texts(one, ["the movie was good"])[0]["written"].split()) for one in (read, short)]
    assert pieces[1] <= 1
    with pytest.raises(InvalidValueError, match="has no setting 'beam'"):
        tfft.with_decoding(read, {"beam": 1})


def test_only_runs_that_write_have_a_decoding() -> None:
    task = tfft.get_task("text-classification")
    read = Run(None, None, task, {"labels": []}, {})  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="text-classification writes no text"):
        tfft.with_decoding(read, {"beams": 1})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"monitor": "score"}, "monitor=score would have translation write every validation text"),
        ({"long_rows": "stop", "max_length": 6}, "rows are longer than 6 tokens"),
        ({"task": "text-regression"}, "text-regression has no decoder_layers, vocabulary_size"),
        ({"class_weight": "balanced"}, "class_weight"),
        ({"pooling": "mean"}, "has no pooling"),
        ({"decoding": ("beams=0",)}, "beams must be"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(more: Any, said: str, presets: Any, tmp_path: Path) -> None:
    with pytest.raises(tfft.TfftError, match=said) as caught:
        tfft.train(**settings(tmp_path / "x", ROWS * 8, presets("bert"), **more))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_frozen_states_are_stored_once_for_learning_and_writing(
    presets: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tfft"):
        tfft.train(**settings(tmp_path / "x", ROWS * 8, presets("bert"), freeze="all", cache="always"))
    assert len(list((tmp_path / "cache").iterdir())) == 3  # training, validation and test rows


def test_int8_and_onnx_are_refused(run: Path, tmp_path: Path) -> None:
    read = tfft.load_run(run)
    with pytest.raises(InvalidValueError, match="translation writes texts"):
        tfft.export_saved_model(read, tmp_path / "m", precision="int8", rows=load_rows(ROWS, task=read.task))
    with pytest.raises(tfft.TfftError):
        tfft.export_onnx(read, tmp_path / "m")
    assert not (tmp_path / "m" / "1").exists()


def test_scores_are_of_what_was_written(bert: Any) -> None:
    task, facts, examples, rows = encoded(bert[1])
    ids = examples.x[shared.TARGET]
    outputs = np.zeros((len(rows), 1 + facts["longest"]))
    for place in range(len(rows)):
        outputs[place, 1 : ids.lengths[place]] = ids.values[ids.starts[place] :][: ids.lengths[place] - 1]
    scores = task.score(outputs, examples, rows, facts)
    assert scores["bleu"] == pytest.approx(100)
    assert scores["empty"] == 0
    assert [row["written"] for row in scores["samples"]] == [row["target"] for row in scores["samples"]]
    nothing = task.score(np.zeros_like(outputs), examples, rows, facts)
    assert nothing["bleu"] == 0
    assert nothing["empty"] == 1


def test_a_summary_has_the_lead_beside_it() -> None:
    task = tfft.get_task("summarization")
    rows = load_rows([{"document": "the movie was good", "summary": "the movie"}] * 2, task=task)
    facts = task.learn(rows, **{**task.options, "vocabulary_size": 300})
    scores = task.score(np.zeros((2, 9)), None, rows, facts)
    assert scores["lead_rouge1"] == pytest.approx(100)
    assert scores["rouge1"] == 0
    assert dataclasses.is_dataclass(task)
    assert facts["copy"] is True
