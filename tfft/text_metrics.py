"""Scores of written texts. sacreBLEU and rouge-score compute them, as papers report them; this file names them.

Both are imported inside the functions, because they take seconds to import and few users need them.
"""

import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from tfft.errors import InvalidValueError

ROUGE = ("rouge1", "rouge2", "rougeL")
HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
# Han, kana, Thai, Lao, Tibetan, Burmese, Khmer: words are not parted by spaces
SPACELESS = re.compile(HAN.pattern[:-1] + r"\u3040-\u30ff\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]")
REPEAT = 3  # words of a sequence that a text repeats only if it is stuck, or quotes itself


def translation(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Scores of translations over a whole set of rows (never a mean over rows), by sacreBLEU.

    TER takes nearly all of the time: a thousand rows take seconds at 15 words each, and minutes at 60.

    Args:
        hypotheses: the text written for each row; "" counts as a text that says nothing.
        references: the right translation of each row.

    Returns:
        bleu (tokens of `tokenizer_for`, cased; 0 where no row has four, however right) and chrf (chrF2: characters,
        cased), 0 to 100, higher is better; ter (words, of Chinese and Japanese characters, to edit per 100 of
        the reference, lower-cased), lower is better, over 100 where texts are too long; signatures: name -> sacreBLEU's
        own line, with its version; rows.

    Raises:
        InvalidValueError: there are no rows, or not as many references as hypotheses.

    Examples:
        >>> from tfft.text_metrics import translation
        >>> translation(["the cat sat on the mat"], ["the cat sat on the rug"])["ter"]
        16.666666666666664
    """
    _paired(hypotheses, references=references)
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    tokens = tokenizer_for(references)
    by_character = tokens != "13a"
    ter = TER(normalized=by_character, asian_support=by_character)
    scorers = {"bleu": BLEU(tokenize=tokens), "chrf": CHRF(), "ter": ter}
    scores: dict[str, Any] = {
        name: float(scorer.corpus_score(list(hypotheses), [list(references)]).score) for name, scorer in scorers.items()
    }
    # A signature counts the references a row has, so it is known only after scoring.
    scores["signatures"] = {name: str(scorer.get_signature()) for name, scorer in scorers.items()}
    return scores | {"rows": len(hypotheses)}


def tokenizer_for(references: Sequence[str]) -> str:
    """What sacreBLEU parts texts by: "zh" for Chinese, "char" for other scripts without spaces, else "13a".

    Decided by most of the letters: by spaces a Chinese sentence is one token, and the best translation scores 0.

    Examples:
        >>> from tfft.text_metrics import tokenizer_for
        >>> tokenizer_for(["老师买了一本书。"]), tokenizer_for(["一 is written one"])
        ('zh', '13a')
    """
    letters = [letter for text in references for letter in text if letter.isalpha()]
    spaceless = [letter for letter in letters if SPACELESS.match(letter)]
    if 2 * len(spaceless) <= len(letters):
        return "13a"
    return "zh" if all(HAN.match(letter) for letter in spaceless) else "char"


def summarization(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """ROUGE of summaries (Lin 2004), with stemmed words: mean over rows of F, times 100.

    Letters other than a-z and digits part words, as in the original: texts in another script score 0.

    Args:
        hypotheses: the summary written for each row; "" scores 0.
        references: the right summary of each row; one of no words scores 0.

    Returns:
        rouge1 and rouge2 (words and pairs of words shared), rougeL (longest common subsequence of the whole text); 0
        to 100, higher is better; signatures: how they were computed, with the version of rouge-score; rows.

    Raises:
        InvalidValueError: there are no rows, or not as many references as hypotheses.

    Examples:
        >>> from tfft.text_metrics import summarization
        >>> summarization(["the cat sat"], ["the cats sat down"])["rouge2"]
        80.0
    """
    _paired(hypotheses, references=references)
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    scorer = RougeScorer(ROUGE, use_stemmer=True)
    rows = [scorer.score(right, written) for written, right in zip(hypotheses, references, strict=True)]
    scores: dict[str, Any] = {name: 100 * float(np.mean([row[name].fmeasure for row in rows])) for name in ROUGE}
    scores["signatures"] = {"rouge": f"rouge-score {version('rouge-score')}, stemmed, F, mean over rows"}
    return scores | {"rows": len(rows)}


def lead(texts: Sequence[str], words: int) -> list[str]:
    """The first words of each text, parted by one space: a summary that costs nothing, to compare others with.

    Args:
        texts: what is to be summarized.
        words: how many to take; a shorter text is taken whole.

    Raises:
        InvalidValueError: there are no rows, or `words` is less than 1.

    Examples:
        >>> from tfft.text_metrics import lead
        >>> lead(["The cat sat. It slept."], 3)
        ['The cat sat.']
    """
    _paired(texts)
    if words < 1:
        raise InvalidValueError(f"a lead has one word or more. Received: words={words}")
    return [" ".join(text.split()[:words]) for text in texts]


def sentence_chrf(hypothesis: str, reference: str) -> float:
    """chrF2 of one text, 0 to 100. Of the scores here it says most about a single row: it needs no shared word.

    Examples:
        >>> from tfft.text_metrics import sentence_chrf
        >>> sentence_chrf("", "a cat")
        0.0
    """
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().sentence_score(hypothesis, [reference]).score)


def samples(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    score: Callable[[str, str], float],
    each: int = 5,
) -> list[dict[str, Any]]:
    """Rows to read beside the scores: the best, those around the median, and the worst.

    Args:
        sources: what each text was written from.
        hypotheses: the text written for each row.
        references: the right text of each row.
        score: of a hypothesis and its reference, such as `sentence_chrf`; higher is better.
        each: how many of a kind. Fewer than three times as many rows are shared out, so that none stands twice.

    Returns:
        Rows from the best to the worst, those of equal score in their order: which ("best", "median" or "worst"),
        score, source, target (the reference) and written (the hypothesis).

    Raises:
        InvalidValueError: there are no rows, not as many of one side as of another, or `each` is less than 1.

    Examples:
        >>> from tfft.text_metrics import samples, sentence_chrf
        >>> rows = samples(["eins", "zwei"], ["one", "six"], ["one", "two"], sentence_chrf)
        >>> [(row["which"], row["written"]) for row in rows]
        [('best', 'one'), ('worst', 'six')]
    """
    _paired(hypotheses, references=references, sources=sources)
    if each < 1:
        raise InvalidValueError(f"samples are one of a kind or more. Received: each={each}")
    scores = [float(score(written, right)) for written, right in zip(hypotheses, references, strict=True)]
    order = sorted(range(len(scores)), key=lambda row: -scores[row])  # a stable sort
    rows = len(order)
    # Of rows that do not go round, the best get one more, then the worst: the two that are read first.
    best, worst, median = (min(each, (rows + more) // 3) for more in (2, 1, 0))
    middle = (rows - median + 1) // 2
    kinds = {"best": order[:best], "median": order[middle : middle + median], "worst": order[rows - worst :]}
    return [
        {
            "which": which,
            "score": scores[row],
            "source": sources[row],
            "target": references[row],
            "written": hypotheses[row],
        }
        for which, chosen in kinds.items()
        for row in chosen
    ]


def repeated(hypotheses: Sequence[str]) -> float:
    """Share of texts, 0 to 1, that say some three words twice in the same order: a sign of a decoder that loops.

    Words are parted by spaces and compared as they stand, so a text without spaces never counts.

    Args:
        hypotheses: the text written for each row.

    Raises:
        InvalidValueError: there are no rows.

    Examples:
        >>> from tfft.text_metrics import repeated
        >>> repeated(["it is a cat it is a cat", "it is a cat"])
        0.5
    """
    _paired(hypotheses)
    return float(np.mean([_repeats(text.split()) for text in hypotheses]))


def _repeats(words: list[str]) -> bool:
    runs = [tuple(words[i : i + REPEAT]) for i in range(len(words) - REPEAT + 1)]
    return len(set(runs)) < len(runs)


def _paired(hypotheses: Sequence[str], **others: Sequence[str]) -> None:
    """Raises where there is nothing to score, or nothing to score it by."""
    for name, texts in others.items():
        if len(texts) != len(hypotheses):
            raise InvalidValueError(
                f"expected one of the {name} for each hypothesis. Received: {len(hypotheses)} hypotheses, "
                f"{len(texts)} {name}"
            )
    if not len(hypotheses):
        raise InvalidValueError("there are no texts. Give one row or more")
