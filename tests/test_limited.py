import signal

import pytest

from recsys.limited import cpu_limit


def test_python_code_is_stopped_when_its_time_is_used_up() -> None:
    before = signal.getsignal(signal.SIGPROF)
    with pytest.raises(TimeoutError, match=r"stopped after 0\.05 s"), cpu_limit(0.05):
        while True:
            pass
    assert signal.getsignal(signal.SIGPROF) == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_a_library_that_catches_the_error_once_is_stopped_again() -> None:
    caught = 0
    with pytest.raises(TimeoutError), cpu_limit(0.05):
        try:
            while True:
                pass
        except TimeoutError:
            caught += 1
        while True:
            pass
    assert caught == 1


def test_code_that_ends_in_time_is_left_alone() -> None:
    with cpu_limit(60.0):
        found = sum(range(1000))
    assert found == 499_500
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
