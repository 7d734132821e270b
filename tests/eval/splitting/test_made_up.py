"""Made-up tracks: artists as among the truly new, all else of a track of that artist, and nobody plays them."""

from collections import Counter

import polars as pl

from eval.splitting.live import live_by_time
from eval.splitting.made_up import PREFIX, new_tracks, with_made_up
from eval.splitting.protocols import splits
from eval.splitting.split import Split, SplitSettings
from recsys.types import TAGS_SCHEMA, TRACKS_SCHEMA, Listens, Tags, Tracks

from .test_protocols import hours, listens_of

SETTINGS = SplitSettings(held_out_share=0.5)


def catalogue() -> Tracks:
    """old0 to old4 and new0 to new3; three of the new ones and old0, old1 are of x, new3 and old2 of y."""
    ids = [f"old{n}" for n in range(5)] + [f"new{n}" for n in range(4)]
    artists = ["x", "x", "y", "z", None, "x", "x", "x", "y"]
    empty = {name: [None] * len(ids) for name in TRACKS_SCHEMA.names()}
    columns = empty | {"track_id": ids, "artist": artists, "genres": [[track] for track in ids]}
    return Tracks(pl.DataFrame(columns, schema=TRACKS_SCHEMA))


def split() -> Split:
    rows = [("a", f"old{n}", 1.0, hours(n), False) for n in range(5)]
    rows += [("a", f"new{n}", 1.0, hours(10 + n), False) for n in range(4)]
    rows += [("b", "old3", 1.0, hours(8), False)]
    return live_by_time(listens_of(rows), SETTINGS.model_copy(update={"live_days": 0.25}))


def test_new_are_those_that_training_did_not_play() -> None:
    assert new_tracks(split()) == [f"new{n}" for n in range(4)]


def test_made_up_tracks_have_a_new_ones_artist_and_a_siblings_rest() -> None:
    tags = Tags(pl.DataFrame([("old0", "loud", 1.0), ("new3", "slow", 2.0)], schema=TAGS_SCHEMA, orient="row"))
    made = with_made_up(split(), 100, catalogue(), tags)
    assert made.name == "live-made-up-100"
    assert made.made_up is not None
    frame = made.made_up.tracks.frame
    assert len(frame) == 400
    assert frame["track_id"].str.starts_with(PREFIX).all()
    counts = Counter(frame["artist"])
    assert set(counts) == {"x", "y"}
    assert 260 < counts["x"] < 340  # three of four
    siblings = dict(catalogue().frame.select(pl.col("genres").list.first(), "artist").rows())
    assert all(siblings[genres[0]] == artist for genres, artist in frame.select("genres", "artist").rows())
    assert {genres[0] for genres in frame["genres"]} == {"old0", "old1", "new0", "new1", "new2", "old2", "new3"}
    tracks, both = made.made_up.added(catalogue(), tags)
    assert len(tracks) == 409
    assert both is not None
    loud = both.frame.filter(tag="loud")["track_id"].to_list()
    like_old0 = frame.filter(pl.col("genres").list.first() == "old0")["track_id"].to_list()
    assert sorted(loud) == sorted(["old0", *like_old0])
    assert "made-up" in made.note
    assert made.artists is not None
    assert len(made.artists) == 400
    assert made.held_out is not None
    assert not set(made.held_out.frame["track_id"]) & set(frame["track_id"])


def test_the_same_seed_makes_the_same_tracks() -> None:
    first, again = (with_made_up(split(), 3, catalogue(), None).made_up for _ in range(2))
    assert first is not None
    assert again is not None
    assert first.tracks.frame.equals(again.tracks.frame)


def test_each_split_is_followed_by_itself_with_made_up_tracks() -> None:
    settings = SETTINGS.model_copy(update={"live_days": 0.25, "made_up": (1, 3)})
    whole = pl.concat([part.frame for part in (split().train, split().held_out, split().unused)])
    found = list(splits(Listens(whole), "live", settings, catalogue()))
    assert [one.name for one in found] == ["live", "live-made-up-1", "live-made-up-3"]
    assert [None if one.made_up is None else len(one.made_up.tracks) for one in found] == [None, 4, 12]
    all_played = next(splits(Listens(whole), "live", settings.model_copy(update={"live_days": 0.05}), catalogue()))
    assert len(new_tracks(all_played)) == 2
