"""The head in closed form: what it keeps, what it forgets, what it does with gaps."""

import numpy as np
import pytest
import torch

from helpers.labels import labelled
from helpers.made import made_tags, made_tracks
from recsys.audio.networks.head import _labels, _regression, fit_head
from recsys.audio.settings import HeadSettings
from recsys.content.settings import TaskSettings
from recsys.content.tasks import targets_of

N, N_KNOWN, SIZES = 90, 60, (12, 6)
GENRES = (np.arange(N) % 15 % 3).tolist()
ARTISTS = (np.arange(N) % 15 + 15 * (np.arange(N) // N_KNOWN)).tolist()  # none of the known ones comes again


def made(n_copies: int = 2) -> np.ndarray:
    """Features of 90 tracks, the last 30 by other artists.

    Columns 0-2 say the genre, 3-8 the artist, 9-11 the track, 12-14 what copies differ in, the rest is noise within an
    artist; all the nuisances are large.
    """
    rng = np.random.default_rng(0)
    features = np.zeros((N, 1 + n_copies, sum(SIZES)))
    features[:, :, 0:3] = 1.5 * rng.normal(size=(3, 3))[GENRES][:, None]
    features[:, :, 3:9] = rng.normal(size=(30, 6))[ARTISTS][:, None]
    features[:, :, 9:12] = 0.3 * rng.normal(size=(N, 1, 3))
    features[:, :, 12:15] = 4 * rng.normal(size=(N, 1 + n_copies, 3))
    features[:, :, 15:] = 2 * rng.normal(size=(N, 1, 3))
    return features.astype(np.float32)


def fitted(features: np.ndarray, targets: object = None, **settings: object) -> np.ndarray:
    """Fit to the known tracks; vectors (n, 1 + n_copies, dim) of all tracks."""
    known = labelled(GENRES[:N_KNOWN], ARTISTS[:N_KNOWN]) if targets is None else targets
    head = fit_head(
        features[:N_KNOWN],
        SIZES,
        known,
        HeadSettings.model_validate({"n_components": 18, "shrinkage": 0.01, **settings}),
    )
    with torch.inference_mode():
        vectors = head(torch.from_numpy(features.reshape(-1, features.shape[2]))).numpy()
    assert vectors.shape[1] == head.dim
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    return vectors.reshape(*features.shape[:2], -1)


def likeness(vectors: np.ndarray) -> dict[str, float]:
    """Of the later tracks: genre of the nearest by another artist, artist of the nearest, copies known again."""
    clean, later = vectors[:, 0], np.arange(N_KNOWN, N)
    closeness = clean @ clean.T
    np.fill_diagonal(closeness, -2)
    genres, artists = np.array(GENRES), np.array(ARTISTS)
    nearest = closeness.argmax(axis=1)[later]
    of_another_artist = np.where(artists[:, None] == artists, -2, closeness).argmax(axis=1)[later]
    again = (vectors[later, 1] @ clean.T).argmax(axis=1) == later
    return {
        "genre": float(np.mean(genres[of_another_artist] == genres[later])),
        "artist": float(np.mean(artists[nearest] == artists[later])),
        "again": float(np.mean(again)),
    }


def test_artists_genres_and_recordings_are_told_apart() -> None:
    found = likeness(fitted(made()))
    as_they_come = likeness(np.array([row / np.linalg.norm(row, axis=1, keepdims=True) for row in made()]))
    assert found["artist"] > 0.9
    assert found["again"] > 0.8
    assert all(found[name] > share for name, share in as_they_come.items()), as_they_come


def test_each_part_does_its_share() -> None:
    features = made()
    both = likeness(fitted(features))
    without_labels = likeness(fitted(features, weight=0.0))
    labels_alone = likeness(fitted(features, weight=1000.0))
    blind_to_copies = likeness(fitted(features, nuisance=0.0))
    assert without_labels["genre"] < both["genre"]
    assert both["genre"] < labels_alone["genre"]
    assert labels_alone["artist"] < both["artist"] - 0.2
    assert blind_to_copies["again"] < both["again"] - 0.1


def test_missing_labels_drop_out() -> None:
    features = made()
    nothing = targets_of(made_tracks(N_KNOWN), None, None)
    assert fitted(features, nothing).shape[2] == 18  # the whitened part alone, by what copies differ in
    assert likeness(fitted(features, nothing))["again"] > 0.9
    no_artists = labelled(GENRES[:N_KNOWN])
    assert fitted(features, no_artists).shape[2] == 18 + 3
    assert fitted(made(n_copies=0), nothing).shape[2] == 18  # then nothing is whitened


def test_labels_are_centred_and_what_is_missing_is_the_mean() -> None:
    tracks = made_tracks(5, genres=[["a"], ["b"], ["a", "b"], [], ["b"]], year=[1980, None, 2000, 1990, None])
    targets = targets_of(tracks, None, None, TaskSettings(), made_tags([("t0", "loud", 2.0), ("t1", "loud", 1.0)]))
    assert targets.genre_names == ("b", "a")
    genre = _labels(targets, TaskSettings(genre=1.0, artist=0.0, factors=0.0))
    b = np.array([0, 1, 0.5, np.nan, 1])
    expected = np.nan_to_num(b - np.nanmean(b))
    np.testing.assert_allclose(genre, np.stack([expected, -expected], axis=1), atol=1e-6)
    both = _labels(targets, TaskSettings(genre=0.0, artist=0.0, factors=0.0, year=4.0, tags=1.0))
    np.testing.assert_allclose(both[:, 0], 2 * np.array([-1, 0, 1, 0, 0]) * 1.5**0.5, atol=1e-5)
    assert both.shape == (5, 1)  # every tagged track has the one tag: nothing to tell


def test_the_regression_is_kernel_ridge() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 4)), rng.normal(size=(60, 2))
    settings = HeadSettings(l2=0.5, kernel_width=1.5, weight=0.7)
    landmarks, width, coefficients = _regression(x, labels, settings)
    squared = ((x[:, None] - x) ** 2).sum(axis=2)
    assert width == pytest.approx(1.5 / np.median(squared))
    kernel = np.exp(-width * squared)
    expected = kernel @ np.linalg.solve(kernel + 0.5 * np.eye(60), labels)
    expected *= 0.7 / np.median(np.linalg.norm(expected, axis=1))
    found = np.exp(-width * ((x[:, None] - landmarks) ** 2).sum(axis=2)) @ coefficients
    np.testing.assert_allclose(found, expected, atol=1e-5)
    few = _regression(x, labels, settings.model_copy(update={"max_landmarks": 30}))
    nearly = np.exp(-few[1] * ((x[:, None] - few[0]) ** 2).sum(axis=2)) @ few[2]
    assert few[0].shape == (30, 4)
    assert np.corrcoef(nearly.ravel(), expected.ravel())[0, 1] > 0.8


def test_far_from_all_clips_the_labels_say_nothing() -> None:
    features = made()
    head = fit_head(
        features[:N_KNOWN], SIZES, labelled(GENRES[:N_KNOWN]), HeadSettings(n_components=18, kernel_width=20)
    )
    with torch.inference_mode():
        near, far = head(torch.from_numpy(np.stack([features[0, 0], 3 * np.sign(features[0, 0])])))
    assert float(near[18:].norm()) > 10 * float(far[18:].norm())
