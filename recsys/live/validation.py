"""Which listens are taken in, and whether the log is the one that a generation was built with."""

import math
from datetime import UTC, datetime

from recsys.catalogue.times import FIRST as FIRST_KNOWN
from recsys.eventlog.events import Listened
from recsys.eventlog.transactions import ReadTxn

MOST_PLAYS = 1_000_000.0  # of one event
MAX_ID_BYTES = 1000  # of a track or a user
LONGEST_EVENT_ID = 100  # bytes
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def refusal(listen: Listened, reading: ReadTxn, is_built: bool) -> str | None:
    """Say why a listen cannot be taken in, None where it can; ``is_built`` says that the generation has its track."""
    if not listen.user_id:
        return "the user id is empty"
    if not listen.track_id:
        return "the track id is empty"
    for name, given in (("user", listen.user_id), ("track", listen.track_id)):
        if len(given.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
            return f"the {name} id is longer than {MAX_ID_BYTES} bytes"
    if len(listen.event_id.encode("utf-8", "surrogatepass")) > LONGEST_EVENT_ID:
        return f"the event id is longer than {LONGEST_EVENT_ID} bytes"
    if not listen.disliked and not (math.isfinite(listen.plays) and 0 < listen.plays <= MOST_PLAYS):
        return f"plays are {listen.plays:g}, expected above 0 and at most {MOST_PLAYS:g}"
    if listen.at and _time(listen.at) is None:
        return f"the time {listen.at!r} is not an ISO 8601 time from 1970 on"
    if reading.track_gone(listen.track_id):
        return f"the track {listen.track_id!r} was deleted"
    if not is_built and not reading.upload_seq(listen.track_id):
        return f"no track {listen.track_id!r} in the catalogue"
    return None


def time_of(listen: Listened, now: datetime) -> str:
    """When a listen that is taken in was heard: now, where it does not say, or says a time that cannot be known.

    A player without a clock counts from 1970; tables leave such times out (``recsys.catalogue.times``). What is still
    to come, by a clock that is fast, was heard when it arrived.
    """
    time = _time(listen.at)
    return listen.at if time is not None and FIRST_KNOWN <= time <= now else now.isoformat(timespec="milliseconds")


def _time(text: str) -> datetime | None:
    """Read an ISO 8601 time from 1970 on, None for anything else."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time.replace(tzinfo=time.tzinfo or UTC)
    return time if time >= EPOCH else None
