"""Pretrained decoders: what they keep of what they have read changes nothing in what they write."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import CAUSAL, SEQ2SEQ, build
from tfft import backbones, graph, pretrained
from tfft.errors import InvalidValueError

SETTINGS: dict[str, Any] = {"beams": 1}


def facts(framing: dict[str, Any], **settings: Any) -> dict[str, Any]:
    import dataclasses

    from tfft.decoding import Decoding, from_pairs

    return {"longest": 7, "decoding": dataclasses.asdict(from_pairs(settings, Decoding(beams=1)))} | framing


def greedy(logits_of: Any, begun: list[int], end: int, longest: int) -> list[int]:
    """The likeliest token after each other, the whole text read anew for each."""
    written: list[int] = []
    for _ in range(longest):
        token = int(np.argmax(logits_of(begun + written)))
        if token == end:
            break
        written.append(token)
    return written


@pytest.mark.parametrize("family", CAUSAL)
def test_texts_go_on_as_if_each_were_read_anew(family: str, tmp_path: Path) -> None:
    backbone, tokenizer = build(family, tmp_path)
    framing = backbones.framing(backbone, tokenizer)
    model = backbones.language_model(backbone)
    writer = pretrained.Continuer(backbone, facts(framing))
    start = framing["start"]
    texts = [[*start], [*start, 40, 41, 42, 43, 44], [*start, 30], [*start, 50, 51, 52]]
    longest = max(map(len, texts))
    ids = np.array([[*text, *[0] * (longest - len(text))] for text in texts], "int32")
    mask = np.array([[1] * len(text) + [0] * (longest - len(text)) for text in texts], "int32")
    outputs = tf.function(writer)(tf.constant(ids), tf.constant(mask)).numpy()
    for text, row in zip(texts, outputs, strict=True):

        def logits_of(tokens: list[int]) -> Any:
            x = {"token_ids": np.array([[*tokens, 0]]), "padding_mask": np.array([[1] * len(tokens) + [0]])}
            return model(x, training=False)[0, -2]  # Keras warns of a softmax over one token

        assert [i for i in row[1:].astype(int).tolist() if i >= 0] == greedy(logits_of, text, framing["end"], 7)


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_other_texts_are_written_as_if_each_were_read_anew(family: str, tmp_path: Path) -> None:
    backbone, tokenizer = build(family, tmp_path)
    framing = backbones.framing(backbone, tokenizer)
    model = backbones.language_model(backbone)
    ids, mask = np.array([[40, 41, 42, 43], [30, 31, 0, 0]], "int32"), np.array([[1, 1, 1, 1], [1, 1, 0, 0]], "int32")
    encoder = keras.Model(
        {name: backbone.input[name] for name in ("encoder_token_ids", "encoder_padding_mask")},
        backbone.output["encoder_sequence_output"],
    )
    encoded = encoder({"encoder_token_ids": ids, "encoder_padding_mask": mask}, training=False)
    for beams in (1, 3):
        writer = pretrained.Rewriter(backbone, facts(framing, beams=beams))
        outputs = tf.function(writer)(encoded, tf.constant(mask)).numpy()
        for number, row in enumerate(outputs):

            def logits_of(tokens: list[int], number: int = number) -> Any:
                x = {
                    "encoder_token_ids": ids[number : number + 1],
                    "encoder_padding_mask": mask[number : number + 1],
                    "decoder_token_ids": np.array([[*tokens, 0]]),
                    "decoder_padding_mask": np.array([[1] * len(tokens) + [0]]),
                }
                return model(x, training=False)[0, -2]

            written = [i for i in row[1:].astype(int).tolist() if i >= 0]
            if beams == 1:
                assert written == greedy(logits_of, list(framing["start"]), framing["end"], 7)
            # The score is that of what was written, by the model without anything kept.
            chances, begun = [], list(framing["start"])
            for token in [*written, *([framing["end"]] if len(written) < 7 else [])]:
                chances.append(float(tf.nn.log_softmax(logits_of(begun))[token]))
                begun.append(token)
            assert row[0] == pytest.approx(np.mean(chances), abs=1e-3)


def test_a_text_longer_than_the_positions_loses_tokens_behind_the_start(tmp_path: Path) -> None:
    backbone, tokenizer = build("gpt2", tmp_path)
    framing = backbones.framing(backbone, tokenizer)
    writer = pretrained.Continuer(backbone, facts(framing))
    start, room = framing["start"], 128 - 7
    text = [*start, *np.random.default_rng(0).integers(10, 200, 300).tolist()]
    kept = [*start, *text[len(text) - room + 1 :]]
    assert len(kept) == room
    one, other = (writer(tf.constant([t]), tf.ones((1, len(t)), tf.int32)).numpy() for t in (text, kept))
    np.testing.assert_array_equal(one[:, 1:], other[:, 1:])


def test_more_new_tokens_than_positions(tmp_path: Path) -> None:
    backbone, tokenizer = build("gpt2", tmp_path)
    with pytest.raises(InvalidValueError, match="write fewer"):
        pretrained.Continuer(backbone, facts(backbones.framing(backbone, tokenizer)) | {"longest": 128})


def test_a_backbone_that_does_not_write(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="no language model of its family"):
        backbones.framing(*build("bert", tmp_path))


@pytest.mark.parametrize("start", [(0, 0, 0), (1, 2, 0), (1, 1, 3)])
def test_a_slice_is_updated_as_keras_does(start: tuple[int, ...]) -> None:
    inputs, updates = np.arange(60.0).reshape(3, 4, 5), -np.ones((2, 2, 2))
    wanted = keras.ops.slice_update(inputs, start, updates)
    with graph.plain_slice_update():
        found = keras.ops.slice_update(inputs, start, updates)
    np.testing.assert_array_equal(found, wanted)
    assert keras.ops.slice_update.__module__.startswith("keras")


def test_keras_has_its_own_again_after_an_error() -> None:
    from keras.src.backend.tensorflow import core

    before = core.slice_update
    with pytest.raises(tf.errors.InvalidArgumentError), graph.plain_slice_update():
        keras.ops.slice_update(np.zeros(3), (), np.zeros(1))
    assert core.slice_update is before
