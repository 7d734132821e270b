"""The first page says what is: it is short, its examples have the shape of what they print, its lines run.

Its lines on the demo's store run in tests/pipelines/test_demo.py, on the folder of the one small demo.
"""

import re

from helpers.pages import README, commands, shell_lines, text_of, words
from helpers.places import ROOT

TEXT = text_of(README)


def test_it_is_six_to_nine_kilobytes() -> None:
    assert 6_000 <= len(TEXT.encode()) <= 9_000


def test_the_first_screen_has_the_picture_the_two_commands_and_examples_of_both_kinds() -> None:
    first = TEXT.partition("\n## ")[0]
    assert "docs/assets/recall-light.svg" in first
    assert [words(line) for line in shell_lines(README)[:2]] == [["make", "demo"], ["make", "test"]]
    assert len([line for line in commands(README) if "demo-out" in line]) == 5
    assert len(re.findall(r"^>>> ", first, flags=re.MULTILINE)) == 5


def test_your_own_music_takes_three_commands() -> None:
    [own] = re.findall(r"^## Your own music.*?^```bash\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert [words(line)[1] for line in own.splitlines()] == ["scan", "build", "serve"]


def test_six_bullets_say_what_it_does_and_four_rows_what_was_measured() -> None:
    does, measured = (
        re.search(rf"^## {name}\n(.*?)^## ", TEXT, flags=re.MULTILINE | re.DOTALL)[1]
        for name in ("What it does", "What was measured")
    )
    assert len(re.findall(r"^- \*\*", does, flags=re.MULTILINE)) == 6
    rows = re.findall(r"^\|.*\|$", measured, flags=re.MULTILINE)[2:]
    assert len(rows) == 4
    assert all("](docs/" in row for row in rows)


def test_the_extras_that_it_names_are_there() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r"pip install '\.\[(\w+)\]'", TEXT):
        assert re.search(rf"^{extra} = \[", project, flags=re.MULTILINE), extra
