"""Publishing: depth of the lists, and a disk that fills up or a process that ends at any moment."""

import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers.catalogues import AudioCatalogue, TinyCatalogue, quick_settings
from helpers.command import run
from helpers.stores import copied, rows, tables
from pipelines import publish as publishing
from pipelines.build import Inputs, build
from recsys.errors import ArtefactError
from recsys.recommender import Recommender
from recsys.store import generation
from recsys.store.generation import Store
from recsys.util.progress import Silent


def wide_inputs(folder: Path) -> Inputs:
    """260 tracks and 7 users: more than the lists are deep."""
    rng = np.random.default_rng(3)
    tracks = [f"t{n},Artist {n % 40},genre {n % 5},{1970 + n % 50}" for n in range(260)]
    (folder / "tracks.csv").write_text("\n".join(["track_id,artist,genre,year", *tracks]))
    listens = [f"u{user},t{track}" for user in range(7) for track in rng.choice(250, 12 + user, replace=False)]
    (folder / "listens.csv").write_text("\n".join(["user_id,track_id", *listens]))
    return Inputs(folder / "tracks.csv", folder / "listens.csv")


@pytest.fixture(scope="module")
def wide_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    build(wide_inputs(folder), folder / "store", quick_settings(), Silent())
    return folder / "store"


@pytest.mark.slow
def test_lists_from_pools_are_stored_as_lists_from_all_are(wide_store: Path, tmp_path: Path) -> None:
    """A pool that holds the whole catalogue changes no list, though users come group by group."""
    settings = quick_settings()
    pools = settings.pools.model_copy(update={"exact_below": 0, "users_together": 2})
    build(wide_inputs(tmp_path), tmp_path / "store", settings.model_copy(update={"pools": pools}), Silent())
    lists_of = "SELECT user_id, rank, track_id, score, reason_track_id FROM recommendations ORDER BY ALL"
    stored = rows(tmp_path / "store", lists_of)
    assert stored == rows(wide_store, lists_of)
    score_at_20 = [np.load(Store(s).current() / "arrays" / "edges.npy") for s in (wide_store, tmp_path / "store")]
    assert np.array_equal(*score_at_20)


def test_lists_are_200_deep_and_neighbours_50(wide_store: Path) -> None:
    depths = rows(wide_store, "SELECT user_id, count(*), max(rank), count(DISTINCT track_id) FROM recommendations "
                              "GROUP BY ALL ORDER BY ALL")  # fmt: skip
    assert depths == [(f"u{user}", 200, 200, 200) for user in range(7)]
    spaces = rows(wide_store, "SELECT space, count(DISTINCT track_id), min(n), max(n) FROM (SELECT space, track_id, "
                              "count(DISTINCT neighbour_id) AS n FROM track_neighbours GROUP BY ALL) "
                              "GROUP BY ALL ORDER BY ALL")  # fmt: skip
    n_warm = rows(wide_store, "SELECT count(*) FROM tracks WHERE NOT is_cold")[0][0]
    assert spaces == [("content", 260, 50, 50), ("hybrid", 260, 50, 50), ("taste", n_warm, 50, 50)]
    assert rows(wide_store, "SELECT count(*) FROM track_neighbours WHERE track_id = neighbour_id") == [(0,)]
    wrong = "SELECT count(*) FROM {0} a JOIN {0} b USING ({1}) WHERE a.rank < b.rank AND a.score < b.score"
    assert rows(wide_store, wrong.format("recommendations", "user_id")) == [(0,)]
    assert rows(wide_store, wrong.format("track_neighbours", "track_id, space")) == [(0,)]


def test_the_stored_lists_are_the_200_best(wide_store: Path) -> None:
    recommender = Recommender.open(wide_store)
    everything = [f"t{n}" for n in range(260)]
    scores = recommender.score(["u3"], everything)[0]
    heard = {
        recommender.plays.track_ids[i] for i in recommender.plays.counts[recommender.plays.user_ids.index("u3")].indices
    }
    best = sorted((track for track in everything if track not in heard),
                  key=lambda track: -scores[everything.index(track)])[:200]  # fmt: skip
    stored = [t.track_id for t in recommender.recommend("u3", 200).tracks]
    edge = scores[everything.index(best[-1])]
    clear = {track for track in best if scores[everything.index(track)] > edge + 1e-4}
    assert clear <= set(stored)
    assert len(recommender.similar("t5", 120).tracks) == 120, "what lies beyond 50 is computed"
    deep = [t.track_id for t in recommender.similar("t5", 120).tracks]
    assert deep[:40] == [t.track_id for t in recommender.similar("t5", 40).tracks]


# ---- a disk that fills up ------------------------------------------------------------------------------------


def whole(store: Path, current: Path, content: dict) -> None:
    """The generation that was current is still current, unharmed, and alone."""
    assert Store(store).current() == current
    assert tables(store) == content
    assert Recommender.open(store).recommend("u1").generation == current.name
    assert [path.name for path in Store(store).generations.iterdir()] == [current.name]
    assert not list(store.rglob("*.tmp"))
    assert not list(store.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("limit_kb", [1, 20, 2000])
def test_a_limit_on_files_leaves_the_old_generation(
    tiny_store: Path, tiny_catalogue: TinyCatalogue, tmp_path: Path, limit_kb: int
) -> None:
    """No file may grow beyond the limit: arrays, models or the DuckDB file fail first."""
    store = copied(tiny_store, tmp_path)
    current, content = Store(store).current(), tables(store)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_kb * 1024, former[1]))
    try:
        with pytest.raises(ArtefactError) as caught:
            build(Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), store, quick_settings(), Silent())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert "\n" not in str(caught.value)
    whole(store, current, content)


def test_every_sync_may_fail(tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step, file by file: whichever fsync finds the disk full, one whole generation is current."""
    store = copied(tiny_store, tmp_path)
    current, partial = Store(store).current(), Store(store).begin()
    fresh = partial.with_suffix("")
    shutil.copytree(current, partial, dirs_exist_ok=True)
    real, calls, n_failed = os.fsync, [], 0

    def full_at_last(file: int) -> None:
        calls.append(file)
        if len(calls) > n_failed:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", full_at_last)
    while Store(store).current() == current:
        assert n_failed < 200, "it never ends"
        calls.clear()
        if not partial.exists():
            fresh.rename(partial)
        with pytest.raises(OSError, match="No space"):
            Store(store).publish(partial)
        n_failed += 1
    assert n_failed > 30, "each file was synced first"
    assert Store(store).current() == fresh, "only the last sync, of the rename itself, comes after it is current"
    assert Recommender.open(store).recommend("u1").tracks


@pytest.mark.parametrize("but_kb", [0, *(pytest.param(more, marks=pytest.mark.slow) for more in (40, 1000))])
def test_a_full_disk_leaves_the_old_generation(
    tiny_store: Path, tiny_catalogue: TinyCatalogue, tmp_path: Path, small_disk: Callable[[int], Path], but_kb: int
) -> None:
    store = copied(tiny_store, tmp_path / "disk")
    current, content = Store(store).current(), tables(store)
    small_disk(but_kb)
    (tmp_path / "quick.toml").write_text("[hybrid.content]\nepochs = 1\n")
    ran = run("build", "--tracks", tiny_catalogue.tracks, "--store", store, "--config", tmp_path / "quick.toml")
    assert ran.status == 4
    lines = ran.err.strip().splitlines()
    assert lines[-1].startswith("recsys: ")
    assert "disk is full" in lines[-1] or "No space left" in lines[-1]
    whole(store, current, content)
    (tmp_path / "disk" / "filler").unlink()
    assert (
        run("build", "--tracks", tiny_catalogue.tracks, "--store", store, "--config", tmp_path / "quick.toml").status
        == 0
    )
    assert Store(store).current() != current


# ---- a process that ends -------------------------------------------------------------------------------------

MOMENTS = (
    (publishing, "_write"),
    (publishing, "save_models"),
    (publishing, "write_tables"),
    (publishing, "count_rows"),
    (publishing, "catch_up"),
    (generation, "sync_tree"),
    (generation, "replace_text"),
)


@pytest.mark.slow
def test_a_kill_at_any_moment_of_publishing(
    audio_store: Path, audio_catalogue: AudioCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store as a kill -9 at that moment would leave it: a copy, made then."""
    store, left = copied(audio_store, tmp_path), {}
    current, content = Store(store).current(), tables(store)
    for module, name in MOMENTS:
        real = getattr(module, name)

        def stop(*all_: object, name: str = name, real: Callable = real, **named: object) -> object:
            if name not in left:
                left[name] = Path(shutil.copytree(store, tmp_path / "left" / name))
            return real(*all_, **named)

        monkeypatch.setattr(module, name, stop)
    build(audio_catalogue.inputs, store, quick_settings(), Silent())
    assert set(left) == {name for _, name in MOMENTS}
    assert Store(store).current() != current
    for name, folder in left.items():
        assert Store(folder).current().name == current.name, name
        assert tables(folder) == content, name
        assert len(list(Store(folder).generations.iterdir())) == 2, "there is something half done"
        assert Recommender.open(folder).recommend("v1").generation == current.name
    for name in ("write_tables", "replace_text"):
        build(audio_catalogue.inputs, left[name], quick_settings(), Silent())
        assert Store(left[name]).current().name > current.name
        assert not list(left[name].rglob("*.partial"))
        assert tables(left[name]) == content


@pytest.mark.slow
def test_a_generation_that_does_not_read_back_is_not_published(
    tiny_store: Path, tiny_catalogue: TinyCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copied(tiny_store, tmp_path)
    current, content = Store(store).current(), tables(store)
    monkeypatch.setattr(publishing.rows, "users", lambda _: pl.DataFrame({"user_id": ["only one"]}))
    with pytest.raises(ArtefactError, match="it was not published"):
        build(Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), store, quick_settings(), Silent())
    whole(store, current, content)
