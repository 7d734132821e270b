"""Names that others rely on: on disk, in SQL, settings, metrics, on the wire and the command line, as exit status.

``golden/names.json`` lists them. What is in it stays; what is new is added by ``python -m golden.make_names`` in
tests/.
"""

import json
from pathlib import Path

import pytest

from golden.make_names import FILE, names


@pytest.fixture(scope="module")
def now(tiny_store: Path, audio_store: Path) -> dict[str, list[str]]:
    return names([tiny_store, audio_store])


GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", sorted(GOLDEN))
def test_no_name_has_gone(now: dict[str, list[str]], kind: str) -> None:
    assert sorted(set(GOLDEN[kind]) - set(now[kind])) == [], "others rely on these names"


def test_every_name_is_in_the_list(now: dict[str, list[str]]) -> None:
    new = {kind: sorted(set(found) - set(GOLDEN.get(kind, ()))) for kind, found in now.items()}
    assert {kind: found for kind, found in new.items() if found} == {}, "add them to golden/names.json"
