"""Files that are replaced: the old one or the new one, whatever fails, and nothing beside it."""

import errno
import os
from pathlib import Path

import pytest

from recsys.util.files import moved, replace, replace_text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    replace_text(tmp_path / "file", "old\n")
    return tmp_path / "file"


def left(file: Path) -> tuple[str, list[str]]:
    return file.read_text(), [path.name for path in file.parent.iterdir()]


def test_a_file_is_replaced_and_on_the_disk_before_it_is_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, fsync, rename = list[str](), os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda at: steps.append("folder" if os.path.isdir(f"/proc/self/fd/{at}") else "file") or fsync(at)
    )
    monkeypatch.setattr(Path, "replace", lambda self, to: steps.append("rename") or rename(self, to))
    replace_text(file, "new\n")
    assert left(file) == ("new\n", ["file"])
    assert steps == ["file", "rename", "folder"]


def test_a_full_disk_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_text(file, "new\n")
    assert left(file) == ("old\n", ["file"])


def test_a_writer_that_fails_half_way_leaves_the_file_as_it_was(file: Path) -> None:
    def write(beside: Path) -> None:
        assert beside.parent == file.parent, "a rename must not leave the file system"
        beside.write_text("ne")
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        replace(file, write)
    assert left(file) == ("old\n", ["file"])


def test_what_an_earlier_kill_left_is_no_hindrance(file: Path) -> None:
    names = list[str]()
    replace(file, lambda beside: beside.write_text(names.append(beside.name) or "old\n"))
    (file.parent / names[0]).write_text("left behind by a process that had this one's id")
    replace(file, lambda beside: beside.touch(exist_ok=False) or beside.write_text("new\n"))
    assert left(file) == ("new\n", ["file"])


def test_a_file_of_the_longest_name_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / ("n" * 255)
    replace_text(file, "text")
    assert left(file) == ("text", [file.name])


@pytest.mark.parametrize("was_there", [False, True])
def test_a_move_is_taken_back_if_what_follows_fails(tmp_path: Path, was_there: bool) -> None:
    (tmp_path / "from").write_text("sound")
    to = tmp_path / "to"
    if was_there:
        to.write_text("sound")

    def fail() -> None:
        with moved(tmp_path / "from", to):
            assert to.exists()
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert to.exists() is was_there
