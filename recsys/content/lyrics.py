"""Lyrics to a vector: text -> tokens -> embedding -> GRU.

    list of texts  ->  tokens (n, max_tokens) int32, 0 = padding  ->  LyricsTower  ->  (n, d)

Words are hashed into a fixed number of buckets, so that no vocabulary has to be kept and any language works.
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.settings import Settings
from recsys.types import Int32

_WORD = re.compile(r"\w+")
PADDING = 0


class LyricsSettings(Settings):
    """``[lyrics]`` in the run's TOML file."""

    n_buckets: int = Field(default=20_000, ge=1)  # hash buckets of words
    max_tokens: int = Field(default=128, ge=1)  # the first words of a song; later ones mostly repeat its chorus
    embedding: int = Field(default=32, ge=1)
    hidden: int = Field(default=32, ge=1)


def tokenize(texts: Sequence[str | None], settings: LyricsSettings) -> Int32:
    """Hash the first words of each text into 1..n_buckets; a missing text is all padding.

    Returns (n, max_tokens) int32. CRC-32 is used because it is the same in every process and version.
    """
    tokens = np.zeros((len(texts), settings.max_tokens), dtype=np.int32)
    for row, text in enumerate(texts):
        words = _WORD.findall((text or "").casefold())[: settings.max_tokens]
        tokens[row, : len(words)] = [zlib.crc32(word.encode()) % settings.n_buckets + 1 for word in words]
    return tokens


class LyricsTower(nn.Module):
    """Token embedding and GRU; the vector is the mean of its states over the words."""

    def __init__(self, settings: LyricsSettings) -> None:
        super().__init__()
        self.embedding = nn.Embedding(settings.n_buckets + 1, settings.embedding, padding_idx=PADDING)
        self.gru = nn.GRU(settings.embedding, settings.hidden, batch_first=True)
        self.dim = settings.hidden

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, n_tokens) to (n, dim); a text without words becomes zeros."""
        present = (tokens != PADDING).float()
        longest = max(int(present.sum(dim=1).max()), 1)
        states, _ = self.gru(self.embedding(tokens[:, :longest]))
        mask = present[:, :longest, None]
        mean: Tensor = torch.sum(states * mask, dim=1) / mask.sum(dim=1).clamp(min=1)
        return mean
