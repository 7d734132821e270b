"""Tags are read in processes whose end, hang or lie costs one file."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.audio_files import write_all
from helpers.made_tags import MP3, id3, text_frame
from recsys.catalogue.tags import worker
from recsys.catalogue.tags.pool import TagReaders
from recsys.errors import ArtefactError

FAULTY = "helpers.faulty_reader"


def tagged(title: str) -> bytes:
    return id3(text_frame("TIT2", title)) + MP3


def test_tags_come_in_the_order_of_the_paths(tmp_path: Path) -> None:
    paths = write_all(tmp_path, {f"{n:03}.mp3": tagged(f"Title {n}") for n in range(230)})
    with TagReaders(2) as readers:
        found = list(readers.read(paths))
        again = list(readers.read(paths[:3]))
        assert len(readers._readers) == 2, "they are kept from one call to the next"
    assert [inside.tags["title"] for inside in found] == [f"Title {n}" for n in range(230)]
    assert again == found[:3]


@pytest.mark.slow
def test_a_fault_costs_one_file(tmp_path: Path) -> None:
    """Also at the beginning of a message of many files, at its end, and one behind the other."""
    faults = {0: "kill", 1: "bug", 30: "flood", 49: "swell", 50: "write", 59: "exit"}
    files = {f"{n:02}.mp3": faults[n].ljust(6).encode() if n in faults else tagged(f"{n}") for n in range(60)}
    with TagReaders(1, FAULTY) as readers:
        found = list(readers.read(write_all(tmp_path, files)))
    assert [inside.tags.get("title") for inside in found] == [None if n in faults else f"{n}" for n in range(60)]
    assert [n for n, inside in enumerate(found) if inside.notes] == sorted(faults)
    assert all("crashed" in found[n].notes[0] for n in faults)
    assert "SIGKILL" in found[0].notes[0]


@pytest.mark.slow
def test_a_hang_is_stopped_and_costs_one_file(tmp_path: Path) -> None:
    paths = write_all(tmp_path, {"a": tagged("a"), "b": b"hang  ", "c": tagged("c")})
    with TagReaders(1, FAULTY, time_limit_s=2.0) as readers:
        a, b, c = readers.read(paths)
    assert (a.tags, c.tags) == ({"title": "a"}, {"title": "c"})
    assert b.notes == ("the tags cannot be read: reading was stopped after 2 s",)


def test_what_a_process_says_has_limits(tmp_path: Path) -> None:
    with TagReaders(1, FAULTY) as readers:
        [found] = readers.read(write_all(tmp_path, {"a": b"lies  "}))
    assert found.tags == {"title": "x" * 1000}
    assert [len(note) for note in found.notes] == [200] * 10


def test_a_process_may_do_nothing_but_read_what_it_is_handed(tmp_path: Path) -> None:
    [path] = write_all(tmp_path, {"a.mp3": tagged("Mine")})
    path.chmod(0o600)
    tmp_path.chmod(0o700)
    with TagReaders(1) as readers:
        [found] = readers.read([path])
        [reader] = readers._readers
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{reader.process.pid}/status").read_text().splitlines()
        )
    assert found.tags == {"title": "Mine"}
    assert fields["NoNewPrivs"].strip() == "1"
    if os.geteuid() == 0:
        assert "0" not in fields["Uid"].split() + fields["Gid"].split() + fields["Groups"].split()


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write_all(tmp_path, {"a.mp3": tagged("a")})
    with TagReaders(1) as readers:
        none, folder, pipe, a = readers.read([tmp_path / "none", tmp_path, tmp_path / "pipe", tmp_path / "a.mp3"])
    assert "No such file" in none.notes[0]
    assert folder.notes == pipe.notes == ("the tags cannot be read: this is not a regular file",)
    assert a.tags == {"title": "a"}


def test_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens it to read waits for one who writes, unless it says otherwise."""
    os.mkfifo(tmp_path / "pipe.mp3")
    opening = os.open

    def careful(path: object, flags: int, *rest: int) -> int:
        assert path != tmp_path / "pipe.mp3" or flags & os.O_NONBLOCK
        return opening(path, flags, *rest)

    monkeypatch.setattr(os, "open", careful)
    with TagReaders(1) as readers:
        [pipe] = readers.read([tmp_path / "pipe.mp3"])
    assert pipe.notes == ("the tags cannot be read: this is not a regular file",)


def test_files_are_opened_a_few_ahead_and_closed(tmp_path: Path) -> None:
    [path] = write_all(tmp_path, {"a.mp3": tagged("a")})
    drawn = 0

    def endless() -> Iterator[Path]:
        nonlocal drawn
        while True:
            drawn += 1
            yield path

    def n_open() -> int:
        return len(os.listdir("/proc/self/fd"))

    with TagReaders(1) as readers:
        list(readers.read([path]))
        before = n_open()
        found = readers.read(endless())
        assert {next(found).tags["title"] for _ in range(500)} == {"a"}
        assert drawn <= 700
        found.close()  # type: ignore[attr-defined]
        list(readers.read([path]))
        assert n_open() <= before
    assert worker.MAX_FILES < 253, "more are not handed over at once"


def test_a_process_that_cannot_start_is_a_clear_error(tmp_path: Path) -> None:
    with TagReaders(1, "no_such_module") as readers, pytest.raises(ArtefactError, match="did not start"):
        list(readers.read([tmp_path]))


def test_no_decoder_is_needed() -> None:
    """The base install has no torch, av, soundfile or soxr, and these processes start quickly without polars."""
    for module, more in (
        ("recsys.catalogue.tags.worker", ("numpy", "polars", "pydantic")),
        ("recsys.catalogue.scan", ()),
    ):
        heavy = ("torch", "av", "soundfile", "soxr", *more)
        code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert told.stdout == "[]\n"
