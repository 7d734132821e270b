"""Settings of the augmentations, apart from their code: reading them must load neither torch nor an encoder."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from recsys.util.settings import Settings


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] <= ends[1]:
        raise ValueError(f"the range {ends} falls, expected (least, most)")
    return ends


def _positive(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] <= 0:
        raise ValueError(f"the range {ends} starts at 0 or below, expected more")
    return ends


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
PositiveRange = Annotated[Range, AfterValidator(_positive)]


class MaskSettings(Settings):
    """``[audio.augment.masks]``: SpecAugment; widths are drawn uniformly from 0 to the most."""

    n_time: int = Field(default=1, ge=0)
    time_frames: int = Field(default=40, ge=1)  # the most of one mask; about a fifth of a patch
    n_mel: int = Field(default=1, ge=0)
    mel_bands: int = Field(default=16, ge=1)  # the most of one mask; a sixth of 96


class AugmentSettings(Settings):
    """``[audio.augment]``: each step is taken for a share of the clips, its size uniform in a range."""

    shift_share: float = Field(default=0.5, ge=0, le=1)
    shift_s: PositiveRange = (0.1, 3.0)
    equalise_share: float = Field(default=0.3, ge=0, le=1)
    equalise_db: float = Field(default=6.0, ge=0)  # each octave's gain lies between minus this and this
    band_share: float = Field(default=0.2, ge=0, le=1)
    band_low_hz: PositiveRange = (50.0, 400.0)
    band_high_hz: PositiveRange = (3000.0, 7000.0)
    gain_share: float = Field(default=0.5, ge=0, le=1)
    gain_db: Range = (-6.0, 6.0)
    noise_share: float = Field(default=0.3, ge=0, le=1)
    noise_snr_db: Range = (10.0, 40.0)
    mp3_share: float = Field(default=0.2, ge=0, le=1)
    mp3_kbit_s: PositiveRange = (24.0, 64.0)
    masks: MaskSettings = MaskSettings()

    @model_validator(mode="after")
    def _band_is_open(self) -> Self:
        if self.band_low_hz[1] >= self.band_high_hz[0]:
            raise ValueError(f"the band's low end {self.band_low_hz} Hz reaches its high end {self.band_high_hz} Hz")
        return self
