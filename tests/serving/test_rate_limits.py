"""Rates and places, with a clock of their own."""

import os
from hashlib import sha256

import pytest

from recsys.serving.rate_limits import _SETS, _WAYS, Rates, UploadSlots
from recsys.serving.tokens import Role, Token


def let_in(rates: Rates, client: int, now: float, n: int) -> int:
    return sum(rates.wait_s(client, now) == 0.0 for _ in range(n))


@pytest.mark.parametrize(("rate", "at_once"), [(5.0, 5), (0.5, 1), (1000.0, 1000)])
def test_a_second_s_worth_at_once_and_then_the_rate(rate: float, at_once: int) -> None:
    rates = Rates(rate)
    assert let_in(rates, 7, 100.0, 2000) == at_once
    assert let_in(rates, 7, 100.0 + 3 / rate + 1e-6, 2000) == min(3, at_once)
    assert let_in(rates, 7, 1000.0, 2000) == at_once, "never more than a second's worth is saved up"


def test_waiting_as_long_as_was_said_is_enough_and_less_is_not() -> None:
    rates = Rates(4.0)
    let_in(rates, 7, 100.0, 4)
    wait_s = rates.wait_s(7, 100.0)
    assert wait_s == pytest.approx(0.25, rel=0.02)
    assert rates.wait_s(7, 100.0 + 0.9 * wait_s) > 0
    assert rates.wait_s(7, 100.0 + 1.001 * wait_s) == 0.0


def test_clients_have_a_bucket_each_also_those_of_one_set() -> None:
    rates = Rates(3.0)
    clients = [5 + 2 * _SETS * n for n in range(_WAYS)]
    assert [let_in(rates, client, 100.0, 9) for client in clients] == [3] * _WAYS
    assert [let_in(rates, client, 100.0, 9) for client in clients] == [0] * _WAYS


def test_a_place_is_free_again_once_its_bucket_is_full() -> None:
    rates = Rates(3.0)
    for client in (5 + 2 * _SETS * n for n in range(_WAYS)):
        let_in(rates, client, 100.0, 9)
    newcomer = 5 + 2 * _SETS * _WAYS
    assert let_in(rates, newcomer, 102.0, 9) == 3


def test_clients_are_spread_over_all_sets() -> None:
    rates = Rates(3.0)
    tokens = [Token("", Role.READ, sha256(bytes([n % 256, n // 256])).digest(), "") for n in range(20_000)]
    assert len({rates._place(token.number) // _WAYS for token in tokens}) > 0.8 * _SETS


def test_a_full_set_is_shared_and_not_overrun() -> None:
    rates = Rates(3.0)
    assert sum(let_in(rates, 5 + 2 * _SETS * n, 100.0, 9) for n in range(100 * _WAYS)) == 3 * _WAYS


def test_processes_count_together() -> None:
    rates, uploads = Rates(10.0), UploadSlots(2, n_workers=2)
    uploads.enter(0)
    with uploads.place(7) as refusal:
        assert not refusal
        child = os.fork()
        if not child:
            uploads.enter(1)
            with uploads.place(8) as second, uploads.place(9) as third:
                os._exit(let_in(rates, 7, 100.0, 4) if third and not second else 99)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
        assert let_in(rates, 7, 100.0, 20) == 6
        with uploads.place(9) as none:
            assert none, "the place of the process that ended without giving it back"
        uploads.enter(1)  # the one that takes its place
        uploads.enter(0)
        with uploads.place(9) as given:
            assert not given


def test_a_place_is_given_back_after_a_failure() -> None:
    uploads = UploadSlots(1, n_workers=1)
    with pytest.raises(KeyError), uploads.place():
        raise KeyError
    with uploads.place() as refusal:
        assert not refusal


def test_one_client_leaves_a_place_to_others_over_all_workers() -> None:
    uploads = UploadSlots(4, n_workers=2)
    with uploads.place(7), uploads.place(7):
        uploads.enter(1)
        with uploads.place(7) as third, uploads.place(7) as fourth, uploads.place(8) as another:
            assert (third, another) == ("", "")
            assert fourth == "3 uploads of this client are being taken in, which is the most; try again soon"
            assert uploads.going_on == 4
            assert uploads.refusal(9) == "4 uploads are being taken in, which is the most; try again soon"
        assert uploads.going_on == 2, "those of the other worker"
