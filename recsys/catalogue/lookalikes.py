"""Ids that look the same and are not: told, never merged; and those that name one track but for how accents are stored.

    ids of a table  ->  report_alike  ->  a problem for each that looks like an earlier one
    listens or tags, ids of the catalogue  ->  with_known_tracks  ->  the rows of known tracks, by the catalogue's ids

An id is compared byte by byte everywhere. Only when tables are read, a track that is not in the catalogue is taken for
the one that is, where exactly one has the same composed form (Unicode NFC): file systems and databases compose names
differently, so that one export rarely fits another.
"""

import unicodedata
from collections.abc import Sequence

import polars as pl

from recsys.catalogue.cells import FEWEST
from recsys.catalogue.problems import Problems
from recsys.errors import DataError
from recsys.util.printable import shown

_ODD = r"[^ -~]"
_SHORTENED = r"^[0-9]\.[0-9]+[Ee]\+[0-9]+$"
_UNSEEN = frozenset({"Cc", "Cf"})


def look(text: str) -> str:
    """What a reader sees of an id: composed, without what is invisible, every blank alike."""
    kept = (char for char in unicodedata.normalize("NFC", text) if unicodedata.category(char) not in _UNSEEN)
    return " ".join("".join(kept).split())


def report_alike(frame: pl.DataFrame, column: str, source: str, problems: Problems) -> None:
    """Tell of ids in a column that look like another id there; they stay two."""
    ids = frame.select("row", column).filter(pl.col(column).is_first_distinct())
    odd = ids.filter(pl.col(column).str.contains(_ODD).fill_null(False))
    if odd.is_empty():
        return
    looks = odd.with_columns(look=_looks(odd[column]))
    plain = ids.join(looks.select(pl.col("look").unique()), left_on=column, right_on="look", how="semi")
    plain = plain.join(odd, on=column, how="anti").with_columns(look=pl.col(column))
    alike = pl.concat([looks, plain]).sort("row").with_columns(first=pl.col(column).first().over("look"))
    for row, text, first in alike.filter(pl.col(column) != pl.col("first")).select("row", column, "first").iter_rows():
        reason = f"this {column} looks like {_quoted(first)}, an earlier one, and is another; both are kept"
        problems.add("ids-look-alike", source, row, text, reason)


def with_known_tracks(frame: pl.DataFrame, track_ids: pl.Series, source: str, problems: Problems) -> pl.DataFrame:
    """Keep the rows whose ``track_id`` is in the catalogue, or is there with its accents stored otherwise.

    Raises:
        DataError: there are tracks, and none of them is in the catalogue.
    """
    track = pl.col("track_id")
    known = track.is_in(track_ids.implode())
    strange = frame.filter(~known)
    if strange.is_empty():
        return frame
    frame = _joined(frame, strange, track_ids, source, problems)
    unknown = frame.filter(~known)
    kept = frame.filter(known)
    if kept.is_empty() and len(unknown) >= FEWEST:
        raise DataError(
            f"{source}: none of the {len(unknown):,} rows names a track of the tracks table, such as "
            f"{_quoted(unknown['track_id'][0])} in row {unknown['row'][0]}; the tracks table has ids such as "
            f"{', '.join(map(_quoted, track_ids.head(3).to_list())) or 'none'}"
        )
    _report_unknown(unknown, track_ids, source, problems)
    return kept


def _joined(
    frame: pl.DataFrame, strange: pl.DataFrame, track_ids: pl.Series, source: str, problems: Problems
) -> pl.DataFrame:
    """Spell ids that are in the catalogue but for their composition as the catalogue does."""
    odd = strange.filter(pl.col("track_id").str.contains(r"[^\x00-\x7f]")).group_by("track_id", maintain_order=True)
    asked = odd.agg(pl.col("row").first(), pl.len())
    accented = track_ids.filter(track_ids.str.contains(r"[^\x00-\x7f]"))
    if asked.is_empty() or accented.is_empty():
        return frame
    found = pl.DataFrame({"found": accented, "nfc": accented.str.normalize("NFC")})
    found = found.filter(~pl.col("nfc").is_duplicated())
    asked = asked.with_columns(nfc=pl.col("track_id").str.normalize("NFC"))
    asked = asked.join(found, on="nfc", how="inner", maintain_order="left")
    for text, row, n, meant in asked.select("track_id", "row", "len", "found").iter_rows():
        reason = f"taken for {_quoted(meant)}, which differs only in how accents are stored ({n:,} rows)"
        problems.add("id-accents", source, row, text, reason)
    spelled = frame.select("track_id").join(asked.select("track_id", "found"), on="track_id", how="left",
                                            maintain_order="left")["found"]  # fmt: skip
    return frame.with_columns(track_id=pl.coalesce(spelled, "track_id"))


def _report_unknown(unknown: pl.DataFrame, track_ids: pl.Series, source: str, problems: Problems) -> None:
    """Report rows of tracks that are not in the catalogue; where an id there looks much the same, it is named."""
    reason = "no such id in the tracks table"
    asked = unknown["track_id"].unique(maintain_order=True)
    looks = pl.DataFrame({"track_id": asked, "look": _looks(asked).str.to_lowercase()})
    there = pl.DataFrame({"found": track_ids, "look": _looks(track_ids).str.to_lowercase()})
    alike = looks.join(there.unique("look", keep="first", maintain_order=True), on="look", how="inner")
    reasons = {text: f"{reason}, but {_quoted(found)} looks the same" for text, _, found in alike.iter_rows()}
    for text in asked.filter(asked.str.contains(_SHORTENED)).to_list():
        reasons.setdefault(text, f"{reason}; a spreadsheet may have shortened a number to this")
    named = pl.DataFrame(
        {"track_id": list(reasons), "reason": list(reasons.values())}, {"track_id": pl.String, "reason": pl.String}
    )
    explained = unknown.select("row", "track_id").join(named, on="track_id", how="left", maintain_order="left")
    problems.extend(
        explained.select(
            pl.lit("unknown-track").alias("kind"),
            pl.lit(source).alias("source"),
            "row",
            pl.col("track_id").alias("value"),
            pl.col("reason").fill_null(reason),
        )
    )


def _looks(ids: pl.Series) -> pl.Series:
    """Do as ``look`` for distinct ids; only those that are not plain ASCII pass through Python."""
    odd = ids.filter(ids.str.contains(_ODD).fill_null(False))
    if odd.is_empty():
        return ids.alias("look")
    return ids.replace(odd, pl.Series([look(text) for text in odd.to_list()], dtype=pl.String)).alias("look")


def _quoted(text: str | Sequence[str]) -> str:
    return f"'{shown(str(text))}'"
