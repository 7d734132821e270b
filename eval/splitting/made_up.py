"""Never-played tracks that are made up: so that a track which nobody has played need not be one that is played soon.

    Split, Tracks, Tags  ->  with_made_up  ->  the split with made-up tracks of its own, named after how many there are

In a log of plays every track is played sooner or later, so those that nobody had played by a cut are all played soon
after it; most uploads never are. A made-up track has the artist of a truly new one (drawn at random, so artists are as
frequent as among these), and all else of one random track of that artist, its tags too. Its id says that it is made up.
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from eval.splitting.split import Split
from recsys.types import Tags, Tracks

PREFIX = "made-up-track-"


@dataclass(frozen=True, slots=True, eq=False)
class MadeUp:
    """Tracks that nobody plays, and their tags; None where the catalogue has no tags."""

    tracks: Tracks
    tags: Tags | None

    def added(self, tracks: Tracks, tags: Tags | None) -> tuple[Tracks, Tags | None]:
        """The catalogue with these, in a random order as it is itself."""
        both = pl.concat([tracks.frame, self.tracks.frame]).sample(fraction=1, shuffle=True, seed=0)
        joined = tags if tags is None or self.tags is None else Tags(pl.concat([tags.frame, self.tags.frame]))
        return Tracks(both), joined


def new_tracks(split: Split) -> list[str]:
    """Ids of the truly new: held out, and played by nobody in training; sorted."""
    played = split.train.frame.filter(pl.col("plays") > 0).select("track_id").unique()
    return split.held_out.frame.join(played, on="track_id", how="anti")["track_id"].unique().sort().to_list()


def with_made_up(split: Split, n_each: int, tracks: Tracks, tags: Tags | None) -> Split:
    """Add so many made-up tracks for each truly new one; a split without new tracks stays as it is."""
    new = new_tracks(split)
    if not n_each or not new:
        return split
    rng = np.random.default_rng(split.seed)
    frame = tracks.frame.sort("track_id")
    drawn = [new[place] for place in rng.integers(0, len(new), n_each * len(new))]
    like = _of_the_same_artist(drawn, frame, rng)
    ids = [f"{PREFIX}{number}" for number in range(len(like))]
    pairs = pl.DataFrame({"made_up": ids, "track_id": like}, {"made_up": pl.String, "track_id": pl.String})
    copies = pairs.join(frame, on="track_id", how="left", maintain_order="left")
    made = copies.drop("track_id").rename({"made_up": "track_id"}).select(frame.columns)
    theirs = None
    if tags is not None:
        found = pairs.join(tags.frame, on="track_id").drop("track_id").rename({"made_up": "track_id"})
        theirs = Tags(found.select(tags.frame.columns))
    known = made.select("track_id", "artist").drop_nulls()
    both = known if split.artists is None else pl.concat([split.artists, known.select(split.artists.columns)])
    note = f"{split.note}; {len(ids):,} made-up tracks that nobody plays are in the catalogue, {n_each} a truly new one"
    variant = "-".join(part for part in (split.variant, f"made-up-{n_each}") if part)
    cold = None if split.cold_track_ids is None else sorted([*split.cold_track_ids, *ids])
    made_up = MadeUp(Tracks(made), theirs)
    return replace(split, note=note, variant=variant, artists=both, cold_track_ids=cold, made_up=made_up)


def _of_the_same_artist(drawn: list[str], frame: pl.DataFrame, rng: np.random.Generator) -> list[str]:
    """For each track one of its artist's at random, which may be itself; without a known artist the track itself."""
    artists = dict(frame.select("track_id", "artist").iter_rows())
    theirs = dict(frame.drop_nulls("artist").group_by("artist").agg("track_id").sort("artist").iter_rows())
    found = []
    for track in drawn:
        others = theirs.get(artists[track], [track])
        found.append(others[int(rng.integers(0, len(others)))])
    return found
