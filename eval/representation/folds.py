"""Tracks in, labels and artist-disjoint folds out: what a network may learn from, and what it is judged by.

    Tracks, Tags  ->  labels_of  ->  Labels: genre, artist, tags of each track as numbers
    Tracks  ->  draw_tracks  ->  the rows that are judged, in a random order
    Labels  ->  artist_folds  ->  the fold of each track; no artist is in two

A track without an artist is a group of its own. Of several genres the first counts. All draws depend on the tracks as a
set and the seed, not on the order of the table. Nothing is trained here.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from eval.representation.settings import RepresentationSettings
from recsys.catalogue.names import one_spelling
from recsys.errors import DataError
from recsys.types import Int32, Tags, Tracks


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What is known of n tracks, rows in their order.

    ``genres`` (n,) int32 is a row of ``genre_names`` or -1; ``groups`` (n,) int32 is the artist, or a number of the
    track's own where ``has_artist`` (n,) is False; ``tags`` (n, T) bool has the frequent tags.
    """

    genres: Int32
    genre_names: tuple[str, ...]
    groups: Int32
    has_artist: NDArray[np.bool_]
    tags: NDArray[np.bool_]
    tag_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that all have a row a track."""
        n_rows = {len(self.genres), len(self.groups), len(self.has_artist), len(self.tags)}
        if len(n_rows) != 1 or self.tags.shape[1] != len(self.tag_names):
            raise DataError(f"labels have {sorted(n_rows)} rows and {self.tags.shape} tags, expected a row a track")

    def __len__(self) -> int:
        """Count the tracks."""
        return len(self.groups)


def draw_tracks(tracks: Tracks, most: int, seed: int) -> Int32:
    """Choose the rows to judge, in a random order, so that ties do not tell what the table is sorted by.

    Of more than ``most`` tracks whole artists are drawn while they fit, so that each keeps all of its tracks.
    """
    order = tracks.frame.with_row_index("row").with_columns(_group(tracks.frame)).sort("group", "track_id")
    rng = np.random.default_rng(seed)
    rows = order["row"].to_numpy()
    if len(rows) > most:
        names, group_of, sizes = np.unique(order["group"].to_numpy(), return_inverse=True, return_counts=True)
        drawn = rng.permutation(len(names))
        chosen = np.zeros(len(names), dtype=np.bool_)
        chosen[drawn] = np.cumsum(sizes[drawn]) <= most
        chosen[drawn[0]] = True  # one artist of more tracks than all together may have
        rows = rows[chosen[group_of]]
    return rng.permutation(rows).astype(np.int32)


def labels_of(tracks: Tracks, tags: Tags | None, settings: RepresentationSettings) -> Labels:
    """Collect the labels of tracks; empty texts are no labels."""
    frame = tracks.frame
    genre = one_spelling(frame["genres"].list.drop_nulls().list.get(0, null_on_oob=True))
    genre_names = tuple(name for name in genre.drop_nulls().unique().sort() if name)
    number = {name: row for row, name in enumerate(genre_names)}
    genres = np.array([number.get(name, -1) for name in genre.to_list()], np.int32)
    _, groups = np.unique(_group(frame).to_numpy(), return_inverse=True)
    has_artist = frame["artist"].fill_null("") != ""
    tag_names, tagged = _frequent_tags(tracks, tags, settings)
    return Labels(genres, genre_names, groups.astype(np.int32), has_artist.to_numpy(), tagged, tag_names)


def artist_folds(labels: Labels, n_folds: int, seed: int) -> Int32:
    """Give each track a fold from 0 such that no artist is in two.

    Returns:
        (n,) int32; every fold has a track.

    Raises:
        DataError: there are fewer artists than folds.
    """
    n_groups = len(np.unique(labels.groups))
    if n_groups < n_folds:
        raise DataError(
            f"{len(labels)} tracks of {n_groups} artists cannot be parted into {n_folds} folds that share no artist; "
            f"give a catalogue of {n_folds} artists or more"
        )
    folds = np.zeros(len(labels), np.int32)
    parting = GroupKFold(n_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(parting.split(folds, groups=labels.groups)):
        folds[held_out] = fold
    return folds


def _group(tracks: pl.DataFrame) -> pl.Series:
    """The artist's name, or for a track without one its id; marked, so that the two never meet."""
    artist = pl.lit(one_spelling(tracks["artist"]))
    named = artist.fill_null("") != ""
    group = pl.when(named).then("artist " + artist).otherwise("track " + pl.col("track_id"))
    return tracks.select(group=group)["group"]


def _frequent_tags(
    tracks: Tracks, tags: Tags | None, settings: RepresentationSettings
) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    if tags is None:
        return (), np.zeros((len(tracks), 0), dtype=np.bool_)
    rows = tracks.frame.select("track_id").with_row_index("row")
    pairs = tags.frame.select("track_id", "tag").unique().join(rows, on="track_id")
    counts = pairs.group_by("tag").len().filter(pl.col("len") >= settings.min_tag_tracks)
    frequent = counts.sort(["len", "tag"], descending=[True, False]).head(settings.max_tags)["tag"]
    known = pairs.join(pl.DataFrame({"tag": frequent}).with_row_index("column"), on="tag")
    tagged = np.zeros((len(tracks), len(frequent)), dtype=np.bool_)
    tagged[known["row"].to_numpy(), known["column"].to_numpy()] = True
    return tuple(frequent), tagged
