"""Did anything that is held out reach the fit? Asked of every fit before its lists are judged.

    Plays (of the fit), Split  ->  assert_no_leak     ->  nothing, or a DataError
    Tags, Split                ->  tags_of_listeners  ->  the tags that spell out what one user heard
    Replay, Split              ->  assert_no_foresight  ->  nothing, or a DataError

The fit's plays must be those of the training listens, pair by pair, and nothing more: no held-out pair, no listener of
a cold track, no play of a cold user, no repeat from after a cut. Where events are told one by one, each is asked for
before itself and all later ones. Tags come from outside and whole. One that stands on
the tracks of one user, held-out ones too, is that user's listening under another name.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from eval.splitting.moments import LAST_SECOND, Replay
from eval.splitting.split import Split, heard_pairs
from recsys.catalogue.listens import plays_of
from recsys.errors import DataError
from recsys.types import Plays, Tags

_ROUNDING = 1e-3  # plays: counts are float32 sums in another order
_MIN_TRACKS = 5  # of a user: with fewer a tag may agree by chance
SPELLED_OUT = 0.9  # tracks in both / tracks in either, from which on a tag is a user's listening
ALIKE = 0.5  # from which on a reader should know of it: users do have tags for what they like
_MAX_USERS = 2000  # so many are looked at, any of them: a tag table made from listens shows in any of them
_BLOCK_TAGS = 4096


def assert_no_leak(plays: Plays, split: Split, tags: Tags | None = None) -> None:
    """Compare what the fit learned from with what it was allowed to see.

    Args:
        plays: of the fit.
        split: whose training listens it was given.
        tags: of the fit, when they are to be looked at too.

    Raises:
        DataError: the fit has plays or dislikes that the training listens do not have, or a tag spells out a user.
    """
    seen = plays_of(split.train, plays.track_ids, plays.user_ids)
    more = _more(plays.counts, seen.counts) + _more(plays.barred, seen.barred)
    if more.nnz:
        held_out = plays_of(split.held_out, plays.track_ids, plays.user_ids).counts.astype(np.bool_)
        n_held_out = int(more.multiply(held_out).nnz)
        raise DataError(
            f"the fit has seen {more.nnz:,} pairs of user and track beyond the training listens of {split.name}, "
            f"{n_held_out:,} of them held out; fit on the split's train alone"
        )
    found = [] if tags is None else tags_of_listeners(tags, split)
    if found:
        raise DataError(
            f"{len(found):,} tags stand on what one user heard, held-out tracks too, as {found[0]!r} does; "
            "leave out tags that are made from listens"
        )


def assert_no_foresight(replay: Replay, split: Split, track_ids: list[str]) -> None:
    """Compare what is known at each moment of a live split with what was played until then.

    Raises:
        DataError: an event is asked for with itself among the plays, after a later one, or with more plays than its
            user had by then.
    """
    moments = replay.moments
    n, counts, histories = len(moments), moments.counts, moments.histories
    rows = np.repeat(np.arange(n), np.diff(counts.indptr))
    sees_itself = np.zeros(n, dtype=np.bool_)
    sees_itself[rows[counts.indices == replay.items[rows]]] = True
    of_play = np.repeat(np.arange(n), np.diff(histories.starts))
    sees_itself[of_play[histories.items == replay.items[of_play]]] = True
    sees_later = np.zeros(n, dtype=np.bool_)
    sees_later[of_play[histories.seconds > moments.now[of_play]]] = True
    most = _plays_until(replay, split, track_ids)
    sees_more = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel() > most * (1 + _ROUNDING) + _ROUNDING
    bad = sees_itself | sees_later | sees_more
    if bad.any():
        raise DataError(
            f"{int(bad.sum()):,} of {n:,} events are asked for with plays that came later: {int(sees_itself.sum()):,} "
            f"see themselves, {int(sees_later.sum()):,} a later time, {int(sees_more.sum()):,} more plays than there "
            "were; tell each event after it was asked for"
        )


def _plays_until(replay: Replay, split: Split, track_ids: list[str]) -> NDArray[np.float64]:
    """Add up the plays of each event's user until then, those of the event left out: (n,)."""
    events = pl.DataFrame(
        {
            "user_id": replay.user_ids,
            "track_id": [track_ids[item] for item in replay.items],
            "second": replay.moments.now,
        }
    ).with_row_index("event")
    parts = (split.train, split.held_out, split.unused)
    second = pl.col("listened_at").dt.epoch("s").clip(0, LAST_SECOND)
    told = pl.concat([part.frame for part in parts]).filter(pl.col("plays") > 0)
    told = told.join(events.select("user_id").unique(), on="user_id", how="semi").select(
        "user_id", "track_id", "plays", second=second
    )
    until = (
        events.select("event", "user_id", pl.col("second").alias("now"), pl.col("track_id").alias("asked"))
        .join(told, on="user_id")
        .filter((pl.col("second") <= pl.col("now")) & (pl.col("track_id") != pl.col("asked")))
        .group_by("event")
        .agg(pl.col("plays").sum())
    )
    return events.join(until, on="event", how="left").sort("event")["plays"].fill_null(0.0).to_numpy()


def tags_of_listeners(tags: Tags, split: Split, share: float = SPELLED_OUT) -> list[str]:
    """Find the tags whose tracks are nearly the tracks that one user heard in training and held out together.

    ``share`` of the tracks that are in either must be in both. A user counts from five tracks on.
    """
    heard = heard_pairs(pl.concat([split.train.frame, split.held_out.frame]))
    users = split.held_out.frame.select("user_id").unique().sort("user_id")
    many = heard.group_by("user_id").len().filter(pl.col("len") >= _MIN_TRACKS)
    users = users.join(many, on="user_id", how="semi").sort("user_id").head(_MAX_USERS).with_row_index("user")
    pairs = tags.frame.select("tag", "track_id").unique()
    items = pl.concat([pairs["track_id"], heard["track_id"]]).unique().sort().to_frame().with_row_index("item")
    names = pairs.select("tag").unique().sort("tag").with_row_index("number")
    of_tags = pairs.join(names, on="tag").join(items, on="track_id")
    of_users = heard.join(users, on="user_id").join(items, on="track_id")
    by_tag = _presence(of_tags["number"], of_tags["item"], (len(names), len(items)))
    by_user = _presence(of_users["user"], of_users["item"], (len(users), len(items)))
    found = [
        _spelled_out(by_tag[start : start + _BLOCK_TAGS], by_user, share) for start in range(0, len(names), _BLOCK_TAGS)
    ]
    return names["tag"].filter(pl.Series(np.concatenate([np.zeros(0, np.bool_), *found]))).to_list()


def _spelled_out(by_tag: csr_matrix, by_user: csr_matrix, share: float) -> NDArray[np.bool_]:
    """Say of each tag (row) whether some user has nearly the same tracks, (n_tags,)."""
    both = (by_tag @ by_user.T).tocoo()
    n_tracks, n_heard = np.diff(by_tag.indptr)[both.row], np.diff(by_user.indptr)[both.col]
    found = np.zeros(by_tag.shape[0], dtype=np.bool_)
    found[both.row[both.data >= share * (n_tracks + n_heard - both.data)]] = True
    return found


def _presence(rows: pl.Series, columns: pl.Series, shape: tuple[int, int]) -> csr_matrix:
    places = rows.to_numpy().astype(np.int64), columns.to_numpy().astype(np.int64)
    return csr_matrix((np.ones(len(rows), dtype=np.float32), places), shape=shape)


def _more(given: csr_matrix, allowed: csr_matrix) -> csr_matrix:
    """Mark the pairs of which the fit has more than the training listens, (n_users, n_items) bool."""
    difference = (given.astype(np.float32) - allowed.astype(np.float32)).tocsr()
    difference.data = np.where(difference.data > _ROUNDING, difference.data, 0)
    difference.eliminate_zeros()
    return difference.astype(np.bool_)
