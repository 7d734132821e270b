"""A made-up stream of plays in which what comes next is planted: artists' tracks in their order, session by session."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from recsys.types import LISTENS_SCHEMA, TRACKS_SCHEMA, Listens, Tracks

START = datetime(2020, 1, 1, tzinfo=UTC)
N_ARTISTS, N_EACH, N_USERS, N_SESSIONS = 12, 11, 61, 4


def tracks() -> Tracks:
    """132 tracks ``a3-7``, the eighth of artist 3."""
    ids = [f"a{artist}-{n}" for artist in range(N_ARTISTS) for n in range(N_EACH)]
    columns = {"track_id": ids, "artist": [track.split("-")[0] for track in ids]}
    return Tracks(pl.DataFrame({**dict.fromkeys(TRACKS_SCHEMA, [None] * len(ids)), **columns}, schema=TRACKS_SCHEMA))


def listens(*, in_order: bool = True, drift: bool = False, seed: int = 0) -> Listens:
    """61 users, four sessions each: five tracks of one artist, one after the other; or as many of any artists.

    With ``drift`` the sessions are six, and of two artists: of the one in the first half, of the other in the second.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(N_USERS):
        both = rng.permutation(N_ARTISTS)[:2].tolist() if drift else []
        for session in range(6 if drift else N_SESSIONS):
            artist, first = int(rng.integers(N_ARTISTS)), int(rng.integers(N_EACH))
            artist = both[session // 3] if drift else artist
            begins = START + timedelta(days=session, seconds=int(rng.integers(80_000)))
            for place in range(5):
                track = f"a{artist}-{(first + place) % N_EACH}"
                if not in_order:
                    track = f"a{rng.integers(N_ARTISTS)}-{rng.integers(N_EACH)}"
                rows.append((f"u{user}", track, 1.0, begins + timedelta(seconds=200 * place), False, False))
    return Listens(pl.DataFrame(rows, schema=LISTENS_SCHEMA, orient="row"))
