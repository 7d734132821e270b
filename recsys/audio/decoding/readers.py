"""Open recordings: what decodes a file, block by block, from anywhere in it.

    an open file, Look  ->  open_reader  ->  Reader: format, sample rate, length, blocks of mono samples
                        ->  open_other   ->  a Reader of the other library, for what the first one did not get

libsndfile reads what it can (wav, flac, ogg, opus, mp3, aiff: by content, never by suffix), FFmpeg through PyAV the
rest (m4a, wma, ...). Frames without a container are counted, and only the stretch that is wanted is cut out for the
decoder; a FLAC of unknown length is given its length; a chain of Ogg recordings is read one after the other.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np
import soundfile

from recsys.audio.decoding.containers import Look
from recsys.audio.decoding.file_view import view
from recsys.audio.decoding.flac import counted_samples
from recsys.audio.decoding.ogg import links
from recsys.audio.decoding.streams import MARKED_FRAMES, Frames, count, header_frame
from recsys.errors import DataError
from recsys.types import Float32

if TYPE_CHECKING:
    import av

_BLOCK_SAMPLES = 2**22  # of all channels, what one call decodes at most; the seek behind each costs an mp3 0.07 ms
_SMALL_BLOCK_FRAMES = 16_384  # what is lost where libsndfile meets an error
_NO_COUNT = 2**62  # libsndfile says so many frames, or more, where it does not know
_AV_RUN_UP_S = 0.2  # decoded and thrown away after a seek: lossy codecs need the frames before
_RUN_UP_FRAMES = 16  # the same of frames without a container: an mp3's may lean on the nine before

# FFmpeg would follow play lists and URLs inside a file: only containers of sound, only the bytes given.
_AV_OPTIONS = {
    "format_whitelist": "mov,asf,aac,matroska,webm,mp3,ogg,wav,flac,aiff,caf,w64,ape,wv,tta,tak,mpc,mpc8,"
    "ac3,eac3,amr,au,dsf,dts,voc,avi,flv,mpeg,mpegts",
    "protocol_whitelist": "none",
}
_FORMAT_OF_NAME = {
    "wavex": "wav",
    "rf64": "wav",
    "w64": "wav",
    "mpeg": "mp3",
    "mov,mp4,m4a,3gp,3g2,mj2": "mp4",
}


class Reader(Protocol):
    """An open recording."""

    format: str
    sample_rate: int
    n_frames: int | None  # declared or counted length; None when unknown

    def blocks(self, start: int, n_frames: int | None = None) -> Iterator[Float32]:
        """Yield mono blocks (n,) from frame ``start`` to where the data, or what decodes of it, ends.

        Where ``n_frames`` is given, no more than about that are wanted.
        """


def open_reader(file: BinaryIO, seen: Look, stack: ExitStack) -> Reader:
    """Open a recording with what reads it best.

    Raises:
        DataError: no decoder knows it.
    """
    if seen.stream is not None and (seen.cut or not seen.declares):
        frames = count(file, seen.stream)
        if frames is not None and frames.n:
            return FramedReader(file, stack, frames, in_wav=seen.in_wav)
    if seen.is_chain and (parts := links(file, seen.start, seen.size)):
        return ChainReader(file, stack, parts)
    if seen.flac is not None and not seen.flac.declared:
        n_samples = counted_samples(file, seen.start, seen.flac)
        if n_samples is None:
            return AvReader(file, stack, declares=False)
        front = seen.flac.declaring(n_samples)
        return SndfileReader(view(file, seen.start + len(front), seen.size, front), stack)
    return _by_either(file, stack, seen.declares)


def open_other(file: BinaryIO, seen: Look, first: Reader, stack: ExitStack) -> Reader | None:
    """Open a recording with the library that did not read it; None where that one does not know it."""
    own = view(file)  # the first one goes on reading where it is
    try:
        if isinstance(first, FramedReader):
            return None if first.by_ffmpeg else FramedReader(own, stack, first.frames, seen.in_wav, by_ffmpeg=True)
        if isinstance(first, SndfileReader):
            return AvReader(own, stack, n_frames=first.n_frames)
        return SndfileReader(own, stack) if isinstance(first, AvReader) else None
    except (DataError, soundfile.LibsndfileError):
        return None


def _by_either(file: BinaryIO, stack: ExitStack, declares: bool = True) -> Reader:
    try:
        return SndfileReader(file, stack)
    except soundfile.LibsndfileError:
        return AvReader(file, stack, declares)


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


class SndfileReader:
    """A recording that libsndfile reads."""

    def __init__(self, file: BinaryIO, stack: ExitStack) -> None:
        self._file, self._stack = file, stack
        self._sound = self._opened()
        name = self._sound.format.lower()
        self.format = _FORMAT_OF_NAME.get(name, name)
        self.sample_rate: int = self._sound.samplerate
        self.n_frames: int | None = self._sound.frames if self._sound.frames < _NO_COUNT else None

    def _opened(self) -> soundfile.SoundFile:
        self._file.seek(0)
        return self._stack.enter_context(soundfile.SoundFile(self._file))

    def blocks(self, start: int, n_frames: int | None = None) -> Iterator[Float32]:
        """Yield mono blocks; what cannot be read is tried once more in small ones."""
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


class AvReader:
    """A recording that FFmpeg reads.

    Args:
        file: open for reading and seekable.
        stack: closes what is opened.
        declares: whether the file says how long it is; if not, the packets are asked.
        n_frames: its length where that is known already.

    Raises:
        DataError: FFmpeg does not know it, or finds no sound in it.
    """

    def __init__(self, file: BinaryIO, stack: ExitStack, declares: bool = True, n_frames: int | None = None) -> None:
        import av  # a sixth of a second, and few files need it

        self._av, self._file, self._stack = av, file, stack
        self._av_error = av.error.FFmpegError
        self._open()
        name = self._container.format.name
        self.format = _FORMAT_OF_NAME.get(name, name.split(",")[0])
        self.sample_rate: int = self._stream.rate or 0
        self._first_s = float((self._stream.start_time or 0) * (self._stream.time_base or Fraction(0)))
        self.n_reached = 0  # where what was decoded last ends, in frames of the recording
        self.n_frames = n_frames or (self._declared_frames() if declares else self._counted_frames())

    def _open(self) -> None:
        self._file.seek(0)
        try:
            container = self._av.open(self._file, "r", options=_AV_OPTIONS, metadata_errors="replace")
        except self._av_error:
            raise DataError("no decoder knows this content as audio") from None
        self._container = self._stack.enter_context(container)
        if not container.streams.audio:
            raise DataError("the file has no audio stream")
        self._stream = container.streams.audio[0]

    def _declared_frames(self) -> int | None:
        stream = self._stream
        if stream.duration and stream.time_base is not None:
            return round(stream.duration * stream.time_base * self.sample_rate)
        if self._container.duration:
            return round(self._container.duration / self._av.time_base * self.sample_rate)
        return None

    def _counted_frames(self) -> int | None:
        """Find where the last packet ends; None where packets do not say where they belong."""
        end_s = 0.0
        try:
            for packet in self._container.demux(self._stream):
                if packet.pts is not None and packet.time_base is not None:
                    end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        except self._av_error:
            pass  # damaged from here on
        return round((end_s - self._first_s) * self.sample_rate) or None

    def blocks(self, start: int, n_frames: int | None = None) -> Iterator[Float32]:
        """Yield mono blocks; frames say where they belong, so a seek that lands early is made good."""
        start_s = self._first_s + start / self.sample_rate
        flatten = self._av.AudioResampler(format="fltp")  # planes of floats; rate and channels stay
        skip: int | None = None
        self._seek(start_s - _AV_RUN_UP_S)
        for frame in self._frames():
            if skip is None:
                skip = 0 if frame.time is None else round((start_s - frame.time) * self.sample_rate)
            if frame.time is not None:
                self.n_reached = round((frame.time - self._first_s) * self.sample_rate) + frame.samples
            for planes in flatten.resample(frame):
                block = _mono(np.asarray(planes.to_ndarray(), np.float32))[max(skip, 0) :]
                skip = max(0, skip - planes.samples)
                if len(block):
                    yield block

    def _seek(self, seconds: float) -> None:
        try:
            self._container.seek(max(0, int(seconds * self._av.time_base)), any_frame=False)
        except self._av_error:  # some formats cannot, Musepack not even to the start: then all before is decoded
            self._open()

    def _frames(self) -> Iterator["av.AudioFrame"]:
        """Decode to where the data ends; a packet that does not decode costs what was in it."""
        try:
            for packet in self._container.demux(self._stream):
                try:
                    yield from packet.decode()
                except self._av_error:
                    continue
        except self._av_error:
            return  # no more packets are found


class FramedReader:
    """Frames without a container, of which the stretch that is wanted is cut out for a decoder.

    Args:
        file: open for reading and seekable.
        stack: closes what is opened.
        frames: where they are.
        in_wav: they lie in a WAV, whose name tells so.
        by_ffmpeg: FFmpeg is to decode mp3 too.
    """

    def __init__(
        self, file: BinaryIO, stack: ExitStack, frames: Frames, in_wav: bool = False, by_ffmpeg: bool = False
    ) -> None:
        self._file, self._stack, self.frames = file, stack, frames
        self.by_ffmpeg = by_ffmpeg or frames.stream.kind != "mpeg" or frames.stream.layer != 3
        whole, _ = self._window(0)
        self.format = "wav" if in_wav else whole.format
        self.sample_rate = whole.sample_rate
        # of AAC the headers may give half of the rate that is heard
        self._samples = frames.stream.samples * self.sample_rate / frames.stream.sample_rate
        self.n_frames: int | None = round(frames.n * self._samples)

    def blocks(self, start: int, n_frames: int | None = None) -> Iterator[Float32]:
        """Yield mono blocks of a window that begins some frames before ``start``, which are decoded and dropped."""
        mark = max(0, int(start / self._samples) - _RUN_UP_FRAMES) // MARKED_FRAMES
        mark = min(mark, len(self.frames.marks) - 1)
        reader, n_before = self._window(mark)
        skip = n_before + start - round(mark * MARKED_FRAMES * self._samples)
        for block in reader.blocks(0, None if n_frames is None else skip + n_frames):
            if len(block) > skip:
                yield block[skip:]
            skip = max(0, skip - len(block))

    def _window(self, mark: int) -> tuple[Reader, int]:
        """Open what begins at a mark; with it comes how many samples are heard before that."""
        stream, start = self.frames.stream, self.frames.marks[mark]
        n_left = self.frames.n - mark * MARKED_FRAMES
        if self.by_ffmpeg:
            return AvReader(view(self._file, start, stream.end), self._stack, n_frames=n_left * stream.samples), 0
        front, n_before = header_frame(stream, n_left)
        return SndfileReader(view(self._file, start, stream.end, front), self._stack), n_before


class ChainReader:
    """Ogg recordings behind each other, as one; those of another sample rate than the first are passed over."""

    def __init__(self, file: BinaryIO, stack: ExitStack, parts: list[tuple[int, int]]) -> None:
        readers = [_by_either(view(file, start, end), stack) for start, end in parts]
        self.format, self.sample_rate = readers[0].format, readers[0].sample_rate
        self._readers = [reader for reader in readers if reader.sample_rate == self.sample_rate]
        lengths = [reader.n_frames for reader in self._readers]
        self.n_frames: int | None = None if None in lengths else sum(length or 0 for length in lengths)

    def blocks(self, start: int, n_frames: int | None = None) -> Iterator[Float32]:
        """Yield mono blocks across the recordings."""
        left = n_frames
        for reader in self._readers:
            length = reader.n_frames
            if length is not None and start >= length:
                start -= length
                continue
            for block in reader.blocks(start, left):
                yield block
                left = None if left is None else left - len(block)
                if left is not None and left <= 0:
                    return
            start = 0
