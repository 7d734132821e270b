"""What the audio network sees of a file, as a picture: its log-mel spectrogram and the patches that it is cut into.

    audio file  ->  draw_spectrogram  ->  a figure: seconds across, mel bands upwards labelled in Hz, patches above

The file is decoded as an upload is, in a limited process, and goes through the front end of every audio network
(``recsys.audio.logmel``), so what is drawn is what is heard. Files are written by ``recsys.util.figures``.
"""

from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from recsys.audio.decoding.decode import Decoded
from recsys.audio.decoding.pool import DecodeFailure, decode_many
from recsys.audio.logmel import log_mel, patches
from recsys.audio.settings import AudioSettings, LogMelSettings
from recsys.errors import DataError
from recsys.types import Float32
from recsys.util.figures import printable

_TICKS_HZ = (125, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000)
_LINEAR_HZ, _LINEAR_MEL = 1_000.0, 15.0  # Slaney's mel scale: 15 mel up to 1 kHz, then 27 for each factor of 6.4
_MOST_NUMBERS = 40  # patches that are numbered; more numbers would cover each other
_SEEN, _UNSEEN = "#4c72b0", "#00000099"


def draw_spectrogram(audio: Path, settings: AudioSettings) -> Figure:
    """Draw the stretch of a file that the network sees.

    Args:
        audio: any file that decodes. settings: the stretch, the front end, the patches, the decoder's limits.

    Raises:
        DataError: the file is missing or nothing usable decodes.
    """
    [outcome] = decode_many([audio], settings.decode, settings.workers.model_copy(update={"n_workers": 1}))
    if isinstance(outcome, DecodeFailure):
        raise DataError(f"{audio} cannot be drawn: {outcome.reason}")
    seen = _seen(outcome, settings)
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    lanes, picture = figure.subplots(2, 1, sharex=True, height_ratios=(1, 14))
    _draw_frames(figure, picture, seen, settings.log_mel)
    _draw_patches(lanes, picture, seen, settings.log_mel)
    lanes.set_title(_title(audio, outcome, seen, settings.log_mel), loc="left", fontsize=11)
    return figure


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """``values`` (n_mels, n_frames), where its first frame is in the recording, and the first frame of each patch."""

    values: Float32
    first_s: float
    patch_starts: NDArray[np.int64]
    n_stretches: int


def _seen(decoded: Decoded, settings: AudioSettings) -> _Seen:
    """Make the spectrograms of a clip's stretches as ``recsys.audio.networks.clips`` does, side by side."""
    samples, front = torch.from_numpy(decoded.clip.samples), settings.log_mel
    n_stretches = settings.decode.n_stretches if len(samples) >= settings.decode.n_stretches * front.n_fft else 1
    made = log_mel(samples[: len(samples) // n_stretches * n_stretches].reshape(n_stretches, -1), front)
    of_stretch = np.arange(patches(made, front).shape[1]) * front.patch_hop_frames
    starts = (np.arange(n_stretches)[:, None] * made.shape[2] + of_stretch).ravel()
    length_s = len(samples) / decoded.clip.sample_rate
    first_s = max(0.0, (decoded.clip.duration_s - length_s) / 2) if n_stretches == 1 else 0.0
    return _Seen(made.transpose(0, 1).flatten(1).numpy(), first_s, starts, n_stretches)


def band_of(hz: float, settings: LogMelSettings) -> float:
    """Find where a frequency lies among the mel bands; whole numbers are their middles, 0 the lowest."""
    return _mel(hz) / _mel(settings.sample_rate / 2) * (settings.n_mels + 1) - 1


def _mel(hz: float) -> float:
    """Slaney's mel scale, by which ``recsys.audio.logmel`` spaces its bands."""
    if hz < _LINEAR_HZ:
        return hz * _LINEAR_MEL / _LINEAR_HZ
    return _LINEAR_MEL + 27.0 * log(hz / _LINEAR_HZ) / log(6.4)


def _draw_frames(figure: Figure, axes: Axes, seen: _Seen, settings: LogMelSettings) -> None:
    n_mels, n_frames = seen.values.shape
    hop_s, first_s = settings.hop_length / settings.sample_rate, seen.first_s
    image = axes.imshow(
        seen.values,
        cmap="magma",
        vmin=0.0,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(first_s - hop_s / 2, first_s + (n_frames - 0.5) * hop_s, -0.5, n_mels - 0.5),
    )
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=30)
    bar.set_label("log10(10,000 × power + 1), 0 is silence")
    marks = [hz for hz in _TICKS_HZ if hz <= settings.sample_rate / 2]
    axes.set_yticks([band_of(hz, settings) for hz in marks], [f"{hz:,}" for hz in marks])
    axes.set_ylim(-0.5, n_mels + 0.5)  # half of the sample rate lies half a band above the highest
    axes.set_facecolor(image.cmap(0.0))
    axes.set_ylabel(f"frequency (Hz), {n_mels} mel bands")


def _draw_patches(lanes: Axes, picture: Axes, seen: _Seen, settings: LogMelSettings) -> None:
    """Mark each patch by a numbered bar above, in as many lanes as overlap, and by where it starts and ends."""
    hop_s = settings.hop_length / settings.sample_rate
    n_patches, n_frames = len(seen.patch_starts), seen.values.shape[1]
    n_lanes = -(-settings.patch_frames // settings.patch_hop_frames)
    starts = seen.patch_starts * hop_s + seen.first_s
    length_s = min(settings.patch_frames, n_frames // seen.n_stretches) * hop_s
    end_s = seen.first_s + n_frames * hop_s
    lanes.barh(-(np.arange(n_patches) % n_lanes), length_s, 0.8, left=starts, color=_SEEN, edgecolor="white")
    if n_lanes == 1 and n_patches <= _MOST_NUMBERS:
        for number, start_s in enumerate(starts, start=1):
            lanes.text(start_s + length_s / 2, 0, str(number), color="white", ha="center", va="center", fontsize=9)
        for edge_s in {*starts, *(starts + length_s)}:
            picture.axvline(edge_s, color="white", linewidth=0.8, linestyle=(0, (4, 4)), alpha=0.7)
    covered = np.zeros(n_frames, dtype=np.bool_)
    for start in seen.patch_starts:
        covered[start : start + settings.patch_frames] = True
    edges = np.flatnonzero(np.diff(covered, prepend=True, append=True))  # of what no patch covers, in pairs
    for first, last in edges.reshape(-1, 2):
        picture.axvspan(seen.first_s + first * hop_s, seen.first_s + last * hop_s, color=_UNSEEN, linewidth=0)
    shaded = f"; {(~covered).sum() * hop_s:.2f} s, shaded, are in no patch" if len(edges) else ""
    what = "recording" if seen.n_stretches == 1 else f"clip, {seen.n_stretches} stretches of the recording"
    picture.set_xlabel(f"time in the {what} (s){shaded}")
    lanes.set_xlim(seen.first_s, end_s)
    lanes.set_ylabel("patches", rotation=0, ha="right", va="center")
    lanes.set_yticks([])
    lanes.tick_params(bottom=False, labelbottom=False)
    lanes.spines[:].set_visible(False)


def _title(audio: Path, decoded: Decoded, seen: _Seen, settings: LogMelSettings) -> str:
    clip, n_patches = decoded.clip, len(seen.patch_starts)
    patch_s = settings.patch_frames * settings.hop_length / settings.sample_rate
    length_s = len(clip.samples) / clip.sample_rate
    where = "from the middle" if seen.n_stretches == 1 else f"in {seen.n_stretches} stretches"
    used = "all of it" if length_s >= clip.duration_s - 0.1 else f"{length_s:.1f} s {where}"
    is_short = seen.values.shape[1] // seen.n_stretches < settings.patch_frames
    short = ", repeated to fill it" if is_short else ""
    plural = "" if n_patches == 1 else "es"
    return (
        f"{printable(audio.name)}: {clip.duration_s:.1f} s of {decoded.format}, {used}\n"
        f"{settings.sample_rate / 1000:g} kHz mono, window {settings.n_fft} and hop {settings.hop_length} samples, "
        f"{n_patches} patch{plural} of {patch_s:.2f} s{short}"
    )
