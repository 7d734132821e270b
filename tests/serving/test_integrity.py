"""What the check in the background has found is known to every worker before it answers its first call."""

import logging
import shutil
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.served_store import StoreSizes, made_store
from helpers.flipping import flip
from helpers.stores import copied, with_facts
from recsys.errors import ArtefactError
from recsys.serving import server
from recsys.serving.integrity import Checker, Findings
from recsys.serving.reload import open_serving
from recsys.serving.workers import _work
from recsys.store import checksums
from recsys.store.generation import Store
from recsys.store.manifest import read_facts
from recsys.util.progress import Silent
from recsys.v1 import recommender_pb2 as pb

NEW = "20990101T000000.000000Z"


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Store:
    return Store(copied(tiny_store, tmp_path))


def found_in(*generations: str) -> Findings:
    findings = Findings()
    for name in generations:
        findings.add(name, is_fatal=True)
    return findings


def test_a_worker_begins_with_the_newest_generation_that_is_whole(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    old = store.current().name
    shutil.copytree(store.current(), store.generations / NEW)
    with_facts(store.generations / NEW, generation=NEW)
    (store.folder / "CURRENT").write_text(NEW)
    answers, refused = open_serving(store.folder, "lmdb", found_in(NEW).is_refused)
    with closing(answers):
        assert (answers.generation, refused, answers.damaged) == (old, NEW, False)
    assert f"a file of generation {NEW} is damaged" in caplog.text
    answers, refused = open_serving(store.folder, "lmdb", found_in(old).is_refused)
    with closing(answers):
        assert (answers.generation, refused, answers.damaged) == (NEW, "", False)


def test_a_worker_without_another_generation_begins_with_stored_lists_alone(store: Store) -> None:
    answers, refused = open_serving(store.folder, "lmdb", found_in(store.current().name).is_refused)
    with closing(answers):
        assert (answers.generation, refused) == (store.current().name, "")
        assert answers.recommend(pb.RecommendRequest(user_id="u3", k=10).SerializeToString())
        with pytest.raises(ArtefactError, match="is damaged"):
            server._working("RecordListens")(answers, b"")


def test_workers_are_told_of_findings_before_they_open(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def opening(_folder, _backend, damaged):
        asked.extend(damaged(name) for name in ("g", "h"))
        raise ArtefactError("that is all")

    told = SimpleNamespace(findings=found_in("g"), settings=SimpleNamespace(backend="lmdb"))

    class Report:
        def send(self, error):
            asked.append(str(error))

    monkeypatch.setattr("recsys.serving.workers.open_serving", opening)
    monkeypatch.setattr("recsys.serving.workers.signal.signal", lambda *_: None)
    with pytest.raises(SystemExit):
        _work(store.folder, "", None, Report(), [], told, 1, None)
    assert asked == [True, False, "that is all"]


def test_made_up_stores_are_published_as_others_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        name = made_store(tmp_path / "store", StoreSizes(300, 400, 50), 1, Silent())
    folder = Store(tmp_path / "store").generation(name)
    facts = read_facts(folder)
    assert (facts["format"], len(facts["sha256"])) == (checksums.FORMAT, len(facts["files"]) - 1)
    assert {file.stat().st_mode & 0o777 for file in folder.rglob("*") if file.is_file()} == {0o444}
    findings = Findings()
    Checker(tmp_path / "store", lambda: name, findings, pace=1e12).check(name)
    assert findings.count(name) == 0
    array = folder / "arrays" / "edges.npy"
    array.chmod(0o644)
    flip(array, 1100)
    Checker(tmp_path / "store", lambda: name, findings, pace=1e12).check(name)
    assert findings.is_refused(name)


def test_a_check_that_is_told_to_end_looks_at_no_further_file(store: Store) -> None:
    array = store.current() / "arrays" / "item_vectors.npy"
    array.chmod(0o644)
    flip(array, 1100)
    name, findings = store.current().name, Findings()
    checker = Checker(store.folder, lambda: name, findings, pace=1e12)
    checker._stopped.set()
    checker.check(name)
    assert findings.count(name) == 0
    checker._stopped.clear()
    checker.check(name)
    assert findings.count(name) == 1
