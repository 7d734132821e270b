"""Fixtures that several test files share: small catalogues, and stores built from them once for all processes of a run.

Nothing heavy is imported here: a test file that needs no torch starts without it.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from helpers.catalogues import AudioCatalogue, TinyCatalogue
    from pipelines.build import Inputs
    from recsys.recommender import Recommender

# two threads of torch on cores that others use too are many times slower than one
os.environ.setdefault("OMP_NUM_THREADS", "1")

# stores are published durably: on a disk, tests wait for it thousands of times
MEMORY, ROOM = Path("/dev/shm"), 4 << 30
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# how long an example takes, and how many are thrown away before, decides nothing; CI tries the same examples every time
hypothesis.settings.register_profile(
    "here",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
    derandomize="CI" in os.environ,
)
hypothesis.settings.load_profile("here")


@pytest.fixture(scope="session")
def tiny_catalogue(tmp_path_factory: pytest.TempPathFactory) -> "TinyCatalogue":
    """The tables of the tiny catalogue; not to be written to."""
    from helpers.catalogues import TinyCatalogue, write_tiny_catalogue

    folder = _made_once("tiny", tmp_path_factory, lambda folder: folder.mkdir() or write_tiny_catalogue(folder))
    return TinyCatalogue(folder / "tracks.csv", folder / "listens.csv")


@pytest.fixture(scope="session")
def tiny_store(tiny_catalogue: "TinyCatalogue", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store built from the tiny catalogue; not to be written to (copy it first)."""
    from pipelines.build import Inputs

    return _built_once("tiny", Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_fit(tiny_catalogue: "TinyCatalogue") -> "Recommender":
    """The tiny catalogue fitted in memory, with the settings of ``tiny_store``."""
    from helpers.catalogues import quick_settings
    from pipelines.build import Inputs, read_catalogue
    from recsys.catalogue.problems import Problems
    from recsys.fit import fit

    inputs = Inputs(tiny_catalogue.tracks, tiny_catalogue.listens)
    read = read_catalogue(inputs, quick_settings(), Problems())
    return fit(read.tracks, read.listens, read.tags, quick_settings())


@pytest.fixture(scope="session")
def audio_catalogue(tmp_path_factory: pytest.TempPathFactory) -> "AudioCatalogue":
    """Clips and their tables; not to be written to."""
    from helpers.catalogues import AudioCatalogue, write_audio_catalogue

    return AudioCatalogue(
        _made_once("audio", tmp_path_factory, lambda folder: folder.mkdir() or write_audio_catalogue(folder))
    )


@pytest.fixture(scope="session")
def audio_store(audio_catalogue: "AudioCatalogue", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store built from the clips; not to be written to (copy it first)."""
    return _built_once("audio", audio_catalogue.inputs, tmp_path_factory)


def _built_once(name: str, inputs: "Inputs", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a catalogue, built by the first process of the run that wants it, and copied for each."""
    from helpers.catalogues import quick_settings
    from pipelines.build import build
    from recsys.util.progress import Silent

    built = _made_once(
        f"{name}-store", tmp_path_factory, lambda folder: build(inputs, folder, quick_settings(), Silent())
    )
    return Path(shutil.copytree(built, tmp_path_factory.mktemp(f"{name}-store") / "store"))


def _made_once(name: str, tmp_path_factory: pytest.TempPathFactory, make: Callable[[Path], object]) -> Path:
    """A folder that all processes of the run share, made by the first one that wants it."""
    mine = tmp_path_factory.getbasetemp()
    folder = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / f"shared-{name}"
    done = folder.with_suffix(".done")
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture
def apart() -> None:
    """Asked for by tests in a file of ``decoded_here`` whose subject is the processes that decode."""


@pytest.fixture
def decoded_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound is decoded and tags are read in this process, unless a test asks for them ``apart``."""
    from helpers.decoding_here import decode_here

    if "apart" not in request.fixturenames:
        decode_here(monkeypatch)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of its own size, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs the right to")

    def fill_up(but_kb: int) -> Path:
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        (place / "filler").write_bytes(b"x" * (free - but_kb * 1024))
        return place

    try:
        yield fill_up
    finally:
        subprocess.run(["umount", place], check=True)
