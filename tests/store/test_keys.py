from hypothesis import given
from hypothesis import strategies as st

from recsys.store.keys import LONGEST, key_of

IDS = st.text(max_size=900)


@given(IDS, IDS)
def test_keys_are_equal_for_equal_ids_alone_and_fit(one: str, other: str) -> None:
    assert (key_of(one) == key_of(other)) == (one == other)
    assert 0 < len(key_of(one)) <= LONGEST


def test_a_short_id_is_its_own_key_and_a_long_one_is_hashed() -> None:
    assert key_of("ü") == "ü".encode()
    assert key_of("x" * 400) == b"x" * 400
    assert key_of("x" * 401)[:2] == b"\xff#"
    assert key_of("x" * 401) != key_of("x" * 402)
