"""The catalogue less one thing that is known of it: what the hybrid loses is what that thing adds.

    Tracks, Tags, modality  ->  without  ->  Tracks, Tags to fit on, every other column and every row as they were

It is taken out before the fit, so nothing that is learned from it is left in any part. Listens stay.
"""

from typing import Literal, get_args

import polars as pl

from recsys.types import TRACKS_SCHEMA, Tags, Tracks

Modality = Literal["sound", "lyrics", "tags", "artist", "year"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

_COLUMNS: dict[Modality, tuple[str, ...]] = {
    "sound": ("path", "vector"),
    "lyrics": ("lyrics",),
    "tags": ("genres",),  # and the table of tags: both are words for what kind of music it is
    "artist": ("artist", "album"),  # an album is one artist's
    "year": ("year",),
}


def present(tracks: Tracks, tags: Tags | None) -> list[Modality]:
    """List what is known of some track."""
    frame = tracks.frame
    return [
        modality
        for modality in MODALITIES
        if any(_is_known(frame[name]) for name in _COLUMNS[modality])
        or (modality == "tags" and tags is not None and len(tags.frame) > 0)
    ]


def without(tracks: Tracks, tags: Tags | None, modality: Modality) -> tuple[Tracks, Tags | None]:
    """Take a modality out of the catalogue; rows and their order stay."""
    empty = [pl.lit([] if name == "genres" else None, TRACKS_SCHEMA[name]).alias(name) for name in _COLUMNS[modality]]
    return Tracks(tracks.frame.with_columns(empty)), None if modality == "tags" else tags


def _is_known(column: pl.Series) -> bool:
    return bool((column.list.len() > 0).any()) if column.dtype == pl.List else column.count() > 0
