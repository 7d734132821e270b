"""What every split is made of: its settings, the split itself, and the rules that all protocols keep.

    Listens, masks of rows  ->  parted  ->  Split(train, held_out, unused)

Which rows are masked is said in ``eval.splitting.protocols`` (at random) and ``eval.splitting.temporal`` (by a cut in
time).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from recsys.errors import DataError
from recsys.types import Listens
from recsys.util.settings import Settings

if TYPE_CHECKING:
    from eval.splitting.made_up import MadeUp

Protocol = Literal["warm", "cold-track", "cold-user", "live"]
PROTOCOLS: tuple[Protocol, ...] = ("warm", "cold-track", "cold-user")  # that are followed where nobody asks

PAIR = ["user_id", "track_id"]


class SplitSettings(Settings):
    """How listens are parted."""

    held_out_share: float = Field(default=0.2, gt=0, lt=1)  # of the events, a user's tracks, the tracks, or the users
    n_splits: int = Field(default=3, ge=1)  # random splits, each with a seed of its own
    n_cuts: int = Field(default=1, ge=1)  # cuts in time; of several, each tests half of held_out_share, up to the next
    cold_by: Literal["track", "artist", "time"] = "track"  # whole artists; or what is first heard after the cut in time
    fold_in_tracks: tuple[int, ...] = Field(default=(1, 3, 5, 10), min_length=1)  # a cold user begins with so many
    min_user_tracks: int = Field(default=5, ge=2)  # random warm split: users with fewer tracks only train
    min_user_plays: float = Field(default=5, ge=0)  # cut in time: users with fewer plays in all only train
    max_user_plays: float = Field(default=500, gt=0)  # cut in time: above are shops and radio stations, not persons
    warm_split: Literal["usual", "last", "last-plays"] = "usual"  # last: each user's last sessions, or plays
    made_up: tuple[int, ...] = ()  # so many never-played tracks a truly new one, each beside the split as it is
    live_days: float | None = Field(default=None, gt=0)  # live: so many last days; None: held_out_share of the events
    max_events: int = Field(default=20_000, ge=1)  # live: of more, those of users drawn at random are asked for
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.n_cuts > 1 and self.n_cuts * self.held_out_share / 2 >= 1:
            raise ValueError(f"n_cuts is {self.n_cuts}, and so many windows leave nothing before the first cut")
        if list(self.fold_in_tracks) != sorted(set(self.fold_in_tracks)) or self.fold_in_tracks[0] < 1:
            raise ValueError(f"fold_in_tracks is {self.fold_in_tracks}, expected rising whole numbers from 1")
        return self

    def windows(self) -> list[tuple[float, float]]:
        """Tell where each cut in time begins and ends its test, as shares of the events."""
        if self.n_cuts == 1:
            return [(1 - self.held_out_share, 1.0)]
        width, n = self.held_out_share / 2, self.n_cuts
        return [(1 - width * (n - cut), 1 - width * (n - cut - 1)) for cut in range(n)]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One parting of the listens; protocol and seed tell the splits of a run apart.

    ``cold_track_ids`` (sorted) are the tracks that lost their rows, None where the protocol makes none cold.
    ``note`` says how the parts were made and how large they are. ``artists`` has the columns track_id, artist of the
    tracks whose artist is known. ``cut_at`` is the moment of a cut in time.
    ``variant`` tells apart splits of one protocol that are judged under names of their own: ``last``, ``made-up-3``.
    ``made_up`` are tracks that are in the catalogue of this split alone.
    ``first_tracks`` (cold-user) has a row a held-out pair: user_id, track_id, plays, place from 1; users begin with the
    first n, for each n of ``fold_in_tracks``.
    """

    protocol: Protocol
    seed: int
    train: Listens
    held_out: Listens
    unused: Listens
    cold_track_ids: list[str] | None
    note: str
    artists: pl.DataFrame | None = None
    cut_at: datetime | None = None
    first_tracks: pl.DataFrame | None = None
    fold_in_tracks: tuple[int, ...] = ()
    variant: str = ""
    made_up: "MadeUp | None" = None

    @property
    def name(self) -> str:
        """The name that figures of it begin with."""
        return f"{self.protocol}-{self.variant}" if self.variant else self.protocol


def heard_pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """Find the distinct pairs (user_id, track_id) that were played and never disliked, in any order."""
    return (
        frame.group_by(PAIR)
        .agg(pl.col("plays").sum(), pl.col("disliked").fill_null(False).any())
        .filter((pl.col("plays") > 0) & ~pl.col("disliked"))
        .select(PAIR)
    )


def marked(frame: pl.DataFrame, keys: pl.DataFrame, on: list[str]) -> pl.Series:
    """Mark the rows of the frame whose ``on`` columns are among the (distinct) keys."""
    marks = keys.select(*on, pl.lit(True).alias("marked"))
    return frame.select(on).join(marks, on=on, how="left", maintain_order="left")["marked"].fill_null(False)


def nothing_held_out(protocol: str, listens: Listens) -> DataError:
    """Say that a protocol cannot be followed."""
    given = f"{len(listens):,} listens of {listens.frame['user_id'].n_unique():,} users"
    return DataError(f"the {protocol} protocol can hold nothing out of {given}; give listens of users with more tracks")


def parted(
    protocol: Protocol,
    listens: Listens,
    in_train: pl.Series,
    judged: pl.Series,
    *,
    how: str,
    seed: int,
    cold_track_ids: list[str] | None = None,
) -> Split:
    """Make the parts from masks of rows: those to judge are held out where that is fair, otherwise unused."""
    frame = listens.frame
    train = frame.filter(in_train)
    listeners = train.filter(pl.col("plays") > 0).select("user_id").unique()
    heard = heard_pairs(frame.filter(judged))
    fair = heard.join(train, on=PAIR, how="anti").join(listeners, on="user_id", how="semi")
    if fair.is_empty():
        raise nothing_held_out(protocol, listens)
    is_held_out = judged & marked(frame, fair, PAIR)
    held_out, unused = frame.filter(is_held_out), frame.filter(~is_held_out & ~in_train)
    note = (
        f"{how}: {len(train):,} rows train, {len(fair):,} pairs of {fair['user_id'].n_unique():,} users are "
        f"held out, {len(unused):,} rows are unused"
    )
    return Split(protocol, seed, Listens(train), Listens(held_out), Listens(unused), cold_track_ids, note)
