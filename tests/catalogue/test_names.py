import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recsys.catalogue.names import fold_name, fold_names, one_spelling

NAMES = st.lists(
    st.one_of(st.none(), st.text(max_size=8), st.sampled_from(["e\u0301", "\u00e9", "Stra\u00dfe", "\u0390"]))
)


def test_accents_in_one_character_or_two_and_any_case_are_one_name() -> None:
    assert fold_name(" MOTO\u0308RHEAD ") == fold_name("Mot\u00f6rhead") == "mot\u00f6rhead"
    assert fold_name("STRASSE") == fold_name("Stra\u00dfe") == "strasse"
    assert fold_name("\u00a0Ann\u3000") == "ann"
    assert fold_name("Ann") != fold_name("An n")


@given(st.text())
def test_what_is_folded_stays_so(name: str) -> None:
    assert fold_name(fold_name(name)) == fold_name(name)


@given(NAMES)
def test_a_column_is_folded_as_each_of_its_names_is(names: list[str | None]) -> None:
    folded = fold_names(pl.Series("name", names, dtype=pl.String)).to_list()
    assert folded == [None if name is None else fold_name(name) for name in names]


@given(NAMES)
def test_one_spelling_is_the_first_and_changes_no_name_that_is_alone(names: list[str | None]) -> None:
    spelled = one_spelling(pl.Series("name", names, dtype=pl.String)).to_list()
    first: dict[str, str] = {}
    for name in names:
        if name is not None:
            first.setdefault(fold_name(name), name)
    assert spelled == [None if name is None else first[fold_name(name)] for name in names]
