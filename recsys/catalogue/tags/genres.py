"""Genres as taggers join them, parted; numbers of the list that ID3 began with, by name.

    "Rock; Jazz", "Rock/Jazz", "(17)", "(9)(138)Viking Metal"  ->  Rock, Jazz; Rock; Metal, Black Metal, Viking Metal

``;`` and a double backslash always part. A comma, a slash or a backslash is also in names (``Pop/Funk``), so it parts
only where all that it parts are genres of that list.
"""

import re

from mutagen.id3 import TCON

_NAMES: list[str] = TCON.GENRES  # 192 of them, by number
_N_NUMBERS = 256  # of one byte; those without a name, 255 above all, say that there is none
_MARKS = {"RX": "Remix", "CR": "Cover"}
_IN_BRACKETS = re.compile(r"\((\d{1,3}|RX|CR)\)", re.ASCII)
_MAX_CHARS = 1_001  # of a text that is looked into


def _folded(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


_KNOWN = frozenset(map(_folded, _NAMES)) | {"rnb", "rb", "rhythmandblues", "hiphop", "kpop", "jpop"}


def parted(text: str) -> list[str]:
    """The genres that a text of any kind of tag holds, numbers by name."""
    names = [name for part in re.split(r";|\\\\", text[:_MAX_CHARS]) for name in known_parts(part, r"[,\\]")]
    return [named for name in names for named in numbered(name)]


def known_parts(text: str, separators: str) -> list[str]:
    """Part a text at the separators (a pattern) where all that is between them are known genres."""
    parts = [part.strip() for part in re.split(separators, text[:_MAX_CHARS])]
    known = len(parts) > 1 and _folded(text) not in _KNOWN and all(_folded(part) in _KNOWN for part in parts)
    return parts if known else [text.strip()]


def numbered(text: str) -> list[str]:
    """The names of a text such as ``(52)(RX)``, ``17`` or ``((not a number)``; a number without a name is none."""
    text = text[:_MAX_CHARS].strip()
    names: list[str] = []
    at = 0
    while found := _IN_BRACKETS.match(text, at):
        names += _name_of(found[1])
        at = found.end()
    rest = text[at:].strip()
    if rest.startswith("(("):
        rest = rest[1:]
    return names + _name_of(rest)


def _name_of(code: str) -> list[str]:
    if code in _MARKS:
        return [_MARKS[code]]
    if re.fullmatch(r"[0-9]{1,3}", code) and int(code) < _N_NUMBERS:
        return _NAMES[int(code) : int(code) + 1]
    return [code] if code else []
