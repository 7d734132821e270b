"""What a server keeps open between two calls: it begins nothing where nothing was written, and misses no write."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from helpers.stores import copied
from recsys.eventlog import lmdb_env
from recsys.eventlog.events import Listened
from recsys.eventlog.store import LiveStore, open_live
from recsys.serving import call_context
from recsys.serving.fast_path import FastPath, ServingState
from recsys.serving.reload import open_answers, watch
from recsys.store.keys import key_of
from recsys.v1 import recommender_pb2 as pb


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    return copied(tiny_store, tmp_path)


@pytest.fixture
def answers(store: Path) -> Any:
    answers = open_answers(store)
    answers.live.settle()
    answers.live.retire()  # a thread that looks by itself would be counted here
    yield answers
    answers.close()


class Begun:
    """An LMDB file that counts what is begun in it."""

    def __init__(self, opened: Any) -> None:
        self._opened, self.n = opened, 0

    def begin(self, *args: Any, **options: Any) -> Any:
        self.n += 1
        return self._opened.begin(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)


def counted(answers: FastPath) -> Begun:
    opened = answers.live._live.environment
    opened.lmdb = Begun(opened.lmdb)
    return opened.lmdb


def way(answers: FastPath, user: str) -> int:
    sent = answers.recommend(pb.RecommendRequest(user_id=user, k=5).SerializeToString())
    assert sent is not None
    return sent[1]


def test_where_nothing_was_written_nothing_is_begun(answers: FastPath) -> None:
    begun = counted(answers)
    for n in range(60):
        assert way(answers, f"u{n % 28}") == call_context.PLAIN
    assert begun.n == 1, "one that stays open"
    answers.live.record([Listened("u1", "t1")])
    for _ in range(2):  # the first one takes in what was written
        assert way(answers, "u1") == call_context.LIVE
    before = begun.n
    for n in range(60):
        assert way(answers, f"u{n % 28}") == (call_context.LIVE if n % 28 == 1 else call_context.PLAIN)
    assert begun.n == before


WRITER = """
import sys
from pathlib import Path
from recsys.eventlog.events import Listened
from recsys.serving.reload import open_answers
live = open_answers(Path(sys.argv[1])).live
for n, line in enumerate(sys.stdin):
    assert live.record([Listened(line.strip(), f"t{n % 39}", event_id=str(n))]).recorded == 1
    print("written", flush=True)
"""


@pytest.mark.slow
def test_what_another_process_was_told_is_written_is_seen_by_the_next_look(answers: FastPath, store: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        rng, touched = np.random.default_rng(0), set[str]()
        for _ in range(80):
            user = f"u{rng.integers(28)}"
            before = answers.live.get(key_of(user))[0]
            assert (before is not None) == (user in touched)
            writer.stdin.write(user + "\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "written\n"
            now = answers.live.get(key_of(user))[0]
            assert now is not None
            assert now != before
            assert now == answers.live.list_of(user)
            touched.add(user)
        writer.stdin.close()


def pinned(answers: FastPath) -> list[int]:
    """Transactions that readers of the live store have open."""
    lines = answers.live._live.environment.lmdb.readers().splitlines()[1:]
    return [int(line.split()[2]) for line in lines if line.split()[2:] and line.split()[2] != "-"]


def test_nothing_stays_open_for_long(answers: FastPath, store: Path) -> None:
    way(answers, "u1")
    [open_] = pinned(answers)
    for n in range(5):
        answers.live.record([Listened("u1", f"t{n}")])
    assert pinned(answers) == [open_], "as nobody has asked since"
    current = ServingState(answers)

    async def get() -> None:
        following = asyncio.create_task(watch(current, store, "lmdb", every_s=0.01))
        await asyncio.sleep(0.1)
        following.cancel()

    asyncio.run(get())
    assert pinned(answers) == []
    assert way(answers, "u1") == call_context.LIVE


def test_where_commits_are_numbered_elsewhere_it_asks_every_time(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_env, "FIRST", lmdb_env.FIRST - 1)  # there stands the number of the last page
    answers = open_answers(store)
    assert answers.live._live.environment.commits is None
    answers.live.retire()
    begun = counted(answers)
    assert way(answers, "u1") == call_context.PLAIN
    answers.live.record([Listened("u1", "t1")])
    assert way(answers, "u1") == call_context.LIVE
    before = begun.n
    assert way(answers, "u2") == call_context.PLAIN
    assert begun.n == before + 1
    answers.close()


def test_a_file_that_was_opened_anew_is_looked_at(answers: FastPath) -> None:
    answers.live.record([Listened("u1", "t1")])
    for _ in range(2):
        assert way(answers, "u1") == call_context.LIVE
    assert pinned(answers)
    answers.live._live.environment.mend()
    assert way(answers, "u1") == call_context.LIVE
    assert way(answers, "u2") == call_context.PLAIN
    answers.live.record([Listened("u2", "t1")])
    assert way(answers, "u2") == call_context.LIVE


@pytest.mark.parametrize("is_older", [False, True])
def test_a_deleted_user_is_nobody_to_whoever_opens_later(store: Path, is_older: bool) -> None:
    with open_live(store / "live.lmdb", write=True) as live:
        assert live is not None
    answers = open_answers(store)
    assert way(answers, "u1") == call_context.PLAIN
    assert answers.live._pinned._gone is None, "nobody was deleted, so nobody is asked for"
    answers.live.delete_user("u1")
    answers.close()
    if is_older:
        with LiveStore.open(store / "live.lmdb").writing() as writing:
            writing.delete("state", b"forgotten")
    answers = open_answers(store)
    nobody = answers.recommend(pb.RecommendRequest(user_id="nobody", k=5).SerializeToString())
    for _ in range(2):
        assert answers.recommend(pb.RecommendRequest(user_id="u1", k=5).SerializeToString()) == nobody
    assert way(answers, "u2") == call_context.PLAIN
    answers.close()


def test_a_page_that_cannot_be_read_costs_speed_alone(answers: FastPath) -> None:
    plain = answers.recommend(pb.RecommendRequest(user_id="u1", k=5).SerializeToString())

    def damaged(_key: bytes) -> None:
        raise lmdb.CorruptedError

    answers._list_at = damaged
    for _ in range(2):
        assert answers.recommend(pb.RecommendRequest(user_id="u1", k=5).SerializeToString()) == plain


class Before(Begun):
    """An LMDB file whose next transaction is one that began before what was committed last."""

    def __init__(self, opened: Any) -> None:
        super().__init__(opened)
        self._first = [opened.begin()]

    def begin(self, *args: Any, **options: Any) -> Any:
        return self._first.pop() if self._first else super().begin(*args, **options)


def test_a_transaction_that_began_in_the_middle_of_a_commit_is_not_kept(answers: FastPath) -> None:
    # LMDB writes a commit's number to its page, waits for the disk, and only then lets new transactions see it
    live = answers.live
    assert way(answers, "u1") == call_context.PLAIN
    opened = live._live.environment
    opened.lmdb, begin = Before(opened.lmdb), opened.lmdb.begin
    with begin(write=True) as writing:  # only this commit: nobody derives anything of it afterwards
        writing.put(b"u" + key_of("u1"), (1).to_bytes(8, "big"), db=opened.databases["gone"])
        writing.put(b"forgotten", (1).to_bytes(8, "big"), db=opened.databases["state"])
    assert not live.get(key_of("u1"))[1], "the commit was not yet to be seen"
    assert live.get(key_of("u1"))[1], "it is acknowledged, and u1 was deleted"
    before = opened.lmdb.n
    assert live.get(key_of("u1"))[1]
    assert opened.lmdb.n == before, "this transaction sees everything, and stays open"


def test_an_index_that_cannot_be_read_is_for_a_thread_to_tell(
    answers: FastPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a user's events wait to be taken in is looked up where lists are behind, as after a large batch."""
    with answers.live._committing() as writing:
        writing.append(Listened("u1", "t1", at="2026-01-01T00:00:00+00:00"))
    assert answers.live.get(key_of("u1")) is None, "it waits"
    assert answers.live.get(key_of("u2")) is not None

    def damaged(*_: object) -> Any:
        raise lmdb.BadTxnError("a page")

    monkeypatch.setattr("recsys.eventlog.transactions.ReadTxn.seqs_at", damaged)
    assert answers.live.get(key_of("u2")) is None
