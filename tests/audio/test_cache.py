import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recsys.audio.cache import CachedSound, FileMark, VectorCache
from recsys.audio.decoding.decode import DECODER, AudioProblem
from recsys.errors import ArtefactError

HASH, OTHER = "ab" * 16, "cd" * 16
SOUND = CachedSound(
    np.array([0.6, -0.8, 0], np.float32), 12.5, "mp3", (AudioProblem("truncated-audio", "60 s are declared"),)
)


def test_what_is_put_is_found_after_reopening(tmp_path: Path) -> None:
    song = tmp_path / "song.mp3"
    song.write_bytes(b"music")
    mark = FileMark.of(song)
    assert mark is not None
    with VectorCache(tmp_path / "sound.lmdb") as cache:
        assert cache.hash_of(mark) is None
        cache.put("v1", [(HASH, SOUND)], [(mark, HASH)])
    with VectorCache(tmp_path / "sound.lmdb") as cache:
        found = cache.get("v1", HASH)
        assert found is not None
        np.testing.assert_array_equal(found.vector, SOUND.vector)
        assert (found.duration_s, found.format, found.problems) == (12.5, "mp3", SOUND.problems)
        assert cache.get("v2", HASH) is None
        assert cache.get("v1", OTHER) is None
        assert cache.hash_of(mark) == HASH


def test_a_file_that_changed_is_not_known(tmp_path: Path) -> None:
    song, twin = tmp_path / "song.mp3", tmp_path / "twin.mp3"
    for path in (song, twin):
        path.write_bytes(b"music")
    with VectorCache(tmp_path / "sound.lmdb") as cache:
        mark = FileMark.of(song)
        assert mark is not None
        cache.put("v1", [], [(mark, HASH)])
        os.utime(song, ns=(0, mark.changed_ns + 1))
        for path in (song, twin):
            now = FileMark.of(path)
            assert now is not None
            assert cache.hash_of(now) is None
    assert FileMark.of(tmp_path / "gone.mp3") is None


def test_the_map_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.audio.cache._FIRST_MAP_BYTES", 2**16)
    sounds = [(f"{i:032x}", CachedSound(np.full(256, i, np.float32), i, "wav", ())) for i in range(500)]
    with VectorCache(tmp_path / "sound.lmdb") as cache:
        cache.put("v1", sounds[:250], [])
        cache.put("v1", sounds[250:], [])
        found = [cache.get("v1", digest) for digest, _ in sounds]
    assert [f.vector[7] for f in found if f is not None] == list(range(500))


@pytest.mark.parametrize("content", [b"no LMDB file " * 1000, b"x"], ids=["text", "stub"])
def test_a_file_of_something_else_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sound.lmdb").write_bytes(content)
    with pytest.raises(ArtefactError, match="damaged"):
        VectorCache(tmp_path / "sound.lmdb")


def test_a_cut_file_is_an_error_and_no_bus_error(tmp_path: Path) -> None:
    path = tmp_path / "sound.lmdb"
    with VectorCache(path) as cache:
        cache.put("v1", [(f"{i:032x}", SOUND) for i in range(2000)], [])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(ArtefactError, match="damaged"):
        VectorCache(path)


def test_a_kill_leaves_what_was_put(tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
import numpy as np
from recsys.audio.cache import CachedSound, VectorCache
cache = VectorCache(Path({str(tmp_path)!r}) / "sound.lmdb")
cache.put("v1", [({HASH!r}, CachedSound(np.ones(3, np.float32), 1.0, "wav", ()))], [])
os.kill(os.getpid(), 9)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.run([sys.executable, "-c", program], env=environment, timeout=60).returncode == -9
    with VectorCache(tmp_path / "sound.lmdb") as cache:
        assert cache.get("v1", HASH) is not None


def test_an_entry_without_a_version_is_the_first_decoders(tmp_path: Path) -> None:
    """As they were written before versions; what an older program wrote is still read."""
    old = b'{"duration_s": 54.0, "format": "mp3", "problems": []}\n' + np.array([1, 0, 0], "<f4").tobytes()
    with VectorCache(tmp_path / "sound.lmdb") as cache:
        with cache._env.begin(write=True) as transaction:
            transaction.put(f"vector:v1:{HASH}".encode(), old)
        cache.put("v1", [(OTHER, SOUND)], [])
    with VectorCache(tmp_path / "sound.lmdb") as cache:
        found = [cache.get("v1", digest) for digest in (HASH, OTHER)]
    assert [one.decoder for one in found if one is not None] == [1, DECODER]
