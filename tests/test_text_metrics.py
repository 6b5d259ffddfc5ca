"""Scores of written texts: by hand, against direct calls of the libraries, and with texts that say nothing."""

import logging
import math
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
import sacrebleu
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from tfft import text_metrics
from tfft.errors import InvalidValueError

WRITTEN = ["The cat sat on the mat.", "It is NOT a very good film, is it?", "", "Two dogs ran"]
RIGHT = ["The cat sat on a mat.", "it isn't a very good film", "Nothing.", "Two dogs were running home"]

# Words, so that texts share some; and any characters, so that no tokenizer is spared.
WORDS = ["the", "a", "cat", "cats", "sat", "Mat", ",", "."]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=12)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)


def test_translation_is_sacrebleus() -> None:
    scores = text_metrics.translation(WRITTEN, RIGHT)
    assert scores["bleu"] == sacrebleu.corpus_bleu(WRITTEN, [RIGHT]).score
    assert scores["chrf"] == sacrebleu.corpus_chrf(WRITTEN, [RIGHT]).score
    assert scores["ter"] == sacrebleu.corpus_ter(WRITTEN, [RIGHT]).score
    assert scores["rows"] == 4
    assert all(0 < scores[name] < 100 for name in ("bleu", "chrf", "ter"))


def test_translation_says_how_it_was_computed() -> None:
    signatures = text_metrics.translation(WRITTEN, RIGHT)["signatures"]
    by = f"version:{version('sacrebleu')}"
    assert signatures == {
        "bleu": f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{by}",
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{by}",
        "ter": f"nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|{by}",
    }


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("老师昨天在图书馆买了一本红色的书。", "zh"),
        ("先生は昨日図書館で赤い本を買いました。", "char"),
        ("ครูซื้อหนังสือสีแดงเมื่อวานนี้", "char"),
    ],
)
def test_scripts_without_spaces_are_counted_by_characters(text: str, tokens: str) -> None:
    scores = text_metrics.translation([text], [text])
    assert scores["bleu"] == pytest.approx(100)
    assert scores["ter"] == 0
    assert f"tok:{tokens}|" in scores["signatures"]["bleu"]
    worse = text_metrics.translation([text[:-4]], [text])
    assert 0 < worse["bleu"] < 100
    assert worse["ter"] > 0  # of Thai sacreBLEU's TER knows no characters
    assert worse["ter"] < 100 or tokens == "char"


def test_some_chinese_in_another_language_is_no_chinese() -> None:
    assert text_metrics.tokenizer_for(["The word 老师 means teacher."]) == "13a"
    assert text_metrics.tokenizer_for(["123 ..."]) == "13a"


def test_bleu_by_hand() -> None:
    scores = text_metrics.translation(["the cat sat on the mat"], ["the cat sat on the rug"])
    assert scores["bleu"] == pytest.approx(100 * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** (1 / 4))
    short = text_metrics.translation(["a b c d"], ["a b c d e f"])  # all of it right, but too short
    assert short["bleu"] == pytest.approx(100 * math.exp(1 - 6 / 4))
    assert text_metrics.translation(["A b c d e"], ["a b c d e"])["bleu"] < 100  # cased


@pytest.mark.parametrize(
    ("written", "right", "chrf"),
    [
        ("ab", "ac", 100 * (1 / 2 + 0) / 2),  # one letter of two, no pair of one
        ("abc", "ab", 100 * 5 * (7 / 12) / (4 * (7 / 12) + 1)),  # precision (2/3 + 1/2) / 2, recall 1
        ("a b", "ab", 100.0),  # spaces are no characters
        ("ab", "AB", 0.0),
        ("", "ab", 0.0),
        ("ab", "", 0.0),
        ("", "", 0.0),
    ],
)
def test_chrf_by_hand(written: str, right: str, chrf: float) -> None:
    assert text_metrics.translation([written], [right])["chrf"] == pytest.approx(chrf)
    assert text_metrics.sentence_chrf(written, right) == pytest.approx(chrf)
    assert text_metrics.sentence_chrf(written, right) == sacrebleu.sentence_chrf(written, [right]).score


@pytest.mark.parametrize(
    ("written", "right", "ter"),
    [
        (["the cat sat on the mat"], ["the cat sat on the rug"], 100 / 6),
        (["c d a b"], ["a b c d"], 100 / 4),  # moving words together is one edit
        (["THE CAT"], ["the cat"], 0.0),
        (["a", "b c d"], ["x", "b c d"], 100 / 4),  # of all words: a mean over rows would be 50
        (["a b c d e"], ["a b"], 150.0),
        ([""], ["a b"], 100.0),
        (["a b"], [""], 100.0),
        ([""], [""], 0.0),
    ],
)
def test_ter_by_hand(written: list[str], right: list[str], ter: float) -> None:
    assert text_metrics.translation(written, right)["ter"] == pytest.approx(ter)


def test_identical_texts_have_the_best_scores() -> None:
    texts = [text for text in RIGHT if text]
    scores = text_metrics.translation(texts, texts)
    assert scores["bleu"] == pytest.approx(100)
    assert scores["chrf"] == pytest.approx(100)
    assert scores["ter"] == 0
    assert text_metrics.translation(texts[:1], texts[:1])["bleu"] == pytest.approx(100)  # of one row, too
    summary = text_metrics.summarization(texts[:2], texts[:2])
    assert {name: summary[name] for name in text_metrics.ROUGE} == pytest.approx(dict.fromkeys(text_metrics.ROUGE, 100))


def test_bleu_of_texts_without_four_words_is_zero_however_right() -> None:
    scores = text_metrics.translation(["a b c"], ["a b c"])
    assert scores["bleu"] == 0
    assert scores["chrf"] == 100


def test_summarization_is_rouge_scores() -> None:
    scores = text_metrics.summarization(WRITTEN, RIGHT)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    rows = [scorer.score(target=right, prediction=written) for written, right in zip(WRITTEN, RIGHT, strict=True)]
    for name in ("rouge1", "rouge2", "rougeL"):
        assert scores[name] == pytest.approx(100 * sum(row[name].fmeasure for row in rows) / 4)
    assert scores["signatures"] == {"rouge": f"rouge-score {version('rouge-score')}, stemmed, F, mean over rows"}
    assert scores["rows"] == 4


@pytest.mark.parametrize(
    ("written", "right", "scores"),
    [
        ("the cat sat", "the cats sat down", (2 * 3 / 7, 2 * 2 / 5, 2 * 3 / 7)),  # "cats" is stemmed
        ("sat the cat", "the cat sat", (1.0, 2 * 1 / 4, 2 * 2 / 6)),
        ("The cat!", "the, cat", (1.0, 1.0, 1.0)),
        ("the the the", "the cat", (2 * 1 / 5, 0.0, 2 * 1 / 5)),
        ("cat", "cat", (1.0, 0.0, 1.0)),  # one word has no pairs
        ("", "the cat", (0.0, 0.0, 0.0)),
        ("the cat", "", (0.0, 0.0, 0.0)),
        ("", "", (0.0, 0.0, 0.0)),
        ("\u732b", "\u732b", (0.0, 0.0, 0.0)),  # no letter of a-z
    ],
)
def test_rouge_by_hand(written: str, right: str, scores: tuple[float, ...]) -> None:
    found = text_metrics.summarization([written], [right])
    assert [found[name] / 100 for name in text_metrics.ROUGE] == pytest.approx(scores)
    halved = text_metrics.summarization([written, ""], [right, "a cat"])  # a mean over rows
    assert [halved[name] / 100 for name in text_metrics.ROUGE] == pytest.approx([score / 2 for score in scores])


@settings(deadline=None, max_examples=150)
@given(pairs=PAIRS)
@example(pairs=[("", "")])
@example(pairs=[("\n", "\u2028"), ("a", "")])
def test_scores_of_any_texts_are_numbers_in_range(pairs: list[tuple[str, str]]) -> None:
    written, right = map(tuple, zip(*pairs, strict=True))  # tuples serve as lists do
    scores = text_metrics.translation(written, right) | text_metrics.summarization(written, right)
    for name in ("bleu", "chrf", *text_metrics.ROUGE):
        assert -1e-9 <= scores[name] <= 100 + 1e-9
    assert 0 <= scores["ter"] < math.inf
    assert all(type(scores[name]) is float for name in ("bleu", "chrf", "ter", *text_metrics.ROUGE))
    assert 0 <= text_metrics.repeated(written) <= 1


@settings(deadline=None, max_examples=50)
@given(pairs=PAIRS, seed=st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(pairs: list[tuple[str, str]], seed: Any) -> None:
    def scored(rows: list[tuple[str, str]]) -> dict[str, float]:
        written, right = map(list, zip(*rows, strict=True))
        scores = text_metrics.translation(written, right) | text_metrics.summarization(written, right)
        return {name: scores[name] for name in ("bleu", "chrf", "ter", *text_metrics.ROUGE)}

    assert scored(seed.sample(pairs, len(pairs))) == pytest.approx(scored(pairs))


def test_lead_by_hand() -> None:
    texts = ["The cat sat.  It\nslept.", "Two dogs", "", " \n"]
    assert text_metrics.lead(texts, 4) == ["The cat sat. It", "Two dogs", "", ""]
    assert text_metrics.lead(texts, 1) == ["The", "Two", "", ""]


@pytest.mark.parametrize(
    ("text", "stuck"),
    [
        ("it is a cat it is a cat", True),
        ("it is a it is a", True),
        ("no no no", False),  # three words, said once
        ("no no no no", True),  # twice: what is said may overlap
        ("it is a cat, is it a cat?", False),
        ("it is it is", False),
        ("it is a cat It is a dog", False),  # "It" is not "it"
        ("a cat", False),
        ("", False),
    ],
)
def test_repeated_by_hand(text: str, stuck: bool) -> None:
    assert text_metrics.repeated([text]) == stuck
    assert text_metrics.repeated([text, "", "", ""]) == stuck / 4


def test_samples_by_hand() -> None:
    right = ["0", "9", "5", "2", "7", "4", "1", "8", "3", "6"]
    rows = text_metrics.samples([f"s{n}" for n in right], [f"w{n}" for n in right], right, lambda _, n: int(n), each=2)
    assert [(row["which"], row["score"]) for row in rows] == [
        ("best", 9),
        ("best", 8),
        ("median", 5),  # ten rows have two in the middle: 5 and 4
        ("median", 4),
        ("worst", 1),
        ("worst", 0),
    ]
    assert rows[0] == {"which": "best", "score": 9.0, "source": "s9", "target": "9", "written": "w9"}
    assert all(row["source"] == f"s{row['target']}" and row["written"] == f"w{row['target']}" for row in rows)


def test_samples_score_what_was_written_first() -> None:
    seen: list[tuple[str, str]] = []

    def score(written: str, right: str) -> float:
        seen.append((written, right))
        return 0.0

    text_metrics.samples(["s", "t"], ["w", "x"], ["r", "q"], score)
    assert seen == [("w", "r"), ("x", "q")]  # once a row


@pytest.mark.parametrize(
    ("rows", "shares"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1)), (5, (2, 1, 2)), (14, (5, 4, 5)), (99, (5, 5, 5))],
)
def test_few_rows_are_shared_out(rows: int, shares: tuple[int, int, int]) -> None:
    texts = [str(n) for n in range(rows)]
    found = text_metrics.samples(texts, texts, texts, lambda _, n: int(n))
    kinds = [row["which"] for row in found]
    assert tuple(kinds.count(which) for which in ("best", "median", "worst")) == shares


@settings(deadline=None, max_examples=300)
@given(scores=st.lists(st.integers(-3, 3) | st.floats(-1, 1), min_size=1, max_size=40), each=st.integers(1, 12))
def test_samples_are_ordered_and_no_row_stands_twice(scores: list[float], each: int) -> None:
    names = [str(n) for n in range(len(scores))]
    found = text_metrics.samples(names, names, names, lambda written, _: scores[int(written)], each)
    taken = [int(row["source"]) for row in found]
    assert len(set(taken)) == len(taken) == min(3 * each, len(scores))
    assert [row["score"] for row in found] == [scores[n] for n in taken]
    # All stand in the order of their scores, equal ones in that of their rows.
    assert taken == sorted(taken, key=lambda n: (-scores[n], n))
    kinds = [row["which"] for row in found]
    assert kinds == sorted(kinds)  # best, median, worst
    parts = {which: [row["score"] for row in found if row["which"] == which] for which in kinds}
    ranked = sorted(scores, reverse=True)
    assert parts["best"] == ranked[: len(parts["best"])]
    if "worst" in parts:
        assert parts["worst"] == ranked[-len(parts["worst"]) :]
    if "median" in parts:  # as many rows above as below, or one more above
        size = len(parts["median"])
        start = (len(ranked) - size + 1) // 2
        assert parts["median"] == ranked[start : start + size]
    assert max(map(len, parts.values())) <= each


def test_samples_by_chrf() -> None:
    found = text_metrics.samples(WRITTEN, WRITTEN, RIGHT, text_metrics.sentence_chrf, each=1)
    assert [row["written"] for row in found] == [WRITTEN[0], WRITTEN[3], ""]
    assert found[-1]["score"] == 0


PAIRED: dict[str, Callable[[list[str], list[str]], object]] = {
    "translation": text_metrics.translation,
    "summarization": text_metrics.summarization,
    "samples": lambda written, right: text_metrics.samples(written, written, right, text_metrics.sentence_chrf),
    "samples of sources": lambda written, right: text_metrics.samples(
        right, written, written, text_metrics.sentence_chrf
    ),
}


@pytest.mark.parametrize("name", PAIRED)
def test_each_text_needs_its_other(name: str) -> None:
    other = "sources" if "sources" in name else "references"
    for written, right in ((["a", "b"], ["a"]), (["a"], ["a", "b"]), ([], ["a"]), (["a"], [])):
        with pytest.raises(
            InvalidValueError, match=f"{other} .* {len(written)} hypotheses, {len(right)} {other}$"
        ) as caught:
            PAIRED[name](written, right)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        *(lambda of=of: of([], []) for of in PAIRED.values()),
        lambda: text_metrics.lead([], 3),
        lambda: text_metrics.repeated([]),
    ],
)
def test_no_rows_are_an_error_in_one_line(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidValueError, match=r"^there are no texts\. Give one row or more$"):
        call()


@pytest.mark.parametrize("count", [0, -1])
def test_less_than_one_is_an_error(count: int) -> None:
    with pytest.raises(InvalidValueError, match=f"Received: words={count}$"):
        text_metrics.lead(["a b"], count)
    with pytest.raises(InvalidValueError, match=f"Received: each={count}$"):
        text_metrics.samples(["a"], ["a"], ["a"], text_metrics.sentence_chrf, count)


def test_scoring_is_silent(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.WARNING):
        text_metrics.translation(WRITTEN, RIGHT)
        text_metrics.summarization(WRITTEN, RIGHT)
        text_metrics.sentence_chrf("", "")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_importing_it_imports_no_scorer() -> None:
    code = "import sys, tfft.text_metrics; print({'sacrebleu', 'rouge_score', 'nltk', 'tensorflow'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
