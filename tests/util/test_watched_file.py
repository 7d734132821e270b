"""Files that are read again when they change: what is remembered of a look, and what is not."""

import os
from pathlib import Path

import pytest

from recsys.errors import ConfigError
from recsys.util.watched_file import PASSING, Watched


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("one")
    return tmp_path / "file"


@pytest.mark.parametrize("number", sorted(PASSING))
def test_a_look_that_this_machine_is_short_for_reads_nothing_and_is_made_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    read = list[str]()

    def reading() -> str:
        read.append(file.read_text())
        return read[-1]

    watched = Watched([file], reading)

    def fails(*_args: object, **_named: object) -> None:
        raise OSError(number, os.strerror(number))

    file.write_text("three")
    with monkeypatch.context() as failing:
        failing.setattr(Path, "stat", fails)
        assert watched.look() is False
    assert (read, watched.value) == (["one"], "one")
    assert watched.look() is True
    assert (watched.value, watched.look()) == ("three", False)


def test_what_changes_while_it_is_read_is_read_again(file: Path) -> None:
    written = ["four4", "five55"]

    def reading() -> str:
        found = file.read_text()
        if found != "one" and written:
            file.write_text(written.pop(0))
        return found

    watched = Watched([file], reading)
    file.write_text("two")
    assert (watched.look(), watched.value) == (False, "one"), "half of it may be of before"
    assert (watched.look(), watched.value) == (False, "one")
    assert (watched.look(), watched.value) == (True, "five55")


def test_a_fault_of_the_file_is_told_once_for_each_state(file: Path) -> None:
    def reading() -> str:
        if "bad" in file.read_text():
            raise ConfigError("it is damaged")
        return file.read_text()

    watched = Watched([file], reading)
    for bad in ("bad", "bad again"):
        file.write_text(bad)
        assert isinstance(watched.look(), ConfigError)
        assert watched.look() is False
        assert watched.value == "one"
    file.write_text("well")
    assert (watched.look(), watched.value) == (True, "well")
