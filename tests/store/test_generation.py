"""Generations: whole or nobody's. What a kill leaves is made by stopping between the steps."""

import errno
import os
import time
from pathlib import Path

import pytest

from recsys.errors import ArtefactError
from recsys.store import generation
from recsys.store.generation import PARTIAL, Store, disk_errors


def published(store: Store, content: str) -> Path:
    partial = store.begin()
    (partial / "arrays").mkdir()
    (partial / "arrays" / "file").write_text(content)
    return store.publish(partial)


def names(store: Store) -> list[str]:
    return sorted(folder.name for folder in store.generations.iterdir())


def test_nothing_published_is_said_with_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert not store.has_current()
    with pytest.raises(ArtefactError, match=r"holds no published generation; make one with `recsys build --store"):
        store.current()


def test_a_partial_generation_is_nobodys(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = published(store, "one")
    partial = store.begin()
    assert partial.suffix == PARTIAL
    assert (store.current(), partial.exists()) == (first, True)
    second = store.publish(partial)
    assert second == partial.with_suffix("")
    assert store.current() == second
    assert first.name < second.name
    assert names(store) == [first.name, second.name]


def test_generations_before_one_are_those_of_smaller_ids_newest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, two, three = (published(store, content).name for content in "123")
    store.begin()
    assert store.before(three) == [two, one]
    assert store.before(one) == []
    assert store.before("20990101T000000.000000Z") == [three, two, one], "one that is not there"
    assert [store.before(name) for name in ("", "../..", "\ufffd", "zzz")] == [[], [], [], []], "no ids"


def test_what_kills_left_is_cleared_by_the_next_begin(tmp_path: Path) -> None:
    store = Store(tmp_path)
    whole = published(store, "one")
    left = store.begin()
    (left / "half").write_text("x")
    store.journal.mkdir()
    halves = [store.folder / ".CURRENT.7.tmp", store.journal / ".0000000000000001.parquet.7.tmp"]
    for half in (*halves, store.journal / "0000000000000001.parquet"):
        half.write_text("x")
    fresh = store.begin()
    assert [half.exists() for half in halves] == [False, False]
    assert [file.suffix for file in store.journal.iterdir()] == [".parquet"]
    assert names(store) == [whole.name, fresh.name]
    assert not any(fresh.iterdir())


def test_a_kill_before_the_last_rename_leaves_the_old_one_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    first = published(store, "one")
    monkeypatch.setattr(generation, "replace_text", lambda *_: None)  # killed just before
    published(store, "two")
    assert store.current() == first
    assert (first / "arrays" / "file").read_text() == "one"


def test_everything_is_on_disk_before_it_is_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, synced, current_when_named = Store(tmp_path), [], []
    real, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_ino), real(file))[1])

    def replace(self: Path, target: Path) -> Path:
        current_when_named.append(set(synced))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    folder = published(store, "one")
    whole = [folder, *folder.rglob("*"), store.generations]
    assert {path.stat().st_ino for path in whole} <= current_when_named[0]
    assert (store.folder / "CURRENT").stat().st_ino in current_when_named[0]
    assert synced[-1] == store.folder.stat().st_ino, "the rename itself is durable too"


def test_current_naming_a_generation_that_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    published(store, "one")
    for text in ("20000101T000000.0Z\n", ""):
        (tmp_path / "CURRENT").write_text(text)
        with pytest.raises(ArtefactError, match="which is not there; build again"):
            store.current()


def test_prune_keeps_the_newest_and_the_current_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = [published(store, str(n)).name for n in range(5)]
    store.make_current(made[0])  # rolled back
    assert store.prune(2) == made[1:3]
    assert names(store) == [made[0], made[3], made[4]]
    assert store.prune(1) == [made[3]]
    assert store.prune(1) == []


def test_one_build_at_a_time(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "new" / "store"), Store(tmp_path / "new" / "store")
    with one.build_lock():
        with pytest.raises(ArtefactError, match="another build is running"), other.build_lock():
            pass
        with Store(tmp_path / "elsewhere").build_lock():
            pass
    with other.build_lock():
        pass


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="cannot write to the store"), Store(tmp_path / "file" / "s").build_lock():
        pass


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "writing it failed: the disk is full;"),
        (OSError(errno.EIO, "Input/output error"), "writing it failed: Input/output error;"),
        (OSError(None, "4096 requested and 0 written"), "writing it failed: 4096 requested and 0 written;"),
        (OSError("4096 requested and 0 written"), "writing it failed: 4096 requested and 0 written;"),
    ],
)
def test_disk_errors_are_one_sentence(error: OSError, told: str) -> None:
    with pytest.raises(ArtefactError, match=told) as caught, disk_errors("writing it"):
        raise error
    assert "\n" not in str(caught.value)


def test_an_upload_that_was_killed_long_ago_is_cleared_and_a_running_one_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.uploads.mkdir()
    for name, age_s in ((".old.mp3", 7200), (".running.mp3", 60), ("kept.mp3", 7200)):
        file = store.uploads / name
        file.write_text("audio")
        os.utime(file, (time.time() - age_s,) * 2)
    store.begin()
    assert sorted(file.name for file in store.uploads.iterdir()) == [".running.mp3", "kept.mp3"]
