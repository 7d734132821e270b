"""Fusion: any modality may be missing, in any combination, and each tells something."""

from itertools import product

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from helpers.made import made_tags, made_tracks
from recsys.content.fusion import MODALITIES, Fusion, FusionSettings, FusionShape, Modalities
from recsys.content.lyrics import LyricsReader, LyricsSettings, learn_lyrics
from recsys.content.metadata import MetadataSettings, encode, learn_vocabulary
from recsys.content.train import BATCH, ContentModel, modalities_of
from recsys.util.progress import Silent

LYRICS = LyricsSettings(n_pieces=512, max_tokens=12, embedding=6, hidden=5)
SETTINGS = FusionSettings(dim=7, tower=4, hidden=9, lyrics=LYRICS)
N = 5


def full_tracks() -> tuple[Modalities, ContentModel]:
    """Five tracks of which everything is known, and an untrained network for them."""
    tracks = made_tracks(
        N,
        genres=[["rock"], ["rock", "folk"], ["folk"], ["jazz"], ["jazz", "folk"]],
        artist=["Ann", "Bo", "Ann", "Bo", "Ann"],
        year=[1980, 1991, 1992, 2003, 2010],
    )
    tags = made_tags([(f"t{n}", name, 1.0 + n) for n in range(N) for name in ("live", "slow", "loud")[: 1 + n % 3]])
    vocabulary = learn_vocabulary(tracks, tags, MetadataSettings())
    rng = np.random.default_rng(0)
    sound = np.arange(N, dtype=np.int32), rng.normal(size=(N, 3)).astype(np.float32)
    texts = pl.Series(["a song of rain", "rain rain", "der Mond ist aufgegangen", "la vie", "one two three"])
    reader = learn_lyrics(texts, LYRICS, Silent())
    modalities = modalities_of(sound, reader.read(texts), encode(tracks, tags, vocabulary))
    torch.manual_seed(0)
    shape = FusionShape(3, reader.width, 3, 3, 2, vocabulary.n_year_buckets)
    network = Fusion(shape, SETTINGS)
    with torch.no_grad():
        network.missing.normal_()  # as training leaves it
    return modalities, ContentModel(network.eval(), shape, vocabulary, reader, SETTINGS, (), [])


def hidden(tracks: Modalities, keep: NDArray[np.bool_]) -> Modalities:
    """Take modalities away from the tracks themselves; ``keep`` (6,)."""
    data, none = tracks.metadata, np.full(len(tracks), -1)
    metadata = type(data)(
        data.genres * float(keep[2]), data.tags * float(keep[3]), data.artist if keep[4] else none,
        data.year if keep[5] else none,
    )  # fmt: skip
    for matrix in (metadata.genres, metadata.tags):
        matrix.eliminate_zeros()
    return Modalities(
        tracks.sound * np.float32(keep[0]), tracks.has_sound & keep[0], tracks.lyrics * np.int32(keep[1]), metadata
    )


@pytest.mark.parametrize(
    "keep", list(product([False, True], repeat=6)), ids=lambda keep: "".join("01"[k] for k in keep)
)
def test_any_modality_may_be_missing(keep: tuple[bool, ...]) -> None:
    tracks, model = full_tracks()
    kept = np.array(keep)
    less = hidden(tracks, kept)
    assert (less.present() == kept).all()
    vectors = model.encode(less)
    assert vectors.shape == (N, 7)
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(lengths, float(kept.any()), atol=1e-5)
    with torch.inference_mode():
        masked = model.network(tracks, np.tile(kept, (N, 1))).numpy()
    np.testing.assert_allclose(masked * kept.any(), vectors, atol=1e-6)


@pytest.mark.parametrize("column", range(6), ids=MODALITIES)
def test_every_modality_tells_something_and_a_hidden_one_nothing(column: int) -> None:
    tracks, model = full_tracks()
    keep = np.ones((N, 6), dtype=bool)
    with torch.inference_mode():
        whole = model.network(tracks, keep).numpy()
        keep[:, column] = False
        without = model.network(tracks, keep).numpy()
        swapped = tracks.take(np.array([1, 3, 0, 4, 2]))
        parts = [tracks if other != column else swapped for other in range(6)]
        other_data = Modalities(
            parts[0].sound, parts[0].has_sound, parts[1].lyrics,
            type(tracks.metadata)(parts[2].metadata.genres, parts[3].metadata.tags, parts[4].metadata.artist,
                                  parts[5].metadata.year),
        )  # fmt: skip
        still = model.network(other_data, keep).numpy()
        keep[:, column] = True
        changed = model.network(other_data, keep).numpy()
    assert (np.abs(whole - without).max(axis=1) > 1e-4).all()
    assert np.array_equal(still, without)
    assert np.abs(changed - whole).max() > 1e-4


@pytest.mark.parametrize("column", range(6), ids=MODALITIES)
def test_each_modality_has_a_stand_in_of_its_own(column: int) -> None:
    tracks, model = full_tracks()
    keep = np.ones((N, 6), dtype=bool)
    keep[1, column] = keep[2, (column + 1) % 6] = False
    with torch.inference_mode():
        before = model.network(tracks, keep).numpy()
        model.network.missing[column] += 1
        changed = np.abs(model.network(tracks, keep).numpy() - before).max(axis=1) > 1e-4
    assert changed.tolist() == [False, True, False, False, False]


def test_tracks_with_different_gaps_share_a_batch() -> None:
    tracks, model = full_tracks()
    keep = np.array([[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1], [0] * 6], bool)
    with torch.inference_mode():
        together = model.network(tracks, keep).numpy()
        alone = [model.network(tracks.take(np.array([row])), keep[[row]]).numpy()[0] for row in range(N)]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_batch_equals_single(monkeypatch: pytest.MonkeyPatch) -> None:
    tracks, model = full_tracks()
    together = model.encode(tracks)
    singly = np.vstack([model.encode(tracks.take(np.array([row]))) for row in range(N)])
    np.testing.assert_allclose(singly, together, atol=1e-6)
    assert BATCH > N
    monkeypatch.setattr("recsys.content.train.BATCH", 2)
    np.testing.assert_allclose(model.encode(tracks), together, atol=1e-6)


def test_the_network_works_without_any_class_to_embed() -> None:
    bare = made_tracks(3)
    vocabulary = learn_vocabulary(bare, None, MetadataSettings())
    lyrics = np.array([[0], [1], [0]], np.int32)
    modalities = modalities_of(None, lyrics, encode(bare, None, vocabulary))
    shape, reader = FusionShape(1, 2, 0, 0, 0, 0), LyricsReader(LYRICS, b"", 0)
    model = ContentModel(Fusion(shape, SETTINGS).eval(), shape, vocabulary, reader, SETTINGS, (), [])
    assert np.linalg.norm(model.encode(modalities), axis=1) == pytest.approx([0, 1, 0], abs=1e-5)


def test_many_tags_shout_no_louder_than_one() -> None:
    tracks, model = full_tracks()
    louder = Modalities(
        tracks.sound, tracks.has_sound, tracks.lyrics,
        type(tracks.metadata)(tracks.metadata.genres, tracks.metadata.tags * 50, *(getattr(tracks.metadata, name)
                              for name in ("artist", "year"))),
    )  # fmt: skip
    np.testing.assert_allclose(model.encode(louder), model.encode(tracks), atol=1e-5)


def test_modalities_are_lined_up_by_row() -> None:
    bare = made_tracks(4)
    metadata = encode(bare, None, learn_vocabulary(bare, None, MetadataSettings()))
    sound = np.array([3, 1], np.int32), np.array([[1, 2], [3, 4]], np.float32)
    found = modalities_of(sound, np.array([[0, 0], [0, 0], [5, 0], [0, 0]], np.int32), metadata)
    assert found.sound.tolist() == [[0, 0], [3, 4], [0, 0], [1, 2]]
    assert found.present()[:, :2].tolist() == [[False, False], [True, False], [False, True], [True, False]]
