"""From settings and weights to a fitted model: what is chosen, what it comes from, what a kill costs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.labels import labelled
from helpers.made_musicnn import made_up
from helpers.tones import tones
from recsys.audio import fit
from recsys.audio.fit import copies, fit_sound_model, train_sound_model
from recsys.audio.model import Origin, SoundModel
from recsys.audio.networks.choice import settled
from recsys.audio.networks.conv1d import build_network
from recsys.audio.networks.frozen import Frozen, clip_features, remembered_features
from recsys.audio.networks.musicnn_front import fastest_dtype
from recsys.audio.networks.weights import WEIGHTS_SHA256
from recsys.audio.sample import ClipSample
from recsys.audio.settings import AudioSettings, HeadSettings, LogMelSettings, NetworkSettings, TrainSettings
from recsys.errors import ConfigError
from recsys.types import Clip
from recsys.util.progress import Silent
from recsys.util.threads import in_threads

pytestmark = pytest.mark.usefixtures("decoded_here")


class Told(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


def asked(n_copies: int = 1, **network: object) -> AudioSettings:
    copies = HeadSettings().copies[:n_copies]
    return AudioSettings(
        network=NetworkSettings.model_validate({"width": 8, "dim": 12, **network}),
        train=TrainSettings(epochs=2),
        head=HeadSettings(copies=copies, min_clips=6),
    )


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published weights that are made up, so that nothing is fetched."""
    monkeypatch.setattr(fit, "musicnn_weights", lambda: Path("made-up"))
    monkeypatch.setattr(fit, "load_musicnn", lambda *_: made_up(fastest_dtype()))


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "musicnn_weights", lambda: None)


HERE = Path("weights")


@pytest.mark.parametrize(
    ("network", "n_tracks", "folder", "expected"),
    [
        ({}, 20_000, HERE, ("musicnn", "pretrained", "head")),
        ({}, 20_001, HERE, ("conv1d", "pretrained", "head")),
        ({}, 5, None, ("conv1d", "random", "head")),
        ({"start": "random"}, 5, HERE, ("conv1d", "random", "head")),
        ({"pooling": "gru"}, 5, HERE, ("conv1d", "pretrained", "head")),
        ({"name": "musicnn"}, 50_000, HERE, ("musicnn", "pretrained", "head")),
        ({"name": "musicnn"}, 5, None, ("musicnn", "random", "all")),
        ({"name": "musicnn", "start": "random"}, 5, HERE, ("musicnn", "random", "all")),
        ({"name": "dense"}, 5, HERE, ("dense", "pretrained", "head")),
    ],
)
def test_what_is_left_open_is_settled(
    network: dict[str, object], n_tracks: int, folder: Path | None, expected: tuple[str, str, str]
) -> None:
    told = Told()
    chosen = settled(asked(patches=3, **network), n_tracks, folder, told).network
    assert (chosen.name, chosen.start, chosen.tune) == expected
    assert chosen.patches == (3 if expected == ("musicnn", "pretrained", "head") else "all")
    misses = folder is None and network.get("start") != "random"
    assert [("weights are not here" in line, chosen.name in line) for line in told.lines] == [(True, True)] * misses


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(
    ("network", "label", "n_weights", "dim", "trained"),
    [
        pytest.param({}, "musicnn, fitted head", 2, None, False, marks=pytest.mark.slow),
        ({"name": "musicnn", "tune": "none"}, "musicnn, as published", 1, 200, False),
        pytest.param(
            {"name": "musicnn", "tune": "last"}, "musicnn, last layers tuned", 1, 200, True, marks=pytest.mark.slow
        ),
        pytest.param({"name": "conv1d"}, "conv1d, taught by musicnn", 2, None, True, marks=pytest.mark.slow),
        ({"name": "conv1d", "start": "random"}, "conv1d, random start", 0, 12, True),
        ({"name": "dense", "start": "random"}, "dense, random start", 0, 12, True),
    ],
)
def test_every_start_gives_a_model_that_says_what_it_is(
    network: dict[str, object], label: str, n_weights: int, dim: int | None, trained: bool, tmp_path: Path
) -> None:
    genres, artists, clips = tones(12, 1.0)
    model = fit_sound_model(clips, labelled(genres, artists), asked(**network), 0, Silent())
    assert model.label == label
    assert model.origin.asked == asked(**network)
    assert model.origin.weights == dict(list(WEIGHTS_SHA256.items())[:n_weights])
    assert bool(model.origin.curve) == trained
    vectors = model.embed(clips)
    assert vectors.shape == (12, model.dim)
    assert dim in {None, model.dim}
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert float(np.abs(vectors[0] - vectors[1]).max()) > 1e-3
    np.testing.assert_allclose(vectors[:3], np.concatenate([model.embed([one]) for one in clips[:3]]), atol=1e-5)
    model.save(tmp_path)
    loaded = SoundModel.load(tmp_path)
    assert (loaded.version, loaded.label, loaded.origin) == (model.version, label, model.origin)
    np.testing.assert_array_equal(loaded.embed(clips[:2]), model.embed(clips[:2]))


@pytest.mark.usefixtures("no_weights")
def test_without_weights_a_random_start_is_told() -> None:
    genres, artists, clips = tones(12, 1.0)
    told = Told()
    model = fit_sound_model(clips, labelled(genres, artists), asked(), 0, told)
    assert (model.label, model.origin.weights) == ("conv1d, random start", {})
    assert any("recsys weights musicnn" in line for line in told.lines)


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("name", ["auto", "conv1d"])
def test_a_handful_of_clips_leaves_the_published_network_alone(name: str) -> None:
    genres, artists, clips = tones(5, 1.0)
    told = Told()
    model = fit_sound_model(clips, labelled(genres, artists), asked(name=name), 0, told)
    assert model.label == "musicnn, as published"
    assert "5 clips are too few to fit a head to, expected 6" in told.lines[0]
    nothing = fit_sound_model([], labelled(genres).take(np.array([], int)), asked(name=name), 0, told)
    assert nothing.embed(clips).shape == (5, 200)


@pytest.mark.usefixtures("weights")
def test_the_published_front_end_is_insisted_on() -> None:
    genres, artists, clips = tones(6, 1.0)
    other = asked(name="musicnn", tune="head").model_copy(update={"log_mel": LogMelSettings(hop_length=200)})
    with pytest.raises(ConfigError, match="hop_length is 200, musicnn needs 256"):
        fit_sound_model(clips, labelled(genres, artists), other, 0, Silent())


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
def test_a_killed_head_does_not_listen_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genres, artists, clips = tones(8, 1.0)
    targets, heard = labelled(genres, artists), []

    def counted(function: Callable[..., object], stop_at: int | None) -> Callable[..., object]:
        def call(frozen: Frozen, of: list[Clip], settings: AudioSettings) -> object:
            heard.append(1)
            if stop_at is not None and len(heard) > stop_at:
                raise KeyboardInterrupt
            return function(frozen, of, settings)

        return call

    def fitted(folder: Path | None) -> SoundModel:
        settings = asked()
        chosen = settled(settings, 8, HERE, Silent())
        return fit._Fitting(clips, targets, chosen, 0, Silent(), folder).model(settings)

    whole = fitted(None)
    with monkeypatch.context() as patch:
        patch.setattr(fit, "clip_features", counted(clip_features, 4))
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path / "training")
    heard.clear()
    monkeypatch.setattr(fit, "clip_features", counted(clip_features, None))
    assert fitted(tmp_path / "training").version == whole.version
    assert 4 <= len(heard) < 8


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
@pytest.mark.usefixtures("apart")
def test_a_catalogue_larger_than_its_sample(tmp_path: Path) -> None:
    from helpers.audio_files import encoded, melody, write_all

    files = {f"{n}.wav": encoded(melody(1.5, n), "WAV") for n in range(5)} | {"text.wav": b"no sound " * 99}
    paths = list(enumerate(write_all(tmp_path, files)))
    settings = asked(name="conv1d", start="random").model_copy(
        update={"train": TrainSettings(epochs=1, train_tracks=4)}
    )
    model = train_sound_model(paths, labelled([0, 1] * 3), settings, 0, Silent())
    assert model.embed(tones(1, 2.0)[2]).shape == (1, 12)


def test_copies_depend_on_the_clip_and_the_seed_alone() -> None:
    first, second = tones(2, 1.0)[2]
    settings = asked(n_copies=3)
    made = [copy.samples for copy in copies(first, settings, 0)]
    assert len(made) == 3
    assert all(map(np.array_equal, made, [copy.samples for copy in copies(first, settings, 0)]))
    for other in (copies(first, settings, 1), copies(second, settings, 0)):
        assert not all(map(np.array_equal, made, [copy.samples for copy in other]))


def test_of_two_networks_the_first_hears_every_second_patch() -> None:
    first, second = made_up(torch.float32), made_up(torch.float32)
    second.dense.bias.data += 1
    clips = torch.rand(1, 5, 96, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        both = Frozen([first, second])(clips)
        alone = [Frozen([first])(clips[:, ::2]), Frozen([second])(clips)]
        every = Frozen([first])(clips)
    torch.testing.assert_close(both, torch.cat(alone, dim=1))
    assert not torch.allclose(alone[0], every)


def test_each_network_hears_its_own_patches_spread_over_the_clip() -> None:
    first, second = made_up(torch.float32), made_up(torch.float32)
    clips = torch.rand(1, 10, 96, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        both = Frozen([first, second])(clips, 3)
        alone = [Frozen([first])(clips[:, [0, 4, 7]]), Frozen([second])(clips[:, [2, 5, 9]])]
        torch.testing.assert_close(both, torch.cat(alone, dim=1))
        torch.testing.assert_close(Frozen([first])(clips, 2), Frozen([first])(clips[:, [2, 7]]))
        short = Frozen([first, second])(clips[:, :3], 3)
        torch.testing.assert_close(short, torch.cat([Frozen([first])(clips[:, :3])] * 2, dim=1))


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
def test_fewer_patches_are_another_version(tmp_path: Path) -> None:
    """What was saved before there was a choice hears all patches, under the version that it had."""
    genres, artists, clips = tones(6, 6.5)
    targets = labelled(genres, artists)
    few, every = (fit_sound_model(clips, targets, asked(n_copies=0, patches=n), 0, Silent()) for n in (1, "all"))
    assert (few.settings.network.patches, every.settings.network.patches) == (1, "all")
    assert few.version != every.version
    assert float(np.abs(few.embed(clips) - every.embed(clips)).max()) > 1e-3
    every.save(tmp_path)
    about = json.loads((tmp_path / "sound.json").read_text())
    for which in ("settings", "asked"):
        del about[which]["network"]["patches"]
    (tmp_path / "sound.json").write_text(json.dumps(about))
    old = SoundModel.load(tmp_path)
    assert (old.version, old.settings.network.patches) == (every.version, "all")
    assert old.origin.asked == asked(n_copies=0), "so that the next build goes on with it"
    np.testing.assert_array_equal(old.embed(clips), every.embed(clips))


def test_features_are_remembered_by_content_and_network(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = tones(3, 1.0)[2]
    settings = asked()
    frozen, asked_for = Frozen([made_up(fastest_dtype())]), []
    forward = Frozen.forward
    monkeypatch.setattr(Frozen, "forward", lambda self, x, most: (asked_for.append(len(x)), forward(self, x, most))[1])
    first = clip_features(frozen, clips, settings)
    with remembered_features():
        again = [clip_features(frozen, part, settings) for part in (clips, clips[::-1], clips[:1])]
    assert len(asked_for) == 6
    np.testing.assert_array_equal(again[0], first)
    np.testing.assert_array_equal(again[1], first[::-1])
    assert first.shape == (3, frozen.n_features)
    other = made_up(fastest_dtype())
    other.dense.bias.data += 1
    with remembered_features():
        clip_features(frozen, clips[:1], settings)
        changed = clip_features(Frozen([other]), clips[:1], settings)
    assert not np.array_equal(changed[0], first[0])


def test_a_sample_gives_clips_back(tmp_path: Path) -> None:
    clips = [*tones(3, 0.5)[2], Clip(np.array([-1, 1, 0.5, -2], np.float32), 16_000, 99.0)]
    with (tmp_path / "scratch").open("w+b") as file:
        sample = ClipSample(file, 16_000)
        for clip in clips:
            sample.append(clip)
        assert (len(sample), [one.duration_s for one in sample]) == (4, [0.5, 0.5, 0.5, 99.0])
        for clip, found in zip(clips, sample, strict=True):
            np.testing.assert_allclose(found.samples, np.clip(clip.samples, -1, 1), atol=1 / 32_000)
        taken = sample.take(np.array([3, 0]))
        assert [len(one.samples) for one in taken] == [4, 8000]
        assert [len(one.samples) for one in sample[1:]] == [8000, 8000, 4]
        np.testing.assert_array_equal(sample[-1].samples, taken[0].samples)


def test_embedding_leaves_a_gru_where_it_is() -> None:
    """Laying its weights out anew, as ``to`` does, breaks what other threads are doing with them."""
    settings = asked(name="conv1d", start="random", pooling="gru")
    network = build_network(settings.network, settings.log_mel).eval()
    laid_out = network.gru._flat_weights
    SoundModel(network, settings, Origin(settings)).embed(tones(1, 0.5)[2])
    assert network.gru._flat_weights is laid_out


def test_threads_read_a_sample_at_once(tmp_path: Path) -> None:
    with (tmp_path / "scratch").open("w+b") as file:
        sample = ClipSample(file, 16_000)
        for n in range(40):
            sample.append(Clip(np.full(50_000, n / 40, np.float32), 16_000, 1.0))
        rows = [n % 40 for n in range(800)]
        for row, clip in zip(rows, in_threads(sample.__getitem__, rows, 4), strict=True):
            assert np.all(np.abs(clip.samples - row / 40) < 1e-3)
