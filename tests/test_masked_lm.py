"""Hidden words of real text: what is hidden, what is guessed, and that a backbone gets better at it."""

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tfft
from tests.conftest import KEPT, build
from tests.test_offsets import ODD, PARTS
from tfft import guessing, heads, offsets
from tfft.errors import DataError, InvalidValueError
from tfft.examples import Examples, Ragged, as_arrays, take
from tfft.guessing import BEST, GIVEN, UNKNOWN
from tfft.runs import Run
from tfft.seeding import is_seed, set_seed
from tfft.tasks import masked_lm

TASK = tfft.get_task("masked-lm")
FACTS = {"texts": 2}
TOKENIZERS = ("bert", "roberta", "albert")  # WordPiece, byte-pair, SentencePiece
UNKNOWNS = {"bert": 1, "albert": 1}  # ids of what their vocabularies lack
GOOD = ("the movie was good", "great film !", "a lovely story", "i was fine and it is great")
BAD = ("the movie was bad", "awful film !", "a dull story", "it is not good , awful ending")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """family -> backbone, tokenizer."""
    made = {family: build(family, tmp_path_factory.mktemp(family)) for family in TOKENIZERS}
    KEPT.extend(tokenizer for _, tokenizer in made.values())
    return made


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """Real text, and some that is odd."""
    return [
        *pd.read_csv(tfft.MESSAGES / "train.csv")["text"][:150],
        "",
        "\u5305\u88f9 caf\u00e9 \U0001f600\t!",
        "x " * 90,
    ]


def rows_of(texts: list[str]) -> pd.DataFrame:
    return TASK.check(pd.DataFrame({"text": texts}, dtype=object))[0]


def encoded(texts: list[str], tokenizer: Any, max_length: int) -> tuple[dict[str, list[list[int]]], Examples]:
    """Whole rows as lists, and windows of them."""
    whole = TASK.encode(rows_of(texts), tokenizer, FACTS)
    return {n: v.to_list() for n, v in whole.x.items()}, TASK.cut(whole, tokenizer, max_length)[0]


def words_of(texts: list[str]) -> list[list[str]]:
    starts, ends = offsets.units(offsets.valid(tf.constant(texts)))
    pairs = zip(texts, starts.to_list(), ends.to_list(), strict=True)
    return [[text[a:b] for a, b in zip(low, high, strict=True)] for text, low, high in pairs]


def weights_of(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v) for v in model.variables if not is_seed(v)]


def dense(examples: Examples, rows: slice = slice(None)) -> dict[str, np.ndarray]:
    x = {name: as_arrays(value) for name, value in examples.x.items()}
    numbers, length = np.arange(len(x["row"]))[rows], int(x["token_ids"].lengths.max())
    return {name: take(value, numbers, length, examples.padding.get(name, 0)) for name, value in x.items()}


@pytest.mark.parametrize("family", TOKENIZERS)
def test_what_is_hidden_of_real_text_is_whole_words(
    family: str, built: dict[str, tuple[Any, Any]], messages: list[str]
) -> None:
    tokenizer = built[family][1]
    whole, examples = encoded(messages, tokenizer, 4096)
    hidden, texts, found = examples.x["hidden"].to_list(), words_of(messages), 0
    for row, words in enumerate(texts):
        places = [*(i for i, n in enumerate(whole["word"][row]) if n >= 0), len(hidden[row]) - 1]
        for first, after in itertools.pairwise(places):
            ids = [i for i in hidden[row][first:after] if i != GIVEN]
            assert len(ids) in (0, after - first)
            if ids and UNKNOWNS.get(family) not in ids:
                shown = str(tokenizer.detokenize(tf.constant([ids]))[0]).replace(" ", "")
                word = words[whole["word"][row][first]]
                assert shown.casefold() == word.casefold()
                found += 1
    assert found > 30


@pytest.mark.parametrize("family", TOKENIZERS)
@pytest.mark.parametrize("max_length", [8, 13, 512])
def test_windows_lose_no_token_and_share_none(
    max_length: int, family: str, built: dict[str, tuple[Any, Any]], messages: list[str]
) -> None:
    tokenizer = built[family][1]
    whole, examples = encoded(messages, tokenizer, max_length)
    x = {name: value.to_list() for name, value in examples.x.items() if isinstance(value, tf.RaggedTensor)}
    row = np.asarray(examples.x["row"])
    for number, ids in enumerate(whole["token_ids"]):
        windows = [x["whole"][w] for w in np.flatnonzero(row == number)]
        assert all(len(w) <= max_length and (w[0], w[-1]) == (ids[0], ids[-1]) for w in windows)
        assert [i for w in windows for i in w[1:-1]] == ids[1:-1]
        assert len(windows) == max(1, math.ceil((len(ids) - 2) / (max_length - 2)))
    assert examples.y.to_list() == [[0.0] * len(w) for w in x["whole"]]
    assert examples.weight.to_list() == [[float(i != GIVEN) for i in w] for w in x["hidden"]]
    for shown, hidden, ids in zip(x["token_ids"], x["hidden"], x["whole"], strict=True):
        assert all((h == GIVEN and s == i) or h == i for s, h, i in zip(shown, hidden, ids, strict=True))


def test_training_batches_are_drawn_anew_and_those_one_is_judged_by_stay(
    built: dict[str, tuple[Any, Any]], messages: list[str]
) -> None:
    tokenizer = built["bert"][1]
    _, examples = encoded(messages[:40], tokenizer, 24)

    def epochs(seed: int | None) -> list[dict[tuple[int, ...], tuple[int, ...]]]:
        """Two, each: of every window, by its tokens, what is hidden."""
        names = [name for name in examples.x if name != "word"]
        dataset = tfft.batches(examples, names, 8, seed=seed, redraw=masked_lm.redraw(tokenizer))
        found: list[dict[tuple[int, ...], tuple[int, ...]]] = [{}, {}]
        for epoch in found:
            for tensors, _, weight in dataset:
                x = {name: value.numpy() for name, value in tensors.items()}
                given, real = x["hidden"] == GIVEN, x["padding_mask"] == 1
                np.testing.assert_array_equal(weight, ~given)
                np.testing.assert_array_equal(x["token_ids"][given], x["whole"][given])
                np.testing.assert_array_equal(x["hidden"][~given], x["whole"][~given])
                assert real[~given].all()
                for ids, hidden, mask in zip(x["whole"], x["hidden"], real, strict=True):
                    epoch[tuple(ids[mask].tolist())] = tuple(hidden[mask].tolist())
        return found

    first, second = epochs(1)
    assert set(first) == set(second)
    assert np.mean([first[ids] == second[ids] for ids in first]) < 0.3
    assert [first, second] == epochs(1)
    assert first != epochs(2)[0]
    fixed = zip(examples.x["whole"].to_list(), examples.x["hidden"].to_list(), strict=True)
    assert epochs(None) == [{tuple(ids): tuple(hidden) for ids, hidden in fixed}] * 2


@pytest.mark.parametrize("family", ["bert", "albert"])  # ALBERT's embedding is narrower than its states
def test_guesses_are_a_softmax_over_the_embeddings(
    family: str, built: dict[str, tuple[Any, Any]], messages: list[str]
) -> None:
    backbone, tokenizer = built[family]
    _, examples = encoded(messages[:12], tokenizer, 16)
    x = dense(examples)
    set_seed(3)
    model = TASK.head(backbone, FACTS, pooling="", dropout=0.0)
    layer = model.get_layer(heads.OUTPUT)
    layer.bias.assign(np.random.default_rng(0).normal(size=layer.bias.shape))
    inputs = {name: x[name] for name in model.input}
    states = backbone({name: x[name] for name in backbone.input}, training=False)
    states = states["sequence_output"] if isinstance(states, dict) else states
    table = keras.ops.convert_to_numpy(backbone.token_embedding.embeddings)
    flat = keras.ops.convert_to_numpy(layer.norm(layer.transform(states)))
    logits = flat @ table.T + keras.ops.convert_to_numpy(layer.bias)
    expected = logits - np.log(np.exp(logits.astype(float)).sum(-1, keepdims=True))
    asked = x["hidden"] != GIVEN
    own = np.take_along_axis(expected, np.maximum(x["hidden"], 0)[..., np.newaxis], -1)[..., 0]
    outputs = keras.ops.convert_to_numpy(model(inputs, training=False))
    np.testing.assert_allclose(outputs[asked, 0], own[asked], atol=1e-4)
    assert not outputs[~asked].any()
    best = np.argsort(-expected[asked], -1)[:, :BEST]
    np.testing.assert_array_equal(outputs[asked, 1 : 1 + BEST], best)
    of_best = np.take_along_axis(expected[asked], best, -1)
    np.testing.assert_allclose(outputs[asked, 1 + BEST :], of_best, atol=1e-4)
    learnt = keras.ops.convert_to_numpy(layer(states, x["hidden"], training=True))
    np.testing.assert_allclose(learnt[..., 0], outputs[..., 0], atol=1e-4)
    loss = TASK.loss(FACTS, 0.0)(np.zeros(asked.shape), learnt, asked.astype("float32"))
    assert float(loss) == pytest.approx(-own[asked].mean(), abs=1e-4)


def test_what_is_asked_but_unknown_gets_guesses(built: dict[str, tuple[Any, Any]]) -> None:
    backbone, _ = built["bert"]
    model = TASK.head(backbone, FACTS, pooling="", dropout=0.0)
    ids = np.array([[2, 4, 6, 3]])
    x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    known, unknown = (
        keras.ops.convert_to_numpy(model(x | {"hidden": np.array([[GIVEN, value, GIVEN, GIVEN]])}))
        for value in (5, UNKNOWN)
    )
    np.testing.assert_allclose(known[..., 1:], unknown[..., 1:])
    assert np.exp(unknown[0, 1, 1 + BEST :]).sum() <= 1


def test_scores_by_hand() -> None:
    """Two rows, laid out in another order than the outputs are; of five tokens three were hidden."""
    hidden = tf.ragged.constant([[GIVEN, 7], [9, GIVEN, 8]], dtype=tf.int32)
    values = np.zeros((5, 1 + 2 * BEST), "float32")
    values[[4, 0, 2], 0] = np.log([0.5, 0.25, 0.125])  # of 7, 9 and 8
    values[[4, 0, 2], 1] = [7, 9, 5]  # the likeliest
    values[[1, 3]] = -99  # is not looked at
    outputs = Ragged(values, np.array([3, 0]), np.array([2, 3]))
    nothing = tf.zeros_like(hidden)
    examples = Examples({"hidden": hidden}, nothing, nothing, {})
    assert TASK.score(outputs, examples, pd.DataFrame(), FACTS) == pytest.approx(
        {"accuracy": 2 / 3, "perplexity": 4.0, "hidden": 3}
    )


def test_rows_in_which_nothing_is_hidden_end_in_a_line(built: dict[str, tuple[Any, Any]]) -> None:
    backbone, tokenizer = built["bert"]
    rows = rows_of(["\u200b", "\u200b\u200b"])
    examples = encoded(rows["text"].tolist(), tokenizer, 16)[1]
    model = TASK.head(backbone, FACTS, pooling="", dropout=0.0)
    with pytest.raises(DataError, match="^there is no word to hide in the rows that judge"):
        tfft.evaluate(model, rows, examples, TASK, FACTS)


@pytest.fixture(scope="module")
def runs(built: dict[str, tuple[Any, Any]]) -> dict[str, Run]:
    """Untrained, for what is asked and where it stands."""
    config = {"max_length": 16, "clean": []}
    return {
        family: Run(TASK.head(backbone, FACTS, pooling="", dropout=0.0), tokenizer, TASK, FACTS, config)
        for family, (backbone, tokenizer) in built.items()
    }


def starts_of(run: Run, texts: list[str]) -> list[list[int]]:
    fills = [answer["fills"] for answer in tfft.predict_texts(run, texts)]
    assert all(0 <= one["score"] <= 1 for row in fills for one in row)
    return [[one["start"] for one in row] for row in fills]


MASKS = "[MASK]", "<mask>"
MASKED = st.lists(PARTS | st.sampled_from([*MASKS, *MASKS, "[mask]", "[MASK", "MASK]"]), max_size=12).map("".join)


@pytest.mark.parametrize("family", ["bert", "albert"])
@settings(deadline=None, max_examples=20)
@given(texts=st.lists(MASKED, min_size=1, max_size=3))
@example(texts=["[MASK]" * 40, "\U0001f600[MASK]e\u0301 [MASK]\x00[MASK]", "".join(f"{part}[MASK]" for part in ODD)])
def test_a_fill_says_where_its_mask_stands(family: str, texts: list[str], runs: dict[str, Run]) -> None:
    mask = runs[family].tokenizer.mask_token
    expected = [[m.start() for m in re.finditer(re.escape(mask), text) for _ in range(BEST)] for text in texts]
    assert starts_of(runs[family], texts) == expected


def test_a_fill_of_byte_pairs_says_where_its_mask_stands(runs: dict[str, Run]) -> None:
    texts = ["caf\u00e9\U0001f600<mask> <mask>!", "<mask>", "[MASK] the", "", "\uff1cmask\uff1e"]
    assert starts_of(runs["roberta"], texts) == [[5] * BEST + [12] * BEST, [0] * BEST, [], [], []]


@pytest.mark.parametrize(
    ("family", "cleaning"), [("albert", []), pytest.param("roberta", ["unicode"], marks=pytest.mark.slow)]
)
def test_what_is_a_mask_only_when_normalised_is_text(family: str, cleaning: list[str], runs: dict[str, Run]) -> None:
    """SentencePiece, and cleaning, make full-width letters plain ones."""
    run = dataclasses.replace(runs[family], config={"max_length": 16, "clean": cleaning})
    mask = run.tokenizer.mask_token
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in mask)
    assert starts_of(run, [f"the {wide} was {mask}", mask]) == [[9 + len(mask)] * BEST, [0] * BEST]


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    import keras_hub

    line = "words are hidden behind a mask token, and GPT2Tokenizer has none. Take a backbone that was pretrained"
    vocabulary = {"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}
    tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=["a b"])
    with pytest.raises(InvalidValueError, match=re.escape(line)) as caught:
        TASK.encode(rows_of(["a"]), tokenizer, FACTS)
    assert "\n" not in str(caught.value)


def test_what_is_for_labels_is_refused(built: dict[str, tuple[Any, Any]]) -> None:
    with pytest.raises(InvalidValueError, match="^class_weight weighs rows by their one label"):
        TASK.encode(rows_of(["a"]), built["bert"][1], FACTS, class_weight="balanced")
    with pytest.raises(InvalidValueError, match="^label_smoothing is for tasks of labels a text"):
        TASK.loss(FACTS, 0.1)


def test_a_backbone_without_a_token_embedding_is_refused() -> None:
    backbone = SimpleNamespace(name="other")
    with pytest.raises(InvalidValueError, match="^hidden words are guessed by a backbone's token_embedding; other has"):
        guessing.hidden_head(backbone, None)  # type: ignore[arg-type]


def test_a_run_gets_better_and_is_the_next_runs_backbone(presets: Any, tmp_path: Path) -> None:
    texts = [{"text": f"{text} {end}"} for text in GOOD + BAD for end in ("and it was", "it is", "and i", "we", "a")]
    (tmp_path / "T.jsonl").write_text("\n".join(map(json.dumps, texts)), "utf-8")
    run = tfft.train(
        task="masked-lm",
        data=tmp_path / "T.jsonl",
        out=tmp_path / "read",
        backbone=presets("bert"),
        epochs=15,
        batch_size=8,
        learning_rate=1e-2,
        patience=15,
        precision="float32",
    )
    config, metrics = (json.loads((run / f"{name}.json").read_text("utf-8")) for name in ("config", "metrics"))
    assert (config["freeze"], config["pooling"]) == ("none", None)
    assert metrics["rows"] == {"train": 32, "validation": 4, "test": 4}
    history = pd.read_csv(run / "history.csv")
    assert history["val_perplexity"].iloc[-1] < history["val_perplexity"].iloc[0] / 1.5
    np.testing.assert_allclose(np.log(history["val_perplexity"]), history["val_loss"], atol=1e-3)
    assert metrics["validation"]["accuracy"] == pytest.approx(history["val_accuracy"].max())
    before, after = (tfft.load_backbone(folder)[0] for folder in (presets("bert"), run))
    assert (
        np.mean([(one != other).any() for one, other in zip(weights_of(before), weights_of(after), strict=True)]) > 0.9
    )
    rows = [{"text": text, "label": label} for label, texts in (("pos", GOOD), ("neg", BAD)) for text in texts]
    (tmp_path / "L.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    second = tfft.train(
        data=tmp_path / "L.jsonl", out=tmp_path / "second", backbone=run, epochs=1, validation_share=0, test_share=0
    )
    assert json.loads((second / "config.json").read_text("utf-8"))["freeze"] == "all"
    kept = tfft.load_backbone(second)[0]
    for one, other in zip(weights_of(after), weights_of(kept), strict=True):
        np.testing.assert_array_equal(one, other)


def test_masked_lm_with_frozen_blocks_redraws_too(built: dict[str, tuple[Any, Any]]) -> None:
    """A frozen part is computed anew for every mask: nothing of it is stored."""
    backbone, tokenizer = built["bert"]
    tfft.freeze(backbone, "all")
    try:
        model = TASK.head(backbone, FACTS, pooling="", dropout=0.0)
        examples = encoded([*GOOD, *BAD], tokenizer, 16)[1]
        seen: list[bytes] = []
        redraw = masked_lm.redraw(tokenizer)

        def noted(x: Any, y: Any, weight: Any, generator: Any) -> Any:
            found = redraw(x, y, weight, generator)
            seen.append(found[0]["token_ids"].tobytes())
            return found

        tfft.fit(model, examples, epochs=3, batch_size=8, loss=TASK.loss(FACTS, 0.0), metrics=(), redraw=noted)
        assert len(set(seen)) >= 3
    finally:
        tfft.freeze(backbone, "none")
