"""The form in which names of artists and genres are compared: one for caps, filters and vocabularies.

    " MOTO\\u0308RHEAD "  ->  fold_name  ->  "mot\\u00f6rhead"

An accent may be stored in one character or in two, and people type in any case. What is shown stays as it was written.
"""

import unicodedata

import polars as pl

FOLDING = 1  # of the names in a generation's files; those of before have no accents composed


def fold_name(name: str) -> str:
    """The form of a name that is compared: composed (NFC), without case and outer blanks."""
    name = name.strip()
    if name.isascii():
        return name.lower()
    # folding may take a composed letter apart, and composing may make one that has a case
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def fold_names(names: pl.Series) -> pl.Series:
    """Do as ``fold_name`` for a column of text; only names that are not ASCII pass through Python."""
    lower = names.str.strip_chars(" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f").str.to_lowercase()
    is_odd = names.str.contains(r"[^\x00-\x7f]").fill_null(False)
    if not is_odd.any():
        return lower
    odd = names.filter(is_odd).unique()
    folded = pl.Series(names.name, [fold_name(name) for name in odd.to_list()], dtype=pl.String)
    return lower.zip_with(~is_odd, names.replace(odd, folded))


def one_spelling(names: pl.Series) -> pl.Series:
    """Spell names that are compared as one in one way, that of the first of them; all others stay as they are."""
    table = pl.DataFrame({"name": names, "folded": fold_names(names)})
    first = table.drop_nulls().unique("folded", keep="first").rename({"name": "spelled"})
    joined = table.join(first, on="folded", how="left", maintain_order="left")
    return joined["spelled"].alias(names.name)
