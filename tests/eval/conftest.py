"""An evaluation draws its page only where a test looks at it: pictures cost ten times what the rest of a run does."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

PAGE = "eval.report.page"


@pytest.fixture
def drawn() -> None:
    """Asked for by tests that look at the page of a report."""


@pytest.fixture(autouse=True)
def _no_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an empty page in the place of a drawn one."""
    if "drawn" in request.fixturenames:
        return

    def write_report(_: object, out: Path) -> None:
        (out / "report.html").write_text("not drawn")

    undrawn = ModuleType(PAGE)
    undrawn.write_report = write_report  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, PAGE, undrawn)
