"""An upload is heard as the build heard the catalogue, whoever takes it in."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.catalogues import AudioCatalogue
from helpers.stores import rows
from recsys.audio.decoding.pool import DecodeWorkers
from recsys.audio.settings import WorkerSettings
from recsys.errors import ArtefactError, DataError
from recsys.store.generation import Store
from recsys.uploads.metadata import NewTrack
from recsys.uploads.vectors import UploadModels, embed_upload


@pytest.fixture(scope="module")
def models(audio_store: Path) -> UploadModels:
    return UploadModels.of(Store(audio_store).current())


@pytest.fixture(scope="module")
def workers(models: UploadModels) -> Iterator[DecodeWorkers]:
    with DecodeWorkers(models.decode, WorkerSettings(n_workers=1), confined=True) as found:
        yield found


@pytest.mark.slow
def test_it_has_the_vector_that_the_build_gave(
    audio_catalogue: AudioCatalogue, audio_store: Path, models: UploadModels, workers: DecodeWorkers
) -> None:
    stored = dict(rows(audio_store, "SELECT track_id, vector FROM track_vectors WHERE space = 'sound'"))
    hashes = dict(rows(audio_store, "SELECT track_id, content_hash FROM track_audio"))
    for track, name in (("s1", "s1.mp3"), ("s2", "s2.flac"), ("s3", "s3.ogg")):
        found = embed_upload(audio_catalogue.folder / "music" / name, NewTrack(), models, workers)
        np.testing.assert_allclose(found.vectors["sound"], stored[track], atol=1e-5)
        assert (found.content_hash, found.notes) == (hashes[track], ())
        assert found.duration_s == pytest.approx(2.0, abs=0.1)


@pytest.mark.slow
def test_what_its_uploader_says_places_it(
    audio_catalogue: AudioCatalogue, models: UploadModels, workers: DecodeWorkers
) -> None:
    song = audio_catalogue.folder / "music" / "s1.mp3"
    told = [embed_upload(song, NewTrack(genre=genre), models, workers).vectors for genre in ("jazz", "metal")]
    np.testing.assert_array_equal(told[0]["sound"], told[1]["sound"])
    assert not np.allclose(told[0]["content"], told[1]["content"], atol=1e-3)


def test_what_cannot_be_used_is_said(
    audio_catalogue: AudioCatalogue, models: UploadModels, workers: DecodeWorkers, tmp_path: Path
) -> None:
    (tmp_path / "text.mp3").write_text("no music")
    with pytest.raises(DataError, match=r"the audio cannot be used: no decoder"):
        embed_upload(tmp_path / "text.mp3", NewTrack(), models, workers)
    with pytest.raises(DataError, match=r"lasts 2 s, expected 1 s or less"):
        embed_upload(audio_catalogue.folder / "music" / "s0.wav", NewTrack(), models, workers, most_s=1.0)
    with pytest.raises(ArtefactError, match=r"cannot read the upload .*none.wav"):
        embed_upload(tmp_path / "none.wav", NewTrack(), models, workers)
