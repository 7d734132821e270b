"""An interrupted build, run again: nothing is done twice, and nothing half done is ever seen."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from helpers.audio_files import counted_calls
from helpers.catalogues import QUICK, AudioCatalogue, TinyCatalogue, quick_settings
from helpers.command import run
from helpers.places import ROOT
from helpers.stores import copied, rows, tables
from pipelines.build import Inputs, build
from recsys import fit as fitting
from recsys.audio.cache import VectorCache
from recsys.audio.decoding.pool import DecodeWorkers
from recsys.errors import ArtefactError
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.weights import load_sound_model
from recsys.util.progress import Silent

# `recsys build` that kills itself once so many batches of vectors are written
KILLED = """
import os, signal, sys
from recsys.audio.cache import VectorCache
from recsys.cli.main import main

put, n_left = VectorCache.put, int(sys.argv.pop(1))

def put_then_die(self, *all_):
    global n_left
    put(self, *all_)
    n_left -= 1
    if not n_left:
        os.kill(os.getpid(), signal.SIGKILL)

VectorCache.put = put_then_die
main()
"""

HOLDER = """
import sys, time
from pathlib import Path
from recsys.store.generation import Store

with Store(Path(sys.argv[1])).build_lock():
    print("held", flush=True)
    time.sleep(60)
"""


def command(catalogue: AudioCatalogue, store: Path) -> list[str]:
    tables = ["--tracks", str(catalogue.inputs.tracks), "--listens", str(catalogue.inputs.listens)]
    return ["build", *tables, "--store", str(store), "--config", str(catalogue.folder / "quick.toml")]


def still_running(mark: str) -> list[str]:
    """Processes with this in their environment, after a moment to end in."""
    found: list[str] = []
    for _ in range(50):
        found = [str(file.parent) for file in Path("/proc").glob("[0-9]*/environ") if mark.encode() in read(file)]
        if not found:
            break
        time.sleep(0.1)
    return found


def read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.mark.slow
def test_kill_9_while_embedding(audio_catalogue: AudioCatalogue, audio_store: Path, tmp_path: Path) -> None:
    """Batches are of two clips: after two of them four vectors and the network are kept; the end is the same."""
    store, mark = tmp_path / "store", f"of-{uuid.uuid4()}"
    arguments = [sys.executable, "-c", KILLED, "2", *command(audio_catalogue, store)]
    environment = os.environ | {"TEST_MARK": mark}
    killed = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not still_running(mark), "the decoders of the killed build have ended too"
    assert not (store / "CURRENT").exists()
    assert run("recommend", "v1", "--store", store).status == 4
    kept = load_sound_model(store / "cache" / "network")
    assert kept is not None
    with pytest.MonkeyPatch.context() as patch, counted_calls(DecodeWorkers, "_decode") as decoded:
        patch.setattr(fitting, "train_sound_model", None)  # the network is not trained again
        build(audio_catalogue.inputs, store, quick_settings(), Silent())
    assert sorted(Path(str(path)).name for path in decoded) == ["s4.wav", "s5.mp3", "s6.flac", "s7.wav"]
    again = load_sound_model(Store(store).current() / "models")
    assert again is not None
    assert again.version == kept.version
    assert tables(store) == tables(audio_store), "as if nothing had happened"


@pytest.mark.slow
def test_ctrl_c_while_embedding(
    audio_catalogue: AudioCatalogue, audio_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, put = copied(audio_store, tmp_path), VectorCache.put
    current, config = Store(store).current(), tmp_path / "other.toml"
    config.write_text(f"seed = 4\n{QUICK}")

    def put_then_interrupt(self: VectorCache, *all_: object) -> None:
        put(self, *all_)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(VectorCache, "put", put_then_interrupt)
        ran = run(*command(audio_catalogue, store)[:-1], config, "--retrain")
    assert ran.status == 130
    assert ran.err.splitlines()[-1] == "recsys: interrupted; run the same command again to go on"
    assert "Traceback" not in ran.err
    assert Store(store).current() == current
    assert run(*command(audio_catalogue, store)).status == 0


@pytest.mark.slow
@pytest.mark.parametrize("step", ["write_tables", "catch_up"])
def test_ctrl_c_while_publishing(
    tiny_store: Path, tiny_catalogue: TinyCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = copied(tiny_store, tmp_path)
    current, content = Store(store).current(), tables(store)

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    monkeypatch.setattr(f"pipelines.publish.{step}", interrupt)
    ran = run("build", "--tracks", tiny_catalogue.tracks, "--store", store)
    assert (ran.status, ran.err.splitlines()[-1].startswith("recsys: interrupted")) == (130, True)
    assert [path.name for path in Store(store).generations.iterdir()] == [current.name]
    assert (Store(store).current(), tables(store)) == (current, content)


@pytest.mark.slow
def test_two_builds_at_once(tiny_store: Path, tiny_catalogue: TinyCatalogue, tmp_path: Path) -> None:
    store = copied(tiny_store, tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "held\n"
            ran = run("build", "--tracks", tiny_catalogue.tracks, "--store", store)
            assert ran.status == 4
            assert "another build is running on" in ran.complaint
            assert run("recommend", "u1", "--store", store).status == 0, "readers do not mind"
        finally:
            other.kill()
    build(Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), store, quick_settings(), Silent())  # a kill lets go
    with Store(store).build_lock(), pytest.raises(ArtefactError, match="another build"):
        build(Inputs(tiny_catalogue.tracks), store, quick_settings(), Silent())


@pytest.mark.slow
def test_a_damaged_cache_or_network_is_said_or_made_again(
    audio_catalogue: AudioCatalogue, audio_store: Path, tmp_path: Path
) -> None:
    store = copied(audio_store, tmp_path)
    for folder in (Store(store).current() / "models", store / "cache" / "network"):
        (folder / "sound" / "sound.safetensors").write_bytes(b"damaged")
    build(audio_catalogue.inputs, store, quick_settings(), Silent())
    assert tables(store) == tables(audio_store), "trained anew, as the first time"
    (store / "cache" / "sound.lmdb").write_bytes(b"damaged" * 5000)
    ran = run(*command(audio_catalogue, store))
    assert ran.status == 4
    assert "delete it, it is made again" in ran.complaint
    (store / "cache" / "sound.lmdb").unlink()
    assert run(*command(audio_catalogue, store)).status == 0


@pytest.mark.slow
def test_kills_at_random_moments(audio_catalogue: AudioCatalogue, audio_store: Path, tmp_path: Path) -> None:
    """Ten kills of whole process groups; whoever opens the store in between finds a whole generation."""
    store, chance = copied(audio_store, tmp_path), random.Random(5)
    current = Store(store).current().name
    arguments = [sys.executable, "-m", "recsys", *command(audio_catalogue, store), "--retrain"]
    for _ in range(10):
        with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True) as process:
            with suppress(subprocess.TimeoutExpired):  # there is nothing to wait for after its end
                process.wait(timeout=chance.uniform(0.5, 8.0))
            process.kill()
        assert Store(store).current().name >= current
        assert Recommender.open(store).recommend("v1").tracks
        assert rows(store, "SELECT count(*) FROM tracks") == [(8,)]
    assert run(*command(audio_catalogue, store)).status == 0
    assert tables(store) == tables(audio_store)
    assert not list(store.rglob("*.partial"))
