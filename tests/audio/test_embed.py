import copy
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from golden.make_sound_vector import PATCH, weights
from helpers.audio_files import (
    RATE,
    bare_mp3,
    counted_calls,
    encoded,
    encoded_by_ffmpeg,
    melody,
    of_unknown_length,
    packed,
    write_all,
)
from helpers.places import DATA, GOLDEN
from recsys.audio.cache import CachedSound, FileMark, VectorCache
from recsys.audio.decoding import decode as decoding
from recsys.audio.decoding.decode import AudioProblem, decode
from recsys.audio.decoding.pool import DecodeWorkers
from recsys.audio.decoding.readers import AvReader
from recsys.audio.decoding.worker import content_hash
from recsys.audio.embed import embed_paths
from recsys.audio.logmel import log_mel
from recsys.audio.model import Origin, SoundModel
from recsys.audio.networks.conv1d import build_network
from recsys.audio.settings import (
    AudioSettings,
    DecodeSettings,
    LogMelSettings,
    NetworkSettings,
    WorkerSettings,
)
from recsys.catalogue.problems import Problems
from recsys.errors import ArtefactError, DataError
from recsys.types import Clip
from recsys.util.progress import Silent

pytestmark = pytest.mark.usefixtures("decoded_here")

EMOTIFY = DATA / "emotify"
SETTINGS = AudioSettings(
    decode=DecodeSettings(clip_s=8.0),
    network=NetworkSettings(name="conv1d", start="random", width=24, dim=12),
    workers=WorkerSettings(n_workers=1),
    batch_clips=3,
)
ORIGIN = Origin(SETTINGS)


@pytest.fixture(scope="module")
def model() -> SoundModel:
    """A random network whose normalisation has seen sound, so that its embeddings differ."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = build_network(SETTINGS.network, SETTINGS.log_mel)
        network.train()
        with torch.no_grad():
            for _ in range(20):
                network(torch.rand(4, 4, 96, 187) * 3)
    return SoundModel(network, SETTINGS, ORIGIN)


def clip(seconds: float, seed: int = 0) -> Clip:
    samples = melody(seconds, seed)[:: RATE // 16_000, 0]  # a rate of its own is fine here: only numbers are compared
    return Clip(np.ascontiguousarray(samples[: round(seconds * 16_000)]), 16_000, seconds)


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
        first, second = (
            model.network(spectrogram[None, None, :, start : start + 187])[0].numpy() for start in (0, 187)
        )
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
    assert (loaded.version, loaded.settings, loaded.origin) == (model.version, model.settings, model.origin)
    np.testing.assert_array_equal(loaded.embed([clip(4.0)]), model.embed([clip(4.0)]))


def test_versions_are_what_they_were() -> None:
    """A version is in every sound cache: one that changes by itself has everything heard again."""
    settings = AudioSettings(network=NetworkSettings(name="conv1d", start="random", width=8, dim=12))
    network = build_network(settings.network, settings.log_mel)
    network.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()})
    assert SoundModel(network, settings, ORIGIN).version == "d92a1998e9bed6e4fa416647ae37462a"


def test_version_follows_weights_and_input_only(model: SoundModel) -> None:
    other_limits = SETTINGS.model_copy(update={"workers": WorkerSettings(time_limit_s=5)})
    assert SoundModel(model.network, other_limits, ORIGIN).version == model.version
    longer = SETTINGS.model_copy(update={"decode": DecodeSettings(clip_s=9.0)})
    assert SoundModel(model.network, longer, ORIGIN).version != model.version
    changed = copy.deepcopy(model.network)
    next(changed.parameters()).data[0] += 1e-3
    assert SoundModel(changed, SETTINGS, ORIGIN).version != model.version


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
    other["patch_network.dense.2.bias"] += 1
    save_file(other, tmp_path / "other" / weights)
    fewer = load_file(damaged("fewer") / weights)
    del fewer["patch_network.dense.2.bias"]
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


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
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


@pytest.mark.slow
def test_only_what_was_heard_wrong_is_heard_again(model: SoundModel, tmp_path: Path) -> None:
    """A cache of the first decoder, whose entries name no version; what is decoded again is counted."""
    five = melody(5.0, 7)
    files = {
        "a.wav": encoded(five, "WAV"),
        "b.flac": encoded(five, "FLAC"),
        "c.mp3": packed(five, "mp3", "libmp3lame"),
        "d.m4a": encoded_by_ffmpeg(five, "mp4", "aac"),
        "e.ogg": encoded(five, "OGG"),
        "f.mka": packed(five, "matroska", "aac"),
        "bare.mp3": bare_mp3(packed(five, "mp3", "libmp3lame")),
        "in.wav": packed(five, "wav", "libmp3lame"),
        "piped.flac": of_unknown_length(encoded(five, "FLAC")),
        "a.aac": packed(five, "adts", "aac"),
        "piped.mka": packed(five, "matroska", "libmp3lame", seekable=False),
        "silent.wav": encoded(np.zeros(2 * RATE, np.float32), "WAV"),
    }
    paths, old = write_all(tmp_path, files), 1
    told = {"piped.flac": AudioProblem("truncated-audio", "209146758205323.7 s are declared")}
    told["silent.wav"] = AudioProblem("silent-audio", "the stretch that is used is silent")
    formats = {".m4a": "mp4", ".mka": "matroska"}
    vector = np.eye(12, dtype=np.float32)[0]

    def run(cache: VectorCache) -> tuple[set[str], np.ndarray, list[int], dict[str, int]]:
        problems = Problems()
        with counted_calls(DecodeWorkers, "_decode") as calls:
            sound = embed_paths(paths, model, SETTINGS, cache, problems, Silent())
        return (
            {call.name for call in calls if isinstance(call, Path)},
            sound.vectors,
            sound.rows.tolist(),
            problems.counts(),
        )

    with VectorCache(tmp_path / "sound.lmdb") as cache:
        for path in paths:
            mark, digest = FileMark.of(path), content_hash(path)
            assert mark is not None
            problems = (told[path.name],) if path.name in told else ()
            format_ = formats.get(path.suffix, path.suffix[1:])
            cache.put(model.version, [(digest, CachedSound(vector, 5.0, format_, problems, old))], [(mark, digest)])
        decoded, vectors, rows, counts = run(cache)
        assert decoded == {"bare.mp3", "in.wav", "piped.flac", "a.aac", "piped.mka", "silent.wav"}
        assert rows == list(range(11)), "silence has none"
        assert counts == {"silent-audio": 1}
        for place in range(6):
            np.testing.assert_array_equal(vectors[place], vector, "the vector that it had")
        assert all(not np.allclose(vectors[place], vector) for place in range(6, 11))
        with counted_calls(DecodeWorkers, "_look") as looks:
            decoded, again, _, _ = run(cache)
        assert (decoded, looks) == ({"silent.wav"}, []), "once"
        np.testing.assert_array_equal(again, vectors)


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
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


def test_one_mp3_read_by_either_library_gives_one_vector(model: SoundModel, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(melody(12.0, 12), "MP3")  # longer than a clip, so that both must find its middle
    by_libsndfile = decode(io.BytesIO(content), SETTINGS.decode)
    monkeypatch.setattr(decoding, "open_reader", lambda file, seen, stack: AvReader(file, stack))
    by_ffmpeg = decode(io.BytesIO(content), SETTINGS.decode)
    ours, theirs = by_libsndfile.clip.samples, by_ffmpeg.clip.samples
    assert by_ffmpeg.format == by_libsndfile.format == "mp3"
    assert ours.shape == theirs.shape
    assert float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)) > 0.999  # at a lag of 0
    one, other = model.embed([by_libsndfile.clip, by_ffmpeg.clip])
    assert float(one @ other) > 0.999


@pytest.mark.skipif(not EMOTIFY.is_dir(), reason="the Emotify clips are not beside the repository")
def test_real_clips_are_embedded(model: SoundModel) -> None:
    paths = sorted((EMOTIFY / "audio").glob("*.mp3"))[:6]
    problems = Problems()
    sound = embed_paths(paths, model, model.settings, None, problems, Silent())
    assert (sound.rows.tolist(), len(problems)) == ([0, 1, 2, 3, 4, 5], 0)
    assert sound.durations_s.tolist() == pytest.approx([30.0] * 6, abs=1.0)
    assert len(set(sound.hashes)) == 6


def test_golden_vector() -> None:
    """From samples to the vector, against a pass in numpy that shares no code with the package."""
    log_mel_settings = LogMelSettings(patch_frames=PATCH, patch_hop_frames=PATCH)
    network = NetworkSettings(name="conv1d", start="random", width=10, n_layers=2, kernel_frames=4, dim=7)
    settings = AudioSettings(log_mel=log_mel_settings, network=network)
    made_up = {f"patch_network.{name}": torch.from_numpy(array).float() for name, array in weights().items()}
    built = build_network(network, log_mel_settings)
    built.load_state_dict(built.state_dict() | made_up)
    with np.load(GOLDEN / "log_mel.npz") as sound, np.load(GOLDEN / "sound_vector.npz") as golden:
        found = SoundModel(built, settings, Origin(settings)).embed([Clip(sound["samples"], 16_000, 1.2)])[0]
        np.testing.assert_allclose(found, golden["vector"], atol=1e-4)
