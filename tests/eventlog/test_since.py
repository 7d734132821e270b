"""What happened since a generation, and where one can go back to: as functions, and as `recsys status` says it."""

from contextlib import closing
from pathlib import Path

import pytest

from helpers.catalogues import TinyCatalogue, quick_settings
from helpers.command import run
from helpers.stores import copied
from pipelines.build import Inputs, build
from recsys.eventlog.events import Listened
from recsys.eventlog.replay import happened_since, other_generations
from recsys.live.rollback import rollback
from recsys.live.service import LiveUpdater
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.util.progress import Silent


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Store:
    return Store(copied(tiny_store, tmp_path))


def facts(store: Store) -> dict[str, str]:
    ran = run("status", "--store", store.folder)
    assert (ran.status, ran.err) == (0, "")
    return dict(line.split(None, 1) for line in ran.out.splitlines())


def test_nothing_has_happened(store):
    assert happened_since(store, 0) == {"uploads": 0, "listens": 0, "deletions": 0}
    assert not store.live.exists(), "looking makes no live store"
    assert facts(store)["since_then"] == "0 uploads, 0 listens, 0 deletions"
    assert facts(store)["rollback_to"] == "no other generation is kept"


@pytest.mark.slow
def test_listens_and_deletions_are_counted_until_a_build_takes_them_in(store, tiny_catalogue: TinyCatalogue):
    with closing(Recommender.open(store.folder)) as recommender, closing(LiveUpdater(store, recommender)) as live:
        live.record([Listened("u1", "t1"), Listened("u2", "t2"), Listened("gone", "t3")])
        live.delete_user("gone")
        live.delete_track("t20")
    assert happened_since(store, 0) == {"uploads": 0, "listens": 2, "deletions": 2}
    assert happened_since(store, 1) == {"uploads": 0, "listens": 1, "deletions": 2}
    assert facts(store)["since_then"] == "0 uploads, 2 listens, 2 deletions"
    build(Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), store.folder, quick_settings(), Silent())
    first, second = store.names()
    assert (facts(store)["since_then"], facts(store)["rollback_to"]) == ("0 uploads, 0 listens, 0 deletions", first)
    rollback(store.folder)
    assert other_generations(store) == [second]
    assert (facts(store)["since_then"], facts(store)["rollback_to"]) == ("0 uploads, 2 listens, 2 deletions", second)
