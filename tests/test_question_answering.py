"""Spans against a search of all of them, and places that are the answers', whatever the text."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import KEPT, WORDS, build
from tests.test_offsets import TEXTS, units_of
from tfft import evaluation, tasks
from tfft.examples import Examples, Ragged, as_arrays
from tfft.tasks import question_answering as qa

TASK = tasks.get_task("question-answering")
MAX_LENGTH = 16
QUESTION = "was it good"
Span = tuple[int, int]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Any:
    KEPT.append(build("bert", tmp_path_factory.mktemp("bert"))[1])
    return KEPT[-1]


def facts_of(unanswerable: int, threshold: float = 0.0) -> dict[str, Any]:
    return {"unanswerable": unanswerable, "null_threshold": threshold}


def rows_of(contexts: list[str], answers: list[list[tuple[int, str]]]) -> pd.DataFrame:
    columns = {"context": contexts, "question": [QUESTION] * len(contexts), "answers": answers}
    return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in columns.items()})


def encoded(rows: pd.DataFrame, tokenizer: Any) -> tuple[Examples, Examples]:
    """Whole rows, and windows of them."""
    whole = TASK.encode(rows, tokenizer, facts_of(0))
    return whole, TASK.cut(whole, tokenizer, MAX_LENGTH)[0]


def random_outputs(examples: Examples, seed: int) -> Ragged:
    """Logits as `evaluation.predict` gives them."""
    places = as_arrays(examples.x["token_ids"])
    values = np.random.default_rng(seed).normal(size=(len(places.values), 2), scale=3)
    return Ragged(values.astype("float32"), places.starts, places.lengths)


def every_span(logits: np.ndarray, x: dict[str, np.ndarray], row: int) -> dict[Span, float]:
    """Characters of each span of a row -> the best sum of logits."""
    found: dict[Span, float] = {}
    low, high = x["starts"], x["ends"]
    for window in np.flatnonzero(x["row"] == row):
        real = [i for i in range(logits.shape[1]) if 0 <= low[window, i] < high[window, i]]
        for first, last in itertools.product(real, real):
            if first <= last < first + 30:
                span = int(low[window, first]), int(high[window, last])
                score = float(logits[window, first, 0] + logits[window, last, 1])
                found[span] = max(score, found.get(span, score))
    return found


def best_spans(logits: np.ndarray, x: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    tensors = {name: tf.constant(value, tf.int32) for name, value in x.items()}
    return {n: v.numpy() for n, v in qa.best_spans(tf.constant(logits, tf.float32), tensors, tf.constant(rows)).items()}


@st.composite
def windows(draw: Any, shared: bool) -> tuple[dict[str, np.ndarray], np.random.Generator]:
    """Windows of one or two rows, neighbours of which overlap; whether tokens may stand for the same characters."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    length, before = draw(st.integers(4, 44)), draw(st.integers(1, 3))
    starts: list[list[int]] = []
    ends: list[list[int]] = []
    row: list[int] = []
    for number in range(draw(st.integers(1, 2))):
        room = length - before - 1
        count = draw(st.integers(1, 3))
        tokens = room + (count - 1) * (room - room // 3) if draw(st.booleans()) else draw(st.integers(0, room))
        low = np.cumsum(generator.integers(1, 4, tokens)) - 1
        if shared:
            low = low[np.arange(tokens) // 2 * 2]
        high = low + 1
        for begin in range(0, max(tokens - room // 3, 1), max(room - room // 3, 1)):
            for places, values in ((starts, low), (ends, high)):
                taken = values[begin : begin + room].tolist()
                places.append(([-1] * before + taken + [-1] * length)[:length])
            row.append(number)
    return {"starts": np.array(starts), "ends": np.array(ends), "row": np.array(row)}, generator


@settings(deadline=None, max_examples=40)
@given(made=windows(shared=False))
def test_best_spans_are_the_best_of_all(made: tuple[dict[str, np.ndarray], np.random.Generator]) -> None:
    x, generator = made
    logits = generator.normal(size=(*x["starts"].shape, 2)).astype("float32")
    rows = int(x["row"].max()) + 1
    found = best_spans(logits, x, rows)
    for row in range(rows):
        expected = sorted(every_span(logits, x, row).items(), key=lambda item: -item[1])[: qa.WINDOW_BEST]
        many = len(expected)
        spans = list(zip(found["start"][row].tolist(), found["end"][row].tolist(), strict=True))
        assert spans[:many] == [span for span, _ in expected]
        assert spans[many:] == [(-1, -1)] * (len(spans) - many)
        assert found["score"][row, :many] == pytest.approx([score for _, score in expected], abs=1e-5)
        first = logits[x["row"] == row, 0]
        assert found["null"][row] == pytest.approx(first.sum(axis=1).min(), abs=1e-5)


@settings(deadline=None, max_examples=40)
@given(made=windows(shared=True))
def test_spans_of_tokens_with_the_same_characters_stand_once(
    made: tuple[dict[str, np.ndarray], np.random.Generator],
) -> None:
    x, generator = made
    logits = generator.normal(size=(*x["starts"].shape, 2)).astype("float32")
    rows = int(x["row"].max()) + 1
    found = best_spans(logits, x, rows)
    for row in range(rows):
        expected = every_span(logits, x, row)
        places = zip(found["start"][row].tolist(), found["end"][row].tolist(), strict=True)
        spans = [span for span in places if span != (-1, -1)]
        assert bool(spans) == bool(expected)
        assert len(spans) == len(set(spans))
        scores = found["score"][row, : len(spans)]
        # Far behind, a span may be found by a lesser of its tokens: only so many of a window are looked at.
        assert scores[: qa.BEST] == pytest.approx([expected[span] for span in spans[: qa.BEST]], abs=1e-5)
        assert sorted(scores, reverse=True) == scores.tolist()
        if expected:
            assert spans[0] == max(expected, key=lambda span: expected[span])


def test_a_span_has_thirty_tokens_at_most() -> None:
    places = np.arange(40)[np.newaxis]
    x = {"starts": places, "ends": places + 1, "row": np.array([0])}
    logits = np.zeros((1, 40, 2), "float32")
    logits[0, 2, 0] = logits[0, 32, 1] = 10.0  # 31 tokens
    logits[0, 31, 1] = 9.0
    found = best_spans(logits, x, 1)
    assert (found["start"][0, 0], found["end"][0, 0], found["score"][0, 0]) == (2, 32, 19.0)


@st.composite
def asked(draw: Any) -> tuple[list[str], list[list[tuple[int, str]]]]:
    """Contexts with answers that begin and end with words of theirs, or with none."""
    contexts = draw(st.lists(TEXTS, min_size=1, max_size=3))
    answers: list[list[tuple[int, str]]] = []
    for context, units in zip(contexts, units_of(contexts), strict=True):
        answers.append([])
        if units and draw(st.booleans()):
            first = draw(st.integers(0, len(units) - 1))
            last = draw(st.integers(first, min(first + 6, len(units) - 1)))
            answers[-1].append((units[first][0], context[units[first][0] : units[last][1]]))
    return contexts, answers


@settings(deadline=None, max_examples=80)
@given(rows=asked())
@example(rows=(["\ufb01lm\u0301 Stra\u00dfe\tgood"], [[(5, "Stra\u00dfe")]]))
def test_windows_with_the_answer_have_its_tokens(
    rows: tuple[list[str], list[list[tuple[int, str]]]], bert: Any
) -> None:
    whole, cut = encoded(rows_of(*rows), bert)
    starts, ends, row = cut.x["starts"].to_list(), cut.x["ends"].to_list(), np.asarray(cut.x["row"])
    assert cut.y.shape == (len(starts), 2)
    for window, (first, last) in enumerate(cut.y.tolist()):
        answers = rows[1][row[window]]
        if (first, last) == (0, 0):
            if answers and (row == row[window]).sum() == 1:  # nothing cut off: it has no tokens of its own
                begin, end = answers[0][0], answers[0][0] + len(answers[0][1])
                places = list(zip(starts[window], ends[window], strict=True))
                assert not all(any(a <= place < b for a, b in places) for place in (begin, end - 1))
            continue
        assert answers
        begin, end = answers[0][0], answers[0][0] + len(answers[0][1])
        assert first <= last
        assert starts[window][first] <= begin < ends[window][first]
        assert starts[window][last] < end <= ends[window][last]
    assert whole.y.tolist() == [[a[0][0], a[0][0] + len(a[0][1])] if a else [-1, -1] for a in rows[1]]


@settings(deadline=None, max_examples=40)
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=30), data=st.data())
def test_just_the_windows_with_an_answer_of_words_have_it(words: list[str], data: st.DataObject, bert: Any) -> None:
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 2, len(words) - 1)))
    context, begin = " ".join(words), len(" ".join([*words[:first], ""]))
    rows = rows_of([context], [[(begin, " ".join(words[first : last + 1]))]])
    _, cut = encoded(rows, bert)
    begins = [len(" ".join([*words[:i], ""])) for i in range(len(words))]  # a word is a token
    expected = []
    for places in cut.x["starts"].to_list():
        numbers = [begins.index(place) if place >= 0 else -1 for place in places]
        both = first in numbers and last in numbers
        expected.append([numbers.index(first), numbers.index(last)] if both else [0, 0])
    assert cut.y.tolist() == expected
    assert any(first for first, _ in expected)  # three tokens are in some window whole: neighbours share as many


def test_windows_of_more_than_one_row_keep_their_rows_answers(bert: Any) -> None:
    contexts = ["very " * 30 + "good", "bad film", "very " * 30 + "dull"]
    places = [(150, "good")], [(4, "film")], [(150, "dull")]
    _, cut = encoded(rows_of(contexts, [list(one) for one in places]), bert)
    found = [
        contexts[row][cut.x["starts"].to_list()[window][first] : cut.x["ends"].to_list()[window][last]]
        for window, (row, (first, last)) in enumerate(zip(cut.x["row"].numpy(), cut.y.tolist(), strict=True))
        if first
    ]
    assert found == ["good", "film", "dull"]


def served(contexts: list[str], seed: int, facts: dict[str, Any], tokenizer: Any) -> list[dict[str, Any]]:
    rows = rows_of(contexts, [[] for _ in contexts])
    examples = encoded(rows, tokenizer)[1]
    return evaluation.answers(TASK, random_outputs(examples, seed), examples, rows, facts, tokenizer)


@settings(deadline=None, max_examples=50)
@given(contexts=st.lists(TEXTS, min_size=1, max_size=3), seed=st.integers(0, 2**32), unanswerable=st.integers(0, 1))
@example(contexts=["", "\ufeffgood", "very " * 40], seed=0, unanswerable=0)
@example(contexts=["\U0001f600\tgood \u5305\u88f9\uff0cok e\u0301"], seed=1, unanswerable=1)
def test_places_of_answers_are_the_contexts(contexts: list[str], seed: int, unanswerable: int, bert: Any) -> None:
    answers = served(contexts, seed, facts_of(unanswerable), bert)
    assert len(answers) == len(contexts)
    for context, answer in zip(contexts, answers, strict=True):
        assert set(answer) == {"text", "score", "start", "end", "answers"}
        context = context.replace("\x00", " ")  # NUL is read as a space
        for one in answer["answers"]:
            assert 0 <= one["start"] < one["end"] <= len(context)
            assert context[one["start"] : one["end"]] == one["text"]
        given_scores = [one["score"] for one in answer["answers"]]
        assert given_scores == sorted(given_scores, reverse=True)
        assert 0 <= sum(given_scores) <= 1 + 1e-5
        assert len(answer["answers"]) <= qa.BEST
        best = {name: answer[name] for name in ("text", "score", "start", "end")}
        if answer["start"] >= 0:
            assert best == answer["answers"][0]
        else:
            assert (answer["text"], answer["start"], answer["end"]) == ("", -1, -1)
            assert unanswerable or not answer["answers"]


@settings(deadline=None, max_examples=40)
@given(
    contexts=st.lists(TEXTS, min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
    unanswerable=st.sampled_from([1, 1, 0]),
    beyond=st.sampled_from([-0.1, 0.1]),  # the threshold lies just below or above what "no answer" wins by
)
def test_scored_answers_are_those_that_are_served(
    contexts: list[str], seed: int, unanswerable: int, beyond: float, bert: Any
) -> None:
    contexts = [context.replace("\x00", " ") for context in contexts]
    unknown = rows_of(contexts, [[] for _ in contexts])
    examples = encoded(unknown, bert)[1]
    margin = float(qa._answers(random_outputs(examples, seed), examples, unknown)[1][-1])
    known = facts_of(unanswerable, margin + beyond)
    answers = served(contexts, seed, known, bert)
    truth = [[(one["start"], one["text"])] if one["text"] else [] for one in answers]
    rows = rows_of(contexts, truth)
    examples = encoded(rows, bert)[1]
    assert TASK.score(random_outputs(examples, seed), examples, rows, known)["exact"] == 1.0


@settings(deadline=None, max_examples=30)
@given(
    words=st.lists(st.lists(st.sampled_from(WORDS[:-6]), min_size=1, max_size=20), min_size=2, max_size=6),
    seed=st.integers(0, 2**32),
)
@example(words=[["the", "good"], ["very", "bad", "film"]], seed=72)  # an answer of no words is matched by none
def test_no_threshold_is_better_than_the_tuned_one(words: list[list[str]], seed: int, bert: Any) -> None:
    contexts = [" ".join(row) for row in words]
    draw = np.random.default_rng(seed).integers(0, 2, len(words))
    answers = [[(0, row[0])] if has else [] for row, has in zip(words, draw, strict=True)]
    rows = rows_of(contexts, answers)
    examples = encoded(rows, bert)[1]
    outputs = random_outputs(examples, seed)
    tuned = TASK.tune(outputs, examples, rows, facts_of(1)) if TASK.tune else {}
    reached = TASK.score(outputs, examples, rows, tuned)["f1"]
    for threshold in (-100.0, *np.linspace(-15, 15, 31), 100.0):
        assert reached >= TASK.score(outputs, examples, rows, facts_of(1, float(threshold)))["f1"] - 1e-9


def test_nothing_is_tuned_where_every_question_has_an_answer(bert: Any) -> None:
    rows = rows_of(["good film"], [[(0, "good")]])
    examples = encoded(rows, bert)[1]
    assert TASK.tune is not None
    assert TASK.tune(random_outputs(examples, 0), examples, rows, facts_of(0, 3.0)) == facts_of(0, 3.0)
