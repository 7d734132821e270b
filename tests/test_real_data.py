"""The commands on real music and real listening, where the data is there; settings reduced, so no figures."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from helpers.command import run
from helpers.places import ROOT
from helpers.stores import rows
from recsys.recommender import Recommender
from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub

DATA = ROOT.parent / "shared" / "data"
REDUCED = """
[hybrid]
als = { n_factors = 16, epochs = 4 }
lightfm = { n_factors = 16, epochs = 3 }
content = { epochs = 2, fusion = { dim = 16, tower = 16, hidden = 32 } }
[audio]
decode = { clip_s = 10.0 }
train = { epochs = 2, train_tracks = 100 }
network = { NETWORK width = 32, dim = 16 }
head = { copies = [{ noise_share = 1.0, mp3_share = 0.0 }] }
"""
PUBLISHED = REDUCED.replace("NETWORK", "")  # musicnn with a fitted head, where its weights are
SMALL = REDUCED.replace("NETWORK", 'name = "conv1d", start = "random",')

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not beside the repository (../shared/data)")


def inputs(name: str) -> list[object]:
    """The options that name a data set's tables."""
    folder = DATA / name
    options: list[object] = []
    for table in ("tracks", "listens", "tags"):
        found = sorted(folder.glob(f"{table}.*"))
        if found:
            options += [f"--{table}", found[0]]
    return options


@contextmanager
def served(store: Path) -> Iterator[RecommenderStub]:
    command = [sys.executable, "-m", "recsys", "serve", "--store", str(store), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            with grpc.insecure_channel(line.split(" on ")[1].split()[0]) as channel:
                yield RecommenderStub(channel)
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=10) == 0


@pytest.mark.parametrize(
    ("name", "n_tracks", "n_users", "spaces"),
    [
        pytest.param("emotify", 297, 453, ["sound", "content", "taste", "hybrid"], marks=pytest.mark.slow),
        pytest.param("hetrec-spotify", 4663, 1881, ["sound", "content", "taste", "hybrid"], marks=pytest.mark.slow),
        pytest.param("hetrec-lastfm", 17632, 1892, None, marks=pytest.mark.long),
        pytest.param("listening-tweets", None, 10833, ["content", "taste", "hybrid"], marks=pytest.mark.long),
    ],
)
def test_build_and_serve(
    name: str, n_tracks: int | None, n_users: int, spaces: list[str] | None, tmp_path: Path
) -> None:
    config, store = tmp_path / "reduced.toml", tmp_path / "store"
    config.write_text(PUBLISHED)
    built = run("build", *inputs(name), "--store", store, "--config", config)
    assert built.status == 0, built.err
    recommender = Recommender.open(store)
    status = recommender.status()
    assert status["n_tracks"] == n_tracks or n_tracks is None
    assert status["n_users"] == n_users
    assert spaces is None or status["spaces"] == spaces
    wrong = rows(store, "SELECT count(*) FROM (SELECT user_id, max(rank) AS deep, count(DISTINCT track_id) AS n "
                        "FROM recommendations GROUP BY user_id) WHERE deep <> n OR deep > 200")  # fmt: skip
    assert wrong == [(0,)]
    assert rows(store, "SELECT count(DISTINCT user_id) FROM recommendations") == [(n_users,)]
    assert rows(store, "SELECT count(*) FROM recommendations WHERE NOT isfinite(score)") == [(0,)]
    assert rows(store, "SELECT count(*) FROM track_neighbours WHERE track_id = neighbour_id") == [(0,)]
    [(user,)] = rows(store, "SELECT user_id FROM users WHERE plays > 0 ORDER BY plays DESC, user_id LIMIT 1")
    ran = run("recommend", user, "--store", store, "--json")
    assert (ran.status, len(ran.out.splitlines())) == (0, 20)
    with served(store) as stub:
        answer = stub.Recommend(pb.RecommendRequest(user_id=user, k=20), timeout=20)
        assert [t.track_id for t in answer.tracks] == [t.track_id for t in recommender.recommend(user).tracks]
        near = stub.SimilarTracks(pb.SimilarTracksRequest(track_id=answer.tracks[0].track_id), timeout=20)
        assert len(near.tracks) == 20


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("emotify", marks=pytest.mark.slow),
        pytest.param("hetrec-spotify", marks=pytest.mark.long),
        pytest.param("listening-tweets", marks=pytest.mark.long),
    ],
)
def test_evaluate(name: str, tmp_path: Path) -> None:
    (tmp_path / "reduced.toml").write_text(SMALL)
    ran = run("evaluate", *inputs(name), "--out", tmp_path / "out", "--protocol", "warm", "-k", "10", "--trials", "0",
              "--config", tmp_path / "reduced.toml")  # fmt: skip
    assert ran.status == 0, ran.err
    assert re.search(r"popularity.*\d\.\d", ran.out)
    assert re.search(r"random.*\d\.\d", ran.out)
    assert {"report.json", "evaluation.duckdb"} <= {path.name for path in (tmp_path / "out").iterdir()}
