import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recsys.util.printable import plain, shown, shown_values


def test_what_cannot_be_seen_is_written_out() -> None:
    assert shown("t05\xa0") == r"t05\xa0"
    assert shown("\u200bt06\ufeff") == r"\u200bt06\ufeff"
    assert shown("Moto\u0308rhead") == r"Moto\u0308rhead"
    assert (
        shown("Mot\u00f6rhead, \u0939\u093f\u0928\u094d\u0926\u0940")
        == "Mot\u00f6rhead, \u0939\u093f\u0928\u094d\u0926\u0940"
    )
    assert shown("\x1b[2J\n\0\x9b\U000e0001\ud800\ue000") == r"\x1b[2J\n\x00\x9b\U000e0001\ud800\ue000"
    assert shown("a \\ b") == "a \\ b"


def test_what_drives_a_terminal_is_written_out() -> None:
    assert plain("\x1b]0;x\x07\x85\u202eabc\u2066") == r"\x1b]0;x\x07\x85\u202eabc\u2066"
    assert plain("\u0645\u06cc\u200c\u0634\u0648\u062f e\u0301") == "\u0645\u06cc\u200c\u0634\u0648\u062f e\u0301"
    assert plain("a\nb\tc", keep="\n") == "a\nb\\tc"


@given(st.text(st.characters()))
def test_whatever_is_shown_is_printable_text(text: str) -> None:
    assert shown(text).isprintable()
    assert all(char.isprintable() or ord(char) > 0x9F for char in plain(text))
    plain(text).encode()


@given(st.lists(st.one_of(st.none(), st.text(max_size=5))))
def test_a_column_is_shown_as_each_of_its_values_is(texts: list[str | None]) -> None:
    values = shown_values(pl.Series("value", texts, dtype=pl.String)).to_list()
    assert values == [None if text is None else shown(text) for text in texts]
