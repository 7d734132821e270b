"""Names that others rely on: on disk, in SQL, settings, metrics, on the wire and the command line, as exit status.

``golden/names.json`` lists them. What is in it stays; what is new is added by ``python -m golden.make_names`` in
tests/.
"""

import json
import shutil
from pathlib import Path

import pytest

from golden.make_names import FILE, names
from helpers.live_store import opened


@pytest.fixture(scope="module")
def now(tiny_store: Path, audio_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The names of stores of which one was served, and so has a live log."""
    served = Path(shutil.copytree(tiny_store, tmp_path_factory.mktemp("served") / "store"))
    with opened(served):
        return names([served, audio_store])


GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", sorted(GOLDEN))
def test_no_name_has_gone(now: dict[str, list[str]], kind: str) -> None:
    assert sorted(set(GOLDEN[kind]) - set(now[kind])) == [], "others rely on these names"


def test_every_name_is_in_the_list(now: dict[str, list[str]]) -> None:
    new = {kind: sorted(set(found) - set(GOLDEN.get(kind, ()))) for kind, found in now.items()}
    assert {kind: found for kind, found in new.items() if found} == {}, "add them to golden/names.json"
