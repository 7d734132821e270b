"""Text from strangers' files as a person may see it: nothing drives the terminal, and what is invisible is written out.

    "t05\\xa0\\x1b"  ->  plain  ->  its escape code written out;  shown  ->  both written out, as Python does

``plain`` is for lists and tables of music, where a joiner in a Persian title is part of its spelling. ``shown`` is for
problems and errors, where two values that look alike must be told apart. Escapes are those of Python.
"""

import re
import unicodedata

import polars as pl

# C0, DEL, C1, line separators, embeddings and overrides of direction, halves of surrogate pairs
DRIVING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ASCII = re.compile(r"[ -~]*")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})
# letters that are seen as nothing, though Unicode calls them letters or marks
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


def plain(text: str, keep: str = "") -> str:
    """Escape what would drive a terminal, but for the characters of ``keep``."""
    if _ASCII.fullmatch(text):
        return text
    return DRIVING.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def shown(text: str) -> str:
    """Escape all that cannot be seen as well, and the marks of letters that could be written in one character."""
    if _ASCII.fullmatch(text):
        return text
    composed = unicodedata.is_normalized("NFC", text)
    return "".join(_escape(char) if _is_hidden(char, composed) else char for char in text)


def shown_values(texts: pl.Series) -> pl.Series:
    """Do as ``shown`` for a column of text; only what is not plain ASCII passes through Python."""
    odd = texts.filter(texts.str.contains(r"[^ -~]").fill_null(False)).unique()
    if not len(odd):
        return texts
    return texts.replace(odd, pl.Series([shown(text) for text in odd.to_list()], dtype=pl.String))


def _is_hidden(char: str, composed: bool) -> bool:
    if char == " " or char.isascii():
        return not " " <= char <= "~"
    category = unicodedata.category(char)
    return category in _HIDDEN or char in _BLANK or (category == "Mn" and not composed)


def _escape(char: str) -> str:
    code, named = ord(char), {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
    if char in named:
        return named[char]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
