"""What a store holds beside its current generation: what happened since, and where one can go back to.

store, number of the log that a generation took in  ->  happened_since  ->  uploads, listens, deletions
"""

from recsys.eventlog.events import Event, Listened, TrackDeleted, Upload, UserDeleted
from recsys.eventlog.store import open_live
from recsys.store.generation import Store

KINDS: dict[type[Event], str] = {
    Upload: "uploads",
    Listened: "listens",
    TrackDeleted: "deletions",
    UserDeleted: "deletions",
}


def happened_since(store: Store, number: int) -> dict[str, int]:
    """Count the entries of the live log above ``number``; those of deleted users are no more.

    Raises:
        ArtefactError: the live store is damaged.
    """
    counts = dict.fromkeys(KINDS.values(), 0)
    with open_live(store.live) as live:
        if live is not None:
            with live.reading() as reading:
                for _, event in reading.whole_events(number):
                    if type(event) in KINDS:
                        counts[KINDS[type(event)]] += 1
    return counts


def other_generations(store: Store) -> list[str]:
    """Ids of the generations that a rollback can make current, newest first."""
    current = store.current().name
    return [name for name in reversed(store.names()) if name != current]
