"""Clips in, log-mel spectrograms and patches out: the one front end of every audio network.

    samples (n, n_samples)  ->  log_mel  ->  (n, n_mels, n_frames)
    spectrograms  ->  patches  ->  (n, n_patches, n_mels, patch_frames)

The same numbers as musicnn's front end (Pons and Serra 2019): power spectrum, Slaney mel bands of equal area,
log10(10000 x + 1). Frame ``i`` is centred on sample ``i * hop_length``; 187 frames are 3 s. Pure functions:
nothing is read, cached or learned here.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from recsys.audio.settings import LogMelSettings
from recsys.errors import DataError

_GAIN = 10_000.0  # musicnn's: silence is 0, a full-scale sine about 7


def log_mel(samples: Tensor, settings: LogMelSettings) -> Tensor:
    """Turn clips of one length into log-mel spectrograms.

    Args:
        samples: (n, n_samples) float32 in [-1, 1] at ``settings.sample_rate``.
        settings: of the front end.

    Returns:
        (n, n_mels, n_frames) float32, 0 where silent; n_frames is 1 + n_samples // hop_length.

    Raises:
        DataError: the clips are not (n, n_samples), or too short to be mirrored at their ends.
    """
    if samples.ndim != 2 or samples.shape[1] <= settings.n_fft // 2:
        least = settings.n_fft // 2 + 1
        raise DataError(f"clips are {tuple(samples.shape)}, expected (n, n_samples), {least} samples or more")
    # a processor is twice as fast on one clip as on eight, whose spectra fall out of its cache (4 ms a 30 s clip, 9)
    at_once = 1 if samples.is_cpu else len(samples)
    return torch.cat([_log_mel(some, settings) for some in torch.split(samples, max(at_once, 1))])


def _log_mel(samples: Tensor, settings: LogMelSettings) -> Tensor:
    window, bands = _window_and_bands(settings, samples.device)
    spectrum = torch.stft(samples, settings.n_fft, settings.hop_length, window=window, return_complex=True)
    squares = torch.view_as_real(spectrum).square_()  # in place: new memory costs as much as the sums
    return (bands @ (squares[..., 0] + squares[..., 1])).mul_(_GAIN).add_(1.0).log10_()


@lru_cache(maxsize=8)
def _window_and_bands(settings: LogMelSettings, device: torch.device) -> tuple[Tensor, Tensor]:
    """The window (n_fft,) and the weights of the mel bands (n_mels, n_fft // 2 + 1), on the clips' device."""
    bands: Tensor = melscale_fbanks(
        settings.n_fft // 2 + 1,
        0.0,
        settings.sample_rate / 2,
        settings.n_mels,
        settings.sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.hann_window(settings.n_fft).to(device), bands.T.contiguous().to(device)


def patches(spectrograms: Tensor, settings: LogMelSettings) -> Tensor:
    """Cut spectrograms of one length into patches.

    A spectrogram shorter than a patch is repeated until it fills one; frames behind the last whole patch are
    left out.

    Args:
        spectrograms: (n, n_mels, n_frames).
        settings: patch and hop, in frames.

    Returns:
        (n, n_patches, n_mels, patch_frames), n_patches >= 1.
    """
    n_frames = spectrograms.shape[2]
    if n_frames < settings.patch_frames:
        repeats = -(-settings.patch_frames // n_frames)
        spectrograms = spectrograms.repeat(1, 1, repeats)[:, :, : settings.patch_frames]
    return spectrograms.unfold(2, settings.patch_frames, settings.patch_hop_frames).transpose(1, 2)
