"""Tags made byte by byte, as programs that no library of ours imitates write them, and what surrounds them."""

import struct

MP3_FRAME = b"\xff\xfb\x90\x64" + bytes(413)  # silence: MPEG 1, layer III, 128 kbit/s, 44.1 kHz
MP3 = MP3_FRAME * 3


def syncsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def frame(name: str, body: bytes, version: int = 3, flags: int = 0) -> bytes:
    """An ID3 frame; ``body`` begins with the byte of the encoding."""
    if version == 2:
        return name.encode() + len(body).to_bytes(3, "big") + body
    size = syncsafe(len(body)) if version == 4 else len(body).to_bytes(4, "big")
    return name.encode() + size + flags.to_bytes(2, "big") + body


def text_frame(name: str, text: str, version: int = 3, encoding: int = 3) -> bytes:
    codec = ("latin-1", "utf-16", "utf-16-be", "utf-8")[encoding]
    return frame(name, bytes([encoding]) + text.encode(codec), version)


def id3(*frames: bytes, version: int = 3, flags: int = 0, size: int | None = None) -> bytes:
    body = b"".join(frames)
    return b"ID3" + bytes([version, 0, flags]) + syncsafe(len(body) if size is None else size) + body


def id3v1(title: bytes = b"", artist: bytes = b"", album: bytes = b"", year: bytes = b"", genre: int = 255) -> bytes:
    return b"TAG" + struct.pack("30s30s30s4s30sB", title, artist, album, year, b"", genre)


def ape(items: dict[str, bytes], count: int | None = None) -> bytes:
    body = b"".join(struct.pack("<II", len(v), 0) + key.encode() + b"\0" + v for key, v in items.items())
    footer = struct.pack("<8sIIII8x", b"APETAGEX", 2000, len(body) + 32, len(items) if count is None else count, 0)
    return body + footer


def chunk(name: bytes, body: bytes, order: str = "<") -> bytes:
    return name + struct.pack(order + "I", len(body)) + body + bytes(len(body) % 2)


def wav(*chunks: bytes, mark: bytes = b"RIFF") -> bytes:
    order = ">" if mark == b"RIFX" else "<"
    form = chunk(b"fmt ", struct.pack(order + "HHIIHH", 1, 1, 8000, 16000, 2, 16), order)
    body = b"WAVE" + form + chunk(b"data", bytes(3201), order) + b"".join(chunks)
    return chunk(mark, body, order)


def info(items: dict[bytes, bytes], order: str = "<") -> bytes:
    return chunk(b"LIST", b"INFO" + b"".join(chunk(key, text + b"\0", order) for key, text in items.items()), order)


def aiff(*chunks: bytes) -> bytes:
    body = b"AIFF" + chunk(b"COMM", bytes(18), ">") + chunk(b"SSND", bytes(801), ">") + b"".join(chunks)
    return chunk(b"FORM", body, ">")


def caf(items: dict[str, str]) -> bytes:
    texts = b"".join(f"{key}\0{text}\0".encode() for key, text in items.items())
    body = struct.pack(">I", len(items)) + texts
    return b"caff\0\1\0\0" + b"data" + struct.pack(">q", 5) + bytes(5) + b"info" + struct.pack(">q", len(body)) + body


def atom(name: bytes, *inner: bytes) -> bytes:
    body = b"".join(inner)
    return struct.pack(">I", len(body) + 8) + name + body


def mp4(items: dict[bytes, bytes]) -> bytes:
    values = (atom(key, atom(b"data", b"\0\0\0\1\0\0\0\0" + text)) for key, text in items.items())
    meta = atom(b"meta", bytes(4), atom(b"hdlr", bytes(25)), atom(b"ilst", *values))
    return atom(b"ftyp", b"M4A \0\0\0\0") + atom(b"mdat", bytes(99)) + atom(b"moov", atom(b"udta", meta))


def element(number: int, *inner: bytes) -> bytes:
    body = b"".join(inner)
    return number.to_bytes((number.bit_length() + 7) // 8, "big") + (1 << 28 | len(body)).to_bytes(4, "big") + body


def simple_tag(name: str, text: str) -> bytes:
    return element(0x67C8, element(0x45A3, name.encode()), element(0x4487, text.encode()))


def matroska(title: str, *tags: bytes) -> bytes:
    head = element(0x1A45DFA3, element(0x4282, b"matroska"))
    about = element(0x1549A966, element(0x7BA9, title.encode()))
    cluster = element(0x1F43B675, bytes(99))
    return head + element(0x18538067, about, cluster, cluster, element(0x1254C367, *tags))


def vorbis_comment(*comments: bytes) -> bytes:
    texts = b"".join(struct.pack("<I", len(text)) + text for text in comments)
    return struct.pack("<I", 0) + struct.pack("<I", len(comments)) + texts


def flac(*comments: bytes) -> bytes:
    body = vorbis_comment(*comments)
    stream = struct.pack(">HH", 4096, 4096) + bytes(6) + bytes.fromhex("0ac440f0000000ff") + bytes(16)
    blocks = b"\0" + len(stream).to_bytes(3, "big") + stream + b"\x84" + len(body).to_bytes(3, "big") + body
    return b"fLaC" + blocks + b"\xff\xf8" + bytes(99)
