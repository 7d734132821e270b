"""What a pretrained start is worth on real music, where the clips and the published weights are there. Minutes long."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers.places import DATA
from recsys.audio.fit import fit_sound_model
from recsys.audio.model import SoundModel
from recsys.audio.networks.weights import musicnn_weights
from recsys.audio.sample import read_sample
from recsys.audio.settings import AudioSettings, HeadSettings, LogMelSettings, NetworkSettings, TrainSettings
from recsys.catalogue.problems import Problems
from recsys.catalogue.tracks import read_tracks
from recsys.content.tasks import targets_of
from recsys.types import Clip, Tracks
from recsys.util.progress import Silent

EMOTIFY = DATA / "emotify"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not EMOTIFY.is_dir(), reason="the Emotify clips are not beside the repository"),
    pytest.mark.skipif(musicnn_weights() is None, reason="musicnn's weights are not here (recsys weights musicnn)"),
]


@pytest.fixture(scope="module")
def emotify(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tracks, list[Clip]]:
    """Half of the clips, 10 s of each."""
    tracks = read_tracks(EMOTIFY / "tracks.csv", Problems(), None)
    tracks = Tracks(tracks.frame.gather_every(2))
    settings = AudioSettings()
    settings = settings.model_copy(update={"decode": settings.decode.model_copy(update={"clip_s": 10.0})})
    paths = [(row, Path(path)) for row, path in enumerate(tracks.frame["path"])]
    with (tmp_path_factory.mktemp("emotify") / "clips").open("w+b") as file:
        rows, clips = read_sample(paths, settings, file, Silent())
        assert len(rows) == len(tracks)
        return tracks, list(clips)


def genre_accuracy(model: SoundModel, tracks: Tracks, clips: list[Clip], held_out: np.ndarray) -> float:
    """Most frequent genre among the 5 nearest trained tracks, by artists that the model has not heard."""
    genres = tracks.frame["genres"].list.first().cast(pl.Categorical).to_physical().to_numpy()
    vectors = model.embed(clips)
    nearest = np.argsort(-vectors[held_out] @ vectors[~held_out].T, axis=1)[:, :5]
    votes = np.apply_along_axis(lambda of: np.bincount(of, minlength=genres.max() + 1), 1, genres[~held_out][nearest])
    return float(np.mean(votes.argmax(axis=1) == genres[held_out]))


def fitted(tracks: Tracks, clips: list[Clip], held_out: np.ndarray, start: str, tune: str) -> SoundModel:
    network = NetworkSettings.model_validate({"name": "musicnn", "start": start, "tune": tune})
    settings = AudioSettings(
        network=network,
        log_mel=LogMelSettings(patch_frames=64, patch_hop_frames=64),  # a third of the cost
        train=TrainSettings(epochs=2, held_out_share=0.0),
        head=HeadSettings(copies=HeadSettings().copies[:1]),  # genres are told as well as with three
    )
    known = np.flatnonzero(~held_out)
    targets = targets_of(tracks, None, None).take(known)
    return fit_sound_model([clips[row] for row in known], targets, settings, 0, Silent())


def test_a_pretrained_start_beats_a_random_one_at_the_same_budget(emotify: tuple[Tracks, list[Clip]]) -> None:
    tracks, clips = emotify
    artists = tracks.frame["artist"].unique(maintain_order=True)
    held_out = tracks.frame["artist"].is_in(artists.gather_every(3).to_list()).to_numpy()
    assert 20 < held_out.sum() < 80
    random, last, head = (
        genre_accuracy(fitted(tracks, clips, held_out, start, tune), tracks, clips, held_out)
        for start, tune in (("random", "all"), ("pretrained", "last"), ("pretrained", "head"))
    )
    assert last > random + 0.05, (random, last)
    assert head > random + 0.05, (random, head)
