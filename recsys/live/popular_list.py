"""New tracks into the popular list, that of somebody of whom nothing is known.

    popular list, numbers of new uploads  ->  refresh_popular  ->  the same list with those of them that belong there

It is chosen again from its own tracks and the new ones, by the rules of popular lists (a cap per artist, diversity), so
that it is what a build with these tracks would have listed.
"""

from collections.abc import Sequence

import numpy as np

from recsys.eventlog.snapshot import Snapshot
from recsys.eventlog.transactions import WriteTxn, user_key
from recsys.live.stored_lists import StoredLists
from recsys.live.user_update import best_of, varied
from recsys.store.record import Record, head_of, is_whole, pack, track_bytes
from recsys.types import ANONYMOUS_ID


def refresh_popular(writing: WriteTxn, stored: StoredLists, snapshot: Snapshot, seqs: Sequence[int]) -> bool:
    """Put uploads into the popular list.

    Args:
        writing: the transaction.
        stored: lists of the generation.
        snapshot: with the uploads.
        seqs: of those, in the log, that are to be put in; hidden ones are not.

    Returns:
        Whether the list is another one now.
    """
    catalogue = snapshot.catalogue
    uploads = [next(writing.uploads(seq - 1))[1] for seq in seqs]
    places = [snapshot.uploads.place_of(upload.track_id) for upload in uploads]
    rows = [catalogue.n_built + place for place in places if place >= 0 and place not in snapshot.uploads.hidden]
    if not rows:
        return False
    now = writing.list_of(stored.generation, ANONYMOUS_ID)
    if now is not None and not is_whole(now):
        now, rows = None, catalogue.upload_rows().tolist()  # those of before were in it, too
    known = Record(now or stored.popular()).rows
    candidates = np.setdiff1d(np.concatenate([known, rows]), catalogue.hidden).astype(np.int32)
    best = best_of(catalogue, stored.nobody, candidates)
    items, scores = varied(stored, snapshot, best, personal=False)
    if not np.isin(items, rows).any():
        return False
    lines = [
        track_bytes((track, score, None)) for track, score in zip(catalogue.ids(items), scores.tolist(), strict=True)
    ]
    record = pack(head_of(stored.generation, "popular"), lines, items)
    writing.put("lists", user_key(stored.generation, ANONYMOUS_ID), record)
    return True
