"""Sound vectors from store to store: what was heard once is not heard again."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers.audio_files import counted_calls
from helpers.catalogues import CLIPS, AudioCatalogue, quick_settings
from helpers.command import run
from helpers.stores import copied, rows, tables
from pipelines.build import build
from recsys import fit as fitting
from recsys.audio.cache import CachedSound, VectorCache
from recsys.audio.decoding.pool import DecodeWorkers
from recsys.audio.embed import Sound, embed_paths
from recsys.catalogue.problems import Problems
from recsys.store.generation import Store
from recsys.store.weights import load_sound_model
from recsys.util.progress import Silent


@pytest.fixture(scope="module")
def exported(audio_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store's vectors and network; not to be written to."""
    folder = tmp_path_factory.mktemp("exported")
    store = copied(audio_store, folder)
    done = run("vectors", "export", "--store", store, "--out", folder / "v.parquet", "--network", folder / "network")
    assert (done.status, done.out) == (0, "")
    version = version_of(store)
    assert f"8 vectors by {version} (conv1d, random start, of this store's builds)" in " ".join(done.err.split())
    return folder


def version_of(store: Path) -> str:
    model = load_sound_model(Store(store).current() / "models")
    assert model is not None
    return model.version


def heard(store: Path, catalogue: AudioCatalogue, problems: Problems | None = None) -> tuple[list[object], Sound]:
    """Embed a catalogue as a store's next build would: the files that were decoded, and the vectors."""
    home = Store(store).current() / "models" if Store(store).has_current() else store / "cache" / "network"
    model = load_sound_model(home)
    assert model is not None
    paths = [catalogue.folder / "music" / name for name in CLIPS]
    settings, problems = quick_settings().audio, Problems() if problems is None else problems
    with VectorCache(store / "cache" / "sound.lmdb") as cache, counted_calls(DecodeWorkers, "_decode") as decoded:
        return decoded, embed_paths(
            paths, model, settings, cache, Problems() if problems is None else problems, Silent()
        )


def n_cached(store: Path) -> int:
    with VectorCache(store / "cache" / "sound.lmdb") as cache:
        return sum(1 for _ in cache.entries())


def test_an_export_says_what_is_what(exported: Path, audio_store: Path) -> None:
    frame = pl.read_parquet(exported / "v.parquet").sort("track_id")
    assert frame["track_id"].to_list() == [f"s{n}" for n in range(8)]
    assert [Path(path).name[:2] for path in frame["path"]] == frame["track_id"].to_list()
    assert set(frame["model"]) == {version_of(audio_store)}
    hashes = rows(audio_store, "SELECT content_hash FROM track_audio ORDER BY track_id")
    assert [(content_hash,) for content_hash in frame["content_hash"]] == hashes
    vectors = rows(audio_store, "SELECT vector FROM track_vectors WHERE space = 'sound' ORDER BY track_id")
    assert [(vector,) for vector in frame["vector"].to_list()] == [(list(vector),) for (vector,) in vectors]
    assert frame["format"].to_list() == ["wav", "mp3", "flac", "ogg", "wav", "mp3", "flac", "wav"]
    assert sorted(file.name for file in (exported / "network").iterdir()) == ["sound.json", "sound.safetensors"]


@pytest.mark.slow
def test_a_new_store_has_the_network_and_hears_nothing_again(
    exported: Path, audio_catalogue: AudioCatalogue, tmp_path: Path
) -> None:
    store = tmp_path / "new"
    done = run("vectors", "import", exported / "v.parquet", "--store", store, "--network", exported / "network")
    assert (done.status, done.out) == (0, "")
    assert "8 new vectors by this store's network, 0 were here" in " ".join(done.err.split())
    assert "apart" not in done.err
    decoded, sound = heard(store, audio_catalogue)
    assert decoded == []
    frame = pl.read_parquet(exported / "v.parquet").sort("track_id")
    assert sound.vectors.tolist() == frame["vector"].to_list()
    assert list(sound.hashes) == frame["content_hash"].to_list()


@pytest.mark.slow
def test_a_build_of_a_new_store_comes_to_the_same(
    exported: Path, audio_catalogue: AudioCatalogue, audio_store: Path, tmp_path: Path
) -> None:
    store = tmp_path / "new"
    run("vectors", "import", exported / "v.parquet", "--store", store, "--network", exported / "network")
    with pytest.MonkeyPatch.context() as patch, counted_calls(DecodeWorkers, "_decode") as decoded:
        patch.setattr(fitting, "train_sound_model", None)  # no network is trained
        build(audio_catalogue.inputs, store, quick_settings(), Silent())
    assert decoded == []
    assert tables(store) == tables(audio_store), "as if it had been heard here"


def test_vectors_of_another_network_are_told_and_kept_apart(exported: Path, audio_store: Path, tmp_path: Path) -> None:
    store = copied(audio_store, tmp_path)
    own = version_of(store)
    frame = pl.read_parquet(exported / "v.parquet")
    foreign = frame.with_columns(model=pl.lit("ab" * 16), checksum=pl.lit(None, pl.String))
    pl.concat([frame.head(3), foreign]).write_parquet(tmp_path / "v.parquet")
    before = n_cached(store)
    done = run("vectors", "import", tmp_path / "v.parquet", "--store", store)
    assert done.status == 0
    told = " ".join(done.err.split())
    assert "0 new vectors by this store's network, 3 were here" in told
    assert f"8 vectors by {'ab' * 16} are kept apart: this store's network is {own}" in told
    assert n_cached(store) == before + 8
    with VectorCache(store / "cache" / "sound.lmdb") as cache:
        assert cache.dim_of("ab" * 16) == cache.dim_of(own) == 12
        assert cache.dim_of("cd" * 16) is None


def test_a_network_is_not_put_in_the_place_of_another(exported: Path, audio_store: Path, tmp_path: Path) -> None:
    store = copied(audio_store, tmp_path)
    done = run("vectors", "import", exported / "v.parquet", "--store", store, "--network", exported / "network")
    assert done.status == 0, "it is the same one"
    for folder in (*(store / "generations").glob("*/models/sound"), store / "cache" / "network" / "sound"):
        if folder.is_dir():
            file = folder / "sound.json"
            file.write_text(file.read_text().replace(version_of(audio_store), "ab" * 16))
    done = run("vectors", "import", exported / "v.parquet", "--store", store, "--network", exported / "network")
    assert done.status == 2
    assert f"has the network {'ab' * 16} already" in done.complaint


def test_damaged_rows_are_told_and_the_rest_is_used(exported: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(exported / "v.parquet")
    vectors = frame["vector"].to_list()
    vectors[2], vectors[5] = vectors[2][:-1], [0.0] * 12
    sums = [None if n == 2 else one for n, one in enumerate(frame["checksum"])]
    shorter = [value / sum(x * x for x in vectors[2]) ** 0.5 for value in vectors[2]]
    vectors[2] = shorter
    changed = frame.with_columns(vector=pl.Series(vectors, dtype=pl.List(pl.Float32)), checksum=pl.Series(sums))
    changed.write_parquet(tmp_path / "v.parquet")
    done = run("vectors", "import", tmp_path / "v.parquet", "--store", tmp_path / "store")
    told = " ".join(done.err.split())
    assert done.status == 0
    assert "problems in the input (the rest is used): 2 bad-vector" in told
    assert "the checksum is another one" in told
    assert "the vector has 11 numbers, others of its network have 12" in told
    assert "6 vectors by" in told
    assert "the store has no network yet" in told
    assert n_cached(tmp_path / "store") == 6

    frame.with_columns(vector=pl.Series([[2.0]] * 8, dtype=pl.List(pl.Float32))).write_parquet(tmp_path / "bad.parquet")
    none = run("vectors", "import", tmp_path / "bad.parquet", "--store", tmp_path / "other")
    assert none.status == 2
    assert "none of its rows can be used (the checksum is another one" in none.complaint


@pytest.mark.slow
def test_without_the_cache_the_generation_is_exported(
    exported: Path, audio_store: Path, audio_catalogue: AudioCatalogue, tmp_path: Path
) -> None:
    store = copied(audio_store, tmp_path)
    shutil.rmtree(store / "cache")
    assert run("vectors", "export", "--store", store, "--out", tmp_path / "v.parquet").status == 0
    assert not (store / "cache").exists()
    frame, whole = (pl.read_parquet(file).sort("track_id") for file in (tmp_path / "v.parquet", exported / "v.parquet"))
    same = ["track_id", "path", "content_hash", "model", "network", "vector", "checksum"]
    assert frame.select(same).rows() == whole.select(same).rows()
    assert frame["format"].null_count() == 8
    assert run("vectors", "import", tmp_path / "v.parquet", "--store", store).status == 0
    problems = Problems()
    assert heard(store, audio_catalogue, problems)[0] == []
    assert len(problems) == 0, "an unknown format belies no name"


def test_damaged_entries_are_told_and_the_rest_is_exported(audio_store: Path, tmp_path: Path) -> None:
    store = copied(audio_store, tmp_path)
    with VectorCache(store / "cache" / "sound.lmdb") as cache:
        version, content_hash, _ = next(cache.entries())
        with cache._env.begin(write=True) as transaction:
            transaction.put(f"vector:{version}:{content_hash}".encode(), b"{}\n\0\0")
    done = run("vectors", "export", "--store", store, "--out", tmp_path / "v.parquet")
    assert done.status == 0
    assert f"1 damaged-vector e.g. damaged-vector: the sound cache ('{content_hash}')" in " ".join(done.err.split())
    frame = pl.read_parquet(tmp_path / "v.parquet")
    assert len(frame) == 8, "of the one that was published"
    assert frame.filter(pl.col("format").is_null())["content_hash"].to_list() == [content_hash]
    assert run("vectors", "import", tmp_path / "v.parquet", "--store", store).status == 0
    with VectorCache(store / "cache" / "sound.lmdb") as cache:
        assert cache.get(version, content_hash) is not None, "it is mended"


def test_a_vector_of_another_width_is_heard_anew(
    audio_store: Path, audio_catalogue: AudioCatalogue, tmp_path: Path
) -> None:
    store = copied(audio_store, tmp_path)
    with VectorCache(store / "cache" / "sound.lmdb") as cache:
        version, content_hash, sound = next(cache.entries())
        assert sound is not None
        one = CachedSound(sound.vector[:1], sound.duration_s, sound.format, sound.problems)
        cache.put(version, [(content_hash, one)], [])
    decoded, again = heard(store, audio_catalogue)
    assert len(decoded) == 1
    np.testing.assert_allclose(again.vectors[again.hashes.index(content_hash)], sound.vector, atol=1e-5)


def test_what_cannot_be_exported_or_imported_is_said(tiny_store: Path, exported: Path, tmp_path: Path) -> None:
    done = run("vectors", "export", "--store", tmp_path / "none", "--out", tmp_path / "v.parquet")
    assert done.status == 4
    assert "holds no sound vectors" in done.complaint
    assert not (tmp_path / "none").exists()
    done = run("vectors", "export", "--store", copied(tiny_store, tmp_path), "--out", tmp_path / "v.parquet")
    assert done.status == 4
    assert "has no sound vectors" in done.complaint
    assert not (tmp_path / "v.parquet").exists()
    done = run("vectors", "import", tmp_path / "v.parquet", "--store", tmp_path / "none")
    assert done.status == 2
    assert "does not exist" in done.complaint
    assert not (tmp_path / "none").exists()
    done = run("vectors", "import", exported / "v.parquet", "--store", tmp_path / "none", "--network", tmp_path)
    assert done.status == 4
    assert "the audio model cannot be read" in done.complaint
