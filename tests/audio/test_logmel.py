import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.audio_files import tone
from helpers.places import GOLDEN
from recsys.audio.logmel import log_mel, patches
from recsys.audio.settings import LogMelSettings
from recsys.errors import DataError

SETTINGS = LogMelSettings()
GOLDEN = GOLDEN / "log_mel.npz"


def of(samples: np.ndarray) -> torch.Tensor:
    return log_mel(torch.from_numpy(samples)[None], SETTINGS)[0]


def test_golden_log_mel() -> None:
    with np.load(GOLDEN) as golden:
        made = of(golden["samples"]).numpy()
        assert made.shape == golden["log_mel"].shape == (96, 76)
        np.testing.assert_allclose(made, golden["log_mel"], atol=1e-4)


@pytest.mark.parametrize(("hz", "band"), [(400, 12), (1000, 31), (4000, 74)])
def test_a_tone_lands_in_its_band(hz: float, band: int) -> None:
    # 97 steps from 0 to 45.24 mel (Slaney's), so centres are 0.4664 mel apart and band 0 is at 0.4664;
    # 400 Hz is 6 mel, 1 kHz 15, 4 kHz 15 + 27 log(4) / log(6.4) = 35.16; a band and a bin are about as wide
    spectrogram = of(tone(hz, 1.0, rate=16_000))
    assert abs(int(spectrogram[:, 5:-5].mean(dim=1).argmax()) - band) <= 1


def test_frames_agree_with_time() -> None:
    samples = np.zeros(16_000, np.float32)
    samples[12_000] = 1.0  # at 0.75 s
    spectrogram = of(samples)
    assert spectrogram.shape == (96, 1 + 16_000 // 256)
    assert int(spectrogram.sum(dim=0).argmax()) * 256 / 16_000 == pytest.approx(0.75, abs=256 / 16_000)
    assert float(spectrogram[:, :40].abs().max()) == 0.0


def test_batch_equals_single() -> None:
    rng = np.random.default_rng(0)
    samples = torch.from_numpy(rng.uniform(-1, 1, (3, 5000)).astype(np.float32))
    single = torch.cat([log_mel(one[None], SETTINGS) for one in samples])
    torch.testing.assert_close(log_mel(samples, SETTINGS), single, atol=1e-5, rtol=0)


def test_clips_that_are_too_short_are_refused() -> None:
    for samples in (torch.zeros(1, 256), torch.zeros(1000)):
        with pytest.raises(DataError, match="expected"):
            log_mel(samples, SETTINGS)


@given(n_frames=st.integers(1, 40), patch=st.integers(1, 12), hop=st.integers(1, 12))
def test_patches_cover_from_the_start(n_frames: int, patch: int, hop: int) -> None:
    settings = LogMelSettings(n_mels=2, patch_frames=patch, patch_hop_frames=hop)
    frames = torch.arange(n_frames, dtype=torch.float32)
    cut = patches(torch.stack([frames, -frames])[None], settings)
    n_patches = 1 + max(0, n_frames - patch) // hop
    assert cut.shape == (1, n_patches, 2, patch)
    expected = torch.stack([(i * hop + torch.arange(patch)) % n_frames for i in range(n_patches)])
    torch.testing.assert_close(cut[0, :, 0], expected.float())
    torch.testing.assert_close(cut[0, :, 1], -expected.float())


def test_a_musicnn_patch_is_three_seconds() -> None:
    cut = patches(torch.zeros(2, 96, 1 + 30 * 16_000 // 256), SETTINGS)
    assert cut.shape == (2, 10, 96, 187)
    assert SETTINGS.patch_frames * SETTINGS.hop_length / SETTINGS.sample_rate == pytest.approx(3.0, abs=0.01)
