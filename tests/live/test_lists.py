"""Lists between builds: what is heard, uploaded and deleted shows at once, for those whom it concerns."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.catalogues import TinyCatalogue
from helpers.live_store import folded, heard, listed, new_track, opened, shown, touched, with_reach
from helpers.stores import copied
from recsys.errors import ArtefactError, DataError, NotFoundError
from recsys.eventlog.events import GenerationMovedError, KnownAudioError, Listened
from recsys.eventlog.store import open_live
from recsys.live import user_update
from recsys.live.service import LiveUpdater
from recsys.ranking.audience import reach
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.record import Record

GENRE = TinyCatalogue.genre_of


# ---- listens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["lmdb", "duckdb"])
def test_a_heard_track_leaves_at_once_and_the_list_follows(store: Path, backend: str) -> None:
    before = Recommender.open(store)
    old = [t.track_id for t in before.recommend("u0", 200).tracks]
    tracks = [f"t{n}" for n in (2, 5, 8, 11, 14)]  # jazz; u0 has heard ambient alone
    with opened(store, backend) as live:
        assert live.list_of("u0") is None
        version = live.version()
        assert live.record(heard("u0", *tracks)).recorded == 5
        assert live.version() > version
        now = listed(live, "u0")
        assert not set(now) & set(tracks)
        assert set(now) == set(old) - set(tracks)
        assert now == folded(before, "u0", *tracks)
        jazz = [[GENRE(track) for track in list_[:10]].count("jazz") for list_ in (old, now)]
        assert jazz[1] > jazz[0]
        found = Record(live.list_of("u0") or b"").found()
        assert [score for _, score, _ in found] == sorted((score for _, score, _ in found), reverse=True)
        assert {reason for _, _, reason in found} & set(tracks), "what was just heard speaks for tracks"
        assert [before.model.items.id(row) for row in Record(live.list_of("u0") or b"").rows] == now
        assert live.list_of("u1") is None, "nobody else is touched"
    again = Recommender.open(store)
    assert [t.track_id for t in again.recommend("u0", 200).tracks] == now, "whoever opens the store sees it"
    assert [t.track_id for t in again.recommend("u1", 200).tracks] == [
        t.track_id for t in before.recommend("u1", 200).tracks
    ]


def test_one_by_one_is_as_all_at_once_and_as_catching_up(store: Path) -> None:
    listens = [*heard("u3", "t1", "t4"), *heard("new", "t1"), *heard("u3", "t2", plays=3), *heard("new", "t7", "t1")]
    with opened(store) as live:
        for listen in listens:
            live.record([listen])
        apart = {user: live.list_of(user) for user in ("u3", "new")}
        generation = live.generation
    with open_live(Store(store).live, write=True) as bare, bare.writing() as writing:
        writing.forget_generation(generation)
    with opened(store) as live:
        assert {user: live.list_of(user) for user in ("u3", "new")} == apart
    fresh = copied(store, store / "twice")
    with opened(fresh) as live:
        live.record(listens)
        assert {user: live.list_of(user) for user in ("u3", "new")} == apart


def test_a_new_user_has_a_list_after_the_first_listens(store: Path) -> None:
    recommender = Recommender.open(store)
    assert recommender.recommend("somebody").source == "popular"
    with opened(store) as live:
        live.record(heard("somebody", "t0", "t3"))
        assert listed(live, "somebody") == folded(recommender, None, "t0", "t3")
        assert [GENRE(track) for track in listed(live, "somebody")[:5]].count("ambient") >= 3
        assert live.list_of("somebody else") is None
    found = Recommender.open(store).recommend("somebody", 5, max_per_artist=1)
    assert found.source == "personal"
    assert len({track.about["artist"] for track in found.tracks}) == 5


@pytest.mark.parametrize("user", ["u0", "somebody"])
def test_a_dislike_bars_and_is_no_play(store: Path, user: str) -> None:
    old = [t.track_id for t in Recommender.open(store).recommend(user, 200).tracks]
    with opened(store) as live:
        live.record([Listened(user, old[0], disliked=True)])
        assert set(old) - set(listed(live, user)) == {old[0]}
        source = Record(live.list_of(user) or b"").head
        assert (b"personal" in source) == (user == "u0")
        live.record(heard(user, old[0], old[3]))
        assert old[0] not in listed(live, user)
        assert old[0] not in {reason for _, _, reason in Record(live.list_of(user) or b"").found()}


def test_a_large_catalogue_is_looked_at_in_part(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates are the list as it was and the neighbours of what was heard."""
    monkeypatch.setattr(user_update, "EXACT_BELOW", 0)
    recommender = Recommender.open(store)
    exact = folded(recommender, "u0", "t2", "t5")
    with opened(store) as live:
        live.record(heard("u0", "t2", "t5"))
        assert listed(live, "u0")[:10] == exact[:10]
        live.record(heard("somebody", "t3"))
        near = {t.track_id for t in recommender.similar("t3", 10).tracks}
        assert near <= set(listed(live, "somebody"))


def test_events_count_once_and_bad_ones_are_told(store: Path) -> None:
    with opened(store) as live:
        batch = [
            Listened("u0", "t2", event_id="a"),
            Listened("u0", "nothing"),
            Listened("", "t2"),
            Listened("u0", "t5", plays=-1),
            Listened("u0", "t5", plays=float("nan")),
            Listened("u0", "t5", at="yesterday"),
            Listened("u0", "t5", at="2999-01-01T00:00:00+00:00"),  # one with a clock that is fast
            Listened("u0", "t5", event_id="x" * 101),
            Listened("u0", "t2", event_id="a"),
            Listened("u0", "t8", at="2020-01-01T00:00:00Z"),
            Listened("u0", "t9", at="1970-01-01T00:05:00Z"),  # a player without a clock
        ]
        done = live.record(batch)
        assert (done.recorded, done.repeated, [place for place, _ in done.refused]) == (4, 1, [1, 2, 3, 4, 5, 7])
        assert "'nothing'" in done.refused[0][1]
        list_, version = live.list_of("u0"), live.version()
        assert live.record(batch[:1]).repeated == 1
        assert (live.list_of("u0"), live.version()) == (list_, version)
    with open_live(Store(store).live) as bare, bare.reading() as reading:
        assert reading.last_seq() == 4
        events = [event for _, event in reading.listens_of("u0")]
        told = [(event.track_id, event.event_id) for event in events]
        assert told == [("t2", "a"), ("t5", ""), ("t8", ""), ("t9", "")]
        assert events[2].at == "2020-01-01T00:00:00Z"
        assert "2999" > events[3].at == events[1].at == events[0].at > "2026", "they came now"


# ---- uploads -----------------------------------------------------------------------------------------------------


def test_an_upload_comes_to_the_users_with_the_largest_margins(store: Path) -> None:
    with_reach(store, 4)
    before = Recommender.open(store)
    upload, vectors = new_track(store, "new", "jazz")
    model = before.model
    users = np.flatnonzero(model.has_plays).astype(np.int32)
    scores = before.ranking.queries(users) @ vectors["hybrid"]
    best = users[np.argsort(-(scores - before.score_at_20[users]), kind="stable")[:4]]
    with opened(store) as live:
        assert live.uploads().track_ids == ()
        assert live.add(upload, vectors) == 4
        assert live.uploads().track_ids == ("new",)
        assert live.uploads() is live.uploads()
        touched = {f"u{n}" for n in range(30) if live.list_of(f"u{n}") is not None}
        assert touched == set(model.users.ids(best))
        for user in touched:
            found = Record(live.list_of(user) or b"").found()
            assert [track for track, _, _ in found if track != "new"] == [
                t.track_id for t in before.recommend(user, 200).tracks
            ]
            assert [score for _, score, _ in found] == sorted((score for _, score, _ in found), reverse=True)
            [(place, score, reason)] = [(n, s, r) for n, (track, s, r) in enumerate(found) if track == "new"]
            assert score == pytest.approx(float(scores[users == model.users.row(user)][0]), abs=1e-4)
            assert reason in model.items.ids(model.heard(model.users.row(user)))
            assert Record(live.list_of(user) or b"").rows[place] == len(model.items)
        with pytest.raises(KnownAudioError, match="'new' already"):
            live.add(upload, vectors)
        with pytest.raises(DataError, match="'t3' belongs to another track"):
            live.add(new_track(store, "t3", "jazz", "bb")[0], vectors)
        assert live.uploads().track_ids == ("new",)
        user = sorted(touched)[0]
        live.record(heard(user, "new"))
        assert "new" not in listed(live, user)
    assert Recommender.open(store).track("new")["title"] == "New"


def test_an_upload_finds_the_new_taste_of_who_listened(store: Path) -> None:
    with_reach(store, 1)
    upload, vectors = new_track(store, "new", "metal")
    with opened(store) as live:
        live.record(heard("somebody", *(f"t{n}" for n in range(1, 25, 3)), plays=5))
        live.add(upload, vectors)
        reached = {user for user in ("somebody", *(f"u{n}" for n in range(30)))
                   if "new" in [t for t, _, _ in Record(live.list_of(user) or bytes(8)).found()]}  # fmt: skip
        assert len(reached) == 1
        row = Recommender.open(store)
        margins = {"somebody": touched(live, "somebody").query @ vectors["hybrid"] - _edge(listed_scores(live, row))}
        users = np.flatnonzero(row.model.has_plays).astype(np.int32)
        theirs = row.ranking.queries(users) @ vectors["hybrid"] - row.score_at_20[users]
        margins |= dict(zip(row.model.users.ids(users), theirs.tolist(), strict=True))
        assert reached == {max(margins, key=lambda user: margins[user])}


def test_who_listened_since_is_asked_once(store: Path) -> None:
    """By the taste of now, and not by that of the generation as well."""
    with_reach(store, 12)
    upload, vectors = new_track(store, "new", "jazz")
    with opened(store) as live:
        live.record([listen for n in range(2, 28, 3) for listen in heard(f"u{n}", "t2")])
        assert live.add(upload, vectors) == 12


@pytest.mark.parametrize("space", ["hybrid", "content"])
def test_neighbours_with_uploads_are_those_of_a_whole_pass(store: Path, space: str) -> None:
    with opened(store) as live:
        for n, genre in enumerate(("jazz", "metal", "jazz")):
            live.add(*new_track(store, f"new{n}", genre, f"{n}"))
        live.delete_track("t5")
        live.delete_track("new2")
    recommender = Recommender.open(store)
    for track in ("t2", "t39"):
        found = [(t.track_id, t.score) for t in recommender.similar(track, 20, space).tracks]
        whole = recommender._lists.nearest(recommender.model.items.row(track), track, 20, space)
        np.testing.assert_allclose([s for _, s in found], [s for _, s in whole], atol=1e-5)
        assert {t for t, _ in found[:15]} <= {t for t, _ in whole}
        assert not {"t5", "new2"} & {t for t, _ in found}
    assert "new0" in {t.track_id for t in recommender.similar("t2", 20, space).tracks}


def listed_scores(live: LiveUpdater, recommender: Recommender) -> list[float]:
    """Scores of the generation's own tracks in the list of 'somebody'."""
    found = Record(live.list_of("somebody") or b"").found()
    return [score for track, score, _ in found if recommender.model.items.find([track])[0] >= 0]


def _edge(scores: list[float]) -> float:
    return scores[19]


def test_reach_keeps_to_last_scores_and_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    n, d, m = 500, 6, 3
    users, vectors = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(m, d)).astype(np.float32)
    scores = users @ vectors.T
    score_at_20 = np.quantile(scores, 0.7, axis=1).astype(np.float32)
    score_at_last = score_at_20 - rng.random(n).astype(np.float32)
    score_at_last[::9] = -np.inf
    has_plays, left_out = rng.random(n) < 0.9, rng.random(n) < 0.1
    blend = SimpleNamespace(weights=lambda: np.ones(d, dtype=np.float32))
    model = SimpleNamespace(user_vectors=users, has_plays=has_plays, blend=blend)
    monkeypatch.setattr("recsys.ranking.audience.BLOCK", 64)
    found = reach(model, vectors, score_at_20, score_at_last, left_out, 20)
    for at, reached in enumerate(found):
        asked = has_plays & ~left_out & (scores[:, at] > score_at_last)
        margins = np.where(asked, scores[:, at] - score_at_20, -np.inf)
        assert reached.rows.tolist() == np.argsort(-margins, kind="stable")[:20].tolist()
        np.testing.assert_allclose(reached.scores, scores[reached.rows, at], rtol=1e-5)
    assert len(reach(model, vectors, score_at_20, np.full(n, 99, np.float32), left_out, 20)[0].rows) == 0


def test_an_audience_leaves_out_who_has_heard_it_or_is_gone(store: Path) -> None:
    upload, vectors = new_track(store, "new", "jazz")
    with opened(store) as live:
        live.add(upload, vectors)
        users = [user for user, _ in Recommender.open(store).audience("new", 200)]
        live.record([*heard(users[0], "new"), Listened(users[2], "new", disliked=True), *heard(users[3], "t1")])
        live.delete_user(users[1])
    assert [user for user, _ in Recommender.open(store).audience("new", 4)] == users[3:7]


@pytest.mark.slow
def test_nothing_of_it_loads_torch(store: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from recsys.live.service import LiveUpdater; from recsys.eventlog.events import Listened\n"
        "from recsys.store.generation import Store; from recsys.recommender import open_store\n"
        "from recsys.live.rollback import rollback\n"
        "live = LiveUpdater(Store(Path(sys.argv[1])), open_store(Path(sys.argv[1])))\n"
        "assert live.record([Listened('u0', 't2')]).recorded == 1\n"
        "rollback(Path(sys.argv[1]), live.generation)\n"
        "print([m for m in ('torch', 'implicit', 'lightfm', 'faiss', 'torchaudio') if m in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# ---- deletions ---------------------------------------------------------------------------------------------------


def test_a_deleted_track_is_in_no_list(store: Path) -> None:
    upload, vectors = new_track(store, "new", "ambient")
    with opened(store) as live:
        live.record(heard("u0", "t2"))
        live.add(upload, vectors)
        row = Recommender.open(store).model.items.row("t5")
        assert {"t5", "new"} <= set(listed(live, "u0"))
        live.delete_track("t5")
        live.delete_track("new")
        assert live.gone_rows() == {row, 40}
        assert not {"t5", "new"} & set(shown(live, "u0"))
        assert live.uploads().n_shown == 0
        for track in ("t5", "new", "nothing"):
            with pytest.raises(NotFoundError):
                live.delete_track(track)
        assert "was deleted" in live.record(heard("u0", "t5")).refused[0][1]
        live.record(heard("u0", "t8"))
        assert not {"t5", "new"} & set(listed(live, "u0")), "a list that is made anew has them not at all"
        with pytest.raises(DataError, match="belongs to another track"):
            live.add(*new_track(store, "new", "jazz"))
        assert live.free_id("new") == "new-2"
        second, vectors = new_track(store, "new-2", "ambient")
        live.add(second, vectors)
        assert live.uploads().track_ids == ("new", "new-2"), "the first keeps its place"
        assert live.gone_rows() == {row, 40}
    recommender = Recommender.open(store)
    for user in ("u0", "u3", "u29", "stranger"):
        assert not {"t5", "new"} & {t.track_id for t in recommender.recommend(user, 200).tracks}
    assert "t5" not in {t.track_id for t in recommender.similar("t2", 39).tracks}
    assert "t5" not in {t.track_id for t in recommender.recommend_from_tracks(["t2"], 200).tracks}
    with pytest.raises(NotFoundError):
        recommender.track("t5")
    assert (recommender.status()["n_tracks"], recommender.status()["n_uploads"]) == (40, 1)


def test_a_deleted_user_is_forgotten(store: Path) -> None:
    secret = "u0-is-secret"
    with opened(store) as live:
        live.record([*heard("u0", "t2", "t5"), *heard(secret, "t1"), Listened("u0x", "t2", event_id="kept")])
        live.record([Listened(secret, "t4", event_id=f"{secret} 1")])
        live.delete_user(secret)
        live.delete_user("u0")
        live.delete_user("of whom nothing is known")
        for user in (secret, "u0"):
            assert live.list_of(user) is None
            assert live.is_gone_user(user)
        assert not live.is_gone_user("u1")
        assert live.list_of("u0x") is not None
        assert live.record([Listened(secret, "t4", event_id=f"{secret} 1")]).repeated == 1, "none comes back"
    with open_live(Store(store).live) as bare, bare.reading() as reading:
        lines = [line for _, line in reading.pairs("log")]
        assert len(lines) == 8, "numbers stay"
        kept = b"".join(line for line in lines if b"delete_user" not in line)
        assert secret.encode() not in kept
        assert kept.count(b'"removed"') == 4
        assert not any(secret.encode() in key for name in ("of_user", "lists", "heard", "tastes", "events")
                       for key, _ in reading.pairs(name))  # fmt: skip
    recommender = Recommender.open(store)
    assert recommender.recommend("u0").source == "popular"
    assert [t.track_id for t in recommender.recommend("u0").tracks] == [
        t.track_id for t in recommender.recommend("stranger").tracks
    ]
    with opened(store) as live:
        live.record(heard("u0", "t1"))
        assert listed(live, "u0") == folded(recommender, None, "t1"), "what was known before is not"
        upload, vectors = new_track(store, "new", "ambient")
        live.delete_user("u3")
        live.add(upload, vectors)
        assert live.list_of("u3") is None, "the generation's taste of them is not used"
        assert live.list_of("u6") is not None


# ---- other processes, other generations ---------------------------------------------------------------------------


def test_one_who_opened_before_sees_what_another_wrote(store: Path) -> None:
    with opened(store) as one, opened(store) as other:
        assert one.list_of("u0") is None
        other.record(heard("u0", "t2"))
        assert one.list_of("u0") == other.list_of("u0") is not None
        upload, vectors = new_track(store, "new", "jazz")
        other.add(upload, vectors)
        assert one.uploads().track_ids == ("new",)
        assert one.list_of("u2") == other.list_of("u2") is not None


def test_a_track_for_a_generation_that_is_past_is_refused(store: Path) -> None:
    upload, vectors = new_track(store, "new", "jazz")
    with opened(store) as live:
        current = Store(store).current()
        newer = current.with_name("29990101T000000.000000Z")
        current.rename(newer)
        Store(store).make_current(newer.name)
        with pytest.raises(GenerationMovedError, match="became current"):
            live.add(upload, vectors)
        assert live.version() <= 1
    with open_live(Store(store).live) as bare:
        assert bare is None or bare.last_seq() == 0


def test_a_store_that_cannot_be_written_is_read(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(store) as live:
        live.record(heard("u0", "t2"))
        known = live.list_of("u0")
    opening = __import__("lmdb").open

    def refuse(*paths: str, **options: object) -> object:
        if not options.get("readonly"):
            raise __import__("lmdb").ReadonlyError("Read-only file system")
        return opening(*paths, **options)

    monkeypatch.setattr("recsys.eventlog.lmdb_env.lmdb.open", refuse)
    with opened(store) as live:
        assert live.list_of("u0") == known
        with pytest.raises(ArtefactError, match="cannot be written"):
            live.record(heard("u0", "t5"))
    Store(store).live.unlink()
    with opened(store) as live:
        assert (live.list_of("u0"), live.version(), live.uploads().track_ids) == (None, 0, ())
        assert live.gone_rows() == frozenset()
