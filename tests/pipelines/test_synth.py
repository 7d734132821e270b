"""The simulated catalogue: files that a scanner reads, genres that can be heard, taste that was planted."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import mutagen
import numpy as np
import polars as pl
import pytest
import soundfile
from numpy.typing import NDArray
from pydantic import ValidationError

import pipelines.synth.files as files_module
import pipelines.synth.listeners as listeners_module
import pipelines.synth.music as music_module
from pipelines.synth import SynthSettings, Tastes, affinity, compose, fans, plan, tastes, write_listens
from pipelines.synth.genres import GENRE_NAMES, GENRES, VOICES
from pipelines.synth.music import perform
from pipelines.synth.plan import slug
from pipelines.synth.sound import hertz, master, stroke, tone
from recsys.errors import ArtefactError, ConfigError, DataError
from recsys.util.progress import Silent

RATE = 22_050
TINY = SynthSettings(n_tracks=9, n_artists=4, clip_s=2.5, n_users=7, n_listens=40, n_workers=1)
LISTENERS = SynthSettings(n_tracks=120, n_artists=24, n_users=150, n_listens=6_000, seed=3)


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> files_module.Composed:
    return compose(tmp_path_factory.mktemp("tiny"), TINY, Silent())


def scanned(settings: SynthSettings) -> pl.DataFrame:
    """Stand in for ``recsys scan``: the table in another order than the plan's."""
    paths = [song.path for song in plan(settings).songs][::-1]
    return pl.DataFrame({"track_id": [f"id-{p}" for p in paths], "path": [f"/somewhere/else/audio/{p}" for p in paths]})


@pytest.fixture(scope="module")
def listens(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    out = tmp_path_factory.mktemp("listens") / "listens.csv"
    write_listens(scanned(LISTENERS), out, LISTENERS)
    return pl.read_csv(out)


def spectrum(samples: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    return np.fft.rfftfreq(len(samples), 1 / RATE), power


def centroid(samples: NDArray[np.float32]) -> float:
    hz, power = spectrum(samples)
    return float((hz * power).sum() / power.sum())


# the plan


def test_plan_has_every_artist_and_genre_and_no_path_twice():
    songs = plan(LISTENERS).songs
    assert len(songs) == len({song.path for song in songs}) == 120
    assert len({song.artist.name for song in songs}) == 24
    assert {song.artist.genre.name for song in songs} == set(GENRE_NAMES)
    assert sum(song.is_new for song in songs) == 12
    assert all(song.year == 2025 for song in songs if song.is_new)


@pytest.mark.slow
def test_plan_keeps_titles_of_an_artist_apart_when_words_run_out():
    songs = plan(SynthSettings(n_tracks=900, n_artists=1)).songs
    assert len({song.path for song in songs}) == 900


def test_genre_share_counts_each_borrowed_layer_as_a_quarter():
    song = plan(TINY).songs[0]
    assert replace(song, borrowed=()).genre_share() == {song.artist.genre.name: 1.0}
    shares = replace(song, borrowed=("bass", "lead")).genre_share()
    assert shares == {song.artist.genre.name: 0.5, song.artist.influence.name: 0.5}


def test_settings_out_of_reach_are_refused():
    with pytest.raises(ConfigError, match="10 artists cannot share 9 tracks"):
        plan(TINY.model_copy(update={"n_artists": 10}))
    with pytest.raises(ValidationError):
        SynthSettings(n_songs=3)


# sound


def test_a_note_has_the_pitch_it_was_given():
    hz, power = spectrum(tone(VOICES["organ"], hertz(69), 1.0, 0.0, RATE))
    assert hz[power.argmax()] == pytest.approx(440.0, abs=1.5)


def test_a_high_bright_note_has_no_harmonics_folded_back():
    plain = replace(VOICES["chip"], vibrato_cents=0.0)
    hz, power = spectrum(tone(plain, 3_000.0, 1.0, 2.0, RATE))
    between = (hz > 200) & (np.abs(hz / 3_000 - np.round(hz / 3_000)) > 0.1)
    assert 10 * np.log10(power[between].sum() / power.sum()) < -35


def test_every_drum_is_heard_and_ends():
    for drum in ("kick", "snare", "clap", "hat", "ride", "shaker"):
        samples = stroke(drum, 0.0, RATE, np.random.default_rng(0))
        assert 0.1 < np.abs(samples).max() < 1.5
        assert np.abs(samples[-50:]).max() < 0.1


def test_songs_of_every_genre_are_whole_and_within_range():
    for song in plan(SynthSettings(n_tracks=8, n_artists=8)).songs:
        samples = perform(song, 3.0, RATE)
        assert samples.dtype == np.float32
        assert samples.shape == (66_150,)
        assert np.abs(samples).max() < 0.9
        assert np.sqrt(np.mean(samples**2)) > 0.05


def test_the_mix_is_brought_to_one_level_and_never_clips():
    rng = np.random.default_rng(0)
    quiet = (0.001 * rng.normal(size=RATE)).astype(np.float32)
    spiked = quiet.copy()
    spiked[9_000] = 50.0
    assert np.sqrt(np.mean(master(quiet, 0.2, 0.0, RATE, rng) ** 2)) == pytest.approx(0.16, abs=0.02)
    assert np.abs(master(spiked, 0.2, 0.0, RATE, rng)).max() == pytest.approx(0.891, abs=0.001)


@pytest.mark.parametrize("layer", ["drums", "bass", "chords", "lead"])
def test_every_layer_is_heard(layer: str, monkeypatch: pytest.MonkeyPatch):
    song = replace(next(s for s in plan(LISTENERS).songs if s.artist.genre.name == "jazz"), borrowed=())
    whole = perform(song, 3.0, RATE)
    monkeypatch.setitem(music_module._GAINS, layer, 0.0)
    assert np.sqrt(np.mean((whole - perform(song, 3.0, RATE)) ** 2)) > 0.02


def test_a_brighter_song_sounds_brighter():
    for song in plan(SynthSettings(n_tracks=8, n_artists=8)).songs:
        dark, bright = (perform(replace(song, brightness=b), 3.0, RATE) for b in (-1.5, 1.5))
        assert centroid(bright) > 1.1 * centroid(dark)


def test_the_planted_tempo_is_heard():
    song = next(song for song in plan(LISTENERS).songs if song.artist.genre.name == "house")
    song = replace(song, borrowed=(), bpm=120.0)
    samples = perform(song, 6.0, RATE)
    frames = samples[: len(samples) // 441 * 441].reshape(-1, 441)  # 50 frames a second
    onsets = np.maximum(np.diff(np.log(np.mean(frames**2, axis=1) + 1e-6)), 0.0)
    onsets -= onsets.mean()
    beat, off_beat = (float((onsets[lag:] * onsets[:-lag]).sum()) for lag in (25, 19))  # 0.5 s and 0.38 s
    assert beat > 3 * abs(off_beat)


@pytest.mark.slow
def test_genres_are_told_apart_by_simple_features_across_artists():
    songs = plan(SynthSettings(n_tracks=48, n_artists=48)).songs
    features = []
    for song in songs:
        power = np.abs(np.fft.rfft(perform(song, 4.0, RATE)[:88_064].reshape(-1, 1024), axis=1)) ** 2
        edges = np.geomspace(2, 512, 17).astype(int)
        bands = np.log10(np.add.reduceat(power, edges[:-1], axis=1) + 1e-6)
        features.append(np.concatenate([bands.mean(axis=0), bands.std(axis=0)]))
    table = np.array(features)
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    genre = np.array([GENRE_NAMES.index(song.artist.genre.name) for song in songs])
    distance = ((table[:, None] - table[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)  # every song is another artist's
    accuracy = float(np.mean(genre[distance.argmin(axis=1)] == genre))
    assert 0.4 < accuracy < 1.0  # chance is 1/8


# files


def test_files_are_where_they_were_planned(composed: files_module.Composed):
    found = {path.relative_to(composed.audio).as_posix() for path in composed.audio.rglob("*.mp3")}
    assert found == {song.path for song in composed.plan.songs}
    upload = composed.plan.upload
    assert composed.upload.name == f"{slug(upload.title)}.mp3"
    assert upload.artist.name not in {song.artist.name for song in composed.plan.songs}
    assert upload.artist.genre in GENRES
    assert "Simulated" in (composed.audio.parent / "SIMULATED.txt").read_text()


def test_tags_and_lengths_are_read_back(composed: files_module.Composed):
    sung = 0
    for song in (*composed.plan.songs, composed.plan.upload):
        path = composed.upload if song is composed.plan.upload else composed.audio / song.path
        info = soundfile.info(path)
        assert (info.format, info.samplerate, info.channels) == ("MP3", RATE, 1)
        assert info.duration == pytest.approx(2.5, abs=0.1)
        tags = mutagen.File(path).tags
        told = [str(tags[key]) for key in ("TIT2", "TPE1", "TCON", "TDRC", "TALB")]
        assert told == [song.title, song.artist.name, song.artist.genre.name, str(song.year), song.album]
        assert "Simulated" in str(tags["COMM::eng"])
        assert [str(frame) for frame in tags.getall("USLT")] == ([song.lyrics] if song.lyrics else [])
        sung += song.lyrics is not None
    assert 0 < sung < 10


@pytest.mark.slow
def test_same_settings_same_bytes_in_any_number_of_processes(
    composed: files_module.Composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(files_module, "_FEW", 0)
    again = compose(tmp_path, TINY.model_copy(update={"n_workers": 2}), Silent())
    for song in composed.plan.songs:
        assert (again.audio / song.path).read_bytes() == (composed.audio / song.path).read_bytes()
    assert again.upload.read_bytes() == composed.upload.read_bytes()


def test_another_seed_is_another_catalogue():
    ours, theirs = plan(TINY), plan(TINY.model_copy(update={"seed": 1}))
    assert len({song.artist.name for plan_ in (ours, theirs) for song in plan_.songs}) == 8


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path):
    (tmp_path / "audio").write_text("a file in the way")
    with pytest.raises(ArtefactError, match="cannot write simulated music"):
        compose(tmp_path, TINY, Silent())


# listeners


def test_listens_are_complete_and_in_order(listens: pl.DataFrame):
    assert listens.columns == ["user_id", "track_id", "listened_at"]
    assert len(listens) == 6_000
    assert set(listens["user_id"]) == set(tastes(LISTENERS).user_ids)
    assert set(listens["track_id"]) <= set(scanned(LISTENERS)["track_id"])
    times = listens["listened_at"].str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC")
    assert times.is_sorted()
    assert times[0] >= datetime(2024, 7, 1, tzinfo=UTC)
    assert times[-1] < datetime(2025, 7, 1, tzinfo=UTC)
    assert (times[-1] - times[0]).days > 300


def test_nobody_hears_two_tracks_at_once(listens: pl.DataFrame):
    assert listens.select("user_id", "listened_at").is_duplicated().mean() < 0.001


def test_new_releases_have_no_listens(listens: pl.DataFrame):
    heard = set(listens["track_id"])
    new = {f"id-{song.path}" for song in plan(LISTENERS).songs if song.is_new}
    assert len(new) == 12
    assert not heard & new
    assert len(heard) > 90


def test_users_listen_to_their_planted_genres(listens: pl.DataFrame):
    genre_of = {f"id-{song.path}": song.artist.genre.name for song in plan(LISTENERS).songs}
    who = tastes(LISTENERS)
    row = {user_id: row for row, user_id in enumerate(who.user_ids)}
    heard = np.array([GENRE_NAMES.index(genre_of[track]) for track in listens["track_id"]])
    liked = who.genres[[row[user] for user in listens["user_id"]], heard]
    shuffled = who.genres[np.random.default_rng(0).permutation([row[user] for user in listens["user_id"]]), heard]
    assert liked.mean() > 2.5 * shuffled.mean()


def test_users_listen_to_the_tempo_and_brightness_they_like(listens: pl.DataFrame):
    songs = plan(LISTENERS).songs
    brightness = {f"id-{song.path}": song.brightness for song in songs}
    low_high = {f"id-{song.path}": song.artist.genre.bpm for song in songs}
    place = {f"id-{s.path}": (s.bpm - low_high[f"id-{s.path}"][0]) / np.ptp(low_high[f"id-{s.path}"]) for s in songs}
    mean = (
        listens.with_columns(
            tempo=pl.col("track_id").replace_strict(place),
            bright=pl.col("track_id").replace_strict(brightness),
        )
        .group_by("user_id")
        .agg(pl.col("tempo", "bright").mean())
        .sort("user_id")
    )
    liked = tastes(LISTENERS).sound  # user ids sort in the order of the rows
    assert np.corrcoef(liked[:, 0], mean["tempo"])[0, 1] > 0.4
    assert np.corrcoef(liked[:, 1], mean["bright"])[0, 1] > 0.4


def test_favourite_artists_are_chosen_by_taste_and_heard_more():
    songs, who = plan(LISTENERS).songs, tastes(LISTENERS)
    popularity = np.array([0.0 if song.is_new else song.popularity for song in songs])
    chances = listeners_module._chances(who, songs, np.random.default_rng(1))
    heard = [j for j, song in enumerate(songs) if not song.is_new]
    more = (chances / (affinity(who, songs) * np.maximum(popularity, 1e-9)))[:, heard]
    favoured = more > 2 * more.min(axis=1, keepdims=True)
    np.testing.assert_allclose(more[favoured] / np.broadcast_to(more.min(axis=1)[:, None], more.shape)[favoured], 4)
    artists = np.array([songs[j].artist.name for j in heard])
    assert max(len(set(artists[row])) for row in favoured) == 4
    liked = who.genres[:, [GENRE_NAMES.index(songs[j].artist.genre.name) for j in heard]]
    assert liked[favoured].mean() > 2 * liked[~favoured].mean()


def test_everybody_listens_at_least_once(tmp_path: Path):
    each = write_listens(scanned(TINY), tmp_path / "l.csv", TINY.model_copy(update={"n_listens": 8}))
    assert each["user_id"].n_unique() == 7


def test_popularity_has_a_long_tail(listens: pl.DataFrame):
    counts = listens.group_by("track_id").len()["len"].sort(descending=True)
    assert counts.head(12).sum() > 0.3 * counts.sum()


def test_affinity_by_hand():
    metal, folk = GENRE_NAMES.index("metal"), GENRE_NAMES.index("folk")
    genres = np.zeros((2, len(GENRES)))
    genres[0, metal], genres[1, metal], genres[1, folk] = 1.0, 0.4, 0.6
    artist = replace(plan(TINY).songs[0].artist, genre=GENRES[metal], influence=GENRES[folk])
    # 140 to 184 bpm: 173 is at 3/4, so at tempo 1
    song = replace(plan(TINY).songs[0], artist=artist, borrowed=("bass",), bpm=173.0, brightness=0.5)
    who = Tastes(("a", "b"), genres, np.array([[1.0, 0.5], [1.0, 1.4]]))
    found = affinity(who, [song, replace(song, borrowed=()), replace(song, bpm=162.0)])
    first = [0.01 + 0.75, 0.01 + 1.0, (0.01 + 0.75) * np.exp(-1 / (2 * 0.81))]
    second = [(0.01 + 0.45) * np.exp(-0.5), (0.01 + 0.4) * np.exp(-0.5), (0.01 + 0.45) * np.exp(-1.81 / 1.62)]
    np.testing.assert_allclose(found, [first, second], rtol=1e-12)


def test_fans_of_the_upload_like_its_genre():
    names = set(fans(LISTENERS))
    who = tastes(LISTENERS)
    is_fan = np.array([user_id in names for user_id in who.user_ids])
    weight = who.genres[:, GENRE_NAMES.index(plan(LISTENERS).upload.artist.genre.name)]
    assert 3 < is_fan.sum() < 75
    assert weight[is_fan].mean() > 3 * weight[~is_fan].mean()


def test_listens_are_the_same_for_the_same_seed_whatever_the_order_of_the_table(listens: pl.DataFrame, tmp_path: Path):
    table = scanned(LISTENERS).sort("path").with_columns(pl.col("path").str.replace_all("/", "\\", literal=True))
    again = write_listens(table, tmp_path / "again.csv", LISTENERS)
    assert again.equals(listens)


def test_listens_of_another_catalogue_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="1 of 9 songs are not in the scanned tracks"):
        write_listens(scanned(TINY).head(8), tmp_path / "listens.csv", TINY)
    with pytest.raises(ConfigError, match="7 users cannot have 6 listens"):
        write_listens(scanned(TINY), tmp_path / "l.csv", TINY.model_copy(update={"n_listens": 6}))
