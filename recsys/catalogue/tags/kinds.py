"""What kind of audio begins here? Told by its first bytes, never by a name.

an open file  ->  kind_of  ->  "flac", "wav", "mp3", ..., or None
"""

import re
from typing import BinaryIO

HEAD_BYTES = 64
_SEARCH_BYTES = 2**16  # in which the first frame of a stream without a header is looked for
_MARKS = {
    b"fLaC": "flac", b"OggS": "ogg", b"caff": "caf", b"\x1aE\xdf\xa3": "matroska", b"wvpk": "wv", b"MAC ": "ape",
    b"MPCK": "mpc", b"MP+": "mpc", b"TTA1": "tta", b"TTA2": "tta", b"DSD ": "dsf", b".snd": "au", b"tBaK": "tak",
    b"OFR ": "ofr", b"\x0bw": "ac3", b"riff\x2e\x91\xcf\x11": "w64", b"#!AMR": "amr", b"\x7f\xfe\x80\x01": "dts",
    b"Creative Voice File": "voc",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c": "asf",
}  # fmt: skip
_FIRST_ATOMS = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"})  # the first alone in new files
# an MPEG frame's header of any layer, whose version, bit rate and sample rate are possible; or one of ADTS
_MPEG_FRAME = re.compile(
    rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]"
    + b"[" + b"".join(re.escape(bytes([byte])) for byte in range(0xF0) if byte & 0x0C != 0x0C) + b"]"
)  # fmt: skip
_ADTS_FRAME = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]", re.DOTALL)


def kind_of(file: BinaryIO) -> str | None:
    """Tell the kind from where the file is positioned; None where nothing is known."""
    at = file.tell()
    head = file.read(HEAD_BYTES)
    if marked := marked_kind(head):
        return marked
    if _ADTS_FRAME.match(head):
        return "aac"
    data = (head + file.read(_SEARCH_BYTES)).lstrip(b"\0") if len(head) == HEAD_BYTES else head
    file.seek(at)
    return "mp3" if _MPEG_FRAME.search(data) else None


def marked_kind(head: bytes) -> str | None:
    """Tell the kind from a file's first bytes, where they are a mark that nothing else begins with by chance."""
    if head[:4] in {b"RIFF", b"RIFX", b"RF64"} and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in {b"AIFF", b"AIFC"}:
        return "aiff"
    if head[4:8] in _FIRST_ATOMS:
        return "mp4"
    return next((kind for mark, kind in _MARKS.items() if head.startswith(mark)), None)
