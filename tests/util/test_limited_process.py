import signal

import pytest

from recsys.util.limited_process import cpu_limit


def for_ever() -> None:
    while True:
        pass


def caught_once() -> None:
    """As a library does that takes any OSError for one of its file's."""
    try:
        for_ever()
    except OSError:
        for_ever()


@pytest.mark.slow
def test_python_code_is_stopped_when_its_time_is_used_up() -> None:
    before = signal.getsignal(signal.SIGPROF)
    for code in (for_ever, caught_once):
        with pytest.raises(TimeoutError, match=r"stopped after 0\.05 s"), cpu_limit(0.05):
            code()
        assert signal.getsignal(signal.SIGPROF) == before
        assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_code_that_ends_in_time_is_left_alone() -> None:
    with cpu_limit(60.0):
        found = sum(range(1000))
    assert found == 499_500
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
