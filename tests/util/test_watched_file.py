"""Files that are read again when they change: what is remembered of a look, and what is not."""

import errno
import os
import ssl
from pathlib import Path

import pytest

from recsys.errors import ConfigError
from recsys.util.watched_file import PASSING, Watched, passes


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


def test_a_read_that_fails_for_a_moment_is_no_fault_of_the_file(file: Path) -> None:
    failing = list[int]()

    def reading() -> str:
        if failing:
            raise ConfigError("it cannot be read") from OSError(failing.pop(), "in passing")
        return file.read_text()

    watched = Watched([file], reading)
    file.write_text("three")
    failing += [errno.EMFILE, errno.EACCES, errno.EMFILE]
    assert (watched.look(), watched.value) == (False, "one")
    assert isinstance(watched.look(), ConfigError), "no right to read it does not pass"
    assert watched.look() is False
    assert (watched.look(), watched.value) == (True, "three")


def test_a_file_that_is_gone_is_told_and_one_that_comes_back_is_read_though_it_is_the_same(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading() -> str:
        try:
            return f"{file.stat().st_size} bytes"
        except OSError as error:
            raise ConfigError("it cannot be read") from error

    def gone(*_args: object, **_named: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))  # as on a mount that is away for a while

    watched = Watched([file], reading)
    with monkeypatch.context() as away:
        away.setattr(Path, "stat", gone)
        assert isinstance(watched.look(), ConfigError)
        assert (watched.look(), watched.value) == (False, "3 bytes")
    assert (watched.look(), watched.value) == (True, "3 bytes")
    assert watched.look() is False


@pytest.mark.parametrize(
    ("cause", "is_passing"),
    [
        (OSError(errno.EIO, "a disk"), True),
        (OSError(errno.ENOENT, "no file"), False),
        (ssl.SSLError(errno.EIO, "a certificate"), False),  # the number is OpenSSL's
        (None, False),
    ],
)
def test_what_passes_is_told_by_any_error_that_it_came_of(cause: OSError | None, is_passing: bool) -> None:
    middle, outer = ValueError("no key"), ConfigError("it cannot be read")
    middle.__cause__, outer.__cause__ = cause, middle
    assert passes(outer) is is_passing
