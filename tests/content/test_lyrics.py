"""Lyrics: any script is read and nothing is unknown, garbage is no lyrics, padding tells nothing."""

import csv

import numpy as np
import polars as pl
import pytest
import torch
from sentencepiece import SentencePieceProcessor

from helpers.places import DATA
from recsys.content import lyrics
from recsys.content.lyrics import PADDING, LyricsReader, LyricsSettings, LyricsTower, learn_lyrics
from recsys.errors import DataError
from recsys.util.progress import Silent

SETTINGS = LyricsSettings(n_pieces=600, max_tokens=12, embedding=6, hidden=5)
TEXTS = pl.Series(
    ["Rain, rain go away\nCome again another day", None, "der Mond ist aufgegangen", "go rain", "", "… – !", "rain go"]
)
SCRIPTS = [
    "Hello darkness",
    "Über den Wolken",
    "Подмосковные вечера",
    "Ηλιε μου",
    "ليلة يا ليل",
    "שלום חברים",
    "夜空の星がきれい",
    "달빛",
    "ราตรีสวัสดิ์",
    "चाँद सी महबूबा हो",
    "99 Luftballons",
    "🎵 la 🎵",
]


def learned(texts: pl.Series = TEXTS, settings: LyricsSettings = SETTINGS) -> LyricsReader:
    return learn_lyrics(texts, settings, Silent())


def test_texts_become_tokens_and_missing_ones_padding() -> None:
    reader = learned()
    tokens = reader.read(TEXTS)
    assert tokens.dtype == np.int32
    assert tokens.shape == (7, 12)
    assert (tokens != PADDING).any(axis=1).tolist() == [True, False, True, True, False, False, True]
    assert (tokens < reader.width).all()
    lengths = (tokens != PADDING).sum(axis=1)
    assert all((row[:n] != PADDING).all() for row, n in zip(tokens, lengths, strict=True))  # padding at the end alone
    assert sorted(tokens[3]) == sorted(tokens[6])
    assert not np.array_equal(tokens[3], tokens[6])  # the order stays
    assert np.array_equal(reader.read(pl.Series(["RAIN\n\n  Go"])), reader.read(pl.Series(["rain go"])))
    assert reader.read(pl.Series(["rain"])).shape[1] < 12  # no wider than the longest text


@pytest.mark.parametrize("text", SCRIPTS)
def test_any_script_is_read_though_the_catalogue_has_none_of_it(text: str) -> None:
    reader = learned(settings=SETTINGS.model_copy(update={"max_tokens": 200}))
    [tokens] = reader.read(pl.Series([text])).tolist()
    processor = SentencePieceProcessor(model_proto=reader.pieces)
    assert processor.unk_id() == 1
    assert not {0, 1} & set(tokens)
    normal = processor.normalize(text).lstrip("▁").replace("▁", " ")
    assert processor.decode(tokens) == normal
    assert normal.casefold() == normal


def test_a_catalogue_of_many_scripts_has_pieces_of_them() -> None:
    texts = pl.Series([f"{text} {text} {n}" for n in range(20) for text in SCRIPTS])
    reader = learned(texts)
    processor = SentencePieceProcessor(model_proto=reader.pieces)
    for text in SCRIPTS:
        assert not any(processor.is_byte(token) for token in processor.encode(text.rstrip(" 🎵"))), text
        assert len(processor.encode(text)) < len(text.encode())


def test_more_characters_than_pieces_are_spelled_in_bytes() -> None:
    characters = [chr(0x4E00 + n) for n in range(3000)]
    texts = pl.Series(["".join(characters[n : n + 30]) for n in range(0, 3000, 30)])
    reader = learned(texts)
    assert reader.width <= 600
    assert not (reader.read(texts) == 1).any()


def test_the_same_texts_give_the_same_bytes() -> None:
    assert learned().pieces == learned().pieces != learned(TEXTS[2:]).pieces


@pytest.mark.parametrize(
    "texts",
    [[], [None, None], ["", "  \n\t ", "\x00\x01", "?!…", "\u200b\ufeff", "\u0301\u0301"]],
    ids=["empty", "null", "garbage"],
)
def test_a_catalogue_without_words_learns_nothing(texts: list[str | None]) -> None:
    reader = learned(pl.Series(texts, dtype=pl.String()))
    assert (reader.pieces, reader.width) == (b"", 0)
    assert not reader.read(pl.Series(["an upload that sings", None])).any()
    assert reader.read(pl.Series(texts, dtype=pl.String())).shape == (len(texts), 1)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "na " * 350_000,
        " " * 1_000_000 + "la",
        "\x00" * 1000 + "x",
        "夜" * 300_000,
        "y",
        "\n" * 99 + "é",
    ],
    ids=["one word", "many words", "blanks before", "zeros", "no blanks", "a letter", "line ends"],
)
def test_long_and_odd_texts_are_fine(text: str) -> None:
    for known in (learned(pl.Series([text])), learned(pl.Series([None, text, "la la land"])), learned()):
        tokens = known.read(pl.Series([text, None]))
        assert tokens[0].any()
        assert tokens.shape[1] <= 12
        assert not tokens[1].any()
        assert not (tokens == 1).any()


def test_what_is_learned_from_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    train = lyrics.SentencePieceTrainer.train

    def watched(sentence_iterator: object, **options: object) -> None:
        seen.extend(sentence_iterator)
        train(sentence_iterator=iter(seen), **options)

    monkeypatch.setattr(lyrics.SentencePieceTrainer, "train", watched)
    texts = pl.Series([None if n % 3 else f"song {n:04} " + "and so it goes on " * 200 for n in range(3000)])
    learned(texts, SETTINGS.model_copy(update={"sample_characters": 10_000}))
    assert 9_000 <= sum(map(len, seen)) <= 10_000
    numbers = [int(line.split()[1]) for line in seen]
    assert numbers[0] == 0
    assert numbers[-1] > 2900  # from the whole catalogue
    assert max(map(len, seen)) <= 1000


def test_what_is_read_of_a_text_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Watched(SentencePieceProcessor):
        def encode(self, texts: list[str], **options: object) -> list[list[int]]:
            seen.extend(texts)
            return super().encode(texts, **options)

    reader = learned()
    monkeypatch.setattr(lyrics, "SentencePieceProcessor", Watched)
    reader.read(pl.Series(["rain " * 200_000, "go"]))
    assert [len(text) for text in seen] == [12 * 16, 2]


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = learned()
    whole = reader.read(TEXTS)
    monkeypatch.setattr(lyrics, "BLOCK", 2)
    assert np.array_equal(reader.read(TEXTS), whole)
    assert np.array_equal(reader.read(TEXTS[3:4])[0], whole[3][: reader.read(TEXTS[3:4]).shape[1]])


def test_a_reader_is_checked() -> None:
    reader = learned()
    for pieces, width in ((reader.pieces, reader.width + 1), (b"", reader.width), (reader.pieces, 0)):
        with pytest.raises(DataError, match="sub-words are"):
            LyricsReader(SETTINGS, pieces, width)


JAMENDO = DATA / "jamendo-lyrics"


@pytest.mark.skipif(not JAMENDO.is_dir(), reason="the real lyrics are not beside the repository (../shared/data)")
def test_real_lyrics_in_four_languages_are_all_read() -> None:
    with (JAMENDO / "JamendoLyrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    files = [JAMENDO / "lyrics" / row["Filepath"].replace(".mp3", ".txt") for row in rows]
    texts = pl.Series([file.read_text(encoding="utf-8") for file in files])
    assert len(texts) == 79
    assert len({row["Language"] for row in rows}) == 4
    reader = learned(texts, LyricsSettings(max_tokens=4000))
    tokens = reader.read(texts)
    assert tokens.any(axis=1).all()
    assert not (tokens == 1).any()
    processor = SentencePieceProcessor(model_proto=reader.pieces)
    for text, numbers in zip(texts, tokens.tolist(), strict=True):
        normal = processor.normalize(text).lstrip("▁").replace("▁", " ")
        assert processor.decode([n for n in numbers if n]) == normal
        assert normal.split() == text.casefold().split() or len(normal) > 0.95 * len(text.strip())
    per_word = (tokens > 0).sum() / sum(len(text.split()) for text in texts)
    assert per_word < 2  # words and parts of words, not letters
    assert learned(texts, LyricsSettings(max_tokens=4000)).pieces == reader.pieces


def test_the_tower_ignores_padding() -> None:
    torch.manual_seed(0)
    tower = LyricsTower(30, SETTINGS).eval()
    short, long = torch.tensor([[3, 4, 0, 0, 0], [5, 6, 7, 8, 9]])
    with torch.inference_mode():
        alone = tower(short[None, :2])
        padded = tower(short[None])
        beside = tower(torch.stack([long, short]))
        nothing = tower(torch.zeros(2, 5, dtype=torch.int32))
        by_hand = tower.gru(tower.embedding(short[None, :2]))[0].mean(dim=1)
        turned = tower(torch.tensor([[4, 3]]))
    torch.testing.assert_close(padded, alone)
    torch.testing.assert_close(beside[1:], alone)
    torch.testing.assert_close(alone, by_hand)
    assert not nothing.any()
    assert alone.shape == (1, 5)
    assert float((alone - turned).abs().max()) > 1e-4  # the order of words matters
