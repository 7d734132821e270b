"""One open file in, what the tags inside it say out, whatever its name and of whatever kinds they are.

    an open file  ->  read_tags  ->  Inside: texts by column of the tracks table, what was wrong

What begins the file decides what it is, never its name. Of each field the first kind of tag speaks that is not blank
there: the container's own kind first (Vorbis comments in FLAC and Ogg, atoms in MP4, APEv2 in WavPack), then ID3v2,
which nearly every program writes and shows, then APEv2, and ID3v1 last, as it cuts texts at 30 characters. In WAV and
AIFF, ID3 goes before INFO and text chunks, which declare no encoding.

No sound is decoded, and nothing is imported later than this module is: the process that runs it may not read files.
"""

import os
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import mutagen
from mutagen.asf import ASF
from mutagen.flac import FLAC
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggspeex import OggSpeex
from mutagen.oggtheora import OggTheora
from mutagen.oggvorbis import OggVorbis

from recsys.catalogue.tags.ape import read_ape
from recsys.catalogue.tags.chunks import read_aiff, read_caf, read_wav
from recsys.catalogue.tags.fields import MAX_NOTES, WANTED, Inside, TagTexts, merged, put
from recsys.catalogue.tags.id3 import V1_BYTES, read_id3v1, read_id3v2
from recsys.catalogue.tags.kinds import kind_of
from recsys.catalogue.tags.matroska import read_matroska
from recsys.catalogue.tags.mp4 import read_mp4
from recsys.util.limited_process import cpu_limit

CPU_LIMIT_S = 10.0  # a file; even a large picture in Ogg takes a hundredth
_MAX_ID3_TAGS = 4  # one behind the other
_MAX_NOTE_CHARS = 200
# what mutagen lets through on damaged files, besides its own error
_DAMAGE = (
    mutagen.MutagenError, OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, struct.error,
    ArithmeticError, AssertionError, RecursionError, MemoryError,
)  # fmt: skip
_OGG_KINDS = {
    b"\x01vorbis": OggVorbis, b"OpusHead": OggOpus, b"\x7fFLAC": OggFLAC, b"Speex   ": OggSpeex,
    b"\x80theora": OggTheora,
}  # fmt: skip


def read_tags(file: BinaryIO) -> Inside:
    """Read the tags of an open file; tags that are damaged, or take too long, cost no more than themselves."""
    notes: list[str] = []
    kinds: list[TagTexts] = []
    try:
        with cpu_limit(CPU_LIMIT_S):
            _gather(file, kinds, notes)
            tags = merged(kinds, notes)
    except _DAMAGE as error:  # a TimeoutError is an OSError
        notes.append(f"the tags cannot be read: {error or type(error).__name__}")
        tags = merged(kinds, notes)
    return Inside(tags, tuple(note[:_MAX_NOTE_CHARS] for note in dict.fromkeys(notes))[:MAX_NOTES])


def _gather(file: BinaryIO, kinds: list[TagTexts], notes: list[str]) -> None:
    """Put together what each kind of tags says, the one that is believed most first."""
    size = file.seek(0, os.SEEK_END)
    at, of_id3 = _read_id3s(file, size, kinds, notes)
    file.seek(at)
    kind = kind_of(file)
    v1 = read_id3v1(file, size)
    ape = read_ape(file, min(at, size), size - (V1_BYTES if v1 else 0), notes)
    if ape:
        kinds.insert(0 if kind in {"wv", "ape", "mpc", "ofr", "tak"} else len(kinds), ape)
    kinds += [v1] if v1 else []
    if kind in _READERS:
        kinds[:0] = _READERS[kind](file, at, size, notes)
    elif kind is None and not of_id3 and not kinds:
        notes.append("the file is empty" if size == 0 else "no known kind of audio")


def _read_id3s(file: BinaryIO, size: int, kinds: list[TagTexts], notes: list[str]) -> tuple[int, int]:
    """Read the ID3 tags that begin the file; say where the last of them ends, and how many there are."""
    at = 0
    for n in range(_MAX_ID3_TAGS):
        file.seek(at)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            return at, n
        found, at = read_id3v2(file, at, size, notes)
        kinds.append(found)
    return at, _MAX_ID3_TAGS


def _read_ogg(file: BinaryIO, at: int, size: int, notes: list[str]) -> list[TagTexts]:
    file.seek(at)
    head = file.read(128)
    for mark, kind in _OGG_KINDS.items():
        if mark in head:
            return [_commented(kind, file, notes)]
    return []


def _read_dsf(file: BinaryIO, at: int, size: int, notes: list[str]) -> list[TagTexts]:
    """Read the ID3 tag that the header of a DSF file points to."""
    file.seek(at + 20)
    start = at + int.from_bytes(file.read(8), "little")
    if not at < start < size - 10:
        return []
    file.seek(start)
    return [read_id3v2(file, start, size, notes)[0]] if file.read(3) == b"ID3" else []


def _commented(kind: Callable[[BinaryIO], Any], file: BinaryIO, notes: list[str]) -> TagTexts:
    """Read what mutagen reads: comments by name."""
    found: TagTexts = {}
    try:
        file.seek(0)
        for key, value in list.__iter__(kind(file).tags or []):  # pairs, both of mutagen's kinds are lists of them
            if key.lower() in WANTED:
                put(found, key, [str(value)])
    except _DAMAGE as error:
        if isinstance(error, TimeoutError):
            raise
        notes.append(f"the tags cannot be read: {error or type(error).__name__}")
    return found


_READERS: dict[str, Callable[[BinaryIO, int, int, list[str]], list[TagTexts]]] = {
    "flac": lambda file, at, size, notes: [_commented(FLAC, file, notes)],
    "ogg": _read_ogg,
    "dsf": _read_dsf,
    "asf": lambda file, at, size, notes: [_commented(ASF, file, notes)],
    "wav": lambda file, at, size, notes: list(read_wav(file, at, size, notes)),
    "aiff": lambda file, at, size, notes: list(read_aiff(file, at, size, notes)),
    "caf": lambda file, at, size, notes: [read_caf(file, at, size)],
    "mp4": lambda file, at, size, notes: [read_mp4(file, at, size)],
    "matroska": lambda file, at, size, notes: [read_matroska(file, at, size)],
}
