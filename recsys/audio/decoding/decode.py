"""Audio files in, clips out: 16 kHz mono of one stretch, taken from the middle, or of several, spread evenly.

    a path or an open file  ->  decode  ->  Decoded: Clip (n_samples,), format, what was wrong with it

``recsys.audio.decoding.readers`` opens the recording and seeks; here the stretch is chosen, downmixed by the mean of
the channels and resampled with soxr, so one recording gives one clip whatever it is wrapped in. Where one library gives
less than there should be, the other tries. A damaged file may crash a decoder or keep it busy for ever:
``recsys.audio.decoding.pool`` runs this where that does no harm. Spectrograms are not made here.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soxr

from recsys.audio.decoding.containers import Look, look
from recsys.audio.decoding.readers import AvReader, FramedReader, Reader, open_other, open_reader
from recsys.audio.settings import DecodeSettings
from recsys.errors import DataError
from recsys.types import Clip, Float32

DECODER = 2  # raised where a file is heard otherwise than before; ``recsys.audio.embed`` says which are heard anew
SILENT = "silent-audio"

_SHORT_S = 0.1  # declared lengths are this inexact in sound files (encoder delay)
_SILENT_PEAK = 10 ** (-70 / 20)  # of full scale
_PLACES = (0.5, 0.25, 0.75, 0.0, 1.0, 0.125, 0.375, 0.625, 0.875)  # of a stretch, tried in turn where it is silent
_LEAST_JUNK = 200  # bytes between frames, about a small frame; a stray few are padding
_RATES_HZ = (1_000, 1_000_000)  # outside, a header is damaged; soxr would be asked for gigabytes
_END_IS_SEEN = ("wav", "aiff", "mp4", "mp3", "ogg", "aac")  # formats of which a missing end shows without decoding
_FORMAT_OF_SUFFIX = {
    ".mp3": "mp3", ".wav": "wav", ".flac": "flac", ".ogg": "ogg", ".oga": "ogg", ".opus": "ogg",
    ".m4a": "mp4", ".m4b": "mp4", ".mp4": "mp4", ".aac": "aac", ".wma": "asf", ".aif": "aiff",
    ".aiff": "aiff",
}  # fmt: skip


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

    @property
    def is_silent(self) -> bool:
        """Whether there is nothing to hear, wherever one listens: such a recording has no sound vector."""
        return any(problem.kind == SILENT for problem in self.problems)


def decode(source: Path | BinaryIO, settings: DecodeSettings) -> Decoded:
    """Decode the middle stretch of a recording to mono, or another one where the middle is silent.

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
    """Report a suffix that promises another container than the one found; an unknown one promises nothing.

    Where it is not known which one was found, the format is empty, and there is nothing to report.
    """
    promised = _FORMAT_OF_SUFFIX.get(path.suffix.lower(), format_)
    if not format_ or promised == format_:
        return ()
    return (AudioProblem("mislabelled-audio", f"the name says {promised}, the content is {format_}"),)


@dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    """A stretch (n,) as it was recorded, the reader that gave it, and the length of the recording in frames."""

    stretch: Float32
    reader: Reader
    n_frames: int
    problems: tuple[AudioProblem, ...] = ()


def _decode(file: BinaryIO, settings: DecodeSettings) -> Decoded:
    seen = look(file)
    if not seen.size:
        raise DataError("the file is empty")
    with ExitStack() as stack:
        first = open_reader(file, seen, stack)
        if not _RATES_HZ[0] <= first.sample_rate <= _RATES_HZ[1]:
            raise DataError(f"the header declares a sample rate of {first.sample_rate} Hz, damaged")
        heard = _whole(first, settings, seen) or _rest(file, first, settings, seen, stack)
        rate, problems = heard.reader.sample_rate, heard.problems
        n_bad = int(np.count_nonzero(~np.isfinite(heard.stretch)))
        if n_bad:
            heard = replace(heard, stretch=_numbers(heard.stretch))
            problems += (AudioProblem("damaged-audio", f"{n_bad:,} samples are not numbers, read as silence"),)
        if len(heard.stretch) < settings.min_s * rate:
            reason = f" ({problems[0].reason})" if problems else ""
            raise DataError(f"{len(heard.stretch) / rate:.2f} s decode, {settings.min_s:g} s are needed{reason}")
        samples = _resampled(heard.stretch, rate, settings)
        if _is_silent(samples):
            samples = next(_elsewhere(heard, settings), samples)
    if _is_silent(samples):
        problems += (AudioProblem(SILENT, "all that was heard of it is below -70 dB of full scale: it has no sound"),)
    return Decoded(Clip(samples, settings.sample_rate, heard.n_frames / rate), first.format, problems)


def _numbers(stretch: Float32) -> Float32:
    return np.nan_to_num(stretch, nan=0.0, posinf=0.0, neginf=0.0)


def _resampled(stretch: Float32, rate: int, settings: DecodeSettings) -> Float32:
    samples = soxr.resample(stretch, rate, settings.sample_rate)
    samples = np.ascontiguousarray(samples[: round(settings.clip_s * settings.sample_rate)], np.float32)
    return np.clip(samples, -1.0, 1.0, out=samples)


def _is_silent(samples: Float32) -> bool:
    return max(float(samples.max()), -float(samples.min())) < _SILENT_PEAK


def _elsewhere(heard: _Heard, settings: DecodeSettings) -> Iterator[Float32]:
    """The clips of other stretches in which there is something to hear, as long as those that there are."""
    n_clip = round(settings.clip_s * heard.reader.sample_rate)
    if heard.n_frames <= n_clip:
        return
    for place in _PLACES[1:]:
        stretch = _spread(heard.reader, heard.n_frames, n_clip, settings.n_stretches, place)
        if len(stretch) >= settings.min_s * heard.reader.sample_rate:
            samples = _resampled(_numbers(stretch), heard.reader.sample_rate, settings)
            if not _is_silent(samples):
                yield samples


def _whole(reader: Reader, settings: DecodeSettings, seen: Look) -> _Heard | None:
    """Take the middle of a recording that is all there; None where less decodes, or is there, than was declared."""
    if reader.n_frames is None:
        return None
    stretch = _stretch(reader, reader.n_frames, settings)
    n_clip = min(round(settings.clip_s * reader.sample_rate), reader.n_frames)
    whole = len(stretch) >= n_clip - round(_SHORT_S * reader.sample_rate)
    if reader.format == "flac" and reader.n_frames:
        whole = whole and len(_take(reader, reader.n_frames - 1, 1)) == 1
    if not whole or (seen.cut and not isinstance(reader, FramedReader)):
        return None
    return _Heard(stretch, reader, reader.n_frames, _told_by_headers(reader, seen))


def _told_by_headers(reader: Reader, seen: Look) -> tuple[AudioProblem, ...]:
    """Tell what counting the frames told."""
    if not isinstance(reader, FramedReader):
        return ()
    frames, stream = reader.frames, reader.frames.stream
    if seen.cut:
        lengths = f"{frames.n * stream.samples / stream.sample_rate:.1f} s decode"
        if stream.declared is not None and stream.declared > frames.n:
            lengths = f"{stream.declared * stream.samples / stream.sample_rate:.1f} s are declared, {lengths}"
        return (AudioProblem("truncated-audio", f"{seen.cut}; {lengths}"),)
    if frames.n_junk > _LEAST_JUNK:
        return (AudioProblem("damaged-audio", f"{frames.n_junk:,} bytes between its frames are no sound"),)
    return ()


def _rest(file: BinaryIO, first: Reader, settings: DecodeSettings, seen: Look, stack: ExitStack) -> _Heard:
    """Take what decodes of a recording that is not whole: by the library that gets more of it."""
    other = open_other(file, seen, first, stack)
    if other is not None and other.sample_rate != first.sample_rate:
        other = None
    if other is not None and not seen.cut:  # the stretch that is wanted may be whole there
        heard = _whole(other, settings, seen)
        if heard is not None:
            reason = "one decoder stops at an error in it, another goes on"
            return _Heard(heard.stretch, other, heard.n_frames, (AudioProblem("damaged-audio", reason),))
    readers = [first] if other is None else [first, other]
    lengths = [sum(len(block) for block in reader.blocks(0)) for reader in readers]
    place = _longest(lengths, first)
    reader, actual = readers[place], lengths[place]
    return _Heard(_stretch(reader, actual, settings), reader, actual, _told(seen, first, lengths, actual))


def _longest(lengths: Sequence[int], first: Reader) -> int:
    """Choose the longer of two decodings; one that is longer than the frames that there are made some up."""
    n_short = round(_SHORT_S * first.sample_rate)
    if len(lengths) == 1 or lengths[1] <= lengths[0] + n_short:
        return 0
    return 0 if first.n_frames is not None and lengths[1] > first.n_frames + n_short else 1


def _told(seen: Look, first: Reader, lengths: Sequence[int], actual: int) -> tuple[AudioProblem, ...]:
    declared, rate = first.n_frames, first.sample_rate
    n_short = round(_SHORT_S * rate)
    if seen.cut is None and declared is None:
        return ()
    said = f"{actual / rate:.1f} s decode"
    if declared is not None and declared > actual + n_short:
        said = f"{declared / rate:.1f} s are declared, {said}"
    if seen.cut:
        return (AudioProblem("truncated-audio", f"{seen.cut}; {said}"),)
    has_end = first.format in _END_IS_SEEN or _reaches(first, declared or 0)
    if has_end and min(lengths) < max(lengths) - n_short:
        said += f", by the other decoder {min(lengths) / rate:.1f} s"
    return (AudioProblem("damaged-audio" if has_end else "truncated-audio", said),)


def _reaches(reader: Reader, n_frames: int) -> bool:
    """Whether the last of the declared frames is there, whatever is missing before."""
    if isinstance(reader, AvReader):
        return reader.n_reached >= n_frames - round(_SHORT_S * reader.sample_rate)
    return len(_take(reader, n_frames - 1, 1)) == 1


def _stretch(reader: Reader, n_frames: int, settings: DecodeSettings) -> Float32:
    return _spread(reader, n_frames, round(settings.clip_s * reader.sample_rate), settings.n_stretches)


def _spread(reader: Reader, n_frames: int, n_clip: int, n_stretches: int, place: float = _PLACES[0]) -> Float32:
    """Take ``n_clip`` frames out of ``n_frames``: each stretch from the middle of its part, or another place in it."""
    if n_frames <= n_clip:
        return _take(reader, 0, n_clip)
    part, wanted = n_frames / n_stretches, n_clip // n_stretches
    if n_stretches == 1:
        return _take(reader, int((n_frames - n_clip) * place), n_clip)
    stretches = [_take(reader, round(n * part + (part - wanted) * place), wanted) for n in range(n_stretches)]
    return np.concatenate(stretches)


def _take(reader: Reader, start: int, n_frames: int) -> Float32:
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
