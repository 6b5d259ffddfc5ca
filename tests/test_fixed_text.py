"""Texts as old models take them: the ids Keras 2 gave, and the whole line with such a model."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tfft
from tfft.errors import ExportError, InvalidValueError, NotFoundError
from tfft.fixed_text import FixedText

TEXTS = [
    "Where is my parcel?",
    "",
    "  two  spaces,\tand\nlines; (brackets) [more] {and} back\\slash ^caret~ under_score",
    "Don't — STOP where where WHERE is",
    "Größe, ÉCOLE, naïve; 包裹 在 哪里",
    "one two three four five six seven eight nine ten eleven twelve",
]

KERAS_2 = """
import json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from tf_keras.preprocessing.sequence import pad_sequences
from tf_keras.preprocessing.text import Tokenizer, hashing_trick
texts, found = json.load(open(sys.argv[1])), {}
words = Tokenizer(num_words=12)
words.fit_on_texts(texts[:4])
open(sys.argv[2], "w").write(json.dumps(words.to_json()))
found["words"] = pad_sequences(words.texts_to_sequences(texts), maxlen=6).tolist()
for mode in ("binary", "count", "freq"):
    found[mode] = words.texts_to_matrix(texts, mode).tolist()
known = Tokenizer(oov_token="?")
known.fit_on_texts(texts[:4])
found["unknown"] = pad_sequences(known.texts_to_sequences(texts), maxlen=6, padding="post", truncating="post").tolist()
found["index"] = known.word_index
letters = Tokenizer(char_level=True)
letters.fit_on_texts(texts[:4])
found["letters"] = letters.word_index
found["characters"] = pad_sequences(letters.texts_to_sequences(texts), maxlen=20).tolist()
found["md5"] = pad_sequences([hashing_trick(t, 50, hash_function="md5") for t in texts], maxlen=6).tolist()
json.dump(found, open(sys.argv[3], "w"))
"""


@pytest.fixture(scope="module")
def keras_2(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("keras_2")
    (folder / "texts.json").write_text(json.dumps(TEXTS))
    files = [str(folder / name) for name in ("texts.json", "tokenizer.json", "found.json")]
    subprocess.run([sys.executable, "-c", KERAS_2, *files], check=True, capture_output=True)
    return json.loads((folder / "found.json").read_text()) | {"file": folder / "tokenizer.json"}


def test_ids_are_those_of_keras_2(keras_2: dict) -> None:
    for text, name in (
        (FixedText("words", length=6, index=keras_2["file"], size=12), "words"),
        (FixedText("words", length=6, index=keras_2["index"], unknown=1, padding="post", truncating="post"), "unknown"),
        (FixedText("characters", length=20, index=keras_2["letters"]), "characters"),
        (FixedText("md5", length=6, size=50), "md5"),
    ):
        assert text(TEXTS).numpy().tolist() == keras_2[name], name


@pytest.mark.parametrize("bag", ["binary", "count", "freq"])
def test_bags_of_words_are_those_of_keras_2(keras_2: dict, bag: str) -> None:
    text = FixedText("words", bag=bag, index=keras_2["file"], size=12)
    np.testing.assert_allclose(text(TEXTS), keras_2[bag], atol=1e-6)


def test_hashes_are_those_of_keras_hashing_layer() -> None:
    text = FixedText("farmhash", length=3, size=40, padding="post")
    wanted = keras.layers.Hashing(40)(tf.constant([["where", "is", "it"]]))
    assert text(["Where is it?"]).numpy().tolist() == np.asarray(wanted).tolist()


def test_imdb_begins_and_counts_as_its_data_set_does() -> None:
    text = FixedText(
        "words", length=5, index={"the": 1, "film": 17, "dull": 900}, offset=3, start=1, unknown=2, size=100
    )
    assert text(["The film, dull!"]).numpy().tolist() == [[0, 1, 4, 20, 2]]


def served(folder: Path, texts: list[str]) -> list[str]:
    answers = tf.saved_model.load(str(folder)).signatures["serving_default"](tf.constant(texts))
    return [label.decode() for label in answers["label"].numpy()]


def test_a_model_of_ids_goes_the_whole_line(tmp_path: Path) -> None:
    words = ["parcel", "late", "invoice", "wrong", "where", "is", "my"]
    text = FixedText("words", length=6, index={word: i + 1 for i, word in enumerate(words)})
    rows = pd.DataFrame(
        {"text": ["parcel late", "where is my parcel", "invoice wrong", "my invoice"] * 8, "label": list("aabb") * 8}
    )
    old = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Embedding(text.size, 8),
            keras.layers.LSTM(8),
            keras.layers.Dense(5, "softmax"),
        ]
    )
    model = tfft.freeze(tfft.replace_head(old, 2), "none")
    model, task = tfft.on_text(model, text)
    facts = task.learn(rows)
    examples = task.encode(rows, text, facts)
    tfft.fit(model, examples, epochs=30, learning_rate=0.03)
    assert tfft.evaluate(model, rows, examples, task, facts)["accuracy"] == 1.0
    folder = tfft.export_saved_model(tfft.Run(model, text, task, facts), tmp_path / "old")  # proven before it is kept
    assert served(folder, ["Where is my PARCEL?", "The invoice, wrong!"]) == ["a", "b"]


def test_two_inputs_are_told_apart_by_name(tmp_path: Path) -> None:
    letters = FixedText("characters", length=8, index={c: i + 1 for i, c in enumerate("abcdefghij")})
    words = FixedText("words", length=3, index={"abc": 1, "hij": 2}, unknown=3)
    one, two = keras.Input((8,), name="letters"), keras.Input((3,), name="words", dtype="int32")
    parts = [keras.layers.Flatten()(keras.layers.Embedding(11, 4)(x)) for x in (one, two)]
    old = keras.Model(
        [one, two], keras.layers.Dense(2, "softmax", name="head_output")(keras.layers.Concatenate()(parts))
    )
    texts = {"letters": letters, "words": words}
    model, task = tfft.on_text(old, texts)
    rows = pd.DataFrame({"text": ["abc", "hij hij"] * 8, "label": ["x", "y"] * 8})
    facts = task.learn(rows)
    examples = task.encode(rows, texts, facts, class_weight="balanced")
    tfft.fit(model, examples, epochs=20, learning_rate=0.05)
    folder = tfft.export_saved_model(tfft.Run(model, texts, task, facts), tmp_path / "two")
    assert served(folder, ["abc", "hij hij"]) == ["x", "y"]
    card = (folder / "assets.extra" / "README.md").read_text("utf-8")
    assert "| longest text | 8 and 3 tokens" in card
    with pytest.raises(InvalidValueError, match="the model's inputs are letters, words: each needs a FixedText"):
        tfft.on_text(old, words)


def test_md5_is_trained_with_and_refused_in_an_export(tmp_path: Path) -> None:
    text = FixedText("md5", length=4, size=20)
    old = keras.Sequential(
        [keras.Input((4,)), keras.layers.Embedding(20, 4), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model, task = tfft.on_text(tfft.replace_head(old, 2), text)
    facts = {"labels": ["a", "b"], "counts": [1, 1]}
    with pytest.raises(ExportError, match="TensorFlow has no operation for md5"):
        tfft.export_saved_model(tfft.Run(model, text, task, facts), tmp_path / "md5")
    assert not (tmp_path / "md5" / "1").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "letters", "length": 3}, "kind must be one of 'words', 'characters', 'farmhash', 'md5'"),
        ({"kind": "words", "length": 3}, "index must be given for kind='words'"),
        ({"kind": "words", "length": 3, "index": {}}, "an index maps words to whole numbers"),
        ({"kind": "words", "index": {"a": 1}}, "give one of `length` and `bag`"),
        ({"kind": "farmhash", "length": 3}, "size must be the number of bins"),
        ({"kind": "words", "length": 3, "index": {"a": -1}}, "an index maps words to whole numbers"),
        ({"kind": "words", "length": 0, "index": {"a": 1}}, "length must be a whole number from 1. Received: 0"),
        ({"kind": "md5", "length": 3, "size": 1}, "size must be a whole number from 2. Received: 1"),
        ({"kind": "words", "bag": "count", "index": {"a": 1}, "size": 3, "unknown": 7}, "ids from 0 to 2. Received: 7"),
        ({"kind": "words", "length": 3, "index": {"a": 1}, "padding": "left"}, "padding must be one of 'pre', 'post'"),
    ],
)
def test_what_cannot_be_is_said(settings: dict, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        FixedText(settings.pop("kind"), **settings)


def test_a_file_that_is_no_index_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1")
    with pytest.raises(InvalidValueError, match="an index is JSON"):
        FixedText("words", length=3, index=tmp_path / "x.json")
    with pytest.raises(NotFoundError, match="no such file"):
        FixedText("words", length=3, index=tmp_path / "y.json")


def test_a_text_of_another_length_than_the_model_takes_is_said() -> None:
    old = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(InvalidValueError, match=r"takes \(batch, 4\). Received: 6 numbers a text"):
        tfft.on_text(old, FixedText("words", length=6, index={"a": 1}))
