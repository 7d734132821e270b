"""In which notation a file of text is: its encoding and its separator, found out where it is not the usual one.

    bytes  ->  text_of  ->  UTF-8 bytes, lines ended by a line feed  ->  separated  ->  the same, and the separator

Spreadsheets save text in two-byte characters, with semicolons or tabs under the suffix ``.csv``, and with a first line
``sep=;``. All of that is read. What is no text at all is named for what it is.
"""

import codecs
import csv
import re
from collections.abc import Collection
from pathlib import Path

from recsys.errors import DataError

SEPARATORS = (",", ";", "\t", "|")
LOOKED_AT = 4096  # bytes of a file that tell its encoding
_SEP_LINE = re.compile(rb"""\A"?sep=(?P<separator>[^\r\n"]|\\t)"?[,;\t]*\r?(?:\n|\Z)""", re.IGNORECASE)
_MAGIC = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a spreadsheet or another zip archive",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet",
    b"\x1f\x8b": "gzipped",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"<?xml": "XML",
}


def text_of(data: bytes, path: Path) -> bytes:
    """UTF-8 without a byte order mark, lines ended by a line feed where they were ended by a return alone.

    Text that is in no such encoding is left as it is: its rows are judged one by one.

    Raises:
        DataError: this is a file of another kind.
    """
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise DataError(f"{path} is {what}, not text; save the table as .csv, .tsv, .jsonl or .parquet, named so")
    encoding = _wide_encoding(data)
    if encoding is not None:
        data = data.decode(encoding, "replace").encode("utf-8", "replace")
    data = data.removeprefix(codecs.BOM_UTF8)
    return data if b"\n" in data else data.replace(b"\r", b"\n")


def separated(data: bytes, usual: str, known: Collection[str]) -> tuple[bytes, str]:
    """Find the separator of a delimited text, which is the usual one unless a line says or the header tells.

    Args:
        data: as ``text_of`` gives it.
        usual: what the file's suffix means.
        known: names of columns; the separator that finds most of them in the header is it.

    Returns:
        The text without the line that named the separator, and the separator.
    """
    said = _SEP_LINE.match(data)
    if said is not None:
        separator = said["separator"].replace(rb"\t", b"\t").decode("latin-1")
        if separator.isascii():
            return data[said.end() :], separator
    line = data.lstrip(b"\r\n").split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")

    def n_known(separator: str) -> int:
        try:
            names = next(csv.reader([line], delimiter=separator), [])
        except csv.Error:
            return 0
        return len({name.strip().casefold() for name in names} & set(known))

    best = max((usual, *SEPARATORS), key=n_known)  # the first of equally good ones
    return data, best


def _wide_encoding(data: bytes) -> str | None:
    """Tell text in characters of two or four bytes, by its mark or, without one, by where its zeros are."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    start = data[: min(len(data), LOOKED_AT) // 2 * 2]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if odd * 4 > len(start) and even == 0:  # half of the characters are Latin, as separators and ids are
        return "utf-16-le"
    if even * 4 > len(start) and odd == 0:
        return "utf-16-be"
    return None
