"""Targets made inside a test."""

from helpers.made import made_tracks
from recsys.content.tasks import Targets, targets_of


def labelled(genres: list[int], artists: list[int] | None = None) -> Targets:
    """Targets of tracks of one genre each; an artist of -1 is unknown."""
    n = len(genres)
    tracks = made_tracks(
        n,
        genres=[[f"genre {genre}"] for genre in genres],
        artist=[None if artists is None or artists[row] < 0 else f"artist {artists[row]:03d}" for row in range(n)],
    )
    return targets_of(tracks, None, None)
