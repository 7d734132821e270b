"""Lyrics to numbers, and numbers to a vector: text -> sub-words -> embedding -> GRU.

    texts  ->  learn_lyrics (once a fit)  ->  LyricsReader
    texts  ->  LyricsReader.read  ->  tokens (n, n_tokens) int32, 0 = padding  ->  LyricsTower  ->  (n, d)

Sub-words are learned from the catalogue's own lyrics (SentencePiece unigram model, Kudo 2018), so that any language
works, those without blanks between words too; what they do not cover is spelled in bytes, so nothing is unknown.
Where the settings ask for a sentence encoder, ``read`` gives its vectors (n, d) float32 instead of tokens.
"""

import io
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from torch import Tensor, nn

from recsys.content.sentence import load_sentence_encoder, sentence_vectors
from recsys.errors import DataError
from recsys.types import Float32, Int32
from recsys.util.progress import Progress, Silent
from recsys.util.settings import Settings

PADDING, _UNKNOWN = 0, 1  # the unknown token exists because the library wants one; bytes stand in for it
BLOCK = 500  # texts read at a time

_CHARACTERS_A_TOKEN = 16  # at most; what is further on in a text of a megabyte is not looked at
_MIN_TEXT_CHARACTERS = 500  # of a sampled song: fewer would be a title
_LINE_CHARACTERS = 1000  # the trainer skips lines of more than 4,192 bytes
_SPECIAL = 2 + 256  # pieces that are no text: padding, unknown, and the bytes
_COVERAGE = 0.9995  # share of the characters that get a piece of their own, as SentencePiece recommends


class LyricsSettings(Settings):
    """``[hybrid.content.fusion.lyrics]`` in the run's TOML file."""

    encoder: Literal["gru", "sentence"] = "gru"  # sentence: frozen, from a package that carries one
    n_pieces: int = Field(default=8000, ge=512, le=64_000)  # sub-words; a small catalogue gets fewer
    sample_characters: int = Field(default=1_000_000, ge=1000)  # that sub-words are learned from: 5 s on one core
    max_tokens: int = Field(default=256, ge=1)  # the first ones of a song; later ones mostly repeat its chorus
    embedding: int = Field(default=32, ge=1)
    hidden: int = Field(default=32, ge=1)


@dataclass(frozen=True, slots=True, eq=False)
class LyricsReader:
    """What turns texts into numbers, learned once a fit and kept for uploads.

    ``pieces`` is a SentencePiece model, empty for a sentence encoder and for a catalogue without lyrics. ``width`` is
    the number of different tokens, or the length of a sentence vector; 0 for a catalogue without lyrics, which then
    reads those of an upload as none: no network has learned what they mean.
    """

    settings: LyricsSettings
    pieces: bytes
    width: int

    def __post_init__(self) -> None:
        """Check that the sub-words are those that the width was counted from."""
        found = SentencePieceProcessor(model_proto=self.pieces).vocab_size() if self.pieces else 0
        if found != self.width and self.settings.encoder == "gru":
            raise DataError(f"the lyrics' sub-words are {found:,}, expected {self.width:,}; build again")

    def read(self, texts: pl.Series, progress: Progress | None = None) -> Int32 | Float32:
        """Turn n texts into tokens (n, longest) int32, or sentence vectors (n, width) float32.

        A row of zeros is a text that is null or has no word in it.
        """
        if self.width == 0 or not len(texts):
            return np.zeros((len(texts), 1), dtype=np.int32)
        read = self._sentences if self.settings.encoder == "sentence" else self._tokens
        blocks: list[NDArray[Any]] = []
        with (progress or Silent()).bar("lyrics: reading", len(texts), "tracks") as bar:
            for start in range(0, len(texts), BLOCK):
                block = texts.slice(start, BLOCK)
                blocks.append(read(block))
                bar.advance(len(block))
        return _stacked(blocks)

    def _tokens(self, texts: pl.Series) -> Int32:
        most = self.settings.max_tokens
        heads = _words(texts, most * _CHARACTERS_A_TOKEN)
        processor = SentencePieceProcessor(model_proto=self.pieces)
        found = processor.encode(heads.fill_null("").to_list(), num_threads=1)
        tokens = np.zeros((len(texts), min(max(map(len, found), default=1), most) or 1), dtype=np.int32)
        for row, numbers in enumerate(found):
            tokens[row, : len(numbers)] = numbers[:most]
        return tokens

    def _sentences(self, texts: pl.Series) -> Float32:
        return sentence_vectors(_words(texts).to_list(), load_sentence_encoder())


def _stacked(blocks: list[NDArray[Any]]) -> NDArray[Any]:
    longest = max(rows.shape[1] for rows in blocks)
    return np.vstack([np.pad(rows, ((0, 0), (0, longest - rows.shape[1]))) for rows in blocks])


def _words(texts: pl.Series, n_characters: int | None = None) -> pl.Series:
    """The first characters of each text, null where there is no word in them."""
    stripped = texts.str.replace(r"^[\s\p{C}]+", "")  # blanks and control characters, of which garbage is full
    heads = stripped if n_characters is None else stripped.str.head(n_characters)
    return heads.set(~heads.str.contains(r"\w").fill_null(False), None)


def learn_lyrics(texts: pl.Series, settings: LyricsSettings, progress: Progress) -> LyricsReader:
    """Learn the sub-words of a catalogue's lyrics; the same texts and settings give the same bytes.

    Args:
        texts: n texts or nulls.
        settings: which encoder, and how many sub-words from how much text.
        progress: shows that it takes a while.

    Raises:
        ConfigError: a sentence encoder is asked for, and no package that carries one is installed.
    """
    if settings.encoder == "sentence":
        encoder = load_sentence_encoder()
        some = _words(texts).drop_nulls().head(1).to_list()
        return LyricsReader(settings, b"", sentence_vectors(some, encoder).shape[1] if some else 0)
    lines = _sample(texts, settings.sample_characters)
    if not lines:
        return LyricsReader(settings, b"", 0)
    model = io.BytesIO()
    with progress.bar("lyrics: sub-words", 1, "catalogues") as bar:
        SentencePieceTrainer.train(
            sentence_iterator=iter(_without_rare(lines, (settings.n_pieces - _SPECIAL) // 2)),
            model_writer=model,
            vocab_size=settings.n_pieces,
            hard_vocab_limit=False,  # a small catalogue has fewer sub-words than asked for
            character_coverage=_COVERAGE,
            byte_fallback=True,
            normalization_rule_name="nmt_nfkc_cf",  # one form of a character, no capitals, line ends are blanks
            pad_id=PADDING,
            unk_id=_UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            num_threads=1,  # sums then do not depend on the machine
            minloglevel=2,
        )
        bar.advance()
    pieces = model.getvalue()
    return LyricsReader(settings, pieces, SentencePieceProcessor(model_proto=pieces).vocab_size())


def _sample(texts: pl.Series, n_characters: int) -> list[str]:
    """Take lines from songs spread evenly over the catalogue, about so many characters in all."""
    rows = np.flatnonzero(texts.str.contains(r"\w").fill_null(False).to_numpy())
    if not len(rows):
        return []
    a_text = max(n_characters // len(rows), _MIN_TEXT_CHARACTERS)
    spread = np.linspace(0, len(rows) - 1, min(len(rows), max(n_characters // a_text, 1))).astype(np.int64)
    heads = _words(texts.gather(rows[spread]), a_text).drop_nulls().to_list()
    lines = (line[:_LINE_CHARACTERS] for head in heads for line in head.splitlines())
    return [line for line in lines if any(map(str.isalnum, line))]


def _without_rare(lines: list[str], at_most: int) -> list[str]:
    """Blank out all but the most frequent characters: the trainer gives each of the others a piece, and they must fit.

    What is left out is spelled in bytes later.
    """
    counts = Counter(character for line in lines for character in line.casefold())
    kept = {character for character, _ in counts.most_common(at_most)}
    if len(kept) == len(counts):
        return lines
    return ["".join(character if character in kept else " " for character in line.casefold()) for line in lines]


class LyricsTower(nn.Module):
    """Token embedding and GRU; the vector is the mean of its states over the tokens."""

    def __init__(self, n_tokens: int, settings: LyricsSettings) -> None:
        super().__init__()
        self.embedding = nn.Embedding(max(n_tokens, 1), settings.embedding, padding_idx=PADDING)
        self.gru = nn.GRU(settings.embedding, settings.hidden, batch_first=True)
        self.dim = settings.hidden

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, n_tokens) to (n, dim); a text without words becomes zeros."""
        present = (tokens != PADDING).float()
        longest = max(int(present.sum(dim=1).max()), 1)
        states, _ = self.gru(self.embedding(tokens[:, :longest].long()))
        mask = present[:, :longest, None]
        mean: Tensor = torch.sum(states * mask, dim=1) / mask.sum(dim=1).clamp(min=1)
        return mean
