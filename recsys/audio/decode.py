"""Audio files in, clips out: 16 kHz mono of one stretch, taken from the middle, or of several, spread evenly.

    a path or an open file  ->  decode  ->  Decoded: Clip (n_samples,), format, what was wrong with it

libsndfile reads what it can (wav, flac, ogg, opus, mp3, aiff: by content, never by suffix), FFmpeg through
PyAV the rest (m4a, wma, ...). Both seek to the stretch, downmix by the mean of the channels and resample with
soxr, so one recording gives one clip whatever it is wrapped in. A damaged file may crash a decoder or keep it
busy for ever: ``recsys.audio.workers`` runs this where that does no harm. Spectrograms are not made here.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import soundfile
import soxr

from recsys.audio.containers import missing_tail
from recsys.audio.settings import DecodeSettings
from recsys.errors import DataError
from recsys.types import Clip, Float32

_BLOCK_SAMPLES = 2**22  # of all channels, what one call decodes at most; the seek behind each costs an mp3 0.07 ms
_SMALL_BLOCK_FRAMES = 16_384  # what is lost where libsndfile meets an error
_SHORT_S = 0.1  # declared lengths are this inexact in sound files (encoder delay)
_SILENT_PEAK = 1e-4  # -80 dB of full scale
_RATES_HZ = (1_000, 1_000_000)  # outside, a header is damaged; soxr would be asked for gigabytes
_AV_RUN_UP_S = 0.2  # decoded and thrown away after a seek: lossy codecs need the frames before

# FFmpeg would follow play lists and URLs inside a file: only containers of sound, only the bytes given.
_AV_OPTIONS = {
    "format_whitelist": "mov,asf,aac,matroska,webm,mp3,ogg,wav,flac,aiff,caf,w64,ape,wv,tta,tak,mpc,mpc8,"
    "ac3,eac3,amr,au,dsf,dts,voc,avi,flv,mpeg,mpegts",
    "protocol_whitelist": "none",
}
_FORMAT_OF_SUFFIX = {
    ".mp3": "mp3", ".wav": "wav", ".flac": "flac", ".ogg": "ogg", ".oga": "ogg", ".opus": "ogg",
    ".m4a": "mp4", ".m4b": "mp4", ".mp4": "mp4", ".aac": "aac", ".wma": "asf", ".aif": "aiff",
    ".aiff": "aiff",
}  # fmt: skip
_FORMAT_OF_NAME = {
    "wavex": "wav",
    "rf64": "wav",
    "w64": "wav",
    "mpeg": "mp3",
    "mov,mp4,m4a,3gp,3g2,mj2": "mp4",
}


class AudioProblem(NamedTuple):
    """Something wrong with audio that is used all the same: a kind (``truncated-audio``) and one clause."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A clip, the container it came in ('mp3', 'mp4', ...) and what was wrong with it."""

    clip: Clip
    format: str
    problems: tuple[AudioProblem, ...] = ()


class _Reader(Protocol):
    """An open recording."""

    format: str
    sample_rate: int
    n_frames: int | None  # declared length; None when unknown

    def blocks(self, start: int, n_frames: int | None = None) -> Iterator[Float32]:
        """Yield mono blocks (n,) from frame ``start`` to where the data, or what decodes of it, ends.

        Where ``n_frames`` is given, no more than about that are wanted.
        """


def decode(source: Path | BinaryIO, settings: DecodeSettings) -> Decoded:
    """Decode the middle stretch of a recording to mono.

    Args:
        source: a file, or its bytes as a seekable binary file, whose name is then not known and not judged.
        settings: which stretch, at which sample rate.

    Raises:
        DataError: nothing usable decodes; the message is one line without the file's name.
        OSError: the file cannot be read.
    """
    if not isinstance(source, Path):
        return _decode(source, settings)
    with source.open("rb") as file:
        decoded = _decode(file, settings)
    problems = decoded.problems + mislabelled(source, decoded.format)
    return Decoded(decoded.clip, decoded.format, problems)


def mislabelled(path: Path, format_: str) -> tuple[AudioProblem, ...]:
    """Report a suffix that promises another container than the one found; an unknown one promises nothing."""
    promised = _FORMAT_OF_SUFFIX.get(path.suffix.lower(), format_)
    if promised == format_:
        return ()
    return (AudioProblem("mislabelled-audio", f"the name says {promised}, the content is {format_}"),)


def _decode(file: BinaryIO, settings: DecodeSettings) -> Decoded:
    if file.seek(0, os.SEEK_END) == 0:
        raise DataError("the file is empty")
    cut = missing_tail(file)
    with ExitStack() as stack:
        reader = _open(file, stack)
        if not _RATES_HZ[0] <= reader.sample_rate <= _RATES_HZ[1]:
            raise DataError(f"the header declares a sample rate of {reader.sample_rate} Hz, damaged")
        stretch, n_frames, problems = _middle(reader, settings, cut)
    n_bad = int(np.count_nonzero(~np.isfinite(stretch)))
    if n_bad:
        stretch = np.nan_to_num(stretch, nan=0.0, posinf=0.0, neginf=0.0)
        problems += (AudioProblem("damaged-audio", f"{n_bad:,} samples are not numbers, read as silence"),)
    duration_s = n_frames / reader.sample_rate
    if len(stretch) < settings.min_s * reader.sample_rate:
        reason = f" ({problems[0].reason})" if problems else ""
        raise DataError(f"{len(stretch) / reader.sample_rate:.2f} s decode, {settings.min_s:g} s are needed{reason}")
    samples = soxr.resample(stretch, reader.sample_rate, settings.sample_rate)
    samples = np.ascontiguousarray(samples[: round(settings.clip_s * settings.sample_rate)], np.float32)
    np.clip(samples, -1.0, 1.0, out=samples)
    if max(float(samples.max()), -float(samples.min())) < _SILENT_PEAK:
        problems += (AudioProblem("silent-audio", "the stretch that is used is silent"),)
    return Decoded(Clip(samples, settings.sample_rate, duration_s), reader.format, problems)


def _open(file: BinaryIO, stack: ExitStack) -> _Reader:
    try:
        return _SndfileReader(file, stack)
    except soundfile.LibsndfileError:
        file.seek(0)
        return _AvReader(file, stack)


def _middle(
    reader: _Reader, settings: DecodeSettings, cut: str | None
) -> tuple[Float32, int, tuple[AudioProblem, ...]]:
    """Take the middle stretch; where less decodes than was declared, count what does and take its middle."""
    n_clip = round(settings.clip_s * reader.sample_rate)
    n_short = round(_SHORT_S * reader.sample_rate)
    declared = reader.n_frames
    if declared is not None:
        stretch = _spread(reader, declared, n_clip, settings.n_stretches)
        whole = len(stretch) >= min(n_clip, declared) - n_short
        if reader.format == "flac" and declared:
            whole = whole and len(_take(reader, declared - 1, 1)) == 1
        if whole and cut is None:
            return stretch, declared, ()
    actual = sum(len(block) for block in reader.blocks(0))
    stretch = _spread(reader, actual, n_clip, settings.n_stretches)
    if cut is None and declared is None:
        return stretch, actual, ()
    lengths = f"{actual / reader.sample_rate:.1f} s decode"
    if declared is not None and declared > actual + n_short:
        lengths = f"{declared / reader.sample_rate:.1f} s are declared, {lengths}"
    reason = f"{cut}; {lengths}" if cut else lengths
    return stretch, actual, (AudioProblem("truncated-audio", reason),)


def _spread(reader: _Reader, n_frames: int, n_clip: int, n_stretches: int) -> Float32:
    """Take ``n_clip`` frames out of ``n_frames``: each stretch from the middle of its part of the recording."""
    if n_frames <= n_clip or n_stretches == 1:
        return _take(reader, max(0, (n_frames - n_clip) // 2), n_clip)
    part, wanted = n_frames / n_stretches, n_clip // n_stretches
    stretches = [_take(reader, round(n * part + (part - wanted) / 2), wanted) for n in range(n_stretches)]
    return np.concatenate(stretches)


def _take(reader: _Reader, start: int, n_frames: int) -> Float32:
    """Take up to ``n_frames`` from ``start``: fewer where the recording ends."""
    parts: list[Float32] = []
    missing = n_frames
    for block in reader.blocks(start, n_frames):
        parts.append(block[:missing])
        missing -= len(parts[-1])
        if missing <= 0:
            break
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _mono(channels: Float32) -> Float32:
    """Downmix channels (c, n) by their mean; numpy's own mean over the last axis is ten times slower on two."""
    total: Float32 = channels[0]
    if len(channels) == 1:
        return total
    total = total + channels[1]
    for channel in channels[2:]:
        total += channel
    total /= len(channels)
    return total


class _SndfileReader:
    def __init__(self, file: BinaryIO, stack: ExitStack) -> None:
        self._file, self._stack = file, stack
        self._sound = self._opened()
        name = self._sound.format.lower()
        self.format = _FORMAT_OF_NAME.get(name, name)
        self.sample_rate: int = self._sound.samplerate
        self.n_frames: int | None = self._sound.frames

    def _opened(self) -> soundfile.SoundFile:
        self._file.seek(0)
        return self._stack.enter_context(soundfile.SoundFile(self._file))

    def blocks(self, start: int, n_frames: int | None = None) -> Iterator[Float32]:
        at, end = start, None if n_frames is None else start + n_frames
        for most in (_BLOCK_SAMPLES // self._sound.channels, _SMALL_BLOCK_FRAMES):
            try:
                self._sound.seek(at)
                while at != end:
                    wanted = most if end is None else min(most, end - at)
                    block = self._sound.read(wanted, dtype="float32", always_2d=True)
                    yield _mono(block.T)
                    at += len(block)
                    if len(block) < wanted:
                        return
                return
            except soundfile.LibsndfileError:
                # damaged in this block: once more in small ones, and if that is in vain the caller sees less than was
                # declared; after an error this handle may not read again, not even elsewhere
                self._sound = self._opened()


class _AvReader:
    def __init__(self, file: BinaryIO, stack: ExitStack) -> None:
        import av  # a sixth of a second, and few files need it

        self._av = av
        self._av_error = av.error.FFmpegError
        try:
            container = av.open(file, "r", options=_AV_OPTIONS, metadata_errors="replace")
        except self._av_error:
            raise DataError("no decoder knows this content as audio") from None
        self._container = stack.enter_context(container)
        if not container.streams.audio:
            raise DataError("the file has no audio stream")
        self._stream = container.streams.audio[0]
        self.format = _FORMAT_OF_NAME.get(container.format.name, container.format.name.split(",")[0])
        self.sample_rate: int = self._stream.rate or 0
        self._first_s = float((self._stream.start_time or 0) * (self._stream.time_base or Fraction(0)))
        self.n_frames = self._declared_frames()

    def _declared_frames(self) -> int | None:
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return round(stream.duration * stream.time_base * self.sample_rate)
        if self._container.duration is not None:
            return round(self._container.duration / self._av.time_base * self.sample_rate)
        return None

    def blocks(self, start: int, n_frames: int | None = None) -> Iterator[Float32]:
        """Yield mono blocks; frames say where they belong, so a seek that lands early is made good."""
        start_s = self._first_s + start / self.sample_rate
        flatten = self._av.AudioResampler(format="fltp")  # planes of floats; rate and channels stay
        skip: int | None = None
        try:
            self._container.seek(max(0, int((start_s - _AV_RUN_UP_S) * self._av.time_base)), any_frame=False)
            for frame in self._container.decode(self._stream):
                if skip is None:
                    skip = 0 if frame.time is None else round((start_s - frame.time) * self.sample_rate)
                for planes in flatten.resample(frame):
                    block = _mono(np.asarray(planes.to_ndarray(), np.float32))[max(skip, 0) :]
                    skip = max(0, skip - planes.samples)
                    if len(block):
                        yield block
        except self._av_error:
            return  # damaged from here on, as above
