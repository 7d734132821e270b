import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from mutagen.id3 import ID3, TALB, TCON, TIT2, TPE1

from helpers.audio_files import encoded, melody, write_all
from helpers.made_tags import frame, id3, text_frame
from recsys.audio.decoding.decode import Decoded
from recsys.audio.decoding.pool import DecodeFailure, DecodeWorkers, decode_many
from recsys.audio.decoding.worker import content_hash
from recsys.audio.settings import DecodeSettings, WorkerSettings
from recsys.errors import ArtefactError

SETTINGS = DecodeSettings(clip_s=2.0)
GOOD = encoded(melody(3.0), "WAV")


@pytest.fixture(scope="module")
def shared() -> Iterator[DecodeWorkers]:
    """A pool of one process, for tests that leave it as it is."""
    with DecodeWorkers(SETTINGS, WorkerSettings(n_workers=1)) as workers:
        yield workers


@pytest.fixture(scope="module")
def confined() -> Iterator[DecodeWorkers]:
    """A pool of one process without rights, whose own settings are those of nobody's request."""
    with DecodeWorkers(DecodeSettings(), WorkerSettings(n_workers=1), confined=True) as workers:
        yield workers


@pytest.mark.slow
def test_outcomes_come_in_the_order_of_the_paths(tmp_path: Path) -> None:
    seconds = [1.5 + i / 8 for i in range(12)]
    paths = write_all(tmp_path, {f"{s}.wav": encoded(melody(s), "WAV") for s in seconds})
    paths.insert(5, tmp_path / "gone.mp3")
    outcomes = list(decode_many(paths, SETTINGS, WorkerSettings(n_workers=2)))
    assert outcomes.pop(5) == DecodeFailure("missing-file", "there is no such file")
    assert [o.clip.duration_s for o in outcomes if isinstance(o, Decoded)] == pytest.approx(seconds, abs=1e-4)


@pytest.mark.slow
def test_a_crash_or_hang_costs_one_track(tmp_path: Path) -> None:
    names = ("kill", "crash", "hang", "swell", "write", "bug", "exit", "flood")
    faults = {name: name.encode().ljust(6) for name in names}
    files = {name: content for fault in faults for name, content in ((fault, faults[fault]), (f"{fault}.wav", GOOD))}
    limits = WorkerSettings(n_workers=2, time_limit_s=2.0, memory_mb=256)
    with DecodeWorkers(SETTINGS, limits, module="helpers.faulty_worker") as workers:
        outcomes = dict(zip(files, workers.decode(write_all(tmp_path, files)), strict=True))
    assert all(isinstance(outcomes[f"{fault}.wav"], Decoded) for fault in faults)
    failures = {fault: outcomes[fault] for fault in faults}
    assert {f.kind for f in failures.values() if isinstance(f, DecodeFailure)} == {"bad-audio"}
    reasons = {fault: failure.reason for fault, failure in failures.items() if isinstance(failure, DecodeFailure)}
    assert reasons["kill"] == "decoding crashed (SIGKILL)"
    assert reasons["crash"] == "decoding crashed (SIGABRT)"
    assert reasons["hang"] == "decoding was stopped after 2 s"
    assert reasons["swell"] == "decoding it needs more memory than a worker may have"
    assert "SIGXFSZ" in reasons["write"] or "File too large" in reasons["write"]
    assert reasons["bug"] == "decoding crashed (exit status 1)"
    assert reasons["flood"] == "decoding crashed (stopped)"
    assert reasons["exit"] == "decoding crashed (exit status 3)"
    assert not (tmp_path / "write.out").exists() or not (tmp_path / "write.out").read_bytes()


@pytest.mark.slow
def test_a_worker_killed_between_two_tracks_is_replaced(tmp_path: Path) -> None:
    (path,) = write_all(tmp_path, {"a.wav": GOOD})
    with DecodeWorkers(SETTINGS, WorkerSettings(n_workers=1)) as workers:
        assert isinstance(next(workers.decode([path])), Decoded)
        (worker,) = workers._workers
        worker.process.kill()
        worker.process.wait()
        assert isinstance(next(workers.decode([path])), Decoded)


def test_pipes_and_folders_are_not_opened(shared: DecodeWorkers, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp3")
    paths = [tmp_path / "pipe.mp3", tmp_path, Path("a\0b"), tmp_path / ("x" * 400)]
    for outcomes in (list(shared.decode(paths)), list(shared.hashes(paths))):
        assert outcomes[:2] == [DecodeFailure("bad-audio", "this is not a regular file")] * 2
        assert all(isinstance(o, DecodeFailure) and "cannot be read" in o.reason for o in outcomes[2:])


def test_paths_are_drawn_a_few_ahead(shared: DecodeWorkers, tmp_path: Path) -> None:
    (path,) = write_all(tmp_path, {"a.wav": GOOD})
    n_drawn = 0

    def endless() -> Iterator[Path]:
        nonlocal n_drawn
        while True:
            n_drawn += 1
            yield path

    hashes = shared.hashes(endless())
    assert {next(hashes) for _ in range(20)} == {content_hash(path)}
    assert 20 <= n_drawn <= 28


def test_hashes_follow_the_bytes(shared: DecodeWorkers, tmp_path: Path) -> None:
    paths = write_all(tmp_path, {"a.wav": b"sound", "b.wav": b"sound", "c.wav": b"sound!", "odd \udce9.wav": b"x"})
    a, b, c, odd = shared.hashes(paths)
    assert a == b != c
    assert odd == content_hash(paths[3])
    assert isinstance(a, str)
    assert len(a) == 32


def test_a_worker_that_cannot_start_is_a_clear_error(tmp_path: Path) -> None:
    with (
        DecodeWorkers(SETTINGS, WorkerSettings(n_workers=1), module="no_such_module") as workers,
        pytest.raises(ArtefactError, match="did not start"),
    ):
        list(workers.decode([tmp_path]))


@pytest.mark.slow
def test_workers_end_with_their_parent_and_say_nothing(tmp_path: Path) -> None:
    write_all(tmp_path, {"noisy": b"noisy ", "hang": b"hang  "})
    program = f"""
import os, sys, threading, time
from pathlib import Path
from recsys.audio.decoding.pool import DecodeWorkers
from recsys.audio.settings import DecodeSettings, WorkerSettings
with DecodeWorkers(DecodeSettings(), WorkerSettings(n_workers=1), module="helpers.faulty_worker") as workers:
    next(workers.decode([Path({str(tmp_path)!r}, "noisy")]))
    print(*(w.process.pid for w in workers._workers), "torch" in sys.modules, flush=True)
    os.kill(os.getpid(), 9)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    pid, has_torch = run.stdout.split()
    assert (has_torch, run.stderr) == ("False", "")
    deadline = time.monotonic() + 10
    while _is_alive(int(pid)):
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_leaving_early_ends_the_workers(tmp_path: Path) -> None:
    paths = write_all(tmp_path, {"hang": b"hang  ", "a.wav": GOOD})
    with DecodeWorkers(SETTINGS, WorkerSettings(n_workers=2), module="helpers.faulty_worker") as workers:
        list(workers.hashes(paths))
        workers._threads.submit(workers._decode, paths[0])
        time.sleep(0.2)
        pids = [worker.process.pid for worker in workers._workers]
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert not any(_is_alive(pid) for pid in pids)


@pytest.mark.slow
def test_a_confined_process_decodes_what_it_may_not_open(confined: DecodeWorkers, tmp_path: Path) -> None:
    """It is handed the open file, and has no rights of its own; where it may not change its user it keeps that one."""
    (path,) = write_all(tmp_path, {"a.mp3": encoded(melody(3.0), "MP3", "MPEG_LAYER_III")})
    tags = ID3()
    for tag in (TPE1(0, ["Somebody"]), TALB(1, ["First"]), TCON(2, ["jazz"]), TIT2(3, ["Inside"])):  # each encoding
        tags.add(tag)
    tags.save(path)
    path.chmod(0o600)
    tmp_path.chmod(0o700)
    with path.open("rb") as file:
        outcome = confined.listen(file, SETTINGS)
    assert not isinstance(outcome, DecodeFailure)
    decoded, inside = outcome
    assert decoded.format == "mp3"
    assert inside == {"title": "Inside", "artist": "Somebody", "album": "First", "genre": "jazz"}
    assert len(decoded.clip.samples) == 32_000, "by the settings of the request"
    (worker,) = confined._workers
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert fields["NoNewPrivs"].strip() == "1"
    if os.geteuid() == 0:
        assert "0" not in fields["Uid"].split() + fields["Gid"].split() + fields["Groups"].split()
        [by_path] = confined.decode([path])
        assert isinstance(by_path, DecodeFailure), "it cannot open the file itself"
        assert "Permission denied" in by_path.reason


@pytest.mark.parametrize(("year", "believed"), [("c. 2004", "2004"), ("MMIV", None), ("99", None)])
def test_a_year_inside_that_is_none_is_left_out(
    shared: DecodeWorkers, tmp_path: Path, year: str, believed: str | None
) -> None:
    tags = id3(text_frame("TYER", year), text_frame("TIT2", "Inside"))
    (path,) = write_all(tmp_path, {"a.mp3": tags + encoded(melody(3.0), "MP3", "MPEG_LAYER_III")})
    with path.open("rb") as file:
        outcome = shared.listen(file, SETTINGS)
    assert not isinstance(outcome, DecodeFailure)
    assert outcome[1].get("year") == believed


def test_garbage_that_is_handed_over_is_a_failure(confined: DecodeWorkers, tmp_path: Path) -> None:
    paths = write_all(tmp_path, {"a.mp3": b"", "b.mp3": b"words" * 1000, "c.flac": GOOD[:100], "d.wav": GOOD})
    outcomes = []
    for path in paths:
        with path.open("rb") as file:
            outcomes.append(confined.listen(file, SETTINGS))
    assert [isinstance(outcome, DecodeFailure) for outcome in outcomes] == [True, True, True, False]


def test_tags_that_are_made_to_harm_cost_themselves_and_not_the_sound(confined: DecodeWorkers, tmp_path: Path) -> None:
    sound = encoded(melody(3.0), "MP3", "MPEG_LAYER_III")
    packed = zlib.compress(b"\x03" + b"A" * 50_000_000, 9)
    tags = id3(frame("TIT2", bytes(4) + packed, 3, 0x80), text_frame("TYER", "old"), text_frame("TPE1", "Somebody"))
    (path,) = write_all(tmp_path, {"a.mp3": tags + sound})
    with path.open("rb") as file:
        outcome = confined.listen(file, SETTINGS)
    assert not isinstance(outcome, DecodeFailure)
    decoded, inside = outcome
    assert inside == {"title": "A" * 1000, "artist": "Somebody"}
    assert [(problem.kind, problem.reason) for problem in decoded.problems] == [
        ("bad-tags", "title: more than 1,000 characters, cut there")
    ]
    assert len(decoded.clip.samples) == 32_000
