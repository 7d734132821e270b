"""What may be asked of a list, and what is told of its tracks.

arguments  ->  check_k, asked  ->  Variety; what is known of a track  ->  known  ->  what is shown
"""

from collections.abc import Mapping, Sequence
from typing import Any

from recsys.errors import ConfigError
from recsys.ranking.diversity import Variety
from recsys.types import MAX_K, Found, RankedTrack


def resolve_variety(usual: Variety, max_per_artist: int | None, diversity: float | None) -> Variety:
    """The usual variety, with what was asked for in its place."""
    if max_per_artist is not None and max_per_artist < 1:
        raise ConfigError(f"max_per_artist is {max_per_artist}, expected 1 or more, or None for what is usual")
    if diversity is not None and not 0 <= diversity <= 1:
        raise ConfigError(f"diversity is {diversity}, expected 0 (by score alone) to 1, or None for what is usual")
    return Variety(
        max_per_artist=usual.max_per_artist if max_per_artist is None else max_per_artist,
        diversity=usual.diversity if diversity is None else diversity,
    )


def shown_fields(about: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what says something of the music, and only what is known."""
    shown = ("title", "artist", "album", "genres", "year")
    return {name: about[name] for name in shown if about.get(name) not in (None, [])}


def ranked_tracks(found: Sequence[Found], about: Mapping[str, dict[str, Any]]) -> list[RankedTrack]:
    """Tracks with their ranks and what is known of them."""
    return [
        RankedTrack(track, score, rank, reason, shown_fields(about.get(track, {})))
        for rank, (track, score, reason) in enumerate(found, start=1)
    ]


def check_k(k: int) -> None:
    """Refuse lengths that no list has.

    Raises:
        ConfigError: k is not within 1 to 200.
    """
    if not 1 <= k <= MAX_K:
        raise ConfigError(f"k is {k}, expected 1 to {MAX_K}")


def short_note(n_found: int, k: int) -> str:
    """Say that a list is shorter than was asked for; nothing where it is not."""
    return "" if n_found >= k else f"{n_found} of {k} tracks: the catalogue has no more that may be in this list"
