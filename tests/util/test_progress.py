"""Progress on a screen: one live line, a line a stage, nothing but whole lines where nobody is looking."""

import io
import re

import pytest
from rich.console import Console

from recsys.errors import ArtefactError
from recsys.util.progress import FIRST_SIGN_S, Bars, Progress, Silent

CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


def screen_of(written: str) -> list[str]:
    """What a terminal shows after it was sent ``written``, without empty lines at the end."""
    lines, row, column = [""], 0, 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\n|\r)", written):
        if (code := CONTROL.fullmatch(part)) is not None:
            if code[2] == "A":
                row -= int(code[1] or 1)
            elif (code[1], code[2]) == ("2", "K"):
                lines[row] = ""
        elif part == "\n":
            row += 1
            column = 0
            lines += [""] * (row == len(lines))
        elif part == "\r":
            column = 0
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return "\n".join(line.rstrip() for line in lines).rstrip().splitlines()


class Log(io.StringIO):
    """A file that knows what has reached the disk."""

    flushed = ""

    def flush(self) -> None:
        super().flush()
        self.flushed = self.getvalue()


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def terminal(width: int = 100) -> tuple[io.StringIO, Console]:
    file = io.StringIO()
    return file, Console(file=file, force_terminal=True, force_interactive=True, color_system=None, width=width)


def long_run(progress: Progress, n_splits: int = 30) -> None:
    """Two stages as an evaluation has them: fits inside, each of which has stages and counts of its own."""
    with progress.stage("read") as stage:
        stage.done("160 tracks")
    with progress.stage("warm") as stage:
        for _ in range(n_splits):
            with progress.stage("als"), progress.bar("ALS: settings", 2, "fits") as bar:
                bar.advance(1, "recall@20 0.1")
                bar.advance(1, "recall@20 0.2")
            progress.detail("ALS: 64 factors rank best")
        stage.done("recall@20: hybrid 0.4")


def words(lines: list[str]) -> list[str]:
    """Lines less their times."""
    return [re.sub(r"\s+[0-9.:]+ s\s+", " ", line) for line in lines]


def test_a_file_gets_one_whole_line_a_stage_and_nothing_else() -> None:
    log = Log()
    long_run(Bars(Console(file=log, width=120)))
    assert words(log.getvalue().splitlines()) == ["read 160 tracks", "warm recall@20: hybrid 0.4"]
    assert not re.search(r"[\x1b\r━]", log.getvalue())


def test_lines_reach_a_file_as_soon_as_their_stage_ends() -> None:
    log = Log()
    progress = Bars(Console(file=log))
    with progress.stage("read") as stage:
        stage.done("160 tracks")
    assert log.flushed.endswith("160 tracks\n")
    with progress.stage("audio"):
        progress.log("the weights are not here")
        assert log.flushed.endswith("the weights are not here\n")


def test_a_terminal_shows_the_same_lines_at_the_end() -> None:
    file, console = terminal()
    long_run(Bars(console))
    assert words(screen_of(file.getvalue())) == ["read 160 tracks", "warm recall@20: hybrid 0.4"]


@pytest.mark.parametrize("width", [30, 60, 100])
def test_a_terminal_has_one_live_line_for_what_is_running(width: int) -> None:
    file, console = terminal(width)
    progress = Bars(console, clock=Clock())
    with progress.stage("read"):
        pass
    with progress.stage("warm"):
        progress.log("told meanwhile")
        with progress.stage("audio"), progress.bar("audio: embedding", 4000, "clips"):
            shown = screen_of(file.getvalue())
            assert len(shown) == 3, shown
            assert words(shown[:2]) == ["read done", "told meanwhile"]
            assert shown[2].startswith("war")
            assert len(shown[2]) <= width
            if width == 100:
                assert "audio > audio: embedding  0/4,000 clips" in shown[2]


def test_what_is_around_is_shown_again_when_a_part_ends() -> None:
    file, console = terminal()
    progress = Bars(console)
    with progress.stage("tune"), progress.bar("trials", 20, "trials"):
        with progress.bar("ALS", 15, "iterations"):
            assert "ALS" in screen_of(file.getvalue())[-1]
        with progress.stage("next"):
            assert "ALS" not in screen_of(file.getvalue())[-1]
            assert "trials > next" in screen_of(file.getvalue())[-1]


def test_details_are_lines_where_they_were_asked_for() -> None:
    log = Log()
    long_run(Bars(Console(file=log, width=120), verbose=True), 2)
    once = ["    settings 2 fits, recall@20 0.2", "  als done", "  ALS: 64 factors rank best"]
    lines = words(log.getvalue().splitlines())
    assert [line.replace("ALS: settings", "settings") for line in lines] == [
        "read 160 tracks", *once, *once, "warm recall@20: hybrid 0.4",
    ]  # fmt: skip


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_stage_that_fails_says_so_and_leaves_the_screen_in_order(is_terminal: bool) -> None:
    file, console = terminal() if is_terminal else (log := Log(), Console(file=log))
    progress = Bars(console)

    def interrupted() -> None:
        with progress.stage("audio"), progress.bar("embedding", 8, "clips") as bar:
            bar.advance(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert words(screen_of(file.getvalue())) == ["audio stopped at embedding 3 of 8 clips"]
    with progress.stage("next"):
        pass
    assert words(screen_of(file.getvalue())) == ["audio stopped at embedding 3 of 8 clips", "next done"]


def test_an_error_has_the_screen_for_itself_where_nothing_was_counted() -> None:
    log = Log()

    def broken() -> None:
        with Bars(Console(file=log)).stage("read"):
            raise ArtefactError("tracks.csv is missing")

    with pytest.raises(ArtefactError):
        broken()
    assert log.getvalue() == ""


def test_a_count_in_no_stage_is_a_line() -> None:
    log = Log()
    progress = Bars(Console(file=log))
    with progress.bar("reading tags", 8, "files") as bar:
        bar.advance(8)

    def broken() -> None:
        with progress.bar("lists", 1200, "users") as bar:
            bar.advance(1000)
            raise ArtefactError("the disk is full")

    with pytest.raises(ArtefactError):
        broken()
    assert words(log.getvalue().splitlines()) == ["reading tags 8 files", "lists stopped at 1,000 of 1,200 users"]


def test_a_long_run_without_a_terminal_gives_signs_of_life_ever_more_seldom() -> None:
    log, clock = Log(), Clock()
    progress = Bars(Console(file=log), clock=clock)
    with progress.stage("audio"), progress.bar("embedding", 36_000, "clips") as bar:
        clock.now_s = FIRST_SIGN_S - 1
        bar.advance()
        assert log.getvalue() == ""
        for _ in range(10 * 60):  # ten hours
            clock.now_s += 60.0
            bar.advance(60)
        signs = log.flushed.splitlines()
        assert signs[0].startswith("audio")
        assert re.search(r"so far: embedding  61/36,000 clips .* left$", signs[0])
        assert 8 <= len(signs) <= 11


def test_what_every_fit_says_is_told_once() -> None:
    log = Log()
    progress = Bars(Console(file=log))
    for _ in range(3):
        progress.log("the weights are not here")
    assert log.getvalue() == "the weights are not here\n"


def test_names_from_strangers_drive_nothing() -> None:
    log = Log()
    progress = Bars(Console(file=log))
    with progress.stage("read [bold]") as stage:
        progress.log("a\x1b[2Jb [red]c")
        stage.done("one\x1b[31m [blue]track")
    assert "\x1b" not in log.getvalue()
    assert r"a\x1b[2Jb [red]c" in log.getvalue()
    assert r"one\x1b[31m [blue]track" in log.getvalue()
    assert "read [bold]" in log.getvalue()


def test_silence_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    long_run(Silent())
    assert capfd.readouterr() == ("", "")
