"""What a reader must know beside the figures: versions, and what to mind before believing one."""

import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from eval.settings import EvaluationSettings
from eval.significance import N_PERMUTATIONS
from recsys.types import Tags

_PACKAGES = (
    "recsys",
    "duckdb",
    "faiss-cpu",
    "implicit",
    "lightfm-next",
    "numpy",
    "optuna",
    "polars",
    "scikit-learn",
    "scipy",
    "torch",
)
_MOST_NAMED = 5


def notes_of(settings: EvaluationSettings, tags: Tags | None, reports: Sequence[dict[str, Any]]) -> list[str]:
    """Say what a reader must know before believing a figure on held-out listens."""
    notes = [
        "every model ranks the whole set of candidates, without negative sampling; tracks heard or disliked "
        "in training are left out of every list",
        "value is the mean over users, then over splits; ci_low and ci_high are the 95 % bootstrap interval "
        "over users; a user counts where something is held out for them and they have plays in training",
        "tracks are given to every fit in a random order, so that ties do not tell what the table is sorted by",
        "segments are judged on the same lists: activity by terciles of the users' training plays, popularity by "
        "terciles of the held-out tracks' training listeners, equal values together",
        f"tests compare hybrid with each other model, paired over users, by {N_PERMUTATIONS:,} random swaps of the two "
        "for whole users (two-sided); p_holm is corrected for all comparisons on the split; intervals are paired "
        "bootstrap; the best baseline, and the best of those that read no features of tracks, are best on these "
        "very users, which favours them",
        f"of a split with more than {settings.max_users:,} users so many are drawn and judged",
    ]
    if "cold-track" in settings.on_listens:
        notes.append(
            "cold-track ranks the cold tracks among themselves, cold-track-among-all among the whole catalogue; "
            "artist-known are held-out tracks whose artist has listeners in training, artist-unknown the others"
        )
    if "cold-user" in settings.on_listens:
        notes.append(
            "cold-user-n are users without a listen in training, folded in from their first n tracks and judged on "
            "the rest, so users and held-out tracks differ from n to n; other users' later listens do train"
        )
    if "live" in settings.on_listens:
        notes.append(
            "live asks before each first play of a track by a user after the cut; each event is then told, as a server "
            "is, and what was fitted stays as of the cut; one track is held out an event, so recall@k is hit@k and "
            "mrr@k looks k deep; values are means over events, intervals draw users with all of their events; models "
            "that do not look at order rank by all plays until then (hybrid/all-plays beside hybrid); a user's "
            "very first play is not asked for; a user without plays before the cut counts in live-cold-users alone"
        )
    if settings.splits.warm_split != "usual" and "warm" in settings.on_listens:
        notes.append(
            "warm-last holds out the last fifth of each user's plays in that user's own order, in whole sessions; "
            "warm-last-plays cuts at the very play, in the midst of a session too; other users' training plays may be "
            "later; models that look at order are asked at the first held-out play"
        )
    if settings.splits.made_up:
        notes.append(
            "names with made-up-n are the same splits in a catalogue with n tracks more for each truly new one; these "
            "are made up and nobody plays them: artists are drawn from the truly new tracks, all else of each is of a "
            "random track of that artist; the whole fit is made again with them. In a log of plays every track is "
            "played sooner or later, so figures of new tracks without made-up ones are flattering"
        )
    if settings.ablations:
        notes.append(
            "hybrid-without-sound, -lyrics, -tags (genres too), -artist (albums too), -year are whole fits on the same "
            "listens and a catalogue that lacks one thing; a difference to hybrid above 0 is what it adds"
        )
    if tags is not None:
        notes.append(
            "tags are given to every fit whole: where the same listeners gave them (as in HetRec), they may "
            "tell of held-out listens"
        )
    return notes + _of_tags(reports)


def _of_tags(reports: Sequence[dict[str, Any]]) -> list[str]:
    """Name the tags that look like one listener's plays."""
    alike = sorted({tag for report in reports for tag in report["tags_like_a_listener"]})
    if not alike:
        return []
    named = ", ".join(alike[:_MOST_NAMED]) + (", ..." if len(alike) > _MOST_NAMED else "")
    return [
        f"{len(alike):,} tags share half or more of their tracks with what one user heard, held-out tracks included: "
        f"{named}; if they were made from listens, figures are too high"
    ]


def versions() -> dict[str, str]:
    """The version of Python and of each library that figures depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
