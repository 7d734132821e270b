"""Rollback: the generation before, or the one that is named, and never a damaged one."""

from pathlib import Path

import pytest

from helpers.catalogues import TinyCatalogue, quick_settings
from helpers.stores import copied
from pipelines.build import Inputs, build
from recsys.errors import ArtefactError
from recsys.live.rollback import rollback
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.lmdb_lookup import FILE
from recsys.util.progress import Silent


@pytest.fixture
def store(tiny_store: Path, tiny_catalogue: TinyCatalogue, tmp_path: Path) -> Store:
    """Two generations, of which the second is current."""
    store = Store(copied(tiny_store, tmp_path))
    build(Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), store.folder, quick_settings(), Silent())
    assert len(store.names()) == 2
    return store


def test_back_and_on_again(store: Store) -> None:
    first, second = store.names()
    assert rollback(store.folder) == first == Recommender.open(store.folder).generation
    assert rollback(store.folder, second) == second == store.current().name
    with pytest.raises(ArtefactError, match=f"no generation 'x'; it has {first}, {second}"):
        rollback(store.folder, "x")


def test_before_the_first_there_is_none(store: Store) -> None:
    first = rollback(store.folder)
    with pytest.raises(ArtefactError, match=f"no generation before {first}"):
        rollback(store.folder)
    assert store.current().name == first


@pytest.mark.parametrize(
    "file",
    [FILE]
    + [
        pytest.param(other, marks=pytest.mark.slow)
        for other in ("recommendations.duckdb", "meta.json", "arrays/item_vectors.npy")
    ],
)
def test_a_damaged_generation_does_not_become_current(store: Store, file: str) -> None:
    first, second = store.names()
    whole = (store.generations / first / file).read_bytes()
    (store.generations / first / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtefactError):
        rollback(store.folder)
    assert store.current().name == second


def test_not_while_a_build_is_running(store: Store) -> None:
    with store.build_lock(), pytest.raises(ArtefactError, match="another build is running"):
        rollback(store.folder)
