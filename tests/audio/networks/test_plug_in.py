"""A network of the user's own: what it hears, what is refused, and that its vectors are the same wherever made."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import made_onnx
from helpers.labels import labelled
from helpers.made_musicnn import made_up
from helpers.made_onnx import N_SAMPLES, SAMPLE_RATE, WAVE_S, log_mel_model, wave_model, weights, written
from helpers.tones import tones
from recsys.audio import fit
from recsys.audio.fit import fit_sound_model
from recsys.audio.logmel import log_mel, patches
from recsys.audio.model import SoundModel
from recsys.audio.networks.frozen import clip_features, remembered_features
from recsys.audio.networks.head import Headed
from recsys.audio.networks.musicnn_front import fastest_dtype
from recsys.audio.networks.plug_in import PlugIn, read_plug_in
from recsys.audio.networks.unfitted import Unfitted
from recsys.audio.settings import AudioSettings, DecodeSettings, HeadSettings, LogMelSettings, NetworkSettings
from recsys.errors import ArtefactError, ConfigError, DataError, MissingExtraError
from recsys.types import Clip, Float32
from recsys.util.progress import Silent

pytest.importorskip("onnxruntime")


def network(folder: Path, data: bytes, **changes: object) -> NetworkSettings:
    path, digest = written(folder, data)
    own = {"name": "onnx", "model": path, "sha256": digest, "window_s": WAVE_S, "hop_s": WAVE_S / 2, "beside": "none"}
    return NetworkSettings.model_validate(own | {"outputs": ("squares", "frames")} | changes)


def plug_in(folder: Path, data: bytes, **changes: object) -> PlugIn:
    return read_plug_in(network(folder, data, **changes), LogMelSettings())


def settings(folder: Path, **changes: object) -> AudioSettings:
    copies = HeadSettings().copies[:1]
    return AudioSettings(
        network=network(folder, wave_model(), **changes), head=HeadSettings(copies=copies, min_clips=6)
    )


def noise(seconds: float, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).normal(size=round(seconds * SAMPLE_RATE)).astype(np.float32) / 10


def by_hand(windows: list[Float32]) -> Float32:
    products = np.stack(windows) @ weights()
    frames = products.reshape(-1, 2, 3).mean(axis=1)
    return np.concatenate([part for x in (products**2, frames) for part in (x.mean(axis=0), x.std(axis=0))])


# ---- what it hears -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", ["n", 1])
def test_windows_of_samples_are_pooled(batch: int | str, tmp_path: Path) -> None:
    model = plug_in(tmp_path, wave_model(batch))
    samples = noise(2.9)
    starts = range(0, len(samples) - N_SAMPLES + 1, N_SAMPLES // 2)
    assert len(starts) == 22, "more than are run at once"
    expected = by_hand([samples[start : start + N_SAMPLES] for start in starts])
    assert (model.n_features, model.block_sizes, model.mean_blocks) == (18, (6, 6, 3, 3), [0, 2])
    np.testing.assert_allclose(model.features(samples), expected, rtol=1e-3, atol=1e-5)


def test_a_short_clip_is_repeated(tmp_path: Path) -> None:
    samples = noise(0.1)
    expected = by_hand([np.tile(samples, 3)[:N_SAMPLES]])
    np.testing.assert_allclose(plug_in(tmp_path, wave_model()).features(samples), expected, rtol=1e-3, atol=1e-5)


def test_no_window_lies_across_two_stretches(tmp_path: Path) -> None:
    first, second = noise(0.3, 1), noise(0.3, 2)
    found = plug_in(tmp_path, wave_model()).features(np.concatenate([first, second]), 2)
    expected = by_hand([first[:N_SAMPLES], second[:N_SAMPLES]])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "axis"), [(["n", 96, "t"], 2), ([1, 96, 62], 2), (["n", 62, 96], 1), (["n", 1, 96, 62], 3)]
)
def test_log_mel_goes_in_as_the_model_takes_it(shape: list[int | str], axis: int, tmp_path: Path) -> None:
    model = plug_in(tmp_path, log_mel_model(shape, axis), input="log-mel", outputs=("mean",), window_s=1.0, hop_s=0.5)
    samples = noise(2.2)
    front = LogMelSettings(patch_frames=62, patch_hop_frames=31)
    cut = patches(log_mel(torch.from_numpy(samples[None]), front), front)[0].numpy().mean(axis=2)
    np.testing.assert_allclose(model.features(samples), np.concatenate([cut.mean(0), cut.std(0)]), atol=1e-5)


# ---- what is refused -----------------------------------------------------------------------------------------


def test_another_file_is_refused_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = network(tmp_path, wave_model())
    Path(str(chosen.model)).write_bytes(wave_model(1))
    monkeypatch.setattr("recsys.audio.networks.plug_in._session", None)
    with pytest.raises(ConfigError, match=r"has the SHA-256 [0-9a-f]{64}, audio.network.sha256 is .*another file"):
        read_plug_in(chosen, LogMelSettings())
    Path(str(chosen.model)).unlink()
    with pytest.raises(ConfigError, match=r"made.onnx cannot be read: No such file"):
        read_plug_in(chosen, LogMelSettings())


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit_sound_model([], labelled([0]).take(np.array([], int)), settings(tmp_path), 0, Silent())
    (tmp_path / "sound").mkdir()
    model.save(tmp_path / "sound")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"needs onnxruntime: pip install 'recsys\[onnx\]'"):
        plug_in(tmp_path, wave_model())
    with pytest.raises(MissingExtraError, match=r"recsys\[onnx\]"):
        SoundModel.load(tmp_path / "sound")


class Trap:
    """Tells when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("unpickled",))


def bytes_of_strangers() -> dict[str, bytes]:
    import pickle

    return {
        "nothing": b"",
        "text": b"a model " * 99,
        "half": wave_model()[:5000],
        "pickle": pickle.dumps(Trap()),
        "other file": wave_model(tensors=[made_onnx.external_tensor("weights", (N_SAMPLES, 6), "weights.bin")]),
        "absolute": wave_model(tensors=[made_onnx.external_tensor("weights", (N_SAMPLES, 6), "/etc/passwd")]),
    }


@pytest.mark.parametrize("kind", ["nothing", "text", "half", "pickle", "other file", "absolute"])
def test_what_is_no_whole_model_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    weights().tofile(tmp_path / "weights.bin")
    with pytest.raises(ConfigError, match="the ONNX model cannot be loaded"):
        plug_in(tmp_path, bytes_of_strangers()[kind])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outputs": ("squares", "tags")}, "no output 'tags', it has squares, frames"),
        ({"window_s": 0.5}, "cannot be run on windows"),
        ({"input": "log-mel"}, "which is no log-mel"),
    ],
)
def test_what_does_not_fit_is_said(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        plug_in(tmp_path, wave_model(), **changes)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    samples = noise(0.5)
    samples[7] = np.inf
    with pytest.raises(DataError, match="not finite"):
        plug_in(tmp_path, wave_model()).features(samples)


# ---- as the network of a catalogue ---------------------------------------------------------------------------


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "musicnn_weights", lambda: Path("made-up"))
    monkeypatch.setattr(fit, "load_musicnn", lambda *_: made_up(fastest_dtype()))


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("n", "changes", "kind", "label"),
    [
        (12, {}, Headed, "fitted head"),
        (5, {}, Unfitted, "as it comes"),
        (12, {"tune": "none"}, Unfitted, "as it comes"),
        pytest.param(8, {"beside": "musicnn"}, Headed, "fitted head, beside musicnn", marks=pytest.mark.slow),
        (8, {"beside": "musicnn", "tune": "none"}, Unfitted, "as it comes, beside musicnn"),
    ],
)
def test_a_model_says_what_it_is_and_comes_back_the_same(
    n: int, changes: dict[str, object], kind: type, label: str, tmp_path: Path
) -> None:
    genres, artists, clips = tones(n, 1.0)
    asked = settings(tmp_path, **changes)
    model = fit_sound_model(clips, labelled(genres, artists), asked, 0, Silent())
    assert isinstance(model.network, kind)
    assert model.label == f"onnx {str(asked.network.sha256)[:12]}, {label}"
    assert model.origin.weights["onnx"] == asked.network.sha256
    assert len(model.origin.weights) == (3 if asked.network.beside == "musicnn" else 1)
    vectors = model.embed(clips)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert kind is Headed or model.dim == 9 + (400 if asked.network.beside == "musicnn" else 0)
    home = tmp_path / "sound"
    home.mkdir()
    model.save(home)
    Path(str(asked.network.model)).unlink()  # a generation needs nothing else
    loaded = SoundModel.load(home)
    assert (loaded.version, loaded.label, loaded.origin) == (model.version, model.label, model.origin)
    np.testing.assert_array_equal(loaded.embed(clips), vectors)


def test_a_saved_model_that_was_changed_is_damaged(tmp_path: Path) -> None:
    model = fit_sound_model(tones(3)[2], labelled([0, 1, 2]), settings(tmp_path), 0, Silent())
    model.save(tmp_path)
    (tmp_path / "sound.onnx").write_bytes(wave_model(1))
    with pytest.raises(ArtefactError, match="the ONNX model has the SHA-256"):
        SoundModel.load(tmp_path)
    (tmp_path / "sound.onnx").unlink()
    with pytest.raises(ArtefactError, match="cannot be read"):
        SoundModel.load(tmp_path)


def test_every_setting_but_the_place_is_in_the_version(tmp_path: Path) -> None:
    def version(asked: AudioSettings) -> str:
        return fit_sound_model(tones(3)[2], labelled([0, 1, 2]), asked, 0, Silent()).version

    first = version(settings(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    assert version(settings(tmp_path / "elsewhere")) == first
    others = [{"hop_s": WAVE_S}, {"outputs": ("squares",)}, {"outputs": ("frames", "squares")}]
    versions = [version(settings(tmp_path, **changes)) for changes in others]
    bytes_ = AudioSettings(network=network(tmp_path, wave_model(1)))
    assert len({first, version(bytes_), *versions}) == 5


def test_clips_come_at_the_networks_own_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "musicnn_weights", lambda: Path("made-up"))
    monkeypatch.setattr(fit, "load_musicnn", lambda *_: made_up(fastest_dtype()))
    asked = settings(tmp_path, sample_rate=32_000, window_s=WAVE_S / 2, hop_s=WAVE_S / 2, beside="musicnn")
    slow = tones(3, 1.0)[2]
    clips = [Clip(np.repeat(clip.samples, 2), 32_000, 1.0) for clip in slow]
    model = fit_sound_model(clips, labelled([0, 1, 2]), asked, 0, Silent())
    assert model.settings.decode == DecodeSettings(sample_rate=32_000)
    frozen = model.network.frozen
    heard = clip_features(frozen, clips, model.settings)
    own = frozen.plug_in
    np.testing.assert_array_equal(heard[0, -own.n_features :], own.features(clips[0].samples))
    at_16k = AudioSettings(network=NetworkSettings(name="musicnn"))
    frozen.plug_in, frozen.n_features = None, frozen.n_features - own.n_features
    alone = clip_features(frozen, slow, at_16k)
    assert heard.shape[1] == alone.shape[1] + own.n_features
    assert all(np.corrcoef(a[: alone.shape[1]], b)[0, 1] > 0.99 for a, b in zip(heard, alone, strict=True))
    with pytest.raises(DataError, match="16000 samples a second, expected 32000"):
        model.embed(slow)


def test_what_is_beside_must_be_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "musicnn_weights", lambda: None)
    with pytest.raises(ConfigError, match="recsys weights musicnn"):
        fit_sound_model(tones(3)[2], labelled([0, 1, 2]), settings(tmp_path, beside="musicnn"), 0, Silent())


def test_features_of_two_plug_ins_are_remembered_apart(tmp_path: Path) -> None:
    clips = tones(3)[2]
    with remembered_features():
        first, second = (
            fit_sound_model(clips, labelled([0, 1, 2]), settings(tmp_path, outputs=(name,)), 0, Silent()).embed(clips)
            for name in ("squares", "frames")
        )
    assert (first.shape, second.shape) == ((3, 6), (3, 3))


def test_only_the_description_names_the_file(tmp_path: Path) -> None:
    fit_sound_model(tones(3)[2], labelled([0, 1, 2]), settings(tmp_path), 0, Silent()).save(tmp_path)
    about = json.loads((tmp_path / "sound.json").read_text())
    assert about["settings"]["network"]["model"] == str(tmp_path / "made.onnx")
