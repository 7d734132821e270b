"""A store that another process writes to all the while, and what a call to it gets."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.serving.fast_path import FastPath
from recsys.serving.server import METHODS
from recsys.store.generation import Store
from recsys.v1 import recommender_pb2 as pb

HOLD_S = 30.0  # longer than any call may take here; the holder is ended before

HOLDER = """
import sys, lmdb
with lmdb.open(sys.argv[1], subdir=False, max_dbs=64, map_size=1 << 38).begin(write=True):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def write_held(store: Path) -> Iterator[None]:
    """Another process is in the middle of a write."""
    command = [sys.executable, "-c", HOLDER, str(Store(store).live)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        try:
            yield
        finally:
            holder.stdin.close()


def quick(answers: FastPath, user: str, k: int = 20) -> pb.RecommendResponse | None:
    found = answers.recommend(pb.RecommendRequest(user_id=user, k=k).SerializeToString())
    return None if found is None else pb.RecommendResponse.FromString(found[0])


def answered(answers: FastPath, user: str, k: int = 20) -> list[str]:
    """What a call gets, from bytes or on a thread."""
    found = quick(answers, user, k)
    if found is None:
        found = METHODS["Recommend"][0](answers.recommender, pb.RecommendRequest(user_id=user, k=k))
    return [track.track_id for track in found.tracks]
