"""What a swap leaves behind: nothing of the former generation, and not at the expense of the calls."""

import asyncio
import gc
import threading
import weakref
from pathlib import Path

import pytest

from helpers.catalogues import TinyCatalogue, quick_settings
from helpers.serve_process import eventually, serve
from helpers.stores import copied
from pipelines.build import Inputs, build
from recsys.serving.fast_path import ServingState
from recsys.serving.reload import open_answers, watch
from recsys.store.generation import Store
from recsys.util.progress import Silent


@pytest.fixture
def store(tiny_store: Path, tiny_catalogue: TinyCatalogue, tmp_path: Path) -> Store:
    """Two generations, of which the first is current."""
    twice = Store(copied(tiny_store, tmp_path))
    first = twice.current().name
    build(Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), twice.folder, quick_settings(), Silent())
    assert min(twice.names()) == first
    (twice.folder / "CURRENT").write_text(first)
    return twice


def test_the_former_generation_is_let_go_of_beside_the_calls(store: Store) -> None:
    second = max(store.names())
    current, threads = ServingState(open_answers(store.folder)), list[int]()
    weakref.finalize(current.answers, lambda: threads.append(threading.get_ident()))

    async def swap() -> None:
        following = asyncio.create_task(watch(current, store.folder, "lmdb", every_s=0.01))
        (store.folder / "CURRENT").write_text(second)
        for _ in range(1000):
            await asyncio.sleep(0.02)
            if threads:
                break
        following.cancel()

    gc.disable()  # nothing may be left for it
    try:
        asyncio.run(swap())
    finally:
        gc.enable()
    assert current.answers.generation == second
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


@pytest.mark.slow
def test_a_worker_keeps_no_file_of_a_generation_that_was_replaced(store: Store) -> None:
    first, second = sorted(store.names())
    with serve(store.folder, workers=1) as server:
        worker = server.workers()[0]

        def mapped(generation: str) -> bool:
            return f"/generations/{generation}/" in Path(f"/proc/{worker}/maps").read_text()

        assert mapped(first)
        (store.folder / "CURRENT").write_text(second)
        assert eventually(lambda: mapped(second) and not mapped(first))
