"""One artist however the name is stored: in caps, filters and vocabularies, of new generations and of old ones."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers.catalogues import quick_settings
from helpers.made import made_tracks
from pipelines.build import Inputs, build
from recsys.catalogue.ids import IdMap
from recsys.content.metadata import MetadataSettings, Vocabulary, encode, learn_vocabulary
from recsys.content.targets import targets_of
from recsys.ranking.attributes import FOLDING_FILE, TrackAttributes
from recsys.ranking.filters import Filters
from recsys.recommender import Recommender
from recsys.util.progress import Silent

COMPOSED, DECOMPOSED, LOUD = "Mot\u00f6rhead", "Moto\u0308rhead", "MOT\u00d6RHEAD"
ROWS = np.arange(6, dtype=np.int32)


def catalogue() -> pl.DataFrame:
    genres = [["M\u00fasica", "rock"], ["Mu\u0301sica"], ["jazz"], [], ["ROCK"], ["jazz"]]
    return made_tracks(6, artist=[COMPOSED, DECOMPOSED, LOUD, None, "Ann", " ann"], genres=genres).frame


def old_style(attributes: TrackAttributes, tracks: pl.DataFrame, folder: Path) -> None:
    """Save traits as they were when names were compared in lower case alone, numbered in the alphabet's order."""

    def numbered(names: pl.Series, what: str) -> tuple[np.ndarray, IdMap]:
        lower = [None if name is None else name.strip().casefold() for name in names]
        distinct = sorted({name for name in lower if name is not None})
        numbers = [-1 if name is None else distinct.index(name) for name in lower]
        return np.array(numbers, dtype=np.int32), IdMap.of(distinct, what)

    artists, artist_names = numbered(tracks["artist"], "artist")
    lists = tracks["genres"]
    genres, genre_names = numbered(lists.filter(lists.list.len() > 0).explode(), "genre")
    bits = np.zeros(len(tracks), dtype=np.uint64)
    fields = (attributes.years, attributes.is_new, attributes.genre_starts, genres, bits)
    TrackAttributes(artists, *fields, artist_names, genre_names).save(folder)
    (folder / FOLDING_FILE).unlink()


@pytest.mark.parametrize("age", ["new", "saved", "old"])
def test_filters_and_caps_know_one_artist_and_one_genre(age: str, tmp_path: Path) -> None:
    attributes = TrackAttributes.of(catalogue(), np.ones(6, np.float32))
    if age == "saved":
        attributes.save(tmp_path)
        attributes = TrackAttributes.load(tmp_path)
    if age == "old":
        old_style(attributes, catalogue(), tmp_path)
        attributes = TrackAttributes.load(tmp_path)
    assert len(set(attributes.artists[:3].tolist())) == 1
    assert attributes.artists.tolist()[3:] == [-1, attributes.artists[4], attributes.artists[4]]
    for name in (COMPOSED, DECOMPOSED, LOUD, f" {LOUD} "):
        assert attributes.has_artist(ROWS, [name]).tolist() == [True, True, True, False, False, False]
        assert attributes.artist(name) == attributes.artists[0]
    for name in ("m\u00fasica", "MU\u0301SICA"):
        assert attributes.has_genre(ROWS, [name]).tolist() == [True, True, False, False, False, False]
        assert [attributes.genre_test([name])(row) for row in range(6)] == attributes.has_genre(ROWS, [name]).tolist()
        assert Filters(genres=(name,)).first(range(6), attributes, (), None, 6) == [0, 1]
    assert Filters(artists=(LOUD,)).first(range(6), attributes, (), 2, 6) == [0, 1]
    assert attributes.artist("N\u00f3body") == attributes.artist("No\u0301BODY") == "n\u00f3body"


def test_an_old_generation_whose_names_are_folded_alike_is_mapped_as_it_is(tmp_path: Path) -> None:
    tracks = made_tracks(2, artist=["Ann", "B\u00f6"], genres=[["x"], ["y"]]).frame
    old_style(TrackAttributes.of(tracks, np.ones(2, np.float32)), tracks, tmp_path)
    assert not TrackAttributes.load(tmp_path).artists.flags.writeable, "no copy was made"
    assert TrackAttributes.load(tmp_path).has_artist(ROWS[:2], ["BO\u0308"]).tolist() == [False, True]


def test_vocabularies_and_targets_have_one_name(tmp_path: Path) -> None:
    tracks = made_tracks(6, **{name: catalogue()[name].to_list() for name in ("artist", "genres")})
    vocabulary = learn_vocabulary(tracks, None, MetadataSettings())
    assert vocabulary.artists == ["mot\u00f6rhead", "ann"]
    assert sorted(vocabulary.genres) == ["jazz", "m\u00fasica", "rock"]
    assert encode(tracks, None, vocabulary).artist.tolist() == [0, 0, 0, -1, 1, 1]
    old = Vocabulary(["mu\u0301sica", "jazz"], [], ["moto\u0308rhead", "mot\u00f6rhead"], 0, 0, 1)
    found = encode(tracks, None, old)
    assert found.artist.tolist() == [0, 0, 0, -1, -1, -1], "of an older vocabulary's two the first"
    assert found.genres.toarray()[:3].tolist() == [[1, 0], [1, 0], [0, 1]]
    targets = targets_of(tracks, None, None)
    assert targets.artists.tolist() == [0, 0, 0, -1, 1, 1]
    assert targets.genres.sum(axis=0).tolist() == [2, 2, 2]


def test_stored_lists_cap_an_artist_whose_name_is_stored_in_two_ways(tmp_path: Path) -> None:
    names = [COMPOSED, DECOMPOSED, LOUD, "Ann", "Bob", "Cy"]
    lines = [f"t{n},{names[n]},{('x', 'y')[n % 2]}" for n in range(6)]
    (tmp_path / "tracks.csv").write_text("\n".join(["track_id,artist,genre", *lines]), encoding="utf-8")
    (tmp_path / "listens.csv").write_text("user_id,track_id\nu,t3\nu,t4\nv,t3\nv,t0\nw,t5\n")
    settings = quick_settings()
    capped = settings.lists.model_copy(update={"max_per_artist": 1})
    settings = settings.model_copy(update={"lists": capped})
    build(Inputs(tmp_path / "tracks.csv", tmp_path / "listens.csv"), tmp_path / "store", settings, Silent())
    recommender = Recommender.open(tmp_path / "store")
    stored = recommender.tables.recommended("u")
    assert stored is not None
    assert len({"t0", "t1", "t2"} & {track for track, _, _ in stored}) == 1
    assert len({"t0", "t1", "t2"} & {track.track_id for track in recommender.recommend("w", 6).tracks}) == 1
