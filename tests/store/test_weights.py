"""Models on disk: an encoder that was read back puts a track where it stood, to the bit, and damage is told."""

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.catalogues import quick_settings
from helpers.made import made_listens, made_tags, made_tracks
from recsys.config import RunSettings
from recsys.errors import ArtefactError
from recsys.fit import fit
from recsys.hybrid.encoder import Encoder
from recsys.hybrid.mapping import FactorMap
from recsys.recommender import Recommender
from recsys.store.weights import load_encoder, save_models
from recsys.types import Tags, Tracks

N = 24
KIND = np.arange(N) % 2


def everything() -> Tracks:
    """Tracks of two kinds with a sound vector, genres, artists and years; t3 has none of these."""
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(2, 5))[KIND] + 0.2 * rng.normal(size=(N, 5))).tolist()
    genres: list[list[str]] = [["rock"] if kind else ["folk", "calm"] for kind in KIND]
    artist: list[str | None] = [f"Artist {kind}-{n % 4 // 2}" for n, kind in enumerate(KIND)]
    year: list[int | None] = [1990 + 10 * int(kind) + n % 3 for n, kind in enumerate(KIND)]
    vectors[3], genres[3], artist[3], year[3] = None, [], None, None
    return made_tracks(N, vector=vectors, genres=genres, artist=artist, year=year)


TAGS = made_tags([("t23", "slow", 3.0), ("t1", "slow", 1.0), ("t2", "loud", 2.0)])


def fitted(tracks: Tracks, tags: Tags | None, **hybrid: object) -> Recommender:
    rng = np.random.default_rng(1)
    pairs = [
        (f"u{user}", f"t{item}", 1.0)
        for user in range(10)
        for item in rng.choice(np.flatnonzero(KIND[:-1] == user % 2), 7, replace=False)
    ]
    quick: RunSettings = quick_settings()
    settings = quick.model_copy(update={"hybrid": quick.hybrid.model_copy(update=hybrid)})
    return fit(tracks, made_listens(pairs), tags, settings)


@pytest.fixture(scope="module")
def whole() -> Recommender:
    return fitted(everything(), TAGS)


def stored(recommender: Recommender, folder: Path) -> Encoder:
    save_models(folder / "models", recommender.artefacts.encoder, None)
    return load_encoder(folder / "models")


def vectors_of(encoder: Encoder, recommender: Recommender, tags: Tags | None) -> np.ndarray:
    sound = recommender.artefacts.sound
    given = (sound.rows, sound.vectors) if len(sound.rows) else None
    modalities = encoder.modalities(recommender.artefacts.tracks, tags, given)
    return encoder.item_vectors(modalities, encoder.content.encode(modalities), recommender.model.blend)


def test_a_track_gets_the_same_vector_to_the_bit_from_an_encoder_read_back(whole: Recommender, tmp_path: Path) -> None:
    loaded = stored(whole, tmp_path)
    ours, theirs = (vectors_of(encoder, whole, TAGS) for encoder in (whole.artefacts.encoder, loaded))
    assert ours.dtype == theirs.dtype == np.float32
    assert np.array_equal(ours, theirs)
    assert len(np.unique(theirs, axis=0)) > N / 2
    np.testing.assert_allclose(theirs[23], whole.model.item_vectors[23], atol=1e-4)  # nobody plays t23


def maps(recommender: Recommender, folder: Path) -> tuple[FactorMap, FactorMap]:
    one, other = recommender.artefacts.encoder.factor_map, stored(recommender, folder).factor_map
    assert one is not None
    assert other is not None
    return one, other


def assert_same(one: FactorMap, other: FactorMap) -> None:
    assert list(one.widths.items()) == list(other.widths.items())
    assert (one.shrinkage, one.kernel.size) == (other.shrinkage, other.kernel.size)
    for name in ("coefficients", "mean", "artist_sums", "artist_weights"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name).dtype == getattr(other, name).dtype, name
    for name in ("length_mean", "length_deviation"):
        assert np.array_equal(getattr(one.kernel, name), getattr(other.kernel, name)), name
    mine, theirs = one.kernel.landmarks, other.kernel.landmarks
    assert np.array_equal(mine.labels.toarray(), theirs.labels.toarray())
    assert mine.labels.shape == theirs.labels.shape
    assert np.array_equal(mine.sound, theirs.sound)
    assert np.array_equal(mine.artist, theirs.artist)


def test_the_map_to_factors_is_the_same_in_every_number(whole: Recommender, tmp_path: Path) -> None:
    one, other = maps(whole, tmp_path)
    assert_same(one, other)
    assert list(one.widths) == ["als", "wide"]
    assert (one.artist_weights > 0).sum() == 4


@pytest.mark.parametrize("what", ["sound", "metadata"])
def test_a_catalogue_that_lacks_much_is_read_back_too(what: str, tmp_path: Path) -> None:
    columns = {"sound": ("vector",), "metadata": ("genres", "artist", "year")}[what]
    frame = everything().frame
    recommender = fitted(made_tracks(N, **{name: frame[name].to_list() for name in columns}), None)
    assert_same(*maps(recommender, tmp_path))
    loaded = load_encoder(tmp_path / "models")
    ours, theirs = (vectors_of(encoder, recommender, None) for encoder in (recommender.artefacts.encoder, loaded))
    assert np.array_equal(ours, theirs)


def test_without_plays_there_is_no_map(tmp_path: Path) -> None:
    recommender = fit(everything(), None, None, quick_settings())
    assert recommender.artefacts.encoder.factor_map is None
    assert stored(recommender, tmp_path).factor_map is None


@pytest.mark.parametrize("missing", ["factor_map", "unplayed"])
def test_models_of_an_older_version_are_told_and_not_a_traceback(
    whole: Recommender, missing: str, tmp_path: Path
) -> None:
    save_models(tmp_path / "models", whole.artefacts.encoder, None)
    file = tmp_path / "models" / "content" / "content.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    del facts[missing]
    file.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(ArtefactError, match="build again") as caught:
        load_encoder(tmp_path / "models")
    assert "\n" not in str(caught.value)
