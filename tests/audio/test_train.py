"""Training by gradient: what is learned, what is seen of a clip, what stays as it was."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.labels import labelled
from helpers.tones import tones
from recsys.audio.model import Origin, SoundModel
from recsys.audio.networks.conv1d import Pooled
from recsys.audio.networks.musicnn import MusicNN
from recsys.audio.settings import AudioSettings, LogMelSettings, NetworkSettings, TrainSettings
from recsys.audio.train import _freeze, _Training, train_network
from recsys.content.tasks import Heads
from recsys.types import Clip
from recsys.util.progress import Silent
from recsys.util.threads import torch_threads
from recsys.util.training import Checkpoint

CONV1D = NetworkSettings(name="conv1d", start="random", width=24, dim=12)
SETTINGS = AudioSettings(
    network=CONV1D,
    log_mel=LogMelSettings(patch_frames=62, patch_hop_frames=62),  # a second: a third of the cost
    train=TrainSettings(epochs=20, contrast=0.0, augmented_share=0.0),
)


def with_train(**changes: object) -> AudioSettings:
    return SETTINGS.model_copy(update={"train": SETTINGS.train.model_copy(update=changes)})


def accuracy(network: Pooled, genres: Sequence[int], clips: Sequence[Clip], n_known: int) -> float:
    """Share of the later clips whose nearest among the first ones is of their genre."""
    vectors = SoundModel(network, SETTINGS, Origin(SETTINGS)).embed(clips)
    nearest = (vectors[n_known:] @ vectors[:n_known].T).argmax(axis=1)
    return float(np.mean(np.array(genres)[nearest] == genres[n_known:]))


@pytest.mark.parametrize(
    "name",
    ["conv1d", *(pytest.param(n, marks=pytest.mark.slow) for n in ("dense", "gru", "contrast and augmentation"))],
)
def test_planted_genres_are_learned(name: str) -> None:
    settings = with_train(epochs=10)
    if name in {"dense", "gru"}:
        changes = {"name": "dense"} if name == "dense" else {"pooling": "gru"}
        settings = settings.model_copy(update={"network": CONV1D.model_copy(update=changes)})
    elif name != "conv1d":
        settings = with_train(epochs=10, contrast=0.5, contrast_between="artist", augmented_share=0.3)
    genres, artists, clips = tones(90)
    network, curve = train_network(clips[:72], labelled(genres[:72], artists[:72]), settings, 0, Silent())
    assert accuracy(network, genres, clips, 72) > 0.9
    assert not network.training
    assert 1 <= len(curve) <= 10
    assert {"held-out cost", "genre", "training cost"} <= set(curve[0])


@pytest.mark.slow
def test_a_teacher_is_imitated() -> None:
    genres, artists, clips = tones(60)
    directions = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0].astype(np.float32)
    teacher = directions[np.array(genres)]
    settings = with_train(epochs=15)
    network, curve = train_network(clips, labelled(genres, artists), settings, 0, Silent(), teacher=teacher)
    vectors = SoundModel(network, SETTINGS, Origin(SETTINGS)).embed(clips)
    assert float((vectors * teacher).sum(axis=1).mean()) > 0.8
    assert set(curve[0]) == {"epoch", "held-out cost", "training cost", "seconds"}


def test_the_best_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    genres, artists, clips = tones(36, 1.0)

    def trained(epochs: int, patience: int, costs: list[float]) -> str:
        monkeypatch.setattr(_Training, "_held_out_costs", lambda *_: {"held-out cost": costs.pop(0)})
        settings = with_train(epochs=epochs, patience=patience)
        network, _ = train_network(clips, labelled(genres, artists), settings, 0, Silent())
        return SoundModel(network, settings, Origin(settings)).version

    after_two = trained(2, 9, [2.0, 1.0])
    costs = [2.0, 1.0, 1.5, 1.5, 0.1]
    assert trained(9, 2, costs) == after_two
    assert costs == [0.1]  # stopped before it
    assert trained(9, 3, [2.0, 1.0, 1.5, 1.5, 0.1, 1.0, 1.0, 1.0]) != after_two


def test_whole_artists_are_held_out_and_are_no_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def fit(self: _Training, held_out: np.ndarray, *_: object) -> list[dict[str, float]]:
        seen.append((held_out, self._heads.artists.numpy()))
        return []

    monkeypatch.setattr(_Training, "fit", fit)
    artists = np.arange(60) % 12
    clips = [Clip(np.zeros(16_000, np.float32), 16_000, 1.0)] * 60
    train_network(clips, labelled([0, 1, 2] * 20, artists.tolist()), SETTINGS, 0, Silent())
    held_out, classes = seen[0]
    assert 4 <= held_out.sum() <= 9
    assert not set(artists[held_out]) & set(artists[~held_out])
    assert classes.tolist() == np.where(held_out, -1, artists).tolist()
    train_network(clips, labelled([0] * 60, artists.tolist()), SETTINGS, 0, Silent())
    held_out, classes = seen[1]  # with artists alone to learn, they must be known where they are judged
    assert classes.tolist() == artists.tolist()
    assert set(artists[held_out]) <= set(artists[~held_out])


def test_training_repeats_and_leaves_the_callers_torch_alone() -> None:
    genres, artists, clips = tones(24, 1.0)
    settings = with_train(epochs=2, contrast=0.3, augmented_share=0.5)
    state = torch.random.get_rng_state()
    targets = labelled(genres, artists)
    with torch_threads(2):
        made = [train_network(clips, targets, settings, seed, Silent())[0] for seed in (3, 3, 4)]
        assert torch.get_num_threads() == 2
    assert torch.equal(torch.random.get_rng_state(), state)
    versions = [SoundModel(network, settings, Origin(settings)).version for network in made]
    assert versions[0] == versions[1] != versions[2]


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genres, artists, clips = tones(24, 1.0)
    settings, targets = with_train(epochs=4, augmented_share=0.5), labelled(genres, artists)
    checkpoint = Checkpoint(tmp_path, "this run", every_s=0.0)

    def trained(checkpoint: Checkpoint | None) -> tuple[str, int]:
        network, curve = train_network(clips, targets, settings, 0, Silent(), checkpoint=checkpoint)
        return SoundModel(network, settings, Origin(settings)).version, len(curve)

    whole = trained(None)
    epoch, n_seen = _Training._epoch, []

    def killed(self: _Training, *arguments: object) -> float:
        n_seen.append(1)
        if len(n_seen) == 3:
            raise KeyboardInterrupt
        return epoch(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(_Training, "_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(checkpoint)
    n_after: list[int] = []
    monkeypatch.setattr(_Training, "_epoch", lambda *arguments: (n_after.append(1), epoch(*arguments))[1])
    assert trained(checkpoint) == whole
    assert len(n_after) == 2


def test_without_labels_the_network_stays_random_and_says_so() -> None:
    class Told(Silent):
        lines: tuple[str, ...] = ()

        def log(self, line: str) -> None:
            self.lines += (line,)

    told = Told()
    targets = labelled([0] * 4)  # one genre is none
    silence = [Clip(np.zeros(16_000, np.float32), 16_000, 1.0)] * 4
    network, curve = train_network(silence, targets, SETTINGS, 0, told)
    assert len(told.lines) == 1
    assert "stays as it starts" in told.lines[0]
    assert curve == []
    assert not network.training
    train_network([], labelled([0, 1]).take(np.array([], int)), SETTINGS, 0, told)
    assert len(told.lines) == 2


@pytest.mark.parametrize(("pooling", "n_patches"), [("mean", 1), ("gru", 4)])
def test_training_sees_patches_from_all_over_a_clip(pooling: str, n_patches: int) -> None:
    network_settings = CONV1D.model_copy(update={"pooling": pooling})
    settings = SETTINGS.model_copy(update={"network": network_settings, "log_mel": LogMelSettings()})
    beats = np.zeros(16 * 187 * 256, np.float32)
    beats[:: 187 * 256] = np.linspace(0.1, 1, 16)  # a click of its own loudness every 3 s
    clip = Clip(beats, 16_000, 48.0)
    targets = labelled([0, 1])
    network, heads = Pooled(torch.nn.Identity(), 12, settings.network), Heads(12, targets, settings.tasks)
    training = _Training(network, heads, [clip, clip], targets, settings)
    rng = np.random.default_rng(0)
    cut = [training._random_patches(clip, rng) for _ in range(200)]
    assert {patch.shape for patch in cut} == {(n_patches, 96, 187)}
    loudest = {round(float(patch.max()), 1) for patch in cut}
    assert len(loudest) > 16 // n_patches - 2
    short = Clip(beats[:1000], 16_000, 0.1)
    assert training._random_patches(short, rng).shape == (n_patches, 96, 187)


def test_a_partner_is_another_track_of_the_artist() -> None:
    targets = labelled([0, 1, 0, 1, 0], [0, 1, 0, -1, -1])
    heads = Heads(12, targets, SETTINGS.tasks)
    training = _Training(Pooled(torch.nn.Identity(), 12, CONV1D), heads, [], targets, SETTINGS)
    partners = training._partners(np.arange(5), np.random.default_rng(0))
    assert partners.tolist() == [2, 1, 0, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize(("tune", "front_moves"), [("last", False), ("all", True)])
def test_what_is_frozen_does_not_move(tune: str, front_moves: bool) -> None:
    genres, artists, clips = tones(12, 1.0)
    network = NetworkSettings.model_validate({"name": "musicnn", "start": "pretrained", "tune": tune})
    log_mel_settings = SETTINGS.log_mel.model_copy(update={"patch_frames": 20})
    settings = SETTINGS.model_copy(
        update={"network": network, "log_mel": log_mel_settings, "train": TrainSettings(epochs=1, batch=4)}
    )
    torch.manual_seed(0)
    start = MusicNN().state_dict()
    trained, _ = train_network(clips, labelled(genres, artists), settings, 0, Silent(), start)
    after = trained.patch_network.state_dict()
    moved = {name for name in start if not torch.equal(start[name], after[name])}
    assert any(name.startswith("front.0.convolution") for name in moved) == front_moves
    assert {"middle.0.convolution.weight", "dense.weight"} <= moved
    assert not any("running" in name for name in moved)  # the norms keep the published statistics


def test_a_random_musicnn_is_trained_whole() -> None:
    network = Pooled(MusicNN(), 200, NetworkSettings(name="musicnn", start="random", tune="last"))
    assert _freeze(network, NetworkSettings(name="musicnn", start="random", tune="last")) == []
    assert all(weights.requires_grad for weights in network.parameters())
