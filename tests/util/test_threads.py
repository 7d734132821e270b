"""Work spread over threads: in order, a few things ahead, and none left running."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_info

from recsys.util.threads import in_numpy_threads, in_threads, torch_threads


def test_results_come_in_the_order_of_the_things() -> None:
    def slow_at_first(n: int) -> int:
        time.sleep(0.02 if n == 0 else 0)
        return n * n

    assert list(in_threads(slow_at_first, range(20), 3)) == [n * n for n in range(20)]
    assert list(in_threads(slow_at_first, [], 3)) == []


def test_only_a_few_things_are_drawn_ahead() -> None:
    drawn: list[int] = []

    def things() -> Iterator[int]:
        for n in range(100):
            drawn.append(n)
            yield n

    results = in_threads(lambda n: n, things(), 2)
    assert next(results) == 0
    assert len(drawn) <= 5
    assert list(results) == list(range(1, 100))


def test_torch_has_one_thread_in_each_and_the_callers_number_stays() -> None:
    with torch_threads(2):
        found = set(in_threads(lambda _: (torch.get_num_threads(), threading.current_thread().name), range(8), 2))
        assert {n for n, _ in found} == {1}
        assert torch.get_num_threads() == 2


def test_an_error_is_the_callers_and_ends_the_rest() -> None:
    done: list[int] = []

    def fails(n: int) -> int:
        if n == 3:
            raise ValueError("three")
        done.append(n)
        return n

    with pytest.raises(ValueError, match="three"):
        list(in_threads(fails, range(1000), 2))
    n_done = len(done)
    assert n_done < 20
    time.sleep(0.05)
    assert len(done) == n_done


@pytest.mark.slow
@pytest.mark.parametrize("n", [0, 1, 200])
def test_numpys_work_comes_in_order_and_blas_gets_its_threads_back(n: int) -> None:
    before = blas_threads()
    inside = list(in_numpy_threads(lambda thing: (thing, blas_threads()), range(n)))
    assert [thing for thing, _ in inside] == list(range(n))
    assert blas_threads() == before
    if n == 200:
        assert {threads for _, found in inside for threads in found} == {1}


def blas_threads() -> list[int]:
    """Of numpy and scipy; the BLAS that comes with faiss counts in another way."""
    return [library["num_threads"] for library in threadpool_info() if library.get("threading_layer") == "pthreads"]
