"""Small sounds for tests, and how to write them in any format."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from recsys.audio.decoding.containers import look

RATE = 44_100  # Hz, unlike the 16 kHz that the package works at
Stereo = NDArray[np.float32]  # (n, 2)


def melody(seconds: float, seed: int = 0) -> Stereo:
    """Notes that change every quarter of a second, louder left than right: no two stretches are alike."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    notes = rng.uniform(150, 3000, size=int(seconds * 4) + 1)[(t * 4).astype(int)]
    left = 0.4 * np.sin(2 * np.pi * np.cumsum(notes) / RATE) * (0.3 + 0.7 * np.exp(-((4 * t) % 1) * 3))
    return np.stack([left, 0.5 * left + 0.01 * rng.standard_normal(len(t))], axis=1).astype(np.float32)


def tone(hz: float, seconds: float, rate: int = RATE) -> NDArray[np.float32]:
    """One channel of a sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: NDArray[np.float32], format_: str, subtype: str | None = None, rate: int = RATE) -> bytes:
    """Encode by libsndfile, a second at a time: its Vorbis encoder overruns the stack on long blocks."""
    out = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(out, "w", rate, channels, format=format_, subtype=subtype) as file:
        for start in range(0, len(samples), rate):
            file.write(samples[start : start + rate])
    return out.getvalue()


def encoded_by_ffmpeg(samples: Stereo, container: str, codec: str) -> bytes:
    """Encode stereo by FFmpeg."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=RATE, bit_rate=192_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def without_info_frame(mp3: bytes) -> bytes:
    """Drop what stands before the first frame of music: tags, and the frame that declares the length."""
    info = max(mp3.find(b"Info"), mp3.find(b"Xing"))
    return mp3[mp3.find(b"\xff\xfb", info) :]


@contextmanager
def counted_calls(owner: object, name: str) -> Iterator[list[object]]:
    """Count the calls of a method inside a ``with`` block; the method still runs."""
    calls: list[object] = []
    original = getattr(owner, name)

    def counting(self: object, argument: object) -> object:
        calls.append(argument)
        return original(self, argument)

    setattr(owner, name, counting)
    try:
        yield calls
    finally:
        setattr(owner, name, original)


def write_all(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """Write files into a folder and list their paths."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def packed(
    samples: Stereo | NDArray[np.float32],
    container: str,
    codec: str,
    rate: int = RATE,
    bit_rate: int = 128_000,
    seekable: bool = True,
    **options: str,
) -> bytes:
    """Encode one or two channels by FFmpeg, into a file or into a pipe, where no header can be written afterwards."""
    import av

    out = io.BytesIO()
    layout = "mono" if samples.ndim == 1 else "stereo"
    target = out if seekable else Pipe(out)
    with av.open(target, "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate, bit_rate=bit_rate, layout=layout)
        planes = np.ascontiguousarray(samples.T if samples.ndim == 2 else samples[None])
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


class Pipe:
    """Takes bytes one after the other, as a pipe does."""

    def __init__(self, out: io.BytesIO) -> None:
        self._out = out

    def write(self, content: bytes) -> int:
        """Take some bytes."""
        return self._out.write(content)


def bare_mp3(mp3: bytes) -> bytes:
    """Drop the tag and the header frame of an mp3: its frames alone, of whatever rate and channels they are."""
    stream = look(io.BytesIO(mp3)).stream
    assert stream is not None
    return mp3[stream.start :]


def with_cover(mp3: bytes, n_bytes: int = 1_000_000) -> bytes:
    """Put an ID3 tag before an mp3 that holds a picture of noise."""
    picture = b"\0image/jpeg\0\3\0" + np.random.default_rng(1).bytes(n_bytes)
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + frame + mp3


def of_unknown_length(flac: bytes) -> bytes:
    """Make a FLAC say, as one that went through a pipe does, that it does not know its samples."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


def musepack(n_packets: int, seed: int = 0) -> bytes:
    """Write Musepack SV8 of noise, one frame of 1,152 samples a packet: any bits decode to something."""
    rng = np.random.default_rng(seed)

    def number(n: int) -> bytes:
        return (number(n >> 7)[:-1] + bytes([n >> 7 & 0x7F | 0x80]) if n > 0x7F else b"") + bytes([n & 0x7F])

    def packet(key: bytes, content: bytes) -> bytes:
        return key + number(len(content) + 3) + content

    header = b"\1\2\3\4\x08" + number(n_packets * 1152) + b"\0" + bytes([27, 0x10])
    sound = b"".join(packet(b"AP", rng.bytes(60)) for _ in range(n_packets))
    return b"MPCK" + packet(b"SH", header) + packet(b"RG", b"\1" + bytes(8)) + sound + packet(b"SE", b"")
