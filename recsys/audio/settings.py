"""Settings of the audio tower, apart from its code: reading them must not load torch or a decoder."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from recsys.content.settings import TaskSettings
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
    """``[audio.train.augment.masks]``: SpecAugment; widths are drawn uniformly from 0 to the most."""

    n_time: int = Field(default=1, ge=0)
    time_frames: int = Field(default=40, ge=1)  # the most of one mask; about a fifth of a patch
    n_mel: int = Field(default=1, ge=0)
    mel_bands: int = Field(default=16, ge=1)  # the most of one mask; a sixth of 96


class AugmentSettings(Settings):
    """``[audio.train.augment]``: each step is taken for a share of the clips, its size uniform in a range.

    Each of ``copies`` in ``[audio.head]`` has the same keys.
    """

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


class DecodeSettings(Settings):
    """``[audio.decode]``: which stretch of a recording is taken."""

    sample_rate: int = Field(default=16_000, ge=8_000)  # Hz
    clip_s: float = Field(default=30.0, gt=0)  # in all, from the middle of a longer recording
    n_stretches: int = Field(default=1, ge=1)  # that the clip is made of, spread evenly over a longer recording
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
    """``[audio.network]``: which network, and where it starts.

    ``auto`` is ``musicnn`` with a fitted head where its published weights are present and the catalogue has at most
    ``max_musicnn_tracks`` tracks with audio, else ``conv1d``. A pretrained start of ``conv1d`` or ``dense`` is to be
    taught musicnn's vectors. Where the weights are not present every network starts at random. ``onnx`` is a network of
    your own: ``model`` and all below it are for that one alone.
    """

    name: Literal["auto", "conv1d", "musicnn", "dense", "onnx"] = "auto"
    start: Literal["random", "pretrained"] = "pretrained"
    tune: Literal["none", "head", "last", "all"] = "head"  # how much of a pretrained musicnn is fitted
    pooling: Literal["mean", "gru"] = "mean"  # from patches to a clip, where the network is trained by gradient
    # of a clip, spread over it, that each published network under a head hears; fewer cost less and tell less
    patches: Annotated[int, Field(ge=1)] | Literal["all"] = "all"
    max_musicnn_tracks: int = Field(default=20_000, ge=0)
    width: int = Field(default=64, ge=1)  # channels of each layer of conv1d; a quarter of dense's layers
    n_layers: int = Field(default=3, ge=1)
    kernel_frames: int = Field(default=4, ge=1)
    dim: int = Field(default=64, ge=1)  # of the embedding of conv1d and dense
    dropout: float = Field(default=0.5, ge=0, lt=1)
    model: str | None = None  # path of the ONNX file
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")  # of that file
    sample_rate: int = Field(default=16_000, ge=8_000)  # Hz; what its input is made from is decoded at this rate
    window_s: float = Field(default=10.0, gt=0)  # that it hears at a time; of log-mel to the nearest frame
    hop_s: float = Field(default=10.0, gt=0)  # from window to window
    input: Literal["wave", "log-mel"] = "wave"
    outputs: tuple[str, ...] = ()  # by name; of each the windows' mean and deviation
    beside: Literal["musicnn", "none"] = "musicnn"  # whose features stand beside its own

    @model_validator(mode="after")
    def _onnx_is_named(self) -> Self:
        if self.name != "onnx":
            return self
        missing = [name for name in ("model", "sha256", "outputs") if not getattr(self, name)]
        if missing:
            raise ValueError(f"audio.network.name is onnx, which needs audio.network.{missing[0]}")
        if self.tune not in ("none", "head"):
            raise ValueError(f"audio.network.tune is {self.tune}, an ONNX model is not trained; take head or none")
        return self

    @model_validator(mode="after")
    def _gru_is_trained(self) -> Self:
        if self.pooling == "gru" and self.name == "musicnn" and self.tune in {"none", "head"}:
            raise ValueError(
                f"audio.network.pooling is gru and tune is {self.tune}, which trains nothing by gradient; "
                "take pooling = mean, or tune = last"
            )
        return self


class TrainSettings(Settings):
    """``[audio.train]``."""

    train_tracks: int = Field(default=5000, ge=2)  # a random sample of a larger catalogue
    epochs: int = Field(default=60, ge=0)
    max_patches: int = Field(default=100_000, ge=1)  # seen in all; fewer epochs for a larger sample
    patience: int = Field(default=12, ge=1)  # epochs without a better held-out cost before stopping
    batch: int = Field(default=16, ge=2)  # clips; small, for a small catalogue needs the updates
    gru_patches: int = Field(default=4, ge=1)  # that a GRU sees of a clip in training
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    held_out_share: float = Field(default=0.15, ge=0, lt=1)
    contrast: float = Field(default=0.5, ge=0)  # weight of the contrastive task
    contrast_between: Literal["track", "artist"] = (
        "track"  # what two stretches must have in common to be pulled together
    )
    temperature: float = Field(default=0.1, gt=0)  # of the contrastive task
    augmented_share: float = Field(default=0.5, ge=0, le=1)  # of the stretches that are trained on
    augment: AugmentSettings = AugmentSettings()


def _copies() -> tuple[AugmentSettings, ...]:
    """A noisy copy, a narrow-band one with a little noise, an equalised one through a lossy encoder; all shifted."""
    always: dict[str, float] = {"shift_share": 1.0, "gain_share": 1.0}
    never = dict.fromkeys(("equalise_share", "band_share", "noise_share", "mp3_share"), 0.0)
    narrow = {"band_share": 1.0, "band_low_hz": (100.0, 400.0), "band_high_hz": (2800.0, 6000.0)}
    kinds: tuple[dict[str, object], ...] = (
        {"noise_share": 1.0, "noise_snr_db": (5.0, 20.0), "gain_db": (-3.0, 3.0)},
        narrow | {"noise_share": 1.0, "noise_snr_db": (20.0, 40.0)},
        {"equalise_share": 1.0, "mp3_share": 1.0, "mp3_kbit_s": (32.0, 48.0)},
    )
    return tuple(AugmentSettings.model_validate(always | never | kind) for kind in kinds)


class HeadSettings(Settings):
    """``[audio.head]``: what is fitted to the published networks' features in closed form.

    How the defaults were found is in ``docs/research/findings-audio.md``.
    """

    min_clips: int = Field(default=30, ge=2)  # with fewer there is nothing to go by: the network stays as published
    copies: tuple[AugmentSettings, ...] = Field(default_factory=_copies)  # of each clip, that must be known again
    n_components: int = Field(default=300, ge=1)  # principal components that are kept
    shrinkage: float = Field(default=0.05, ge=0, le=1)  # of the covariance within artists, towards a ball
    nuisance: float = Field(default=10.0, ge=0)  # weight of what copies differ in, in that covariance
    tasks: TaskSettings = TaskSettings(genre=1.0, artist=0.0, factors=0.0)  # told by the second part
    weight: float = Field(default=0.8, ge=0)  # of the second part, against the whitened one
    l2: float = Field(default=0.3, gt=0)  # of the kernel regression
    kernel_width: float = Field(default=2.0, gt=0)  # of exp(-width * squared distance / its median)
    max_landmarks: int = Field(default=2000, ge=1)  # clips that the kernel compares with


class AudioSettings(Settings):
    """``[audio]`` in the run's TOML file."""

    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: the graphics processor where there is one
    decode: DecodeSettings = DecodeSettings()
    log_mel: LogMelSettings = LogMelSettings()
    network: NetworkSettings = NetworkSettings()
    head: HeadSettings = HeadSettings()
    train: TrainSettings = TrainSettings()
    tasks: TaskSettings = TaskSettings()
    workers: WorkerSettings = WorkerSettings()
    batch_clips: int = Field(default=8, ge=1)  # embedded at a time; a kill loses a few batches a core

    @model_validator(mode="after")
    def _one_sample_rate(self) -> Self:
        if self.network.name == "onnx":
            return self._rate_of_onnx()
        if self.decode.sample_rate != self.log_mel.sample_rate:
            raise ValueError(
                f"audio.decode.sample_rate is {self.decode.sample_rate} Hz and audio.log_mel.sample_rate "
                f"{self.log_mel.sample_rate} Hz; they must be the same"
            )
        return self

    def _rate_of_onnx(self) -> Self:
        """Clips are decoded at the rate of the ONNX model, musicnn beside it hears them at that of the log-mel."""
        rate = self.network.sample_rate
        if self.decode.sample_rate not in (rate, DecodeSettings().sample_rate):
            raise ValueError(
                f"audio.decode.sample_rate is {self.decode.sample_rate} Hz and audio.network.sample_rate {rate} Hz; "
                "leave the first out, the ONNX model's is taken"
            )
        if self.network.input == "log-mel" and self.log_mel.sample_rate != rate:
            raise ValueError(
                f"audio.log_mel.sample_rate is {self.log_mel.sample_rate} Hz and audio.network.sample_rate {rate} Hz; "
                "for input = log-mel they must be the same"
            )
        return self
