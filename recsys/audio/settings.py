"""Settings of the audio tower, apart from its code: reading them must not load torch or a decoder."""

from typing import Literal, Self

from pydantic import Field, model_validator

from recsys.content.settings import TaskSettings
from recsys.settings import Settings


class DecodeSettings(Settings):
    """``[audio.decode]``: which stretch of a recording is taken."""

    sample_rate: int = Field(default=16_000, ge=8_000)  # Hz
    clip_s: float = Field(default=30.0, gt=0)  # from the middle of a longer recording
    min_s: float = Field(default=1.0, gt=0)  # a recording of which less decodes is not used


class WorkerSettings(Settings):
    """``[audio.workers]``: processes and their limits."""

    n_workers: int | None = Field(default=None, ge=1)  # None: one a core
    time_limit_s: float = Field(default=60.0, gt=0)  # a track
    memory_mb: int = Field(default=1024, ge=64)  # address space of a worker beyond what it has at its start


class LogMelSettings(Settings):
    """``[audio.log_mel]``: the defaults are those of the published network."""

    sample_rate: int = 16_000  # Hz
    n_fft: int = Field(default=512, ge=2)
    hop_length: int = Field(default=256, ge=1)  # samples
    n_mels: int = Field(default=96, ge=1)
    patch_frames: int = Field(default=187, ge=1)
    patch_hop_frames: int = Field(default=187, ge=1)


class NetworkSettings(Settings):
    """``[audio.network]``."""

    name: Literal["conv1d"] = "conv1d"
    width: int = Field(default=64, ge=1)  # channels of each layer
    n_layers: int = Field(default=3, ge=1)
    kernel_frames: int = Field(default=4, ge=1)
    dim: int = Field(default=64, ge=1)  # of the embedding
    dropout: float = Field(default=0.5, ge=0, lt=1)


class TrainSettings(Settings):
    """``[audio.train]``."""

    train_tracks: int = Field(default=5000, ge=2)  # a random sample of a larger catalogue
    epochs: int = Field(default=60, ge=0)
    max_patches: int = Field(default=100_000, ge=1)  # seen in all; fewer epochs for a larger sample
    patience: int = Field(default=12, ge=1)  # epochs without a better held-out cost before stopping
    batch: int = Field(default=16, ge=2)  # patches; small, for a small catalogue needs the updates
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    held_out_share: float = Field(default=0.15, ge=0, lt=1)


class AudioSettings(Settings):
    """``[audio]`` in the run's TOML file."""

    decode: DecodeSettings = DecodeSettings()
    log_mel: LogMelSettings = LogMelSettings()
    network: NetworkSettings = NetworkSettings()
    train: TrainSettings = TrainSettings()
    tasks: TaskSettings = TaskSettings()
    workers: WorkerSettings = WorkerSettings()
    batch_clips: int = Field(default=32, ge=1)  # embedded at a time, and the most that a kill loses

    @model_validator(mode="after")
    def _one_sample_rate(self) -> Self:
        if self.decode.sample_rate != self.log_mel.sample_rate:
            raise ValueError(
                f"audio.decode.sample_rate is {self.decode.sample_rate} Hz and audio.log_mel.sample_rate "
                f"{self.log_mel.sample_rate} Hz; they must be the same"
            )
        return self
