"""The audio tower fitted to a catalogue: from a random start, or from the published weights.

files, Targets  ->  train_sound_model  ->  SoundModel
clips, Targets  ->  fit_sound_model    ->  SoundModel

musicnn, tune = head      published layers as they are -> features -> ``fit_head``, in closed form
musicnn, tune = last/all  published layers -> ``train_network`` moves the later ones, or all
onnx                      the user's own network, alone or beside the published ones -> features -> ``fit_head``
conv1d, dense             ``train_network`` on the tasks; with a pretrained start on the vectors of a fitted musicnn
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from torch import Tensor

from recsys.audio.augment import augmented
from recsys.audio.model import Origin, SoundModel
from recsys.audio.networks.choice import settled, with_network
from recsys.audio.networks.conv1d import Pooled, check_front_end
from recsys.audio.networks.frozen import Frozen, clip_features, remembered
from recsys.audio.networks.head import Headed, fit_head
from recsys.audio.networks.musicnn import DIM as MUSICNN_DIM
from recsys.audio.networks.musicnn import MusicNN
from recsys.audio.networks.plug_in import read_plug_in
from recsys.audio.networks.unfitted import Unfitted
from recsys.audio.networks.weights import NAMES, WEIGHTS_SHA256, load_musicnn, musicnn_weights
from recsys.audio.sample import KeptRows, read_sample
from recsys.audio.settings import AudioSettings
from recsys.audio.train import train_network
from recsys.content.tasks import Targets
from recsys.errors import ConfigError
from recsys.types import Clip, Float32
from recsys.util.progress import Progress
from recsys.util.threads import in_threads
from recsys.util.training import Checkpoint, Curve


def train_sound_model(
    paths: Sequence[tuple[int, Path]],
    targets: Targets,
    settings: AudioSettings,
    seed: int,
    progress: Progress,
    checkpoint: Path | None = None,
) -> SoundModel:
    """Fit the audio tower to a random sample of the files.

    Args:
        paths: (row of the track in ``targets``, its file). What cannot be decoded is left out without a word:
            ``embed_paths``, which sees every file, reports it.
        targets: of the whole catalogue.
        settings: of the audio; what they leave open is settled by the number of files and the weights that are here.
        seed: of the sample and the training.
        progress: shows both decoding and training.
        checkpoint: folder from which training by gradient goes on after a kill.
    """
    chosen = settled(settings, len(paths), musicnn_weights(), progress)
    sample = np.sort(np.random.default_rng(seed).permutation(len(paths))[: settings.train.train_tracks])
    with TemporaryFile() as scratch:
        rows, clips = read_sample([paths[i] for i in sample], chosen, scratch, progress)
        return _Fitting(clips, targets.take(rows), chosen, seed, progress, checkpoint).model(settings)


def fit_sound_model(
    clips: Sequence[Clip], targets: Targets, settings: AudioSettings, seed: int, progress: Progress
) -> SoundModel:
    """Fit the audio tower to clips.

    Args:
        clips: one a track; all of them are trained on.
        targets: a row a clip.
        settings: of the audio; what they leave open is settled by the number of clips and the weights that are here.
        seed: of the training.
        progress: shows the training.
    """
    chosen = settled(settings, len(clips), musicnn_weights(), progress)
    return _Fitting(clips, targets, chosen, seed, progress, None).model(settings)


@dataclass(frozen=True, slots=True, eq=False)
class _Fitting:
    """One fit; ``settings`` name a network and a start, ``folder`` is where it goes on from after a kill."""

    clips: Sequence[Clip]
    targets: Targets
    settings: AudioSettings
    seed: int
    progress: Progress
    folder: Path | None

    def model(self, asked: AudioSettings) -> SoundModel:
        """Fit what was settled; ``asked`` are the settings as they were given."""
        chosen = self.settings.network
        if chosen.name == "onnx":
            return self._plugged_in(asked)
        weights = musicnn_weights() if chosen.start == "pretrained" else None
        if weights is None:
            network, curve = self._trained(self.settings)
            return SoundModel(network, self.settings, Origin(asked, {}, curve))
        few = len(self.clips) < self.settings.head.min_clips
        if few and (chosen.name != "musicnn" or chosen.tune == "head"):
            self.progress.log(
                f"audio: {len(self.clips)} clips are too few to fit a head to, expected "
                f"{self.settings.head.min_clips} or more; musicnn is used as published"
            )
            return self._published(
                weights, asked, with_network(self.settings, name="musicnn", tune="none", patches="all")
            )
        if chosen.name != "musicnn":
            network, curve, settings = self._taught(self._headed(_published_networks(weights)))
            return SoundModel(network, settings, Origin(asked, WEIGHTS_SHA256, curve))
        if chosen.tune == "head":
            headed = self._headed(_published_networks(weights))
            return SoundModel(headed, self.settings, Origin(asked, WEIGHTS_SHA256))
        return self._published(weights, asked, self.settings)

    def _plugged_in(self, asked: AudioSettings) -> SoundModel:
        """Take the user's own network, with a head where there are clips enough to fit one to.

        Raises:
            ConfigError: it cannot be used, or the published networks that are to stand beside it are not here.
        """
        network = self.settings.network
        plug_in = read_plug_in(network, self.settings.log_mel)
        known, beside = {"onnx": plug_in.sha256}, list[MusicNN]()
        if network.beside == "musicnn":
            weights = musicnn_weights()
            if weights is None:
                raise ConfigError(
                    "audio.network.beside is musicnn, whose weights are not here; `recsys weights musicnn` fetches them"
                )
            check_front_end(self.settings.log_mel)
            beside = [load_musicnn(weights, name) for name in NAMES]
            known |= WEIGHTS_SHA256
        frozen = Frozen(beside, plug_in)
        few = len(self.clips) < self.settings.head.min_clips
        if few and network.tune == "head":
            self.progress.log(
                f"audio: {len(self.clips)} clips are too few to fit a head to, expected "
                f"{self.settings.head.min_clips} or more; the ONNX model is used as it comes"
            )
        if few or network.tune == "none":
            settings = with_network(self.settings, tune="none")
            return SoundModel(Unfitted(frozen), settings, Origin(asked, known))
        return SoundModel(self._headed(frozen), self.settings, Origin(asked, known))

    def _published(self, weights: Path, asked: AudioSettings, settings: AudioSettings) -> SoundModel:
        """Take the better of the two published networks as it comes, or tune its layers by gradient."""
        check_front_end(settings.log_mel)
        start = load_musicnn(weights)
        curve: Curve = []
        network = Pooled(start, MUSICNN_DIM, settings.network)
        if settings.network.tune != "none":
            network, curve = self._trained(settings, start=start.state_dict())
        return SoundModel(network, settings, Origin(asked, {NAMES[0]: WEIGHTS_SHA256[NAMES[0]]}, curve))

    def _trained(
        self, settings: AudioSettings, start: Mapping[str, Tensor] | None = None, teacher: Float32 | None = None
    ) -> tuple[Pooled, Curve]:
        checkpoint = None if self.folder is None else Checkpoint(self.folder, self._fingerprint())
        return train_network(
            self.clips, self.targets, settings, self.seed, self.progress, start, teacher, checkpoint=checkpoint
        )

    def _taught(self, teacher: Headed) -> tuple[Pooled, Curve, AudioSettings]:
        """Teach a network that costs little the vectors of one that costs much."""
        vectors = np.zeros((len(self.clips), teacher.dim), np.float32)
        with self.progress.bar("audio: its teacher's vectors", len(self.clips), "clips") as bar:
            heard = in_threads(lambda clip: clip_features(teacher.frozen, [clip], self.settings), self.clips)
            for row, features in enumerate(heard):
                vectors[row] = teacher.vectors(features)[0]
                bar.advance()
        settings = with_network(self.settings, dim=teacher.dim)
        return *self._trained(settings, teacher=vectors), settings

    def _headed(self, frozen: Frozen) -> Headed:
        """Fit a head to what networks hear in each clip and in augmented copies of it."""
        if len(frozen.networks):
            check_front_end(self.settings.log_mel)
        shape = (len(self.clips), 1 + len(self.settings.head.copies), frozen.n_features)
        kept = KeptRows(self.folder, shape, self._fingerprint())
        missing = kept.missing()

        def heard(row: int) -> Float32:
            clip = self.clips[row]
            heard = f"{self.settings.log_mel} {self.settings.network.patches}"
            made_of_it = f"{heard} {self.settings.head.copies} {self.seed}"

            def make() -> Float32:
                return clip_features(frozen, [clip, *copies(clip, self.settings, self.seed)], self.settings)

            return remembered(frozen, clip.samples, made_of_it, make)

        with self.progress.bar("audio: published features", len(self.clips), "clips") as bar:
            bar.advance(len(self.clips) - len(missing))
            for row, features in zip(missing, in_threads(heard, missing), strict=True):
                kept.put(row, features)
                bar.advance()
        return Headed(frozen, fit_head(kept.rows, frozen.block_sizes, self.targets, self.settings.head))

    def _fingerprint(self) -> str:
        """Name all that decides the fit: clips, labels, settings and seed."""
        if self.folder is None:
            return ""
        digest = hashlib.blake2b(f"{self.seed} {self.settings.model_dump_json()}".encode(), digest_size=16)
        for clip in self.clips:
            digest.update(zlib.crc32(clip.samples.tobytes()).to_bytes(4))
        for label in fields(self.targets):
            digest.update(np.ascontiguousarray(getattr(self.targets, label.name)).tobytes())
        return digest.hexdigest()


def _published_networks(weights: Path) -> Frozen:
    return Frozen([load_musicnn(weights, name) for name in NAMES])


def copies(clip: Clip, settings: AudioSettings, seed: int) -> Iterator[Clip]:
    """Make the augmented copies of a clip, which depend on nothing but the clip and the seed."""
    content = zlib.crc32(clip.samples.tobytes())
    for place, kind in enumerate(settings.head.copies):
        rng = np.random.default_rng([seed, place, content])
        yield replace(clip, samples=augmented(clip.samples, clip.sample_rate, kind, rng))
