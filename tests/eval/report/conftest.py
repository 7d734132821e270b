"""The page of the made-up evaluation, drawn once a process: its pictures take most of the time of its tests."""

from pathlib import Path

import pytest

from eval.report.page import write_report
from eval.results import Evaluation
from helpers.made_evaluation import made_evaluation
from helpers.parsed_page import Parsed


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="session")
def made(out: Path) -> Evaluation:
    evaluation = made_evaluation(out)
    write_report(evaluation, out)
    return evaluation


@pytest.fixture(scope="session")
def html(out: Path, made: Evaluation) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def parsed(html: str) -> Parsed:
    return Parsed(html)
