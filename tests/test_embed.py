import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from audio_files import RATE, counted_calls, encoded, encoded_by_ffmpeg, melody, write_all
from safetensors.torch import load_file, save_file

from recsys.audio.cache import VectorCache
from recsys.audio.embed import SoundModel, embed_file, embed_paths, train_sound_model
from recsys.audio.logmel import log_mel
from recsys.audio.networks import build_network
from recsys.audio.settings import (
    AudioSettings,
    DecodeSettings,
    LogMelSettings,
    NetworkSettings,
    TrainSettings,
    WorkerSettings,
)
from recsys.audio.train import _Training, train_network
from recsys.audio.workers import DecodeWorkers
from recsys.catalogue.problems import Problems
from recsys.content.tasks import Heads, Targets
from recsys.errors import ArtefactError, DataError
from recsys.progress import Silent
from recsys.threads import torch_threads
from recsys.types import Clip

EMOTIFY = Path(__file__).parents[2] / "shared" / "data" / "emotify"
SETTINGS = AudioSettings(
    decode=DecodeSettings(clip_s=8.0),
    network=NetworkSettings(width=24, dim=12),
    workers=WorkerSettings(n_workers=1),
    train=TrainSettings(epochs=20),
    batch_clips=3,
)


@pytest.fixture(scope="module")
def model() -> SoundModel:
    """A random network whose normalisation has seen sound, so that its embeddings differ."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = build_network(SETTINGS.network, SETTINGS.log_mel.n_mels)
        network.train()
        with torch.no_grad():
            for _ in range(20):
                network(torch.rand(16, 96, 187) * 3)
    return SoundModel(network, SETTINGS)


def clip(seconds: float, seed: int = 0) -> Clip:
    samples = melody(seconds, seed)[:: RATE // 16_000, 0]  # a rate of its own is fine here: only numbers are compared
    return Clip(np.ascontiguousarray(samples[: round(seconds * 16_000)]), 16_000, seconds)


def labelled(genres: list[int], artists: list[int] | None = None) -> Targets:
    n = len(genres)
    n_genres = max(genres) + 1
    one_hot = np.eye(n_genres, dtype=np.float32)[genres]
    classes = np.array(artists if artists is not None else [-1] * n, np.int64)
    return Targets(
        one_hot,
        tuple(f"genre {i}" for i in range(n_genres)),
        classes,
        int(classes.max()) + 1,
        np.zeros((n, 0), np.float32),
        np.zeros(n, np.float32),
        np.zeros((n, 0), bool),
        (),
        np.full(n, np.nan, np.float32),
        np.full(n, np.nan, np.float32),
    )


def test_batch_equals_single(model: SoundModel) -> None:
    clips = [clip(8.0, 1), clip(3.2, 2), clip(8.0, 3), clip(1.0, 4), clip(8.0, 5)]
    together = model.embed(clips)
    assert (together.shape, together.dtype) == ((5, 12), np.float32)
    np.testing.assert_allclose(together, np.concatenate([model.embed([one]) for one in clips]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert float(np.abs(together[0] - together[2]).max()) > 0.01
    assert model.embed([]).shape == (0, 12)


def test_a_vector_is_the_mean_over_patches(model: SoundModel) -> None:
    long = clip(8.0)
    spectrogram = log_mel(torch.from_numpy(long.samples)[None], SETTINGS.log_mel)[0]
    with torch.inference_mode():
        first, second = (model.network(spectrogram[None, :, start : start + 187])[0].numpy() for start in (0, 187))
    expected = (first + second) / np.linalg.norm(first + second)
    np.testing.assert_allclose(model.embed([long])[0], expected, atol=1e-5)


def test_another_sample_rate_is_refused(model: SoundModel) -> None:
    with pytest.raises(DataError, match="expected 16000"):
        model.embed([Clip(np.zeros(9000, np.float32), 44_100, 0.2)])
    with pytest.raises(ValueError, match="must be the same"):
        AudioSettings(log_mel=LogMelSettings(sample_rate=22_050))


def test_saved_and_loaded_gives_the_same(model: SoundModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    loaded = SoundModel.load(tmp_path)
    assert (loaded.version, loaded.settings) == (model.version, model.settings)
    np.testing.assert_array_equal(loaded.embed([clip(4.0)]), model.embed([clip(4.0)]))


def test_version_follows_weights_and_input_only(model: SoundModel) -> None:
    other_limits = SETTINGS.model_copy(update={"workers": WorkerSettings(time_limit_s=5)})
    assert SoundModel(model.network, other_limits).version == model.version
    longer = SETTINGS.model_copy(update={"decode": DecodeSettings(clip_s=9.0)})
    assert SoundModel(model.network, longer).version != model.version
    changed = copy.deepcopy(model.network)
    next(changed.parameters()).data[0] += 1e-3
    assert SoundModel(changed, SETTINGS).version != model.version


def test_damaged_models_are_errors(model: SoundModel, tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        model.save(folder)
        return folder

    weights = "sound.safetensors"
    (damaged("missing") / weights).unlink()
    cut = damaged("cut") / weights
    cut.write_bytes(cut.read_bytes()[:-500])
    (damaged("text") / "sound.json").write_text("{")
    (damaged("format") / "sound.json").write_text(json.dumps({"format": 99}))
    other = load_file(damaged("other") / weights)
    other["dense.2.bias"] += 1
    save_file(other, tmp_path / "other" / weights)
    fewer = load_file(damaged("fewer") / weights)
    del fewer["dense.2.bias"]
    save_file(fewer, tmp_path / "fewer" / weights)
    for name in ("missing", "cut", "text", "format", "other", "fewer"):
        with pytest.raises(ArtefactError, match=name) as caught:
            SoundModel.load(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    five = melody(5.0, 7)
    files = {
        "a.wav": encoded(five, "WAV"),
        "a.m4a": encoded_by_ffmpeg(five, "mp4", "alac"),
        "a-aac.m4a": encoded_by_ffmpeg(five, "mp4", "aac"),
        "b.mp3": encoded(melody(6.0, 8), "MP3"),
        "b-again.mp3": encoded(melody(6.0, 8), "MP3"),
        "cut.flac": encoded(melody(9.0, 9), "FLAC")[:-150_000],
        "wrong.mp3": encoded(melody(3.0, 10), "WAV"),
        "text.mp3": b"no sound in here " * 50,
        "empty.ogg": b"",
    }
    write_all(folder, files)
    return folder


NAMES = [
    "a.wav",
    None,
    "b.mp3",
    "text.mp3",
    "a.m4a",
    "cut.flac",
    "gone.mp3",
    "wrong.mp3",
    "b-again.mp3",
    "empty.ogg",
    "a-aac.m4a",
]


def test_a_catalogue_is_embedded_and_told_of_its_problems(model: SoundModel, songs: Path) -> None:
    paths = [None if name is None else songs / name for name in NAMES]
    problems = Problems()
    sound = embed_paths(
        paths, model, SETTINGS, None, problems, Silent(), track_ids=[f"id{n}" for n in range(len(NAMES))]
    )
    assert sound.rows.tolist() == [0, 2, 4, 5, 7, 8, 10]
    assert sound.rows.dtype == np.int32
    assert sound.durations_s.tolist() == pytest.approx([5, 6, 5, 7, 3, 6, 5], abs=1.5)
    assert sound.durations_s[3] < 9
    assert sound.hashes[1] == sound.hashes[5] != sound.hashes[0]
    np.testing.assert_allclose(sound.vectors[1], sound.vectors[5], atol=1e-5)
    to_a = sound.vectors @ sound.vectors[0]
    assert to_a[2] > 0.9999  # the same samples, read by FFmpeg
    assert to_a[6] > 0.99  # the same music in a lossy codec
    assert to_a[1] < to_a[6]
    assert len(problems) == 5
    found = {(kind, source, value) for kind, source, _, value, _ in problems.frame().rows()}
    expected = [
        ("bad-audio", 3),
        ("truncated-audio", 5),
        ("missing-file", 6),
        ("mislabelled-audio", 7),
        ("bad-audio", 9),
    ]
    assert found == {(kind, str(paths[place]), f"id{place}") for kind, place in expected}


def test_the_cache_is_used_and_its_problems_told_again(model: SoundModel, songs: Path, tmp_path: Path) -> None:
    shutil.copytree(songs, tmp_path / "songs")
    paths = [None if name is None else tmp_path / "songs" / name for name in NAMES]

    def run(cache: VectorCache) -> tuple[np.ndarray, dict[str, int], int]:
        problems = Problems()
        decoded: list[Path] = []
        with counted_calls(DecodeWorkers, "_decode") as calls:
            sound = embed_paths(paths, model, SETTINGS, cache, problems, Silent())
            decoded = [call for call in calls if isinstance(call, Path)]
        return sound.vectors, problems.counts(), len(decoded)

    with VectorCache(tmp_path / "sound.lmdb") as cache:
        first, problems, n_decoded = run(cache)
        assert n_decoded in (8, 9)  # the twin of b.mp3 may still have been on its way
    with VectorCache(tmp_path / "sound.lmdb") as cache:
        again, same_problems, n_decoded = run(cache)
        assert n_decoded == 2  # text and nothing: failures are tried again
        np.testing.assert_array_equal(first, again)
        assert same_problems == problems
        (tmp_path / "songs" / "a.wav").rename(tmp_path / "songs" / "moved.wav")
        paths[0] = tmp_path / "songs" / "moved.wav"
        assert run(cache)[2] == 2  # known by its content
        (tmp_path / "songs" / "b.mp3").write_bytes(encoded(melody(4.0, 11), "MP3"))
        changed, _, n_decoded = run(cache)
        assert n_decoded == 3
        assert not np.allclose(changed[1], first[1])


def test_an_interrupted_run_keeps_whole_batches(model: SoundModel, songs: Path, tmp_path: Path) -> None:
    paths = write_all(tmp_path, {f"{i}.wav": encoded(melody(1.5, i), "WAV") for i in range(8)})

    class Interrupted(Silent):
        """Stops the run after the second batch of three."""

        n_done = 0

        def bar(self, description: str, total: int, unit: str):  # type: ignore[no-untyped-def]
            return self

        def __enter__(self) -> "Interrupted":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def advance(self, n: int = 1, note: str = "") -> None:
            self.n_done += n
            if self.n_done >= 6:
                raise KeyboardInterrupt

    with VectorCache(tmp_path / "sound.lmdb") as cache:
        with pytest.raises(KeyboardInterrupt):
            embed_paths(paths, model, SETTINGS, cache, Problems(), Interrupted())
        with counted_calls(DecodeWorkers, "_decode") as calls:
            sound = embed_paths(paths, model, SETTINGS, cache, Problems(), Silent())
    assert len(sound.rows) == 8
    assert len(calls) == 2


def test_an_upload_gets_the_vector_that_the_catalogue_gave(model: SoundModel, songs: Path) -> None:
    paths = [songs / "cut.flac", songs / "b.mp3"]
    heard = [embed_file(path, model) for path in paths]
    sound = embed_paths(paths, model, SETTINGS, None, Problems(), Silent())
    np.testing.assert_allclose([one.vector for one in heard], sound.vectors, atol=1e-6)
    assert tuple(one.content_hash for one in heard) == sound.hashes
    assert "declared" in heard[0].notes[0]
    assert heard[1].notes == ()
    with pytest.raises(DataError, match=r"text.mp3 cannot be used: no decoder"):
        embed_file(songs / "text.mp3", model)


def noisy_tones(rng: np.random.Generator, n: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Spectrograms of three planted genres, a band each that moves from clip to clip, by nine artists."""
    for i in range(n):
        artist = i % 9
        genre = artist % 3
        spectrogram = rng.uniform(0, 1, (96, 190 + i % 40))
        spectrogram[20 + 20 * genre + rng.integers(4)] += 3.0
        yield genre, artist, spectrogram.astype(np.float16)


def test_planted_genres_are_learned() -> None:
    rng = np.random.default_rng(0)
    genres, artists, spectrograms = map(list, zip(*noisy_tones(rng, 90), strict=True))
    first, later = slice(0, 72), slice(72, 90)
    network = train_network(spectrograms[first], labelled(genres[first], artists[first]), SETTINGS, 0, Silent())
    with torch.inference_mode():
        vectors = torch.stack([network(torch.from_numpy(s.astype(np.float32))[None])[0] for s in spectrograms])
    unit = torch.nn.functional.normalize(vectors, dim=1).numpy()
    nearest = (unit[later] @ unit[first].T).argmax(axis=1)
    right = np.mean(np.array(genres[first])[nearest] == genres[later])
    assert right > 0.9
    assert not network.training


def test_the_best_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    genres, artists, spectrograms = map(list, zip(*noisy_tones(rng, 36), strict=True))
    targets = labelled(genres, artists)

    def trained(epochs: int, patience: int, costs: list[float]) -> str:
        monkeypatch.setattr(_Training, "_held_out_cost", lambda *_: costs.pop(0))
        settings = SETTINGS.model_copy(update={"train": TrainSettings(epochs=epochs, patience=patience)})
        return SoundModel(train_network(spectrograms, targets, settings, 0, Silent()), settings).version

    after_two = trained(2, 9, [2.0, 1.0])
    costs = [2.0, 1.0, 1.5, 1.5, 0.1]
    assert trained(9, 2, costs) == after_two
    assert costs == [0.1]  # stopped before it
    assert trained(9, 3, [2.0, 1.0, 1.5, 1.5, 0.1, 1.0, 1.0, 1.0]) != after_two


def test_whole_artists_are_held_out_and_are_no_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def fit(self: _Training, held_out: np.ndarray, *_: object) -> None:
        seen.append((held_out, self._heads.artists.numpy()))

    monkeypatch.setattr(_Training, "fit", fit)
    artists = np.arange(60) % 12
    spectrograms = [np.zeros((96, 190), np.float16)] * 60
    train_network(spectrograms, labelled([0, 1, 2] * 20, artists.tolist()), SETTINGS, 0, Silent())
    held_out, classes = seen[0]
    assert 4 <= held_out.sum() <= 9
    assert not set(artists[held_out]) & set(artists[~held_out])
    assert classes.tolist() == np.where(held_out, -1, artists).tolist()
    train_network(spectrograms, labelled([0] * 60, artists.tolist()), SETTINGS, 0, Silent())
    held_out, classes = seen[1]  # with artists alone to learn, they must be known where they are judged
    assert classes.tolist() == artists.tolist()
    assert set(artists[held_out]) <= set(artists[~held_out])


def test_training_repeats_and_leaves_the_callers_torch_alone() -> None:
    rng = np.random.default_rng(0)
    genres, artists, spectrograms = map(list, zip(*noisy_tones(rng, 24), strict=True))
    settings = SETTINGS.model_copy(update={"train": TrainSettings(epochs=2)})
    state = torch.random.get_rng_state()
    with torch_threads(2):
        made = [train_network(spectrograms, labelled(genres, artists), settings, seed, Silent()) for seed in (3, 3, 4)]
        assert torch.get_num_threads() == 2
    assert torch.equal(torch.random.get_rng_state(), state)
    versions = [SoundModel(network, settings).version for network in made]
    assert versions[0] == versions[1] != versions[2]


def test_without_labels_the_network_stays_random_and_says_so() -> None:
    class Told(Silent):
        lines: tuple[str, ...] = ()

        def say(self, line: str) -> None:
            self.lines += (line,)

    told = Told()
    targets = labelled([0] * 4)  # one genre is none
    network = train_network([np.zeros((96, 200), np.float16)] * 4, targets, SETTINGS, 0, told)
    assert len(told.lines) == 1
    assert "random start" in told.lines[0]
    assert not network.training
    network = train_network([], labelled([0, 1]).take(np.array([], int)), SETTINGS, 0, told)
    assert len(told.lines) == 2


def test_training_from_files_skips_what_cannot_be_decoded(songs: Path) -> None:
    paths = [(row, songs / name) for row, name in enumerate(NAMES) if name is not None]
    settings = SETTINGS.model_copy(update={"train": TrainSettings(epochs=1, train_tracks=9)})
    model = train_sound_model(paths, labelled([0, 1] * 6), settings, 0, Silent())
    assert model.embed([clip(2.0)]).shape == (1, 12)


@pytest.mark.skipif(not EMOTIFY.is_dir(), reason="the Emotify clips are not beside the repository")
def test_real_clips_are_embedded(model: SoundModel) -> None:
    paths = sorted((EMOTIFY / "audio").glob("*.mp3"))[:6]
    problems = Problems()
    sound = embed_paths(paths, model, model.settings, None, problems, Silent())
    assert (sound.rows.tolist(), len(problems)) == ([0, 1, 2, 3, 4, 5], 0)
    assert sound.durations_s.tolist() == pytest.approx([30.0] * 6, abs=1.0)
    assert len(set(sound.hashes)) == 6


def test_training_sees_patches_from_all_over_a_clip() -> None:
    ramp = np.tile(np.arange(200, dtype=np.float16), (96, 1))
    heads = Heads(12, labelled([0, 1]), SETTINGS.tasks)
    network = build_network(SETTINGS.network, SETTINGS.log_mel.n_mels)
    training = _Training(network, heads, [ramp, ramp], SETTINGS.log_mel, SETTINGS.train)
    rng = np.random.default_rng(0)
    cut = [training._random_patch(ramp, rng) for _ in range(300)]
    assert {int(patch[0, 0]) for patch in cut} == set(range(200 - 187 + 1))
    assert {patch.shape for patch in cut} == {(96, 187)}
