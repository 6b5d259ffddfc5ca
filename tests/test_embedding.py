"""Vectors: of unit length, the same in any company, the same read back; and what cannot be written or compared."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

import tfft
from tests.conftest import WORDS
from tfft import arithmetic, caching, embedding, store
from tfft.caching import Cache
from tfft.cli import main
from tfft.embedding import Vectors
from tfft.errors import DataError, InvalidValueError, NotFoundError, TfftError

TEXTS = ("the movie was good", "great film !", "a lovely story", "it is not good , awful ending", "dull", "very " * 50)
ROWS = [{"id": n, "review": text, "note": None if n % 2 else "caf\u00e9"} for n, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def found(presets: Any) -> Vectors:
    return tfft.embed(ROWS, presets("bert"))


def test_vectors_are_the_mean_of_the_states(found: Vectors, presets: Any) -> None:
    backbone, tokenizer = tfft.load_backbone(presets("bert"))
    assert found.vectors.dtype == np.float32
    assert found.vectors.shape == (len(TEXTS), 8)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    words = [[tokenizer.token_to_id(w) for w in text.split()][:30] for text in TEXTS]
    for ids, vector in zip(words, found.vectors, strict=True):
        row = np.array([[2, *ids, 3]])
        x = {"token_ids": row, "padding_mask": np.ones_like(row), "segment_ids": np.zeros_like(row)}
        mean = keras.ops.convert_to_numpy(backbone(x, training=False)["sequence_output"])[0].mean(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-2)  # products may be bfloat16


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_a_text_has_the_same_vector_in_any_company(family: str, presets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "choose", lambda: "float32")  # bfloat16 rounds otherwise in other shapes
    rows = [{"text": text} for text in TEXTS]
    among = tfft.embed(rows, presets(family)).vectors
    for number in (0, 4, 5):
        alone = tfft.embed([rows[number]], presets(family)).vectors
        np.testing.assert_allclose(alone[0], among[number], atol=1e-5)


def test_rows_and_what_made_them_are_told(found: Vectors, presets: Any) -> None:
    assert found.rows.to_dict("records") == ROWS
    assert {name: value for name, value in found.about.items() if name != "weights"} == {
        "backbone": str(presets("bert")),
        "pooling": "mean",
        "max_length": None,
        "text": "review",
    }


def test_poolings_and_lengths_change_the_vectors(found: Vectors, presets: Any) -> None:
    others = [tfft.embed(ROWS, presets("bert"), pooling=pooling).vectors for pooling in ("cls", "max", "pooled")]
    others.append(tfft.embed(ROWS, presets("bert"), max_length=4).vectors)
    for one in others:
        assert np.abs(one - found.vectors).max() > 0.1
        np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    with pytest.raises(
        InvalidValueError, match="^vectors are compared in one space; pooling 'blocks' has one for each"
    ):
        tfft.embed(ROWS, presets("bert"), pooling="blocks")


def test_the_pooling_it_was_trained_with_is_the_default(presets: Any, tmp_path: Path) -> None:
    own = tmp_path / "own"
    copied(presets("bert"), own)
    (own / "1_Pooling").mkdir()
    (own / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}', "utf-8")
    made = tfft.embed(ROWS, own)
    assert made.about["pooling"] == "cls"
    np.testing.assert_array_equal(made.vectors, tfft.embed(ROWS, presets("bert"), pooling="cls").vectors)


def copied(folder: Path, to: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            (to / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (to / path.relative_to(folder)).write_bytes(path.read_bytes())


def test_longer_texts_are_cut_and_counted(presets: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tfft"):
        tfft.embed(ROWS, presets("bert"))
    assert caplog.messages == ["1 of 6 texts are longer than 32 tokens and were cut"]


def test_a_length_the_backbone_cannot_read_ends_in_words(presets: Any) -> None:
    try:
        made = tfft.embed(ROWS, presets("bert"), max_length=1000)
    except TfftError as error:
        assert "32" in str(error)  # noqa: PT017
    else:
        assert np.isfinite(made.vectors).all()


def test_a_file_is_read_as_it_was_written(found: Vectors, tmp_path: Path) -> None:
    path = tmp_path / "new" / "V.parquet"
    embedding.write(found, path)
    read = embedding.read_vectors(path)
    assert read.rows.fillna("").to_dict("records") == found.rows.fillna("").to_dict("records")
    assert read.vectors.dtype == np.float32
    np.testing.assert_array_equal(read.vectors, found.vectors)
    assert read.about == found.about
    schema = pyarrow.parquet.read_schema(path)
    assert schema.names == ["id", "review", "note", "vector"]
    assert schema.field("vector").type == pyarrow.list_(pyarrow.float32(), 8)
    assert [p.name for p in path.parent.iterdir()] == ["V.parquet"]


def test_nearest_finds_the_text_itself_first(found: Vectors, tmp_path: Path) -> None:
    path = tmp_path / "V.parquet"
    embedding.write(found, path)
    for source in (found, path):
        answers = tfft.nearest(source, [TEXTS[2], TEXTS[5]], top=3)
        for number, answer in zip((2, 5), answers, strict=True):
            assert list(answer) == ["cosine", "id", "review", "note"]
            assert answer["id"][0] == number
            assert answer["cosine"][0] == pytest.approx(1, abs=1e-5)
            cosines = found.vectors @ found.vectors[number]
            assert answer["id"].tolist() == np.argsort(-cosines, kind="stable")[:3].tolist()
            np.testing.assert_allclose(answer["cosine"], np.sort(cosines)[::-1][:3], atol=1e-5)
    (every,) = tfft.nearest(found, ["the plot"], top=99)
    assert len(every) == len(TEXTS)
    assert every["cosine"].is_monotonic_decreasing


def test_nothing_asked_is_nothing_found(found: Vectors) -> None:
    assert tfft.nearest(found, []) == []


def test_other_weights_under_the_same_name_are_refused(
    presets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFFT_BACKBONES", str(tmp_path))
    copied(presets("bert"), tmp_path / "mine")
    made = tfft.embed(ROWS, "mine")
    assert made.about["backbone"] == "mine"
    assert tfft.nearest(made, ["dull"])[0]["id"][0] == 4
    backbone, _ = tfft.load_backbone("mine")
    backbone.token_embedding.embeddings.assign_add(keras.ops.ones_like(backbone.token_embedding.embeddings) * 1e-6)
    backbone.save_to_preset(tmp_path / "mine")
    line = "the backbone 'mine' has other weights than those that made the vectors. Embed the texts again"
    with pytest.raises(InvalidValueError, match=f"^{line}$"):
        tfft.nearest(made, ["dull"])


def test_what_cannot_be_written_is_refused(found: Vectors, tmp_path: Path) -> None:
    taken = Vectors(found.rows.rename(columns={"note": "vector"}), found.vectors, found.about)
    with pytest.raises(InvalidValueError, match="^the source has a column 'vector' of its own. Rename it$"):
        embedding.write(taken, tmp_path / "V.parquet")
    with pytest.raises(InvalidValueError, match=r"^vectors are written as .parquet. Received: .*V.csv$"):
        embedding.write(found, tmp_path / "V.csv")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        NotFoundError, match=r"^no such file: no.parquet. `tfft embed FILE --out no.parquet` makes one$"
    ):
        embedding.read_vectors("no.parquet")
    (tmp_path / "text.parquet").write_text("text,label\na,b\n", "utf-8")
    pd.DataFrame({"vector": [[1.0, 2.0]]}).to_parquet(tmp_path / "plain.parquet")
    table = pyarrow.table({"text": ["a"]}).replace_schema_metadata({b"tfft": b"{}"})
    pyarrow.parquet.write_table(table, tmp_path / "without.parquet")
    for name in ("text", "plain", "without"):
        path = tmp_path / f"{name}.parquet"
        start = re.escape(f"{path} is no file of vectors, as `tfft embed` writes it: ")
        with pytest.raises(DataError, match=f"^{start}[^\n]+$"):
            embedding.read_vectors(path)


def test_nothing_is_half_written(found: Vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "V.parquet"
    embedding.write(found, path)
    before = path.read_bytes()

    def full(table: Any, where: Path) -> None:
        Path(where).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        embedding.write(found, path)
    assert [p.name for p in tmp_path.iterdir()] == ["V.parquet"]
    assert path.read_bytes() == before


def test_rows_without_a_text_stop_or_are_dropped(presets: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows = pd.DataFrame({"text": ["dull", None, " ", "dull"], "n": range(4)}, index=[7, 7, 8, 9])
    with pytest.raises(DataError, match=r"^given: 1 of 4 rows have no text \(row 2\). Mend them, or leave them out"):
        tfft.embed(rows, presets("bert"))
    with caplog.at_level(logging.WARNING, "tfft"):
        made = tfft.embed(rows, presets("bert"), bad_rows="drop")
    assert caplog.messages == [
        "given: 1 of 4 rows have no text (row 2): left out",
        "given: 1 of 4 rows have an empty text (row 3): left out",
    ]
    assert made.rows.to_dict("list") == {"text": ["dull", "dull"], "n": [0, 3]}
    np.testing.assert_array_equal(made.vectors[0], made.vectors[1])
    with pytest.raises(DataError, match="^given: no usable row is left$"):
        tfft.embed([{"text": ""}], presets("bert"), bad_rows="drop")
    with pytest.raises(DataError, match="^found no text column; the columns are: n"):
        tfft.embed([{"n": "dull"}], presets("bert"))


@pytest.mark.parametrize("top", [0, -1])
def test_no_rows_to_find_are_refused(top: int, found: Vectors) -> None:
    with pytest.raises(InvalidValueError, match=f"^top must be 1 or more. Received: {top}$"):
        tfft.nearest(found, ["dull"], top)


def test_columns_of_a_dataframe_may_be_numbers(presets: Any) -> None:
    made = tfft.embed(pd.DataFrame([[0, "dull"], [1, "good"]]), presets("bert"), columns={"text": "1"})
    assert made.vectors.shape == (2, 8)


def test_the_second_time_vectors_are_read(
    presets: Any, found: Vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    first = tfft.embed(ROWS, presets("bert"), cache=cache)
    np.testing.assert_allclose(first.vectors, found.vectors, atol=1e-5)
    (entry,) = store.entries(tmp_path)
    assert (entry.description, entry.rows) == ("vectors", len(ROWS))
    monkeypatch.setattr(caching, "compiled", None)  # what computes
    with caplog.at_level(logging.INFO, "tfft"):
        again = tfft.embed([dict(reversed(row.items())) for row in ROWS], presets("bert"), cache=cache)
    assert any(message.startswith("cache: vectors, read from ") for message in caplog.messages)
    np.testing.assert_array_equal(again.vectors, first.vectors)
    assert again.vectors.dtype == np.float32
    with pytest.raises(TypeError):  # other texts are computed
        tfft.embed([*ROWS, *ROWS], presets("bert"), cache=cache)


@pytest.fixture(scope="module")
def written(presets: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    pd.DataFrame(ROWS).to_csv(folder / "T.csv", index=False)
    command = ["embed", str(folder / "T.csv"), "--backbone", str(presets("bert")), "--out", str(folder / "V.parquet")]
    assert main([*command, "--cache-dir", str(folder / "cache")]) == 0
    return folder


def test_embed_prints_what_it_wrote(written: Path, presets: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["embed", str(written / "T.csv"), "--backbone", str(presets("bert")), "--columns", "text=note"]
    out = str(written / "N.parquet")
    assert main([*command, "--bad-rows", "drop", "--pooling", "cls", "--max-length", "8", "--out", out]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"3 vectors of 8 numbers: {out}\n"
    assert "given: 3 of 6 rows have an empty text (row 2, 4, 6): left out" in shown.err
    about = embedding.read_vectors(out).about
    assert (about["pooling"], about["max_length"], about["text"]) == ("cls", 8, "note")
    assert len(store.entries(written / "cache")) == 1


def test_nearest_prints_a_table(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nearest", str(written / "V.parquet"), TEXTS[1], TEXTS[5], "--top", "2", "--quiet"]) == 0
    shown = capsys.readouterr()
    head, best, _, second, other, _ = shown.out.splitlines()
    assert head.split() == ["cosine", "review:", *TEXTS[1].split(), "id", "note"]
    assert best.split() == ["1.000", *TEXTS[1].split(), "1"]
    assert second.split()[:3] == ["cosine", "review:", "very"]
    assert other.split()[:2] == ["1.000", "very"]
    assert " very ve... " in other  # 80 characters of it
    assert shown.err == "1 of 2 texts are longer than 32 tokens and were cut\n"


def test_nearest_prints_json(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nearest", str(written / "V.parquet"), "dull", "--json", "--quiet"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 5
    best = {"asked": "dull", "cosine": pytest.approx(1, abs=1e-5), "id": "4", "review": "dull", "note": "caf\u00e9"}
    assert rows[0] == best
    assert all(isinstance(row["cosine"], float) for row in rows)


def test_what_a_row_lacks_is_null_in_json(found: Vectors, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embedding.write(found, tmp_path / "V.parquet")
    assert main(["nearest", str(tmp_path / "V.parquet"), TEXTS[1], "--json", "--top", "1", "--quiet"]) == 0
    row = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert row["note"] is None


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_column_called_cosine_hides_nothing(
    flags: list[str], presets: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "V.parquet"
    embedding.write(tfft.embed([{"text": "dull", "cosine": "mine"}], presets("bert")), out)
    assert main(["nearest", str(out), "dull", *flags]) == 0
    assert re.search(r"\b(1\.0|0\.9999)", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["embed", "no.csv", "--out", "V.parquet"], "tfft: no such file: no.csv"),
        (
            ["nearest", "no.parquet", "x"],
            "tfft: no such file: no.parquet. `tfft embed FILE --out no.parquet` makes one",
        ),
        (["nearest", "T.csv", "x"], "tfft: T.csv is no file of vectors, as `tfft embed` writes it: "),
    ],
)
def test_what_fails_ends_in_a_line(
    arguments: list[str],
    line: str,
    written: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(written)
    before = sorted(path.name for path in written.iterdir())
    assert main([*arguments, "--quiet"]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(line)
    assert shown.err.count("\n") == 1
    assert sorted(path.name for path in written.iterdir()) == before


def test_a_file_that_cannot_be_written_is_told_before_the_texts_are_read(
    written: Path, presets: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "predict", None)  # what takes hours
    monkeypatch.setattr(caching, "compiled", None)
    out = written / "V.csv"
    command = ["embed", str(written / "T.csv"), "--backbone", str(presets("bert")), "--max-length", "9"]
    assert main([*command, "--out", str(out)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"tfft: vectors are written as .parquet. Received: {out}"
    assert not out.exists()


def test_a_runs_backbone_embeds_as_it_was_trained(presets: Any, tmp_path: Path) -> None:
    rows = [{"text": f"{word} {n}", "label": word} for word in WORDS[8:10] for n in range(6)]
    (tmp_path / "T.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    own = tmp_path / "own"
    copied(presets("bert"), own)
    (own / "1_Pooling").mkdir()
    (own / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}', "utf-8")
    run = tfft.train(data=tmp_path / "T.jsonl", backbone=own, out=tmp_path / "run", freeze=1, epochs=1)
    of_run, before = tfft.embed(ROWS, run), tfft.embed(ROWS, own)
    assert of_run.about["pooling"] == "max"
    assert of_run.about["weights"] != before.about["weights"]
    assert tfft.nearest(of_run, ["dull"])[0]["id"][0] == 4
