"""The published weights: fetching them from a wheel, and what they give where they have been fetched."""

import importlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from golden.make_musicnn import tensors
from helpers.command import run
from helpers.places import SHARED
from helpers.tf_bundle import bundle
from recsys.audio.decoding.decode import decode
from recsys.audio.logmel import log_mel, patches
from recsys.audio.networks import weights
from recsys.audio.networks.musicnn import MusicNN
from recsys.audio.settings import DecodeSettings, LogMelSettings
from recsys.errors import ArtefactError
from recsys.util.progress import Silent

REFERENCE = SHARED / "reference" / "musicnn"
PUBLISHED = weights.musicnn_weights()  # before any test points the cache elsewhere
needs_weights = pytest.mark.skipif(PUBLISHED is None, reason="run `recsys weights musicnn` first")


def wheel(folder: Path) -> None:
    index, data = bundle(tensors())
    with zipfile.ZipFile(folder / "musicnn-0.1.0-py3-none-any.whl", "w") as file:
        for member in ("musicnn/MSD_musicnn/", "musicnn/MTT_musicnn/"):
            file.writestr(member + ".index", index)
            file.writestr(member + ".data-00000-of-00001", data)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "recsys" / "musicnn-0.1.0"


@pytest.fixture
def made_up_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel of this file is taken for the published one."""
    state = weights.state_of(tensors())
    network = MusicNN(dtype=torch.float32).eval()
    network.load_state_dict(state)
    with torch.no_grad():
        tags = tuple(network.tags(weights.known_patch())[0, :3].tolist())
    for name in weights.NAMES:
        monkeypatch.setitem(weights.WEIGHTS_SHA256, name, weights.tensors_sha256(state))
        monkeypatch.setitem(weights._KNOWN_TAGS, name, tags)


@pytest.mark.usefixtures("made_up_is_known")
def test_a_wheel_becomes_a_folder_that_loads(cache: Path) -> None:
    assert weights.musicnn_weights() is None
    assert weights.fetch_musicnn(Silent(), wheel) == cache == weights.musicnn_weights()
    assert [path.name for path in sorted(cache.parent.iterdir())] == ["musicnn-0.1.0"], "nothing is left beside"
    about = json.loads((cache / "about.json").read_text())
    assert about["licence"] == "ISC"
    state = weights.load_musicnn(cache, "mtt").state_dict()
    np.testing.assert_array_equal(state["dense.weight"], tensors()["dense/kernel"].T)

    def no_network(folder: Path) -> None:
        raise AssertionError("the weights are here already")

    assert weights.fetch_musicnn(Silent(), no_network) == cache


@pytest.mark.usefixtures("made_up_is_known")
def test_a_damaged_file_is_told(cache: Path) -> None:
    weights.fetch_musicnn(Silent(), wheel)
    path = cache / "msd.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole[:-9] + b"\0" + whole[-8:], b""):
        path.write_bytes(damaged)
        with pytest.raises(ArtefactError, match="delete the folder"):
            weights.load_musicnn(cache)


def test_other_weights_are_refused(cache: Path) -> None:
    with pytest.raises(ArtefactError, match="hash to"):
        weights.fetch_musicnn(Silent(), wheel)
    assert not cache.exists()


@pytest.mark.usefixtures("made_up_is_known")
def test_a_wrong_forward_pass_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights._KNOWN_TAGS, "mtt", (0.5, 0.5))
    with pytest.raises(ArtefactError, match="known output"):
        weights.fetch_musicnn(Silent(), wheel)
    assert not cache.exists()


@pytest.mark.usefixtures("cache")
def test_what_is_no_wheel_is_told() -> None:
    def rubbish(folder: Path) -> None:
        (folder / "musicnn.whl").write_bytes(b"<html>")

    with pytest.raises(ArtefactError, match="not the wheel"):
        weights.fetch_musicnn(Silent(), rubbish)
    with pytest.raises(ArtefactError, match="0 wheels"):
        weights.fetch_musicnn(Silent(), lambda folder: None)


def test_no_index_is_one_line_and_a_status(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        weights.subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(command, 1, "", "a\nERROR: no route\n"),
    )
    ran = run("weights", "musicnn")
    assert ran.status == 4
    assert ran.err.splitlines()[-1].startswith("recsys: pip could not get musicnn==0.1.0 (ERROR: no route)")
    assert not cache.exists()


def test_a_foreign_checkpoint_is_told() -> None:
    with pytest.raises(ArtefactError, match="no checkpoint of musicnn"):
        weights.state_of({"conv2d/kernel": np.zeros((7, 38, 1, 204), np.float32)})


@needs_weights
@pytest.mark.skipif(not REFERENCE.exists(), reason="../shared/reference is not here")
@pytest.mark.parametrize("track", ["3", "85", "164", "245", "325"])
def test_published_features_of_real_music(track: str) -> None:
    """The golden file was made with scipy's resampler; ours (soxr) keeps more of what is just below 8 kHz."""
    network = weights._network(weights.load_musicnn(PUBLISHED).state_dict(), torch.float32)
    emotify = SHARED / "data" / "emotify"
    files = dict(pl.read_csv(emotify / "tracks.csv", infer_schema=False).select("track_id", "path").rows())
    stored, rate = soundfile.read(emotify / files[track])
    resampled = resample_poly(stored, 160, rate * 160 // 16_000).astype(np.float32)
    with np.load(REFERENCE / "golden.npz") as golden, torch.inference_mode():
        known = golden[f"penultimate_{track}"][:3]
        ours = decode(emotify / files[track], DecodeSettings()).clip.samples
        exact, close = (features(network, samples)[:3].numpy() for samples in (resampled, ours))
    np.testing.assert_allclose(exact, known, atol=1e-4)
    assert np.corrcoef(close.ravel(), known.ravel())[0, 1] > 0.98


def features(network: MusicNN, samples: np.ndarray) -> torch.Tensor:
    """The penultimate layer of the first three patches."""
    spectrogram = log_mel(torch.from_numpy(samples)[None], LogMelSettings())
    return network(patches(spectrogram, LogMelSettings())[0, :3])


@needs_weights
@pytest.mark.skipif(not REFERENCE.exists(), reason="../shared/reference is not here")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the reference leaves its files open
def test_published_network_against_the_reference_on_the_same_log_mel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(REFERENCE))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    reference = importlib.import_module("forward_numpy")
    network = weights._network(weights.load_musicnn(PUBLISHED).state_dict(), torch.float32)
    theirs = {name: np.asarray(array) for name, array in tensors_of(network).items()}
    index, data = bundle(theirs)
    (tmp_path / "x.index").write_bytes(index)
    (tmp_path / "x.data-00000-of-00001").write_bytes(data)
    rng = np.random.default_rng(4)
    made = rng.gamma(1.0, 1.2, (96, 187)).astype(np.float32)
    tags, penultimate, _ = reference.M(str(tmp_path / "x"))(made.T)
    with torch.inference_mode():
        np.testing.assert_allclose(network(torch.from_numpy(made)[None])[0], penultimate, atol=2e-5)
        np.testing.assert_allclose(network.tags(torch.from_numpy(made)[None])[0], tags, atol=1e-5)


def tensors_of(network: MusicNN) -> dict[str, np.ndarray]:
    """Undo ``state_of``."""
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    made = {}
    norms = ["normalise", *(f"front.{n}.norm" for n in range(5)), *(f"middle.{n}.norm" for n in range(3))]
    for n, ours in enumerate([*norms, "normalise_pooled", "normalise_dense"]):
        theirs = f"batch_normalization_{n}" if n else "batch_normalization"
        made |= {f"{theirs}/{b}": state[f"{ours}.{a}"] for a, b in weights._PARTS.items()}
    for n in range(8):
        ours, theirs = f"front.{n}" if n < 5 else f"middle.{n - 5}", f"conv2d_{n}" if n else "conv2d"
        kernel = state[f"{ours}.convolution.weight"]
        made[f"{theirs}/kernel"] = kernel.transpose(3, 2, 1, 0) if n < 5 else kernel.transpose(2, 1, 0)[:, :, None]
        made[f"{theirs}/bias"] = state[f"{ours}.convolution.bias"]
    for ours, theirs in (("dense", "dense"), ("to_tags", "dense_1")):
        made |= {f"{theirs}/kernel": state[f"{ours}.weight"].T, f"{theirs}/bias": state[f"{ours}.bias"]}
    return made
