"""Audio that a generation knows is found in serving.lmdb, so uploads go on while others hold the DuckDB file."""

from contextlib import closing
from pathlib import Path

import duckdb
import lmdb
import pytest

from helpers.catalogues import CLIPS, AudioCatalogue, clip
from helpers.flipping import flipped
from helpers.stores import copied, rows
from recsys.audio.decoding.worker import content_hash
from recsys.errors import ChangedError, DamagedError
from recsys.live.add_track import add_track
from recsys.live.service import LiveUpdater
from recsys.recommender import open_store
from recsys.serving.reload import open_answers
from recsys.store.checksums import TABLES
from recsys.store.generation import Store
from recsys.store.lmdb_lookup import AUDIO, DATABASES, FILE, Lookup
from recsys.uploads.metadata import NewTrack


@pytest.fixture
def store(audio_store: Path, tmp_path: Path) -> Store:
    return Store(copied(audio_store, tmp_path))


def without_audio(file: Path) -> None:
    """Make it what an earlier version wrote."""
    environment = lmdb.open(str(file), subdir=False, max_dbs=len(DATABASES), lock=False)
    with environment.begin(write=True) as writing:
        writing.drop(environment.open_db(AUDIO.encode(), txn=writing), delete=True)
    environment.close()


def test_every_file_is_in_both(store: Store) -> None:
    known = rows(store.folder, "SELECT content_hash, track_id FROM track_audio")
    assert len(known) == len(CLIPS)
    (store.current() / TABLES).unlink()
    lookup = Lookup(store.current() / FILE)
    assert [lookup.track_of_audio(content) for content, _ in known] == [track for _, track in known]
    assert lookup.track_of_audio("0" * 64) is None


@pytest.mark.slow
def test_uploads_go_on_while_a_client_holds_the_duckdb_file(
    store: Store, audio_catalogue: AudioCatalogue, tmp_path: Path
) -> None:
    old = audio_catalogue.folder / "music" / "s1.mp3"
    (tmp_path / "new.mp3").write_bytes(clip("new.mp3", 91))
    with closing(open_answers(store.folder)) as answers, duckdb.connect(store.current() / TABLES) as client:
        client.execute("SELECT 1")
        with pytest.raises(ChangedError, match="is held by a client"):
            open_store(store.folder, strict=True)
        assert answers.live is not None
        assert answers.live.track_of_audio(content_hash(old)) == "s1"
        assert answers.live.track_of_audio("0" * 64) is None
        again = add_track(store.folder, old, NewTrack())
        assert (again.track_id, again.known) == ("s1", True)
        added = add_track(store.folder, tmp_path / "new.mp3", NewTrack(track_id="new", artist="Band 1"))
        assert (added.track_id, added.known) == ("new", False)
        assert answers.live.track_of_audio(content_hash(tmp_path / "new.mp3")) == "new"


def test_a_generation_of_before_asks_duckdb(store: Store, audio_catalogue: AudioCatalogue) -> None:
    without_audio(store.current() / FILE)
    lookup = Lookup(store.current() / FILE)
    content = content_hash(audio_catalogue.folder / "music" / "s4.wav")
    with duckdb.connect(store.current() / TABLES) as client:
        client.execute("SELECT 1")
        with pytest.raises(ChangedError):
            lookup.track_of_audio(content)
    assert (lookup.track_of_audio(content), lookup.track_of_audio("0" * 64)) == ("s4", None)


def test_a_damaged_id_is_asked_of_duckdb(store: Store, audio_catalogue: AudioCatalogue) -> None:
    file = store.current() / FILE
    content = content_hash(audio_catalogue.folder / "music" / "s4.wav")
    lookup = Lookup(file)
    value = bytes(lookup._get(AUDIO, content.encode()))
    whole = file.read_bytes()
    start = 8 * whole.index(content.encode() + value) + 8 * len(content)
    tables, away = store.current() / TABLES, store.folder / "away"
    tables.rename(away)
    for bit in range(8 * len(value)):
        with file.open("r+b") as stream:
            stream.write(flipped(whole, start + bit))
        if bit == 0:
            with pytest.raises(DamagedError):
                lookup.track_of_audio(content)
            away.rename(tables)
        assert lookup.track_of_audio(content) == "s4", bit


def test_both_ways_of_serving_know_the_same(store: Store, audio_catalogue: AudioCatalogue) -> None:
    content = content_hash(audio_catalogue.folder / "music" / "s7.wav")
    for backend in ("duckdb", "lmdb"):
        with (
            closing(open_store(store.folder, backend)) as recommender,
            closing(LiveUpdater(store, recommender)) as live,
        ):
            assert (live.track_of_audio(content), live.track_of_audio("0" * 64)) == ("s7", None)
